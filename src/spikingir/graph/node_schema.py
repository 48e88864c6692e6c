"""Operations of a body as JSON, and back, checked as their classes say, and the shapes of what they give."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from spikingir.graph.graph import Node
from spikingir.graph.operations import OPERATIONS
from spikingir.schema import SchemaError, nearest, parse, shown

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
    known = {name: operation for name, operation in OPERATIONS.items() if operation.settings is not None}
    if found.op not in known:
        raise SchemaError(f"{where}.op is {shown(found.op)}, an unknown operation{nearest(found.op, known)}")
    operation, (least, most) = known[found.op], known[found.op].arity
    assert operation.settings is not None
    for name in (found.name, found.weights or "_"):
        if not _NAME.fullmatch(name) or name in _TAKEN:
            raise SchemaError(f"{where} has the name {shown(name)}; expected letters, digits and underscores")
    if not least <= len(found.inputs) <= most:
        wanted = str(least) if least == most else f"{least} to {most}"
        raise SchemaError(f"{where}.inputs has {len(found.inputs)}; {found.op} {found.name!r} reads {wanted}")
    if (found.weights is None) != (operation.weight_dimensions == 0):
        needed = "some" if operation.weight_dimensions else "none"
        raise SchemaError(f"{where}.weights is {shown(found.weights)}; {found.op} needs {needed}")
    options = asdict(parse(operation.settings, found.options, f"{where}.options"))
    node = Node(found.name, found.op, found.inputs, options, found.weights)
    operation.require(node, where)
    return node


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
    try:
        found = inputs[0] if node.role == "neuron" else node.operation.shape(node, inputs, weight)
    except (RuntimeError, ValueError, IndexError):  # how torch says that they do not fit
        found = (0, 0, 0)
    if 0 in found:
        sizes = ", ".join(" x ".join(map(str, shape)) for shape in inputs)
        weights = f" with weights {tuple(weight)}" if weight else ""
        raise SchemaError(f"{node.op} {node.name!r}{weights} does not fit an input of {sizes}")
    channels, rows, columns = found
    return channels, rows, columns
