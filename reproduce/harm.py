"""Whether the defaults of ``spikingir denoise`` and ``spikingir dehaze`` harm photographs that need no help.

Every photograph goes the way that the commands take it (:mod:`spikingir.restoration.batch`), with their default model,
and is compared as it would be written, in 8 bits.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spikingir.data.folders import list_images
from spikingir.data.polyu import list_polyu
from spikingir.data.testsets import spread
from spikingir.photo.formats import FORMATS
from spikingir.photo.images import encode_image, read_image
from spikingir.photo.photo import Photo, to_samples
from spikingir.restoration.batch import restore
from spikingir.restoration.choice import AUTO, Chooser, Wishes
from spikingir.tasks import DEHAZE, DENOISE, Task
from spikingir.zoo.catalogue import default_model

Samples = NDArray[np.uint8]

COUNT = 40
"""Photographs of a set that are looked at, spread evenly over it."""

HELD_OUT = ("Canon600D", "Sony")
"""Cameras of PolyU that no network here was trained on."""

_JPEG = 90
_ORDINARY = 150


@dataclass(frozen=True)
class Subject:
    """A photograph, and what it should look like where that is known."""

    name: str
    photo: Photo
    clean: Photo | None = None


@dataclass(frozen=True)
class Change:
    """What a command did to a photograph.

    Attributes:
        name: Of the photograph.
        finding: What it says that it found.
        itself: PSNR in dB of the result to the photograph; infinite where they are the same.
        gain: By how many dB the result is nearer to the clean photograph; None where that is not known.
        clipped: Share of the values that are 0 or 255 now and were not before.
        brightness: Mean of the result over that of the photograph.
    """

    name: str
    finding: str
    itself: float
    gain: float | None
    clipped: float
    brightness: float


@dataclass(frozen=True)
class Bar:
    """A bound that every photograph of a set must keep.

    Attributes:
        words: What is bounded.
        value: It, of a change.
        least: The least that it may be, or None.
        most: The most that it may be, or None.
    """

    words: str
    value: Callable[[Change], float]
    least: float | None = None
    most: float | None = None

    def holds(self, change: Change) -> bool:
        """Whether a change keeps it."""
        value = self.value(change)
        return (self.least is None or value >= self.least) and (self.most is None or value <= self.most)

    def worst(self, changes: Sequence[Change]) -> Change:
        """The change that comes nearest to breaking it, or breaks it most."""
        return (min if self.most is None else max)(changes, key=self.value)


@dataclass(frozen=True)
class HarmSet:
    """Photographs that a command must not harm.

    Attributes:
        words: What they are.
        task: Which command.
        subjects: Reads them from the image collection, one after the other.
        bars: What must hold for each.
    """

    words: str
    task: Task
    subjects: Callable[[Path], Iterator[Subject]]
    bars: tuple[Bar, ...]


def change(subject: Subject, chooser: Chooser) -> Change:
    """What a command does to a photograph."""
    choice = chooser(subject.photo)
    restored, finding, _ = restore(choice, subject.photo)
    before = _samples(subject.photo)
    after = before if restored is None else _samples(restored)
    clean = None if subject.clean is None else _samples(subject.clean)
    ends = (after == 0) | (after == 255)
    return Change(
        subject.name,
        str(finding),
        _psnr(after, before),
        None if clean is None else _psnr(after, clean) - _psnr(before, clean),
        float((ends & (before != 0) & (before != 255)).mean()),
        float(after.mean() / max(before.mean(), 1)),
    )


def measure(harm_set: HarmSet, root: Path, *, tell: Callable[[str], object] = lambda name: None) -> list[Change]:
    """What the command of a set does to its photographs.

    Args:
        harm_set: The set.
        root: Folder of the image collection.
        tell: Told each photograph's name when it is done.

    Raises:
        DataError: The collection lacks it.
    """
    chooser, changes = Chooser(Wishes(AUTO, task=harm_set.task.name)), []
    for subject in harm_set.subjects(root):
        changes.append(change(subject, chooser))
        tell(subject.name)
    return changes


def table(measured: dict[str, list[Change]], version: str, command: str) -> str:
    """The page docs/harm.md."""
    lines = [
        "# What the defaults leave alone",
        "",
        f"`{command}`, version {version}. Every photograph goes through `spikingir denoise` or `spikingir dehaze` with "
        "their default models, as anybody would run them, and is compared as it is written, in 8 bits. The last column "
        "counts photographs that break the bound.",
        "",
        "| photographs | model | count | bound on each | worst | mean | broken |",
        "|---|---|---:|---|---:|---:|---:|",
    ]
    for name, changes in measured.items():
        harm_set = SETS[name]
        for bar in harm_set.bars:
            limits = [f"at least {bar.least:g}" if bar.least is not None else ""]
            limits += [f"at most {bar.most:g}" if bar.most is not None else ""]
            worst = bar.worst(changes)
            values = [value for value in map(bar.value, changes) if math.isfinite(value)]
            mean = f"{np.mean(values):.3g}" if values else "-"
            broken = sum(not bar.holds(one) for one in changes)
            lines.append(
                f"| {harm_set.words} | {default_model(harm_set.task)} | {len(changes)} | {bar.words} "
                f"{' and '.join(filter(None, limits))} | {bar.value(worst):.3g} ({worst.name}) | {mean} | {broken} |"
            )
    kept = {
        name: sum(one.finding.startswith("no ") for one in changes) for name, changes in measured.items() if changes
    }
    lines += [
        "",
        "Nothing was found, so that the photograph came back as it was: "
        + "; ".join(f"{SETS[name].words}: {count} of {len(measured[name])}" for name, count in kept.items())
        + ". Means leave these out where their PSNR to themselves is infinite.",
    ]
    return "\n".join(lines) + "\n"


def _samples(photo: Photo) -> Samples:
    samples: Samples = to_samples(photo.samples, None, 8).astype(np.uint8)
    return samples


def _psnr(one: Samples, other: Samples) -> float:
    error = float(np.square(one.astype(np.float64) - other).mean())
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


def _clean(folder: str, count: int, jpeg: bool, root: Path) -> Iterator[Subject]:
    paths = list_images(root / folder)
    for path in (paths[i] for i in spread(len(paths), count)):
        photo = read_image(path)
        if jpeg:
            photo = read_image(encode_image(photo, "photo.jpg", format=FORMATS["jpeg"], quality=_JPEG)[0])
        yield Subject(path.stem, photo)


def _polyu(root: Path) -> Iterator[Subject]:
    for camera, files in list_polyu(root / "denoise/polyu").items():
        if camera in HELD_OUT:
            for noisy, clean in files:
                yield Subject(noisy.stem, read_image(noisy), read_image(clean))


def _gain(one: Change) -> float:
    return -math.inf if one.gain is None else one.gain


def _away(one: Change) -> float:
    """Factor by which the brightness changes, up or down."""
    return max(one.brightness, 1 / max(one.brightness, 1e-6))


_SAME_LIGHT = (
    Bar("values newly at 0 or 255, %:", lambda one: 100 * one.clipped, most=1.0),
    Bar("mean brightness changed by a factor of", _away, most=1.6),
)


def _itself(least: float) -> Bar:
    return Bar("PSNR to itself, dB:", lambda one: one.itself, least=least)


SETS: dict[str, HarmSet] = {
    "clean": HarmSet(
        "clean photographs, CBSD68", DENOISE, partial(_clean, "denoise/cbsd68", COUNT, False), (_itself(40),)
    ),
    "clean-jpeg": HarmSet(
        f"the same, as JPEG of quality {_JPEG}",
        DENOISE,
        partial(_clean, "denoise/cbsd68", COUNT, True),
        (_itself(40),),
    ),
    "polyu": HarmSet(
        f"noise of cameras, PolyU, {' and '.join(HELD_OUT)}",
        DENOISE,
        _polyu,
        (Bar("gain against the clean photograph, dB:", _gain, least=-0.1),),
    ),
    "clear": HarmSet(
        "clear photographs, SOTS outdoor",
        DEHAZE,
        partial(_clean, "dehaze/sots_outdoor/gt", COUNT, False),
        (_itself(30), *_SAME_LIGHT),
    ),
    "ordinary": HarmSet(
        "ordinary photographs, BSDS500",
        DEHAZE,
        partial(_clean, "denoise/bsds500_color_train", _ORDINARY, False),
        (_itself(30),),
    ),
    "hazy": HarmSet("real haze, RTTS and others", DEHAZE, partial(_clean, "dehaze/real", COUNT, False), _SAME_LIGHT),
}
"""What must not be harmed, by the names that ``python -m reproduce harm`` takes."""
