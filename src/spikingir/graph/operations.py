"""The operations of a body: one class for each, with all that anybody asks of it.

An operation has no state: its settings stand in the node, its weights in the graph. A new one is a class here and a
line in :data:`OPERATIONS`; what has no class is refused by name and place, unless all it reads is the raw image.
"""

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import reduce
from math import prod
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from spikingir.graph.activations import QuantisedReLU
from spikingir.graph.errors import ConversionError, NotLinear, TilingError
from spikingir.graph.reach import Reach
from spikingir.graph.sizes import ANCHORS, anchors_of, multiple_of, same_for_all
from spikingir.schema import Range, SchemaError, shown

if TYPE_CHECKING:
    from spikingir.graph.graph import Node
    from spikingir.graph.trace import Builder, Handler, Value

Role = Literal["source", "neuron", "moves", "weighs"]
"""What an operation does to spikes: comes before them, fires them, moves them from place to place, or weighs them."""

Shape = tuple[int, ...]
Merge = Callable[[Tensor], Tensor]
"""One value from those along the last axis."""

_Side = Annotated[int, Range(1, 64)]
_Border = Annotated[int, Range(0, 512)]
_Bound = Annotated[int, Range(-65536, 65536)] | None
_Factor = Annotated[float, Range(0, 64, open_least=True)]
_Size = Annotated[int, Range(1, 65536)]
_Span = tuple[_Bound, _Bound, _Side | None]


@dataclass(frozen=True)
class NoSettings:
    """Settings of an operation that has none."""


class Operation:
    """One kind of operation, without its bias; linear, unless it fires.

    Attributes:
        name: As in :attr:`Node.op`.
        traced_from: Module classes, functions and names of methods that become it.
        role: What it does to spikes; see :meth:`role_of` where that hangs on its settings.
        pointwise: Whether a constant that is the same at all pixels stays so.
        sums: Whether it adds up its inputs, each with a sign.
        merges: Whether it interleaves channels, each of its output from neighbouring ones of its input.
        keeps_image: Whether what it makes of the raw image is raw image still.
        fixed: Whether its weights follow from its settings.
        cuts: Whether it does no more than leave out pixels.
        to_size: Whether it brings a map to a size, and does nothing where it has that.
        by_channel: Whether it treats all channels alike, so that it may as well come before a mixture of channels.
        settings: Dataclass of the settings that a file keeps of it; None where files cannot hold it.
        arity: Least and largest number of inputs.
        weight_dimensions: Dimensions of its weight; 0 where it has none.
    """

    name: ClassVar[str]
    traced_from: ClassVar[tuple[Any, ...]] = ()
    role: ClassVar[Role] = "moves"
    pointwise: ClassVar[bool] = False
    sums: ClassVar[bool] = False
    merges: ClassVar[bool] = False
    keeps_image: ClassVar[bool] = True
    fixed: ClassVar[bool] = False
    by_channel: ClassVar[bool] = False
    cuts: ClassVar[bool] = False
    to_size: ClassVar[bool] = False
    settings: ClassVar[type[Any] | None] = NoSettings
    arity: ClassVar[tuple[int, int]] = (1, 1)
    weight_dimensions: ClassVar[int] = 0

    def require(self, node: "Node", where: str) -> None:
        """Refuse settings from a file that fit their types and not each other.

        Raises:
            SchemaError: They do not fit; the text starts with the place ``where``.
        """

    def role_of(self, node: "Node") -> Role:
        """What a node of this operation does to spikes."""
        return self.role

    def reads(self, node: "Node") -> tuple[str, ...]:
        """Inputs whose values count."""
        return node.inputs

    def run(self, node: "Node", x: Sequence[Tensor], weight: Tensor | None) -> Tensor:
        """The operation on ``(B, C, H, W)``; on torch's meta device it tells channels and size of its output."""
        raise NotImplementedError

    def shape(self, node: "Node", inputs: Sequence[Shape], kernel: Sequence[int]) -> Shape:
        """Shape (C, H, W) of the output for those of the inputs, without running it; ``kernel`` is that of its weights.

        Arithmetic on torch's meta device takes a second of imports before it: operations of it do without.

        Raises:
            RuntimeError, ValueError, IndexError: They do not fit.
        """
        maps = [torch.empty(1, *shape, device="meta") for shape in inputs]
        weight = torch.empty(*kernel, device="meta") if kernel else None
        return tuple(self.run(node, maps, weight).shape[1:])

    def count(self, node: "Node", x: Sequence[Tensor]) -> Tensor:
        """Of what moves spikes: how many there are at each place, whatever their sign."""
        return self.run(node, x, None)

    def reach(self, node: "Node", axis: int, inputs: Sequence[Reach], kernel: Sequence[int]) -> Reach:
        """Reach of the output along an axis; ``kernel`` is the shape of its weights.

        Raises:
            TilingError: It depends on the whole image.
        """
        return inputs[0]

    def multiples(self, node: "Node") -> tuple[int, int]:
        """Rows and columns whose multiples it lets alone."""
        return 1, 1

    def per_channel(self, node: "Node", vectors: Sequence[Tensor], merge: Merge, add: Merge) -> Tensor:
        """Of what moves spikes: one number for each channel of the output, from those of its inputs.

        Args:
            node: The node.
            vectors: Numbers of each input's channels.
            merge: What becomes of the numbers of channels that are interleaved in one.
            add: What becomes of the numbers of channels that are summed.

        Shape:
            (..., C) each, and the result.
        """
        return vectors[0]

    def scale_input(self, node: "Node", weight: Tensor, scale: Tensor) -> Tensor:
        """Of what weighs: its weights, each input channel multiplied by ``scale``."""
        raise NotImplementedError

    def scale_output(self, node: "Node", weight: Tensor, gain: Tensor) -> Tensor:
        """Of what weighs: its weights, each output channel multiplied by ``gain``."""
        raise NotImplementedError

    def bound(self, node: "Node", weight: Tensor, bound: Tensor) -> Tensor:
        """Of what weighs: largest magnitude of each output channel while inputs stay within ``bound``."""
        raise NotImplementedError

    def by_output(self, node: "Node", weight: Tensor) -> Tensor:
        """Of convolutions: the weights of each output channel, (C, weights)."""
        raise NotImplementedError

    def groups(self, node: "Node", channels: int) -> int:
        """Of what weighs: groups of channels that do not mix."""
        return channels

    def macs(self, node: "Node", weight: Tensor | None, source: Shape, target: Shape) -> int:
        """Of what weighs: multiply-accumulates on each input channel, border rule "full"."""
        raise NotImplementedError

    def fan_out(self, node: "Node", weight: Tensor | None, source: Shape, target: Shape) -> Tensor:
        """Of what weighs: number of outputs that each position of an input channel reaches, border rule "true".

        Shape:
            ``source``, ``target``: (C, H, W) of input and output. Result: (H, W), float32, exact.
        """
        raise NotImplementedError

    def trace(self, b: "Builder", node: fx.Node) -> "Value":
        """What a traced module, function or method becomes.

        Raises:
            ConversionError: No body can hold it.
        """
        raise NotImplementedError

    def put(self, b: "Builder", node: fx.Node, **options: Any) -> "Value":
        """Add a node of this operation, without weights, for a traced one."""
        if not self.by_channel:
            return b.add(node.name, self.name, (b.wire(node.args[0]),), **options)
        source = b.mixed(node.args[0])
        return replace(b.add(node.name, self.name, (source.wire,), **options), mix=source.mix)

    def handlers(self) -> Mapping[Any, "Handler"]:
        """What traces each module class, function and method name that becomes it."""
        return dict.fromkeys(self.traced_from, self.trace)


