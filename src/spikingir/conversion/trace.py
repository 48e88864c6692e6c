"""From a module to a body as data: torch.fx tracing, batch-norm folding, refusal of what is not linear.

Each handler below turns one kind of operation into nodes of :mod:`spikingir.spiking.graph`. What has no handler is
refused by name and place, unless all it reads is the raw image.
"""

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from spikingir.conversion.errors import ConversionError
from spikingir.conversion.qcfs import QCFS
from spikingir.spiking.graph import Node


@dataclass(frozen=True)
class TracedBody:
    """A body as data.

    Attributes:
        nodes: Operations in order; the last is the output neuron.
        weights: Weight and bias by name, batch norm folded in.
        raw: Functions on the raw image by node name.
        clip_levels: Clip levels that the network itself brings (QCFS), by neuron.
        levels: Number of quantiser levels of those (QCFS), by neuron.
        signed: Names of signed neurons: the output, where the body does not end in a ReLU.
        origin: One (place, operation, fate) per operation of the module; fate is converted, kept or folded.
    """

    nodes: tuple[Node, ...]
    weights: Mapping[str, tuple[Tensor, Tensor | None]]
    raw: Mapping[str, Callable[..., Tensor]]
    clip_levels: Mapping[str, Tensor]
    levels: Mapping[str, int]
    signed: frozenset[str]
    origin: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True)
class _Value:
    """What an fx node stands for: a wire (``name``), a constant tensor, or the size of a wire; and its fate."""

    name: str | None = None
    constant: Tensor | None = None
    size_of: str | None = None
    fate: str = "kept"


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, QCFS) or super().is_leaf_module(m, module_qualified_name)


def trace_body(body: nn.Module) -> TracedBody:
    """Trace ``body`` into nodes.

    Args:
        body: Convolutional network in eval mode; its parameters are copied, not shared.

    Raises:
        ConversionError: It cannot be traced, or holds an operation that a spiking network cannot do.
    """
    try:
        graph = _Tracer().trace(body)
    except ConversionError:
        raise
    except Exception as error:  # fx raises what the body's own code raises on a proxy
        raise ConversionError(
            f"cannot trace {type(body).__name__}: {error}. Its forward must neither branch on values nor write into "
            "slices; give convert a module whose forward is a fixed sequence of operations"
        ) from error
    return _Builder(body, graph).build()


