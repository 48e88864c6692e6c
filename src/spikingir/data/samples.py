"""The sample photographs of the demonstration, degraded."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from spikingir.data.folders import read_rgb, to_tensor
from spikingir.data.haze import add_haze
from spikingir.data.noise import add_gaussian_noise, sample_generator

SIGMA, SEED = 25, 0
BETA, AIRLIGHT = 1.2, 0.9
_PICTURES = Path(__file__).with_name("pictures")  # with their sources
_FAR, _NEAR = 1.0, 0.3  # depth at the upper and the lower edge


@dataclass(frozen=True)
class Sample:
    """A photograph, and what was made of it.

    Attributes:
        word: What it was made, and the name of its file.
        how: How it was made that.
        original: The photograph.
        degraded: The degraded one; not clipped.
        sigma: Level of the noise that was added, on the 0..255 scale; None where none was.

    Shape:
        ``original``, ``degraded``: (3, H, W), in [0, 1].
    """

    word: str
    how: str
    original: Tensor
    degraded: Tensor
    sigma: float | None = None


def noisy_sample() -> Sample:
    """The middle of "Chelsea" by Stefan van der Walt (CC0), with Gaussian noise."""
    original = to_tensor(read_rgb(_PICTURES / "chelsea.png"))
    noisy = add_gaussian_noise(original, SIGMA, sample_generator(SEED, 0))
    return Sample("noisy", f"noise, sigma {SIGMA}", original, noisy, SIGMA)


def hazy_sample() -> Sample:
    """A pagoda by danielbuechele (CC BY 2.0), with haze of a depth that rises evenly from the lower edge upwards."""
    original = to_tensor(read_rgb(_PICTURES / "china.jpg"))
    height, width = original.shape[1:]
    depth = torch.linspace(_FAR, _NEAR, height)[:, None].expand(height, width)
    return Sample("hazy", f"haze, beta {BETA}", original, add_haze(original, depth, BETA, AIRLIGHT))
