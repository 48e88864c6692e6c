"""What the page does with a photograph, within limits. Knows nothing of browsers."""

import os
import shutil
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from PIL import Image

from spikingir.errors import SpikingIRError
from spikingir.restoration.catalogue import Model, model_names
from spikingir.restoration.choice import Chooser, Device, Wishes
from spikingir.restoration.images import Photo, default_output, read_image, write_image
from spikingir.restoration.photo import over_white, to_pillow

if TYPE_CHECKING:
    from spikingir.engine import Engine
    from spikingir.restoration.restorer import Restoration
    from spikingir.restoration.tiling import Progress
    from spikingir.spiking.network import Schedule

AUTO = "auto"
"""Stands for the denoiser that is nearest to the noise, and for noise that is estimated."""

TRAINED = "trained"
"""Stands for the schedule that a model was trained on."""

SCHEDULES = (TRAINED, "phased", "clocked")

MAX_SIGMA = 255.0

FORGOTTEN_AFTER = 3600
"""Seconds after which photographs and results are deleted."""

_TASK_WORDS = {"denoise": "denoised", "dehaze": "dehazed"}
_PREVIEW = 2000  # longest side of the pictures to look at, in pixels; a browser on a phone holds no 40 megapixels
_RESULT = "result-"  # begins the name of each result's folder
_LOADED = 4  # combinations of model, schedule and T that stay in memory


class RequestError(SpikingIRError):
    """What was asked for cannot be done; the message is one sentence for the person who asked."""


@dataclass(frozen=True)
class Limits:
    """What one visitor may ask of the machine.

    Attributes:
        megabytes: Largest file that may be sent, in 2**20 bytes.
        megapixels: Largest photograph, in millions of pixels; a file of few bytes can hold a huge one.
        waiting: Requests that may wait while one is worked on; further ones are turned away.
        time_steps: Largest ``T``.
    """

    megabytes: int = 64
    megapixels: float = 40.0
    waiting: int = 10
    time_steps: int = 64


@dataclass(frozen=True)
class Answer:
    """What a visitor gets.

    Attributes:
        file: The restored photograph, in the format, depth and with the metadata of the one that was sent.
        before: Picture of the photograph to look at, 8 bits, of 2000 pixels at most on its longest side; None where
            nobody looks.
        after: Picture of the restored one, likewise.
        report: Size, model, time, spikes, energy, firing rates and notes, as JSON has them.
    """

    file: Path
    before: Path | None
    after: Path | None
    report: dict[str, Any]


