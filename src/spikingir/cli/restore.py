"""Commands that restore photographs."""

import json
import logging
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TextIO

from cyclopts import Parameter
from cyclopts.validators import Number

from spikingir.cli.console import STREAM, CommandError, complain, is_new, printable, progress_bar, restoring_bars, say
from spikingir.cli.evaluate import MAX_MEGAPIXELS, MaxMegapixels
from spikingir.errors import UsageError
from spikingir.tasks import DENOISE, RENAMED, TASKS, Task
from spikingir.zoo.catalogue import SHIPPED, default_model, model_files

if TYPE_CHECKING:
    from spikingir.restoration.batch import Outcome

_DEMO = Path("demo")


def _at_least(least: int) -> Callable[[object, str | float | None], None]:
    # Number, cyclopts' own, stumbles over words such as auto
    def check(kind: object, value: str | float | None) -> None:
        if isinstance(value, int | float) and not least <= value < math.inf:
            raise ValueError(f"Must be >= {least}, and finite.")

    return check


_Strength = Annotated[float, Parameter(validator=_at_least(0))]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class RestoreOptions:
    """What all commands that restore photographs take.

    Attributes:
        out: Folder for the results if it is one, ends in a slash or there are several; else the file to write, or - for
            stdout. Unless given, the result goes beside the photograph, named by what was done: that of photo.png is
            photo_denoised.png or photo_dehazed.png.
        time_steps: Time steps of the spiking network; as the model was made unless given.
        schedule: clocked, phased, or a number of steps that each layer waits; as the model was made unless given.
        device: Where the network runs; auto takes a CUDA device where there is one.
        engine: native follows the spikes on the CPU, torch simulates all of them, with the same result; auto is native
            where that can be done.
        tile: Side of the tiles in pixels; auto goes by the memory, off takes the photograph as a whole.
        format: Format of the results; that of the photograph, or of the name after -o, unless given.
        quality: Quality of JPEG and WebP, 1 to 100; WebP loses nothing at 100. Unless given it is 95,
            and a WebP file without loss stays without.
        max_megapixels: Largest photograph that is read; what takes as much memory or work is bounded by it too.
        overwrite: Replace results that exist, which else are done already; photographs are never replaced.
        strip_metadata: Leave out EXIF and XMP data (camera, place, time); the colour profile stays.
        compare: Also write a picture of before and after, beside the result: such as photo_denoised_compare.png.
        ray: Address of a Ray cluster to share the work: HOST:PORT of its head, ray://HOST:PORT from outside it, auto
            for the one that runs on this machine; or local, for all processors of this machine.
        report: Also write a .json file: time, spikes, energy, notes or error of every photograph.
        json: Print a line of JSON for every photograph on stdout, and nothing else there; docs/scripts.md explains it.
        quiet: Say nothing but errors.
        verbose: Also say what it took: model, time steps, spikes, energy.
    """

    out: Annotated[str | None, Parameter(name=["--out", "-o"])] = None
    time_steps: Annotated[int | None, Parameter(validator=Number(gte=1))] = None
    schedule: Annotated[Literal["clocked", "phased"] | int | None, Parameter(validator=_at_least(0))] = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    engine: Literal["auto", "native", "torch"] = "auto"
    tile: Annotated[Literal["auto", "off"] | int, Parameter(validator=_at_least(1))] = "auto"
    format: Literal["png", "jpeg", "jpg", "tiff", "tif", "webp", "bmp"] | None = None
    quality: Annotated[int | None, Parameter(validator=Number(gte=1, lte=100))] = None
    max_megapixels: MaxMegapixels = MAX_MEGAPIXELS
    overwrite: bool = False
    strip_metadata: bool = False
    compare: bool = False
    ray: str | None = None
    report: Path | None = None
    json: bool = False
    quiet: bool = False
    verbose: bool = False


_DEFAULTS = RestoreOptions()


