"""What a training run tells: its log, its progress bar; and how it is told to stop."""

import json
import math
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

LOG_FILE = "log.jsonl"


class Log:
    """``log.jsonl``, one object a line, flushed at once; TensorBoard's files beside it on demand.

    Args:
        directory: Folder of the run.
        tensorboard: Whether to write for TensorBoard too (the ``tensorboard`` extra).
        enabled: Whether to write at all: of several processes the first alone does.

    Raises:
        ModuleNotFoundError: TensorBoard is not installed.
    """

    def __init__(self, directory: Path, *, tensorboard: bool = False, enabled: bool = True) -> None:
        self._path = directory / LOG_FILE if enabled else None
        self._board = (
            import_module("torch.utils.tensorboard").SummaryWriter(directory) if tensorboard and enabled else None
        )

    def write(self, **entry: Any) -> None:
        """One line; numbers of a step go to TensorBoard too."""
        if self._path is None:
            return
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        if self._board is not None and "event" not in entry:
            for name, value in entry.items():
                if name != "step":
                    self._board.add_scalar(name, value, entry["step"])
            self._board.flush()


class Tell(Protocol):
    """Told how far training is."""

    def __call__(self, done: int, loss: float, psnr: float, images_per_second: float) -> None:
        """Show it."""


@contextmanager
def progress_bar(show: bool, steps: int, first: int) -> Iterator[Tell]:
    """A bar with steps, loss, PSNR on held-back images, images per second and time left."""
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
    with Progress(*columns, disable=not show) as bar:
        task = bar.add_task("", total=steps, completed=first)

        def tell(done: int, loss: float, psnr: float, images_per_second: float) -> None:
            quality = "" if math.isnan(psnr) else f", {psnr:.2f} dB"
            bar.update(task, completed=done, description=f"loss {loss:.2e}{quality}, {images_per_second:.0f} images/s")

        yield tell


@contextmanager
def termination() -> Iterator[threading.Event]:
    """An event that SIGTERM and Ctrl-C set, so that the loop can save and leave between two steps."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return

    def handle(number: int, frame: FrameType | None) -> None:
        event.set()

    previous = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield event
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
