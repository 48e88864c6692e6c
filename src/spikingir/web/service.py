"""What the page does with a photograph, within limits. Knows nothing of browsers."""

import io
import re
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

import numpy as np
from PIL import Image

from spikingir.errors import SpikingIRError
from spikingir.photo.formats import HEAD, RAISE_LIMIT, SUFFIXES, ImageError, format_of
from spikingir.photo.images import Photo, default_output, encode_image, read_image
from spikingir.photo.photo import Samples, to_samples, unit_samples
from spikingir.restoration.batch import Options, Outcome, Progress, as_record, encode_result, restore
from spikingir.restoration.choice import Chooser, Device, Wishes
from spikingir.tasks import DENOISE, RENAMED
from spikingir.zoo.catalogue import Model, ModelError, model_names

if TYPE_CHECKING:
    from spikingir.deploy.engine import Engine
    from spikingir.spiking.network import Schedule

AUTO: Literal["auto"] = "auto"
"""Stands for the denoiser that is nearest to the noise, and for noise that is estimated."""

TRAINED = "trained"
"""Stands for the schedule that a model was trained on."""

SCHEDULES = (TRAINED, "phased", "clocked")

MAX_SIGMA = 255.0

PICTURE = 2000
"""Longest side of a picture to look at, in pixels: a browser on a phone holds no 40 megapixels twice."""

Side = Literal["before", "after"]

_TOLD = (  # of what the command line says of a photograph
    "model",
    "sigma",
    "finding",
    "found",
    "removed_rms",
    "bands",
    "copied",
    "seconds",
    "megapixels",
    "spikes",
    "spikes_per_neuron",
    "synaptic_operations",
    "snn_mj",
    "ann_mj",
    "notes",
)
_ASK = "or ask who serves this page to allow more (--max-megapixels)"
_LOADED = 4  # combinations of model, schedule and T that stay in memory
_NAME = 120  # characters of a name that are kept: with what is added, in any script, a file system takes it
_NOT_IN_NAMES = re.compile(r'[\x00-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069<>:"|?*]')


class RequestError(SpikingIRError):
    """What was asked for cannot be done; the message is one sentence for the person who asked."""


class GoneError(RequestError):
    """The photograph is there no more, or never was."""


@dataclass(frozen=True)
class Limits:
    """What visitors may ask of the machine.

    Attributes:
        megabytes: Largest file that may be sent, in 2**20 bytes.
        megapixels: Largest photograph, in millions of pixels; a file of few bytes can hold a huge one.
        waiting: Photographs that may wait while one is worked on; further ones are turned away.
        time_steps: Largest ``T``.
        kept_megabytes: What all photographs and results together may take on the disk, in 2**20 bytes; beyond that
            the oldest are deleted.
        minutes: How long a photograph and its result are kept.
    """

    megabytes: int = 64
    megapixels: float = 64.0
    waiting: int = 10
    time_steps: int = 64
    kept_megabytes: int = 2048
    minutes: int = 60


class Box(NamedTuple):
    """A part of a photograph, in pixels."""

    left: int
    top: int
    width: int
    height: int


@dataclass(frozen=True)
class Answer:
    """What a visitor gets.

    Attributes:
        photo: The file that was sent; what is kept for later lies beside it.
        name: Name of the restored file.
        icc: Colour profile of the pictures, or None.
        report: What was found and done, size, model, time, spikes, energy, firing rates and notes, as JSON has them.
    """

    photo: Path
    name: str
    icc: bytes | None
    report: dict[str, Any]