def restoring_command(task: Task) -> Callable[..., None]:
    """The command of a task, by its name: it restores photographs, and takes ``--sigma`` where that has a level."""

    def at_level(
        photos: list[str],
        /,
        *,
        sigma: Annotated[Literal["auto"] | float | None, Parameter(validator=_at_least(0))] = None,
        model: str | None = None,
        strength: _Strength = 1.0,
        options: RestoreOptions = _DEFAULTS,
    ) -> None:
        _restore(photos, task, model, sigma, strength, options)

    def plain(
        photos: list[str],
        /,
        *,
        model: str | None = None,
        strength: _Strength = 1.0,
        options: RestoreOptions = _DEFAULTS,
    ) -> None:
        _restore(photos, task, model, None, strength, options)

    command, level, above = plain, "", ""
    if task.sigma_of is not None:
        command = at_level
        level = f"""
        sigma: Level of {task.sigma_of}, of 255, or auto to estimate it; unless given, the default model finds what
            there is by itself. A model that is told the level gets it; else the one that ships for the nearest level
            restores."""
        above = ", above 1 more with a model that is told the noise level"
    command.__name__ = command.__qualname__ = task.name
    command.__doc__ = f"""Remove {task.removes} from photographs (PNG, JPEG, TIFF, WebP, BMP), which are never changed.

    Args:
        photos: Photographs, folders of them, patterns such as "*.jpg", or - for stdin.{level}
        model: Name of a model (spikingir models lists them), or a .safetensors file, or a folder of a model;
            {default_model(task)} unless given.
        strength: How much of what the model would remove is removed: 0 nothing, 1 all of it{above}.
        options: The rest.
    """
    return command


def _known_task(kind: object, value: str) -> None:
    if value not in TASKS:
        raise ValueError(f"Must be {' or '.join(TASKS)}.")


def demo(
    *,
    task: Annotated[str, Parameter(validator=_known_task)] = DENOISE.name,
    out: Annotated[Path, Parameter(name=["--out", "-o"])] = _DEMO,
    overwrite: bool = False,
) -> None:
    """Restore a degraded sample photograph and show what it gains and costs.

    Args:
        task: What is to be done, by the name of the command that does it, such as dehaze.
        out: Folder for the pictures; in that of the demo itself, those of an earlier one are replaced.
        overwrite: Replace files of the same names in another folder.
    """
    from spikingir.energy.paper import in_words
    from spikingir.restoration.demo import run_demo

    with progress_bar("restoring") as progress:
        found = run_demo(out, task=task, overwrite=overwrite or out == _DEMO, progress=progress)
    took = found.restoration
    say(f"original    {'':8}  {found.original}")
    say(f"{found.sample.word:11} {found.degraded_db:5.2f} dB  {found.degraded} ({found.sample.how})")
    say(f"restored    {found.restored_db:5.2f} dB  {found.restored} ({found.clock}, {took.seconds:.1f} s)")
    say(f"gain        {found.restored_db - found.degraded_db:5.2f} dB  {found.comparison} shows them side by side")
    say(f"spikes      {took.spikes_per_neuron:5.2f} per neuron")
    say(
        f"energy      {in_words(took.snn_mj)}, against {in_words(took.ann_mj)} of the conventional network "
        "(operations alone, as the paper counts)"
    )


