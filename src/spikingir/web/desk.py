"""The line in which photographs wait, one after the other, and where they lie until they are deleted."""

import secrets
import shutil
import tempfile
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from spikingir.errors import SpikingIRError
from spikingir.restoration.choice import Wishes
from spikingir.web.service import Answer, RequestError, Service, deleted

State = Literal["sent", "waiting", "working", "done", "failed"]

_LOOK = 20  # seconds between two looks for photographs whose time is over


class FullError(RequestError):
    """As many photographs wait as may."""


@dataclass(eq=False)
class Job:
    """A photograph on its way.

    Attributes:
        id: What it is asked for by; nobody can guess it.
        folder: Its own, for the file that was sent and all that is made of it.
        name: What the visitor calls the file.
        wishes: How it is to be restored.
        state: ``sent`` while it arrives, ``waiting`` for its turn, ``working``, ``done``, ``failed``.
        done: Share of its tiles that are restored.
        error: What is wrong, in a sentence, once it failed.
        answer: What was made of it, once it is done.
        ended: When it ended, in seconds of the monotonic clock.
        stopped: Whether nobody wants it any more.
    """

    id: str
    folder: Path
    name: str
    wishes: Wishes
    state: State = "sent"
    done: float = 0.0
    error: str | None = None
    answer: Answer | None = None
    ended: float = 0.0
    stopped: bool = False

    @property
    def photo(self) -> Path:
        """The file that was sent."""
        return self.folder / "photo"


class Desk:
    """Takes photographs, lets a thread of its own restore one after the other, and deletes them in time.

    Args:
        service: What restores.
        folder: Where photographs and results lie, each in a folder of its own.
        clock: Seconds that pass.
    """

    def __init__(self, service: Service, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.service = service
        self.folder = folder
        self._clock = clock
        self._jobs: dict[str, Job] = {}
        self._line: deque[Job] = deque()
        self._changed = threading.Condition()
        self._at_work: Job | None = None
        self._closed = False
        # waited for in close: a thread must not be in the engine's native code when the interpreter ends
        self._worker = threading.Thread(target=self._work, name="desk", daemon=True)
        self._worker.start()

    @contextmanager
    def receiving(self, name: str, wishes: Wishes) -> Iterator[Job]:
        """A job with a place in the line, whose photograph is written within the context, and waits after it.

        Whoever sends has a place from the first byte on, so that no more is ever received than may wait. Where the
        context fails, nothing stays.

        Raises:
            FullError: As many wait as may.
        """
        with self._changed:
            most = self.service.limits.waiting + 1  # one is worked on
            if self._closed or sum(job.state in ("sent", "waiting", "working") for job in self._jobs.values()) >= most:
                raise FullError(f"{most} photographs are being restored or wait; send this one again in a while")
            folder = Path(tempfile.mkdtemp(prefix="photo-", dir=self.folder))
            job = Job(secrets.token_urlsafe(16), folder, name, wishes)
            self._jobs[job.id] = job
        try:
            yield job
        except BaseException:
            self.drop(job)
            raise
        with self._changed:
            if job.stopped:  # the server is about to end
                raise deleted()
            job.state = "waiting"
            self._line.append(job)
            self._changed.notify_all()

    def find(self, id: str) -> Job:
        """A job by its id.

        Raises:
            RequestError: There is none, or none any more.
        """
        with self._changed:
            if id not in self._jobs:
                raise deleted()
            return self._jobs[id]

    def place(self, job: Job) -> int | None:
        """How many photographs are before this one; None where it does not wait."""
        with self._changed:
            return self._line.index(job) + (self._at_work is not None) if job in self._line else None

    def drop(self, job: Job) -> None:
        """Delete a photograph and all that was made of it, and stop work on it."""
        with self._changed:
            job.stopped = True
            self._jobs.pop(job.id, None)
            with suppress(ValueError):
                self._line.remove(job)
            shutil.rmtree(job.folder, ignore_errors=True)

    def close(self) -> None:
        """Delete all photographs at once, then wait until the tile that is worked on is done."""
        with self._changed:
            self._closed = True
            for job in list(self._jobs.values()):
                self.drop(job)
            self._changed.notify_all()
        self._worker.join()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._forget()
                if self._closed:
                    return
                if not self._line:
                    self._changed.wait(_LOOK)
                    continue
                job = self._at_work = self._line.popleft()
                job.state = "working"
            self._restore(job)
            with self._changed:
                self._at_work = None
                job.ended = self._clock()
                if job.stopped:
                    shutil.rmtree(job.folder, ignore_errors=True)  # what was written since it was dropped

    def _restore(self, job: Job) -> None:
        def progress(done: float, total: float) -> None:
            if job.stopped:
                raise deleted()
            job.done = done / total

        try:
            job.answer = self.service.restore(job.photo, job.wishes, job.name, progress=progress)
            job.state = "done"
        except MemoryError:
            self._fail(job, "there is not enough memory for this; give a smaller photograph")
        except SpikingIRError as error:
            self._fail(job, str(error))
        except Exception as error:
            if job.stopped:
                return  # with its folder
            traceback.print_exception(error)  # a bug, or a full disk: for whoever serves the page
            self._fail(job, "the server failed at this photograph; what went wrong stands in its terminal")

    def _fail(self, job: Job, why: str) -> None:
        if job.stopped:
            return  # nobody waits for it any more
        job.error = " ".join(why.split())
        job.state = "failed"

    def _forget(self) -> None:
        """Delete what is old, and the oldest where all takes too much room."""
        limits = self.service.limits
        ended = sorted((job for job in self._jobs.values() if job.ended), key=lambda job: job.ended)
        sizes = [sum(path.stat().st_size for path in job.folder.iterdir()) for job in ended]
        too_much = sum(sizes) - limits.kept_megabytes * 2**20
        for job, size in zip(ended, sizes, strict=True):
            newest = job is ended[-1]
            if job.ended <= self._clock() - 60 * limits.minutes or (too_much > 0 and not newest):
                too_much -= size
                self.drop(job)