class Service:
    """Restores what visitors send.

    Args:
        models: Names or paths of the models on offer; those that ship unless given.
        limits: What a visitor may ask for.
        device: Where the networks run.
        engine: What runs them on the CPU.

    Attributes:
        models: The models on offer, by the names that visitors choose from.

    Raises:
        ModelError: There is no such model, or none at all.
        RequestError: Two models have the same name.
    """

    def __init__(
        self,
        models: Sequence[str] = (),
        *,
        limits: Limits | None = None,
        device: Device = "auto",
        engine: "Engine" = "auto",
    ) -> None:
        from spikingir.zoo.pretrained import open_model

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
        if not self.models:
            raise ModelError("no model ships here; name one of your own")
        self._ships_denoiser = not models and any(model.task == "denoise" for model in self.models.values())
        # visitors must not fill the memory with networks
        self._chooser = lru_cache(_LOADED)(Chooser)
        # nor with photographs: one is restored, and one encoded, at a time
        self._turn, self._pen = threading.Lock(), threading.Lock()

    def offers(self) -> list[dict[str, Any]]:
        """What visitors may choose, as JSON has it; the first of each task is what they get unless they choose."""
        automatic = [{"name": AUTO, "task": "denoise", "about": "usual: finds the noise by itself"}]
        models = [{"name": name, "task": model.task, "about": model.purpose} for name, model in self.models.items()]
        return (automatic if self._ships_denoiser else []) + models

    def check(
        self,
        model: str | None = None,
        sigma: str | float = AUTO,
        time_steps: str | float = 0,
        schedule: str = TRAINED,
    ) -> Wishes:
        """What was asked for, if it may be.

        Args:
            model: Name of one of the ``offers``; the first of them unless given.
            sigma: Where the model is ``auto``: noise level on the 0..255 scale, or ``auto`` to estimate it.
            time_steps: ``T``, a whole number; 0 is as the model was trained.
            schedule: One of ``SCHEDULES``.

        Raises:
            RequestError: It is beyond choices and limits.
        """
        names = [offer["name"] for offer in self.offers()]
        model = names[0] if model is None else model
        if model not in names:
            raise RequestError(f"there is no model {model!r} here; expected one of {', '.join(names)}")
        if schedule not in SCHEDULES:
            raise RequestError(f"the schedule is {schedule!r}; expected one of {', '.join(SCHEDULES)}")
        most = self.limits.time_steps
        steps = _number(time_steps)
        if steps is None or not (0 <= steps <= most and steps == int(steps)):
            raise RequestError(
                f"{time_steps} time steps were asked for; expected a whole number up to {most}, or 0 for as trained"
            )
        level: float | Literal["auto"] | None = AUTO if sigma == AUTO else _number(sigma)
        if level is None or (level != AUTO and not 0 <= level <= MAX_SIGMA):
            raise RequestError(f"the noise level is {sigma!r}; expected auto, or a number from 0 to {MAX_SIGMA:g}")
        if sigma != AUTO and model != AUTO:
            raise RequestError(f"a noise level goes with the model auto; expected it without one for {model}")
        return Wishes(
            self._places.get(model, AUTO),
            level if model == AUTO and level != AUTO else None,
            int(steps) or None,
            None if schedule == TRAINED else cast("Schedule", schedule),
            device=self._device,
            engine=self._engine,
            task=DENOISE.name if model == AUTO else self.models[model].task,
        )

    def restore(
        self,
        path: Path,
        wishes: Wishes,
        name: str = "",
        *,
        progress: Progress = lambda done, total: None,
    ) -> Answer:
        """Restore a photograph, one at a time. What is needed to look at the result goes into the file's folder.

        Args:
            path: Its file, in a folder of its own.
            wishes: What :meth:`check` made of the wishes.
            name: What the visitor calls the file, which gives the name of the result.
            progress: Told how much of the photograph is done, and of how much.

        Raises:
            ImageError: The file cannot be read, or holds too many pixels.
            ModelError: The model cannot run like that.
            MemoryError: There is not enough memory even for small tiles.
            OSError: The disk is full.
        """
        name = plain_name(name)
        with self._turn:
            photo = self._read(path, name or "the photograph")
            start = time.perf_counter()
            choice = self._chooser(wishes)(photo)
            restored, finding, cost = restore(choice, photo, traced=True, progress=progress)
            seconds = time.perf_counter() - start
            shown = next((name for name, place in self._places.items() if place == choice.model), choice.model)
            file = default_output(name or f"photo{_suffix(path)}", choice.task.done)
            format = SUFFIXES[file.suffix.lower()]
            written = encode_result(path.read_bytes(), photo, restored, file, format, finding, Options())
            path.with_name("result").write_bytes(written.content)
            for side, picture in (("before", photo), ("after", photo if restored is None else restored)):
                np.save(path.with_name(f"{side}.npy"), to_samples(picture.samples, picture.alpha, photo.bits))
        config = choice.restorer.network.config
        outcome = Outcome(
            file.name,
            size=photo.size,
            model=shown,
            sigma=choice.sigma,
            finding=written.finding,
            found=finding.found,
            removed=finding,
            copied=written.copied,
            seconds=seconds,
            cost=cost,
            model_notes=tuple(
                note for note in choice.notes if note not in RENAMED.values()
            ),  # no name of its own before
            notes=(*choice.photo_notes, *written.notes),
        )
        record = as_record(outcome)
        report = {
            "file": file.name,
            "bytes": len(written.content),
            "width": photo.size[0],
            "height": photo.size[1],
            "bits": photo.bits,
            "task": choice.task.name,
            "schedule": config.schedule,
            "time_steps": config.time_steps,
            "firing_rates": cost["firing_rates"],
            **{key: record[key] for key in _TOLD if key in record},
        }
        return Answer(path, file.name, photo.icc, report)

    def result(self, answer: Answer, strength: float = 1.0) -> bytes:
        """The restored file, in the format, depth and with the metadata of the one that was sent.

        A strength below 1 leaves some of what would be removed, and takes no new run:

            out = y + s (restored - y)

        with the photograph y and the restored one as they would be written, in 8 or 16 bits: what the page shows
        under its slider.

        Args:
            answer: What :meth:`restore` gave.
            strength: ``s``, from 0, the photograph, to 1, all of what the network makes.

        Raises:
            RequestError: The strength is beyond that, or the photograph is deleted meanwhile.
        """
        if not 0 <= strength <= 1:
            raise RequestError(f"the strength is {strength:g}; expected a number from 0 to 1")
        try:
            if strength == 1 or answer.report["copied"]:
                return answer.photo.with_name("result").read_bytes()
            with self._pen:
                photo = self._read(answer.photo, answer.name)
                restored = np.load(answer.photo.with_name("after.npy"), mmap_mode="r")
                mixed = mix(photo, restored, strength)
                return encode_image(mixed, answer.name)[0]
        except FileNotFoundError:
            raise deleted() from None

    def picture(self, answer: Answer, side: Side, box: Box | None = None) -> bytes:
        """A picture for the browser as PNG, 8 bits, in the colours of the photograph's profile.

        Args:
            answer: What :meth:`restore` gave.
            side: Which of the two.
            box: The part to be seen, pixel for pixel, cut at the photograph's edges; the whole unless given, at most
                ``PICTURE`` pixels long.

        Raises:
            RequestError: The part is outside or too large, or the photograph is deleted meanwhile.
        """
        try:
            samples = np.load(answer.photo.with_name(f"{side}.npy"), mmap_mode="r")
            if box is not None:
                return _png(_part(samples, box), answer.icc)
            kept = answer.photo.with_name(f"{side}.png")
            with self._pen:
                if not kept.exists():
                    image = _png(samples, answer.icc)
                    kept.write_bytes(image)
                return kept.read_bytes()
        except FileNotFoundError:
            raise deleted() from None

    def _read(self, path: Path, name: str) -> Photo:
        try:
            return read_image(path, name=name, max_pixels=int(self.limits.megapixels * 1e6))
        except ImageError as error:  # a visitor gives the command no options
            raise ImageError(str(error).replace(RAISE_LIMIT, _ASK)) from error


