"""The training loop: it learns, it resumes exactly, it stops cleanly."""

import copy
import json
import math
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from spikingir.conversion.convert import convert
from spikingir.networks.dncnn import DnCNN
from spikingir.training.checkpoints import load_checkpoint
from spikingir.training.config import FitConfig, rate_at
from spikingir.training.fit import TrainingError, TrainingStopped, _loss, _recorded, fit, validate

Pair = tuple[Tensor, Tensor]


class Pairs(Dataset[Pair]):
    """Noisy and clean patches; sample ``event`` calls ``act`` first, or is NaN."""

    def __init__(self, event: int | None = None, act: str = "") -> None:
        self.event, self.act = event, act

    def __getitem__(self, index: int) -> Pair:
        generator = torch.Generator().manual_seed(index)
        clean = torch.rand(1, 1, 1, generator=generator).expand(1, 12, 12).clone()
        noisy = clean + 0.1 * torch.randn(1, 12, 12, generator=generator)
        if index == self.event:
            if self.act == "terminate":
                os.kill(os.getpid(), signal.SIGTERM)
            else:
                noisy = noisy * math.nan
        return noisy, clean


def ann() -> nn.Module:
    torch.manual_seed(0)
    return DnCNN(layers=3, width=4, batch_norm=True)


def clocked() -> nn.Module:
    return convert(ann().eval(), torch.rand(2, 1, 12, 12), time_steps=4)


def phased() -> nn.Module:
    return convert(ann().eval(), torch.rand(2, 1, 12, 12), time_steps=4, schedule="phased")


CONFIG = FitConfig(steps=12, batch_size=3, learning_rate=3e-3, precision="float32", validate_every=6, log_every=3)


def run(
    network: nn.Module, directory: Path, pairs: Dataset[Pair] | None = None, config: FitConfig = CONFIG
) -> nn.Module:
    fit(network, pairs or Pairs(), config, directory, [Pairs()[9999]], progress=False)
    return network


@pytest.mark.parametrize("make", [ann, clocked, phased])
def test_interrupted_training_resumes_to_the_same_result(make: object, tmp_path: Path) -> None:
    assert callable(make)
    whole = run(make(), tmp_path / "whole").state_dict()
    with pytest.raises(TrainingStopped, match="step 5 of 12"):
        run(make(), tmp_path / "parts", Pairs(13, "terminate"))
    parts = run(make(), tmp_path / "parts").state_dict()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    first, second = (load_checkpoint(tmp_path / d / "checkpoint.pt") for d in ("whole", "parts"))
    assert all(torch.equal(first["network"][name], second["network"][name]) for name in whole)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.parametrize("make", [ann, clocked, phased])
def test_every_parameter_moves_and_the_loss_falls(make: object, tmp_path: Path) -> None:
    assert callable(make)
    network = make()
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    run(
        network,
        tmp_path,
        config=FitConfig(steps=60, batch_size=8, learning_rate=5e-3, precision="float32", log_every=10),
    )
    losses = [entry["loss"] for entry in log(tmp_path) if "loss" in entry]
    assert losses[-1] < 0.7 * losses[0]
    still = {name for name, p in network.named_parameters() if torch.equal(p, before[name])}
    unused = {name for name in before if make is phased and "beta" in name}
    # with an identity mapper and recycling the output neuron's threshold cancels out of the image
    assert still <= unused | {"neurons.output.log_threshold", "neurons.output.log_beta"}


def log(directory: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (directory / "log.jsonl").read_text().splitlines()]


def test_log_and_result(tmp_path: Path) -> None:
    network = ann()
    result = fit(network, Pairs(), CONFIG, tmp_path, [Pairs()[9999]], progress=False)
    entries = log(tmp_path)
    assert [entry["step"] for entry in entries] == [0, 3, 6, 9, 12]
    assert [("psnr" in entry) for entry in entries] == [False, False, True, False, True]
    assert result.psnr == entries[-1]["psnr"] == validate(network, [Pairs()[9999]])
    assert result.steps == 12
    again = fit(network, Pairs(), CONFIG, tmp_path, [Pairs()[9999]], progress=False)
    assert again.psnr == result.psnr


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_state(tmp_path: Path) -> None:
    with pytest.raises(TrainingStopped, match="step 4"):
        run(ann(), tmp_path / "a", Pairs(13, "nan"))
    assert not (tmp_path / "a" / "checkpoint.pt").exists()
    often = FitConfig(steps=12, batch_size=3, precision="float32", checkpoint_minutes=0)
    with pytest.raises(TrainingStopped, match=r"checkpoint\.pt"):
        run(ann(), tmp_path / "b", Pairs(13, "nan"), often)
    state = load_checkpoint(tmp_path / "b" / "checkpoint.pt")
    assert state["step"] == 4
    assert all(torch.isfinite(tensor).all() for tensor in state["network"].values())


