"""How often each operation of a body multiplies and accumulates: what every energy column is priced from.

By the border rule "full" an operation costs its output pixels times its weights, as if nothing were lost at the
padding. A spike then has the same fan-out wherever it falls, so spikes per channel suffice: of a channel that fired
``s`` times on ``P`` pixels and that ``w`` weights read, an operation with ``Q`` output pixels accumulates ``s w Q / P``
times. Padding, cropping and nearest-neighbour resizing keep ``s / P``. By the rule "true" only real synapses count,
which takes the spikes of each position: :mod:`spikingir.energy.synapses`.

Weighted operations are convolutions, scalings (one weight per channel), average pooling and resizing (convolutions
of constant weights, one channel at a time). A network is charged for the operations of its own graph: where folding
had to put scalings in (sums of branches with thresholds of their own), the folded form costs those too, its ANN not.
Functions of the user's own on the raw image are not counted.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from spikingir.deploy.folded import FoldedNetwork
from spikingir.energy.synapses import Arrivals, count_arrivals, positions
from spikingir.graph.errors import TilingError
from spikingir.graph.graph import Carried, Graph, Node
from spikingir.graph.trace import graph_of
from spikingir.spiking.network import SpikingNetwork, Trace

BorderRule = Literal["full", "true"]


@dataclass(frozen=True)
class OperationCount:
    """How often one weighted operation computes for one image, mean over the batch.

    Attributes:
        name: The operation's name in the body.
        macs: Multiply-accumulates of the ANN.
        image_macs: Those of them that read the image, which is constant: done once.
        spiking_synapses: Synapses that spikes cross; a skip has one for each neuron where folding scales it.
        synaptic_operations: Accumulates: spikes that arrive, each times its fan-out.
        analog_macs: Multiply-accumulates on analog sums, over all steps.
        arriving_spikes: Spikes that arrive, each once.
    """

    name: str
    macs: int
    image_macs: int
    spiking_synapses: int
    synaptic_operations: float
    analog_macs: int
    arriving_spikes: float


def count_macs(network: nn.Module, size: tuple[int, int], channels: int | None = None) -> int:
    """Multiply-accumulates of a conventional network for one image, border rule "full".

    Args:
        network: A body or restoration network; or a spiking or folded one, whose ANN is meant.
        size: Height and width of the image, rounded up to what the network pads it to.
        channels: Channels of the image, where the network does not say.

    Raises:
        ValueError: The number of channels is not known.
        ConversionError: The body cannot be traced.
    """
    graph = graph_of(network, channels)
    if isinstance(network, (SpikingNetwork, FoldedNetwork)):
        with suppress(TilingError):  # one without a stride runs on whole images alone, and pads none
            graph = replace(graph, multiple=graph.stride(graph.reaches()))
    return sum(macs_by_operation(graph, size).values())


def macs_by_operation(graph: Graph, size: tuple[int, int]) -> dict[str, int]:
    """Multiply-accumulates of each weighted operation of a body for one image, border rule "full".

    Args:
        graph: The body.
        size: Height and width of the image.
    """
    shapes = graph.shapes(size)
    return {
        node.name: round(_share(graph, node.name) * int(_macs(graph, node, shapes).sum()))
        for node in graph.nodes
        if node.role == "weighs"
    }


def count_operations(
    network: SpikingNetwork | FoldedNetwork, trace: Trace, border: BorderRule = "full"
) -> tuple[OperationCount, ...]:
    """How often each weighted operation of a body multiplies and accumulates.

    A channel that carries analog sums is multiplied densely at every step; of any other, spikes are accumulated and
    what is constant is multiplied once.

    Args:
        network: The network that fired.
        trace: What it did.
        border: ``full`` charges padding as if it were image; ``true`` real synapses alone, as brute force would.

    Raises:
        ValueError: The trace is of another network, or has no spikes per position, which ``true`` needs.
    """
    layers = {layer.name: layer for layer in trace.layers}
    graph = network.graph
    if sorted(layers) != sorted(graph.neurons):
        raise ValueError(f"the trace has the layers {', '.join(layers)}; the network has {', '.join(graph.neurons)}")
    shapes = graph.shapes(trace.image_size)
    carried = graph.carried(shapes)
    steps, batch = trace.layers[0].spikes.shape[:2]
    counts = []
    real: Mapping[str, Arrivals] = {}
    if border == "true":
        real = count_arrivals(graph, shapes, {name: positions(layers[name]) for name in layers})

    def density(node: Node, read: list[Tensor]) -> Tensor:
        """Spikes per pixel over all steps, (B, C); a shuffled channel is a mean."""
        channels, height, width = shapes[node.name]
        if node.role == "moves":
            return node.operation.per_channel(node, read, lambda parts: parts.mean(-1), lambda parts: parts.sum(-1))
        if node.role == "weighs":
            macs = _macs(graph, node, shapes)
            # spikes that padding repeats or cropping drops keep their density, so it is the mean that arrives
            arriving = read[0] * (shapes[node.inputs[0]][1] * shapes[node.inputs[0]][2])
            arrivals = real.get(node.name) or Arrivals(macs, arriving, read[0] * macs)
            count = _count(node.name, carried[node.inputs[0]], arrivals, steps)
            counts.append(replace(count, macs=round(_share(graph, node.name) * count.macs)))
        if node.role != "neuron":
            return torch.zeros(batch, channels, dtype=torch.float64)
        layer = layers[node.name]
        if layer.spikes.shape[1:] != (batch, channels) or layer.neurons != channels * height * width:
            raise ValueError(f"the trace of '{node.name}' is not that of a layer of {channels}x{height}x{width}")
        return layer.spikes.cpu().sum(0).double() / (height * width)

    graph.each(density)
    return tuple(counts)


def operations_per_layer(network: SpikingNetwork, size: tuple[int, int]) -> dict[str, float]:
    """Synaptic operations that each layer causes when all its neurons fire once, border rule "full".

    Args:
        network: The network.
        size: Height and width of the image.
    """
    weight = next(network.parameters())
    _, trace = network.trace(weight.new_zeros(1, network.config.input_channels, *size))

    def alone(name: str) -> Trace:
        """One spike of each neuron of a layer, none of the others."""
        layers = []
        for layer in trace.layers:
            spikes = torch.zeros_like(layer.spikes)
            spikes[0] = layer.neurons // layer.spikes.shape[2] * (layer.name == name)
            layers.append(replace(layer, spikes=spikes))
        return replace(trace, layers=tuple(layers))

    return {
        layer.name: sum(count.synaptic_operations for count in count_operations(network, alone(layer.name)))
        for layer in trace.layers
    }


def _share(graph: Graph, name: str) -> float:
    """Share of an operation's multiplications that the conventional network has."""
    return 0.0 if name in graph.scalings else graph.shares.get(name, 1.0)


def _count(name: str, read: Carried, arrivals: Arrivals, steps: int) -> OperationCount:
    macs, once = arrivals.macs, arrivals.macs * ~read.analog
    return OperationCount(
        name,
        macs=int(macs.sum()),
        image_macs=int((once * read.image).sum()),
        spiking_synapses=int((once * read.spikes).sum()),
        synaptic_operations=(arrivals.operations * ~read.analog).sum(1).mean().item(),
        analog_macs=steps * int((macs * read.analog).sum()),
        arriving_spikes=(arrivals.spikes * ~read.analog).sum(1).mean().item(),
    )


def _macs(graph: Graph, node: Node, shapes: Mapping[str, tuple[int, ...]]) -> Tensor:
    """Multiply-accumulates of the ANN on each input channel of a weighted operation, (C,)."""
    source, target = shapes[node.inputs[0]], shapes[node.name]
    return torch.full(source[:1], node.operation.macs(node, graph.weight(node), source, target))
