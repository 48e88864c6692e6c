"""A folded network as layers that each read spikes of others, and perhaps the image, through one kernel for each."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

from spikingir.deploy.folded import FoldedNetwork, Kernel
from spikingir.graph.graph import Node

LARGEST_KERNEL = 7
_MOST_STEPS = 2**15 - 1  # a count of spikes takes 16 bits


class NotNativeError(ValueError):
    """A network that the native engine cannot run; the text says what it has that is in the way."""


@dataclass(frozen=True)
class ImageCurrent:
    """The current that the image causes, rounded to the grid once: weight (C, image's channels, K, K), bias (C,)."""

    weight: Tensor
    bias: Tensor


@dataclass(frozen=True)
class LayerPlan:
    """One spiking layer.

    Attributes:
        name: Its name.
        grid: ``2^k`` of each output channel: all numbers are multiples of ``2^-k``.
        regular: Weights of each layer that it reads, (C, channels of that layer, K, K), at steps 1..T.
        extended: The same at step T + 1.
        bias: Added at steps 1..T, beside the image's current.
        image: The current that the image causes, if any.
    """

    name: str
    grid: Tensor
    regular: Mapping[str, Tensor]
    extended: Mapping[str, Tensor]
    bias: Tensor
    image: ImageCurrent | None

    @property
    def side(self) -> int:
        """Side of the largest kernel on spikes; 1 where there is none."""
        return max((weight.shape[-1] for weight in self.regular.values()), default=1)


@dataclass(frozen=True)
class _Spikes:
    """A wire of whole numbers of spikes: layers, each with the first of its channels there and a sign."""

    channels: int
    layers: tuple[tuple[str, int, int], ...]


@dataclass(frozen=True)
class _Image:
    """The image itself."""


@dataclass
class _Current:
    """A wire of weighted sums, on the grid of the neuron it feeds."""

    grid: Tensor
    bias: Tensor
    regular: dict[str, Tensor] = field(default_factory=dict)
    extended: dict[str, Tensor] = field(default_factory=dict)
    image: ImageCurrent | None = None


_Wire = _Spikes | _Image | _Current


def plan_layers(network: FoldedNetwork) -> tuple[LayerPlan, ...]:
    """The layers of a network in order.

    A layer may read another one by several ways, all of which make up one kernel: convolutions that keep the image's
    size, scalings, concatenations, sums and differences.

    Raises:
        NotNativeError: The network has other operations, or numbers that do not lie on its grid.
    """
    if not network.gridded:
        raise NotNativeError("its numbers are on no grid")
    if network.config.coding != "unary":
        raise NotNativeError(f"its code is {network.config.coding}")
    if network.config.time_steps > _MOST_STEPS:
        raise NotNativeError(f"{network.config.time_steps} time steps are more than {_MOST_STEPS}")
    if len({clock.extended for clock in network.clocks.values()}) > 1:
        raise NotNativeError("only some of its layers have an extended step")
    wires: dict[str, _Wire] = {}
    layers: list[LayerPlan] = []
    for node in network.nodes:
        read = [wires[name] for name in node.inputs]
        if node.op == "input":
            wires[node.name] = _Image()
        elif node.op in ("conv2d", "affine"):
            wires[node.name] = _weighted(node, read[0], network)
        elif node.op == "concat" and all(isinstance(wire, _Spikes) for wire in read):
            wires[node.name] = _side_by_side([wire for wire in read if isinstance(wire, _Spikes)])
        elif node.op in ("add", "sub"):
            wires[node.name] = _sum(node, *read)
        elif node.op == "neuron" and isinstance(read[0], _Current):
            layers.append(_layer(node.name, read[0]))
            wires[node.name] = _Spikes(len(layers[-1].grid), ((node.name, 0, 1),))
        else:
            raise NotNativeError(f"'{node.name}' ({node.op}) is beyond it")
    for layer in layers[:-1]:
        if network.clocks[layer.name].signed and not network.config.phased:
            raise NotNativeError(f"'{layer.name}' fires -1 before the last layer")
    return tuple(layers)


def _layer(name: str, current: _Current) -> LayerPlan:
    return LayerPlan(name, current.grid, current.regular, current.extended, current.bias, current.image)


def _side_by_side(wires: Sequence[_Spikes]) -> _Spikes:
    layers, channels = [], 0
    for wire in wires:
        layers += [(name, channels + first, sign) for name, first, sign in wire.layers]
        channels += wire.channels
    return _Spikes(channels, tuple(layers))


def _weighted(node: Node, read: _Wire, network: FoldedNetwork) -> _Current:
    kernel = network.kernel(node.name)
    assert kernel is not None
    assert kernel.grid is not None
    bias = torch.zeros_like(kernel.grid) if kernel.bias is None else kernel.bias
    if isinstance(read, _Current):
        raise NotNativeError(f"'{node.name}' reads weighted sums, not spikes")
    dense = _dense(node, kernel)
    if isinstance(read, _Image):
        return _Current(kernel.grid, torch.zeros_like(bias), image=ImageCurrent(dense(kernel.analog), bias))
    current = _Current(kernel.grid, bias)
    spike, extended = dense(kernel.spike), dense(kernel.extended)
    for name, first, sign in read.layers:
        channels = len(network.beta(name))
        _add(current.regular, name, sign * spike[:, first : first + channels])
        _add(current.extended, name, sign * extended[:, first : first + channels])
    return current


def _sum(node: Node, first: _Wire, second: _Wire) -> _Wire:
    sign = 1 if node.op == "add" else -1
    if isinstance(first, _Spikes) and isinstance(second, _Spikes) and first.channels == second.channels:
        return _Spikes(first.channels, (*first.layers, *((name, at, sign * s) for name, at, s in second.layers)))
    if not isinstance(first, _Current) or not isinstance(second, _Current):
        raise NotNativeError(f"'{node.name}' adds spikes to something else")
    if not torch.equal(first.grid, second.grid):
        raise NotNativeError(f"what '{node.name}' adds lies on different grids")
    if first.image is not None and second.image is not None:
        raise NotNativeError(f"'{node.name}' adds two currents of the image")
    image = first.image
    if second.image is not None:
        image = ImageCurrent(sign * second.image.weight, sign * second.image.bias)
    total = _Current(first.grid, first.bias + sign * second.bias, dict(first.regular), dict(first.extended), image)
    for name in second.regular:
        _add(total.regular, name, sign * second.regular[name])
        _add(total.extended, name, sign * second.extended[name])
    return total


def _add(kernels: dict[str, Tensor], layer: str, weight: Tensor) -> None:
    """One more way to read a layer."""
    if layer in kernels:
        side = max(weight.shape[-1], kernels[layer].shape[-1])
        weight = widened(kernels[layer], side) + widened(weight, side)
    kernels[layer] = weight


def widened(weight: Tensor, side: int) -> Tensor:
    """The same kernel with zeros around it, ``side`` x ``side``."""
    rows, columns = ((side - size) // 2 for size in weight.shape[-2:])
    return functional.pad(weight, (columns, columns, rows, rows))


def _dense(node: Node, kernel: Kernel) -> Callable[[Tensor], Tensor]:
    """What makes of a node's weights a square kernel without dilation or groups."""
    if node.op == "affine":
        return lambda weight: weight.diag()[:, :, None, None]
    options, sizes = node.options, kernel.spike.shape[-2:]
    reach = [dilation * (size - 1) + 1 for dilation, size in zip(options["dilation"], sizes, strict=True)]
    kept = all(2 * padding == size - 1 for padding, size in zip(options["padding"], reach, strict=True))
    if not kept or tuple(options["stride"]) != (1, 1) or max(reach) > LARGEST_KERNEL:
        shape = "x".join(str(size) for size in reach)
        raise NotNativeError(
            f"'{node.name}' is a {shape} convolution with padding {options['padding']} and stride {options['stride']}; "
            f"expected one of up to {LARGEST_KERNEL}x{LARGEST_KERNEL} that keeps the image's size"
        )

    def dense(weight: Tensor) -> Tensor:
        groups = options["groups"]
        per_group = weight.view(groups, -1, *weight.shape[1:])
        blocks = weight.new_zeros(groups, per_group.shape[1], groups, *weight.shape[1:2], *reach)
        for group in range(groups):
            blocks[group, :, group, :, :: options["dilation"][0], :: options["dilation"][1]] = per_group[group]
        return widened(blocks.view(len(weight), -1, *reach), max(reach))

    return dense
