"""The energy term: it counts what the energy report counts, or nearly, and pushes firing down."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset

from spikingir.conversion.convert import convert
from spikingir.conversion.qcfs import quantise_activations
from spikingir.energy.operations import count_macs, count_operations
from spikingir.networks.aodnet import AODNet
from spikingir.networks.base import RestorationNetwork
from spikingir.networks.dncnn import DnCNN
from spikingir.networks.multiscale import MultiScaleNet
from spikingir.spiking.network import Schedule, SpikingNetwork
from spikingir.training.config import FitConfig
from spikingir.training.energy import WithBitCost, WithSpikeCost
from spikingir.training.fit import TrainingError, fit


def spiking(network: RestorationNetwork, schedule: Schedule) -> SpikingNetwork:
    torch.manual_seed(0)
    return convert(network, torch.rand(2, network.channels, 16, 16), time_steps=5, schedule=schedule)


@pytest.mark.parametrize("schedule", ["clocked", "phased", 2])
@pytest.mark.parametrize("make", [AODNet, lambda: DnCNN(layers=4, width=6)])
def test_cost_is_the_synaptic_operations_of_the_trace(make: object, schedule: Schedule) -> None:
    assert callable(make)
    network = spiking(make(), schedule)
    image = torch.rand(2, network.config.channels, 12, 20)
    restored, cost = WithSpikeCost(network)(image)
    same, trace = network.trace(image)
    operations = sum(c.synaptic_operations for c in count_operations(network, trace))
    assert operations > 0
    assert cost.item() == pytest.approx(operations / count_macs(network, (12, 20)), rel=1e-4)
    assert torch.equal(restored, same)


class Pairs(Dataset[tuple[Tensor, Tensor]]):
    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image = torch.rand(1, 12, 12, generator=torch.Generator().manual_seed(index))
        return image, image


@pytest.mark.parametrize("schedule", ["clocked", "phased"])
def test_the_term_saves_spikes(tmp_path: Path, schedule: Schedule) -> None:
    costs = []
    for energy in (0.0, 1.0):
        network = spiking(DnCNN(layers=4, width=6), schedule)
        config = FitConfig(steps=15, batch_size=2, learning_rate=5e-3, energy=energy, precision="float32", log_every=5)
        fit(network, Pairs(), config, tmp_path / str(energy), progress=False)
        with torch.no_grad():
            costs.append(WithSpikeCost(network)(Pairs()[999][0][None])[1].item())
    assert costs[1] < 0.8 * costs[0]
    first = json.loads((tmp_path / "1.0" / "log.jsonl").read_text().splitlines()[1])
    assert first["loss"] < 0.5  # the image's part alone is logged


def quantised() -> MultiScaleNet:
    torch.manual_seed(0)
    network = MultiScaleNet(width=8, blocks=(1, 1), form="residual", batch_norm=True)
    network.reset_parameters(torch.Generator().manual_seed(0))
    bits = (4, 3)
    network = quantise_activations(network, torch.rand(2, 1, 16, 16), per_channel=True, bits=bits)
    assert isinstance(network, MultiScaleNet)
    network.activation_bits = bits
    return network


def bits_sent(network: MultiScaleNet, image: Tensor) -> float:
    """Synaptic operations of the binary network for each multiply-accumulate."""
    binary = convert(network, image, time_steps=4, schedule="phased", coding="binary", activation_bits=(4, 3))
    _, trace = binary.trace(image)
    size = image.shape[2], image.shape[3]
    return sum(c.synaptic_operations for c in count_operations(binary, trace)) / count_macs(binary, size)


def test_cost_of_a_quantised_network_is_near_what_its_bits_cost() -> None:
    network, image = quantised().eval(), torch.rand(1, 1, 32, 32)
    restored, cost = WithBitCost(network)(image)
    assert torch.equal(restored, network(image))
    assert 0.5 < cost.item() / bits_sent(network, image) < 1


def test_the_term_saves_bits(tmp_path: Path) -> None:
    sent = []
    for energy in (0.0, 10.0):
        network = quantised()
        config = FitConfig(40, 2, learning_rate=5e-3, energy=energy, precision="float32", ema=0.5)
        fit(network, Pairs(), config, tmp_path / str(energy), progress=False)
        sent.append(bits_sent(network, Pairs()[999][0][None]))
    assert sent[1] < 0.8 * sent[0]


def test_an_ann_has_no_spikes_to_save(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="a DnCNN has no spikes"):
        fit(DnCNN(layers=3, width=4), Pairs(), FitConfig(steps=1, energy=0.1), tmp_path, progress=False)
