"""The haze model: its limits, its linearity, and RESIDE's published images."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from spikingir.data.haze import AOD_DEPTH, add_haze, transmission


@pytest.fixture
def scene() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(2, 3, 5, 7, generator=generator), torch.rand(2, 5, 7, generator=generator) * 8


def test_model_is_its_equation(scene: tuple[Tensor, Tensor]) -> None:
    clean, depth = scene
    betas, lights = [0.6, 1.4], [0.8, 1.0]
    hazy = add_haze(clean, depth, torch.tensor(betas), torch.tensor(lights))
    for image, j, d, beta, light in zip(hazy, clean, depth, betas, lights, strict=True):
        t = torch.exp(-beta * d / d.max())
        torch.testing.assert_close(image, j * t + light * (1 - t))
        torch.testing.assert_close(image, add_haze(j, d, beta, light))


def test_limits(scene: tuple[Tensor, Tensor]) -> None:
    clean, depth = scene
    torch.testing.assert_close(add_haze(clean, depth, 0.0), clean)
    torch.testing.assert_close(add_haze(clean, depth + 1, 1e4, 0.7), torch.full_like(clean, 0.7))
    airlight = torch.full_like(clean, 0.9)
    torch.testing.assert_close(add_haze(airlight, depth, 1.0, 0.9), airlight)


def test_unit_of_depth_matters_with_a_farthest_one_alone(scene: tuple[Tensor, Tensor]) -> None:
    _, depth = scene
    torch.testing.assert_close(transmission(depth, 1.2), transmission(depth * 1000, 1.2))
    torch.testing.assert_close(transmission(depth, 1.6, AOD_DEPTH), torch.exp(-1.6 / 5.7 * depth))


def test_refuses_what_is_no_scene(scene: tuple[Tensor, Tensor]) -> None:
    clean, depth = scene
    with pytest.raises(ValueError, match="negative or infinite"):
        transmission(depth - 4, 1.0)
    with pytest.raises(ValueError, match="beta is -1"):
        transmission(depth, -1.0)
    with pytest.raises(ValueError, match="farthest depth is 0"):
        transmission(torch.zeros(4, 4), 1.0)
    with pytest.raises(ValueError, match="with a depth of"):
        add_haze(clean, depth[:, :4], 1.0)


@pytest.mark.data
def test_reside_made_its_images_so(data_root: Path) -> None:
    folder = data_root / "dehaze/sots_indoor"

    def read(path: Path) -> Tensor:
        with Image.open(path) as image:
            return torch.from_numpy(np.asarray(image, dtype=np.float32))

    for scene in ("1400", "1405", "1412"):
        published = next((folder / "hazy").glob(f"{scene}_*.png"))
        suffix = published.stem.split("_")[1]
        clean = read(folder / "gt" / f"{scene}.png").movedim(2, 0) / 255
        # the frame of NYU without its white border
        depth = read(folder / "depth" / f"{scene}.png")[10:470, 10:630]
        hazy = add_haze(clean, depth, 0.5 + 0.1 * int(suffix))
        assert (hazy * 255 - read(published).movedim(2, 0)).abs().max() < 1.5
