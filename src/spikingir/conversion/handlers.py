"""What each operation of a network becomes: one handler for each kind, in tables.

What has no handler is refused by name and place, unless all it reads is the raw image.
"""

import operator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from spikingir.conversion.builder import Builder, Handler, Tables, Value
from spikingir.conversion.errors import ConversionError
from spikingir.conversion.qcfs import QCFS


def _argument(node: fx.Node, position: int, name: str, default: Any) -> Any:
    if len(node.args) > position:
        return node.args[position]
    return node.kwargs.get(name, default)


def _pair(value: Any) -> tuple[int, int]:
    return (int(value), int(value)) if isinstance(value, int) else (int(value[0]), int(value[1]))


def _convolve(
    b: Builder,
    node: fx.Node,
    source: str,
    weights: str,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
    mode: str = "zeros",
) -> Value:
    kernel = b.weights[weights][0].shape[-2:]
    stride, dilation = _pair(stride), _pair(dilation)
    if padding == "valid":
        padding = 0
    if padding == "same":
        spans = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        sides = (spans[1] // 2, spans[1] - spans[1] // 2, spans[0] // 2, spans[0] - spans[0] // 2)
    else:
        rows, columns = _pair(padding)
        sides = (columns, columns, rows, rows)
    even = sides[0] == sides[1] and sides[2] == sides[3]
    if any(sides) and (mode != "zeros" or not even):
        kind = "constant" if mode == "zeros" else mode
        source = str(b.add(f"{node.name}_pad", "pad", (source,), padding=sides, mode=kind).name)
        sides = (0, 0, 0, 0)
    options = {"stride": stride, "padding": (sides[2], sides[0]), "dilation": dilation, "groups": groups}
    return b.add(node.name, "conv2d", (source,), weights, **options)


def _conv_module(b: Builder, node: fx.Node) -> Value:
    m = b.modules[str(node.target)]
    assert isinstance(m, nn.Conv2d)
    weights = b.register(node.name, m, m.weight, m.bias)
    return _convolve(b, node, b.wire(node.args[0]), weights, m.stride, m.padding, m.dilation, m.groups, m.padding_mode)


def _constant(b: Builder, argument: Any) -> Tensor | None:
    if argument is None:
        return None
    value = b.values[argument].constant if isinstance(argument, fx.Node) else None
    if value is None:
        raise ConversionError("its weights are computed in forward; expected parameters")
    return value


def _conv_function(b: Builder, node: fx.Node) -> Value:
    weight, bias = _constant(b, _argument(node, 1, "weight", None)), _constant(b, _argument(node, 2, "bias", None))
    assert weight is not None
    weights = b.register(node.name, None, weight, bias)
    stride, padding, dilation, groups = (
        _argument(node, i, name, default)
        for i, (name, default) in enumerate([("stride", 1), ("padding", 0), ("dilation", 1), ("groups", 1)], 3)
    )
    return _convolve(b, node, b.wire(node.args[0]), weights, stride, padding, dilation, groups)


def _conv_transpose_module(b: Builder, node: fx.Node) -> Value:
    m = b.modules[str(node.target)]
    assert isinstance(m, nn.ConvTranspose2d)
    if len(node.args) > 1 or node.kwargs:
        raise ConversionError("an output_size at run time is not supported; set output_padding")
    return b.add(
        node.name,
        "conv_transpose2d",
        (b.wire(node.args[0]),),
        b.register(node.name, m, m.weight, m.bias),
        stride=_pair(m.stride),
        padding=_pair(m.padding),
        output_padding=_pair(m.output_padding),
        groups=m.groups,
        dilation=_pair(m.dilation),
    )


def _batch_norm(b: Builder, node: fx.Node) -> Value:
    m = b.modules[str(node.target)]
    assert isinstance(m, nn.BatchNorm2d)
    if m.running_mean is None or m.running_var is None:
        raise ConversionError("it keeps no running statistics; train it with track_running_stats=True")
    source = b.wire(node.args[0])
    gain = 1 / (m.running_var.double() + m.eps).sqrt()
    shift = -m.running_mean.double() * gain
    if m.weight is not None:
        gain, shift = gain * m.weight.detach().double(), shift * m.weight.detach().double() + m.bias.detach().double()
    below = b.nodes[source]
    key = below.weights
    if key is not None and b.alone(node, source) and below.op in ("conv2d", "conv_transpose2d"):
        shared = sum(other.weights == key for other in b.nodes.values()) > 1
        grouped = below.op == "conv_transpose2d" and below.options["groups"] > 1
        if not shared and not grouped:
            weight, bias = b.weights[key]
            shape = (-1, 1, 1, 1) if below.op == "conv2d" else (1, -1, 1, 1)
            old = 0 if bias is None else bias.double() * gain
            b.weights[key] = ((weight.double() * gain.view(shape)).to(weight.dtype), (shift + old).to(weight.dtype))
            for owner in [k for k, v in b.owners.items() if v == key]:
                del b.owners[owner]  # a later call of the convolution alone needs its own weights
            return Value(name=source, fate="folded")
    dtype = m.running_mean.dtype
    return _affine(b, node, source, gain.to(dtype), shift.to(dtype))


def _affine(b: Builder, node: fx.Node, source: str, scale: Tensor, shift: Tensor | None) -> Value:
    weights = b.register(node.name, None, scale.flatten(), None if shift is None else shift.flatten())
    return b.add(node.name, "affine", (source,), weights)


def _relu(b: Builder, node: fx.Node) -> Value:
    source = b.wire(node.args[0])
    if b.nodes[source].op == "neuron":
        return Value(name=source)
    return replace(b.add(node.name, "neuron", (source,)), fate="converted")


def _qcfs(b: Builder, node: fx.Node) -> Value:
    m = b.modules[str(node.target)]
    assert isinstance(m, QCFS)
    value = b.add(node.name, "neuron", (b.wire(node.args[0]),))
    b.clip_levels[str(value.name)] = m.log_clip_level.detach().exp()
    b.levels[str(value.name)] = m.levels
    return replace(value, fate="converted")


def _on_image_or(handler: Handler) -> Handler:
    """A ReLU that reads the raw image is an operation on the image, not a neuron."""

    def handle(b: Builder, node: fx.Node) -> Value:
        if b.wire(node.args[0]) in b.image:
            b.keep_raw(node)
            return b.values[node]
        return handler(b, node)

    return handle


def _identity(b: Builder, node: fx.Node) -> Value:
    return Value(name=b.wire(node.args[0]))


def _dropout_function(b: Builder, node: fx.Node) -> Value:
    if _argument(node, 2, "training", True):
        raise ConversionError("it is active; trace the network in eval mode and pass training=self.training")
    return _identity(b, node)


def _per_channel(b: Builder, value: Any) -> Tensor:
    """A number or a ``(1, C, 1, 1)`` constant as a vector."""
    if isinstance(value, (int, float)):
        return torch.tensor([float(value)], dtype=b.dtype)
    assert isinstance(value, Tensor)
    if value.numel() == 1 or (value.dim() in (3, 4) and value.shape[-3] == value.numel()):
        return value.flatten().to(b.dtype)
    raise ConversionError(f"a constant of shape {tuple(value.shape)}; expected a number or one value per channel")


def _operands(b: Builder, node: fx.Node) -> tuple[list[Any], list[bool]]:
    """The two operands, each a wire's name or a constant, and which are wires."""
    pair = [_argument(node, 0, "input", None), _argument(node, 1, "other", None)]
    found = []
    for operand in pair:
        value = b.values.get(operand) if isinstance(operand, fx.Node) else None
        if value is not None and value.size_of is not None:
            raise ConversionError("it computes with sizes; use fixed ones")
        found.append(operand if value is None else value.name if value.name is not None else value.constant)
    return found, [isinstance(operand, str) for operand in found]


def _sum(sign: int) -> Handler:
    def handle(b: Builder, node: fx.Node) -> Value:
        if node.kwargs.get("alpha", 1) != 1:
            raise ConversionError("alpha is not supported; scale the summand first")
        (first, second), wires = _operands(b, node)
        if all(wires):
            return b.add(node.name, "add" if sign > 0 else "sub", (first, second))
        one = torch.ones(1, dtype=b.dtype)
        if wires[0]:
            return _affine(b, node, first, one, sign * _per_channel(b, second))
        return _affine(b, node, second, sign * one, _per_channel(b, first))

    return handle


def _multiply(b: Builder, node: fx.Node) -> Value:
    (first, second), wires = _operands(b, node)
    if all(wires):
        raise ConversionError("the product of two feature maps is not linear")
    source, factor = (first, second) if wires[0] else (second, first)
    return _affine(b, node, source, _per_channel(b, factor), None)


def _divide(b: Builder, node: fx.Node) -> Value:
    (first, second), wires = _operands(b, node)
    if wires != [True, False] or node.kwargs.get("rounding_mode"):
        raise ConversionError("only division by a constant is linear")
    return _affine(b, node, first, 1 / _per_channel(b, second), None)


def _negate(b: Builder, node: fx.Node) -> Value:
    return _affine(b, node, b.wire(node.args[0]), -torch.ones(1, dtype=b.dtype), None)


def _concatenate(b: Builder, node: fx.Node) -> Value:
    dim = _argument(node, 1, "dim", node.kwargs.get("axis", 0))
    if dim not in (1, -3):
        raise ConversionError(f"it concatenates along dimension {dim}; only channels (1) can be")
    parts = _argument(node, 0, "tensors", None)
    assert isinstance(parts, (list, tuple))
    return b.add(node.name, "concat", tuple(b.wire(part) for part in parts))


def _get_item(b: Builder, node: fx.Node) -> Value:
    assert isinstance(node.args[0], fx.Node)
    value, index = b.values[node.args[0]], node.args[1]
    if value.size_of is not None:
        if index in (slice(2, None), slice(-2, None), slice(2, None, None)):
            return value
        raise ConversionError("it computes with sizes; only a whole spatial size, x.shape[-2:], can be used")
    index = index if isinstance(index, tuple) else (index,)
    if Ellipsis in index:
        i = index.index(Ellipsis)
        index = (*index[:i], *[slice(None)] * (5 - len(index)), *index[i + 1 :])
    parts = [*index, *[slice(None)] * (4 - len(index))]
    if len(parts) != 4 or not all(isinstance(part, slice) for part in parts) or parts[0] != slice(None):
        raise ConversionError(f"index {index!r}: only slices of channels, rows and columns keep a feature map")
    spans = [[part.start, part.stop, part.step] for part in parts[1:]]
    if not all(bound is None or isinstance(bound, int) for span in spans for bound in span):
        raise ConversionError("its bounds are computed from sizes; use fixed ones")
    return b.add(node.name, "slice", (b.wire(node.args[0]),), channels=spans[0], rows=spans[1], columns=spans[2])


def _size(b: Builder, node: fx.Node) -> Value:
    if node.op == "call_function" and node.args[1] != "shape":
        raise ConversionError(f"attribute {node.args[1]!r} of a feature map is not supported")
    if node.op == "call_method" and len(node.args) + len(node.kwargs) > 1:
        raise ConversionError("it computes with sizes; only a whole spatial size, x.shape[-2:], can be used")
    return Value(size_of=b.wire(node.args[0]))


def _pad(b: Builder, node: fx.Node) -> Value:
    padding, mode = _argument(node, 1, "pad", None), _argument(node, 2, "mode", "constant")
    if mode == "constant" and _argument(node, 3, "value", None) not in (None, 0, 0.0):
        raise ConversionError("padding with a value other than 0 is not linear")
    return _padded(b, node, padding, mode)


def _padded(b: Builder, node: fx.Node, padding: Any, mode: str) -> Value:
    sides = tuple(padding) if isinstance(padding, (tuple, list)) else (padding,) * 4
    if len(sides) not in (2, 4) or not all(isinstance(side, int) for side in sides):
        raise ConversionError(f"padding {padding!r}; expected fixed numbers for columns and rows")
    return b.add(node.name, "pad", (b.wire(node.args[0]),), padding=sides, mode=mode)


def _pad_module(mode: str) -> Handler:
    def handle(b: Builder, node: fx.Node) -> Value:
        m: Any = b.modules[str(node.target)]
        if getattr(m, "value", 0) != 0:
            raise ConversionError("padding with a value other than 0 is not linear")
        return _padded(b, node, m.padding, mode)

    return handle


def _average_pool(b: Builder, node: fx.Node) -> Value:
    if node.op == "call_module":
        m: Any = b.modules[str(node.target)]
        kernel, stride, padding = m.kernel_size, m.stride, m.padding
        ceil, count, divisor = m.ceil_mode, m.count_include_pad, m.divisor_override
    else:
        kernel, stride = _argument(node, 1, "kernel_size", None), _argument(node, 2, "stride", None)
        padding, ceil = _argument(node, 3, "padding", 0), _argument(node, 4, "ceil_mode", False)
        count, divisor = _argument(node, 5, "count_include_pad", True), _argument(node, 6, "divisor_override", None)
    if divisor is not None:
        raise ConversionError("divisor_override is not supported")
    kernel = _pair(kernel)
    return b.add(
        node.name,
        "avg_pool2d",
        (b.wire(node.args[0]),),
        kernel_size=kernel,
        stride=_pair(stride) if stride else kernel,
        padding=_pair(padding),
        ceil_mode=bool(ceil),
        count_include_pad=bool(count),
    )


def _interpolate(b: Builder, node: fx.Node) -> Value:
    if node.op == "call_module":
        m: Any = b.modules[str(node.target)]
        size, factor, mode, corners = m.size, m.scale_factor, m.mode, m.align_corners
        again = m.recompute_scale_factor
    else:
        size, factor = _argument(node, 1, "size", None), _argument(node, 2, "scale_factor", None)
        mode, corners = _argument(node, 3, "mode", "nearest"), _argument(node, 4, "align_corners", None)
        again = _argument(node, 5, "recompute_scale_factor", None) or _argument(node, 6, "antialias", False)
    if again:
        raise ConversionError("recompute_scale_factor and antialias are not supported")
    if mode not in ("nearest", "nearest-exact", "bilinear", "bicubic"):
        raise ConversionError(f"mode {mode!r}; expected nearest, bilinear or bicubic")
    inputs: tuple[str, ...] = (b.wire(node.args[0]),)
    if isinstance(size, fx.Node):
        like = b.values[size].size_of
        if like is None:
            raise ConversionError("its size is computed; give a fixed one, a scale factor, or x.shape[-2:]")
        inputs, size = (*inputs, like), None
    size = list(_pair(size)) if size is not None else None
    factor = [float(f) for f in factor] if isinstance(factor, (tuple, list)) else factor
    return b.add(node.name, "interpolate", inputs, size=size, scale_factor=factor, mode=mode, align_corners=corners)


def _shuffle(op: str) -> Handler:
    def handle(b: Builder, node: fx.Node) -> Value:
        if node.op == "call_module":
            m: Any = b.modules[str(node.target)]
            factor = m.upscale_factor if op == "pixel_shuffle" else m.downscale_factor
        else:
            factor = _argument(node, 1, "upscale_factor" if op == "pixel_shuffle" else "downscale_factor", None)
        return b.add(node.name, op, (b.wire(node.args[0]),), factor=int(factor))

    return handle


_neuron = _on_image_or(_relu)
_add, _subtract, _pad_constant = _sum(1), _sum(-1), _pad_module("constant")

# what may do anything to the image before its first weights, which is a constant
_ANYTHING_ON_IMAGE = frozenset(
    {_add, _subtract, _multiply, _divide, _concatenate, _get_item, _pad, _pad_constant, _average_pool, _interpolate}
)

_MODULES: dict[type, Handler] = {
    nn.Conv2d: _conv_module,
    nn.ConvTranspose2d: _conv_transpose_module,
    nn.BatchNorm2d: _batch_norm,
    nn.ReLU: _neuron,
    QCFS: _on_image_or(_qcfs),
    nn.Identity: _identity,
    nn.Dropout: _identity,
    nn.Dropout2d: _identity,
    nn.AvgPool2d: _average_pool,
    nn.Upsample: _interpolate,
    nn.UpsamplingBilinear2d: _interpolate,
    nn.UpsamplingNearest2d: _interpolate,
    nn.PixelShuffle: _shuffle("pixel_shuffle"),
    nn.PixelUnshuffle: _shuffle("pixel_unshuffle"),
    nn.ZeroPad2d: _pad_constant,
    nn.ConstantPad2d: _pad_constant,
    nn.ReflectionPad2d: _pad_module("reflect"),
    nn.ReplicationPad2d: _pad_module("replicate"),
    nn.CircularPad2d: _pad_module("circular"),
}

_FUNCTIONS: dict[Any, Handler] = {
    functional.conv2d: _conv_function,
    functional.relu: _neuron,
    torch.relu: _neuron,
    torch.relu_: _neuron,
    functional.dropout: _dropout_function,
    functional.dropout2d: _dropout_function,
    operator.add: _add,
    operator.iadd: _add,
    torch.add: _add,
    operator.sub: _subtract,
    operator.isub: _subtract,
    torch.sub: _subtract,
    operator.mul: _multiply,
    operator.imul: _multiply,
    torch.mul: _multiply,
    operator.truediv: _divide,
    torch.div: _divide,
    operator.neg: _negate,
    torch.neg: _negate,
    torch.cat: _concatenate,
    torch.concat: _concatenate,
    operator.getitem: _get_item,
    getattr: _size,
    functional.pad: _pad,
    functional.avg_pool2d: _average_pool,
    functional.interpolate: _interpolate,
    functional.pixel_shuffle: _shuffle("pixel_shuffle"),
    functional.pixel_unshuffle: _shuffle("pixel_unshuffle"),
    torch.pixel_shuffle: _shuffle("pixel_shuffle"),
    torch.pixel_unshuffle: _shuffle("pixel_unshuffle"),
}

_METHODS: dict[str, Handler] = {
    "relu": _neuron,
    "relu_": _neuron,
    "add": _add,
    "add_": _add,
    "sub": _subtract,
    "sub_": _subtract,
    "mul": _multiply,
    "mul_": _multiply,
    "div": _divide,
    "neg": _negate,
    "contiguous": _identity,
    "clone": _identity,
    "size": _size,
}

TABLES = Tables(_MODULES, _FUNCTIONS, _METHODS, _ANYTHING_ON_IMAGE)
