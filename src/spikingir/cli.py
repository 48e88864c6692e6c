"""The command line: parses, calls, prints.

Exit codes: 0 all done, 1 something failed (one sentence on stderr says what), 2 wrong usage, 130 stopped by Ctrl-C.
Nothing heavy is imported before a command needs it, so that ``--help`` and ``--version`` answer at once.
"""

import io
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from cyclopts import App, CycloptsError, Parameter
from cyclopts.validators import Number

from spikingir import __version__

DONE, FAILED, WRONG_USAGE, STOPPED, BROKEN_PIPE = 0, 1, 2, 130, 141

# Top-level modules that come with an extra of ours
_EXTRAS = {"lightning": "train", "lightning_fabric": "train", "skimage": "demo"}

app = App(
    name="spikingir",
    help="Image restoration with spiking neural networks.",
    version=__version__,
    help_format="plaintext",
)


class CommandError(Exception):
    """A command that cannot be carried out; the message is one sentence."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        arguments: What follows the program's name; those of the process unless given.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")  # file names need not be text
    try:
        command, bound, _ = app.parse_args(arguments, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        _complain(f"{_sentence(error)} (spikingir --help lists what there is)")
        return WRONG_USAGE
    try:
        command(*bound.args, **bound.kwargs)
        sys.stdout.flush()
    except KeyboardInterrupt:
        _complain("stopped")
        return STOPPED
    except BrokenPipeError:  # the reader has seen enough; the interpreter's own flush must not complain either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except Exception as error:
        if not _is_expected(error):
            raise
        _complain(_sentence(error))
        return FAILED
    return DONE


@app.command
def denoise(
    photo: Path,
    /,
    *,
    out: Annotated[Path | None, Parameter(name=["--out", "-o"])] = None,
    model: str = "denoise-gray-25",
    time_steps: Annotated[int | None, Parameter(validator=Number(gte=1))] = None,
    overwrite: Annotated[bool, Parameter(negative=())] = False,
    quality: Annotated[int, Parameter(validator=Number(gte=1, lte=100))] = 95,
) -> None:
    """Remove noise from a photograph (PNG or JPEG), which itself is never changed.

    Args:
        photo: The photograph.
        out: File to write, .png or .jpg; PHOTO_denoised beside it unless given.
        model: Name of a model that ships, or a .safetensors file, or a folder with snn.safetensors.
        time_steps: Time steps of the spiking network; as the model was made unless given.
        overwrite: Replace the file to write if it exists.
        quality: Quality of a JPEG, 1 to 100.
    """
    from spikingir.restoration.images import check_output, default_output, read_image, write_image

    # All that can be wrong is found out before the long work, and before torch is loaded.
    picture = read_image(photo)
    target = default_output(photo, "denoised") if out is None else out
    if _same_file(photo, target):
        raise CommandError(f"{target} is the photograph itself, which is never replaced; give another name with -o")
    check_output(target, overwrite=overwrite)
    if not os.access(target.parent, os.W_OK):
        raise CommandError(f"{target} cannot be written: the folder is not writable for this user; choose another")

    from spikingir.restoration.restorer import Restorer

    restorer = Restorer.from_pretrained(model, time_steps=time_steps)
    start = time.monotonic()
    with _progress("denoising") as progress:
        restored = restorer(picture, progress=progress)
    seconds = time.monotonic() - start
    notes = write_image(restored, target, quality=quality, overwrite=overwrite)
    for note in (*picture.notes, *notes):
        _complain(f"note: {note}")
    height, width = picture.pixels.shape[:2]
    _say(f"{target}: {width} x {height}, {restorer.network.config.clock}, {seconds:.1f} s")


@app.command
def demo(*, out: Annotated[Path, Parameter(name=["--out", "-o"])] = Path("demo")) -> None:
    """Restore a noisy sample photograph and show what it gains and costs.

    Args:
        out: Folder for the pictures; those of an earlier demo are replaced.
    """
    from spikingir.restoration.demo import SIGMA, run_demo

    with _progress("restoring") as progress:
        found = run_demo(out, progress=progress)
    took = found.restoration
    _say(f"original    {'':8}  {found.original}")
    _say(f"noisy       {found.noisy_db:5.2f} dB  {found.noisy} (Gaussian noise, sigma {SIGMA})")
    _say(f"restored    {found.restored_db:5.2f} dB  {found.restored} ({found.clock}, {took.seconds:.1f} s)")
    _say(f"gain        {found.restored_db - found.noisy_db:5.2f} dB  {found.comparison} shows them side by side")
    _say(f"spikes      {took.spikes_per_neuron:5.2f} per neuron")
    _say(
        f"energy      {took.snn_mj:.1f} mJ, against {took.ann_mj:.1f} mJ of the conventional network "
        "(operations alone, as the paper counts)"
    )


@app.command
def train(
    recipe: str,
    /,
    *,
    data_root: Annotated[Path, Parameter(env_var="SPIKINGIR_DATA")],
    runs: Path = Path("runs"),
    stage: Annotated[list[str] | None, Parameter(consume_multiple=True, negative=())] = None,
) -> None:
    """Train a model by a recipe; what is done is skipped, what was interrupted goes on.

    Args:
        recipe: Name of a recipe that ships (see: spikingir recipes), or a .toml file.
        data_root: Folder of the image collection.
        runs: Folder for the results; the recipe gets a folder in it.
        stage: Stages to run; all unless given.
    """
    from spikingir.training.recipe import follow, load_recipe

    try:
        loaded = load_recipe(recipe)
        done = follow(loaded, data_root, runs / loaded.name, stages=stage, progress=sys.stderr.isatty(), announce=_say)
    except ValueError as error:  # unfit images, a checkpoint of another configuration: said in one sentence too
        raise CommandError(_sentence(error)) from error
    for name, path in done.items():
        _say(f"{name}: {path}")


@app.command
def recipes() -> None:
    """List the recipes that ship."""
    from spikingir.training.recipe import recipe_names

    for name in recipe_names():
        _say(name)


@contextmanager
def _progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on the terminal, where there is one, that counts tiles."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _same_file(one: Path, other: Path) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:  # one of them is not there
        return False


def _is_expected(error: Exception) -> bool:
    """Whether an error is one of ours, or the system's: those say in a sentence what is wrong. Others are bugs."""
    if isinstance(error, ModuleNotFoundError):
        return _missing(error) is not None
    return type(error).__module__.startswith("spikingir.") or isinstance(error, OSError | MemoryError)


def _missing(error: ModuleNotFoundError) -> str | None:
    """The extra that has the module."""
    return _EXTRAS.get((error.name or "").partition(".")[0])


def _sentence(error: Exception) -> str:
    """What an error says, in one line."""
    if isinstance(error, ModuleNotFoundError):
        extra = _missing(error)
        return f"this command needs more than the package itself; install it with: pip install 'spikingir[{extra}]'"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if isinstance(error, MemoryError):
        return "there is not enough memory for this; give a smaller image"
    return " ".join(str(error).split())


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _complain(text: str) -> None:
    sys.stderr.write(f"spikingir: {text}\n")


if __name__ == "__main__":
    sys.exit(main())
