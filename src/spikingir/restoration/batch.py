"""Restoring many photographs, of which one that fails stops no other."""

import errno
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from spikingir.errors import UsageError
from spikingir.files import Identity, OutputError, check_replaceable, write_atomically
from spikingir.photo import images
from spikingir.photo.formats import FORMATS, HEAD, Format, ImageError, format_of, format_of_name
from spikingir.photo.images import MAX_PIXELS, check_output, encode_image, read_image, write_content
from spikingir.photo.photo import Photo, over_white, resized, to_samples
from spikingir.restoration.choice import Choice
from spikingir.restoration.findings import BANDS, Finding, find
from spikingir.restoration.jobs import Job, place
from spikingir.zoo.catalogue import ModelError

Progress = Callable[[float, float], None]
"""Told how many megapixels of a photograph are restored, and of how many."""

_GAP = 0.02  # between before and after, of the width
_COSTS = ("spikes", "spikes_per_neuron", "synaptic_operations", "snn_mj", "ann_mj")
_DIGITS = 3  # of levels of 255
FAILURES = (ImageError, ModelError, OutputError, OSError, MemoryError)
"""What stops one photograph, and no other."""


@dataclass(frozen=True)
class Options:
    """How results are written.

    Attributes:
        quality: Quality of JPEG and WebP, 1 to 100; by the photograph unless given, see ``encode_image``.
        overwrite: Whether existing files are replaced; photographs never are.
        strip_metadata: Whether EXIF and XMP data (camera, time, place) are left out. The colour profile stays, as the
            colours depend on it.
        traced: Whether spikes are counted, which takes a little longer.
        max_pixels: Largest photograph that is read.
    """

    quality: int | None = None
    overwrite: bool = False
    strip_metadata: bool = False
    traced: bool = False
    max_pixels: int = MAX_PIXELS


@dataclass(frozen=True)
class Outcome:
    """What became of one photograph; what is not known is None.

    Attributes:
        input: The photograph.
        output: File of the result; None on stdout.
        comparison: File of before and after.
        size: Width and height of the upright photograph.
        model: The model.
        clock: Its schedule and time steps.
        sigma: Noise level on the 0..255 scale, estimated or as given.
        strength: How much of what the network removes was removed.
        finding: What was found in the photograph and what was done, in words.
        found: Whether there was anything to remove.
        removed: What was removed.
        copied: Whether the result has the photograph's own bytes, because nothing was found.
        seconds: Time in the network.
        cost: Where spikes are counted: ``spikes``, ``spikes_per_neuron``, ``synaptic_operations``, the energy
            ``snn_mj`` and ``ann_mj``, see :class:`~spikingir.restoration.restorer.Restoration`; ``firing_rates`` of
            each layer.
        model_notes: What the user should know of the model.
        notes: What was lost in reading and writing, and found out.
        error: What failed, in a sentence.
        done_before: Whether an earlier run left the result, so that nothing was done now.
    """

    input: str
    output: str | None = None
    comparison: str | None = None
    size: tuple[int, int] | None = None
    model: str | None = None
    clock: str | None = None
    sigma: float | None = None
    strength: float | None = None
    finding: str | None = None
    found: bool | None = None
    removed: Finding | None = None
    copied: bool = False
    seconds: float | None = None
    cost: dict[str, Any] = field(default_factory=dict)
    model_notes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    error: str | None = None
    done_before: bool = False


@dataclass(frozen=True)
class Result:
    """A photograph that was restored, or failed to be, and is not written yet.

    Attributes:
        outcome: What became of it so far.
        content: Content of the file of the result; None where it failed.
        comparison: Content of the file of before and after, where one is wanted.
    """

    outcome: Outcome
    content: bytes | None = None
    comparison: bytes | None = None


def restore_all(
    jobs: Sequence[Job],
    choose: Callable[[Photo], Choice],
    options: Options,
    *,
    progress: Progress = lambda done, total: None,
) -> Iterator[Outcome]:
    """Restore photographs one after the other; each outcome comes when it is known.

    Args:
        jobs: The photographs.
        choose: The restorer for a photograph.
        options: How results are written.
        progress: Told how much of a photograph is done.

    Raises:
        ValueError: Whatever is wrong with the model: it would be for every photograph.
    """
    for job in jobs:
        yield _restore(job, choose, options, progress)


