"""The sample photographs of the demonstration, degraded."""

from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spikingir.data.haze import add_haze
from spikingir.data.middlebury import fill_holes
from spikingir.data.noise import add_gaussian_noise, sample_generator

SIGMA, SIDE, SEED = 25, 192, 0
BETA, AIRLIGHT = 1.2, 0.9
_OFFSET = 31.086  # between the two cameras' principal points, in pixels


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
    """The centre of "Chelsea" by Stefan van der Walt (CC0), which comes with scikit-image, with Gaussian noise."""
    photograph = _tensor(_samples().chelsea())
    top, left = ((size - SIDE) // 2 for size in photograph.shape[1:])
    original = photograph[:, top : top + SIDE, left : left + SIDE]
    noisy = add_gaussian_noise(original, SIGMA, sample_generator(SEED, 0))
    return Sample("noisy", f"noise, sigma {SIGMA}", original, noisy, SIGMA)


def hazy_sample() -> Sample:
    """Middlebury's "Motorcycle", which comes with scikit-image, with haze after its measured depth.

    Source:
        Scharstein et al. 2014, "High-Resolution Stereo Datasets with Subpixel-Accurate Ground Truth".
    """
    left, _, disparity = _samples().stereo_motorcycle()
    depth = torch.from_numpy(np.reciprocal(fill_holes(disparity) + np.float32(_OFFSET)))
    original = _tensor(left)
    return Sample("hazy", f"haze, beta {BETA}", original, add_haze(original, depth, BETA, AIRLIGHT))


def _samples() -> Any:
    return import_module("skimage.data")  # an extra: nobody needs it for photographs of their own


def _tensor(samples: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(samples.copy()).permute(2, 0, 1).float() / 255
