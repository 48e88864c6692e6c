"""Shapes computed from an operation's settings are those that running it gives."""

import random
from typing import Any

import pytest
import torch

from spikingir.graph.node_schema import node_from_json, node_to_json, output_shape
from spikingir.graph.operations import OPERATIONS
from spikingir.schema import SchemaError


def drawn(op: str, draw: random.Random) -> tuple[dict[str, Any], list[tuple[int, int, int]], tuple[int, ...]]:
    """Settings, shapes of the inputs and of the weight."""

    def pair(least: int, most: int) -> list[int]:
        return [draw.randint(least, most), draw.randint(least, most)]

    def span() -> list[int | None]:
        return [draw.choice([None, -2, 1]), draw.choice([None, -1, 3]), draw.choice([None, 1, 2])]

    shape = (draw.choice([1, 2, 3, 4, 8]), draw.randint(1, 12), draw.randint(1, 12))
    one = [shape]
    if op in ("conv2d", "conv_transpose2d"):
        groups = draw.choice([1, 1, 2])
        options = {"stride": pair(1, 3), "padding": pair(0, 2), "dilation": pair(1, 2), "groups": groups}
        channels = shape[0] if draw.random() < 0.9 else 5
        kernel = (draw.randint(1, 4), draw.randint(1, 4))
        if op == "conv2d":
            return options, one, (2 * groups, max(1, channels // groups), *kernel)
        return options | {"output_padding": pair(0, 2)}, one, (channels, 3, *kernel)
    if op == "affine":
        return {}, one, (draw.choice([1, shape[0], 3]),)
    if op == "avg_pool2d":
        options = {"kernel_size": pair(1, 4), "stride": pair(1, 3), "padding": pair(0, 2)}
        return options | {"ceil_mode": draw.random() < 0.5, "count_include_pad": True}, one, ()
    if op == "interpolate":
        options = {"size": None, "scale_factor": None, "mode": "nearest", "align_corners": None}
        how = draw.choice(["size", "factor", "factors", "like"])
        if how == "like":
            return options, [shape, (3, draw.randint(1, 9), draw.randint(1, 9))], ()
        if how == "size":
            return options | {"size": pair(1, 9)}, one, ()
        factors = [draw.choice([0.3, 0.5, 1.5, 2.0]) for _ in range(2)]
        return options | {"scale_factor": factors[0] if how == "factor" else factors}, one, ()
    if op == "global_avg_pool2d":
        return {}, one, ()
    like = (3, draw.randint(1, 9), draw.randint(1, 9))
    if op == "crop":
        options = {"corner": [draw.choice([0, 0, 1, -1]) for _ in range(2)], "scale": draw.choice([1, 1, 2])}
        return options | {"anchor": draw.choice(["start", "middle"])}, [shape, like], ()
    if op == "pad_to":
        options = {"anchor": draw.choice(["start", "middle", "end"]), "mode": draw.choice(["constant", "reflect"])}
        if draw.random() < 0.5:
            return options | {"multiple": pair(1, 8)}, one, ()
        return options | {"multiple": None}, [shape, like], ()
    if op in ("add", "sub", "concat"):
        other = tuple(draw.choice([n, n, n, n, n, 1, 3]) for n in shape)
        return {}, [shape, other], ()
    if op == "slice":
        return {"channels": span(), "rows": span(), "columns": span()}, one, ()
    if op == "pad":
        mode = draw.choice(["constant", "reflect", "replicate", "circular"])
        return {"padding": [draw.randint(-1, 4) for _ in range(4)], "mode": mode}, one, ()
    return {"factor": draw.choice([1, 2, 3])}, one, ()


@pytest.mark.parametrize("op", [name for name, known in OPERATIONS.items() if known.role in ("moves", "weighs")])
def test_shapes_are_those_of_the_run(op: str) -> None:
    draw, fitted, refused = random.Random(op), 0, 0
    for _ in range(150):
        options, shapes, kernel = drawn(op, draw)
        entry = {"name": "x", "op": op, "inputs": ["a", "b"][: len(shapes)], "options": options}
        node = node_from_json(entry | {"weights": "x" if kernel else None}, "nodes[1]")
        assert node_from_json(node_to_json(node), "nodes[1]") == node
        weight = torch.zeros(kernel) if kernel else None
        try:
            result = node.operation.run(node, [torch.zeros(1, *shape) for shape in shapes], weight)
            wanted = tuple(result.shape[1:]) if result.numel() else None
        except (RuntimeError, ValueError, IndexError):
            wanted = None
        if wanted is None:
            with pytest.raises(SchemaError, match="does not fit an input of"):
                output_shape(node, shapes, kernel)
            refused += 1
        else:
            assert output_shape(node, shapes, kernel) == wanted, (node, shapes, kernel)
            fitted += 1
    assert fitted > 20
    assert refused or op in ("global_avg_pool2d", "interpolate", "pixel_unshuffle", "pixel_shuffle", "pad", "affine")


def test_what_goes_together() -> None:
    entry = {"name": "x", "op": "pad", "inputs": ["a"], "options": {"padding": [1], "mode": "reflect"}, "weights": None}
    with pytest.raises(SchemaError, match=r"options: padding is \(1,\); expected a list of 2 or 4"):
        node_from_json(entry, "nodes[1]")
    options: dict[str, Any] = {"size": None, "scale_factor": None, "mode": "nearest", "align_corners": None}
    resize = entry | {"op": "interpolate", "options": options}
    with pytest.raises(SchemaError, match="expected one of a size, a scale_factor and a second input"):
        node_from_json(resize, "nodes[1]")
    with pytest.raises(SchemaError, match="align_corners is True; mode nearest has none"):
        node_from_json(resize | {"options": options | {"align_corners": True, "size": [2, 2]}}, "nodes[1]")