def _restore(job: Job, choose: Callable[[Photo], Choice], options: Options, progress: Progress) -> Outcome:
    if (before := done_before(job, options)) is not None:
        return before
    try:
        content = read_content(job, options)
        photo, format = read_job(content, job, options)
        # All that can be wrong is found out before the long work, and before torch is loaded.
        check_outputs(job, options)
    except FAILURES as error:
        return failed(job, error)
    return store(process(content, photo, format, job, choose, options, progress), job, options)


def done_before(job: Job, options: Options) -> Outcome | None:
    """What an earlier run left of a job; None where it is still to be done.

    All its files must be there, hold whole images, and have the names that we give. So what is empty or damaged is no
    result, nor is a file that the user named after ``-o``, which may be that of another photograph.
    """
    if options.overwrite or job.named or job.error is not None or job.source is None or job.target is None:
        return None
    files = [job.target] if job.comparison is None else [job.target, job.comparison]
    if not all(map(os.path.isfile, (job.source, *files))):
        return None
    try:
        sizes = [read_image(file, max_pixels=options.max_pixels).size for file in files]
    except ImageError:
        return None
    comparison = None if job.comparison is None else str(job.comparison)
    return Outcome(job.name, str(job.target), comparison, sizes[0], done_before=True)


def read_content(job: Job, options: Options) -> bytes:
    """What is in the file of a photograph.

    Args:
        job: The job.
        options: What bounds the size of the file.

    Raises:
        ImageError: There is no such photograph, or its file cannot be read.
    """
    if job.error is not None:
        raise ImageError(job.error if job.error.startswith(f"{job.name} ") else f"{job.name}: {job.error}")
    if job.source is None:
        if sys.stdin is None:
            raise ImageError("stdin is closed; expected a photograph from it")
        return images.read_content(sys.stdin.buffer, name="stdin", max_pixels=options.max_pixels)
    return images.read_content(job.source, max_pixels=options.max_pixels)


def read_job(content: bytes, job: Job, options: Options) -> tuple[Photo, Format]:
    """The photograph of a job, and the format of its result.

    Args:
        content: What is in its file.
        job: The job.
        options: What bounds its size.

    Raises:
        ImageError: It cannot be read.
    """
    photo = read_image(content, name="stdin" if job.source is None else job.name, max_pixels=options.max_pixels)
    path = job.target or job.source
    named = format_of(content[:HEAD], job.name) if path is None else format_of_name(path)
    return photo, job.format or named or FORMATS["png"]


def check_outputs(job: Job, options: Options) -> None:
    """Make the folder of a result where it may be made, and check that the result can be written.

    Raises:
        ImageError: It cannot.
        OSError: The folder cannot be made.
    """
    if job.target is None:
        return
    if job.makes_folder:
        job.target.parent.mkdir(parents=True, exist_ok=True)
    check_output(job.target, format=job.format, overwrite=options.overwrite)
    if job.comparison is not None:
        check_output(job.comparison, overwrite=options.overwrite)


def process(
    content: bytes,
    photo: Photo,
    format: Format,
    job: Job,
    choose: Callable[[Photo], Choice],
    options: Options,
    progress: Progress = lambda done, total: None,
) -> Result:
    """Restore a photograph in memory; reads and writes no file of its job.

    Args:
        content: What is in the file of the photograph.
        photo: The photograph.
        format: Format of the result.
        job: What is asked for.
        choose: See :func:`restore_all`.
        options: Likewise.
        progress: Likewise.

    Raises:
        ValueError: Whatever is wrong with the model.
    """
    try:
        choice = choose(photo)
    except MemoryError as error:  # of the noise, which is estimated on the whole photograph
        return Result(replace(failed(job, error), size=photo.size, notes=photo.notes))
    clock = choice.restorer.network.config.clock
    outcome = Outcome(
        job.name,
        size=photo.size,
        model=choice.model,
        clock=clock,
        sigma=choice.sigma,
        strength=choice.strength,
        model_notes=choice.notes,
        notes=choice.photo_notes,
    )
    comparison = None
    try:
        start = time.perf_counter()
        restored, finding, cost = restore(choice, photo, traced=options.traced, progress=progress)
        outcome = replace(outcome, seconds=time.perf_counter() - start, cost=cost)
        written = encode_result(content, photo, restored, job.target or job.name, format, finding, options)
        if job.comparison is not None:
            comparison, _ = encode_image(side_by_side(photo, photo if restored is None else restored), job.comparison)
    except FAILURES as error:
        return Result(replace(outcome, notes=(*photo.notes, *outcome.notes), error=_sentence(error, job)))
    outcome = replace(
        outcome,
        finding=written.finding,
        found=finding.found,
        removed=finding,
        copied=written.copied,
        notes=(*outcome.notes, *written.notes),
    )
    return Result(outcome, written.content, comparison)


