"""How the spikes of a phased window count: unary, each as one; binary, that of step t as ``2^(T-t)``.

A layer of ``L`` levels gives ``n`` in 0..L (signed: -L..L). Unary: ``L = T``, and n spikes leave one per step, from the
first step on. Binary: ``L = 2^m - 1`` with ``m <= T`` activation bits, and the bits of n leave one per step, most
significant first, in the last m of the T steps. The wires carry 0/1 spikes in both.

Source:
    Kim et al. 2018, "Deep neural networks with weighted spikes"; Wang et al. 2021, radix encoding.
"""

from typing import get_args

import torch
from torch import Tensor

from spikingir.errors import InputError
from spikingir.spiking.schedule import Coding as Coding

MOST_BITS = 8
"""Activation bits and time steps of a binary code, at most: counts are kept in bytes."""


def check_coding(coding: str, time_steps: int, phased: bool) -> None:
    """Whether a coding exists and fits the schedule.

    Raises:
        ValueError: It does not.
    """
    if coding not in get_args(Coding):
        raise InputError(f"unknown coding {coding!r}; expected {' or '.join(get_args(Coding))}")
    if coding == "binary" and not phased:
        raise InputError("the binary code needs the phased schedule: a spike's weight depends on its step")
    if coding == "binary" and time_steps > MOST_BITS:
        raise InputError(f"time_steps is {time_steps}; the binary code has at most {MOST_BITS}")


def levels(coding: Coding, time_steps: int, activation_bits: int | None) -> int:
    """Levels ``L`` of a layer: ``T`` (unary) or ``2^m - 1`` (binary).

    Args:
        coding: The code.
        time_steps: ``T``.
        activation_bits: ``m`` of a binary layer; ``T`` unless given.

    Raises:
        ValueError: More bits than steps, or fewer than one.
    """
    if coding == "unary":
        return time_steps
    bits = time_steps if activation_bits is None else activation_bits
    if not 1 <= bits <= time_steps:
        raise InputError(f"activation_bits is {bits}; a binary layer has 1 to T = {time_steps}")
    return int(2**bits - 1)


def spike_trains(counts: Tensor, coding: Coding, time_steps: int) -> Tensor:
    """The spikes of a window of each neuron, step by step.

    Args:
        counts: ``n`` of each neuron, whole numbers.
        coding: The code.
        time_steps: ``T``.

    Shape:
        (B, C, H, W) to (T, B, C, H, W) in {-1, 0, 1}.
    """
    return torch.stack([counts.sign() * fired for fired in _fired(counts, coding, time_steps)])


def spikes_per_step(counts: Tensor, coding: Coding, time_steps: int) -> Tensor:
    """How many neurons of each channel fire at each step of a window, without the spikes themselves.

    Shape:
        (B, C, H, W), whole numbers, to (T, B, C), int64.
    """
    fired = _fired(counts, coding, time_steps)
    return torch.stack([step.sum((-2, -1), dtype=torch.int32) for step in fired]).long()


def _fired(counts: Tensor, coding: Coding, time_steps: int) -> list[Tensor]:
    """Whether each neuron fires, step by step."""
    size = counts.abs()
    if coding == "unary":
        return [size > step for step in range(time_steps)]
    whole = size.to(torch.int32)
    return [(whole >> (time_steps - 1 - step) & 1).bool() for step in range(time_steps)]
