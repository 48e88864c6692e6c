"""Calibration images: centres, evenly spread, noisy as asked."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from spikingir.data.calibration import calibration_images, hazy_calibration_images
from spikingir.data.errors import DataError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i in range(6):
        Image.fromarray(np.full((20, 12 + i, 3), 40 * i, np.uint8)).save(tmp_path / f"{i}.png")
    return tmp_path


def test_centres_of_images_evenly_spread(folder: Path) -> None:
    images = calibration_images(folder, 3, count=3, side=10)
    assert images.shape == (3, 3, 10, 10)
    assert [round(image.mean().item() * 255) for image in images] == [0, 80, 160]
    assert calibration_images(folder, 1).shape == (6, 1, 12, 12)  # as large as the smallest allows


def test_noise_is_added_where_asked(folder: Path) -> None:
    noise = calibration_images(folder, 1, sigma=50) - calibration_images(folder, 1)
    assert noise.std().item() == pytest.approx(50 / 255, rel=0.1)
    assert torch.equal(calibration_images(folder, 1, sigma=50), calibration_images(folder, 1, sigma=50))


def test_refusals(folder: Path) -> None:
    with pytest.raises(ValueError, match="channels is 2"):
        calibration_images(folder, 2)
    Image.fromarray(np.zeros((20, 3), np.uint8)).save(folder / "narrow.png")
    with pytest.raises(DataError, match="only 3 pixels"):
        calibration_images(folder, 1)


def test_hazy_pieces_of_training_scenes(tmp_path: Path) -> None:
    scenes = tmp_path / "dehaze" / "nyu" / "train"
    depth = np.linspace(1000, 5000, 480).astype(np.uint16)[:, None].repeat(640, 1)
    for part, array in (("rgb", np.full((480, 640, 3), 30, np.uint8)), ("depth", depth)):
        (scenes / part).mkdir(parents=True)
        Image.fromarray(array).save(scenes / part / "0001.png")
    images = hazy_calibration_images(tmp_path, side=16, count=3)
    assert images.shape == (3, 3, 16, 16)
    assert images.min() > 30 / 255  # haze is brighter than the scene
    assert torch.equal(hazy_calibration_images(tmp_path, side=16, count=3), images)
    assert not torch.equal(hazy_calibration_images(tmp_path, side=16, count=3, seed=1), images)
    with pytest.raises(DataError):
        hazy_calibration_images(tmp_path / "nothing")
