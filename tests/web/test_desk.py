"""The line of photographs: no browser and no network, but threads."""

from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from PIL import Image

from spikingir.restoration.choice import Wishes
from spikingir.web.desk import Desk, FullError, Job
from spikingir.web.service import GoneError, Limits, Service

WAIT = 120


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def desk(tiny_model: Path, tmp_path: Path, clock: Clock) -> Iterator[Desk]:
    folder = tmp_path / "kept"
    folder.mkdir()
    desk = Desk(Service([str(tiny_model)], limits=Limits(waiting=2)), folder, clock)
    yield desk
    desk.close()
    assert not list(folder.iterdir())


@pytest.fixture
def wishes(desk: Desk) -> Wishes:
    return desk.service.check()


def send(desk: Desk, wishes: Wishes, name: str = "photo.png") -> Job:
    with desk.receiving(name, wishes) as job:
        Image.effect_noise((30, 20), 60).save(job.photo, "PNG")
    return job


def until(condition: Callable[[], bool]) -> None:
    ticks = Event()
    for _ in range(100 * WAIT):
        if condition():
            return
        ticks.wait(0.01)
    raise AssertionError("it never came to that")


class Gate:
    """Holds the work on each photograph until it is told to go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self.go_on = Event(), Event()
        restore = Service.restore

        def held(*arguments: Any, **options: Any) -> Any:
            self.begun.set()
            assert self.go_on.wait(WAIT)
            return restore(*arguments, **options)

        monkeypatch.setattr(Service, "restore", held)


def test_one_after_the_other_and_no_more_than_may_wait(
    desk: Desk, wishes: Wishes, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    jobs = [send(desk, wishes)]
    assert gate.begun.wait(WAIT)
    jobs.append(send(desk, wishes))
    with desk.receiving("slow.png", wishes) as slow:  # who is still sending has a place, too
        with pytest.raises(FullError, match="3 photographs are being restored or wait"):
            send(desk, wishes)
        Image.effect_noise((30, 20), 60).save(slow.photo, "PNG")
    jobs.append(slow)
    assert [desk.place(job) for job in jobs] == [None, 1, 2]
    gate.go_on.set()
    until(lambda: all(job.state == "done" for job in jobs))
    assert {job.answer.name for job in jobs if job.answer} == {"photo_denoised.png", "slow_denoised.png"}


def test_what_is_sent_in_part_leaves_nothing(desk: Desk, wishes: Wishes) -> None:
    jobs: list[Job] = []

    def send_half() -> None:
        with desk.receiving("a.png", wishes) as job:
            jobs.append(job)
            job.photo.write_bytes(b"half of it")
            raise RuntimeError("the client is gone")

    for _ in range(5):  # more than may wait: the places are free again
        with pytest.raises(RuntimeError, match="the client is gone"):
            send_half()
        assert not list(desk.folder.iterdir())
        with pytest.raises(GoneError):
            desk.find(jobs[-1].id)


def test_work_on_what_nobody_wants_stops(desk: Desk, wishes: Wishes, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch)
    worked_on, waiting = send(desk, wishes), send(desk, wishes)
    assert gate.begun.wait(WAIT)
    for job in (worked_on, waiting):
        desk.drop(job)
        assert not job.folder.exists()
    gate.go_on.set()
    last = send(desk, wishes)
    until(lambda: last.state == "done")
    assert [job.answer for job in (worked_on, waiting)] == [None, None]
    assert list(desk.folder.iterdir()) == [last.folder]


def test_a_dropped_photograph_stops_at_the_next_tile(
    desk: Desk, wishes: Wishes, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiles: list[int] = []

    def restore(self: Service, path: Path, wishes: Wishes, name: str, *, progress: Callable[[int, int], None]) -> None:
        for tile in range(3):
            tiles.append(tile)
            if tile == 1:
                desk.drop(job)
            progress(tile + 1, 3)

    gate = Event()
    with desk.receiving("photo.png", wishes) as job:
        monkeypatch.setattr(Service, "restore", lambda *a, **o: (gate.wait(WAIT), restore(*a, **o)))
    gate.set()
    until(lambda: tiles[-1:] == [1] and desk._at_work is None)
    assert (job.state, job.error, tiles) == ("working", None, [0, 1])


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "not enough memory for this; give a smaller photograph"),
        (ZeroDivisionError("a bug"), "the server failed at this photograph"),
        (OSError(28, "No space left on device"), "the server failed at this photograph"),
        (FullError("a sentence"), "a sentence"),
    ],
)
def test_what_goes_wrong_is_said_and_the_next_is_restored(
    desk: Desk, wishes: Wishes, monkeypatch: pytest.MonkeyPatch, capfd: Any, error: Exception, said: str
) -> None:
    with monkeypatch.context() as broken:

        def fail(*arguments: object, **options: object) -> None:
            raise error

        broken.setattr(Service, "restore", fail)
        job = send(desk, wishes)
        until(lambda: job.state == "failed")
    assert job.error is not None
    assert said in job.error
    assert "a bug" not in job.error
    following = send(desk, wishes)
    until(lambda: following.state == "done")


def test_photographs_are_deleted_after_their_time(desk: Desk, wishes: Wishes, clock: Clock) -> None:
    first = send(desk, wishes)
    until(lambda: first.ended > 0)
    clock.now += 60 * desk.service.limits.minutes - 1
    second = send(desk, wishes)
    until(lambda: second.ended > 0)
    assert first.folder.exists()
    clock.now += 2
    third = send(desk, wishes)
    until(lambda: third.ended > 0 and not first.folder.exists())
    assert second.folder.exists()
    with pytest.raises(GoneError, match="deleted meanwhile"):
        desk.find(first.id)


def test_time_passes_without_visitors(
    desk: Desk, wishes: Wishes, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spikingir.web.desk._LOOK", 0.01)
    job = send(desk, wishes)
    until(lambda: job.ended > 0)
    clock.now += 60 * desk.service.limits.minutes
    until(lambda: not job.folder.exists())


def test_the_oldest_go_where_all_take_too_much_room(tiny_model: Path, tmp_path: Path, clock: Clock) -> None:
    limits = Limits(kept_megabytes=1)
    desk = Desk(Service([str(tiny_model)], limits=limits), tmp_path, clock)
    wishes = desk.service.check()
    jobs = []
    for _ in range(4):  # each of about 0.6 MiB
        with desk.receiving("photo.bmp", wishes) as job:
            Image.effect_noise((400, 400), 60).save(job.photo, "BMP")
        until(lambda job=job: job.ended > 0)
        jobs.append(job)
        clock.now += 1
    until(lambda: len(list(tmp_path.iterdir())) == 1)
    assert jobs[-1].folder.exists()  # the newest stays, however large
    desk.close()


def test_closed_in_the_midst_of_work_nothing_is_left(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    desk = Desk(Service([str(tiny_model)]), tmp_path)
    wishes = desk.service.check()
    jobs = [send(desk, wishes) for _ in range(3)]
    assert gate.begun.wait(WAIT)
    closing = Thread(target=desk.close)

    def send_late() -> None:
        with desk.receiving("late.png", wishes):
            closing.start()
            until(lambda: not list(tmp_path.iterdir()))  # at once, while the work still goes on

    with pytest.raises(GoneError):
        send_late()
    gate.go_on.set()
    closing.join(WAIT)
    assert not closing.is_alive()
    assert not list(tmp_path.iterdir())
    assert all(job.answer is None for job in jobs)
    with pytest.raises(FullError):
        send(desk, wishes)
