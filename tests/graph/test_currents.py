"""What a neuron's current is made of, and that folding gives all of it the neuron's units and one grid."""

import torch
from torch import Tensor, nn

from spikingir.conversion.convert import convert
from spikingir.deploy.fold import fold
from spikingir.graph.graph import Graph, Node


def test_sums_belong_to_the_one_neuron_that_reads_them() -> None:
    nodes = (
        Node("x", "input"),
        Node("a", "conv2d", ("x",), weights="a"),
        Node("first", "neuron", ("a",)),
        Node("b", "conv2d", ("first",), weights="b"),
        Node("c", "conv2d", ("first",), weights="c"),
        Node("difference", "sub", ("b", "first")),
        Node("sum", "add", ("difference", "c")),
        Node("second", "neuron", ("sum",)),
        Node("other", "add", ("second", "c")),
        Node("third", "neuron", ("other",)),
    )
    channels = dict.fromkeys((node.name for node in nodes), 4)
    found = {"a": "first", "b": "second", "difference": "second", "sum": "second", "other": "third"}
    assert Graph(nodes, {}).currents(channels) == found  # c feeds two neurons, so that it has the units of neither
    repeated = Graph(nodes, {}).currents({**channels, "c": 1})
    assert repeated == {"a": "first"}


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = (nn.Conv2d(i, o, 3, padding=1) for i, o in ((1, 5), (5, 5), (5, 1)))

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(self.first(x))
        return self.last(torch.relu(self.second(hidden) + hidden))


def test_branches_are_folded_to_one_grid_and_nothing_scales_their_sum() -> None:
    torch.manual_seed(0)
    network = convert(Residual(), torch.rand(2, 1, 16, 16), time_steps=4)
    folded = fold(network)
    add = next(node for node in folded.nodes if node.op == "add")
    neuron = next(node for node in folded.nodes if add.name in node.inputs)
    assert neuron.op == "neuron"
    branches = [folded.kernel(name) for name in add.inputs]
    grids = [kernel.grid for kernel in branches if kernel is not None and kernel.grid is not None]
    assert len(grids) == 2
    assert torch.equal(*grids)
    image = torch.rand(2, 1, 12, 11, dtype=torch.float64)
    exact = fold(network.double(), grid=None, dtype=torch.float64)
    assert torch.allclose(exact(image), network(image), rtol=0, atol=1e-9)
