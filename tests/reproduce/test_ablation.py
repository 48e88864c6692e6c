"""Each row of the ablation is the network that its name says."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from reproduce.ablation import FINE_TUNED, AblationRow, ablate, noisy_calibration_images
from spikingir.conversion.convert import convert
from spikingir.data.noise import add_gaussian_noise, sample_generator
from spikingir.data.testsets import TestPair
from spikingir.evaluation.evaluate import evaluate
from spikingir.inputs import with_level
from spikingir.networks import DnCNN
from spikingir.networks.multiscale import MultiScaleNet
from spikingir.restoration.restorer import Restorer
from spikingir.spiking.network import SpikingNetwork

CLEAN = torch.rand(1, 14, 15, generator=sample_generator(1, 0))
PAIRS = [TestPair("image", add_gaussian_noise(CLEAN, 25, sample_generator(0, 0)), CLEAN)]
CALIBRATION = torch.rand(2, 1, 16, 16, generator=sample_generator(2, 0))


@pytest.fixture(scope="module")
def ann() -> DnCNN:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return DnCNN(layers=3, width=4).eval()


@pytest.fixture(scope="module")
def tuned(ann: DnCNN) -> SpikingNetwork:
    """Fine-tuning is stood in for by another beta and mapper."""
    network = convert(ann, CALIBRATION, time_steps=3, beta=0.8)
    assert network.mapper is not None
    with torch.no_grad():
        network.mapper.weight.mul_(0.9)
    return network


@pytest.fixture(scope="module")
def rows(ann: DnCNN, tuned: SpikingNetwork) -> tuple[AblationRow, ...]:
    progress: list[tuple[int, int]] = []
    found = ablate(ann, tuned, CALIBRATION, PAIRS, progress=lambda *counts: progress.append(counts))
    assert progress == [(i + 1, 6) for i in range(6)]
    return found


def test_rows_add_one_part_each(ann: DnCNN, tuned: SpikingNetwork, rows: tuple[AblationRow, ...]) -> None:
    networks = [
        convert(ann, CALIBRATION, "if", time_steps=3),
        convert(ann, CALIBRATION, "if", time_steps=3, v0=0.0),
        convert(ann, CALIBRATION, time_steps=3, mapper=False, recycling=False),
        convert(ann, CALIBRATION, time_steps=3, mapper=False),
        convert(ann, CALIBRATION, time_steps=3),
        tuned,
    ]
    assert rows[-1].name == FINE_TUNED
    for row, network in zip(rows, networks, strict=True):
        assert row.evaluation == evaluate(Restorer(network), PAIRS, ann), row.name
    assert len({row.evaluation.mean.psnr for row in rows}) == 5  # the mapper changes nothing before it is trained
    assert rows[3].evaluation == rows[4].evaluation


def test_on_the_phased_schedule_neurons_differ_in_nothing(ann: DnCNN, tuned: SpikingNetwork) -> None:
    rows = ablate(ann, tuned.at(schedule="phased"), CALIBRATION, PAIRS)
    assert rows[0].evaluation == rows[1].evaluation == rows[2].evaluation
    assert rows[3].evaluation != rows[2].evaluation


def test_a_network_that_is_told_the_level() -> None:
    told = MultiScaleNet(width=2, blocks=(1, 1))
    told.reset_parameters(torch.Generator().manual_seed(0))
    given = with_level(CALIBRATION, 25 / 255)
    tuned = convert(told.eval(), given, time_steps=3)
    pairs = [replace(PAIRS[0], sigma=25.0)]
    rows = ablate(told, tuned, CALIBRATION, pairs)
    assert rows[0].evaluation == evaluate(Restorer(convert(told, given, "if", time_steps=3)), pairs, told)
    assert rows[4].evaluation == rows[5].evaluation


@pytest.mark.parametrize("channels", [1, 3])
def test_calibration_on_sample_photographs(channels: int, tmp_path: Path) -> None:
    images, source = noisy_calibration_images(tmp_path, channels, 25)
    assert images.shape == (16, channels, 64, 64)
    assert "scikit-image" in source
    assert torch.equal(noisy_calibration_images(None, channels, 25)[0], images)
    assert not torch.equal(noisy_calibration_images(None, channels, 25, seed=1)[0], images)
    clean, _ = noisy_calibration_images(None, channels, 0)
    assert (images - clean).std() * 255 == pytest.approx(25, rel=0.02)


def test_calibration_on_the_collection(tmp_path: Path) -> None:
    folder = tmp_path / "denoise" / "train400"
    folder.mkdir(parents=True)
    for i in range(20):
        Image.fromarray(np.full((70, 66), 10 * i, np.uint8)).save(folder / f"{i:02}.png")
    images, source = noisy_calibration_images(tmp_path, 1, 0)
    assert source == "denoise/train400"
    assert images.shape == (16, 1, 64, 64)
    assert len({round(image.mean().item(), 4) for image in images}) == 16
