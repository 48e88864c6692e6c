"""Exact rewrites: activations, poolings and moves as ReLUs, convolutions, sums and slices, which a body may hold.

A leaky ReLU is ``relu(x) - a relu(-x)``, a clamp the difference of two ReLUs, a maximum ``a + relu(b - a)``: layers of
neurons and a mixture of their channels, which the next convolution takes into its weights. The conventional network of
the graph computes the same numbers. Smooth activations are replaced by straight pieces where that was asked for.
"""

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from spikingir.graph.activations import PiecewiseLinear, Smooth
from spikingir.graph.errors import ConversionError, NotLinear
from spikingir.graph.operations import Add, Conv2d, Interpolate, Pad, Sub
from spikingir.graph.sizes import same_for_all, trace_at

if TYPE_CHECKING:
    from spikingir.graph.trace import Builder, Handler, Value

_LARGEST_TREE = 9
"""Pixels of the largest window of which all pairs are compared at once."""


def _rewritten(value: "Value", how: str) -> "Value":
    return replace(value, fate=f"rewritten: {how}")


def _activation(b: "Builder", node: fx.Node, function: PiecewiseLinear, fate: str) -> "Value":
    """Layers of neurons, one for each knot, and the mixture of them that the function is."""
    source = b.wire(node.args[0])
    if source in b.image:
        return b.keep_raw(node)
    sides = [(function.rising, 1, "positive"), (function.falling, -1, "negative")]
    if b.nonnegative(source):  # what falls from zero on is never active
        sides[1] = ([(knot, gain) for knot, gain in function.falling if knot < 0], -1, "negative")
    wires: list[str] = []
    gains: list[Tensor | float] = []
    for terms, sign, side in sides:
        first: tuple[str, float] | None = None
        for i, (knot, gain) in enumerate(terms):
            name = f"{node.name}_{side}{i or ''}"
            if first is None:
                current = b.shifted(f"{name}_current", source, sign, -knot)
                first = b.relu(name, current), knot
                wires.append(first[0])
            else:  # relu(x - t) = relu(relu(x - s) - (t - s)) for t above s
                one = torch.ones(1, dtype=b.dtype)
                current = b.scaled(f"{name}_current", first[0], one, first[1] - knot)
                wires.append(b.relu(name, current))
            gains.append(gain)
    alone = len(wires) == 1 and _is_one(gains[0])
    channels = 1 if alone and not function.start else b.channels(node.args[0])
    each = [torch.as_tensor(gain, dtype=torch.float64).reshape(-1).expand(channels) for gain in gains]
    mix = torch.cat([gain.diag() for gain in each], 1)
    joined = wires[0] if len(wires) == 1 else b.add(f"{node.name}_parts", "concat", tuple(wires)).wire
    value = b.value(joined, None if alone else mix)
    if function.start:
        shift = torch.full((channels,), function.start, dtype=b.dtype)
        value = b.value(b.unmixed(replace(value, mix=mix), shift), None)
    elif _grows(function):
        value = replace(value, halves=torch.tensor([1.0] * channels + [-1.0] * channels)[: mix.shape[1]])
    return replace(value, fate=fate)


def _is_one(gain: Tensor | float) -> bool:
    return isinstance(gain, float) and gain == 1.0


def _grows(function: PiecewiseLinear) -> bool:
    """Whether it has one knot at zero alone, and falls nowhere."""
    at_zero = [[knot for knot, _ in terms] == [0.0] for terms in (function.rising, function.falling)]
    signs = [bool((torch.as_tensor(gain) * s >= 0).all()) for s, terms in
             ((1, function.rising), (-1, function.falling)) for _, gain in terms]  # fmt: skip
    return all(at_zero) and all(signs)


def _exact(how: str, make: Callable[["Builder", fx.Node], PiecewiseLinear]) -> "Handler":
    def handler(b: "Builder", node: fx.Node) -> "Value":
        return _activation(b, node, make(b, node), f"rewritten: {how}")

    return handler


def _slope(gain: Tensor | float) -> PiecewiseLinear:
    return PiecewiseLinear(((0.0, 1.0),), ((0.0, -gain),))


def _leaky(b: "Builder", node: fx.Node) -> PiecewiseLinear:
    (slope,) = b.settings(node, negative_slope=0.01)
    return _slope(float(slope))