class _Builder:
    def __init__(self, body: nn.Module, graph: fx.Graph) -> None:
        module = fx.GraphModule(body, graph)
        module.graph.eliminate_dead_code()
        self.graph = module.graph
        self.modules = dict(body.named_modules())
        self.body = body
        self.dtype = next((p.dtype for p in body.parameters() if p.is_floating_point()), torch.get_default_dtype())
        self.values: dict[fx.Node, _Value] = {}
        self.nodes: dict[str, Node] = {}
        self.weights: dict[str, tuple[Tensor, Tensor | None]] = {}
        self.owners: dict[int, str] = {}
        self.raw: dict[str, Callable[..., Tensor]] = {}
        self.image: set[str] = set()
        self.clip_levels: dict[str, Tensor] = {}
        self.levels: dict[str, int] = {}
        self.origin: list[tuple[str, str, str]] = []

    def build(self) -> TracedBody:
        result: str | None = None
        for node in self.graph.nodes:
            if node.op == "placeholder":
                self._placeholder(node)
            elif node.op == "get_attr":
                self.values[node] = _Value(constant=_attribute(self.body, str(node.target)))
            elif node.op == "output":
                result = self._output(node)
            else:
                self._operation(node)
        assert result is not None
        if result in self.image:
            raise ConversionError(f"{type(self.body).__name__} has no convolution between its input and its output")
        signed = set()
        if self.nodes[result].op != "neuron":
            signed.add(str(self._add("output", "neuron", (result,)).name))
            self.origin.append(("output", "output", "converted"))
        elif list(self.nodes)[-1] != result:  # the interpreter reads the image off the last node
            self.nodes[result] = self.nodes.pop(result)
        for name, tensors in self.weights.items():
            for tensor in tensors:
                if tensor is not None and not torch.isfinite(tensor).all():
                    raise ConversionError(
                        f"the weights of '{name}' hold NaN or infinite values; load a sound checkpoint"
                    )
        return TracedBody(
            nodes=tuple(self.nodes.values()),
            weights=self.weights,
            raw=self.raw,
            clip_levels=self.clip_levels,
            levels=self.levels,
            signed=frozenset(signed),
            origin=tuple(self.origin),
        )

    def _placeholder(self, node: fx.Node) -> None:
        if self.image:
            if node.args and not node.users:  # it has a default and nothing reads it
                return
            raise ConversionError(f"the body takes a second argument '{node.name}'; a body reads the image alone")
        self.values[node] = self._add(node.name, "input", ())
        self.image.add(self._wire(node))

    def _output(self, node: fx.Node) -> str:
        value = node.args[0]
        if not isinstance(value, fx.Node) or self.values[value].name is None:
            raise ConversionError("the body must return one tensor")
        return self._wire(value)

    def _operation(self, node: fx.Node) -> None:
        place, what, handler = self._handler(node)
        if not node.args and "input" in node.kwargs:
            rest = dict(node.kwargs)
            node.args = (rest.pop("input"),)
            node.kwargs = rest
        readers = [self.values[n] for n in node.all_input_nodes]
        if readers and all(v.constant is not None for v in readers):
            self.values[node] = _Value(constant=self._call(node)())
            return
        on_image = all(v.name in self.image for v in readers if v.constant is None and v.size_of is None)
        as_it_is = on_image and all(v.name or v.constant is not None for v in readers)
        if handler is None and as_it_is:
            self._raw(node)
            self.origin.append((place, what, "kept"))
            return
        if handler is None:
            raise ConversionError(
                f"cannot convert '{what}' at '{place}': between spiking neurons only linear operations that act on "
                "each time step alone can stand (convolution, padding, sum, concatenation, slicing, average pooling, "
                "pixel shuffle, resizing, scaling), and ReLU; replace it or leave it out of the body"
            )
        try:
            self.values[node] = handler(self, node)
        except ConversionError as error:
            if not as_it_is or handler not in _ANYTHING_ON_IMAGE:
                raise ConversionError(f"cannot convert '{what}' at '{place}': {error}") from None
            self._raw(node)
        self.origin.append((place, what, self.values[node].fate))
        name = self.values[node].name
        weighted = name is not None and self.nodes[name].op in ("conv2d", "conv_transpose2d", "neuron")
        if on_image and name is not None and not weighted:
            self.image.add(name)

    def _handler(self, node: fx.Node) -> tuple[str, str, "_Handler | None"]:
        if node.op == "call_module":
            module = self.modules[str(node.target)]
            return str(node.target), type(module).__name__, _MODULES.get(type(module))
        what = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))
        table: Mapping[Any, _Handler] = _METHODS if node.op == "call_method" else _FUNCTIONS
        return node.name, what, table.get(node.target)

    def _wire(self, argument: Any) -> str:
        value = self.values.get(argument) if isinstance(argument, fx.Node) else None
        if value is None or value.name is None:
            raise ConversionError(f"expected a feature map where {argument!r} stands")
        return value.name

    def _add(self, name: str, op: str, inputs: tuple[str, ...], weights: str | None = None, **options: Any) -> _Value:
        while name in self.nodes or name in _TAKEN:
            name += "_"
        self.nodes[name] = Node(name, op, inputs, options, weights)
        return _Value(name=name)

    def _raw(self, node: fx.Node) -> None:
        wires = tuple(self._wire(n) for n in node.all_input_nodes if self.values[n].name)
        self.values[node] = self._add(node.name, "raw", wires)
        name = str(self.values[node].name)
        self.raw[name] = self._call(node)
        self.image.add(name)

    def _call(self, node: fx.Node) -> Callable[..., Tensor]:
        """The operation itself, as a function of the wires that it reads."""
        wires = [n for n in node.all_input_nodes if self.values[n].name]
        constants = {n: self.values[n].constant for n in node.all_input_nodes}
        module = self.modules[str(node.target)] if node.op == "call_module" else None

        def run(*images: Tensor) -> Tensor:
            # copies, so that an operation that writes in place leaves the caller's image alone
            wired = {n: image.clone() for n, image in zip(wires, images, strict=True)}

            def fill(n: fx.Node) -> Any:
                constant = constants[n]
                if constant is None:
                    return wired[n]
                return constant.to(images[0].device) if images else constant

            args, kwargs = fx.map_arg(node.args, fill), fx.map_arg(node.kwargs, fill)
            if module is not None:
                result = module(*args, **kwargs)
            elif node.op == "call_method":
                result = getattr(args[0], str(node.target))(*args[1:], **kwargs)
            else:
                assert callable(node.target)
                result = node.target(*args, **kwargs)
            assert isinstance(result, Tensor), f"'{node.name}' must give one tensor"
            return result

        return run

    def _alone(self, node: fx.Node, source: str) -> bool:
        """Whether ``node`` is the only reader of a wire, under whatever names identities gave it."""
        aliases = {n for n, value in self.values.items() if value.name == source}
        return {user for n in aliases for user in n.users} <= aliases | {node}

    def _weights(self, name: str, owner: nn.Module | None, weight: Tensor, bias: Tensor | None) -> str:
        """Register a copy of the weights; a module that is called twice keeps one."""
        if owner is not None and id(owner) in self.owners:
            return self.owners[id(owner)]
        while name in self.weights or name in _TAKEN:
            name += "_"
        self.weights[name] = (weight.detach().clone(), None if bias is None else bias.detach().clone())
        if owner is not None:
            self.owners[id(owner)] = name
        return name


