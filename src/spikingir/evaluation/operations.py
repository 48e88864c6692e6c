"""How often each operation of a body multiplies and accumulates: what every energy column is priced from.

By the border rule "full" an operation costs its output pixels times its weights, as if nothing were lost at the
padding. A spike then has the same fan-out wherever it falls, so spikes per channel suffice: of a channel that fired
``s`` times on ``P`` pixels and that ``w`` weights read, an operation with ``Q`` output pixels accumulates ``s w Q / P``
times. Padding, cropping and nearest-neighbour resizing keep ``s / P``. By the rule "true" only real synapses count,
which takes the spikes of each position: :mod:`spikingir.evaluation.synapses`.

Weighted operations are convolutions, scalings (one weight per channel), average pooling and resizing (convolutions
of constant weights, one channel at a time). A network is charged for the operations of its own graph: where folding
had to put scalings in (sums of branches with thresholds of their own), the folded form costs those too, its ANN not.
Functions of the user's own on the raw image are not counted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from spikingir.evaluation.body import Body
from spikingir.evaluation.synapses import RESIZING_TAPS, Arrivals, count_arrivals, positions
from spikingir.spiking.folded import FoldedNetwork
from spikingir.spiking.graph import LINEAR, Node, Weights, moves_spikes
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
        size: Height and width of the image.
        channels: Channels of the image, where the network does not say.

    Raises:
        ValueError: The number of channels is not known.
        ConversionError: The body cannot be traced.
    """
    return sum(macs_by_operation(Body.of(network, channels), size).values())


def macs_by_operation(body: Body, size: tuple[int, int]) -> dict[str, int]:
    """Multiply-accumulates of each weighted operation of a body for one image, border rule "full".

    Args:
        body: The body.
        size: Height and width of the image.
    """
    shapes = body.shapes(size)
    weighted = (node for node in body.nodes if node.op in LINEAR and not moves_spikes(node))
    return {
        node.name: 0 if node.name in body.scalings else int(_macs(node, body.weights, shapes).sum())
        for node in weighted
    }


class _Wire(NamedTuple):
    """What a wire carries, channel by channel.

    Attributes:
        density: Spikes per pixel over all steps, (B, C).
        spiking: Whether a channel carries spikes, (C,).
        image: Whether a channel carries something of the image, constant in time, (C,).
        analog: Whether a channel carries analog sums, (C,); it may carry the others besides.
    """

    density: Tensor
    spiking: Tensor
    image: Tensor
    analog: Tensor


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
    neurons = [node.name for node in network.nodes if node.op == "neuron"]
    if sorted(layers) != sorted(neurons):
        raise ValueError(f"the trace has the layers {', '.join(layers)}; the network has {', '.join(neurons)}")
    body = Body.of(network)
    shapes = body.shapes(trace.image_size)
    steps, batch = trace.layers[0].spikes.shape[:2]
    wires: dict[str, _Wire] = {}
    counts = []
    real: Mapping[str, Arrivals] = {}
    if border == "true":
        real = count_arrivals(body, shapes, {name: positions(layers[name]) for name in layers})
    for node in body.nodes:
        channels, height, width = shapes[node.name]
        silent, no = torch.zeros(batch, channels, dtype=torch.float64), torch.zeros(channels, dtype=torch.bool)
        if node.op in ("input", "raw"):
            wires[node.name] = _Wire(silent, no, ~no, no)
        elif node.op == "neuron":
            layer = layers[node.name]
            if layer.spikes.shape[1:] != silent.shape or layer.neurons != channels * height * width:
                raise ValueError(f"the trace of '{node.name}' is not that of a layer of {channels}x{height}x{width}")
            wires[node.name] = _Wire(layer.spikes.cpu().sum(0).double() / (height * width), ~no, no, no)
        elif moves_spikes(node):
            wires[node.name] = _moved(node, [wires[name] for name in node.inputs])
        else:
            read = wires[node.inputs[0]]
            macs = _macs(node, body.weights, shapes)
            # spikes that padding repeats or cropping drops keep their density, so it is the mean that arrives
            height, width = shapes[node.inputs[0]][1:]
            arrivals = real.get(node.name) or Arrivals(macs, read.density * (height * width), read.density * macs)
            count = _count(node.name, read, arrivals, steps)
            counts.append(replace(count, macs=0) if node.name in body.scalings else count)
            groups = node.options.get("groups", len(macs))
            image, changing = (
                flags.view(groups, -1).any(1).repeat_interleave(channels // groups)
                for flags in (read.image, read.spiking | read.analog)
            )
            wires[node.name] = _Wire(silent, no, image, changing)
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


def _count(name: str, read: _Wire, arrivals: Arrivals, steps: int) -> OperationCount:
    macs, once = arrivals.macs, arrivals.macs * ~read.analog
    return OperationCount(
        name,
        macs=int(macs.sum()),
        image_macs=int((once * read.image).sum()),
        spiking_synapses=int((once * read.spiking).sum()),
        synaptic_operations=(arrivals.operations * ~read.analog).sum(1).mean().item(),
        analog_macs=steps * int((macs * read.analog).sum()),
        arriving_spikes=(arrivals.spikes * ~read.analog).sum(1).mean().item(),
    )


def _macs(node: Node, weights: Weights, shapes: Mapping[str, tuple[int, ...]]) -> Tensor:
    """Multiply-accumulates of the ANN on each input channel of a weighted operation, (C,)."""
    (channels, *source), (produced, *target) = shapes[node.inputs[0]], shapes[node.name]
    pixels, options, weight = prod(target), node.options, weights.get(node.name, (None,))[0]
    if node.op in ("conv2d", "conv_transpose2d"):
        assert weight is not None
        if node.op == "conv_transpose2d":  # each input pixel meets each weight once
            pixels = prod(source)
        per_channel = weight.numel() // channels
    elif node.op == "affine":
        assert weight is not None
        # a sign or the carrier of a bias multiplies nothing
        per_channel = 0 if (weight.abs() == 1).all() else produced // channels
    elif node.op == "avg_pool2d":
        per_channel = prod(options["kernel_size"])
    else:
        per_channel = RESIZING_TAPS[options["mode"]]
    return torch.full((channels,), per_channel * pixels)


def _moved(node: Node, wires: Sequence[_Wire]) -> _Wire:
    """What a wire carries after an operation that only moves spikes."""
    if node.op in ("pad", "interpolate"):
        return wires[0]
    if node.op in ("add", "sub"):
        first, second = wires
        flags = (one | other for one, other in zip(first[1:], second[1:], strict=True))
        return _Wire(first.density + second.density, *flags)
    return _Wire(*(_moved_field(node, fields) for fields in zip(*wires, strict=True)))


def _moved_field(node: Node, fields: Sequence[Tensor]) -> Tensor:
    """One field, (B, C) or (C,), through a concatenation, slice or shuffle; a shuffled channel is a mean or any."""
    if node.op == "concat":
        return torch.cat(list(fields), -1)
    (field,) = fields
    if node.op == "slice":
        return field[..., slice(*node.options["channels"])]
    area = node.options["factor"] ** 2
    if node.op == "pixel_unshuffle":
        return field.repeat_interleave(area, -1)
    parts = field.view(*field.shape[:-1], -1, area)
    return parts.any(-1) if field.dtype == torch.bool else parts.mean(-1)
