"""A folded network as layers of whole numbers: sums of convolutions of others' spikes, of any stride.

What moves spikes before (slices, concatenations, shuffles) or sums behind (sums of branches, pixel shuffles) becomes
part of the kernels, so that no spikes are ever moved. Sums of ``factor^2`` times the layer's channels are shuffled into
``factor x factor`` pixels each, as by PyTorch's pixel shuffle. On the phased schedule spikes are counts of a window;
on the clocked one, those of one step.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Self

import numpy as np
import torch
from torch import Tensor

from spikingir.deploy.folded import FoldedNetwork, Kernel
from spikingir.graph.graph import Node

MOST_COUNT = 255
"""Spikes of a window that one byte counts."""
_WITH_WEIGHTS = ("conv2d", "conv_transpose2d", "affine")
_MOST_STRIDE = 8
_MOST_SUM = 2**31 - 1
_MOST_KERNEL = 32
_PIXEL_BITS = 14  # behind the point of an image in 16 bits

Size = tuple[int, int]
Sizes = Callable[[Size], Size]
"""Height and width of a wire, from those of the image."""


class NotNativeError(ValueError):
    """A network that the native engine cannot run; the text says what it has that is in the way."""


@dataclass(frozen=True)
class Term:
    """One convolution in a layer's sums.

    Attributes:
        source: The layer, or the wire of the image, that it reads.
        weight: (C factor^2, channels of the source, K, K).
        stride: Step of the window, both ways.
        padding: Rows and columns of zeros before the first window's.
        factor: Pixels of the layer, both ways, that one window makes.
    """

    source: str
    weight: Tensor
    stride: int
    padding: int
    factor: int = 1

    @property
    def keeps_size(self) -> bool:
        """Whether what it gives has the size of what it reads, each pixel in the middle of its window."""
        side = self.weight.shape[-1]
        return self.stride == self.factor == 1 and 2 * self.padding == side - 1

    @property
    def border(self) -> int:
        """How far its windows may reach beyond what they read."""
        side = self.weight.shape[-1]
        return self.padding + side if 2 * self.padding > side - 1 else max(self.padding, side - self.padding)

    def negated(self) -> "Term":
        """The same with the other sign."""
        return replace(self, weight=-self.weight)

    def by(self, factor: int) -> "Term":
        """The same sums, ``factor x factor`` pixels at a time."""
        m = factor // self.factor
        if m == 1:
            return self
        channels, (outputs, inputs, kernel, _) = len(self.weight) // self.factor**2, self.weight.shape
        side = kernel + self.stride * (m - 1)
        wide = self.weight.new_zeros(channels, m, self.factor, m, self.factor, inputs, side, side)
        each = self.weight.view(channels, self.factor, self.factor, inputs, kernel, kernel)
        for i in range(m):
            for j in range(m):
                rows, columns = (slice(self.stride * at, self.stride * at + kernel) for at in (i, j))
                wide[:, i, :, j, :, :, rows, columns] = each
        return Term(self.source, wide.view(outputs * m**2, inputs, side, side), self.stride * m, self.padding, factor)


@dataclass(frozen=True)
class Sums:
    """Weighted sums of spikes and of the image, on the grid of the neuron that they feed.

    Attributes:
        grid: ``2^k`` of each of its sums: all numbers are multiples of ``2^-k``.
        factor: See :class:`Term`.
        terms: Convolutions of spikes.
        skips: Layers whose spikes are added at the same place, each with its scales by channel.
        bias: Added at each step, by sum.
        image: The convolution of the image whose sums and bias are rounded to the grid once, if any.
        image_bias: That bias.
        size: Its height and width from the image's.
        cropped: Whether that is less than what its convolutions give.
    """

    grid: Tensor
    factor: int
    terms: tuple[Term, ...]
    skips: tuple[tuple[str, Tensor], ...]
    bias: Tensor
    image: Term | None
    image_bias: Tensor
    size: Sizes
    cropped: bool

    def by(self, factor: int) -> "Sums":
        """The same, ``factor x factor`` pixels at a time."""
        m = factor // self.factor
        if m == 1:
            return self
        return replace(
            self,
            grid=_spread(self.grid, self.factor, m),
            factor=factor,
            terms=tuple(term.by(factor) for term in self.terms),
            bias=_spread(self.bias, self.factor, m),
            image=None if self.image is None else self.image.by(factor),
            image_bias=_spread(self.image_bias, self.factor, m),
        )

    def without_skips(self) -> Self:
        """The same with its skips as convolutions of one pixel, which know their counts and may leave pixels out."""
        skips = [Term(name, scale.diag()[:, :, None, None], 1, 0).by(self.factor) for name, scale in self.skips]
        return replace(self, terms=_merged((*self.terms, *skips)), skips=())


@dataclass(frozen=True)
class LayerPlan(Sums):
    """One layer: its sums, and the neuron that reads them.

    Attributes:
        name: Its name.
        levels: Spikes of a full window, ``L``; ``T`` on the clocked schedule.
    """

    name: str
    levels: int

    @property
    def channels(self) -> int:
        """Channels of the layer."""
        return len(self.grid) // self.factor**2

    @property
    def grid_by_channel(self) -> Tensor:
        """``2^k`` of each channel."""
        return self.grid.view(-1, self.factor**2)[:, 0]

    @property
    def reads(self) -> tuple[str, ...]:
        """Layers that it reads."""
        return (*(term.source for term in self.terms), *(name for name, _ in self.skips))

    def whole(self, numbers: Tensor) -> Tensor:
        """Numbers by sum, on the grid, as multiples of it."""
        return numbers.double() * self.grid.view(-1, *(1 for _ in numbers.shape[1:]))

    def largest_sum(self, levels: Mapping[str, int]) -> float:
        """What its sums reach at most, as a multiple of the grid, by the engine's count: skips may have any byte.

        Args:
            levels: Spikes of a full window, by layer.
        """
        sums = self.whole(self.bias).abs() * self.levels + self.grid.double()
        for term in self.terms:
            sums = sums + levels[term.source] * self.whole(term.weight).abs().sum((1, 2, 3))
        for name, scale in self.skips:
            most = max(MOST_COUNT, levels[name])
            sums = sums + most * (scale * self.grid_by_channel).abs().repeat_interleave(self.factor**2)
        return sums.max().item()

    @property
    def digits(self) -> int:
        """Digits of seven bits that its weights take, beside a whole number for each sum; one digit may have eight."""
        whole = [self.whole(term.weight).long().abs().flatten(1) for term in self.terms]
        if not whole:
            return 1
        each = torch.cat(whole, 1)
        shared = torch.from_numpy(np.gcd.reduce(each.numpy(), axis=1, keepdims=True)).clamp_min(1)
        bits = math.frexp(float((each // shared).max()))[1]
        return 1 if bits <= 7 else math.ceil((bits + 1) / 7)


@dataclass(frozen=True)
class NetworkPlan:
    """A network as layers in order, and the wires of the image that they read.

    Attributes:
        layers: The layers.
        image_nodes: Operations on the image alone, in order.
        image_bits: Bits behind the point of each wire of the image.
        alike: Pairs of sizes that must be the same, for padding and cropping of spikes that then change nothing.
    """

    layers: tuple[LayerPlan, ...]
    image_nodes: tuple[Node, ...]
    image_bits: Mapping[str, int]
    alike: tuple[tuple[Sizes, Sizes], ...] = ()

    def takes(self, size: Size) -> bool:
        """Whether it runs on images of a size."""
        return all(one(size) == other(size) for one, other in self.alike)


@dataclass(frozen=True)
class _Part:
    """Spikes of one layer on a wire: which of its channels, after a move, are which of the wire's, and with which sign.

    ``move`` is pixel_shuffle, pixel_unshuffle or interpolate (nearest), by ``factor``; nothing where ``factor`` is 1.
    """

    layer: str
    channels: int
    of_layer: tuple[int, ...]
    of_wire: tuple[int, ...]
    sign: int = 1
    move: str = ""
    factor: int = 1


@dataclass(frozen=True)
class _Spikes:
    """Spikes of layers; beside them channels of wires of the image: the wire, and the first and the last of them."""

    channels: int
    parts: tuple[_Part, ...]
    size: Sizes
    images: tuple[tuple[str, int, int], ...] = ()


@dataclass(frozen=True)
class _Image:
    name: str
    channels: int
    size: Sizes


_Wire = _Spikes | _Image | Sums


def _spread(each: Tensor, factor: int, m: int) -> Tensor:
    """A number for each of ``factor^2`` pixels, for each of ``(factor m)^2``: those that lie ``factor`` apart alike."""
    return each.view(-1, 1, factor, 1, factor).expand(-1, m, factor, m, factor).reshape(-1)


def plan_layers(network: FoldedNetwork, *, extended: bool = False) -> NetworkPlan:
    """The layers of a network.

    Args:
        network: The network.
        extended: Whether weights are those of the extended step; all else is the same.

    Raises:
        NotNativeError: The network has operations that these layers cannot take in, or numbers on no grid.
    """
    if not network.gridded:
        raise NotNativeError("its numbers are on no grid")
    wires: dict[str, _Wire] = {}
    layers: list[LayerPlan] = []
    nodes: list[Node] = []
    bits: dict[str, int] = {}
    alike: list[tuple[Sizes, Sizes]] = []
    channels = {name: shape[0] for name, shape in network.graph.shapes().items()}
    currents = network.graph.currents(channels)
    for node in network.nodes:
        read = [wires[name] for name in node.inputs]
        if node.op in ("input", "raw") or (
            all(isinstance(wire, _Image) for wire in read)
            and not (node.role == "neuron" or (node.op in _WITH_WEIGHTS and node.name in currents))
        ):
            nodes.append(node)
            kernel = network.kernel(node.name)
            of_inputs = [network.image_bits, *(bits[name] for name in node.inputs)]
            own = [] if kernel is None or kernel.grid is None else [int(kernel.grid.log2().max())]
            bits[node.name] = max(of_inputs + own)
            size = _size_of_image(node, [wire.size for wire in read], kernel)
            wires[node.name] = _Image(node.name, channels[node.name], size)
        elif node.op == "neuron" and isinstance(read[0], Sums):
            layer = _layer(network, node, read[0])
            if network.config.phased:
                layer = _fitting(layer, {before.name: before.levels for before in layers})
            layers.append(layer)
            every = tuple(range(layers[-1].channels))
            wires[node.name] = _Spikes(len(every), (_Part(node.name, len(every), every, every),), layers[-1].size)
        elif node.op in ("crop", "pad_to"):
            wires[node.name], same = _resized(node, read)
            alike += same
        else:
            wires[node.name] = _wire(network, node, read, extended)
    for layer in layers[:-1]:
        if layer.factor > 1 and layer.cropped:
            raise NotNativeError(f"'{layer.name}' is cropped before the last layer")
    return NetworkPlan(tuple(layers), tuple(nodes), bits, tuple(alike))


def image_wires(network: FoldedNetwork, plan: NetworkPlan, image: Tensor) -> dict[str, Tensor]:
    """The wires of the image that layers read, in float64, as torch computes them.

    Args:
        network: The network.
        plan: Its plan.
        image: The image on its grid.

    Shape:
        (B, C, H, W) to one of these each.
    """
    read = {layer.image.source for layer in plan.layers if layer.image is not None}
    last_reader = {name: i for i, node in enumerate(plan.image_nodes) for name in node.inputs}
    found: dict[str, Tensor] = {}
    for i, node in enumerate(plan.image_nodes):
        inputs = [found[name] for name in node.inputs]
        if node.op == "input":
            found[node.name] = image
        elif node.op == "raw":
            found[node.name] = network.raw[node.name](*inputs)
        elif (side := _window(node)) > 0:
            found[node.name] = _pooled(network, node, inputs[0], side)
        else:
            kernel = network.kernel(node.name)
            value = node.operation.run(node, inputs, None if kernel is None else kernel.analog)
            if kernel is not None and kernel.bias is not None:
                value = value + kernel.bias.view(1, -1, 1, 1)
            found[node.name] = value if kernel is None else kernel.round(value)
        found = {name: wire for name, wire in found.items() if name in read or last_reader.get(name, -1) > i}
    return found


def _window(node: Node) -> int:
    """Side of the square that an average pooling takes each pixel from, as of a level map; 0 of all else."""
    options = node.options
    if node.op != "avg_pool2d" or options["kernel_size"] != options["stride"] or len(set(options["stride"])) > 1:
        return 0
    return 0 if any(options["padding"]) or options["ceil_mode"] else int(options["stride"][0])


def _pooled(network: FoldedNetwork, node: Node, image: Tensor, side: int) -> Tensor:
    """Average pooling of the image. Sums are exact, so it is torch's to the bit, at a tenth of its time."""
    height, width = (length // side * side for length in image.shape[-2:])
    parts = [image[..., i:height:side, j:width:side] for i in range(side) for j in range(side)]
    kernel = network.kernel(node.name)
    assert kernel is not None
    return kernel.round(torch.stack(parts).sum(0) / side**2)


def fits_pixels(plan: NetworkPlan, layer: LayerPlan) -> bool:
    """Whether the integer kernel can sum the layer's image, wherever its values are not too large."""
    return layer.image is not None and plan.image_bits[layer.image.source] <= _PIXEL_BITS


def _wire(network: FoldedNetwork, node: Node, read: Sequence[_Wire], extended: bool) -> _Wire:
    """What an operation on spikes, sums, or the image with weights, makes."""
    spikes = [wire for wire in read if isinstance(wire, _Spikes)]
    sums = [wire for wire in read if isinstance(wire, Sums)]
    if node.op in _WITH_WEIGHTS:
        if isinstance(read[0], Sums):
            raise NotNativeError(f"'{node.name}' reads weighted sums, not spikes")
        return _weighted(network, node, read[0], extended)
    if node.op in ("add", "sub") and len(sums) == len(read):
        return _sum(node, *sums)
    if node.op == "pixel_shuffle" and sums:
        return _shuffled(sums[0], node.options["factor"])
    if node.op == "concat" and spikes and not sums:
        return _side_by_side([wire for wire in read if not isinstance(wire, Sums)])
    if len(spikes) == len(read) and not any(wire.images for wire in spikes):
        if node.op in ("add", "sub") and spikes[0].channels == spikes[1].channels:
            sign = 1 if node.op == "add" else -1
            parts = tuple(replace(part, sign=sign * part.sign) for part in spikes[1].parts)
            return _Spikes(spikes[0].channels, (*spikes[0].parts, *parts), spikes[0].size)
        if node.op == "slice" and all(node.options[axis] == [None] * 3 for axis in ("rows", "columns")):
            return _sliced(spikes[0], slice(*node.options["channels"]))
        if node.op in ("pixel_shuffle", "pixel_unshuffle", "interpolate"):
            return _moved(node, spikes[0])
    raise NotNativeError(f"'{node.name}' ({node.op}) is beyond it")


def _layer(network: FoldedNetwork, node: Node, sums: Sums) -> LayerPlan:
    own = sums.grid.view(-1, sums.factor**2)
    if not bool((own == own[:, :1]).all()):
        raise NotNativeError(f"what '{node.name}' reads lies on different grids")
    kept = {**vars(sums), "size": lru_cache(maxsize=16)(sums.size)}
    levels = network.levels.get(node.name, network.config.time_steps)
    return LayerPlan(**kept, name=node.name, levels=levels)


def _fitting(layer: LayerPlan, levels: Mapping[str, int]) -> LayerPlan:
    """A layer of counts whose sums fit 32 bits: skips as convolutions, whose counts are known, where they have to be.

    Raises:
        NotNativeError: They do not fit.
    """
    if layer.largest_sum(levels) > _MOST_SUM:
        layer = layer.without_skips()
    if layer.largest_sum(levels) > _MOST_SUM:
        raise NotNativeError(f"the sums of '{layer.name}' may be too large for 32 bits")
    return layer


def _side_by_side(wires: Sequence[_Spikes | _Image]) -> _Spikes:
    parts: list[_Part] = []
    images: list[tuple[str, int, int]] = []
    channels = 0
    for wire in wires:
        if isinstance(wire, _Image):
            images.append((wire.name, channels, channels + wire.channels))
        else:
            parts += [replace(part, of_wire=tuple(channels + c for c in part.of_wire)) for part in wire.parts]
            images += [(name, channels + first, channels + last) for name, first, last in wire.images]
        channels += wire.channels
    return _Spikes(channels, tuple(parts), wires[0].size, tuple(images))


def _resized(node: Node, read: Sequence[_Wire]) -> tuple[_Wire, list[tuple[Sizes, Sizes]]]:
    """A wire that is cropped or padded to a size: sums are not computed beyond it, spikes must have it already."""
    wire, options = read[0], node.options

    def wanted(image: Size) -> Size:
        if len(read) == 2:
            height, width = read[1].size(image)
            scale = options.get("scale", 1)
            return height * scale, width * scale
        height, width = wire.size(image)
        rows, columns = options["multiple"]
        return height + -height % rows, width + -width % columns

    if node.op == "crop" and isinstance(wire, Sums):
        if options["anchor"] != "start" or any(options["corner"]):
            raise NotNativeError(f"'{node.name}' (crop) does not begin at the first row and column")
        return replace(wire.without_skips(), size=wanted, cropped=True), []
    if isinstance(wire, _Spikes) and not any(options.get("corner", ())):
        return wire, [(wire.size, wanted)]
    raise NotNativeError(f"'{node.name}' ({node.op}) is beyond it")


def _sliced(wire: _Spikes, channels: slice) -> _Spikes:
    place = {c: i for i, c in enumerate(range(wire.channels)[channels])}
    parts = []
    for part in wire.parts:
        kept = [(a, place[b]) for a, b in zip(part.of_layer, part.of_wire, strict=True) if b in place]
        if kept:
            of_layer, of_wire = zip(*kept, strict=True)
            parts.append(replace(part, of_layer=of_layer, of_wire=of_wire))
    return _Spikes(len(place), tuple(parts), wire.size)


def _moved(node: Node, wire: _Spikes) -> _Spikes:
    """Spikes that a layer gives as they are, shuffled, unshuffled or repeated."""
    (part, *others), every = wire.parts, tuple(range(wire.channels))
    if node.op == "interpolate" and all(it.factor == 1 for it in wire.parts):
        factor = _whole_factor(node)
        parts = tuple(replace(it, move=node.op, factor=factor) for it in wire.parts)
        return _Spikes(wire.channels, parts, lambda size: _each(lambda n: n * factor, wire.size(size)))
    if (
        node.op == "interpolate"
        or others
        or part.factor > 1
        or part.of_layer != every
        or part.of_wire != every
        or part.channels != wire.channels
    ):
        raise NotNativeError(f"'{node.name}' ({node.op}) moves spikes that were moved before")
    factor = node.options["factor"]
    channels = wire.channels // factor**2 if node.op == "pixel_shuffle" else wire.channels * factor**2
    every = tuple(range(channels))
    moved = replace(part, of_layer=every, of_wire=every, sign=part.sign, move=node.op, factor=factor)
    if node.op == "pixel_unshuffle":
        return _Spikes(channels, (moved,), lambda size: _each(lambda n: n // factor, wire.size(size)))
    return _Spikes(channels, (moved,), lambda size: _each(lambda n: n * factor, wire.size(size)))


def _whole_factor(node: Node) -> int:
    """Of a nearest-neighbour resizing."""
    scale = node.options.get("scale_factor")
    factor = 0 if scale is None else int(scale if isinstance(scale, int | float) else scale[0])
    whole = scale == factor or (isinstance(scale, tuple | list) and all(s == factor for s in scale))
    if node.options["mode"] != "nearest" or factor < 1 or not whole or len(node.inputs) > 1:
        raise NotNativeError(f"'{node.name}' resizes spikes by no whole factor")
    return factor


def _each(of_side: Callable[[int], int], size: Size) -> Size:
    height, width = size
    return of_side(height), of_side(width)


def _size_of_image(node: Node, sizes: Sequence[Sizes], kernel: Kernel | None) -> Sizes:
    """How an operation on the image changes its size: tried out on a blank one."""
    if node.op in ("input", "raw") or not sizes:
        return sizes[0] if sizes else lambda size: size

    @lru_cache(maxsize=16)
    def size_of(image: Size) -> Size:
        channels = node.options["factor"] ** 2 if node.op == "pixel_shuffle" else 1
        weight = None if kernel is None else torch.empty_like(kernel.analog, dtype=torch.float32, device="meta")
        if weight is not None and weight.dim() == 4:
            channels = len(weight) if node.op == "conv_transpose2d" else weight.shape[1] * node.options["groups"]
        blanks = [torch.empty(1, channels, *size(image), device="meta") for size in sizes]
        of_one = replace(node, options={**node.options, "channels": (None,) * 3})
        height, width = node.operation.run(of_one, blanks, weight).shape[-2:]
        return height, width

    return size_of


def _weighted(network: FoldedNetwork, node: Node, read: _Spikes | _Image, extended: bool) -> Sums:
    kernel = network.kernel(node.name)
    assert kernel is not None
    assert kernel.grid is not None
    nothing = torch.zeros_like(kernel.grid)
    bias = nothing if kernel.bias is None else kernel.bias
    weight, stride, padding, factor, size = _geometry(node, kernel, read)
    if isinstance(read, _Image):
        term = Term(node.inputs[0], weight(kernel.analog), stride, padding)
        if factor > 1:
            raise NotNativeError(f"'{node.name}' (conv_transpose2d) reads the image")
        return Sums(kernel.grid, 1, (), (), nothing, term, bias, size, cropped=False)
    of_spikes = (kernel.extended if extended else kernel.spike).double()
    terms: list[Term] = []
    skips: list[tuple[str, Tensor]] = []
    image = None
    if read.images:
        if len(read.images) > 1 or factor > 1 or node.op == "affine":
            raise NotNativeError(f"'{node.name}' ({node.op}) reads spikes and several images, or moves them")
        ((name, first, last),) = read.images
        image = Term(name, weight(kernel.analog)[:, first:last], stride, padding)
        bias, nothing = nothing, bias  # rounded with the image's sums
    every = tuple(range(read.channels))
    for part in read.parts:
        as_it_is = part.factor == 1 and part.of_layer == part.of_wire == every and part.channels == read.channels
        if node.op == "affine" and as_it_is:
            skips.append((part.layer, part.sign * of_spikes))
            continue
        own = weight(of_spikes)
        used = own.new_zeros(len(own), _channels(part), *own.shape[2:])
        used.index_add_(1, torch.tensor(part.of_layer), part.sign * own[:, list(part.of_wire)])
        terms.append(_on_layer(node, Term(part.layer, used, stride, padding, factor), part))
    each = [_pixels(number, factor) for number in (kernel.grid, bias, nothing)]
    sums = Sums(each[0], factor, (), _added(skips), each[1], image, each[2], size, cropped=False)
    sums = sums.by(math.lcm(factor, *(term.factor for term in terms)))
    return replace(sums, terms=_merged([term.by(sums.factor) for term in terms]))


def _pixels(each: Tensor, factor: int) -> Tensor:
    return each.repeat_interleave(factor**2)


def _channels(part: _Part) -> int:
    """Channels of a layer after the move."""
    if part.move == "pixel_shuffle":
        return part.channels // part.factor**2
    return part.channels * (part.factor**2 if part.move == "pixel_unshuffle" else 1)


def _merged(terms: Sequence[Term]) -> tuple[Term, ...]:
    """Terms that read the same layer in the same way as one."""
    found: dict[tuple[object, ...], Term] = {}
    for term in terms:
        key = (term.source, term.stride, term.padding, term.factor, term.weight.shape)
        found[key] = replace(term, weight=found[key].weight + term.weight) if key in found else term
    return tuple(found.values())


def _added(skips: Sequence[tuple[str, Tensor]]) -> tuple[tuple[str, Tensor], ...]:
    """Skips of the same layer as one."""
    found: dict[str, Tensor] = {}
    for name, scale in skips:
        found[name] = found[name] + scale if name in found else scale
    return tuple(found.items())


def _sum(node: Node, first: Sums, second: Sums) -> Sums:
    if node.op == "sub":
        second = replace(
            second,
            terms=tuple(term.negated() for term in second.terms),
            skips=tuple((name, -scale) for name, scale in second.skips),
            bias=-second.bias,
            image=None if second.image is None else second.image.negated(),
            image_bias=-second.image_bias,
        )
    factor = math.lcm(first.factor, second.factor)
    first, second = first.by(factor), second.by(factor)
    if first.grid.shape != second.grid.shape or not torch.equal(first.grid, second.grid):
        raise NotNativeError(f"what '{node.name}' adds lies on different grids")
    if first.image is not None and second.image is not None:
        raise NotNativeError(f"'{node.name}' adds two currents of the image")
    return Sums(
        first.grid,
        factor,
        _merged((*first.terms, *second.terms)),
        _added((*first.skips, *second.skips)),
        first.bias + second.bias,
        first.image or second.image,
        first.image_bias + second.image_bias,
        first.size,
        first.cropped or second.cropped,
    )


def _shuffled(sums: Sums, factor: int) -> Sums:
    """Sums behind a pixel shuffle: their channels are the pixels of a layer's."""
    sums = sums.without_skips()
    if sums.factor > 1:
        raise NotNativeError("sums that are shuffled twice")

    def shuffled(term: Term) -> Term:
        return replace(term, factor=factor)

    return replace(
        sums,
        factor=factor,
        terms=tuple(shuffled(term) for term in sums.terms),
        image=None if sums.image is None else shuffled(sums.image),
        size=lambda size: _each(lambda n: n * factor, sums.size(size)),
    )


def _geometry(
    node: Node, kernel: Kernel, read: _Spikes | _Image
) -> tuple[Callable[[Tensor], Tensor], int, int, int, Sizes]:
    """How to make a node's weights a square kernel without dilation or groups; its stride, padding, factor, size."""
    before = read.size
    if node.op == "affine":
        return (lambda weight: weight.diag()[:, :, None, None]), 1, 0, 1, before
    options, sizes = node.options, kernel.spike.shape[-2:]
    reach = [dilation * (size - 1) + 1 for dilation, size in zip(options["dilation"], sizes, strict=True)]
    strides, paddings = options["stride"], options["padding"]
    side = max(r + max(paddings) - p for r, p in zip(reach, paddings, strict=True))
    if strides[0] != strides[1] or strides[0] > _MOST_STRIDE or side > _MOST_KERNEL:
        raise NotNativeError(
            f"'{node.name}' is a {'x'.join(map(str, reach))} convolution with stride {tuple(strides)}; expected one of "
            f"up to {_MOST_KERNEL}x{_MOST_KERNEL} and one stride of up to {_MOST_STRIDE}"
        )
    groups, most = options["groups"], max(paddings)
    beyond = max(2 * p - r - most + side for r, p in zip(reach, paddings, strict=True))
    if beyond > Term("", kernel.spike.new_empty(0, 0, side, side), 1, most).border:
        raise NotNativeError(f"'{node.name}' is a convolution whose padding and window differ by rows and columns")

    def dense(weight: Tensor) -> Tensor:
        per_group = weight.view(groups, -1, *weight.shape[1:])
        blocks = weight.new_zeros(groups, per_group.shape[1], groups, weight.shape[1], side, side)
        top, left = (max(paddings) - p for p in paddings)
        rows = slice(top, top + reach[0], options["dilation"][0])
        columns = slice(left, left + reach[1], options["dilation"][1])
        for group in range(groups):
            blocks[group, :, group, :, rows, columns] = per_group[group]
        return blocks.view(len(weight), -1, side, side)

    stride = strides[0]
    if node.op == "conv2d":

        def size(image: Size) -> Size:
            height, width = (
                (n + 2 * p - r) // stride + 1 for n, p, r in zip(before(image), paddings, reach, strict=True)
            )
            return height, width

        return dense, stride, max(paddings), 1, size
    kept = all(r + o == stride + 2 * p for r, o, p in zip(reach, options["output_padding"], paddings, strict=True))
    if not kept or len(set(paddings)) > 1 or len(set(reach)) > 1 or side - 1 < paddings[0]:
        raise NotNativeError(f"'{node.name}' is a transposed convolution that does not multiply the size by its stride")
    padding = paddings[0]

    def transposed(weight: Tensor) -> Tensor:
        """Of each pixel that a window makes, the rows and columns that reach it."""
        whole = _without_groups(weight, groups, side, options["dilation"])
        return _phases(whole.transpose(0, 1), stride, padding)

    first = -((side - 1 - padding) // stride)
    return transposed, 1, -first, stride, lambda image: _each(lambda n: n * stride, before(image))


def _without_groups(weight: Tensor, groups: int, side: int, dilation: Sequence[int]) -> Tensor:
    """Weights of a transposed convolution, (in, out / groups, k, k), as (in, out, K, K)."""
    inputs, outputs = weight.shape[:2]
    whole = weight.new_zeros(inputs, outputs * groups, side, side)
    for group in range(groups):
        rows = slice(group * inputs // groups, (group + 1) * inputs // groups)
        columns = slice(group * outputs, (group + 1) * outputs)
        whole[rows, columns, :: dilation[0], :: dilation[1]] = weight[rows]
    return whole


def _phases(weight: Tensor, stride: int, padding: int) -> Tensor:
    """A transposed convolution, (out, in, K, K), as one of stride 1 with ``stride^2`` times the outputs.

    Output row ``stride y + i`` gets input row ``y + (i + padding - a) / stride`` through the kernel's row ``a``.
    """
    outputs, inputs, kernel, _ = weight.shape
    first, last = -((kernel - 1 - padding) // stride), (stride - 1 + padding) // stride
    side = last - first + 1
    wide = weight.new_zeros(outputs, stride, stride, inputs, side, side)
    taps = [
        (i, a, (i + padding - a) // stride - first)
        for i in range(stride)
        for a in range(kernel)
        if (i + padding - a) % stride == 0
    ]
    for i, a, row in taps:
        for j, b, column in taps:
            wide[:, i, j, :, row, column] += weight[:, :, a, b]
    return wide.view(outputs * stride**2, inputs, side, side)


def _on_layer(node: Node, term: Term, part: _Part) -> Term:
    """A convolution of moved spikes as one of the layer's own."""
    r = part.factor
    if r == 1:
        return term
    if term.factor > 1:
        raise NotNativeError(f"'{node.name}' (conv_transpose2d) reads spikes that were moved")
    outputs, inputs, kernel, _ = term.weight.shape
    if part.move == "pixel_unshuffle":
        split = term.weight.view(outputs, part.channels, r, r, kernel, kernel)
        whole = split.permute(0, 1, 4, 2, 5, 3).reshape(outputs, part.channels, kernel * r, kernel * r)
        return Term(term.source, whole, term.stride * r, term.padding * r)
    # rows L y + s P + a - p of the wire, P of factor rows at a time, are rows (L / r) y + ... of the layer
    whole_step = math.lcm(r, term.stride)
    factor, stride = whole_step // term.stride, whole_step // r
    rows = [[(term.stride * i + a - term.padding) for a in range(kernel)] for i in range(factor)]
    first, last = min(rows[0]) // r, max(rows[-1]) // r
    side = last - first + 1
    wide = term.weight.new_zeros(outputs, factor, factor, part.channels, side, side)
    split_by = r if part.move == "pixel_shuffle" else 1
    channels = torch.arange(inputs) * split_by**2
    for i in range(factor):
        for j in range(factor):
            for a, row in enumerate(rows[i]):
                for b, column in enumerate(rows[j]):
                    inner = (row % r) * r + column % r if split_by > 1 else 0
                    at = row // r - first, column // r - first
                    wide[:, i, j, channels + inner, at[0], at[1]] += term.weight[:, :, a, b]
    return Term(term.source, wide.view(-1, part.channels, side, side), stride, -first, factor)
