"""Border rule "true": real synapses alone, counted position by position.

A synapse is real where a weight meets a value of the body; what meets the zeros of a padding is none. With weights of
one, a convolution's adjoint applied to ones gives the number of outputs that each position reaches, its fan-out, and

    accumulates = sum over positions (spikes at the position x its fan-out)

which is what adding up spike by spike gives. Reflected and repeated borders are real: those weights read a neuron.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from spikingir.graph.graph import Graph, Node, Wave
from spikingir.inputs import pad_to_multiple
from spikingir.spiking.network import LayerTrace

_STEPS = 255  # of an activation in 8 bits


class Arrivals(NamedTuple):
    """What reaches a weighted operation, by input channel.

    Attributes:
        macs: Synapses, (C,): multiply-accumulates of the ANN.
        spikes: Spikes that arrive, (B, C).
        operations: The same, each times its fan-out, (B, C).
    """

    macs: Tensor
    spikes: Tensor
    operations: Tensor


def positions(layer: LayerTrace) -> Tensor:
    """Spikes of each neuron over all steps.

    Shape:
        (B, C, H, W).

    Raises:
        ValueError: The trace was made without them.
    """
    if layer.counts is not None:
        return layer.counts
    if layer.trains is None:
        raise ValueError(
            f"the trace of '{layer.name}' has no spikes per position; trace with trains=True, or tiled with counts=True"
        )
    return layer.trains.abs().sum(0, dtype=torch.int32)


def count_arrivals(
    graph: Graph, shapes: Mapping[str, tuple[int, ...]], spikes: Mapping[str, Tensor]
) -> dict[str, Arrivals]:
    """What reaches each weighted operation of a body, by name.

    Args:
        graph: The body.
        shapes: (C, H, W) of every node's output.
        spikes: Spikes of each neuron over all steps, by layer; empty for a network without.

    Shape:
        ``spikes``: (B, C, H, W).

    Raises:
        ValueError: The spikes are those of other layers.
    """
    batch = len(next(iter(spikes.values()))) if spikes else 1
    found: dict[str, Arrivals] = {}

    def visit(node: Node, read: Sequence[tuple[Tensor, Tensor]], owned: bool) -> tuple[Tensor, Tensor]:
        """Where there is something real on a wire, and how many spikes."""
        shape = shapes[node.name]
        if node.role == "moves":
            present, fired = (node.operation.count(node, part) for part in zip(*read, strict=True))
            return present.clamp(max=1), fired
        if node.role == "weighs":
            present, arriving = read[0]
            fan = node.operation.fan_out(node, graph.weight(node), shapes[node.inputs[0]], shape)
            found[node.name] = Arrivals(
                (present[0] * fan).sum((-2, -1), dtype=torch.float64).round().long(),
                arriving.sum((-2, -1), dtype=torch.float64),
                (arriving * fan).sum((-2, -1), dtype=torch.float64),
            )
        if node.name not in spikes:
            return torch.ones(1, *shape), torch.zeros(()).expand(batch, *shape)
        if spikes[node.name].shape[1:] != shape:
            raise ValueError(
                f"the spikes of '{node.name}' have the shape {tuple(spikes[node.name].shape[1:])}; expected {shape}"
            )
        return torch.ones(1, *shape), spikes[node.name].float()

    graph.walk(visit)
    return found


class Active(NamedTuple):
    """Multiply-accumulates of an operation that multiply something other than zero, mean over a batch of images.

    Attributes:
        exact: With activations as they are.
        in_8_bits: With what the operation reads on a grid of 255 steps, from its least to its largest value.
    """

    exact: float
    in_8_bits: float


@torch.no_grad()
def count_active(graph: Graph, image: Tensor) -> dict[str, Active]:
    """Multiply-accumulates of a conventional network that multiply something other than zero, by operation.

    Args:
        graph: Its body, or that of a spiking network, of which each neuron is taken for a ReLU.
        image: What it reads: the image, and the noise level where it takes one.

    Shape:
        ``image``: (B, C, H, W).
    """
    found: dict[str, Active] = {}

    def linear(node: Node, inputs: Sequence[Wave]) -> Wave:
        wave = graph.linear(node, inputs)
        if node.role == "weighs" and graph.shares.get(node.name, 1.0) == 0:
            found[node.name] = Active(0.0, 0.0)
        elif node.role == "weighs":
            read = inputs[0].constant
            assert read is not None
            assert wave.constant is not None
            fan = node.operation.fan_out(
                node, graph.weight(node), tuple(read.shape[1:]), tuple(wave.constant.shape[1:])
            ).to(read.device)
            found[node.name] = Active(*(_reached(active, fan) for active in (read != 0, read.abs() > _half_step(read))))
        return wave

    graph.run(pad_to_multiple(image, graph.multiple), graph.activate, linear)
    return found


def _reached(active: Tensor, fan: Tensor) -> float:
    return (active.sum(1) * fan).sum(dtype=torch.float64).item() / len(active)


def _half_step(read: Tensor) -> Tensor:
    """What is no larger rounds to zero on a grid of 255 steps between the least and the largest value, 0 included."""
    return (read.max().clamp_min(0) - read.min().clamp_max(0)) / (2 * _STEPS)