def restore(
    choice: Choice, photo: Photo, *, traced: bool = False, progress: Progress = lambda done, total: None
) -> tuple[Photo | None, Finding, dict[str, Any]]:
    """Restore a photograph, unless there is nothing to remove.

    Args:
        choice: What restores it.
        photo: The photograph.
        traced: Whether spikes are counted.
        progress: Told how much of the photograph is done.

    Returns:
        The restored photograph, in whole numbers, or None where it stays as it was: less than half a level was found,
        and nobody said how noisy it is. What was found. Where spikes are counted, what it cost.
    """
    restorer, level, strength = choice.restorer, choice.level, choice.strength
    megapixels = photo.size[0] * photo.size[1] / 1e6

    def tiles(done: int, total: int) -> None:
        progress(megapixels * done / total, megapixels)

    cost: dict[str, Any] = {}
    if traced:
        restored, took = restorer.trace(photo, sigma=level, strength=strength, progress=tiles)
        cost = {name: getattr(took, name) for name in _COSTS} | {"firing_rates": took.trace.firing_rates()}
    else:
        restored = restorer(photo, sigma=level, strength=strength, progress=tiles)
    before: NDArray[Any] = photo.samples
    after = cast(NDArray[np.float32], restored.samples)
    same = before.shape == after.shape
    if not same:  # larger, or of other channels
        import torch

        from spikingir.restoration.scaling import as_large

        pair = [torch.from_numpy(samples).permute(2, 0, 1)[None] for samples in (before, after)]
        before = as_large(pair[0], pair[1])[0].permute(1, 2, 0).numpy()
    finding = find(before, after, choice.task.removes, restorer.share(strength))
    kept = same and (finding.level is None or (not finding.found and not choice.told))
    if kept:
        return None, finding, cost
    # a large photograph in float32 takes more memory than all that is needed to write it
    return replace(restored, samples=to_samples(after, None, restored.bits)), finding, cost


@dataclass(frozen=True)
class Written:
    """The file of a result.

    Attributes:
        content: What is in it.
        finding: What was found and done, in words.
        copied: Whether these are the photograph's own bytes.
        notes: What was lost in reading and writing.
    """

    content: bytes
    finding: str
    copied: bool
    notes: tuple[str, ...]


def encode_result(
    content: bytes,
    photo: Photo,
    restored: Photo | None,
    name: str | os.PathLike[str],
    format: Format,
    finding: Finding,
    options: Options,
) -> Written:
    """The file of a result; where nothing was found, that of the photograph if it is what was asked for.

    Args:
        content: What is in the file of the photograph.
        photo: The photograph.
        restored: The restored one; None where it stays as it was.
        name: Name of the result.
        format: Format of the result.
        finding: What was found.
        options: How results are written. A quality, or metadata that is to be left out, needs a new file.

    Raises:
        ImageError: The pixels cannot be encoded.
    """
    as_is = format_of(content[:HEAD], str(name)) == format and options.quality is None and not options.strip_metadata
    if restored is None and as_is:
        return Written(content, f"{finding}; the file is copied as it is", True, ())
    if restored is None:
        restored, said = photo, f"{finding}; the picture is written as it was"
    else:
        said = f"{finding.amount}; {finding.did}"
    if options.strip_metadata:
        restored = replace(restored, exif=None, xmp=None)
    encoded, lost = encode_image(restored, name, format=format, quality=options.quality)
    return Written(encoded, said, False, (*photo.notes, *lost))


def store(result: Result, job: Job, options: Options) -> Outcome:
    """Write what a job asks for, and say what became of it.

    Raises:
        BrokenPipeError: Nobody reads stdout any more: no matter of this photograph.
    """
    outcome = result.outcome
    if result.content is None:
        return outcome
    try:
        if job.target is None:
            _to_stdout(result.content)
        else:
            write_content(result.content, job.target, overwrite=options.overwrite)
            outcome = replace(outcome, output=str(job.target))
        if job.comparison is not None and result.comparison is not None:
            write_content(result.comparison, job.comparison, overwrite=options.overwrite)
            outcome = replace(outcome, comparison=str(job.comparison))
    except BrokenPipeError:
        raise
    except FAILURES as error:  # perhaps another run has done it meanwhile
        return done_before(job, options) or replace(outcome, error=_sentence(error, job))
    return outcome


def _to_stdout(content: bytes) -> None:
    try:
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise
    except OSError as error:  # a full disk behind it, say: no fault of the photograph
        raise OutputError(f"the result was not written to stdout: {error.strerror}; send it elsewhere") from error