def _prelu(b: "Builder", node: fx.Node) -> PiecewiseLinear:
    (weight,) = b.settings(node, weight=None)
    tensor = b.constant(weight)
    assert tensor is not None
    return _slope(tensor.detach().double().flatten())


def _rrelu(b: "Builder", node: fx.Node) -> PiecewiseLinear:
    low, high = b.settings(node, lower=1 / 8, upper=1 / 3)
    return _slope((low + high) / 2)


def _hardtanh(b: "Builder", node: fx.Node) -> PiecewiseLinear:
    low, high = b.settings(node, min_val=-1.0, max_val=1.0)
    return PiecewiseLinear.clamp(float(low), float(high))


def _softshrink(b: "Builder", node: fx.Node) -> PiecewiseLinear:
    (least,) = b.settings(node, lambd=0.5)
    return PiecewiseLinear(((float(least), 1.0),), ((float(least), -1.0),))


def _clamp(b: "Builder", node: fx.Node) -> "Value":
    low, high = b.argument(node, 1, "min", None), b.argument(node, 2, "max", None)
    if _name(node.target).startswith("clamp_min"):
        low, high = b.argument(node, 1, "min", None), None
    if _name(node.target).startswith("clamp_max"):
        low, high = None, b.argument(node, 1, "max", None)
    if not all(bound is None or isinstance(bound, int | float) for bound in (low, high)):
        raise NotLinear("its bounds are tensors; expected numbers")
    return _between(b, node, low, high)


def _between(b: "Builder", node: fx.Node, low: float | None, high: float | None) -> "Value":
    """``min(max(x, low), high)``, with a bound or both."""
    source = b.wire(node.args[0])
    if source in b.image:
        return b.keep_raw(node)
    if low is None and high is not None and b.nonnegative(source):
        low = 0.0
    if low is not None and high is not None:
        return _activation(b, node, PiecewiseLinear.clamp(float(low), float(high)), "rewritten: a difference of ReLUs")
    if low is not None:
        function = PiecewiseLinear(((float(low), 1.0),), (), float(low))
        return _activation(b, node, function, "converted" if low == 0 else "rewritten: relu(x - low) + low")
    assert high is not None
    above = b.relu(f"{node.name}_above", b.shifted(f"{node.name}_above_current", source, 1, -float(high)))
    return _rewritten(b.add(node.name, Sub.name, (source, above)), "x - relu(x - high)")


def _extreme(sign: int) -> "Handler":
    """Maximum (1) or minimum (-1) of two feature maps, or of one and a number."""

    def handler(b: "Builder", node: fx.Node) -> "Value":
        found, wires = b.operands(node)
        number = next((it for it in found if isinstance(it, int | float)), None)
        if all(wires):
            one, other = (b.wire(it) for it in found)
            if b.image.issuperset((one, other)):
                return b.keep_raw(node)
            value = _larger(b, node.name, one, other) if sign == 1 else _smaller(b, node.name, one, other)
            how = "a + relu(b - a)" if sign == 1 else "a - relu(a - b)"
            return _rewritten(b.value(value, None), how)
        if number is None or not any(wires):
            raise NotLinear(
                "it looks at the whole map or at all channels; only the larger or smaller of two maps, or of a map "
                "and a number, can be"
            )
        node.args = (found[wires.index(True)], number)
        return _between(b, node, *((number, None) if sign == 1 else (None, number)))

    return handler


def _larger(b: "Builder", name: str, one: str, other: str) -> str:
    """``max(a, b) = a + relu(b - a)``; fired again where neither is below zero, so that it is spikes."""
    above = b.relu(f"{name}_above", b.add(f"{name}_difference", Sub.name, (other, one)).wire)
    total = b.add(f"{name}_sum", Add.name, (one, above)).wire
    return b.relu(name, total) if b.nonnegative(one) else total


def _smaller(b: "Builder", name: str, one: str, other: str) -> str:
    above = b.relu(f"{name}_above", b.add(f"{name}_difference", Sub.name, (one, other)).wire)
    total = b.add(f"{name}_sum", Sub.name, (one, above)).wire
    return b.relu(name, total) if b.nonnegative(one) and b.nonnegative(other) else total


@dataclass(frozen=True)
class _Window:
    """The windows of a pooling: their size, step and margin."""

    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)


Pixel = tuple[int, int]


@dataclass(frozen=True)
class _Best:
    """The largest of some pixels of each window: one of them, and the layers of what the others have more."""

    pixel: Pixel
    more: tuple[str, ...] = ()


