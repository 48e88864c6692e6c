"""Energy columns A to D: against loops over every synapse, and their laws."""

import itertools

import pytest
import torch
from torch import Tensor, nn

from spikingir.conversion.convert import convert
from spikingir.deploy.fold import fold
from spikingir.energy.columns import COLUMNS, EnergyColumns, ann_columns, energy_columns
from spikingir.energy.paper import paper_energy
from spikingir.energy.prices import PRICES, access_pj
from spikingir.graph.graph import Node
from spikingir.networks import AODNet, DnCNN
from spikingir.restoration import tiling
from spikingir.restoration.tiling import trace_tiled
from spikingir.spiking.network import SpikingNetwork, Trace

SIDE, PIXELS, T, STEPS = 4, 16, 3, 4


@pytest.fixture(scope="module")
def measured() -> tuple[nn.Module, SpikingNetwork, Tensor, Trace, EnergyColumns]:
    """Image of one channel, 2 hidden neurons a pixel, signed output; three steps and the extended one."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        ann = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.Conv2d(2, 1, 3, padding=1))
        spiking, image = convert(ann, torch.rand(4, 1, SIDE, SIDE), time_steps=T), torch.rand(1, 1, SIDE, SIDE)
    _, trace = spiking.trace(image, trains=True)
    return ann, spiking, image, trace, energy_columns(spiking, trace, image, ann)


def reached(row: int, column: int) -> int:
    """Outputs of a 3x3 convolution that a pixel reaches, counted."""
    return sum(0 <= row + i < SIDE and 0 <= column + j < SIDE for i, j in itertools.product((-1, 0, 1), repeat=2))


def weighted(values: Tensor) -> float:
    """Sum over channels and pixels of values times fan-out, one by one."""
    return sum(values[:, r, c].sum().item() * reached(r, c) for r in range(SIDE) for c in range(SIDE))


def test_loop_over_every_synapse(measured: tuple[nn.Module, SpikingNetwork, Tensor, Trace, EnergyColumns]) -> None:
    ann, _, image, trace, found = measured
    trains = [layer.trains[:, 0].abs().double() for layer in trace.layers if layer.trains is not None]
    hidden, output = (train.sum(0) for train in trains)
    assert hidden.sum() > 0
    assert output.sum() > 0
    real = 9 * PIXELS - 4 * 3 * SIDE + 4  # lost at the sides, and the corners counted twice
    assert sum(reached(r, c) for r in range(SIDE) for c in range(SIDE)) == real
    image_macs, hidden_operations, mapped = 2 * real, weighted(hidden), weighted(output)
    spikes = hidden.sum().item() + output.sum().item()

    neurons, biases = 3 * PIXELS, 3 * PIXELS
    accumulates = hidden_operations + mapped + T * biases + STEPS * neurons + spikes + 2 * PIXELS
    with torch.no_grad():
        active = 2 * weighted((image[0] != 0).double()) + weighted((ann[:2](image)[0] > 0).double())
    dense = active, biases + 2 * PIXELS
    for column, (mac, add), (spiking_mac, spiking_add) in (
        ("complete", (4.6, 0.9), (4.6, 0.9)),
        ("int8", (0.23, 0.03), (0.23, 0.03)),
        ("int32", (0.23, 0.03), (0.3, 0.1)),
    ):
        assert found.ann_mj[column] * 1e9 == pytest.approx(mac * dense[0] + add * dense[1])
        assert found.snn_mj[column] * 1e9 == pytest.approx(spiking_mac * T * image_macs + spiking_add * accumulates)
    assert found.synaptic_operations == hidden_operations + mapped
    assert found.spikes_per_synapse["true"] == pytest.approx(hidden_operations / (2 * real))


def test_memory_access_by_access(measured: tuple[nn.Module, SpikingNetwork, Tensor, Trace, EnergyColumns]) -> None:
    *_, trace, found = measured
    hidden, output = (layer.trains[:, 0].abs().sum(0).double() for layer in trace.layers if layer.trains is not None)
    real, wide, queue = 9 * PIXELS - 12 * SIDE + 4, 2 * PIXELS, access_pj(1000)
    picture, membranes = access_pj(PIXELS), access_pj(wide)
    ann = 2 * real * (3.2 + picture + access_pj(18)) + wide * (0.1 + access_pj(2)) + wide * membranes  # first layer
    ann += 0.1 * (PIXELS + wide + 18) + 0.1 * wide  # addresses, ReLUs
    ann += 2 * real * (3.2 + membranes + access_pj(18)) + PIXELS * (0.1 + access_pj(1)) + PIXELS * picture
    ann += 0.1 * (wide + PIXELS + 9)
    assert found.ann_mj["memory"] * 1e9 == pytest.approx(ann)

    first = T * (2 * real * (3.2 + picture + access_pj(18)) + wide * (0.1 + access_pj(2)) + 0.1 * (PIXELS + wide + 18))
    first += STEPS * wide * (0.1 + 2 * membranes) + hidden.sum().item() * (0.1 + queue)
    second = hidden.sum().item() * (queue + 6.4) + weighted(hidden) * (0.1 + 0.1 + access_pj(18) + 2 * picture)
    second += T * PIXELS * (0.1 + access_pj(1)) + STEPS * PIXELS * (0.1 + 2 * picture)
    second += output.sum().item() * (0.1 + queue)
    mapper = output.sum().item() * (queue + 6.4) + weighted(output) * (0.2 + access_pj(9) + 2 * picture)
    mapper += PIXELS * (0.1 + access_pj(1)) + PIXELS * (0.1 + picture) + PIXELS * picture
    costs = [layer.snn_mj["memory"].total * 1e9 for layer in found.layers]
    assert costs == pytest.approx([first, second, mapper])


def test_paper_column_and_layers_add_up(
    measured: tuple[nn.Module, SpikingNetwork, Tensor, Trace, EnergyColumns],
) -> None:
    _, spiking, _, trace, found = measured
    energy = paper_energy(spiking, trace)
    assert found.ann_mj["paper"] == pytest.approx(energy.ann_mj)
    assert found.snn_mj["paper"] == pytest.approx(energy.snn_mj)
    assert [layer.name for layer in found.layers][-1] == "pixel mapper"
    for column in COLUMNS:
        assert sum(layer.snn_mj[column].total for layer in found.layers) == pytest.approx(found.snn_mj[column])
        fixed, driven = (sum(layer.snn_mj[column][i] for layer in found.layers) for i in (0, 1))
        spikes = found.spikes_per_synapse["full" if column == "paper" else "true"]
        even = found.break_even[column]
        assert even == 0 or fixed + driven * even / spikes == pytest.approx(found.ann_mj[column])


def test_silent_network_pays_for_its_clock() -> None:
    ann = DnCNN(layers=3, width=2)
    for name, parameter in ann.named_parameters():
        nn.init.constant_(parameter, -1.0 if name.endswith("bias") else 0.0)
    spiking, image = convert(ann, torch.rand(1, 1, 6, 6), time_steps=2), torch.rand(1, 1, 6, 6)
    found = energy_columns(spiking, spiking.trace(image, trains=True)[1], image, ann)
    hidden = [layer for layer in found.layers if layer.name != "pixel mapper"][:-1]
    assert all(cost.driven == 0 for layer in hidden for cost in layer.snn_mj.values())
    assert found.snn_mj["complete"] > found.snn_mj["paper"]


def test_tiles_give_the_spikes_of_each_position() -> None:
    torch.manual_seed(0)
    ann = DnCNN(layers=4, width=3)
    folded, image = fold(convert(ann, torch.rand(2, 1, 16, 16), time_steps=3)), torch.rand(2, 1, 21, 17)
    _, whole = folded.trace(image, trains=True)
    _, tiled = trace_tiled(folded, image, tile=8, counts=True, engine="torch")
    for layer, one in zip(tiled.layers, whole.layers, strict=True):
        assert one.trains is not None
        assert layer.counts is not None
        assert torch.equal(layer.counts, one.trains.abs().sum(0).int())
    assert energy_columns(folded, tiled, image, ann) == energy_columns(folded, whole, image, ann)
    assert trace_tiled(folded, image, tile=8, engine="torch")[1].layers[0].counts is None


def test_counting_chooses_its_tiles_by_a_memory_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    folded = fold(convert(DnCNN(layers=4, width=3), torch.rand(2, 1, 16, 16), time_steps=3))
    image, tiles = torch.rand(1, 1, 70, 40), list[int]()

    def counts() -> list[Tensor | None]:
        tiles.clear()
        _, trace = trace_tiled(folded, image, counts=True, progress=lambda done, total: tiles.append(total))
        return [layer.counts for layer in trace.layers]

    whole = counts()
    assert set(tiles) == {1}
    monkeypatch.setattr(tiling, "_MEMORY_OF_COUNTS", 1)
    for one, other in zip(counts(), whole, strict=True):
        assert one is not None
        assert other is not None
        assert torch.equal(one, other)
    assert set(tiles) == {6}


def test_dehazer_with_concatenations() -> None:
    torch.manual_seed(0)
    ann = AODNet()
    folded, image = fold(convert(ann, torch.rand(2, 3, 16, 16), time_steps=3)), torch.rand(1, 3, 9, 8)
    found = energy_columns(folded, folded.trace(image, trains=True)[1], image, ann)
    blind = energy_columns(folded, folded.trace(image, trains=True)[1], image)
    assert [layer.name for layer in found.layers] == [*(f"conv{i}" for i in range(1, 6)), "pixel mapper"]
    assert found.snn_mj == blind.snn_mj
    assert found.ann_mj["complete"] <= blind.ann_mj["complete"]
    assert blind.ann_mj == pytest.approx(ann_columns(ann, (9, 8)).ann_mj)


def test_conventional_networks_alone() -> None:
    found = ann_columns(DnCNN(), (321, 481))
    assert round(found.ann_mj["paper"], 3) == 393.555
    assert (found.snn_mj, found.break_even) == ({}, {})
    assert found.as_dict()["ann"]["paper_mj"] == found.ann_mj["paper"]
    assert len(found.layers) == 17


class Skip(nn.Module):
    """A sum of a branch and a skip, in either order."""

    def __init__(self, skip_first: bool) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.first, self.branch, self.last = (nn.Conv2d(a, b, 3, padding=1) for a, b in ((1, 3), (3, 3), (3, 1)))
        self.skip_first = skip_first

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.first(x))
        branch = self.branch(h)
        return self.last(torch.relu(h + branch if self.skip_first else branch + h))


def test_the_order_of_a_sum_does_not_matter() -> None:
    found = []
    for skip_first in (False, True):
        ann, image = Skip(skip_first).eval(), torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(1))
        network = convert(ann, image, "if", time_steps=4)
        _, trace = network.trace(image, trains=True)
        found.append(energy_columns(network, trace, image, ann))
    assert found[0].snn_mj == pytest.approx(found[1].snn_mj)
    assert found[0].ann_mj == pytest.approx(found[1].ann_mj)


def test_a_folded_network_without_a_mapper_pays_for_none() -> None:
    torch.manual_seed(6)
    ann = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 3, padding=1))
    image = torch.rand(1, 3, 8, 8)
    network = convert(ann, image, "if", time_steps=4)
    _, trace = network.trace(image, trains=True)
    folded = fold(network)
    _, counted = folded.trace(image, trains=True)
    operations = [
        energy_columns(one, its, image, ann).synaptic_operations for one, its in ((network, trace), (folded, counted))
    ]
    assert operations[0] == operations[1]


def test_windows_of_pooling() -> None:
    options = {"kernel_size": (3, 3), "stride": (2, 2), "padding": (1, 1), "ceil_mode": False}
    node = Node("pool", "avg_pool2d", ("x",), options)
    fan = node.operation.fan_out(node, None, (1, 5, 5), (1, 3, 3))
    line = torch.tensor([1.0, 2, 1, 2, 1])
    assert torch.equal(fan, line[:, None] * line)


def test_prices() -> None:
    assert {name: price.pj for name, price in PRICES.items() if "sram" not in name} == {
        "mac_float32": 4.6,
        "accumulate_float32": 0.9,
        "mac_int8": 0.23,
        "mac_int8_int32": 0.3,
        "mac_int16": 0.9,
        "accumulate_int8": 0.03,
        "accumulate_int32": 0.1,
        "mac_int32": 3.2,
    }
    assert [access_pj(kib * 256) for kib in (0, 4, 8, 20, 32, 1024, 4096)] == [0, 5, 10, 15, 20, 100, 100]
    assert all(price.source.startswith("Horowitz 2014") for price in PRICES.values())