def mix(photo: Photo, restored: Samples, strength: float) -> Photo:
    """The photograph, and on it the restored one with the opacity ``strength``.

    Args:
        photo: The photograph y.
        restored: The restored one; an alpha channel of it is ignored.
        strength: ``s`` of ``y + s (restored - y)``.

    Shape:
        ``restored``: (H, W, C), of as many bits as the photograph.
    """
    before, pixels = photo.pixels, unit_samples(restored[..., : photo.samples.shape[2]])
    pixels -= before
    pixels *= np.float32(strength)
    pixels += before
    return replace(photo, samples=pixels)


def plain_name(name: str) -> str:
    """A visitor's name for a file as one that any system takes: no folders, nothing invisible, not too long."""
    name = re.split(r"[/\\]", name)[-1]
    name = _NOT_IN_NAMES.sub("", name).strip(" .")
    stem, dot, suffix = name.rpartition(".")
    return name if len(name) <= _NAME else f"{stem[: _NAME - len(suffix) - 1]}{dot}{suffix}"[:_NAME]


def deleted() -> GoneError:
    """The error that says that a photograph is there no more."""
    return GoneError("the photograph has been deleted meanwhile; send it again")


def _number(text: str | float) -> float | None:
    try:
        return float(text)
    except (TypeError, ValueError, OverflowError):
        return None


def _suffix(path: Path) -> str:
    """The suffix of a file's format, for one that has no name."""
    with path.open("rb") as file:
        return format_of(file.read(HEAD), "the photograph").suffixes[0]


def _part(samples: Samples, box: Box) -> Samples:
    height, width = samples.shape[:2]
    inside = 0 <= box.left < width and 0 <= box.top < height
    if not inside or not 0 < box.width <= PICTURE or not 0 < box.height <= PICTURE:
        raise RequestError(
            f"the part asked for is {box.width} x {box.height} at {box.left}, {box.top}; expected one inside the "
            f"{width} x {height}, of at most {PICTURE} pixels a side"
        )
    return samples[box.top : box.top + box.height, box.left : box.left + box.width]


def _png(samples: Samples, icc: bytes | None) -> bytes:
    """Samples of 8 or 16 bits, with alpha perhaps, as a small PNG on white."""
    if samples.dtype == np.uint16:
        samples = ((samples.astype(np.uint32) + 128) // 257).astype(np.uint8)  # the nearest of 8 bits
    image = Image.fromarray(np.ascontiguousarray(samples[..., 0] if samples.shape[2] == 1 else samples))
    image.thumbnail((PICTURE, PICTURE), Image.Resampling.LANCZOS, reducing_gap=3.0)
    if image.mode in ("LA", "RGBA"):
        white = Image.new(image.mode[:-1], image.size, "white")
        white.paste(image.convert(white.mode), mask=image.getchannel("A"))
        image = white
    file = io.BytesIO()
    image.save(file, "PNG", icc_profile=icc, compress_level=1)
    return file.getvalue()
