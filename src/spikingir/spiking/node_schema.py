"""Operations of a body as JSON, and back: which settings each has and in which range, and which shapes fit it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Annotated, Any, Literal, NamedTuple

import torch
from torch import nn

from spikingir.graph.graph import Node
from spikingir.schema import Range, SchemaError, nearest, parse, shown

_Side = Annotated[int, Range(1, 64)]
_Border = Annotated[int, Range(0, 512)]
_Crop = Annotated[int, Range(-512, 512)]
_Bound = Annotated[int, Range(-65536, 65536)] | None
_Step = Annotated[int, Range(1, 64)] | None
_Factor = Annotated[float, Range(0, 64, open_least=True)]
_Size = Annotated[int, Range(1, 65536)]
_Span = tuple[_Bound, _Bound, _Step]


@dataclass(frozen=True)
class _Nothing:
    """No settings."""


@dataclass(frozen=True)
class _Convolution:
    stride: tuple[_Side, _Side]
    padding: tuple[_Border, _Border]
    dilation: tuple[_Side, _Side]
    groups: Annotated[int, Range(1, 65536)]


@dataclass(frozen=True)
class _TransposedConvolution(_Convolution):
    output_padding: tuple[Annotated[int, Range(0, 63)], Annotated[int, Range(0, 63)]]


@dataclass(frozen=True)
class _AveragePool:
    kernel_size: tuple[_Side, _Side]
    stride: tuple[_Side, _Side]
    padding: tuple[_Border, _Border]
    ceil_mode: bool
    count_include_pad: bool


@dataclass(frozen=True)
class _Interpolation:
    size: tuple[_Size, _Size] | None
    scale_factor: _Factor | tuple[_Factor, _Factor] | None
    mode: Literal["nearest", "nearest-exact", "bilinear", "bicubic"]
    align_corners: bool | None


@dataclass(frozen=True)
class _Slice:
    channels: _Span
    rows: _Span
    columns: _Span


@dataclass(frozen=True)
class _Pad:
    padding: tuple[_Crop, ...]
    mode: Literal["constant", "reflect", "replicate", "circular"]


@dataclass(frozen=True)
class _Shuffle:
    factor: Annotated[int, Range(1, 64)]


class _Form(NamedTuple):
    """What an operation looks like in a file: its settings, least and most inputs, dimensions of its weight."""

    settings: type[Any]
    least: int = 1
    most: int = 1
    weight: int = 0


_FORMS: Mapping[str, _Form] = MappingProxyType(
    {
        "input": _Form(_Nothing, 0, 0),
        "neuron": _Form(_Nothing),
        "conv2d": _Form(_Convolution, weight=4),
        "conv_transpose2d": _Form(_TransposedConvolution, weight=4),
        "affine": _Form(_Nothing, weight=1),
        "avg_pool2d": _Form(_AveragePool),
        "interpolate": _Form(_Interpolation, 1, 2),
        "add": _Form(_Nothing, 2, 2),
        "sub": _Form(_Nothing, 2, 2),
        "concat": _Form(_Nothing, 1, 256),
        "slice": _Form(_Slice),
        "pad": _Form(_Pad),
        "pixel_shuffle": _Form(_Shuffle),
        "pixel_unshuffle": _Form(_Shuffle),
    }
)

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,199}")
_TAKEN = frozenset(dir(nn.ModuleDict()) + dir(nn.ParameterDict()))


@dataclass(frozen=True)
class _Entry:
    name: str
    op: str
    inputs: tuple[str, ...]
    options: Mapping[str, Any]
    weights: str | None


def node_to_json(node: Node) -> dict[str, Any]:
    """An operation as plain values."""
    return asdict(node)


def node_from_json(entry: object, where: str) -> Node:
    """An operation from plain values.

    Raises:
        SchemaError: An unknown operation or setting, one that is missing, of the wrong type or out of range, a wrong
            number of inputs, weights where there are none or none where there are some.
    """
    found = parse(_Entry, entry, where)
    if found.op not in _FORMS:
        raise SchemaError(f"{where}.op is {shown(found.op)}, an unknown operation{nearest(found.op, _FORMS)}")
    form = _FORMS[found.op]
    for name in (found.name, found.weights or "_"):
        if not _NAME.fullmatch(name) or name in _TAKEN:
            raise SchemaError(f"{where} has the name {shown(name)}; expected letters, digits and underscores")
    if not form.least <= len(found.inputs) <= form.most:
        wanted = str(form.least) if form.least == form.most else f"{form.least} to {form.most}"
        raise SchemaError(f"{where}.inputs has {len(found.inputs)}; {found.op} {found.name!r} reads {wanted}")
    if (found.weights is None) != (form.weight == 0):
        raise SchemaError(
            f"{where}.weights is {shown(found.weights)}; {found.op} needs {'some' if form.weight else 'none'}"
        )
    options = asdict(parse(form.settings, found.options, f"{where}.options"))
    if found.op == "pad" and len(options["padding"]) not in (2, 4):
        raise SchemaError(f"{where}.options.padding is {shown(options['padding'])}; expected a list of 2 or 4")
    if found.op == "interpolate":
        if options["align_corners"] is not None and options["mode"].startswith("nearest"):
            raise SchemaError(f"{where}.options.align_corners is {options['align_corners']}; mode nearest has none")
        given = [options["size"] is not None, options["scale_factor"] is not None, len(found.inputs) == 2]
        if sum(given) != 1:
            raise SchemaError(f"{where}.options: expected one of a size, a scale_factor and a second input")
    return Node(found.name, found.op, found.inputs, options, found.weights)


def weight_dimensions(node: Node) -> int:
    """Dimensions that the weight of an operation has; 0 where it has none."""
    return _FORMS[node.op].weight


Shape = tuple[int, int, int]
"""Channels, rows and columns."""


def output_shape(node: Node, inputs: Sequence[Shape], weight: Sequence[int]) -> Shape:
    """Shape of an operation's output for those of its inputs, computed without running it.

    Args:
        node: An operation as :func:`node_from_json` gives it.
        inputs: Shapes of its inputs.
        weight: Shape of its weight; empty where it has none.

    Raises:
        SchemaError: They do not fit.
    """
    maps = [torch.empty(1, *shape, device="meta") for shape in inputs]
    kernel = torch.empty(*weight, device="meta") if weight else None
    try:
        found = maps[0] if node.role == "neuron" else node.operation.run(node, maps, kernel)
    except (RuntimeError, ValueError, IndexError):  # how torch says that they do not fit
        found = torch.empty(0)
    if not found.numel():
        sizes = ", ".join(" x ".join(map(str, shape)) for shape in inputs)
        weights = f" with weights {tuple(weight)}" if weight else ""
        raise SchemaError(f"{node.op} {node.name!r}{weights} does not fit an input of {sizes}")
    channels, rows, columns = found.shape[1:]
    return channels, rows, columns
