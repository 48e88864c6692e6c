"""A neuron of one's own is never taken for the one that it derives from."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from spikingir.conversion.convert import convert
from spikingir.deploy.fold import FoldError, fold
from spikingir.spiking.kinds import NEURONS, IFSettings, NeuronKind, kind_of
from spikingir.spiking.network import Schedule, SpikingNetwork
from spikingir.spiking.neurons import Firing
from spikingir.spiking.neurons import IFNeuron as Plain
from spikingir.store import StorageError, from_pretrained, save_pretrained


class IFNeuron(Plain):
    """A subclass of the same name whose spikes are twice as high."""

    def forward(self, currents: Tensor | None, constant: Tensor | None = None, **settings: int) -> Firing:  # type: ignore[override]
        fired = super().forward(currents, constant, **settings)  # type: ignore[arg-type]
        return fired._replace(weighted_spikes=2 * fired.weighted_spikes)


def network(neuron: type[Plain], schedule: Schedule = "clocked") -> SpikingNetwork:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 1, 3, padding=1))
    spiking = convert(body, torch.rand(2, 1, 16, 16), "if", time_steps=4, schedule=schedule)
    first = spiking.neuron(spiking.layers[0])
    spiking.neurons[spiking.layers[0]] = neuron(first.v_threshold, v0=first.v0)
    return spiking


@pytest.fixture
def registered() -> Iterator[str]:
    NEURONS["mine"] = NeuronKind(IFNeuron, IFSettings, delayed=True)
    yield "mine"
    del NEURONS["mine"]


def test_a_subclass_is_a_kind_of_its_own() -> None:
    assert kind_of(Plain(1.0)) == ("if", NEURONS["if"])
    assert kind_of(IFNeuron(1.0)) is None


def test_a_subclass_of_the_same_name_is_not_folded() -> None:
    with pytest.raises(
        FoldError, match="neuron '_1' is of class IFNeuron, which does not say how it folds; run the network"
    ):
        fold(network(IFNeuron))


@pytest.mark.parametrize("schedule", ["phased", 1, 3])
def test_a_subclass_gets_no_other_schedule(schedule: Schedule) -> None:
    spiking = network(IFNeuron)
    with pytest.raises(ValueError, match="neuron '_1' is of class IFNeuron, which has no equation for the schedule"):
        spiking.at(schedule=schedule)
    assert spiking.at(time_steps=7).config.time_steps == 7
    assert spiking.at(schedule="clocked").config.schedule == "clocked"
    with pytest.raises(ValueError, match="has no equation for the schedule 'clocked'"):
        network(IFNeuron, "phased").at(schedule="clocked")


def test_a_subclass_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="neuron '_1' is of class IFNeuron, which is not kept in files"):
        save_pretrained(network(IFNeuron), tmp_path / "a.safetensors")


def test_thresholds_of_each_step_have_no_phased_schedule() -> None:
    body = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 1, 3, padding=1))
    with pytest.raises(ValueError, match="AdaptiveThresholdNeuron, which has no equation for the schedule"):
        convert(body, torch.rand(1, 1, 8, 8), "lan", time_steps=4).at(schedule="phased")


def test_a_registered_kind_does_what_it_registers(registered: str, tmp_path: Path) -> None:
    spiking, image = network(IFNeuron), torch.rand(1, 1, 8, 8)
    save_pretrained(spiking, tmp_path / "a.safetensors")
    loaded = from_pretrained(tmp_path / "a.safetensors")
    assert type(loaded.neuron(loaded.layers[0])) is IFNeuron
    assert torch.equal(loaded(image), spiking(image))
    assert loaded.at(schedule=1).config.delay == 1
    with pytest.raises(ValueError, match="no equation for the schedule 'phased'"):
        loaded.at(schedule="phased")
    with pytest.raises(FoldError, match="does not say how it folds"):
        fold(loaded)


def test_a_kind_that_registers_how_it_folds_is_folded(registered: str) -> None:
    doubled = IFNeuron  # folds to a neuron of twice the threshold whose currents are twice as high: not that of IF
    NEURONS[registered] = NeuronKind(doubled, folds=lambda neuron: Plain(neuron.v_threshold, v0=neuron.v0))
    image = torch.rand(1, 1, 8, 8)
    assert torch.equal(fold(network(IFNeuron))(image), fold(network(Plain))(image))