class _MaxPool:
    """Max pooling as a tree of ``max(a, b) = a + relu(b - a)``.

    Of channels whose sign is -1 the smallest is taken: the negative halves of a leaky ReLU.
    """

    def __init__(self, b: "Builder", name: str, source: str, signs: Tensor, *, nonnegative: bool) -> None:
        self.b, self.name, self.source, self.signs = b, name, source, signs
        self.nonnegative = nonnegative
        self.layers = 0

    def pool(self, window: _Window) -> str:
        """The pooled wire."""
        rows, columns = window.kernel
        if rows * columns <= _LARGEST_TREE or not self.nonnegative:
            return self._tree(window, [(i, j) for i in range(rows) for j in range(columns)])
        for axis in (0, 1):  # the largest of 1, 2, 4, ... along an axis
            have = 1
            while have < window.kernel[axis]:
                margin = tuple(side * (a == axis and have == 1) for a, side in enumerate(window.padding))
                step = min(have, window.kernel[axis] - have)
                have += step
                last = axis == 1 and have == window.kernel[axis]
                far = (0, step) if axis else (step, 0)
                step_of = window.stride if last else (1, 1)
                span = _Window((far[0] + 1, far[1] + 1), step_of, (margin[0], margin[1]), window.dilation)
                self.source = self._tree(span, [(0, 0), far])
        return self.source

    def _tree(self, window: _Window, pixels: Sequence[Pixel]) -> str:
        best = [_Best(pixel) for pixel in pixels]
        while len(best) > 1:
            pairs = [self._better(window, *best[i : i + 2]) for i in range(0, len(best) - 1, 2)]
            best = pairs + best[2 * len(pairs) :]
        total = self._sum(window, [(1, best[0].pixel)], best[0].more, (), self.signs)
        return self.b.relu(self._layer(), total) if self.nonnegative else total

    def _better(self, window: _Window, one: _Best, other: _Best) -> _Best:
        current = self._sum(window, [(1, other.pixel), (-1, one.pixel)], other.more, one.more, None)
        return _Best(one.pixel, (*one.more, self.b.relu(self._layer(), current)))

    def _sum(
        self,
        window: _Window,
        pixels: Sequence[tuple[int, Pixel]],
        plus: Sequence[str],
        minus: Sequence[str],
        signs: Tensor | None,
    ) -> str:
        """Sum of pixels of the source and of layers; of a difference, each channel is multiplied by its sign."""
        channels = len(self.signs)
        weight = torch.zeros(channels, 1, *window.kernel, dtype=self.b.dtype)
        for sign, (row, column) in pixels:
            weight[:, 0, row, column] += sign
        if signs is None:
            weight *= self.signs.view(-1, 1, 1, 1).to(weight)
        name = self._layer("pixels")
        options = {"stride": window.stride, "padding": window.padding, "dilation": window.dilation, "groups": channels}
        total = self.b.add(name, Conv2d.name, (self.source,), self.b.register(name, None, weight, None), **options).wire
        self.b.shares[total] = 0.0
        for op, layers in ((Add.name, plus), (Sub.name, minus)):
            for layer in layers:
                if signs is not None and bool((signs < 0).any()):
                    layer = self.b.scaled(self._layer("signed"), layer, signs)
                total = self.b.add(self._layer("sum"), op, (total, layer)).wire
        return total

    def _layer(self, what: str = "larger") -> str:
        self.layers += 1
        return f"{self.name}_{what}{self.layers}"


def _pair(value: Any) -> tuple[int, int]:
    return (int(value), int(value)) if isinstance(value, int) else (int(value[0]), int(value[1]))


def _max_pool(b: "Builder", node: fx.Node) -> "Value":
    kernel, stride, padding, dilation, ceil, indices = b.settings(
        node, kernel_size=None, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False
    )
    value = b.mixed(node.args[0])
    if value.wire in b.image:
        return b.keep_raw(node)
    if ceil or indices:
        raise ConversionError("ceil_mode and return_indices are not supported; pad the map and leave them out")
    window = _Window(_pair(kernel), _pair(stride or kernel), _pair(padding), _pair(dilation))
    signs = value.halves
    if signs is None:
        value = b.value(b.unmixed(value), None)
        signs = torch.ones(b.channels(node.args[0]))
    nonnegative = b.nonnegative(value.wire)
    source = value.wire
    if any(window.padding) and not (nonnegative and bool((signs > 0).all())):
        if window.dilation != (1, 1):
            raise ConversionError("it pads what may be negative, with a dilation; pad it by nn.ReplicationPad2d first")
        # the border again adds nothing to a window that it touches
        sides = (window.padding[1],) * 2 + (window.padding[0],) * 2
        source = b.add(f"{node.name}_pad", Pad.name, (source,), padding=sides, mode="replicate").wire
        window = replace(window, padding=(0, 0))
    pooled = _MaxPool(b, node.name, source, signs, nonnegative=nonnegative).pool(window)
    return _rewritten(replace(b.value(pooled, value.mix), halves=value.halves), "a tree of a + relu(b - a)")


