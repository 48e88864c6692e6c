"""Images on which the thresholds of a converted network are calibrated."""

from pathlib import Path

import torch
from torch import Tensor

from spikingir.data.errors import DataError
from spikingir.data.folders import list_images, read_gray, read_rgb, to_tensor
from spikingir.data.haze import HazyPatches
from spikingir.data.noise import add_gaussian_noise, sample_generator
from spikingir.data.nyu import list_nyu
from spikingir.errors import InputError

_SCENES = "dehaze/nyu/train"


def calibration_images(
    folder: str | Path, channels: int, *, sigma: float | None = None, side: int = 64, count: int = 64, seed: int = 0
) -> Tensor:
    """Centres of a folder's images, with Gaussian noise where it is asked for.

    Args:
        folder: Folder of images; of more than ``count`` those are taken that lie evenly spread over their names.
        channels: 1 for gray, 3 for colour.
        sigma: Noise level on the 0..255 scale; none unless given.
        side: Side of the squares in pixels, less where an image is smaller.
        count: Number of images, at most.
        seed: Seed of the noise.

    Shape:
        (B, channels, side, side), in [0, 1] but for noise.

    Raises:
        DataError: The folder is missing, holds no image or one that cannot be read.
        ValueError: Channels other than 1 or 3.
    """
    if channels not in (1, 3):
        raise InputError(f"channels is {channels}; images of a folder are read as gray (1) or colour (3)")
    paths = list_images(folder)
    count = min(count, len(paths))
    chosen = [paths[i * len(paths) // count] for i in range(count)]
    images = [to_tensor((read_gray if channels == 1 else read_rgb)(path)) for path in chosen]
    side = min(side, *(size for image in images for size in image.shape[1:]))
    if side < 8:
        raise DataError(f"an image in {folder} is only {side} pixels wide or high; calibration needs at least 8")
    squares = []
    for i, image in enumerate(images):
        top, left = ((size - side) // 2 for size in image.shape[1:])
        square = image[:, top : top + side, left : left + side]
        squares.append(square if sigma is None else add_gaussian_noise(square, sigma, sample_generator(seed, i)))
    return torch.stack(squares)


def hazy_calibration_images(root: Path, *, side: int = 64, count: int = 16, seed: int = 0) -> Tensor:
    """Pieces of hazy training scenes of the image collection, to calibrate a dehazer on.

    Args:
        root: Folder of the image collection.
        side: Side of the squares in pixels.
        count: Number of images, and of scenes that they are drawn from.
        seed: Seed of scene, place and haze.

    Shape:
        (count, 3, side, side), in [0, 1].

    Raises:
        DataError: The scenes are missing or damaged.
    """
    scenes = list_nyu(root / _SCENES)
    patches = HazyPatches([scenes[i * len(scenes) // count].read() for i in range(count)], side, seed)
    return torch.stack([patches[i][0] for i in range(count)])
