"""Border rule "true": real synapses alone, counted position by position.

A synapse is real where a weight meets a value of the body; what meets the zeros of a padding is none. With weights of
one, a convolution's adjoint applied to ones gives the number of outputs that each position reaches, its fan-out, and

    accumulates = sum over positions (spikes at the position x its fan-out)

which is what adding up spike by spike gives. Reflected and repeated borders are real: those weights read a neuron.
"""

from collections.abc import Mapping, Sequence
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from spikingir.evaluation.body import Body
from spikingir.spiking.formation import pad_to_multiple
from spikingir.spiking.graph import LINEAR, Node, Wave, Weights, apply_linear, moves_spikes, run_graph
from spikingir.spiking.network import LayerTrace

RESIZING_TAPS = {"bilinear": 4, "bicubic": 16}
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


def fan_out(node: Node, weight: Tensor | None, source: tuple[int, ...], target: tuple[int, ...]) -> Tensor:
    """Number of outputs that each position of an input channel reaches; float32, exact.

    Args:
        node: A weighted operation.
        weight: Its weight, where it has one.
        source: (C, H, W) of its input.
        target: (C, H, W) of its output.

    Shape:
        Result: (H, W).
    """
    if node.op == "interpolate":  # its taps, repeated ones at the border included
        return torch.full(source[1:], RESIZING_TAPS[node.options["mode"]] * prod(target[1:]) / prod(source[1:]))
    if node.op == "affine":  # a sign or the carrier of a bias multiplies nothing
        assert weight is not None
        return torch.full(source[1:], 0.0 if (weight.abs() == 1).all() else 1.0)
    options, outputs, one = {**node.options, "groups": 1}, 1, None
    if weight is not None:
        outputs = weight.shape[1] if node.op == "conv_transpose2d" else weight.shape[0] // node.options["groups"]
        one = torch.ones(1, 1, *weight.shape[2:])
    with torch.inference_mode(False), torch.enable_grad():
        blank = torch.zeros(1, 1, *source[1:], requires_grad=True)
        if node.op == "avg_pool2d":
            window, stride, padding, ceil = (options[key] for key in ("kernel_size", "stride", "padding", "ceil_mode"))
            reached = functional.avg_pool2d(blank, window, stride, padding, ceil, divisor_override=1)
        else:
            reached = LINEAR[node.op].run([blank], options, one)
        (fan,) = torch.autograd.grad(reached.sum(), blank)
    return outputs * fan[0, 0]


def count_arrivals(
    body: Body, shapes: Mapping[str, tuple[int, ...]], spikes: Mapping[str, Tensor]
) -> dict[str, Arrivals]:
    """What reaches each weighted operation of a body, by name.

    Args:
        body: The body.
        shapes: (C, H, W) of every node's output.
        spikes: Spikes of each neuron over all steps, by layer; empty for a network without.

    Shape:
        ``spikes``: (B, C, H, W).

    Raises:
        ValueError: The spikes are those of other layers.
    """
    last_reader = {name: i for i, node in enumerate(body.nodes) for name in node.inputs}
    batch = len(next(iter(spikes.values()))) if spikes else 1
    wires: dict[str, tuple[Tensor, Tensor]] = {}  # where there is something real, and how many spikes
    found: dict[str, Arrivals] = {}
    for i, node in enumerate(body.nodes):
        shape = shapes[node.name]
        present, fired = torch.ones(1, *shape), torch.zeros(()).expand(batch, *shape)
        if node.name in spikes:
            if spikes[node.name].shape[1:] != shape:
                raise ValueError(
                    f"the spikes of '{node.name}' have the shape {tuple(spikes[node.name].shape[1:])}; expected {shape}"
                )
            fired = spikes[node.name].float()
        elif node.op in LINEAR:
            read = [wires[name] for name in node.inputs]
            if moves_spikes(node):
                run = LINEAR["add" if node.op == "sub" else node.op].run
                present = run([wire[0] for wire in read], node.options, None).clamp(max=1)
                fired = run([wire[1] for wire in read], node.options, None)
            else:
                real, arriving = read[0]
                fan = fan_out(node, body.weights.get(node.name, (None,))[0], shapes[node.inputs[0]], shape)
                found[node.name] = Arrivals(
                    (real[0] * fan).sum((-2, -1), dtype=torch.float64).round().long(),
                    arriving.sum((-2, -1), dtype=torch.float64),
                    (arriving * fan).sum((-2, -1), dtype=torch.float64),
                )
        wires[node.name] = (present, fired)
        wires = {name: wire for name, wire in wires.items() if last_reader.get(name, -1) > i}
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
def count_active(body: Body, image: Tensor) -> dict[str, Active]:
    """Multiply-accumulates of a conventional network that multiply something other than zero, by operation.

    Args:
        body: Its body, or that of a spiking network, of which each neuron is taken for a ReLU.
        image: What it reads: the image, and the noise level where it takes one.

    Shape:
        ``image``: (B, C, H, W).
    """
    found: dict[str, Active] = {}

    def relu(node: Node, current: Wave, owned: bool) -> Wave:
        assert current.constant is not None
        return current if node.name in body.signed else Wave(None, current.constant.relu())

    def apply(node: Node, inputs: Sequence[Wave], weights: Weights) -> Wave:
        wave = apply_linear(node, inputs, weights)
        read = inputs[0].constant
        if not moves_spikes(node):
            assert read is not None
            assert wave.constant is not None
            weight = None if node.weights is None else weights[node.weights][0]
            fan = fan_out(node, weight, tuple(read.shape[1:]), tuple(wave.constant.shape[1:])).to(read.device)
            found[node.name] = Active(*(_reached(active, fan) for active in (read != 0, read.abs() > _half_step(read))))
        return wave

    run_graph(body.nodes, body.weights, pad_to_multiple(image, body.multiple), relu, body.raw, apply)
    return found


def _reached(active: Tensor, fan: Tensor) -> float:
    return (active.sum(1) * fan).sum(dtype=torch.float64).item() / len(active)


def _half_step(read: Tensor) -> Tensor:
    """What is no larger rounds to zero on a grid of 255 steps between the least and the largest value, 0 included."""
    return (read.max().clamp_min(0) - read.min().clamp_max(0)) / (2 * _STEPS)