def _identity(b: "Builder", node: fx.Node) -> "Value":
    return replace(b.mixed(node.args[0]), halves=b.values[node.args[0]].halves)  # type: ignore[index]


def _dropout(b: "Builder", node: fx.Node) -> "Value":
    if b.argument(node, 2, "training", True):
        raise ConversionError("it is active; trace the network in eval mode and pass training=self.training")
    return _identity(b, node)


def _view(b: "Builder", node: fx.Node) -> "Value":
    """A view that keeps the layout, at every size."""
    before, after = b.traces.shapes(node.args[0]), b.traces.shapes(node)  # type: ignore[arg-type]
    if before is None or before != after:
        raise NotLinear(
            "it changes the layout of a feature map, (B, C, H, W); use nn.PixelShuffle, nn.ChannelShuffle, slices of "
            "channels, or convolutions"
        )
    return _identity(b, node)


def _expand(b: "Builder", node: fx.Node) -> "Value":
    """One pixel repeated, as a global mean is, to the size of another map."""
    if any(size != (1, 1) for size in b.sizes(node.args[0])):
        return _view(b, node)
    source = b.mixed(node.args[0])
    like = b.like(b.sizes(node), "repeats")
    options = {"size": None, "scale_factor": None, "mode": "nearest", "align_corners": None}
    return replace(b.add(node.name, Interpolate.name, (source.wire, like), **options), mix=source.mix)


def _parts(b: "Builder", node: fx.Node) -> "Value":
    """Channels in parts, of which an index takes one."""
    b.shapes(node.args[0])  # known from here on
    examples = [it.meta.get("example") for it in b.traces.variants(node)]
    dim = b.argument(node, 2, "dim", 0)
    if dim not in (1, -3) or not all(isinstance(example, tuple | list) for example in examples):
        raise NotLinear("only channels (1) can be split, of maps whose size is known")
    widths = [[part.shape[1] for part in example] for example in examples]  # type: ignore[union-attr]
    if not same_for_all(widths):
        raise NotLinear("its parts follow from the size; use fixed ones")
    ends = [sum(widths[0][: i + 1]) for i in range(len(widths[0]))]
    bounds = tuple((end - width, end) for end, width in zip(ends, widths[0], strict=True))
    return replace(b.mixed(node.args[0]), bounds=bounds)


def _channel_shuffle(b: "Builder", node: fx.Node) -> "Value":
    (groups,) = b.settings(node, groups=None)
    value, channels = b.mixed(node.args[0]), b.channels(node.args[0])
    order = torch.arange(channels).view(groups, -1).t().flatten()
    mix = torch.eye(channels, dtype=torch.float64) if value.mix is None else value.mix
    return _rewritten(replace(value, mix=mix[order]), "the weights of what reads it, in another order")


def _smooth(b: "Builder", node: fx.Node) -> "Value":
    """A smooth activation by straight pieces, where that was asked for."""
    source = b.wire(node.args[0])
    if source in b.image:
        return b.keep_raw(node)
    if b.smooth is None:
        raise ConversionError(
            "it is smooth, and spikes make straight pieces; pass pieces=8 (or more) to convert to replace it by so "
            "many, or train the network with ReLU in its place"
        )
    low, high = _range(b, node, b.smooth)
    if not low < high:
        low, high = low - 1e-3, high + 1e-3
    call = b.call(node)

    def function(x: Tensor) -> Tensor:
        return call(x.view(1, 1, -1, 1)).flatten()

    fitted = PiecewiseLinear.fit(function, low, high, b.smooth.pieces)
    error = fitted.worst_error(function, low, high)
    b.smooth.replaced[node.name] = error
    pieces = max(1, len(fitted.rising) + len(fitted.falling))
    fate = f"replaced by {pieces} straight pieces: worst error {error:.2g} from {low:.3g} to {high:.3g}"
    return _activation(b, node, fitted, fate)


