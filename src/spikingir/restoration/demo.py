"""The demonstration: a real photograph, degraded, restored by a network that ships, measured."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from spikingir.data.samples import Sample
from spikingir.measures import psnr
from spikingir.photo.images import check_output, write_image
from spikingir.photo.photo import Photo, to_pillow
from spikingir.restoration.restorer import Restoration, Restorer
from spikingir.restoration.sigma import model_for
from spikingir.restoration.tiling import Progress
from spikingir.tasks import DENOISE, TaskName, find_task
from spikingir.zoo.catalogue import default_model

_MARGIN, _FONT, _WIDTH = 12, 18, 384


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
    task: TaskName = DENOISE.name,
    overwrite: bool = False,
    progress: Progress = lambda done, total: None,
) -> Demo:
    """Restore a task's sample photograph, with Gaussian noise of sigma 25 or with haze, and write the pictures.

    Args:
        folder: Where the pictures go; made if need be.
        restorer: What restores it; the model that ships for the sample unless given, see :func:`demo_model`.
        task: What is to be removed.
        overwrite: Whether files of the same names are replaced.
        progress: Told how many tiles are done, and of how many.

    Raises:
        ModelError: The model has not shipped.
        ImageError: A picture cannot be written, or is there already.
        OSError: The folder cannot be made.
    """
    sample = find_task(task).degradation().sample()
    restorer = Restorer.from_pretrained(demo_model(task, sample)) if restorer is None else restorer
    folder.mkdir(parents=True, exist_ok=True)
    paths = {name: folder / f"{name}.png" for name in ("original", sample.word, "restored", "comparison")}
    for path in paths.values():
        check_output(path, overwrite=overwrite)
    level = sample.sigma if restorer.takes_level else None
    restored, restoration = restorer.trace(sample.degraded, sigma=level, progress=progress)
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


def demo_model(task: TaskName, sample: Sample) -> str:
    """Name of the model that restores a sample: that for its noise level, or else the default of the task."""
    return default_model(find_task(task)) if sample.sigma is None else model_for(sample.sigma, task, colour=True).name


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