_Handler = Callable[[_Builder, fx.Node], _Value]

# names that torch's containers need for themselves
_TAKEN = frozenset(dir(nn.ModuleDict) + dir(nn.ParameterDict))


def _attribute(module: nn.Module, target: str) -> Tensor:
    value: Any = module
    for part in target.split("."):
        value = getattr(value, part)
    if not isinstance(value, Tensor):
        raise ConversionError(f"attribute '{target}' is a {type(value).__name__}; expected a tensor")
    return value.detach()


def _argument(node: fx.Node, position: int, name: str, default: Any) -> Any:
    if len(node.args) > position:
        return node.args[position]
    return node.kwargs.get(name, default)


def _pair(value: Any) -> tuple[int, int]:
    return (int(value), int(value)) if isinstance(value, int) else (int(value[0]), int(value[1]))


def _convolve(
    b: _Builder,
    node: fx.Node,
    source: str,
    weights: str,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
    mode: str = "zeros",
) -> _Value:
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
        source = str(b._add(f"{node.name}_pad", "pad", (source,), padding=sides, mode=kind).name)
        sides = (0, 0, 0, 0)
    options = {"stride": stride, "padding": (sides[2], sides[0]), "dilation": dilation, "groups": groups}
    return b._add(node.name, "conv2d", (source,), weights, **options)


def _conv_module(b: _Builder, node: fx.Node) -> _Value:
    m = b.modules[str(node.target)]
    assert isinstance(m, nn.Conv2d)
    weights = b._weights(node.name, m, m.weight, m.bias)
    return _convolve(b, node, b._wire(node.args[0]), weights, m.stride, m.padding, m.dilation, m.groups, m.padding_mode)


def _constant(b: _Builder, argument: Any) -> Tensor | None:
    if argument is None:
        return None
    value = b.values[argument].constant if isinstance(argument, fx.Node) else None
    if value is None:
        raise ConversionError("its weights are computed in forward; expected parameters")
    return value


def _conv_function(b: _Builder, node: fx.Node) -> _Value:
    weight, bias = _constant(b, _argument(node, 1, "weight", None)), _constant(b, _argument(node, 2, "bias", None))
    assert weight is not None
    weights = b._weights(node.name, None, weight, bias)
    stride, padding, dilation, groups = (
        _argument(node, i, name, default)
        for i, (name, default) in enumerate([("stride", 1), ("padding", 0), ("dilation", 1), ("groups", 1)], 3)
    )
    return _convolve(b, node, b._wire(node.args[0]), weights, stride, padding, dilation, groups)


def _conv_transpose_module(b: _Builder, node: fx.Node) -> _Value:
    m = b.modules[str(node.target)]
    assert isinstance(m, nn.ConvTranspose2d)
    if len(node.args) > 1 or node.kwargs:
        raise ConversionError("an output_size at run time is not supported; set output_padding")
    return b._add(
        node.name,
        "conv_transpose2d",
        (b._wire(node.args[0]),),
        b._weights(node.name, m, m.weight, m.bias),
        stride=_pair(m.stride),
        padding=_pair(m.padding),
        output_padding=_pair(m.output_padding),
        groups=m.groups,
        dilation=_pair(m.dilation),
    )


def _batch_norm(b: _Builder, node: fx.Node) -> _Value:
    m = b.modules[str(node.target)]
    assert isinstance(m, nn.BatchNorm2d)
    if m.running_mean is None or m.running_var is None:
        raise ConversionError("it keeps no running statistics; train it with track_running_stats=True")
    source = b._wire(node.args[0])
    gain = 1 / (m.running_var.double() + m.eps).sqrt()
    shift = -m.running_mean.double() * gain
    if m.weight is not None:
        gain, shift = gain * m.weight.detach().double(), shift * m.weight.detach().double() + m.bias.detach().double()
    below = b.nodes[source]
    key = below.weights
    if key is not None and b._alone(node, source) and below.op in ("conv2d", "conv_transpose2d"):
        shared = sum(other.weights == key for other in b.nodes.values()) > 1
        grouped = below.op == "conv_transpose2d" and below.options["groups"] > 1
        if not shared and not grouped:
            weight, bias = b.weights[key]
            shape = (-1, 1, 1, 1) if below.op == "conv2d" else (1, -1, 1, 1)
            old = 0 if bias is None else bias.double() * gain
            b.weights[key] = ((weight.double() * gain.view(shape)).to(weight.dtype), (shift + old).to(weight.dtype))
            for owner in [k for k, v in b.owners.items() if v == key]:
                del b.owners[owner]  # a later call of the convolution alone needs its own weights
            return _Value(name=source, fate="folded")
    dtype = m.running_mean.dtype
    return _affine(b, node, source, gain.to(dtype), shift.to(dtype))


