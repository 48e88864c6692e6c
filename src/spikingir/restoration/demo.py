"""The demonstration: a real photograph, made noisy, restored by a network that ships, measured."""

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from spikingir.data.noise import add_gaussian_noise, sample_generator
from spikingir.evaluation.metrics import psnr
from spikingir.restoration.images import write_image
from spikingir.restoration.photo import Photo, to_pillow
from spikingir.restoration.restorer import Restoration, Restorer
from spikingir.restoration.tiling import Progress

MODEL, SIGMA, SIDE, SEED = "denoise-gray-25", 25, 192, 0
_ZOOM, _MARGIN, _FONT = 2, 12, 18


@dataclass(frozen=True)
class Demo:
    """What the demonstration found, and its pictures.

    Attributes:
        noisy_db: PSNR of the noisy photograph in dB, its noise unclipped.
        restored_db: PSNR of the restored one, clipped to [0, 1].
        clock: Time steps and schedule.
        restoration: Time, spikes and energy.
        original: Picture of the photograph.
        noisy: Picture of the noisy one.
        restored: Picture of the restored one.
        comparison: The three side by side.
    """

    noisy_db: float
    restored_db: float
    clock: str
    restoration: Restoration
    original: Path
    noisy: Path
    restored: Path
    comparison: Path


def run_demo(folder: Path, restorer: Restorer | None = None, *, progress: Progress = lambda done, total: None) -> Demo:
    """Restore a sample photograph with Gaussian noise of sigma 25 and write the pictures.

    Args:
        folder: Where the pictures go; made if need be, files of the same names are replaced.
        restorer: A denoiser; the one that ships unless given.
        progress: Told how many tiles are done, and of how many.

    Raises:
        ModuleNotFoundError: scikit-image is missing; the ``demo`` extra has it.
        ModelError: The model has not shipped.
        ImageError: A picture cannot be written.
        OSError: The folder cannot be made.
    """
    clean = sample_photograph()
    noisy = add_gaussian_noise(clean, SIGMA, sample_generator(SEED, 0))
    restorer = Restorer.from_pretrained(MODEL) if restorer is None else restorer
    folder.mkdir(parents=True, exist_ok=True)
    restored, restoration = restorer.trace(noisy, progress=progress)
    # psnr clips, as it does what is written; of the noise nothing is to be lost
    noisy_db = -10 * (noisy - clean).square().mean().log10().item()
    restored_db = psnr(restored[None], clean[None]).item()
    pictures = {"original": _pixels(clean), "noisy": _pixels(noisy), "restored": _pixels(restored)}
    paths = {name: folder / f"{name}.png" for name in (*pictures, "comparison")}
    for name, pixels in pictures.items():
        write_image(Photo(pixels), paths[name], overwrite=True)
    clock = restorer.network.config.clock
    captions = {
        f"noise, sigma {SIGMA}: {noisy_db:.2f} dB": pictures["noisy"],
        f"spiking network, {clock}: {restored_db:.2f} dB": pictures["restored"],
        "original": pictures["original"],
    }
    write_image(Photo(_side_by_side(captions)), paths["comparison"], overwrite=True)
    return Demo(noisy_db, restored_db, clock, restoration, **paths)


def sample_photograph() -> Tensor:
    """The centre of "Chelsea" by Stefan van der Walt (CC0), which comes with scikit-image.

    Shape:
        (3, 192, 192), in [0, 1].
    """
    samples = import_module("skimage.data")  # an extra: nobody needs it for photographs of their own
    photograph = torch.from_numpy(samples.chelsea().copy()).permute(2, 0, 1)
    top, left = ((size - SIDE) // 2 for size in photograph.shape[1:])
    return photograph[:, top : top + SIDE, left : left + SIDE].float() / 255


def _pixels(image: Tensor) -> NDArray[np.float32]:
    return np.ascontiguousarray(image.clamp(0, 1).permute(1, 2, 0).numpy())


def _side_by_side(pictures: dict[str, NDArray[np.float32]]) -> NDArray[np.float32]:
    """Pictures on white, enlarged pixel by pixel, each under its caption."""
    side = _ZOOM * SIDE
    sheet = Image.new("RGB", ((side + _MARGIN) * len(pictures) + _MARGIN, side + _FONT + 3 * _MARGIN), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(_FONT)
    for i, (caption, pixels) in enumerate(pictures.items()):
        left = _MARGIN + i * (side + _MARGIN)
        draw.text((left, _MARGIN), caption, "black", font)
        enlarged = to_pillow(pixels).resize((side, side), Image.Resampling.NEAREST)
        sheet.paste(enlarged, (left, _FONT + 2 * _MARGIN))
    return np.asarray(sheet, dtype=np.float32) / np.float32(255)