class Input(Operation):
    """The raw image."""

    name = "input"
    role = "source"
    arity = (0, 0)


class Raw(Operation):
    """A function of the user's own on the raw image."""

    name = "raw"
    role = "source"
    settings = None

    def reach(self, node: "Node", axis: int, inputs: Sequence[Reach], kernel: Sequence[int]) -> Reach:
        """Unknown."""
        raise TilingError(
            f"'{node.name}' is a function of your own on the image, which may look at all of it; call the "
            "network on whole images"
        )


class Neuron(Operation):
    """A spiking neuron; in the conventional network a ReLU, or nothing where it is signed."""

    name = "neuron"
    role = "neuron"
    keeps_image = False
    traced_from = (nn.ReLU, QuantisedReLU, functional.relu, torch.relu, torch.relu_, "relu", "relu_")

    def trace(self, b: "Builder", node: fx.Node) -> "Value":
        """A ReLU that reads the raw image is an operation on the image, not a neuron."""
        source = b.wire(node.args[0])
        module = b.module(node)
        if source in b.image:
            return b.keep_raw(node)
        if isinstance(module, QuantisedReLU):
            value = b.add(node.name, self.name, (source,))
            b.quantisers[str(value.name)] = (module.clip_level.detach(), module.levels)
        elif b.nodes[source].operation is self:
            return b.mixed(node.args[0])
        else:
            value = b.add(node.name, self.name, (source,))
        return replace(value, fate="converted")


def _pair(value: Any) -> tuple[int, int]:
    return (int(value), int(value)) if isinstance(value, int) else (int(value[0]), int(value[1]))


@dataclass(frozen=True)
class ConvolutionSettings:
    """Settings of a convolution, for rows and columns."""

    stride: tuple[_Side, _Side]
    padding: tuple[_Border, _Border]
    dilation: tuple[_Side, _Side]
    groups: Annotated[int, Range(1, 65536)]


