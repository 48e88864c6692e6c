"""Patches with the noise of cameras, made and real, that a denoiser of photographs is trained on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from spikingir.data.camera import CameraCurves, Patch, add_camera_noise, add_sensor_noise, as_file
from spikingir.data.noise import sample_generator
from spikingir.data.polyu import Photographs
from spikingir.errors import InputError

WITHOUT_NOISE = 1 / 8
"""Share of the patches that have no noise, so that a photograph without noise comes back as it was."""

_JPEG = 0.8  # of the noisy patches
_JPEG_WITHOUT_NOISE = 0.5  # the others come back bit for bit
_BLOCK = 8  # side of JPEG's blocks: patches of real photographs begin on one


@dataclass(frozen=True)
class PhotographPatches(Dataset[tuple[Tensor, Tensor]]):
    """Endless pairs of (noisy, clean) colour patches, sample ``i`` a function of ``(seed, i)`` alone.

    What a sample is, is drawn: one in eight has no noise; a share of ``real`` is cut from real pairs, on the blocks of
    their JPEG, and made :func:`as_bright`; the others have the noise of a sensor (a share of ``sensor`` of them) or of
    a camera, and then are 8-bit or JPEG files. Position, one of the eight flips and rotations, and the noise are drawn
    per sample.

    Args:
        images: Clean images, ``(H, W, 3)``, each at least ``size`` on both sides.
        curves: Camera response functions.
        size: Side of the patches in pixels; even.
        seed: Seed of the whole set.
        pairs: Real noisy and clean photographs.
        real: Share of the patches that is cut from them.
        sensor: Share of the patches with made noise whose noise is a sensor's.

    Shape:
        Each item: two tensors ``(3, size, size)``.

    Raises:
        ValueError: An image is smaller than a patch, a share is out of range, or there are no pairs to cut from.
    """

    images: Sequence[NDArray[np.uint8]]
    curves: CameraCurves
    size: int
    seed: int = 0
    pairs: Sequence[Photographs] = ()
    real: float = 6 / 16
    sensor: float = 0.3

    def __post_init__(self) -> None:
        if self.size % 2:
            raise InputError(f"size is {self.size}; a patch of a Bayer filter has an even side")
        if not 0 <= self.real <= 1 - WITHOUT_NOISE or not 0 <= self.sensor <= 1:
            raise InputError(f"real is {self.real} and sensor {self.sensor}; expected shares in [0, 7/8] and [0, 1]")
        if self.real and not self.pairs:
            raise InputError(f"real is {self.real}, but there are no pairs; give some, or a share of 0")
        for i, image in enumerate([*self.images, *(noisy for noisy, _ in self.pairs)]):
            if min(image.shape[:2]) < self.size:
                raise InputError(f"image {i} is {image.shape}; a patch of {self.size}x{self.size} does not fit")

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        generator = sample_generator(self.seed, index)
        kind, source = torch.rand(2, generator=generator).tolist()
        if kind >= 1 - self.real:
            noisy, clean = cut_turned(self.pairs[_draw(len(self.pairs), generator)], self.size, generator, _BLOCK)
            return torch.from_numpy(noisy), torch.from_numpy(as_bright(clean, noisy))
        (clean,) = cut_turned([self.images[_draw(len(self.images), generator)]], self.size, generator)
        noisy, jpeg = clean, _JPEG
        if kind < WITHOUT_NOISE:
            jpeg = _JPEG_WITHOUT_NOISE
        elif source < self.sensor:
            noisy = add_sensor_noise(clean, self.curves, generator)
        else:
            noisy, clean = add_camera_noise(clean, generator)
        return torch.from_numpy(as_file(noisy, generator, jpeg)), torch.from_numpy(clean)


def as_bright(clean: Patch, noisy: Patch) -> Patch:
    """A clean patch with the mean of each channel as the noisy one has it.

    The clean photograph of a real pair is the mean of many exposures, which a single one misses by some levels. That is
    no noise: a network that learns it brightens some photographs of its own and darkens others.
    """
    brighter: Patch = clean + (noisy - clean).mean((1, 2), keepdims=True)
    return brighter


def cut_turned(
    images: Sequence[NDArray[np.uint8]], size: int, generator: torch.Generator, step: int = 1
) -> list[Patch]:
    """The same patch of each of several images, in one of the eight flips and rotations.

    Args:
        images: Images of one size.
        size: Side of the patch.
        generator: Source of the draws.
        step: Rows and columns that patches begin on are multiples of it.

    Shape:
        ``(H, W, 3)`` each; the patches ``(3, size, size)``, in [0, 1].
    """
    height, width = images[0].shape[:2]
    top, left = (step * _draw((side - size) // step + 1, generator) for side in (height, width))
    turns, flip = _draw(4, generator), _draw(2, generator)
    patches = []
    for image in images:
        patch = np.rot90(image[top : top + size, left : left + size], turns)
        patch = patch[:, ::-1] if flip else patch
        levels: Patch = np.ascontiguousarray(patch.transpose(2, 0, 1), np.float32)
        patches.append(cast(Patch, levels / np.float32(255)))
    return patches


def _draw(count: int, generator: torch.Generator) -> int:
    return int(torch.randint(count, (), generator=generator))