def test_a_checkpoint_of_another_configuration_is_refused(tmp_path: Path) -> None:
    run(ann(), tmp_path)
    with pytest.raises(TrainingError, match=r"learning_rate: 0\.003 there, 0\.01 here"):
        run(ann(), tmp_path, config=FitConfig(**{**vars(CONFIG), "learning_rate": 0.01}))


def test_learning_rate_rises_over_the_warm_up_and_falls_to_a_hundredth() -> None:
    config = FitConfig(steps=100, warmup=0.2)
    rates = [rate_at(config, step) for step in range(101)]
    assert rates[:20] == sorted(rates[:20])
    assert rates[20:] == sorted(rates[20:], reverse=True)
    assert max(rates) == 1
    assert rates[100] == pytest.approx(0.01)


def test_thresholds_learn_faster(tmp_path: Path) -> None:
    network = clocked()
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    config = FitConfig(steps=1, batch_size=2, learning_rate=1e-4, threshold_rate=5, ema=0.0, precision="float32")
    run(network, tmp_path, config=config)
    # Adam's first step is the rate itself, whatever the gradient
    moved = {name: (p - before[name]).abs().max().item() for name, p in network.named_parameters()}
    assert moved["neurons.relu0.log_threshold"] == pytest.approx(5e-4, rel=0.02)
    assert moved["weight.conv0"] == pytest.approx(1e-4, rel=0.02)


class Teacher(nn.Module):
    """Restores every image as the same gray, and must be asked for no gradient."""

    def forward(self, image: Tensor) -> Tensor:
        assert not torch.is_grad_enabled()
        return torch.full_like(image, 0.25)


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_a_teacher_is_part_of_the_target(share: float, tmp_path: Path) -> None:
    config = FitConfig(steps=1, batch_size=2, ema=0.0, precision="float32", distillation=share, log_every=1)
    network = ann()
    samples = [Pairs()[i] for i in range(2)]
    degraded, clean = (torch.stack(images) for images in zip(*samples, strict=True))
    target = (1 - share) * clean + share * 0.25
    expected = (network.train()(degraded) - target).square().mean().item()
    fit(ann(), Pairs(), config, tmp_path, teacher=Teacher(), progress=False)
    assert log(tmp_path)[-1]["loss"] == pytest.approx(expected, rel=1e-5)


def test_a_share_of_distillation_needs_a_teacher(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no teacher"):
        fit(ann(), Pairs(), FitConfig(steps=1, distillation=1.0), tmp_path, progress=False)


def test_bad_configuration() -> None:
    with pytest.raises(ValueError, match="steps is -1"):
        FitConfig(steps=-1)


def test_charbonnier_is_its_equation() -> None:
    restored, target = torch.tensor([[0.0, 0.5]]), torch.tensor([[0.1, 0.5]])
    config = FitConfig(steps=1, objective="charbonnier")
    assert _loss(config, restored, target, restored).item() == pytest.approx(((25.5**2 + 1) ** 0.5 + 1) / 2)
    wide = FitConfig(steps=1, objective="charbonnier", epsilon=10)
    assert _loss(wide, restored, target, restored).item() == pytest.approx(((25.5**2 + 100) ** 0.5 + 10) / 2)


def test_a_checkpoint_without_a_newer_setting_is_gone_on_from(tmp_path: Path) -> None:
    """Settings whose default is None came later than some checkpoints."""
    run(ann(), tmp_path)
    state = load_checkpoint(tmp_path / "checkpoint.pt")
    del state["run"]["epsilon"]
    torch.save(state, tmp_path / "checkpoint.pt")
    run(ann(), tmp_path)
    state["run"]["steps"] = 13
    torch.save(state, tmp_path / "checkpoint.pt")
    with pytest.raises(TrainingError, match="steps: 13 there, 12 here"):
        run(ann(), tmp_path)


def test_recording_a_step_for_a_gpu_leaves_the_network_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    network = ann().train()
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}

    def record(model: nn.Module, sample: tuple[Tensor], allow_unused_input: bool) -> None:
        assert sample[0].shape == (CONFIG.batch_size, 1, 12, 12)
        model(*sample)  # as torch does, which moves the statistics of batch norms
        model.forward = lambda image: 2 * image

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", record)
    image = torch.rand(2, 1, 12, 12)
    with _recorded(network, Pairs(), CONFIG, "float32", torch.device("cpu")):
        assert torch.equal(network(image), 2 * image)
        assert all(torch.equal(buffer, before[name]) for name, buffer in network.named_buffers())
    assert not torch.equal(network(image), 2 * image)


@pytest.mark.parametrize("frozen", [False, True])
def test_frozen_norms_keep_their_statistics(tmp_path: Path, frozen: bool) -> None:
    network = ann()
    before = copy.deepcopy(network.state_dict())
    run(network, tmp_path, config=replace(CONFIG, frozen_norms=frozen))
    changed = {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}
    statistics = {name for name in before if name.endswith(("running_mean", "running_var"))}
    assert statistics & changed == (set() if frozen else statistics)
    assert {name for name, _ in network.named_parameters()} <= changed
