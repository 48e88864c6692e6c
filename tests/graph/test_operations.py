"""Every operation keeps the laws that folding, energy and tiling take from it."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from spikingir.conversion.convert import convert
from spikingir.deploy.fold import fold
from spikingir.energy.columns import ann_columns, energy_columns
from spikingir.graph.graph import Graph, Node
from spikingir.graph.operations import OPERATIONS
from spikingir.graph.trace import HANDLERS, graph_of

CHANNELS, SIDE = 4, 6
CONV = {"stride": (2, 1), "padding": (1, 2), "dilation": (1, 2)}
SETTINGS: dict[str, tuple[dict[str, object], tuple[int, ...]]] = {
    "conv2d": (CONV | {"groups": 1}, (6, 4, 3, 3)),
    "grouped conv2d": (CONV | {"groups": 2}, (6, 2, 3, 3)),
    "conv_transpose2d": (CONV | {"groups": 1, "output_padding": (1, 0)}, (4, 6, 3, 3)),
    "grouped conv_transpose2d": (CONV | {"groups": 2, "output_padding": (1, 0)}, (4, 3, 3, 3)),
    "affine": ({}, (4,)),
}
MOVING = {
    "pad": {"padding": (1, 2, 0, 1), "mode": "reflect"},
    "slice": {"channels": (1, 3, None), "rows": (1, -1, None), "columns": (0, None, 2)},
    "pixel_shuffle": {"factor": 2},
    "pixel_unshuffle": {"factor": 2},
    "interpolate": {"scale_factor": 2, "mode": "nearest"},
    "add": {},
    "sub": {},
    "concat": {},
}


def node(kind: str, options: dict[str, object], inputs: int = 1) -> Node:
    return Node("it", kind.split()[-1], tuple(f"x{i}" for i in range(inputs)), options, "it")


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("kind", SETTINGS)
@settings(max_examples=10, deadline=None, derandomize=True)
@given(seed=st.integers(0, 99))
def test_scaling_and_bounds(kind: str, seed: int) -> None:
    options, shape = SETTINGS[kind]
    it, weight, x = node(kind, options), draw(seed, *shape), draw(seed + 1, 2, CHANNELS, SIDE, SIDE)
    operation, y = it.operation, it.operation.run(it, [x], weight)
    scale, gain = draw(seed + 2, CHANNELS), draw(seed + 3, y.shape[1])

    scaled = operation.run(it, [x * scale.view(-1, 1, 1)], weight)
    torch.testing.assert_close(operation.run(it, [x], operation.scale_input(it, weight, scale)), scaled)
    gained = operation.run(it, [x], operation.scale_output(it, weight, gain))
    torch.testing.assert_close(gained, y * gain.view(-1, 1, 1))
    bound = operation.bound(it, weight, x.abs().amax((0, 2, 3)))
    assert (y.abs().amax((0, 2, 3)) <= bound + 1e-12).all()
    if kind != "affine":
        changed = operation.scale_output(it, weight, gain)
        wanted = operation.by_output(it, weight).abs().amax(1) * gain.abs()
        torch.testing.assert_close(operation.by_output(it, changed).abs().amax(1), wanted)


@pytest.mark.parametrize("kind", [*SETTINGS, "avg_pool2d"])
def test_fan_out_counts_real_synapses(kind: str) -> None:
    pool = {"kernel_size": (3, 2), "stride": (2, 2), "padding": (1, 0), "ceil_mode": True, "count_include_pad": False}
    options, shape = SETTINGS.get(kind, (pool, None))
    it = node(kind, options)
    weight = None if shape is None else draw(0, *shape)
    source = (CHANNELS, SIDE, SIDE)
    target = tuple(it.operation.run(it, [torch.zeros(1, *source, dtype=torch.float64)], weight).shape[1:])
    fan = it.operation.fan_out(it, weight, source, target)
    probe = None if weight is None else torch.ones_like(weight)
    for row, column in ((0, 0), (2, 3), (5, 5)):
        spike = torch.zeros(1, *source, dtype=torch.float64)
        spike[0, 1, row, column] = 1
        reached = (it.operation.run(it, [spike], probe) != 0).sum()
        assert fan[row, column] == reached
    assert fan.sum() <= it.operation.macs(it, weight, source, target)


@pytest.mark.parametrize("kind", MOVING)
def test_a_number_for_each_channel_moves_as_a_map_of_it_does(kind: str) -> None:
    inputs = 2 if kind in ("add", "sub", "concat") else 1
    it = replace(node(kind, MOVING[kind], inputs), weights=None)
    assert it.role == "moves"
    vectors = [draw(i, CHANNELS).abs() for i in range(inputs)]
    maps = [vector.view(1, -1, 1, 1).expand(1, CHANNELS, SIDE, SIDE) for vector in vectors]
    found = it.operation.per_channel(it, vectors, lambda parts: parts.mean(-1), lambda parts: parts.sum(-1))
    torch.testing.assert_close(found, it.operation.count(it, maps).mean((0, 2, 3)))


def test_every_operation_has_its_name_and_what_it_is_traced_from() -> None:
    assert all(operation.name == name for name, operation in OPERATIONS.items())
    traced = [key for operation in OPERATIONS.values() for key in operation.handlers()]
    assert len(traced) == len(set(traced)), "two operations claim one module or function"
    assert set(traced) <= set(HANDLERS)


class Pooled(nn.Module):
    """Average pooling, a function of the user's own on the image, and an attribute that is none of the image's."""

    channels = 7

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(self.first(torch.sqrt(x)))
        return self.last(nn.functional.interpolate(nn.functional.avg_pool2d(hidden, 2), scale_factor=2.0))


def test_energy_of_what_pools_and_of_functions_on_the_image() -> None:
    torch.manual_seed(0)
    body, image = Pooled(), torch.rand(1, 1, 8, 8)
    network = convert(body, image, time_steps=3)
    folded = fold(network)
    assert graph_of(body, 1).shapes((8, 8))["output"] == (1, 8, 8)
    assert ann_columns(body, (8, 8), 1).ann_mj["paper"] > 0
    for charged in (network, folded):
        _, trace = charged.trace(image, trains=True)
        columns = energy_columns(charged, trace, image, body)
        assert columns.snn_mj["memory"] > 0
        assert columns.ann_mj["paper"] == pytest.approx(ann_columns(body, (8, 8), 1).ann_mj["paper"])


def test_a_value_is_dropped_after_its_last_reader() -> None:
    nodes = (Node("x", "input"), Node("a", "affine", ("x",)), Node("b", "affine", ("a",)), Node("c", "add", ("b", "x")))
    spent = {}

    def visit(it: Node, inputs: list[str], owned: bool) -> str:
        spent[it.name] = owned
        return f"{it.name}({','.join(inputs)})"

    assert Graph(nodes, {}).walk(visit) == "c(b(a(x())),x())"
    assert spent == {"x": False, "a": False, "b": True, "c": True}
