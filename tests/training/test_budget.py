"""A run is made as long as the time at hand."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from spikingir.networks.dncnn import DnCNN
from spikingir.training import budget
from spikingir.training.config import FitConfig
from spikingir.training.fit import FitResult


class Pairs(Dataset[tuple[Tensor, Tensor]]):
    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return torch.zeros(1, 8, 8), torch.zeros(1, 8, 8)


def test_steps_fill_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, compiling = 0.0, 30.0

    def fit(network: nn.Module, pairs: object, config: FitConfig, folder: Path, **kwargs: object) -> FitResult:
        nonlocal clock, compiling
        clock += compiling + 7 + 0.5 * config.steps  # seven seconds to start, half a second a step
        compiling = 0.0  # the second time it is known
        return FitResult(config.steps, 0.0, 0.0)

    monkeypatch.setattr(budget, "fit", fit)
    monkeypatch.setattr(budget.time, "perf_counter", lambda: clock)
    config = FitConfig(steps=10, learning_rate=0.25)
    assert budget.fit_to_time(nn.Identity(), Pairs(), config, 60) == FitConfig(steps=120, learning_rate=0.25)
    assert budget.fit_to_time(nn.Identity(), Pairs(), config, 0.1).steps == 1


def test_the_network_stays_as_it_is() -> None:
    network = DnCNN(layers=3, width=4)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    config = FitConfig(steps=10, batch_size=1, learning_rate=0.1, precision="float32")
    assert budget.fit_to_time(network, Pairs(), config, 1).steps >= 1
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