def _range(b: "Builder", node: fx.Node, smooth: Smooth) -> tuple[float, float]:
    """Least and largest value that a smooth activation reads on the calibration images."""
    if smooth.ranges is None:
        smooth.ranges = _ranges(b, smooth.images)
    order = [it for it in b.traces.main.nodes if _is_smooth(b.body, it)]
    if len(order) != len(smooth.ranges):
        raise ConversionError("the network takes another path at the size of the calibration images; use other images")
    return smooth.ranges[order.index(node)]


def _is_smooth(body: nn.Module, node: fx.Node) -> bool:
    kind = type(body.get_submodule(str(node.target))) if node.op == "call_module" else node.target
    return node.op in ("call_module", "call_function", "call_method") and REWRITES.get(kind) is _smooth


class _Watch(fx.Interpreter):
    """Runs a trace and notes what its smooth activations read."""

    def __init__(self, body: nn.Module, graph: fx.Graph) -> None:
        super().__init__(fx.GraphModule(body, graph))
        self.body = body
        self.seen: list[tuple[float, float]] = []

    def run_node(self, n: fx.Node) -> Any:
        if _is_smooth(self.body, n):
            read: Any = self.map_nodes_to_values(n.all_input_nodes[0], n)
            self.seen.append((float(read.min()), float(read.max())))
        return super().run_node(n)


@torch.no_grad()
def _ranges(b: "Builder", images: Sequence[Tensor]) -> list[tuple[float, float]]:
    found: list[list[tuple[float, float]]] = []
    for batch in images:
        # one image after the other: a trace is of a batch of one
        for image in torch.split(batch, 1):
            watch = _Watch(b.body, trace_at(b.body, image))
            watch.run(image)
            found.append(watch.seen)
    return [(min(low for low, _ in each), max(high for _, high in each)) for each in zip(*found, strict=True)]


def _name(target: Any) -> str:
    return target if isinstance(target, str) else str(getattr(target, "__name__", target))


_ACTIVATIONS: dict[Any, "Handler"] = {
    **dict.fromkeys(
        (nn.LeakyReLU, functional.leaky_relu, functional.leaky_relu_), _exact("relu(x) - a relu(-x)", _leaky)
    ),
    **dict.fromkeys((nn.PReLU, functional.prelu, torch.prelu), _exact("relu(x) - a relu(-x)", _prelu)),
    **dict.fromkeys((nn.RReLU, functional.rrelu), _exact("relu(x) - a relu(-x)", _rrelu)),
    **dict.fromkeys(
        (nn.ReLU6, functional.relu6), _exact("relu(x) - relu(x - 6)", lambda b, n: PiecewiseLinear.clamp(0.0, 6.0))
    ),
    **dict.fromkeys((nn.Hardtanh, functional.hardtanh), _exact("a difference of ReLUs", _hardtanh)),
    **dict.fromkeys((nn.Softshrink, functional.softshrink), _exact("relu(x - a) - relu(-x - a)", _softshrink)),
    **dict.fromkeys(
        (nn.Hardsigmoid, functional.hardsigmoid),
        _exact(
            "a difference of ReLUs",
            lambda b, n: PiecewiseLinear(((0.0, 1 / 6), (3.0, -1 / 6)), ((0.0, -1 / 6), (3.0, 1 / 6)), 0.5),
        ),
    ),
    **dict.fromkeys(
        (torch.abs, "abs", "abs_", abs),
        _exact("relu(x) + relu(-x)", lambda b, n: PiecewiseLinear(((0.0, 1.0),), ((0.0, 1.0),))),
    ),
    **dict.fromkeys((torch.clamp, "clamp", "clamp_", torch.clip, "clip", "clip_"), _clamp),
    **dict.fromkeys((torch.clamp_min, "clamp_min", torch.clamp_max, "clamp_max", "clamp_min_", "clamp_max_"), _clamp),
    **dict.fromkeys((torch.maximum, torch.max, "maximum", "max"), _extreme(1)),
    **dict.fromkeys((torch.minimum, torch.min, "minimum", "min"), _extreme(-1)),
}
_SMOOTH = (
    *(nn.GELU, nn.SiLU, nn.Tanh, nn.Sigmoid, nn.ELU, nn.CELU, nn.SELU, nn.Softplus, nn.Mish, nn.Hardswish, nn.Softsign),
    *(functional.gelu, functional.silu, functional.tanh, functional.sigmoid, functional.elu, functional.celu),
    *(functional.selu, functional.softplus, functional.mish, functional.hardswish, functional.softsign),
    *(torch.tanh, torch.sigmoid, "tanh", "sigmoid", "tanh_", "sigmoid_", torch.selu, torch.celu),
)
_SAME = (
    *(nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.AlphaDropout, nn.FeatureAlphaDropout),
    *("contiguous", "clone", "detach", "float", "double", "to", "type_as", torch.clone),
)
_VIEWS = ("view", "reshape", "view_as", "reshape_as", torch.reshape)

