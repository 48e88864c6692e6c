"""What a pixel of the output depends on: the receptive field of a body, from its operations."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import reduce

from torch import Tensor

from spikingir.errors import SpikingIRError
from spikingir.spiking.folded import FoldedNetwork
from spikingir.spiking.graph import Node
from spikingir.spiking.network import SpikingNetwork

Network = SpikingNetwork | FoldedNetwork


class TilingError(SpikingIRError):
    """A network that sees the whole image at once, or wherever it was not meant to; the text says which operation."""


@dataclass(frozen=True)
class Reach:
    """What a pixel of a wire depends on along one axis: pixel ``i`` on ``stride * i + low .. stride * i + high``.

    Attributes:
        stride: Image pixels from one pixel of the wire to the next.
        low: Nearest image pixel, in image pixels.
        high: Farthest image pixel.
    """

    stride: Fraction = Fraction(1)
    low: Fraction = Fraction(0)
    high: Fraction = Fraction(0)

    def then(self, stride: Fraction | int, low: Fraction | int, high: Fraction | int) -> "Reach":
        """Reach of an operation whose pixel ``i`` reads pixels ``stride * i + low .. stride * i + high`` of this."""
        return Reach(self.stride * stride, self.low + self.stride * low, self.high + self.stride * high)


@dataclass(frozen=True)
class Wire:
    """A node's output: its channels, and its reach along rows and columns."""

    channels: int
    rows: Reach
    columns: Reach

    @property
    def density(self) -> float:
        """Values per pixel of the image."""
        return float(self.channels / (self.rows.stride * self.columns.stride))


@dataclass(frozen=True)
class Layout:
    """How a network can be tiled.

    Attributes:
        halo: Margin of a tile in pixels: the largest reach of any wire, rounded up to a multiple of ``stride``.
        stride: Tiles start and end at multiples of it.
        wires: Every wire of the body by name.
        output: The output, after the pixel mapper.
    """

    halo: int
    stride: int
    wires: Mapping[str, Wire]
    output: Wire


def layout(network: Network) -> Layout:
    """Receptive field and stride of a network, from its operations.

    Raises:
        TilingError: A function of the user's own on the image, an operation with a fixed size or a position
            counted from an end, circular padding.
    """
    wires: dict[str, Wire] = {}
    for node in network.nodes:
        if node.op == "raw":
            raise TilingError(
                f"'{node.name}' is a function of your own on the image, which may look at all of it; call the "
                "network on whole images"
            )
        inputs = [wires[name] for name in node.inputs]
        shape = _kernel_shape(network, node)
        if node.op == "input":
            wires[node.name] = Wire(network.config.input_channels, Reach(), Reach())
        else:
            rows = _reach(node, 0, [wire.rows for wire in inputs], shape)
            columns = _reach(node, 1, [wire.columns for wire in inputs], shape)
            wires[node.name] = Wire(_channels(node, inputs, shape), rows, columns)
    last = wires[network.nodes[-1].name]
    margin = _mapper_size(network) // 2
    output = replace(last, rows=last.rows.then(1, -margin, margin), columns=last.columns.then(1, -margin, margin))
    reaches = [reach for wire in (*wires.values(), output) for reach in (wire.rows, wire.columns)]
    stride = math.lcm(*(reach.stride.numerator for reach in reaches))
    radius = max(max(-reach.low, reach.high) for reach in reaches)
    return Layout(math.ceil(radius / stride) * stride, stride, wires, output)


def _kernel_shape(network: Network, node: Node) -> Sequence[int]:
    """Shape of the node's weights; empty where it has none."""
    if isinstance(network, FoldedNetwork):
        if node.name not in network.kernels:
            return ()
        analog = network.kernels[node.name].analog
        assert isinstance(analog, Tensor)
        return tuple(analog.shape)
    return () if node.weights is None else tuple(network.weights[node.weights][0].shape)


def _mapper_size(network: Network) -> int:
    if isinstance(network, FoldedNetwork):
        return network.mapper.spike.shape[-1]
    return 1 if network.mapper is None else network.mapper.weight.shape[-1]


def _channels(node: Node, inputs: Sequence[Wire], shape: Sequence[int]) -> int:
    channels, options = inputs[0].channels, node.options
    match node.op:
        case "conv2d":
            return shape[0]
        case "conv_transpose2d":
            return shape[1] * int(options["groups"])
        case "concat":
            return sum(wire.channels for wire in inputs)
        case "slice":
            return len(range(channels)[slice(*options["channels"])])
        case "pixel_shuffle":
            return channels // int(options["factor"]) ** 2
        case "pixel_unshuffle":
            return channels * int(options["factor"]) ** 2
    return channels


def _reach(node: Node, axis: int, inputs: Sequence[Reach], shape: Sequence[int]) -> Reach:
    """Reach of a node's output. An output pixel that a cut leaves out counts as reading beyond the cut."""
    source, options = inputs[0], node.options
    match node.op:
        case "conv2d":
            padding, span = options["padding"][axis], options["dilation"][axis] * (shape[2 + axis] - 1)
            return source.then(options["stride"][axis], -padding, span - padding)
        case "conv_transpose2d":
            stride, padding = options["stride"][axis], options["padding"][axis]
            span = options["dilation"][axis] * (shape[2 + axis] - 1)
            cropped = 2 * padding - span - options["output_padding"][axis]
            return source.then(
                Fraction(1, stride), Fraction(padding - span, stride), Fraction(max(padding, cropped), stride)
            )
        case "avg_pool2d":
            padding = options["padding"][axis]
            return source.then(options["stride"][axis], -padding, options["kernel_size"][axis] - 1 - padding)
        case "interpolate":
            return _resized(node, axis, inputs)
        case "pad":
            return _padded(node, axis, source)
        case "slice":
            return _sliced(node, axis, source)
        case "pixel_shuffle":
            factor = options["factor"]
            return source.then(Fraction(1, factor), Fraction(1 - factor, factor), 0)
        case "pixel_unshuffle":
            return source.then(options["factor"], 0, options["factor"] - 1)
        case "add" | "sub" | "concat":
            if any(other.stride != source.stride for other in inputs):
                raise TilingError(f"'{node.name}' joins feature maps of different resolutions")
            return reduce(lambda a, b: Reach(a.stride, min(a.low, b.low), max(a.high, b.high)), inputs)
        case "affine" | "neuron":
            return source
    raise TilingError(f"the reach of '{node.op}' at '{node.name}' is not known")


def _resized(node: Node, axis: int, inputs: Sequence[Reach]) -> Reach:
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


def _padded(node: Node, axis: int, source: Reach) -> Reach:
    sides = (*node.options["padding"], 0, 0)
    first, last = sides[2 - 2 * axis], sides[3 - 2 * axis]
    if node.options["mode"] == "circular":
        raise TilingError(f"'{node.name}' pads with the opposite side of the image")
    # a reflected pixel lies as far inside as the padding reaches outside
    before, after = (0, 0) if node.options["mode"] == "constant" else (max(0, first), max(0, last))
    return source.then(1, -first - 2 * after, -first + max(0, -last) + 2 * before)


def _sliced(node: Node, axis: int, source: Reach) -> Reach:
    start, stop, step = node.options["columns" if axis else "rows"]
    start = start or 0
    if start < 0 or (stop is not None and stop >= 0):
        raise TilingError(f"'{node.name}' cuts out a place that depends on the size of the whole image")
    return source.then(step or 1, start, start - (stop or 0))