def _affine(b: _Builder, node: fx.Node, source: str, scale: Tensor, shift: Tensor | None) -> _Value:
    weights = b._weights(node.name, None, scale.flatten(), None if shift is None else shift.flatten())
    return b._add(node.name, "affine", (source,), weights)


def _relu(b: _Builder, node: fx.Node) -> _Value:
    source = b._wire(node.args[0])
    if b.nodes[source].op == "neuron":
        return _Value(name=source)
    return replace(b._add(node.name, "neuron", (source,)), fate="converted")


def _qcfs(b: _Builder, node: fx.Node) -> _Value:
    m = b.modules[str(node.target)]
    assert isinstance(m, QCFS)
    value = b._add(node.name, "neuron", (b._wire(node.args[0]),))
    b.clip_levels[str(value.name)] = m.log_clip_level.detach().exp()
    b.levels[str(value.name)] = m.levels
    return replace(value, fate="converted")


def _on_image_or(handler: _Handler) -> _Handler:
    """A ReLU that reads the raw image is an operation on the image, not a neuron."""

    def handle(b: _Builder, node: fx.Node) -> _Value:
        if b._wire(node.args[0]) in b.image:
            b._raw(node)
            return b.values[node]
        return handler(b, node)

    return handle


def _identity(b: _Builder, node: fx.Node) -> _Value:
    return _Value(name=b._wire(node.args[0]))


def _dropout_function(b: _Builder, node: fx.Node) -> _Value:
    if _argument(node, 2, "training", True):
        raise ConversionError("it is active; trace the network in eval mode and pass training=self.training")
    return _identity(b, node)


def _per_channel(b: _Builder, value: Any) -> Tensor:
    """A number or a ``(1, C, 1, 1)`` constant as a vector."""
    if isinstance(value, (int, float)):
        return torch.tensor([float(value)], dtype=b.dtype)
    assert isinstance(value, Tensor)
    if value.numel() == 1 or (value.dim() in (3, 4) and value.shape[-3] == value.numel()):
        return value.flatten().to(b.dtype)
    raise ConversionError(f"a constant of shape {tuple(value.shape)}; expected a number or one value per channel")


def _operands(b: _Builder, node: fx.Node) -> tuple[list[Any], list[bool]]:
    """The two operands, each a wire's name or a constant, and which are wires."""
    pair = [_argument(node, 0, "input", None), _argument(node, 1, "other", None)]
    found = []
    for operand in pair:
        value = b.values.get(operand) if isinstance(operand, fx.Node) else None
        if value is not None and value.size_of is not None:
            raise ConversionError("it computes with sizes; use fixed ones")
        found.append(operand if value is None else value.name if value.name is not None else value.constant)
    return found, [isinstance(operand, str) for operand in found]


def _sum(sign: int) -> _Handler:
    def handle(b: _Builder, node: fx.Node) -> _Value:
        if node.kwargs.get("alpha", 1) != 1:
            raise ConversionError("alpha is not supported; scale the summand first")
        (first, second), wires = _operands(b, node)
        if all(wires):
            return b._add(node.name, "add" if sign > 0 else "sub", (first, second))
        one = torch.ones(1, dtype=b.dtype)
        if wires[0]:
            return _affine(b, node, first, one, sign * _per_channel(b, second))
        return _affine(b, node, second, sign * one, _per_channel(b, first))

    return handle


def _multiply(b: _Builder, node: fx.Node) -> _Value:
    (first, second), wires = _operands(b, node)
    if all(wires):
        raise ConversionError("the product of two feature maps is not linear")
    source, factor = (first, second) if wires[0] else (second, first)
    return _affine(b, node, source, _per_channel(b, factor), None)


def _divide(b: _Builder, node: fx.Node) -> _Value:
    (first, second), wires = _operands(b, node)
    if wires != [True, False] or node.kwargs.get("rounding_mode"):
        raise ConversionError("only division by a constant is linear")
    return _affine(b, node, first, 1 / _per_channel(b, second), None)