REWRITES: MappingProxyType[Any, "Handler"] = MappingProxyType(
    {
        **_ACTIVATIONS,
        **dict.fromkeys(_SMOOTH, _smooth),
        **dict.fromkeys((nn.MaxPool2d, functional.max_pool2d, torch.max_pool2d), _max_pool),
        **dict.fromkeys(_SAME, _identity),
        **dict.fromkeys((functional.dropout, functional.dropout2d), _dropout),
        **dict.fromkeys(_VIEWS, _view),
        **dict.fromkeys(("expand", "expand_as", "repeat"), _expand),
        **dict.fromkeys((torch.chunk, "chunk", torch.split, "split"), _parts),
        **dict.fromkeys((nn.ChannelShuffle, functional.channel_shuffle), _channel_shuffle),
    }
)
"""What becomes of operations that a body holds in another form, by module class, function or name of a method."""

SIZED: tuple["Handler", ...] = (_view, _expand, _parts)
"""Those that know what to do with settings that follow from the size."""

_STATISTICS = (nn.InstanceNorm2d, nn.GroupNorm, nn.LayerNorm, nn.LocalResponseNorm, nn.BatchNorm1d)
_ADVICE: tuple[tuple[tuple[Any, ...], str], ...] = (
    (
        (*_STATISTICS, functional.instance_norm, functional.layer_norm, functional.group_norm),
        "it normalises by statistics of the image, which divide one feature map by another; train the network with "
        "nn.BatchNorm2d in its place, whose statistics are fixed",
    ),
    (
        (torch.var, torch.std, "var", "std", "sqrt", torch.sqrt, "pow", torch.pow, torch.rsqrt, "rsqrt", torch.exp),
        "it is not linear in a feature map, as a norm by statistics of the image is not; train the network with "
        "nn.BatchNorm2d, or without it",
    ),
    (
        (
            *(nn.Softmax, nn.Softmax2d, nn.MultiheadAttention, functional.softmax, torch.softmax, "softmax"),
            *(torch.matmul, "matmul", torch.bmm, "bmm", torch.einsum, functional.scaled_dot_product_attention),
            *(operator.matmul, functional.normalize),
        ),
        "attention multiplies feature maps by each other; train the network with convolutions in its place",
    ),
    (
        (nn.Linear, functional.linear),
        "it reads no feature map of rows and columns; put an nn.Conv2d of one pixel in its place",
    ),
    (
        (getattr, "size", "dim"),
        "the size of a feature map is not known, as the network ran at none of the sizes that were tried; use fixed "
        "sizes",
    ),
    (
        (
            *("permute", torch.permute, "transpose", torch.transpose, "flatten", torch.flatten, nn.Flatten, "unfold"),
            *(nn.Fold, nn.Unfold, functional.unfold, functional.fold, torch.roll, "squeeze", "unsqueeze"),
            *(torch.squeeze, torch.unsqueeze),
        ),
        "it changes the layout of a feature map, (B, C, H, W); use nn.PixelShuffle, nn.ChannelShuffle, slices of "
        "channels, or convolutions",
    ),
)


def advice(module: nn.Module | None, target: Any) -> str:
    """Why an operation that no body can hold is refused, and what would convert."""
    kind = target if module is None else type(module)
    for kinds, why in _ADVICE:
        if kind in kinds:
            return why
    return (
        "between spiking neurons only linear operations that act on each time step alone can stand (convolution, "
        "padding, sum, concatenation, slicing, average pooling, pixel shuffle, resizing, scaling), ReLU, and what can "
        "be written in them (leaky ReLU, clamp, max pooling); replace it or leave it out of the body"
    )
