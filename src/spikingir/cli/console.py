"""What all commands share: exit codes, and how they speak."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

DONE, FAILED, WRONG_USAGE, STOPPED, BROKEN_PIPE = 0, 1, 2, 130, 141

# Top-level modules that come with an extra of ours
_EXTRAS = {
    "lightning": "train",
    "lightning_fabric": "train",
    "skimage": "demo",
    "matplotlib": "plot",
    "gradio": "web",
    "ray": "ray",
    "tensorboard": "tensorboard",
}


STREAM = "\0"
"""A lone hyphen among the arguments, which the parser would take for an option; no file is named like that."""


class CommandError(Exception):
    """A command that cannot be carried out; the message is one sentence."""


class UsageError(CommandError):
    """Arguments that do not go together."""


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on the terminal, where there is one, that counts tiles."""
    with progress_bars(what, 1) as (tiles, _):
        yield tiles


@contextmanager
def progress_bars(what: str, count: int) -> Iterator[tuple[Callable[[int, int], None], Callable[[], None]]]:
    """Bars on the terminal, where there is one: for the tiles of an image, and for the images where they are many.

    Yields:
        What counts tiles, and what counts an image.
    """
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    # what is said on stdout stays there unless both are the same terminal
    with Progress(
        console=console, transient=True, disable=not console.is_terminal, redirect_stdout=sys.stdout.isatty()
    ) as bars:
        images = bars.add_task(what, total=count, visible=count > 1)
        tiles = bars.add_task("tiles" if count > 1 else what, total=None)
        yield (lambda done, total: bars.update(tiles, completed=done, total=total)), (lambda: bars.advance(images))


def is_expected(error: Exception) -> bool:
    """Whether an error is one of ours, or the system's: those say in a sentence what is wrong. Others are bugs."""
    if isinstance(error, ModuleNotFoundError):
        return _missing(error) is not None
    return type(error).__module__.startswith("spikingir.") or isinstance(error, OSError | MemoryError)


def _missing(error: ModuleNotFoundError) -> str | None:
    """The extra that has the module."""
    return _EXTRAS.get((error.name or "").partition(".")[0])


def sentence(error: Exception) -> str:
    """What an error says, in one line."""
    if isinstance(error, ModuleNotFoundError):
        extra = _missing(error)
        return f"this command needs more than the package itself; install it with: pip install 'spikingir[{extra}]'"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if isinstance(error, MemoryError):
        return "there is not enough memory for this; give a smaller image"
    return " ".join(str(error).split())


def say(text: str) -> None:
    """A result, on stdout."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def complain(text: str) -> None:
    """What went wrong or should be known, on stderr."""
    sys.stderr.write(f"spikingir: {text}\n")