class Service:
    """Restores what visitors send.

    Args:
        folder: Where results go, each in a folder of its own.
        models: Names or paths of the models on offer; those that ship unless given.
        limits: What a visitor may ask for.
        device: Where the networks run.
        engine: What runs them on the CPU.

    Attributes:
        models: The models on offer, by the names that visitors choose from.

    Raises:
        ModelError: There is no such model, or two have the same name.
    """

    def __init__(
        self,
        folder: Path,
        models: Sequence[str] = (),
        *,
        limits: Limits | None = None,
        device: Device = "auto",
        engine: "Engine" = "auto",
    ) -> None:
        from spikingir.restoration.pretrained import open_model

        self.folder = folder
        self.limits = limits or Limits()
        self._device: Device = device
        self._engine: Engine = engine
        self._places: dict[str, str] = {}
        self.models: dict[str, Model] = {}
        for place in models or model_names():
            model = open_model(place)
            if model.name in self.models:
                raise RequestError(f"two models are called {model.name}; offer one of them, or rename its folder")
            self.models[model.name], self._places[model.name] = model, place
        self._ships_denoiser = not models and any(model.task == "denoise" for model in self.models.values())
        # visitors must not fill the memory with networks
        self._chooser = lru_cache(_LOADED)(Chooser)
        # a client that cancels frees its place in the queue of the page, while the work goes on
        self._turn = threading.Lock()

    @property
    def choices(self) -> dict[str, str]:
        """What visitors may choose, by the words that they read."""
        automatic = {"Noise: the model for its level": AUTO} if self._ships_denoiser else {}
        tasks = {"denoise": "Noise", "dehaze": "Haze"}
        return automatic | {f"{tasks[model.task]}: {name}": name for name, model in self.models.items()}

    def restore(
        self,
        path: str | os.PathLike[str] | None,
        model: str = AUTO,
        sigma: str | float = AUTO,
        time_steps: float | None = 0,
        schedule: str = TRAINED,
        *,
        pictures: bool = True,
        progress: "Progress" = lambda done, total: None,
    ) -> Answer:
        """Restore a photograph, one at a time. Results that are older than an hour are deleted before.

        Args:
            path: Its file; the name gives that of the result.
            model: One of ``choices``.
            sigma: Where the model is ``auto``: noise level on the 0..255 scale, or ``auto`` to estimate it.
            time_steps: ``T``, a whole number; 0 or None is as the model was trained.
            schedule: One of ``SCHEDULES``.
            pictures: Whether pictures to look at are made.
            progress: Told how many tiles are done, and of how many.

        Raises:
            RequestError: There is no photograph, or what was asked for is beyond choices and limits.
            ImageError: The file cannot be read, or holds too many pixels.
            ModelError: The model cannot run like that.
            MemoryError: There is not enough memory even for small tiles.
        """
        if not path:
            raise RequestError("there is no photograph yet; choose one first")
        path = Path(path)
        wishes = self._wishes(model, sigma, time_steps, schedule)
        with self._turn:
            self._forget()
            return self._restore(path, model, wishes, pictures, progress)

    def _forget(self) -> None:
        """Delete old results: those that were cancelled, or whose pictures nobody asked for, are known to no page."""
        for result in self.folder.glob(f"{_RESULT}*"):
            with suppress(OSError):
                if time.time() - result.stat().st_mtime > FORGOTTEN_AFTER:
                    shutil.rmtree(result)

    def _restore(self, path: Path, model: str, wishes: Wishes, pictures: bool, progress: "Progress") -> Answer:
        photo = self._read(path)
        choice = self._chooser(wishes)(photo)
        restored, took = choice.restorer.trace(photo, progress=progress)
        task = self.models[choice.model if model == AUTO else model].task
        here = Path(tempfile.mkdtemp(prefix=_RESULT, dir=self.folder))
        try:
            file = here / default_output(path.name, _TASK_WORDS[task])
            lost = write_image(restored, file)
            before = _write_preview(photo, here / "before.png") if pictures else None
            after = _write_preview(restored, here / "after.png") if pictures else None
        except BaseException:
            shutil.rmtree(here, ignore_errors=True)
            raise
        found = _measured(took)
        report = {
            "file": file.name,
            "width": photo.pixels.shape[1],
            "height": photo.pixels.shape[0],
            "bits": photo.bits,
            "model": choice.model if model == AUTO else model,
            "task": task,
            "schedule": took.trace.schedule,
            "time_steps": took.trace.time_steps,
            "sigma": choice.sigma,
            **found,
            "notes": [*choice.notes, *choice.photo_notes, *photo.notes, *lost],
        }
        return Answer(file, before, after, report)

    def _wishes(self, model: str, sigma: str | float, time_steps: float | None, schedule: str) -> Wishes:
        """What was asked for, if it may be."""
        if model not in self.choices.values():
            raise RequestError(f"there is no model {model!r} here; expected one of {', '.join(self.choices.values())}")
        if schedule not in SCHEDULES:
            raise RequestError(f"the schedule is {schedule!r}; expected one of {', '.join(SCHEDULES)}")
        most = self.limits.time_steps
        try:
            time_steps = float(time_steps or 0)  # an emptied field is None
        except (TypeError, ValueError, OverflowError):
            raise RequestError(f"{time_steps!r} time steps were asked for; expected a whole number") from None
        if not (0 <= time_steps <= most and time_steps == int(time_steps)):
            raise RequestError(
                f"{time_steps:g} time steps were asked for; expected a whole number up to {most}, or 0 for as trained"
            )
        return Wishes(
            self._places.get(model, AUTO),
            _level(sigma) if model == AUTO else None,
            int(time_steps) or None,
            None if schedule == TRAINED else cast("Schedule", schedule),
            device=self._device,
            engine=self._engine,
        )

    def _read(self, path: Path) -> Photo:
        try:
            size = path.stat().st_size
        except FileNotFoundError:
            raise RequestError("the photograph has been deleted meanwhile; send it again") from None
        if size > self.limits.megabytes * 2**20:
            raise RequestError(
                f"the file has {size / 2**20:.1f} MiB; expected at most {self.limits.megabytes}: give a smaller one"
            )
        return read_image(path, max_pixels=int(self.limits.megapixels * 1e6))


def _level(sigma: str | float) -> float | Literal["auto"]:
    if sigma == AUTO:
        return "auto"
    try:
        level = float(sigma)
    except (TypeError, ValueError, OverflowError):
        level = -1.0
    if not 0 <= level <= MAX_SIGMA:
        raise RequestError(f"the noise level is {sigma!r}; expected auto, or a number from 0 to {MAX_SIGMA:g}")
    return level


def _measured(took: "Restoration") -> Mapping[str, Any]:
    names = ("seconds", "spikes", "spikes_per_neuron", "synaptic_operations", "ann_mj", "snn_mj")
    return {name: getattr(took, name) for name in names} | {"firing_rates": took.trace.firing_rates()}


def _write_preview(photo: Photo, path: Path) -> Path:
    """A picture for the browser, in the colours of the photograph's profile."""
    pixels = photo.pixels if photo.alpha is None else over_white(photo.pixels, photo.alpha)
    image = to_pillow(pixels)
    image.thumbnail((_PREVIEW, _PREVIEW), Image.Resampling.LANCZOS)
    image.save(path, icc_profile=photo.icc, compress_level=1)
    return path
