"""What all commands share: exit codes, and how they speak."""

import codecs
import hashlib
import io
import math
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from spikingir.environment import install_command
from spikingir.errors import SpikingIRError

DONE, FAILED, WRONG_USAGE, BROKEN_PIPE = 0, 1, 2, 141

# Top-level modules that come with an extra of ours
_EXTRAS = {
    "lightning": "train",
    "lightning_fabric": "train",
    "skimage": "plot",
    "matplotlib": "plot",
    "starlette": "web",
    "uvicorn": "web",
    "ray": "ray",
    "tensorboard": "tensorboard",
}


STREAM = "\0"
"""A lone hyphen among the arguments, which the parser would take for an option; no file is named like that."""


# A terminal obeys the first of these, and shows text in another order after the others
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_WRAPPED = re.compile(r"[ \t]*\n[ \t]+")


class CommandError(SpikingIRError):
    """A command that cannot be carried out; the message is one sentence."""


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[float, float], None]]:
    """A bar on the terminal, where there is one: what is done, and of how much."""
    from rich.progress import Progress

    with Progress(**_on_terminal()) as bars:
        task = bars.add_task(what, total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)


@contextmanager
def restoring_bars(what: str, count: int) -> Iterator[tuple[Callable[[float, float], None], Callable[[], None]]]:
    """Bars on the terminal, where there is one: for a photograph, and for all of them where they are many.

    Yields:
        What is told the megapixels that are done and those of the whole photograph, and what counts a photograph. The
        bar shows megapixels a second and the time left.
    """
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[amount]}"),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    # a tile can take long: the speed is that of all tiles so far
    with Progress(*columns, speed_estimate_period=math.inf, **_on_terminal()) as bars:
        all_of_them = bars.add_task(what, total=count, visible=count > 1, amount=f"0 of {count}")
        one = bars.add_task("this one" if count > 1 else what, total=None, amount="")
        before = 0.0

        def progress(done: float, total: float) -> None:
            nonlocal before
            if done < before:  # the next photograph
                bars.reset(one)
            before = done
            bars.update(one, completed=done, total=total)
            speed = bars.tasks[one].speed
            rate = "" if speed is None else f", {speed:.2g} MP/s"
            bars.update(one, amount=f"{done:.1f} of {total:.1f} megapixels{rate}")

        def advance() -> None:
            bars.advance(all_of_them)
            bars.update(all_of_them, amount=f"{bars.tasks[all_of_them].completed:.0f} of {count}")

        yield progress, advance


def _on_terminal() -> dict[str, Any]:
    """Settings of a bar: on stderr where that is a terminal, gone when all is done."""
    from rich.console import Console

    console = Console(stderr=True)
    # what is said on stdout stays there unless both are the same terminal
    return {
        "console": console,
        "transient": True,
        "disable": not console.is_terminal,
        "redirect_stdout": sys.stdout.isatty(),
    }


def prepare_streams() -> None:
    """Let stdout take any name, and let no file that is opened later become the stdin, stdout or stderr that is closed.

    Whoever writes to stderr below Python, as some libraries do, would write into that file.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 (open until the end)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors=_ERRORS)


def _encode_anyhow(error: UnicodeError) -> tuple[bytes, int]:
    """Bytes of a name that is no text as they are; what the encoding of stdout lacks, as an escape."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    piece = error.object[error.start : error.end]
    return b"".join(
        bytes([ord(c) - 0xDC00]) if "\udc80" <= c <= "\udcff" else c.encode("ascii", "backslashreplace") for c in piece
    ), error.end


_ERRORS = "spikingir.names"
codecs.register_error(_ERRORS, _encode_anyhow)


def printable(text: str) -> str:
    r"""Text in one line that a terminal only shows: control characters as escapes, such as ``\x1b`` and ``\n``."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def is_expected(error: Exception) -> bool:
    """Whether an error is the user's to mend, or the system's: its text says what is wrong. Others are bugs."""
    if isinstance(error, ModuleNotFoundError):
        return _missing(error) is not None
    return isinstance(error, SpikingIRError | OSError | MemoryError)


def _missing(error: ModuleNotFoundError) -> str | None:
    """The extra that has the module."""
    return _EXTRAS.get((error.name or "").partition(".")[0])


def require(*modules: str) -> None:
    """Check that modules of an extra are there, before the work whose end needs them.

    Raises:
        ModuleNotFoundError: One is not.
    """
    for module in modules:
        if find_spec(module) is None:
            raise ModuleNotFoundError(f"No module named {module!r}", name=module)


def sentence(error: Exception) -> str:
    """What an error says, in one line."""
    if isinstance(error, ModuleNotFoundError):
        command = install_command(f"spikingir[{_missing(error)}]")
        return f"this command needs more than the package itself; install it with: {command}"
    if isinstance(error, OSError) and error.strerror:
        return printable(f"{error.filename}: {error.strerror}" if error.filename else error.strerror)
    if isinstance(error, MemoryError):
        return "there is not enough memory for this; give a smaller image"
    return printable(_WRAPPED.sub(" ", str(error).strip()))


def is_new(text: str) -> bool:
    """Whether this user has not been told something on this machine; from now on it is known.

    Where that cannot be kept, such as in a home that is read-only, everything is new.
    """
    name = f"told-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    caches = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA") or os.path.expanduser("~/.cache")
    if not os.path.isabs(caches):  # there is no home
        return True
    try:
        folder = Path(caches, "spikingir")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).touch(exist_ok=False)
    except FileExistsError:
        return False
    except OSError:
        return True
    return True


def say(text: str) -> None:
    """A result, on stdout; of one line or several."""
    sys.stdout.write("\n".join(map(printable, text.split("\n"))) + "\n")
    sys.stdout.flush()


def complain(text: str) -> None:
    """What went wrong or should be known, in one line on stderr."""
    with suppress(OSError):  # nobody reads it: no reason to stop
        sys.stderr.write(f"spikingir: {printable(text)}\n")
