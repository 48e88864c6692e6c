"""What all commands share: exit codes, and how they speak."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

DONE, FAILED, WRONG_USAGE, STOPPED, BROKEN_PIPE = 0, 1, 2, 130, 141

# Top-level modules that come with an extra of ours
_EXTRAS = {"lightning": "train", "lightning_fabric": "train", "skimage": "demo"}


class CommandError(Exception):
    """A command that cannot be carried out; the message is one sentence."""


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on the terminal, where there is one, that counts tiles."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


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
