"""Rate -> ANN on published weights, on a crop that calibration did not see."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from spikingir.conversion.convert import convert
from spikingir.data.folders import list_images
from spikingir.data.noise import add_gaussian_noise, sample_generator
from spikingir.networks import RestorationNetwork
from spikingir.store import load_network

pytestmark = pytest.mark.data


def crop(path: Path, size: int, mode: str) -> Tensor:
    with Image.open(path) as image:
        pixels = np.array(image.convert(mode), dtype=np.float32)[64 : 64 + size, 64 : 64 + size] / 255
    return torch.from_numpy(pixels).reshape(size, size, -1).movedim(2, 0)


def noisy_crops(data_root: Path, size: int) -> list[Tensor]:
    crops = [crop(path, size, "L") for path in list_images(data_root / "denoise/set12")[:5]]
    return [add_gaussian_noise(clean, 25, sample_generator(0, i)) for i, clean in enumerate(crops)]


@torch.no_grad()
def errors(network: RestorationNetwork, crops: list[Tensor], steps: tuple[int, ...]) -> list[float]:
    """RMS error over the RMS of the ANN's image, on the last crop; calibrated on the others."""
    spiking = convert(network, crops[:-1], "rueckauer", percentile=100)
    image = crops[-1][None]
    wanted = network(image)
    restored = (spiking.at(time_steps=t)(image) for t in steps)
    return [((x - wanted).square().mean() / wanted.square().mean()).sqrt().item() for x in restored]


@pytest.mark.parametrize("size", [48, pytest.param(128, marks=pytest.mark.slow)])
def test_aodnet(data_root: Path, size: int) -> None:
    network = load_network(data_root / "weights/aodnet/mayanksingal_dehazer.pth")
    crops = [crop(path, size, "RGB") for path in list_images(data_root / "dehaze/sots_indoor/hazy")[:5]]
    found = errors(network, crops, (8, 32, 128, 512))
    assert found == sorted(found, reverse=True)
    assert found[-1] < 0.01


def test_dncnn_on_a_small_crop(data_root: Path) -> None:
    network = load_network(data_root / "weights/dncnn/kair_dncnn_25.pth")
    found = errors(network, noisy_crops(data_root, 24), (8, 32, 128))
    assert found == sorted(found, reverse=True)
    assert found[-1] < 0.04


@pytest.mark.slow
def test_dncnn(data_root: Path) -> None:
    """5 GB of memory: two layers' currents of 512 steps."""
    network = load_network(data_root / "weights/dncnn/kair_dncnn_25.pth")
    found = errors(network, noisy_crops(data_root, 128), (8, 32, 128, 512))
    assert found == sorted(found, reverse=True)
    assert found[-1] < 0.01