PLAIN: Mapping[str, Any] = MappingProxyType({"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1})
"""Settings of a convolution of one pixel."""


class _Convolution(Operation):
    """What both convolutions have."""

    role = "weighs"
    keeps_image = False
    settings: ClassVar[type[Any] | None] = ConvolutionSettings
    weight_dimensions = 4

    def groups(self, node: "Node", channels: int) -> int:
        groups: int = node.options["groups"]
        return groups

    def outputs(self, node: "Node", weight: Tensor) -> int:
        """Output channels that an input channel reaches."""
        raise NotImplementedError

    def mixed(self, weight: Tensor, mix: Tensor) -> Tensor:
        """Weights without groups on what each channel is a mixture of: channel c is the sum of ``mix[c, p] x[p]``."""
        raise NotImplementedError

    def fan_out(self, node: "Node", weight: Tensor | None, source: Shape, target: Shape) -> Tensor:
        assert weight is not None
        alone, one = replace(node, options={**node.options, "groups": 1}), torch.ones(1, 1, *weight.shape[2:])
        return self.outputs(node, weight) * _adjoint_of_ones(lambda blank: self.run(alone, [blank], one), source)


class Conv2d(_Convolution):
    """``y[o] = sum_i W[o, i] * x[i]``, W (O, I / groups, K, K)."""

    name = "conv2d"
    traced_from = (nn.Conv2d, functional.conv2d)

    def run(self, node: "Node", x: Sequence[Tensor], weight: Tensor | None) -> Tensor:
        assert weight is not None
        o = node.options
        return functional.conv2d(x[0], weight, None, o["stride"], o["padding"], o["dilation"], o["groups"])

    def reach(self, node: "Node", axis: int, inputs: Sequence[Reach], kernel: Sequence[int]) -> Reach:
        options = node.options
        padding, span = options["padding"][axis], options["dilation"][axis] * (kernel[2 + axis] - 1)
        return inputs[0].then(options["stride"][axis], -padding, span - padding)

    def scale_input(self, node: "Node", weight: Tensor, scale: Tensor) -> Tensor:
        groups = node.options["groups"]
        columns = scale.view(groups, 1, -1).expand(groups, weight.shape[0] // groups, -1)
        return weight * columns.reshape(weight.shape[0], weight.shape[1], 1, 1)

    def scale_output(self, node: "Node", weight: Tensor, gain: Tensor) -> Tensor:
        return weight * gain.view(-1, 1, 1, 1)

    def bound(self, node: "Node", weight: Tensor, bound: Tensor) -> Tensor:
        return self.scale_input(node, weight.abs(), bound).sum((1, 2, 3))

    def macs(self, node: "Node", weight: Tensor | None, source: Shape, target: Shape) -> int:
        assert weight is not None
        return weight.numel() // source[0] * prod(target[1:])

    def by_output(self, node: "Node", weight: Tensor) -> Tensor:
        return weight.flatten(1)

    def outputs(self, node: "Node", weight: Tensor) -> int:
        return weight.shape[0] // int(node.options["groups"])

    def trace(self, b: "Builder", node: fx.Node) -> "Value":
        weight, bias, stride, padding, dilation, groups, mode = b.settings(
            node, weight=None, bias=None, stride=1, padding=0, dilation=1, groups=1, padding_mode="zeros"
        )
        tensor = b.constant(weight)
        assert tensor is not None
        stride, dilation = _pair(stride), _pair(dilation)
        if padding == "valid":
            padding = 0
        if padding == "same":
            spans = [d * (k - 1) for d, k in zip(dilation, tensor.shape[-2:], strict=True)]
            sides = (spans[1] // 2, spans[1] - spans[1] // 2, spans[0] // 2, spans[0] - spans[0] // 2)
        else:
            rows, columns = _pair(padding)
            sides = (columns, columns, rows, rows)
        even = sides[0] == sides[1] and sides[2] == sides[3]
        source = b.spread(node.args[0]) if groups == 1 else b.mixed(node.args[0])
        if any(sides) and (mode != "zeros" or not even):
            kind = "constant" if mode == "zeros" else mode
            padded = b.add(f"{node.name}_pad", Pad.name, (source.wire,), padding=sides, mode=kind)
            source = replace(padded, mix=source.mix)
            sides = (0, 0, 0, 0)
        options = {"stride": stride, "padding": (sides[2], sides[0]), "dilation": dilation, "groups": groups}
        return b.convolve(node, self, source, tensor, b.constant(bias), options)

    def mixed(self, weight: Tensor, mix: Tensor) -> Tensor:
        return torch.einsum("oikl,ip->opkl", weight, mix)


@dataclass(frozen=True)
class TransposedConvolutionSettings(ConvolutionSettings):
    """Settings of a transposed convolution."""

    output_padding: tuple[Annotated[int, Range(0, 63)], Annotated[int, Range(0, 63)]]


class ConvTranspose2d(_Convolution):
    """The adjoint of a convolution, W (I, O / groups, K, K)."""

    name = "conv_transpose2d"
    settings = TransposedConvolutionSettings
    traced_from = (nn.ConvTranspose2d, functional.conv_transpose2d)

    def run(self, node: "Node", x: Sequence[Tensor], weight: Tensor | None) -> Tensor:
        assert weight is not None
        o = node.options
        if x[0].is_meta:  # torch checks these of real tensors alone
            extra = zip(o["output_padding"], o["stride"], o["dilation"], strict=True)
            fits = x[0].shape[1] == len(weight) and len(weight) % o["groups"] == 0
            if not fits or any(added >= max(others) for added, *others in extra):
                raise RuntimeError(f"weights {tuple(weight.shape)} do not fit an input {tuple(x[0].shape)}")
        return functional.conv_transpose2d(
            x[0], weight, None, o["stride"], o["padding"], o["output_padding"], o["groups"], o["dilation"]
        )

    def reach(self, node: "Node", axis: int, inputs: Sequence[Reach], kernel: Sequence[int]) -> Reach:
        options = node.options
        stride, padding = options["stride"][axis], options["padding"][axis]
        span = options["dilation"][axis] * (kernel[2 + axis] - 1)
        # an output pixel that a cut leaves out counts as reading beyond the cut
        cropped = 2 * padding - span - options["output_padding"][axis]
        return inputs[0].then(
            Fraction(1, stride), Fraction(padding - span, stride), Fraction(max(padding, cropped), stride)
        )

    def scale_input(self, node: "Node", weight: Tensor, scale: Tensor) -> Tensor:
        return weight * scale.view(-1, 1, 1, 1)

    def scale_output(self, node: "Node", weight: Tensor, gain: Tensor) -> Tensor:
        groups, per_group = node.options["groups"], weight.shape[1]
        rows = gain.view(groups, 1, per_group).expand(groups, weight.shape[0] // groups, per_group)
        return weight * rows.reshape(weight.shape[0], per_group, 1, 1)

    def bound(self, node: "Node", weight: Tensor, bound: Tensor) -> Tensor:
        worst = self.scale_input(node, weight.abs(), bound)
        return worst.view(node.options["groups"], -1, *worst.shape[1:]).sum((1, 3, 4)).flatten()

    def macs(self, node: "Node", weight: Tensor | None, source: Shape, target: Shape) -> int:
        assert weight is not None
        return weight.numel() // source[0] * prod(source[1:])  # each input pixel meets each weight once

    def by_output(self, node: "Node", weight: Tensor) -> Tensor:
        return weight.view(node.options["groups"], -1, *weight.shape[1:]).transpose(1, 2).flatten(0, 1).flatten(1)

    def outputs(self, node: "Node", weight: Tensor) -> int:
        return weight.shape[1]

    def trace(self, b: "Builder", node: fx.Node) -> "Value":
        if b.module(node) is not None and (len(node.args) > 1 or node.kwargs):
            raise ConversionError("an output_size at run time is not supported; set output_padding")
        weight, bias, stride, padding, more, groups, dilation = b.settings(
            node, weight=None, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1
        )
        tensor = b.constant(weight)
        assert tensor is not None
        options = {"stride": _pair(stride), "padding": _pair(padding), "output_padding": _pair(more)}
        options |= {"groups": groups, "dilation": _pair(dilation)}
        source = b.spread(node.args[0]) if groups == 1 else b.mixed(node.args[0])
        return b.convolve(node, self, source, tensor, b.constant(bias), options)

    def mixed(self, weight: Tensor, mix: Tensor) -> Tensor:
        return torch.einsum("iokl,ip->pokl", weight, mix)


class Affine(Operation):
    """One factor for each channel: ``y[c] = w[c] x[c]``, w (C,) or (1,)."""

    name = "affine"
    role = "weighs"
    pointwise = True
    weight_dimensions = 1

    def run(self, node: "Node", x: Sequence[Tensor], weight: Tensor | None) -> Tensor:
        assert weight is not None
        return x[0] * weight.view(1, -1, 1, 1)

    def shape(self, node: "Node", inputs: Sequence[Shape], kernel: Sequence[int]) -> Shape:
        return _broadcast(inputs[0], (prod(kernel), 1, 1))

    def scale_input(self, node: "Node", weight: Tensor, scale: Tensor) -> Tensor:
        return weight * scale

    def scale_output(self, node: "Node", weight: Tensor, gain: Tensor) -> Tensor:
        return weight * gain

    def bound(self, node: "Node", weight: Tensor, bound: Tensor) -> Tensor:
        return weight.abs() * bound

    def macs(self, node: "Node", weight: Tensor | None, source: Shape, target: Shape) -> int:
        return 0 if _only_signs(weight) else target[0] // source[0] * prod(target[1:])

    def fan_out(self, node: "Node", weight: Tensor | None, source: Shape, target: Shape) -> Tensor:
        return torch.full(source[1:], 0.0 if _only_signs(weight) else 1.0)

    def handlers(self) -> Mapping[Any, "Handler"]:
        """Batch norm, and arithmetic with constants."""
        return {
            **dict.fromkeys((nn.BatchNorm2d, nn.SyncBatchNorm), self._batch_norm),
            **dict.fromkeys((operator.mul, operator.imul, torch.mul, "mul", "mul_"), self._multiply),
            **dict.fromkeys((operator.truediv, operator.itruediv, torch.div, "div", "div_"), self._divide),
            **dict.fromkeys((operator.neg, torch.neg, "neg"), self._negate),
        }

    def scale(self, b: "Builder", node: fx.Node, source: str, scale: Tensor, shift: Tensor | None = None) -> "Value":
        """Add a scaling of a wire."""
        weights = b.register(node.name, None, scale.flatten(), None if shift is None else shift.flatten())
        return b.add(node.name, self.name, (source,), weights)

    def scale_of(self, b: "Builder", node: fx.Node, argument: Any, scale: Tensor) -> "Value":
        """Add a scaling of a value; a mixture of channels takes it in."""
        value = b.mixed(argument)
        if value.mix is not None:
            return replace(value, mix=value.mix * scale.view(-1, 1), halves=None, fate="folded")
        return self.scale(b, node, value.wire, scale)

    def _batch_norm(self, b: "Builder", node: fx.Node) -> "Value":
        m = b.module(node)
        assert isinstance(m, nn.BatchNorm2d | nn.SyncBatchNorm)
        if m.running_mean is None or m.running_var is None:
            raise ConversionError("it keeps no running statistics; train it with track_running_stats=True")
        source = b.wire(node.args[0])
        gain = 1 / (m.running_var.double() + m.eps).sqrt()
        shift = -m.running_mean.double() * gain
        if m.weight is not None:
            own, offset = m.weight.detach().double(), m.bias.detach().double()
            gain, shift = gain * own, shift * own + offset
        folded = b.fold_into(node, source, gain, shift)
        dtype = m.running_mean.dtype
        return folded or self.scale(b, node, source, gain.to(dtype), shift.to(dtype))

    def _multiply(self, b: "Builder", node: fx.Node) -> "Value":
        found, wires = b.operands(node)
        if all(wires):
            raise NotLinear(
                "the product of two feature maps is not linear; train the network with their sum, or with both joined "
                "by a convolution, in its place"
            )
        source, factor = found if wires[0] else reversed(found)
        if isinstance(factor, int | float) and factor == 1:
            return b.mixed(source)
        return self.scale_of(b, node, source, b.per_channel(factor))

    def _divide(self, b: "Builder", node: fx.Node) -> "Value":
        (one, other), wires = b.operands(node)
        if wires != [True, False] or node.kwargs.get("rounding_mode"):
            raise NotLinear("only division by a constant is linear")
        return self.scale_of(b, node, one, 1 / b.per_channel(other))

    def _negate(self, b: "Builder", node: fx.Node) -> "Value":
        return self.scale_of(b, node, node.args[0], -torch.ones(1, dtype=b.dtype))


@dataclass(frozen=True)
class AvgPoolSettings:
    """Settings of average pooling."""

    kernel_size: tuple[_Side, _Side]
    stride: tuple[_Side, _Side]
    padding: tuple[_Border, _Border]
    ceil_mode: bool
    count_include_pad: bool


class AvgPool2d(Operation):
    """Mean over a window."""

    name = "avg_pool2d"
    settings = AvgPoolSettings
    role = "weighs"
    fixed = True
    by_channel = True
    traced_from = (nn.AvgPool2d, functional.avg_pool2d)

    def run(self, node: "Node", x: Sequence[Tensor], weight: Tensor | None) -> Tensor:
        o = node.options
        return functional.avg_pool2d(
            x[0], o["kernel_size"], o["stride"], o["padding"], o["ceil_mode"], o["count_include_pad"]
        )

    def reach(self, node: "Node", axis: int, inputs: Sequence[Reach], kernel: Sequence[int]) -> Reach:
        padding, window = node.options["padding"][axis], node.options["kernel_size"][axis]
        return inputs[0].then(node.options["stride"][axis], -padding, window - 1 - padding)

    def bound(self, node: "Node", weight: Tensor, bound: Tensor) -> Tensor:
        return bound

    def macs(self, node: "Node", weight: Tensor | None, source: Shape, target: Shape) -> int:
        return int(prod(node.options["kernel_size"])) * prod(target[1:])

    def fan_out(self, node: "Node", weight: Tensor | None, source: Shape, target: Shape) -> Tensor:
        window, stride, padding, ceil = (node.options[key] for key in ("kernel_size", "stride", "padding", "ceil_mode"))
        return _adjoint_of_ones(
            lambda blank: functional.avg_pool2d(blank, window, stride, padding, ceil, divisor_override=1), source
        )

    def trace(self, b: "Builder", node: fx.Node) -> "Value":
        kernel, stride, padding, ceil, count, divisor = b.settings(
            node,
            kernel_size=None,
            stride=None,
            padding=0,
            ceil_mode=False,
            count_include_pad=True,
            divisor_override=None,
        )
        if divisor is not None:
            raise NotLinear("divisor_override is not supported")
        window, step = _pair(kernel), _pair(stride or kernel)
        flags = {"ceil_mode": bool(ceil), "count_include_pad": bool(count)}
        return self.put(b, node, kernel_size=window, stride=step, padding=_pair(padding), **flags)


class GlobalAvgPool2d(Operation):
    """Mean of each channel over the whole map, (C, 1, 1)."""

    name = "global_avg_pool2d"
    role = "weighs"
    fixed = True
    by_channel = True
    pointwise = True
    traced_from = (nn.AdaptiveAvgPool2d, functional.adaptive_avg_pool2d, torch.mean, "mean")

    def run(self, node: "Node", x: Sequence[Tensor], weight: Tensor | None) -> Tensor:
        return x[0].mean((-2, -1), keepdim=True)

    def reach(self, node: "Node", axis: int, inputs: Sequence[Reach], kernel: Sequence[int]) -> Reach:
        raise TilingError(f"'{node.name}' is a mean over the whole image; call the network on whole images")

    def bound(self, node: "Node", weight: Tensor, bound: Tensor) -> Tensor:
        return bound

    def macs(self, node: "Node", weight: Tensor | None, source: Shape, target: Shape) -> int:
        return prod(source[1:])

    def fan_out(self, node: "Node", weight: Tensor | None, source: Shape, target: Shape) -> Tensor:
        return torch.ones(source[1:])

    def trace(self, b: "Builder", node: fx.Node) -> "Value":
        whole: tuple[Any, ...] = (1, (1, 1), [1, 1], (None, 1), (1, None))
        if b.module(node) is not None or node.target is functional.adaptive_avg_pool2d:
            (size,) = b.settings(node, output_size=None)
            if size not in whole[:3]:
                raise NotLinear(f"it pools to {size}; only a global mean, to 1, and windows of nn.AvgPool2d are linear")
            return self.put(b, node)
        dim, keep = b.settings(node, dim=None, keepdim=False)
        if dim in (1, -3, [1], (1,)) and keep:
            channels = b.channels(node.args[0])
            each = torch.full((1, channels, 1, 1), 1 / channels, dtype=b.dtype)
            return b.convolve(node, _CONV, b.mixed(node.args[0]), each, None, dict(PLAIN))
        if dim is None or sorted(d % 4 for d in ([dim] if isinstance(dim, int) else dim)) != [2, 3] or not keep:
            raise NotLinear("only a mean over rows and columns, mean((2, 3), keepdim=True), keeps a feature map")
        return self.put(b, node)


@dataclass(frozen=True)
class InterpolateSettings:
    """Settings of resizing: a size, a factor, or neither where a second input gives the size."""

    size: tuple[_Size, _Size] | None
    scale_factor: _Factor | tuple[_Factor, _Factor] | None
    mode: Literal["nearest", "nearest-exact", "bilinear", "bicubic"]
    align_corners: bool | None

    def __post_init__(self) -> None:
        if self.align_corners is not None and self.mode.startswith("nearest"):
            raise SchemaError(f"align_corners is {self.align_corners}; mode nearest has none")


class Interpolate(Operation):
    """Resizing, to a factor, a size, or the size of another wire; plain nearest-neighbour only moves spikes."""

    name = "interpolate"
    role = "weighs"
    fixed = True
    settings = InterpolateSettings
    arity = (1, 2)
    by_channel = True
    traced_from = (nn.Upsample, nn.UpsamplingBilinear2d, nn.UpsamplingNearest2d, functional.interpolate)
    taps: ClassVar[Mapping[str, int]] = MappingProxyType({"bilinear": 4, "bicubic": 16})

    def require(self, node: "Node", where: str) -> None:
        given = [node.options["size"] is not None, node.options["scale_factor"] is not None, len(node.inputs) == 2]
        if sum(given) != 1:
            raise SchemaError(f"{where}.options: expected one of a size, a scale_factor and a second input")

    def role_of(self, node: "Node") -> Role:
        return "moves" if node.options["mode"].startswith("nearest") else "weighs"

    def reads(self, node: "Node") -> tuple[str, ...]:
        """The first; another one is read for its size alone."""
        return node.inputs[:1]

    def run(self, node: "Node", x: Sequence[Tensor], weight: Tensor | None) -> Tensor:
        o = node.options
        size, factor = x[1].shape[-2:] if len(x) == 2 else o.get("size"), o.get("scale_factor")
        return functional.interpolate(x[0], size, factor, o["mode"], o.get("align_corners"))

    def reach(self, node: "Node", axis: int, inputs: Sequence[Reach], kernel: Sequence[int]) -> Reach:
        source, options = inputs[0], node.options
        given = options.get("scale_factor")
        if len(inputs) == 2:
            factor = source.stride / inputs[1].stride
        elif given is None or options.get("align_corners"):
            raise TilingError(f"'{node.name}' resizes to a size of its own, which depends on the whole image")
        else:
            factor = Fraction(given[axis] if isinstance(given, list | tuple) else given).limit_denominator(1000)
        # torch reads from (i + 1/2) / factor - 1/2 on, plain `nearest` from i / factor on
        shift = (1 / factor - 1) / 2
        match options["mode"]:
            case "nearest":
                return source.then(1 / factor, -1, 0)
            case "nearest-exact" | "bilinear":
                return source.then(1 / factor, shift - 1, shift + 1)
        return source.then(1 / factor, shift - 2, shift + 2)

    def bound(self, node: "Node", weight: Tensor, bound: Tensor) -> Tensor:
        """A cubic's lobes overshoot."""
        return 2 * bound if node.options["mode"] == "bicubic" else bound

    def macs(self, node: "Node", weight: Tensor | None, source: Shape, target: Shape) -> int:
        return self.taps[node.options["mode"]] * prod(target[1:])

    def fan_out(self, node: "Node", weight: Tensor | None, source: Shape, target: Shape) -> Tensor:
        """Its taps, repeated ones at the border included."""
        return torch.full(source[1:], self.taps[node.options["mode"]] * prod(target[1:]) / prod(source[1:]))

    def trace(self, b: "Builder", node: fx.Node) -> "Value":
        size, factor, mode, corners, *beyond = b.settings(
            node,
            size=None,
            scale_factor=None,
            mode="nearest",
            align_corners=None,
            recompute_scale_factor=None,
            antialias=0,
        )
        if any(beyond):
            raise NotLinear("recompute_scale_factor and antialias are not supported")
        if mode not in ("nearest", "nearest-exact", "bilinear", "bicubic"):
            raise NotLinear(f"mode {mode!r}; expected nearest, bilinear or bicubic")
        source = b.mixed(node.args[0])
        inputs: tuple[str, ...] = (source.wire,)
        if b.traces.varies(node):
            inputs, size, factor = self._sized(b, node, source.wire)
        size = list(_pair(size)) if size is not None else None
        factor = [float(f) for f in factor] if isinstance(factor, (tuple, list)) else factor
        options = {"size": size, "scale_factor": factor, "mode": mode, "align_corners": corners}
        return replace(b.add(node.name, self.name, inputs, **options), mix=source.mix)

    def _sized(self, b: "Builder", node: fx.Node, source: str) -> tuple[tuple[str, ...], None, float | None]:
        """Inputs and factor of a resizing to a size that follows from the image's."""
        before, after = b.sizes(node.args[0]), b.sizes(node)
        sides = [(n, wanted) for pair in zip(before, after, strict=True) for n, wanted in zip(*pair, strict=True)]
        for factor in range(2, 17):
            if all(wanted == n * factor for n, wanted in sides):
                return (source,), None, float(factor)
            if all(wanted == n // factor for n, wanted in sides):  # a map of that size, whose values nobody reads
                span = [0, 1 - factor, factor]
                like = b.add(f"{node.name}_size", Slice.name, (source,), channels=[0, 1, None], rows=span, columns=span)
                return (source, like.wire), None, None
        return (source, b.like(after, "resizes")), None, None


def _broadcast(*shapes: Shape) -> Shape:
    """Shape of an arithmetic operation's result."""
    return tuple(torch.broadcast_shapes(*shapes))  # type: ignore[no-untyped-call]


class _Join(Operation):
    """What operations of several feature maps have."""

    pointwise = True

    def reach(self, node: "Node", axis: int, inputs: Sequence[Reach], kernel: Sequence[int]) -> Reach:
        if any(other.stride != inputs[0].stride for other in inputs):
            raise TilingError(f"'{node.name}' joins feature maps of different resolutions")
        return reduce(lambda a, b: Reach(a.stride, min(a.low, b.low), max(a.high, b.high)), inputs)


class Add(_Join):
    """``x + y``; with a constant, it is a scaling with a bias."""

    name = "add"
    sums = True
    arity = (2, 2)
    traced_from = (operator.add, operator.iadd, torch.add, "add", "add_")
    sign: ClassVar[int] = 1

    def run(self, node: "Node", x: Sequence[Tensor], weight: Tensor | None) -> Tensor:
        return x[0] + x[1]

    def shape(self, node: "Node", inputs: Sequence[Shape], kernel: Sequence[int]) -> Shape:
        return _broadcast(*inputs)

    def count(self, node: "Node", x: Sequence[Tensor]) -> Tensor:
        return x[0] + x[1]

    def per_channel(self, node: "Node", vectors: Sequence[Tensor], merge: Merge, add: Merge) -> Tensor:
        return add(torch.stack(torch.broadcast_tensors(*vectors), -1))  # type: ignore[no-untyped-call]

    def trace(self, b: "Builder", node: fx.Node) -> "Value":
        if node.kwargs.get("alpha", 1) != 1:
            raise NotLinear("alpha is not supported; scale the summand first")
        (one, other), wires = b.operands(node)
        if all(wires):
            made = b.add(node.name, self.name, (b.wire(one), b.wire(other)))
            return replace(made, branches=(self.sign, one, other))
        for value, number in ((one, other), (other, one)):
            if isinstance(number, int | float) and number == 0 and (value is one or self.sign == 1):
                return b.mixed(value)
        scale = torch.ones(1, dtype=b.dtype)
        if wires[0]:
            return _AFFINE.scale(b, node, b.wire(one), scale, self.sign * b.per_channel(other))
        return _AFFINE.scale(b, node, b.wire(other), self.sign * scale, b.per_channel(one))


class Sub(Add):
    """``x - y``."""

    name = "sub"
    traced_from = (operator.sub, operator.isub, torch.sub, "sub", "sub_")
    sign = -1

    def run(self, node: "Node", x: Sequence[Tensor], weight: Tensor | None) -> Tensor:
        return x[0] - x[1]


class Concat(_Join):
    """Feature maps side by side."""

    name = "concat"
    arity = (1, 256)
    traced_from = (torch.cat, torch.concat, torch.concatenate)

    def run(self, node: "Node", x: Sequence[Tensor], weight: Tensor | None) -> Tensor:
        return torch.cat(list(x), 1)

    def shape(self, node: "Node", inputs: Sequence[Shape], kernel: Sequence[int]) -> Shape:
        if len({shape[1:] for shape in inputs}) != 1:
            raise ValueError(f"feature maps of {inputs} do not lie side by side")
        return sum(shape[0] for shape in inputs), *inputs[0][1:]

    def per_channel(self, node: "Node", vectors: Sequence[Tensor], merge: Merge, add: Merge) -> Tensor:
        return torch.cat(list(vectors), -1)

    def trace(self, b: "Builder", node: fx.Node) -> "Value":
        dim = b.argument(node, 1, "dim", node.kwargs.get("axis", 0))
        if dim not in (1, -3):
            raise NotLinear(f"it concatenates along dimension {dim}; only channels (1) can be")
        parts = b.argument(node, 0, "tensors", None)
        assert isinstance(parts, (list, tuple))
        maps = [b.spread(part) for part in parts if b.is_wire(part)]
        if not maps:
            raise ConversionError("it joins constants alone")
        values = iter(maps)
        each = [next(values) if b.is_wire(part) else b.constant_map(node, part, maps[0].wire) for part in parts]
        joined = b.add(node.name, self.name, tuple(value.wire for value in each))
        return replace(joined, mix=b.side_by_side(parts, each))


@dataclass(frozen=True)
class SliceSettings:
    """Settings of a slice: start, stop and step along each axis."""

    channels: _Span
    rows: _Span
    columns: _Span


class Slice(Operation):
    """Channels, rows and columns from a start to a stop."""

    name = "slice"
    settings = SliceSettings
    traced_from = (operator.getitem,)

    def run(self, node: "Node", x: Sequence[Tensor], weight: Tensor | None) -> Tensor:
        spans = (slice(*node.options[axis]) for axis in ("channels", "rows", "columns"))
        # a copy, so that no two values share memory and a neuron may write its spikes over its currents
        return x[0][(slice(None), *spans)].clone()

    def reach(self, node: "Node", axis: int, inputs: Sequence[Reach], kernel: Sequence[int]) -> Reach:
        start, stop, step = node.options["columns" if axis else "rows"]
        start = start or 0
        if start < 0 or (stop is not None and stop >= 0):
            raise TilingError(f"'{node.name}' cuts out a place that depends on the size of the whole image")
        return inputs[0].then(step or 1, start, start - (stop or 0))

    def per_channel(self, node: "Node", vectors: Sequence[Tensor], merge: Merge, add: Merge) -> Tensor:
        return vectors[0][..., slice(*node.options["channels"])]

    def trace(self, b: "Builder", node: fx.Node) -> "Value":
        source, index = b.values[node.args[0]], node.args[1]  # type: ignore[index]
        if source.bounds:
            assert isinstance(index, int)
            return self.channels(b, node, replace(source, bounds=(), fate="kept"), [*source.bounds[index], None])
        spans = [self._spans(it.args[1]) for it in b.traces.variants(node)]
        value = b.mixed(node.args[0])
        if same_for_all([found[0] for found in spans]):
            value = self.channels(b, node, value, spans[0][0])
        else:
            raise NotLinear("its channels are computed from sizes; use fixed ones")
        rows, columns = ([found[axis] for found in spans] for axis in (1, 2))
        if same_for_all(rows) and same_for_all(columns):
            if [rows[0], columns[0]] == [[None] * 3] * 2:
                return value
            cut = b.add(node.name, self.name, (value.wire,), channels=[None] * 3, rows=rows[0], columns=columns[0])
            return replace(cut, mix=value.mix)
        return Crop().cut(b, node, value, rows, columns)

    def channels(self, b: "Builder", node: fx.Node, value: "Value", span: list[Any]) -> "Value":
        """Channels of a value; of a mixture, the same mixtures of all that it is made of."""
        if span == [None] * 3:
            return value
        if value.mix is not None:
            return b.used(node, replace(value, mix=value.mix[slice(*span)], halves=None))
        return b.add(node.name, self.name, (value.wire,), channels=span, rows=[None] * 3, columns=[None] * 3)

    def _spans(self, index: Any) -> list[list[Any]]:
        """Start, stop and step of channels, rows and columns."""
        index = index if isinstance(index, tuple) else (index,)
        if Ellipsis in index:
            i = index.index(Ellipsis)
            index = (*index[:i], *[slice(None)] * (5 - len(index)), *index[i + 1 :])
        parts = [*index, *[slice(None)] * (4 - len(index))]
        if len(parts) != 4 or not all(isinstance(part, slice) for part in parts) or parts[0] != slice(None):
            raise NotLinear(f"index {index!r}: only slices of channels, rows and columns keep a feature map")
        spans = [[part.start, part.stop, part.step] for part in parts[1:]]
        if not all(bound is None or isinstance(bound, int) for span in spans for bound in span):
            raise NotLinear("its bounds are computed from values; use fixed ones or sizes")
        return spans


@dataclass(frozen=True)
class CropSettings:
    """Settings of a crop to the size of another map."""

    corner: tuple[Annotated[int, Range(-65536, 65536)], Annotated[int, Range(-65536, 65536)]]
    anchor: Literal["start", "middle"]
    scale: _Side


class Crop(Operation):
    """The part of a map that is as large as another one, or a whole number of times that.

    It begins ``corner`` pixels from the top and left of the map (anchor ``start``) or of its middle part (``middle``).
    """

    name = "crop"
    settings = CropSettings
    arity = (2, 2)
    cuts = True
    to_size = True

    def reads(self, node: "Node") -> tuple[str, ...]:
        """The first; the other one is read for its size alone."""
        return node.inputs[:1]

    def run(self, node: "Node", x: Sequence[Tensor], weight: Tensor | None) -> Tensor:
        o, spans = node.options, []
        for length, like, corner in zip(x[0].shape[-2:], x[1].shape[-2:], o["corner"], strict=True):
            wanted = like * o["scale"]
            first = corner + ((length - wanted) // 2 if o["anchor"] == "middle" else 0)
            if first < 0 or first + wanted > length:
                raise RuntimeError(f"a map of {length} pixels has no {wanted} from {first} on")
            spans.append(slice(first, first + wanted))
        return x[0][:, :, spans[0], spans[1]].clone()  # a copy, as of Slice

    def cut(self, b: "Builder", node: fx.Node, value: "Value", *spans: Sequence[Sequence[Any]]) -> "Value":
        """What slices of rows and columns are whose bounds follow from the size."""
        source, wanted = b.sizes(node.args[0]), b.sizes(node)
        ends, corners, anchors = [], [], []
        for axis, bounds in enumerate(spans):
            lengths, kept = [size[axis] for size in source], [size[axis] for size in wanted]
            if any(step not in (None, 1) for _, _, step in bounds):
                raise NotLinear("its step or its bounds follow from the size; use a step of 1, or fixed bounds")
            starts = [slice(*span).indices(n)[0] for span, n in zip(bounds, lengths, strict=True)]
            left = [n - start - k for n, start, k in zip(lengths, starts, kept, strict=True)]
            ends.append([starts[0], -left[0] or None, None] if same_for_all(starts) and same_for_all(left) else None)
            middle = [(n - k) // 2 for n, k in zip(lengths, kept, strict=True)]
            offsets = [start - m for start, m in zip(starts, middle, strict=True)]
            anchors.append({anchor for anchor, it in (("start", starts), ("middle", offsets)) if same_for_all(it)})
            corners.append({"start": starts[0], "middle": offsets[0]})
        if None not in ends:  # so many pixels from each end
            made = b.add(node.name, Slice.name, (value.wire,), channels=[None] * 3, rows=ends[0], columns=ends[1])
            return replace(made, mix=value.mix)
        anchor = next((it for it in ("start", "middle") if all(it in found for found in anchors)), None)
        if anchor is None:
            raise NotLinear("its first row or column follows from the size in a way that is neither fixed nor central")
        like, scale = b.like_times(wanted, "cuts out")
        corner = [found[anchor] for found in corners]
        made = b.add(node.name, self.name, (value.wire, like), corner=corner, anchor=anchor, scale=scale)
        return replace(made, mix=value.mix)


@dataclass(frozen=True)
class PadSettings:
    """Settings of padding: left, right, and top, bottom where there are four; negative ones crop."""

    padding: tuple[Annotated[int, Range(-512, 512)], ...]
    mode: Literal["constant", "reflect", "replicate", "circular"]

    def __post_init__(self) -> None:
        if len(self.padding) not in (2, 4):
            raise SchemaError(f"padding is {shown(self.padding)}; expected a list of 2 or 4")


class Pad(Operation):
    """Margins of zeros, or of the image reflected, repeated or wrapped around."""

    name = "pad"
    settings = PadSettings
    by_channel = True
    modes: ClassVar[Mapping[Any, str]] = MappingProxyType(
        {
            nn.ZeroPad2d: "constant",
            nn.ConstantPad2d: "constant",
            nn.ReflectionPad2d: "reflect",
            nn.ReplicationPad2d: "replicate",
            nn.CircularPad2d: "circular",
        }
    )
    traced_from = (*modes, functional.pad)

    def run(self, node: "Node", x: Sequence[Tensor], weight: Tensor | None) -> Tensor:
        return functional.pad(x[0], node.options["padding"], node.options["mode"])

    def reach(self, node: "Node", axis: int, inputs: Sequence[Reach], kernel: Sequence[int]) -> Reach:
        sides = (*node.options["padding"], 0, 0)
        before, after = sides[2 - 2 * axis], sides[3 - 2 * axis]
        if node.options["mode"] == "circular":
            raise TilingError(f"'{node.name}' pads with the opposite side of the image")
        # a reflected pixel lies as far inside as the padding reaches outside
        inside = (0, 0) if node.options["mode"] == "constant" else (max(0, before), max(0, after))
        return inputs[0].then(1, -before - 2 * inside[1], -before + max(0, -after) + 2 * inside[0])

    def trace(self, b: "Builder", node: fx.Node) -> "Value":
        module = b.module(node)
        if module is None:
            padding, mode, value = b.settings(node, pad=None, mode="constant", value=None)
        else:
            padding, value = b.settings(node, padding=None, value=None)
            mode = self.modes[type(module)]
        if mode == "constant" and value not in (None, 0, 0.0):
            raise NotLinear("padding with a value other than 0 is not linear")
        sides = tuple(padding) if isinstance(padding, (tuple, list)) else (padding,) * 4
        if len(sides) not in (2, 4) or not all(isinstance(side, int) for side in sides):
            raise NotLinear(f"padding {padding!r}; expected numbers for columns and rows")
        if b.traces.varies(node):
            return PadTo().fill(b, node, mode)
        return self.put(b, node, padding=sides, mode=mode)


@dataclass(frozen=True)
class PadToSettings:
    """Settings of padding to multiples, or, where they are None, to the size of another map."""

    multiple: tuple[Annotated[int, Range(1, 512)], Annotated[int, Range(1, 512)]] | None
    anchor: Literal["start", "middle", "end"]
    mode: Literal["constant", "reflect", "replicate", "circular"]


class PadTo(Operation):
    """Margins that bring a map to the size of another one, or its sides to multiples of ``multiple``.

    The map lies at the start of the larger one (all margins after it), in its middle (half of them, rounded down,
    before it) or at its end, as ``anchor`` says.
    """

    name = "pad_to"
    settings = PadToSettings
    arity = (1, 2)
    by_channel = True
    to_size = True

    def require(self, node: "Node", where: str) -> None:
        if (node.options["multiple"] is None) != (len(node.inputs) == 2):
            raise SchemaError(f"{where}.options: expected one of a multiple and a second input")

    def reads(self, node: "Node") -> tuple[str, ...]:
        """The first; another one is read for its size alone."""
        return node.inputs[:1]

    def run(self, node: "Node", x: Sequence[Tensor], weight: Tensor | None) -> Tensor:
        sides: list[int] = []
        for axis in (1, 0):
            length = x[0].shape[2 + axis]
            total = x[1].shape[2 + axis] - length if len(x) == 2 else -length % node.options["multiple"][axis]
            before = ANCHORS[node.options["anchor"]](total)
            sides += [before, total - before]
        return functional.pad(x[0], sides, node.options["mode"])

    def multiples(self, node: "Node") -> tuple[int, int]:
        rows, columns = node.options["multiple"] or (1, 1)
        return rows, columns

    def fill(self, b: "Builder", node: fx.Node, mode: str) -> "Value":
        """What padding is whose margins follow from the size."""
        source, target = b.mixed(node.args[0]), b.sizes(node)
        margins = [(*b.settings(it, pad=None)[0], 0, 0)[:4] for it in b.traces.variants(node)]
        anchors, multiples = [], []
        for axis in (0, 1):
            lengths = [size[axis] for size in b.sizes(node.args[0])]
            totals = [size[axis] - n for size, n in zip(target, lengths, strict=True)]
            anchors.append(anchors_of([sides[2 - 2 * axis] for sides in margins], totals))
            multiples.append(multiple_of(lengths, totals))
        anchor = next((anchor for anchor in anchors[0] if anchor in anchors[1]), None)
        if anchor is None:
            raise NotLinear("its margins follow from the size, but lie neither after the map, around nor before it")
        if None not in multiples:
            made = b.add(node.name, self.name, (source.wire,), multiple=multiples, anchor=anchor, mode=mode)
        else:
            like = b.like(target, "pads")
            made = b.add(node.name, self.name, (source.wire, like), multiple=None, anchor=anchor, mode=mode)
        return replace(made, mix=source.mix)


@dataclass(frozen=True)
class ShuffleSettings:
    """Settings of both pixel shuffles."""

    factor: _Side


class PixelShuffle(Operation):
    """Groups of ``factor^2`` channels interleaved in one of a finer grid."""

    name = "pixel_shuffle"
    settings = ShuffleSettings
    merges = True
    traced_from = (nn.PixelShuffle, functional.pixel_shuffle, torch.pixel_shuffle)

    def run(self, node: "Node", x: Sequence[Tensor], weight: Tensor | None) -> Tensor:
        return functional.pixel_shuffle(x[0], node.options["factor"])

    def reach(self, node: "Node", axis: int, inputs: Sequence[Reach], kernel: Sequence[int]) -> Reach:
        factor = node.options["factor"]
        return inputs[0].then(Fraction(1, factor), Fraction(1 - factor, factor), 0)

    def per_channel(self, node: "Node", vectors: Sequence[Tensor], merge: Merge, add: Merge) -> Tensor:
        return merge(vectors[0].view(*vectors[0].shape[:-1], -1, node.options["factor"] ** 2))

    def trace(self, b: "Builder", node: fx.Node) -> "Value":
        (factor,) = b.settings(node, upscale_factor=None)
        # relu(shuffle(x)) = shuffle(relu(x)), and there what is interleaved in one channel has one threshold
        return b.before_neurons(node, self, factor=int(factor)) or self.put(b, node, factor=int(factor))


class PixelUnshuffle(Operation):
    """Every channel dealt out to ``factor^2`` ones of a coarser grid."""

    name = "pixel_unshuffle"
    settings = ShuffleSettings
    traced_from = (nn.PixelUnshuffle, functional.pixel_unshuffle, torch.pixel_unshuffle)

    def run(self, node: "Node", x: Sequence[Tensor], weight: Tensor | None) -> Tensor:
        return functional.pixel_unshuffle(x[0], node.options["factor"])

    def reach(self, node: "Node", axis: int, inputs: Sequence[Reach], kernel: Sequence[int]) -> Reach:
        return inputs[0].then(node.options["factor"], 0, node.options["factor"] - 1)

    def per_channel(self, node: "Node", vectors: Sequence[Tensor], merge: Merge, add: Merge) -> Tensor:
        return vectors[0].repeat_interleave(node.options["factor"] ** 2, -1)

    def trace(self, b: "Builder", node: fx.Node) -> "Value":
        (factor,) = b.settings(node, downscale_factor=None)
        return self.put(b, node, factor=int(factor))


def _adjoint_of_ones(run: Callable[[Tensor], Tensor], source: Shape) -> Tensor:
    """With weights of one, the adjoint applied to ones counts the outputs that each position reaches."""
    with torch.inference_mode(False), torch.enable_grad():
        blank = torch.zeros(1, 1, *source[1:], requires_grad=True)
        (fan,) = torch.autograd.grad(run(blank).sum(), blank)
    return fan[0, 0]


def _only_signs(weight: Tensor | None) -> bool:
    """A sign or the carrier of a bias multiplies nothing."""
    assert weight is not None
    return bool((weight.abs() == 1).all())


_AFFINE, _CONV = Affine(), Conv2d()
_ENDS = (Input(), Raw(), Neuron())
_WEIGHING = (_CONV, ConvTranspose2d(), _AFFINE, AvgPool2d(), GlobalAvgPool2d(), Interpolate())
_MOVING = (Add(), Sub(), Concat(), Slice(), Crop(), Pad(), PadTo(), PixelShuffle(), PixelUnshuffle())
OPERATIONS: Mapping[str, Operation] = MappingProxyType({o.name: o for o in (*_ENDS, *_WEIGHING, *_MOVING)})
"""Every operation that a body may hold, by name."""