def failed(job: Job, error: Exception) -> Outcome:
    """What became of a photograph that could not be read or written."""
    return Outcome(job.name, error=_sentence(error, job))


def side_by_side(before: Photo, after: Photo) -> Photo:
    """Both in one picture, on white."""
    shown = [
        photo.pixels if photo.alpha is None else over_white(photo.pixels, photo.alpha) for photo in (before, after)
    ]
    width, height = after.size
    if shown[0].shape != shown[1].shape:  # the photograph was made larger, or coloured
        channels = max(picture.shape[2] for picture in shown)
        planes = [resized(plane, height, width).clip(0, 1) for plane in shown[0].transpose(2, 0, 1)]
        shown = [np.broadcast_to(picture, (height, width, channels)) for picture in (np.stack(planes, 2), shown[1])]
    gap = np.ones((height, math.ceil(_GAP * width), shown[0].shape[2]), np.float32)
    return Photo(np.concatenate([shown[0], gap, shown[1]], axis=1), icc=after.icc)


def check_report(
    path: Path, jobs: Sequence[Job] = (), inputs: frozenset[Identity] = frozenset(), *, overwrite: bool = False
) -> None:
    """Check that :func:`write_report` could write to ``path``, before the work that it tells of.

    Args:
        path: File of the report.
        jobs: The work, none of whose results is the report.
        inputs: All files that are read, none of which is the report.
        overwrite: Whether an existing report is replaced.

    Raises:
        UsageError: The name does not end in .json, or is that of a result.
        OutputError: It is an input, a photograph or a model, see :func:`~spikingir.files.check_replaceable`.
        OSError: The file exists and ``overwrite`` is false, it is a folder, or its own folder is missing.
    """
    if path.suffix != ".json":
        raise UsageError(f"the report {path} is JSON; expected a name that ends in .json")
    results = {place(result) for job in jobs for result in (job.target, job.comparison) if result is not None}
    if place(path) in results:
        raise UsageError(f"{path} is where a result goes, too; give the report another name")
    check_replaceable(path, inputs)
    if not path.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "there is no such folder for the report; make it first", str(path.parent))
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "is a folder; the report is a file", str(path))
    if path.exists() and not overwrite:
        raise FileExistsError(errno.EEXIST, "exists and is kept; give --overwrite to replace it", str(path))


def write_report(path: Path, outcomes: Sequence[Outcome], *, overwrite: bool = False) -> None:
    """Write what became of all photographs as JSON.

    Raises:
        OSError: The file exists and ``overwrite`` is false, or the system refuses to write.
    """
    failed = sum(outcome.error is not None for outcome in outcomes)
    before = sum(outcome.done_before for outcome in outcomes)
    counts = {"done": len(outcomes) - failed - before, "done_before": before, "failed": failed}
    report = {**counts, "images": [as_record(outcome) for outcome in outcomes]}
    content = json.dumps(report, indent=2).encode()
    write_atomically(path, lambda file: file.write(content), overwrite=overwrite)


def as_record(outcome: Outcome) -> dict[str, Any]:
    """What became of a photograph, as JSON has it; see docs/scripts.md."""
    removed = outcome.removed
    record = {
        "input": outcome.input,
        "output": outcome.output,
        "comparison": outcome.comparison,
        "model": outcome.model,
        "clock": outcome.clock,
        "sigma": outcome.sigma,
        "strength": outcome.strength,
        "finding": outcome.finding,
        "found": outcome.found,
        "removed_rms": None if removed is None else _rounded(removed.rms),
        "bands": dict(
            zip(BANDS, (None,) * len(BANDS) if removed is None else map(_rounded, removed.bands), strict=True)
        ),
        "copied": outcome.copied,
        "done_before": outcome.done_before,
        "seconds": outcome.seconds,
        "size": outcome.size,
        "megapixels": None if outcome.size is None else outcome.size[0] * outcome.size[1] / 1e6,
        "notes": [*outcome.model_notes, *outcome.notes],
        "error": outcome.error,
    }
    return record | {name: outcome.cost[name] for name in _COSTS if name in outcome.cost}


def _rounded(rms: float | None) -> float | None:
    return None if rms is None else round(rms, _DIGITS)


def _sentence(error: Exception, job: Job) -> str:
    if isinstance(error, ImageError | OutputError):  # names its file
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or job.name}: {error.strerror}"
    if isinstance(error, MemoryError):
        return f"{job.name}: there is not enough memory for this; give a smaller image"
    return f"{job.name}: {error}"