def _negate(b: _Builder, node: fx.Node) -> _Value:
    return _affine(b, node, b._wire(node.args[0]), -torch.ones(1, dtype=b.dtype), None)


def _concatenate(b: _Builder, node: fx.Node) -> _Value:
    dim = _argument(node, 1, "dim", node.kwargs.get("axis", 0))
    if dim not in (1, -3):
        raise ConversionError(f"it concatenates along dimension {dim}; only channels (1) can be")
    parts = _argument(node, 0, "tensors", None)
    assert isinstance(parts, (list, tuple))
    return b._add(node.name, "concat", tuple(b._wire(part) for part in parts))


def _get_item(b: _Builder, node: fx.Node) -> _Value:
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
    return b._add(node.name, "slice", (b._wire(node.args[0]),), channels=spans[0], rows=spans[1], columns=spans[2])


def _size(b: _Builder, node: fx.Node) -> _Value:
    if node.op == "call_function" and node.args[1] != "shape":
        raise ConversionError(f"attribute {node.args[1]!r} of a feature map is not supported")
    if node.op == "call_method" and len(node.args) + len(node.kwargs) > 1:
        raise ConversionError("it computes with sizes; only a whole spatial size, x.shape[-2:], can be used")
    return _Value(size_of=b._wire(node.args[0]))


def _pad(b: _Builder, node: fx.Node) -> _Value:
    padding, mode = _argument(node, 1, "pad", None), _argument(node, 2, "mode", "constant")
    if mode == "constant" and _argument(node, 3, "value", None) not in (None, 0, 0.0):
        raise ConversionError("padding with a value other than 0 is not linear")
    return _padded(b, node, padding, mode)


def _padded(b: _Builder, node: fx.Node, padding: Any, mode: str) -> _Value:
    sides = tuple(padding) if isinstance(padding, (tuple, list)) else (padding,) * 4
    if len(sides) not in (2, 4) or not all(isinstance(side, int) for side in sides):
        raise ConversionError(f"padding {padding!r}; expected fixed numbers for columns and rows")
    return b._add(node.name, "pad", (b._wire(node.args[0]),), padding=sides, mode=mode)


def _pad_module(mode: str) -> _Handler:
    def handle(b: _Builder, node: fx.Node) -> _Value:
        m: Any = b.modules[str(node.target)]
        if getattr(m, "value", 0) != 0:
            raise ConversionError("padding with a value other than 0 is not linear")
        return _padded(b, node, m.padding, mode)

    return handle


def _average_pool(b: _Builder, node: fx.Node) -> _Value:
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
    return b._add(
        node.name,
        "avg_pool2d",
        (b._wire(node.args[0]),),
        kernel_size=kernel,
        stride=_pair(stride) if stride else kernel,
        padding=_pair(padding),
        ceil_mode=bool(ceil),
        count_include_pad=bool(count),
    )


def _interpolate(b: _Builder, node: fx.Node) -> _Value:
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
    inputs: tuple[str, ...] = (b._wire(node.args[0]),)
    if isinstance(size, fx.Node):
        like = b.values[size].size_of
        if like is None:
            raise ConversionError("its size is computed; give a fixed one, a scale factor, or x.shape[-2:]")
        inputs, size = (*inputs, like), None
    size = list(_pair(size)) if size is not None else None
    factor = [float(f) for f in factor] if isinstance(factor, (tuple, list)) else factor
    return b._add(node.name, "interpolate", inputs, size=size, scale_factor=factor, mode=mode, align_corners=corners)


def _shuffle(op: str) -> _Handler:
    def handle(b: _Builder, node: fx.Node) -> _Value:
        if node.op == "call_module":
            m: Any = b.modules[str(node.target)]
            factor = m.upscale_factor if op == "pixel_shuffle" else m.downscale_factor
        else:
            factor = _argument(node, 1, "upscale_factor" if op == "pixel_shuffle" else "downscale_factor", None)
        return b._add(node.name, op, (b._wire(node.args[0]),), factor=int(factor))

    return handle


_neuron = _on_image_or(_relu)
_add, _subtract, _pad_constant = _sum(1), _sum(-1), _pad_module("constant")

# what may do anything to the image before its first weights, which is a constant
_ANYTHING_ON_IMAGE = frozenset(
    {_add, _subtract, _multiply, _divide, _concatenate, _get_item, _pad, _pad_constant, _average_pool, _interpolate}
)

_MODULES: dict[type, _Handler] = {
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

_FUNCTIONS: dict[Any, _Handler] = {
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

_METHODS: dict[str, _Handler] = {
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
