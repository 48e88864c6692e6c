"""Additive Gaussian noise and the patches that denoisers are trained on.

Everything random about sample ``i`` comes from one generator seeded by ``(seed, i)``: the same sample is drawn
whatever the batch size, the number of workers or processes, and wherever a run was interrupted.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from spikingir.data.folders import to_tensor
from spikingir.errors import InputError
from spikingir.inputs import with_level


def sample_generator(seed: int, index: int) -> torch.Generator:
    """A generator of its own for each ``(seed, index)``."""
    words = np.random.SeedSequence([seed, index]).generate_state(2, np.uint32)
    return torch.Generator().manual_seed(int(words[0]) << 31 ^ int(words[1]))


def add_gaussian_noise(image: Tensor, sigma: float, generator: torch.Generator, clip: bool = False) -> Tensor:
    """``y = x + sigma / 255 * n``, ``n`` standard normal, unclipped unless ``clip``.

    Args:
        image: Clean image in [0, 1].
        sigma: Standard deviation on the 0..255 scale.
        generator: Source of the noise.
        clip: Whether to clip ``y`` to [0, 1].

    Shape:
        Any; the result has the same.
    """
    noise = torch.randn(image.shape, generator=generator, dtype=image.dtype)
    noisy = image + noise * (sigma / 255)
    return noisy.clamp(0, 1) if clip else noisy


@dataclass(frozen=True)
class NoisyPatches(Dataset[tuple[Tensor, Tensor]]):
    """Endless pairs of (noisy, clean) patches, sample ``i`` a function of ``(seed, i)`` alone.

    Patch position, one of the eight flips and rotations, noise level and noise are drawn per sample.

    Args:
        images: Clean images, ``(H, W)`` or ``(H, W, 3)``, 8 bit, each at least ``size`` on both sides.
        size: Side of the patches in pixels.
        sigma: Noise level on the 0..255 scale; of two, a level between them is drawn for each sample.
        seed: Seed of the whole set.
        clip: Whether noisy patches are clipped to [0, 1].
        level: Whether the noisy patch brings its level, as :func:`spikingir.inputs.with_level` lays it.

    Shape:
        Each item: two tensors ``(C, size, size)``, the noisy one ``(C + 1, size, size)`` with its level.

    Raises:
        ValueError: An image is smaller than a patch, or ``sigma`` is negative or not in order.
    """

    images: Sequence[NDArray[np.uint8]]
    size: int
    sigma: float | tuple[float, float]
    seed: int = 0
    clip: bool = False
    level: bool = False

    def __post_init__(self) -> None:
        low, high = self.sigma if isinstance(self.sigma, tuple) else (self.sigma, self.sigma)
        if not 0 <= low <= high < math.inf:
            raise InputError(f"sigma is {self.sigma}; expected a level that is not negative, or (lowest, highest)")
        for i, image in enumerate(self.images):
            if min(image.shape[:2]) < self.size:
                raise InputError(f"image {i} is {image.shape}; a patch of {self.size}x{self.size} does not fit")

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        generator = sample_generator(self.seed, index)
        which, flip, turns = (int(torch.randint(n, (), generator=generator)) for n in (len(self.images), 2, 4))
        image = self.images[which]
        top, left = (int(torch.randint(n - self.size + 1, (), generator=generator)) for n in image.shape[:2])
        patch = to_tensor(image[top : top + self.size, left : left + self.size])
        if flip:
            patch = patch.flip(2)
        clean = patch.rot90(turns, (1, 2)).contiguous()
        sigma = self.sigma
        if isinstance(sigma, tuple):
            sigma = sigma[0] + (sigma[1] - sigma[0]) * torch.rand((), generator=generator).item()
        return noisy_pair(clean, sigma, generator, self.clip, self.level)


def noisy_pair(
    clean: Tensor, sigma: float, generator: torch.Generator, clip: bool, level: bool
) -> tuple[Tensor, Tensor]:
    """A noisy image, with its level as one more channel if ``level``, and the clean one.

    Shape:
        ``clean``: (C, H, W).
    """
    noisy = add_gaussian_noise(clean, sigma, generator, clip)
    return (with_level(noisy[None], sigma / 255)[0] if level else noisy), clean
