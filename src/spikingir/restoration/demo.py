"""The demonstration: a real photograph, degraded, restored by a network that ships, measured."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from spikingir.data.haze import add_haze
from spikingir.data.middlebury import fill_holes
from spikingir.data.noise import add_gaussian_noise, sample_generator
from spikingir.evaluation.metrics import psnr
from spikingir.restoration.catalogue import Task
from spikingir.restoration.images import check_output, write_image
from spikingir.restoration.photo import Photo, to_pillow
from spikingir.restoration.restorer import Restoration, Restorer
from spikingir.restoration.tiling import Progress

MODELS = MappingProxyType[Task, str]({"denoise": "denoise-gray-25", "dehaze": "dehaze"})
"""The model that each demonstration takes."""

SIGMA, SIDE, SEED = 25, 192, 0
BETA, AIRLIGHT = 1.2, 0.9
_MARGIN, _FONT, _WIDTH = 12, 18, 384
_OFFSET = 31.086  # between the two cameras' principal points, in pixels


@dataclass(frozen=True)
class Sample:
    """A photograph, and what was made of it.

    Attributes:
        word: What it was made, and the name of its file.
        how: How it was made that.
        original: The photograph.
        degraded: The degraded one; not clipped.

    Shape:
        ``original``, ``degraded``: (3, H, W), in [0, 1].
    """

    word: str
    how: str
    original: Tensor
    degraded: Tensor


@dataclass(frozen=True)
class Demo:
    """What the demonstration found, and its pictures.

    Attributes:
        sample: What was restored.
        degraded_db: PSNR of the degraded photograph in dB, not clipped.
        restored_db: PSNR of the restored one, clipped to [0, 1].
        clock: Time steps and schedule.
        restoration: Time, spikes and energy.
        original: Picture of the photograph.
        degraded: Picture of the degraded one.
        restored: Picture of the restored one.
        comparison: The three side by side.
    """

    sample: Sample
    degraded_db: float
    restored_db: float
    clock: str
    restoration: Restoration
    original: Path
    degraded: Path
    restored: Path
    comparison: Path


def run_demo(
    folder: Path,
    restorer: Restorer | None = None,
    *,
    task: Task = "denoise",
    overwrite: bool = False,
    progress: Progress = lambda done, total: None,
) -> Demo:
    """Restore a sample photograph with Gaussian noise of sigma 25, or with haze, and write the pictures.

    Args:
        folder: Where the pictures go; made if need be.
        restorer: What restores it; the one that ships unless given.
        task: What is to be removed.
        overwrite: Whether files of the same names are replaced.
        progress: Told how many tiles are done, and of how many.

    Raises:
        ModuleNotFoundError: scikit-image is missing; the ``demo`` extra has it.
        ModelError: The model has not shipped.
        ImageError: A picture cannot be written, or is there already.
        OSError: The folder cannot be made.
    """
    sample = SAMPLES[task]()
    restorer = Restorer.from_pretrained(MODELS[task]) if restorer is None else restorer
    folder.mkdir(parents=True, exist_ok=True)
    paths = {name: folder / f"{name}.png" for name in ("original", sample.word, "restored", "comparison")}
    for path in paths.values():
        check_output(path, overwrite=overwrite)
    restored, restoration = restorer.trace(sample.degraded, progress=progress)
    # psnr clips, as it does what is written; of the noise nothing is to be lost
    degraded_db = -10 * (sample.degraded - sample.original).square().mean().log10().item()
    restored_db = psnr(restored[None], sample.original[None]).item()
    pictures = {"original": sample.original, sample.word: sample.degraded, "restored": restored}
    for name, picture in pictures.items():
        write_image(Photo(_pixels(picture)), paths[name], overwrite=overwrite)
    clock = restorer.network.config.clock
    captions = {
        f"{sample.how}: {degraded_db:.2f} dB": _pixels(sample.degraded),
        f"spiking network, {clock}: {restored_db:.2f} dB": _pixels(restored),
        "original": _pixels(sample.original),
    }
    write_image(Photo(_side_by_side(captions)), paths["comparison"], overwrite=overwrite)
    paths["degraded"] = paths.pop(sample.word)
    return Demo(sample, degraded_db, restored_db, clock, restoration, **paths)


def noisy_sample() -> Sample:
    """The centre of "Chelsea" by Stefan van der Walt (CC0), which comes with scikit-image, with Gaussian noise."""
    photograph = _tensor(_samples().chelsea())
    top, left = ((size - SIDE) // 2 for size in photograph.shape[1:])
    original = photograph[:, top : top + SIDE, left : left + SIDE]
    noisy = add_gaussian_noise(original, SIGMA, sample_generator(SEED, 0))
    return Sample("noisy", f"noise, sigma {SIGMA}", original, noisy)


def hazy_sample() -> Sample:
    """Middlebury's "Motorcycle", which comes with scikit-image, with haze after its measured depth.

    Source:
        Scharstein et al. 2014, "High-Resolution Stereo Datasets with Subpixel-Accurate Ground Truth".
    """
    left, _, disparity = _samples().stereo_motorcycle()
    depth = torch.from_numpy(np.reciprocal(fill_holes(disparity) + np.float32(_OFFSET)))
    original = _tensor(left)
    return Sample("hazy", f"haze, beta {BETA}", original, add_haze(original, depth, BETA, AIRLIGHT))


SAMPLES = MappingProxyType[Task, Callable[[], Sample]]({"denoise": noisy_sample, "dehaze": hazy_sample})
"""The photograph that each demonstration restores."""


def _samples() -> Any:
    return import_module("skimage.data")  # an extra: nobody needs it for photographs of their own


def _tensor(samples: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(samples.copy()).permute(2, 0, 1).float() / 255


def _pixels(image: Tensor) -> NDArray[np.float32]:
    return np.ascontiguousarray(image.clamp(0, 1).permute(1, 2, 0).numpy())


def _side_by_side(pictures: dict[str, NDArray[np.float32]]) -> NDArray[np.float32]:
    """Pictures on white, small ones enlarged pixel by pixel, each under its caption."""
    height, width = next(iter(pictures.values())).shape[:2]
    zoom = max(1, _WIDTH // width)
    sheet = Image.new(
        "RGB", ((zoom * width + _MARGIN) * len(pictures) + _MARGIN, zoom * height + _FONT + 3 * _MARGIN), "white"
    )
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(_FONT)
    for i, (caption, pixels) in enumerate(pictures.items()):
        left = _MARGIN + i * (zoom * width + _MARGIN)
        draw.text((left, _MARGIN), caption, "black", font)
        enlarged = to_pillow(pixels).resize((zoom * width, zoom * height), Image.Resampling.NEAREST)
        sheet.paste(enlarged, (left, _FONT + 2 * _MARGIN))
    return np.asarray(sheet, dtype=np.float32) / np.float32(255)