def _restore(
    photos: list[str],
    task: Task,
    model: str | None,
    sigma: "float | Literal['auto'] | None",
    strength: float,
    options: RestoreOptions,
) -> None:
    from spikingir.files import identities
    from spikingir.photo.formats import SUFFIXES
    from spikingir.restoration import batch, jobs
    from spikingir.restoration.choice import AUTO, WHOLE, Chooser, Wishes

    if options.quiet and options.verbose:
        raise UsageError("--quiet and --verbose contradict each other; leave one out")
    names = ["-" if photo == STREAM else photo for photo in photos]
    out = "-" if options.out == STREAM else options.out
    format = None if options.format is None else SUFFIXES[f".{options.format}"]
    keep = [*SHIPPED.glob("*/*"), *([] if model is None else model_files(model))]

    def note(text: str) -> None:
        if not options.quiet:
            complain(f"note: {text}")

    planned = jobs.plan(names, out, task.done, format=format, compare=options.compare, keep=keep, note=note)
    if options.json and any(job.target is None and job.error is None for job in planned):
        raise UsageError("--json prints on stdout, where the result goes, too; give a file with -o")
    if options.report is not None:
        read = identities([*keep, *(job.source for job in planned if job.source is not None)])
        batch.check_report(options.report, planned, read, overwrite=options.overwrite)
    tile = options.tile if isinstance(options.tile, int) else {"auto": None, "off": WHOLE}[options.tile]
    wishes = Wishes(
        AUTO if model is None else model,
        sigma,
        options.time_steps,
        options.schedule,
        tile,
        options.device,
        options.engine,
        task.name,
        strength,
    )
    writing = batch.Options(
        quality=options.quality,
        overwrite=options.overwrite,
        strip_metadata=options.strip_metadata,
        traced=options.verbose or options.report is not None,
        max_pixels=options.max_megapixels * 10**6,
    )
    outcomes: list[Outcome] = []
    said: set[str] = set()
    with restoring_bars(task.done, len(planned)) as (progress, advance), _warnings_as_notes(options.quiet, said):
        if options.ray is None:
            work = batch.restore_all(planned, Chooser(wishes), writing, progress=progress)
        else:
            from spikingir.restoration.cluster import restore_on_cluster

            work = restore_on_cluster(planned, wishes, writing, options.ray)
        try:
            for outcome in work:
                outcomes.append(outcome)
                if options.json:
                    say(json.dumps(batch.as_record(outcome)))
                elif not options.quiet:
                    _tell(outcome, options.verbose, len(planned) > 1, said)
                if outcome.error is not None and len(planned) > 1:
                    complain(outcome.error)
                advance()
        finally:  # of what Ctrl-C stops, too
            if options.report is not None and outcomes:
                order = {job.name: i for i, job in enumerate(planned)}  # in which a cluster does not finish them
                outcomes.sort(key=lambda outcome: order[outcome.input])
                batch.write_report(options.report, outcomes, overwrite=options.overwrite)
    before = sum(outcome.done_before for outcome in outcomes)
    if before:
        note(f"{before} of {len(planned)} {'was' if before == 1 else 'were'} done already; --overwrite does it anew")
    errors = [outcome.error for outcome in outcomes if outcome.error is not None]
    if errors:
        raise CommandError(errors[0] if len(planned) == 1 else f"{len(errors)} of {len(planned)} failed")


def _tell(outcome: "Outcome", verbose: bool, several: bool, said: set[str]) -> None:
    """What became of a photograph; notes on the model only once, that of a new name once on this machine."""
    notes = [note for note in outcome.model_notes if note not in said]
    said.update(notes)
    notes = [note for note in notes if note not in RENAMED.values() or is_new(note)]
    notes += [f"{outcome.input}: {note}" if several else note for note in outcome.notes]
    for note in notes:
        complain(f"note: {note}")
    if outcome.size is None or outcome.error is not None:
        return
    size = f"{outcome.size[0]} x {outcome.size[1]}"
    if outcome.output is None:
        if not outcome.found:
            complain(f"note: {outcome.input}: {outcome.finding}")
        return
    if outcome.done_before:
        say(f"{printable(outcome.output)}: {size}, done already")
        return
    took = f"{size}, {outcome.seconds:.1f} s"
    if verbose:
        from spikingir.energy.paper import in_words

        cost = outcome.cost
        took += f", {outcome.model}, {outcome.clock}, {cost['spikes_per_neuron']:.2f} spikes per neuron, "
        took += f"{in_words(cost['snn_mj'])} against {in_words(cost['ann_mj'])} of the conventional network"
    say(f"{printable(outcome.output)}: {outcome.finding} ({took})")


@contextmanager
def _warnings_as_notes(quiet: bool, said: set[str]) -> Iterator[None]:
    """What is warned of and logged becomes notes, each said once."""

    def note(message: object) -> None:
        text = " ".join(str(message).split())
        if not quiet and text not in said:
            complain(f"note: {text}")
        said.add(text)

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        note(message)

    notes = _Notes(note)
    logger = logging.getLogger("spikingir")
    logger.addHandler(notes)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = show
            yield
    finally:
        logger.removeHandler(notes)


class _Notes(logging.Handler):
    """Says what is logged."""

    def __init__(self, note: Callable[[object], None]) -> None:
        super().__init__(logging.WARNING)
        self._note = note

    def emit(self, record: logging.LogRecord) -> None:
        if not getattr(record, "once", False) or is_new(record.getMessage()):
            self._note(record.getMessage())
