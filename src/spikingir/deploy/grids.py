"""How large a sum can become, and the grid that keeps it exact.

A wire carries whole spikes, counts of a window, weighted sums of them, or what follows from the image: each has a
largest magnitude, and bits behind the point. Numbers on a grid ``2^-k`` of magnitude below ``2^m`` take ``m + k`` bits,
so ``k`` follows from the bound of a sum and from what holds it: float32 (24 bits), integers of 32 bits (float64 in
torch), or float64 (52 bits). Each layer takes the first of these in which its grid is fine.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from spikingir.deploy.folded import MAX_IMAGE, FoldedNetwork
from spikingir.graph.graph import Node

SINGLE_BITS, INTEGER_BITS, DOUBLE_BITS = 24, 30, 52
"""Bits of a float32, of an integer of 32 bits with its sign and one to spare, of a float64."""

GRID_BITS = 14
"""Fineness of a grid unless asked."""

_LOST_BY_HALF, _LOST_BY_ANY = 4, 10
"""Bits behind the point that half of a layer's channels, and any of them, lose at most before the layer takes what
holds more. A channel with a small threshold may lose more than others: what it fires weighs as little. Whoever asks for
a grid finer than the usual one loses none in float32."""


@dataclass(frozen=True)
class Bound:
    """What a wire carries at most at one step, per channel.

    Attributes:
        spikes: Largest magnitude of its part that spikes cause.
        constant: Largest magnitude of its constant part.
        bits: Bits behind the point of its numbers; 0 of whole spikes.
        analog: Whether its first part is weighted sums.
    """

    spikes: Tensor
    constant: Tensor
    bits: int
    analog: bool = False


@dataclass(frozen=True)
class Sums:
    """What the sums of an operation reach, per channel.

    Attributes:
        window: Largest magnitude over a whole window.
        exact: Largest magnitude of what is multiplied in float64 and then rounded, at once: constants, analog sums.
        bits: Bits behind the point of what is multiplied so.
    """

    window: Tensor
    exact: Tensor
    bits: int

    def of_channels(self, channels: int) -> "Sums":
        """The largest of the sums that a pixel shuffle interleaves, for each channel behind it."""
        window, exact = (each.view(channels, -1).amax(1) for each in (self.window, self.exact))
        return Sums(window, exact, self.bits)


def together(parts: Sequence[Sums], channels: int) -> Sums:
    """What several operations reach whose sums are added, with one more for the initial membrane and the level."""
    each = [part.of_channels(channels) for part in parts]
    window = torch.stack([part.window for part in each]).sum(0) + 1
    return Sums(window, torch.stack([part.exact for part in each]).amax(0), max(part.bits for part in each))


def moved(node: Node, inputs: Sequence[Bound]) -> Bound:
    """Bound of what moves spikes: of interleaved channels the largest, of summed ones the sum."""
    spikes, constant = (
        node.operation.per_channel(node, part, _largest, lambda parts: parts.sum(-1))
        for part in ([bound.spikes for bound in inputs], [bound.constant for bound in inputs])
    )
    return Bound(spikes, constant, max(bound.bits for bound in inputs), any(bound.analog for bound in inputs))


def choose_grid(
    sums: Sums,
    finest: int,
    held_in: Sequence[int],
    refuse: Callable[[float], Exception],
    *,
    any_grid: bool = False,
) -> tuple[Tensor, int]:
    """``2^k`` per channel, as fine as ``finest``, and the bits of what holds the sums.

    Args:
        sums: What they reach.
        finest: Largest ``k``.
        held_in: Bits of what may hold them, in order of preference.
        refuse: Makes the error, of the largest sum.
        any_grid: Whether a coarse grid will do, as where weights have few bits of their own.

    Raises:
        Exception: No grid is fine enough in any of them.
    """
    # products of what lies on a grid already, before they are rounded to this one
    products = DOUBLE_BITS - sums.bits - _magnitude(sums.exact)
    for bits in held_in:
        exponent = torch.minimum(bits - _magnitude(sums.window), products).clamp_max(finest)
        least, middle = int(exponent.min()), int(exponent.median())
        fine = least >= finest - _LOST_BY_ANY and middle >= finest - _LOST_BY_HALF
        if bits == SINGLE_BITS and finest > GRID_BITS:
            fine = least == finest
        if least >= 1 and (fine or any_grid or bits == held_in[-1]):
            return torch.exp2(exponent), bits
    raise refuse(float(sums.window.max()))


def largest_numbers(network: FoldedNetwork) -> dict[str, float]:
    """Largest magnitude of each layer's membranes, as whole multiples of their grid."""
    config, found = network.config, dict[str, float]()
    bounds, grids = dict[str, Bound](), dict[str, Tensor]()
    for node, shape in zip(network.nodes, network.graph.shapes().values(), strict=True):
        read, one = [bounds[name] for name in node.inputs], torch.ones(shape[0], dtype=torch.float64)
        kernel, operation = network.kernel(node.name), node.operation
        grids[node.name] = one
        if node.role == "source":
            bounds[node.name] = Bound(0 * one, MAX_IMAGE * one, 0)
        elif node.role == "neuron":
            most = network.levels.get(node.name, config.time_steps)
            membrane = read[0].spikes + most * read[0].constant
            found[node.name] = float((grids[node.inputs[0]] * membrane).max())
            bounds[node.name] = Bound(most * one, 0 * one, 0)
        elif kernel is None:
            bounds[node.name] = moved(node, read)
            grids[node.name] = operation.per_channel(node, [grids[name] for name in node.inputs], _largest, _largest)
        else:
            spikes = operation.bound(node, kernel.spike.double(), read[0].spikes)
            if not config.phased:  # the step after the window
                spikes = spikes + operation.bound(node, kernel.extended.double(), read[0].spikes.clamp_max(1))
            constant = operation.bound(node, kernel.analog, read[0].constant)
            if kernel.bias is not None:
                constant = constant + kernel.bias.abs()
            bounds[node.name] = Bound(spikes, constant, 0)
            grids[node.name] = one if kernel.grid is None else kernel.grid
    return found


def _largest(parts: Tensor) -> Tensor:
    return parts.amax(-1)


def _magnitude(largest: Tensor) -> Tensor:
    """Bits before the point."""
    return largest.clamp_min(1).log2().ceil()
