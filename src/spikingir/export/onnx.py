"""A folded network on the phased schedule as ONNX, its spikes and currents as integers.

Every sum of spikes is ``ConvInteger`` on bytes: weights and counts are written in base 256 with digits of one byte
each, so a binary network (8-bit weights, counts below 256) is one ``ConvInteger`` for each convolution. Currents are
64-bit integers, multiples of a power of two for each channel, and a neuron is an integer division. Floating point
appears in three places, on numbers that double precision holds exactly: where the image is put on its grid, where an
analog sum is rounded to a grid, and in the readout and image formation, which follow the folded network operation by
operation. So the same image gives the same bits as the folded network.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil, prod
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from spikingir.deploy.folded import MAX_IMAGE, FoldedNetwork, Kernel
from spikingir.export.errors import ExportError
from spikingir.export.npz import require_plain
from spikingir.graph.graph import Node
from spikingir.spiking.formation import LIGHT, LIGHT_BITS, LIGHT_WEIGHT

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

OPSET, IR_VERSION = 19, 9
SPIKES = "spikes_"
"""Prefix of the intermediate tensors that hold the spikes of a layer's window, by the layer's name."""

_ZERO = 128  # of a byte that holds -128 to 127
_MOST_EXPONENT = 62

Array = NDArray[Any]


@dataclass(frozen=True)
class _Part:
    """An integer tensor (B, C, H, W), or (1, C, 1, 1): its value is ``integer * 2^-exponent``, by channel.

    ``most`` is the largest magnitude of the integer; ``least`` its least value.
    """

    name: str
    exponent: Array
    least: int
    most: int


@dataclass(frozen=True)
class _Wire:
    """A value as :class:`spikingir.graph.graph.Wave` has it: what spikes carry, and what is constant in time."""

    spikes: _Part | None
    constant: _Part | None


def onnx_content(network: FoldedNetwork) -> bytes:
    """A folded network on the phased schedule as the bytes of an ONNX file.

    The input ``image`` (B, C, H, W) and the output ``restored`` are float32. An image must be within 8 in magnitude;
    that is not checked.

    Raises:
        ExportError: Another schedule; an operation that has no integer form here.
    """
    require_plain(network)
    if not network.config.phased:
        raise ExportError(
            f"the network runs {network.config.clock}, and ONNX holds the phased schedule alone; export with "
            "--schedule phased, or to npz, torch or nir"
        )
    model = _Builder(network).model()
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content


def run_onnx(content: bytes, image: Tensor, layers: Sequence[str]) -> tuple[Tensor, dict[str, Tensor]]:
    """Restored image and the spikes of layers, by onnxruntime on the CPU.

    Args:
        content: An ONNX file of :func:`onnx_content`.
        image: Image.
        layers: Names of layers.

    Shape:
        ``image``: (B, C, H, W), float32.
    """
    feed = {"image": image.numpy()}
    restored = _session(content).run(["restored"], feed)[0]
    model = onnx.load_from_string(content)
    names = [f"{SPIKES}{name}" for name in layers]
    model.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.INT64, [None] * 4) for name in names)
    found = _session(model.SerializeToString()).run(names, feed)
    return torch.from_numpy(restored), {
        name: torch.from_numpy(spikes) for name, spikes in zip(layers, found, strict=True)
    }


def _session(content: bytes) -> "InferenceSession":
    from onnxruntime import InferenceSession

    return InferenceSession(content, providers=["CPUExecutionProvider"])


class _Builder:
    """Nodes and numbers of an ONNX graph, added in order."""

    def __init__(self, network: FoldedNetwork) -> None:
        self.network = network
        self.nodes: list[onnx.NodeProto] = []
        self.numbers: dict[str, onnx.TensorProto] = {}
        self.wires: dict[str, _Wire] = {}

    def model(self) -> onnx.ModelProto:
        """The whole network."""
        network, config = self.network, self.network.config
        exact = self.add("Cast", ["image"], to=TensorProto.DOUBLE)
        for node in network.nodes:
            if node.op == "input":
                bits = network.image_bits
                rounded = self.add("Round", [self.add("Mul", [exact, self.number(2.0**bits)])])
                most = int(MAX_IMAGE) << bits
                image = _Part(self.whole(rounded), np.full(config.input_channels, bits), -most, most)
                self.wires[node.name] = _Wire(None, image)
            elif node.op == "neuron":
                self.wires[node.name], residual = self._fire(node, self.wires[node.inputs[0]])
            else:
                self.wires[node.name] = self._linear(node, [self.wires[name] for name in node.inputs])
        output = self._read(self.wires[network.nodes[-1].name], residual)
        self.add("Cast", [self._form(exact, output)], "restored", to=TensorProto.FLOAT)
        tensor = helper.make_tensor_value_info
        graph = helper.make_graph(
            self.nodes,
            "spikingir",
            [tensor("image", TensorProto.FLOAT, ["batch", config.input_channels, "height", "width"])],
            [tensor("restored", TensorProto.FLOAT, [None] * 4)],
            list(self.numbers.values()),
            f"{config.method}, {config.clock}; image within {MAX_IMAGE:g} in magnitude",
        )
        return helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="spikingir",
        )

    # --- the graph ---

    def add(self, op: str, inputs: Sequence[str], output: str = "", **attributes: Any) -> str:
        """A node with one output, whose name is returned."""
        output = output or f"{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [output], **attributes))
        return output

    def number(self, value: Array | np.uint8 | float | int) -> str:
        """Name of a constant; whole numbers are 64-bit unless they are bytes, others double."""
        array = np.asarray(value)
        if array.dtype != np.uint8:
            array = array.astype(np.float64 if array.dtype.kind == "f" else np.int64)
        name = f"number_{len(self.numbers)}"
        self.numbers[name] = numpy_helper.from_array(array, name)
        return name

    def whole(self, name: str) -> str:
        """A tensor as 64-bit integers."""
        return self.add("Cast", [name], to=TensorProto.INT64)

    def real(self, name: str) -> str:
        """A tensor in double precision."""
        return self.add("Cast", [name], to=TensorProto.DOUBLE)

    def times(self, name: str, factor: Array) -> str:
        """An integer tensor times whole numbers, one for each channel."""
        return name if (factor == 1).all() else self.add("Mul", [name, self.number(_by_channel(factor))])

    # --- parts ---

    def finer(self, part: _Part, exponent: Array) -> _Part:
        """A part at exponents that are nowhere less."""
        shift = exponent - part.exponent
        if not shift.any():
            return part
        factor = 2 ** shift.astype(np.int64)
        most = int(factor.max())
        return _Part(self.times(part.name, factor), exponent, min(part.least, part.least * most), part.most * most)

    def added(self, first: _Part | None, second: _Part | None, op: str = "Add") -> _Part | None:
        """Sum or difference of two parts, either of which may be absent."""
        if second is None:
            return first
        if first is None:
            if op == "Add":
                return second
            return _Part(self.add("Neg", [second.name]), second.exponent, -second.most, -second.least)
        exponent = np.maximum(*np.broadcast_arrays(first.exponent, second.exponent))
        a, b = self.finer(first, exponent), self.finer(second, exponent)
        least, most = (a.least + b.least, a.most + b.most) if op == "Add" else (a.least - b.most, a.most - b.least)
        return _Part(self.add(op, [a.name, b.name]), exponent, least, most)

    def rounded(self, part: _Part, kernel: Kernel) -> _Part:
        """A part on the grid of a kernel: rounded to even where it is finer, as the folded network does."""
        assert kernel.grid is not None
        exponent = _exponents(kernel.grid)
        if (part.exponent <= exponent).all():
            return part
        shift = _by_channel(2.0 ** (exponent - part.exponent))
        name = self.whole(self.add("Round", [self.add("Mul", [self.real(part.name), self.number(shift)])]))
        scale = float(shift.max())
        return _Part(name, exponent, -ceil(-part.least * scale) - 1, ceil(part.most * scale) + 1)

    def spread(self, part: _Part, like: str) -> _Part:
        """A part at every pixel of another tensor."""
        return replace(part, name=self.add("Expand", [part.name, self.add("Shape", [like])]))

    # --- operations ---

    def _linear(self, node: Node, inputs: Sequence[_Wire]) -> _Wire:
        kernel = self.network.kernel(node.name)
        if node.op in ("add", "sub"):
            op = {"add": "Add", "sub": "Sub"}[node.op]
            (a, b) = inputs
            return _Wire(self.added(a.spikes, b.spikes, op), self.added(a.constant, b.constant, op))
        spikes = constant = None
        if any(wire.spikes is not None for wire in inputs):
            spikes = self._operation(node, [self._present(w.spikes, w.constant) for w in inputs], kernel, spiking=True)
        if any(wire.constant is not None for wire in inputs):
            constant = self._operation(
                node, [self._present(w.constant, w.spikes) for w in inputs], kernel, spiking=False
            )
        if kernel is None:
            return _Wire(spikes, constant)
        if kernel.bias is not None:
            exponent = _exponents_of(kernel.bias.numpy()[:, None])
            values = _integers(kernel.bias.numpy(), exponent)
            most = int(np.abs(values).max())
            constant = self.added(constant, _Part(self.number(_by_channel(values)), exponent, -most, most))
        return _Wire(
            None if spikes is None else self.rounded(spikes, kernel),
            None if constant is None else self.rounded(constant, kernel),
        )

    def _present(self, part: _Part | None, other: _Part | None) -> _Part:
        """A part at every pixel; zeros where there is none."""
        if part is None:
            assert other is not None
            zeros = self.add("Mul", [other.name, self.number(0)])
            return _Part(zeros, np.zeros_like(other.exponent), 0, 0)
        return part if other is None else self.spread(part, other.name)

    def _operation(self, node: Node, parts: Sequence[_Part], kernel: Kernel | None, *, spiking: bool) -> _Part:
        """A linear operation without its bias, on one part of its inputs."""
        part, o = parts[0], node.options
        match node.op:
            case "conv2d":
                assert kernel is not None
                weight = (kernel.spike if spiking else kernel.analog).numpy().astype(np.float64)
                attributes = {
                    "strides": list(o["stride"]),
                    "pads": [*o["padding"], *o["padding"]],
                    "dilations": list(o["dilation"]),
                    "group": o["groups"],
                }
                return self.convolution(part, weight, attributes)
            case "affine":
                assert kernel is not None
                weight = (kernel.spike if spiking else kernel.analog).numpy().astype(np.float64)
                exponent = _exponents_of(weight[:, None])
                factor = _integers(weight, exponent)
                most = max(-part.least, part.most) * int(np.abs(factor).max())
                return _Part(self.times(part.name, factor), part.exponent + exponent, -most, most)
            case "avg_pool2d":
                return self._mean(node, part)
            case "concat":
                name = self.add("Concat", [p.name for p in parts], axis=1)
                exponent = np.concatenate([p.exponent for p in parts])
                return _Part(name, exponent, min(p.least for p in parts), max(p.most for p in parts))
            case "slice":
                return self._slice(node, part)
            case "pad":
                return self._pad(node, part)
            case "pixel_shuffle" | "pixel_unshuffle":
                return self._shuffle(node, part)
            case _:
                raise ExportError(
                    f"'{node.name}' ({node.op}) has no integer form in ONNX here; export to npz or torch instead"
                )

    def convolution(self, part: _Part, weight: Array, attributes: dict[str, Any]) -> _Part:
        """Exact integer convolution with weights (O, I, kh, kw), whatever their size and that of the input."""
        part = self.finer(part, np.full_like(part.exponent, part.exponent.max()))
        exponent = _exponents_of(weight.reshape(len(weight), -1))
        whole = _integers(weight, exponent)
        # of what it reads, exponents are alike
        reach = int(np.abs(whole).astype(object).reshape(len(whole), -1).sum(1).max())
        most = reach * max(-part.least, part.most)
        if most >= 2**_MOST_EXPONENT:
            raise ExportError("a sum may exceed 64 bits; fold the network on a coarser grid")
        # weights of few bits are multiples of some whole number: without it they are single bytes
        unit = np.maximum(np.gcd.reduce(whole.reshape(len(whole), -1), axis=1), 1)
        whole = whole // unit.reshape(-1, 1, 1, 1)
        zero = self.number(np.uint8(_ZERO))
        total = ""
        digits = self._digits(part)
        for i, digit in enumerate(_digits_of(whole)):
            stored = self.number(digit)
            for j, (image, image_zero) in enumerate(digits):
                summed = self.whole(self.add("ConvInteger", [image, stored, image_zero, zero], **attributes))
                summed = self.times(summed, np.array([256 ** (i + j)]))
                total = self.add("Add", [total, summed]) if total else summed
        return _Part(self.times(total, unit), exponent + part.exponent[0], -most, most)

    def _digits(self, part: _Part) -> list[tuple[str, str]]:
        """Bytes of an integer tensor, least first, each with the value that stands for zero."""

        def byte(name: str) -> str:
            return self.add("Cast", [name], to=TensorProto.UINT8)

        if part.least >= 0 and part.most <= 255:
            return [(byte(part.name), self.number(np.uint8(0)))]
        count = _bytes(max(-part.least, part.most))
        offset = self.number(sum(_ZERO * 256**j for j in range(count)))
        rest, zero = self.add("Add", [part.name, offset]), self.number(np.uint8(_ZERO))
        found = []
        for j in range(count):
            shifted = rest if j == 0 else self.add("Div", [rest, self.number(256**j)])
            found.append((byte(self.add("Mod", [shifted, self.number(256)])), zero))
        return found

    def _mean(self, node: Node, part: _Part) -> _Part:
        """Average pooling: a sum, and a division in double precision, as the folded network has it."""
        o = node.options
        if o["ceil_mode"] or (any(o["padding"]) and not o["count_include_pad"]):
            raise ExportError(
                f"'{node.name}' averages over fewer pixels at the border, which has no integer form in ONNX here; "
                "export to npz or torch instead"
            )
        channels = len(part.exponent)
        ones = np.ones((channels, 1, *o["kernel_size"]))
        attributes = {"strides": list(o["stride"]), "pads": [*o["padding"], *o["padding"]], "group": channels}
        total = self.convolution(part, ones, attributes)
        area = prod(o["kernel_size"])
        if area & (area - 1) == 0:
            return replace(total, exponent=total.exponent + area.bit_length() - 1)
        raise ExportError(
            f"'{node.name}' averages {area} pixels, which is no power of two and has no integer form in ONNX here; "
            "export to npz or torch instead"
        )

    def _slice(self, node: Node, part: _Part) -> _Part:
        spans = [node.options[axis] for axis in ("channels", "rows", "columns")]
        starts = [span[0] or 0 for span in spans]
        ends = [2**31 - 1 if span[1] is None else span[1] for span in spans]
        steps = [span[2] or 1 for span in spans]
        numbers = [self.number(np.array(values)) for values in (starts, ends, [1, 2, 3], steps)]
        name = self.add("Slice", [part.name, *numbers])
        return replace(part, name=name, exponent=part.exponent[slice(*node.options["channels"])])

    def _pad(self, node: Node, part: _Part) -> _Part:
        left, right, top, bottom = (*node.options["padding"], 0, 0)[:4]
        mode = {"constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}
        pads = self.number(np.array([0, 0, top, left, 0, 0, bottom, right]))
        name = self.add("Pad", [part.name, pads], mode=mode[node.options["mode"]])
        return replace(part, name=name, least=min(part.least, 0), most=max(part.most, 0))

    def _shuffle(self, node: Node, part: _Part) -> _Part:
        """Pixel shuffle or unshuffle: a reshaping to six dimensions, a transposition, a reshaping back."""
        f, channels = node.options["factor"], len(part.exponent)
        shape = self.add("Shape", [part.name])
        batch, height, width = (self.add("Gather", [shape, self.number(np.array([axis]))]) for axis in (0, 2, 3))
        factor = self.number(np.array([f]))
        if node.op == "pixel_shuffle":
            inner = self.number(np.array([channels // f**2, f, f]))
            apart, order = [batch, inner, height, width], [0, 1, 4, 2, 5, 3]
            last = [self.add("Mul", [side, factor]) for side in (height, width)]
            count, exponent = channels // f**2, part.exponent.reshape(-1, f**2).max(1)
            part = self.finer(part, exponent.repeat(f**2))
        else:
            rows, columns = (self.add("Div", [side, factor]) for side in (height, width))
            inner = self.number(np.array([channels]))
            apart, order = [batch, inner, rows, factor, columns, factor], [0, 1, 3, 5, 2, 4]
            last, count, exponent = [rows, columns], channels * f**2, part.exponent.repeat(f**2)
        name = self.add("Reshape", [part.name, self.add("Concat", apart, axis=0)])
        name = self.add("Transpose", [name], perm=order)
        target = self.add("Concat", [batch, self.number(np.array([count])), *last], axis=0)
        return _Part(self.add("Reshape", [name, target]), exponent, part.least, part.most)

    # --- neurons and readout ---

    def _fire(self, node: Node, current: _Wire) -> tuple[_Wire, str]:
        """Spikes of a window and the residual membrane, in thresholds: ``n = clip(floor(v + 1/2))``, ``v - n``.

        With ``v = V / g`` for integers ``V`` and ``g = 2^k``, ``floor`` is an integer division of what is not negative.
        """
        most = self.network.levels[node.name]
        least = -most if self.network.clocks[node.name].signed else 0
        total, constant = current.spikes, current.constant
        if constant is not None:
            factor = np.full_like(constant.exponent, most)
            constant = _Part(
                self.times(constant.name, factor), constant.exponent, constant.least * most, constant.most * most
            )
        v = self.added(total, constant)
        assert v is not None
        v = self.finer(v, np.maximum(v.exponent, 1))  # so that 1/2 is a whole number of steps
        grid = _by_channel(2 ** v.exponent.astype(np.int64))
        raised = self.add("Add", [v.name, self.number(grid // 2 - least * grid)])
        counted = self.add("Div", [self.add("Max", [raised, self.number(0)]), self.number(grid)])
        counted = self.add("Min", [counted, self.number(most - least)])
        counts = self.add("Add", [counted, self.number(least)], f"{SPIKES}{node.name}")
        left = self.add("Sub", [v.name, self.add("Mul", [counts, self.number(grid)])])
        residual = self.add("Mul", [self.real(left), self.number(1.0 / grid)])
        return _Wire(_Part(counts, np.zeros_like(v.exponent), least, most), None), residual

    def _read(self, wire: _Wire, residual: str) -> str:
        """Body output: the mapper, and the residual membrane, in double precision."""
        network, kernel, last = self.network, self.network.mapper, self.network.nodes[-1].name
        most, spikes = float(network.levels[last]), wire.spikes
        assert spikes is not None
        padding = kernel.spike.shape[-1] // 2
        total = self.convolution(spikes, kernel.spike.numpy(), {"pads": [padding] * 4})
        scale = self.number(_by_channel(2.0**-total.exponent))
        output = self.add("Div", [self.add("Mul", [self.real(total.name), scale]), self.number(most)])
        if kernel.bias is not None:
            output = self.add("Add", [output, self.number(_by_channel(kernel.bias.numpy()))])
        if network.config.recycling:
            left = self.add("Mul", [residual, self.number(_by_channel(network.theta.double().numpy()))])
            output = self.add("Add", [output, self.add("Div", [left, self.number(most)])])
        return output if network.clocks[last].signed else self.add("Relu", [output])

    def _form(self, image: str, output: str) -> str:
        """Image formation, see :func:`spikingir.spiking.formation.form_image`."""

        def channels(name: str, start: int, end: int) -> str:
            numbers = [self.number(np.array([value])) for value in (start, end, 1)]
            return self.add("Slice", [name, *numbers])

        config = self.network.config
        count = config.channels
        if config.takes_level:
            image = channels(image, 0, count)
        match config.formation:
            case "identity":
                return output
            case "residual":
                return self.add("Sub", [image, output])
            case "atmospheric":
                scaled = self.add("Sub", [self.add("Mul", [output, image]), output])
                return self.add("Relu", [self.add("Add", [scaled, self.number(1.0)])])
            case "level":
                noise = self.add("Mul", [channels(image, count, count + 1), output])
                return self.add("Sub", [channels(image, 0, count), noise])
            case "soft" | "airlight":
                k, b = channels(output, 0, count), channels(output, count, 2 * count)
                if config.formation == "airlight":
                    k = self.add("Relu", [self._mean_of(k, [1], float(count))])
                    b = self.add("Mul", [self._light(k, b), k])
                return self.add("Add", [self.add("Sub", [self.add("Mul", [k, image]), b]), image])

    def _light(self, k: str, b: str) -> str:
        """The airlight, see :func:`spikingir.spiking.formation.one_airlight`."""
        ones = self.add("Add", [self.add("Mul", [k, self.number(0.0)]), self.number(1.0)])
        pixels = self.add("ReduceSum", [ones, self.number(np.array([2, 3]))], keepdims=1)
        above, below = (self._mean_of(self.add("Mul", [k, part]), [2, 3], pixels) for part in (b, k))
        above = self.add("Add", [above, self.number(LIGHT_WEIGHT * LIGHT)])
        light = self.add("Div", [above, self.add("Add", [below, self.number(LIGHT_WEIGHT)])])
        return self.add("Clip", [light, self.number(0.0), self.number(1.0)])

    def _mean_of(self, name: str, axes: list[int], count: str | float) -> str:
        """Mean of ``count`` values rounded to the grid of the airlight."""
        whole = self.add("Round", [self.add("Mul", [name, self.number(2.0**LIGHT_BITS)])])
        total = self.add("ReduceSum", [whole, self.number(np.array(axes))], keepdims=1)
        count = count if isinstance(count, str) else self.number(count)
        return self.add("Div", [self.add("Div", [total, self.number(2.0**LIGHT_BITS)]), count])


def _by_channel(values: Array) -> Array:
    return np.asarray(values).reshape(1, -1, 1, 1)


def _exponents(grid: Tensor) -> Array:
    """``k`` of ``2^k``."""
    exponents: Array = grid.log2().long().numpy()
    return exponents


def _exponents_of(rows: Array) -> Array:
    """Least ``k`` of each row for which all of it are whole multiples of ``2^-k``, and not below 0."""
    found = np.zeros(len(rows), np.int64)
    for k in range(_MOST_EXPONENT):
        scaled = rows * 2.0**k
        done = (scaled == np.rint(scaled)).all(1)
        if done.all():
            return found
        found[~done] = k + 1
    raise ExportError("its weights lie on no grid; fold it with one")


def _integers(values: Array, exponent: Array) -> Array:
    """Values as whole multiples of ``2^-exponent``, by their first axis."""
    return np.rint(values * 2.0 ** exponent.reshape(-1, *[1] * (values.ndim - 1))).astype(np.int64)


def _bytes(most: int) -> int:
    """Bytes with digits from -128 to 127 that hold all whole numbers up to a magnitude."""
    count = 1
    while most > sum(127 * 256**j for j in range(count)):
        count += 1
    return count


def _digits_of(values: Array) -> list[Array]:
    """Digits in base 256, from -128 to 127, least first; a byte holds a digit and 128."""
    count = _bytes(int(np.abs(values).max()))
    rest = values + sum(_ZERO * 256**j for j in range(count))
    return [(rest // 256**j % 256).astype(np.uint8) for j in range(count)]
