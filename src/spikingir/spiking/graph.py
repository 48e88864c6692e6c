"""A body as data: nodes in order of execution, each an operation of a closed set.

Between neurons everything is linear and acts on each time step alone, so a value is kept as two parts (a
:class:`Wave`): what the spikes carry, one tensor per step, and what is constant in time (the image through the
first convolution, biases, skips from the input). Operations run on both, without bias on the first. This is what makes
"the bias is the chain's response to zero spikes, applied at t <= T only" hold for every graph, and the first
convolution run once. A network without spikes (the ANN, the phased schedule) is the constant part alone.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

Weights = Mapping[str, tuple[Tensor, Tensor | None]]


class Wave(NamedTuple):
    """A value on a wire, in two parts; a part is None where it is zero.

    The spiking part is ``(S, B, C, H, W)``, the constant part ``(B, C, H, W)``, or ``(1, C, 1, 1)`` beside spikes.
    """

    spikes: Tensor | None
    constant: Tensor | None


@dataclass(frozen=True)
class Node:
    """One operation of a body.

    Attributes:
        name: Unique name, as in the network it came from.
        op: Key of :data:`LINEAR`, or ``input``, ``raw`` or ``neuron``.
        inputs: Names of the nodes it reads.
        options: Its settings, plain values only.
        weights: Name of its weights (several nodes may share one), or None.
    """

    name: str
    op: str
    inputs: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    weights: str | None = None


@dataclass(frozen=True)
class Operation:
    """A linear operation without its bias.

    Attributes:
        run: From inputs, options and weight to the output.
        pointwise: Whether a constant that is the same at all pixels stays so.
        routing: Whether spikes only change place, so that the next weighted operation still reads 0/1.
    """

    run: Callable[[Sequence[Tensor], Mapping[str, Any], Tensor | None], Tensor]
    pointwise: bool = False
    routing: bool = False


def _conv2d(x: Sequence[Tensor], o: Mapping[str, Any], weight: Tensor | None) -> Tensor:
    assert weight is not None
    return functional.conv2d(x[0], weight, None, o["stride"], o["padding"], o["dilation"], o["groups"])


def _conv_transpose2d(x: Sequence[Tensor], o: Mapping[str, Any], weight: Tensor | None) -> Tensor:
    assert weight is not None
    return functional.conv_transpose2d(
        x[0], weight, None, o["stride"], o["padding"], o["output_padding"], o["groups"], o["dilation"]
    )


def _affine(x: Sequence[Tensor], o: Mapping[str, Any], weight: Tensor | None) -> Tensor:
    assert weight is not None
    return x[0] * weight.view(1, -1, 1, 1)


def _interpolate(x: Sequence[Tensor], o: Mapping[str, Any], weight: Tensor | None) -> Tensor:
    size = x[1].shape[-2:] if len(x) == 2 else o.get("size")
    return functional.interpolate(
        x[0],
        size=size,
        scale_factor=o.get("scale_factor"),
        mode=o["mode"],
        align_corners=o.get("align_corners"),
    )


def _slice(x: Sequence[Tensor], o: Mapping[str, Any], weight: Tensor | None) -> Tensor:
    # a copy, so that no two values share memory and a neuron may write its spikes over its currents
    return x[0][(slice(None), *(slice(*o[axis]) for axis in ("channels", "rows", "columns")))].clone()


LINEAR: MappingProxyType[str, Operation] = MappingProxyType(
    {
        "conv2d": Operation(_conv2d),
        "conv_transpose2d": Operation(_conv_transpose2d),
        "affine": Operation(_affine, pointwise=True),
        "avg_pool2d": Operation(
            lambda x, o, w: functional.avg_pool2d(
                x[0], o["kernel_size"], o["stride"], o["padding"], o["ceil_mode"], o["count_include_pad"]
            )
        ),
        "interpolate": Operation(_interpolate),
        "add": Operation(lambda x, o, w: x[0] + x[1], pointwise=True, routing=True),
        "sub": Operation(lambda x, o, w: x[0] - x[1], pointwise=True, routing=True),
        "concat": Operation(lambda x, o, w: torch.cat(list(x), 1), pointwise=True, routing=True),
        "slice": Operation(_slice, routing=True),
        "pad": Operation(lambda x, o, w: functional.pad(x[0], o["padding"], o["mode"]), routing=True),
        "pixel_shuffle": Operation(lambda x, o, w: functional.pixel_shuffle(x[0], o["factor"]), routing=True),
        "pixel_unshuffle": Operation(lambda x, o, w: functional.pixel_unshuffle(x[0], o["factor"]), routing=True),
    }
)


def run_graph(
    nodes: Sequence[Node],
    weights: Weights,
    image: Tensor,
    neuron: Callable[[Node, Wave, bool], Wave],
    raw: Mapping[str, Callable[..., Tensor]] = MappingProxyType({}),
    apply: Callable[[Node, Sequence[Wave], Weights], Wave] | None = None,
) -> Wave:
    """Value of the last node; each value is dropped after its last reader.

    Args:
        nodes: The body in order of execution.
        weights: Weight and bias by name.
        image: Input of the body.
        neuron: What a ``neuron`` node does with its input current; told whether it is the last to read it and so
            may overwrite it.
        raw: Functions of the ``raw`` nodes by name: operations on the image before any weight.
        apply: What a linear node does; :func:`apply_linear` unless given.

    Shape:
        ``image``: (B, C, H, W).
    """
    apply = apply or apply_linear
    last_reader = {name: i for i, node in enumerate(nodes) for name in node.inputs}
    values: dict[str, Wave] = {}
    wave = Wave(None, image)
    for i, node in enumerate(nodes):
        inputs = [values[name] for name in node.inputs]
        spent = {name for name in node.inputs if last_reader[name] == i}
        for name in spent:
            del values[name]
        if node.op == "input":
            wave = Wave(None, image)
        elif node.op == "raw":
            wave = Wave(None, raw[node.name](*(value.constant for value in inputs)))
        elif node.op == "neuron":
            wave = neuron(node, inputs[0], bool(spent))
        else:
            wave = apply(node, inputs, weights)
        values[node.name] = wave
    return wave


def apply_linear(node: Node, inputs: Sequence[Wave], weights: Weights) -> Wave:
    """One linear operation on both parts of its inputs."""
    operation = LINEAR[node.op]
    weight, bias = (None, None) if node.weights is None else weights[node.weights]
    spikes = spiking_part(operation, node, inputs, weight)
    constant = constant_part(operation, node, inputs, weight)
    if bias is not None:
        shift = bias.view(1, -1, 1, 1)
        if constant is None:
            assert spikes is not None
            constant = shift.expand(1, spikes.shape[2], 1, 1)  # one number for all channels is a (1, C, 1, 1) too
        else:
            constant = constant + shift.to(constant.dtype)
    return Wave(spikes, constant)


def spiking_part(operation: Operation, node: Node, inputs: Sequence[Wave], weight: Tensor | None) -> Tensor | None:
    """The operation on the spiking parts of its inputs, time steps as batch; None where there is none."""
    present = next((value.spikes for value in inputs if value.spikes is not None), None)
    if present is None:
        return None
    steps, batch = present.shape[:2]
    flat = []
    for value in inputs:
        if value.spikes is not None:
            flat.append(value.spikes.flatten(0, 1))
        else:
            assert value.constant is not None
            size = (1, 1, 1, *value.constant.shape)[-3:]  # of a number or a vector, too
            flat.append(present.new_zeros(()).expand(steps * batch, *size))
    joined = operation.run(flat, node.options, weight)
    return joined.view(steps, batch, *joined.shape[1:])


def constant_part(operation: Operation, node: Node, inputs: Sequence[Wave], weight: Tensor | None) -> Tensor | None:
    """The operation on the constant parts of its inputs; None where there is none."""
    present = [value for value in inputs if value.constant is not None]
    if not present:
        return None
    uniform = operation.pointwise and all(value.spikes is not None for value in inputs)
    uniform = uniform and all(value.constant is None or _is_uniform(value.constant) for value in inputs)
    parts = []
    for value in inputs:
        part = value.constant
        if value.spikes is not None:
            part = value.spikes.new_zeros(1, value.spikes.shape[2], 1, 1) if part is None else part
            part = part if uniform else part.expand(value.spikes.shape[1:])
        assert part is not None
        parts.append(part)
    return operation.run(parts, node.options, weight)


def _is_uniform(constant: Tensor) -> bool:
    """Whether a constant stands for all pixels of all images: ``(1, C, 1, 1)``, as a bias does."""
    return constant.shape[0] == 1 and constant.shape[-2:] == (1, 1)


def moves_spikes(node: Node) -> bool:
    """Whether the operation only moves spikes from place to place, so that what reads it still reads 0/1."""
    return LINEAR[node.op].routing or (node.op == "interpolate" and node.options["mode"].startswith("nearest"))


def moved_inputs(node: Node) -> set[str]:
    """Inputs whose values an operation moves; a resizing may read another one for its size alone."""
    return set(node.inputs[:1] if node.op == "interpolate" else node.inputs)
