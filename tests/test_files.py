import errno
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest

from spikingir import files
from spikingir.files import (
    LockedError,
    OutputError,
    check_replaceable,
    identities,
    locked,
    require_file,
    write_atomically,
)


def write_text(text: str) -> Callable[[BinaryIO], object]:
    return lambda file: file.write(text.encode())


@pytest.mark.parametrize("links", [True, False])
def test_existing_file_is_kept_or_replaced(links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not links:
        monkeypatch.setattr(files.os, "link", refuse_links)
    path = tmp_path / "file"
    write_atomically(path, write_text("first"))
    with pytest.raises(FileExistsError, match="file"):
        write_atomically(path, write_text("second"))
    assert path.read_text() == "first"
    write_atomically(path, write_text("second"), overwrite=True)
    assert path.read_text() == "second"
    assert list(tmp_path.iterdir()) == [path]


def refuse_links(*_: object) -> None:
    raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a disk that is always full")
@pytest.mark.parametrize("existing", [False, True])
def test_full_disk_leaves_all_as_it_was(existing: bool, tmp_path: Path) -> None:
    def fill(file: BinaryIO) -> None:
        file.write(b"half")
        Path("/dev/full").write_bytes(b"the other half")

    path = tmp_path / "file"
    if existing:
        path.write_text("precious")
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, fill, overwrite=existing)
    assert [p.read_text() for p in tmp_path.iterdir()] == ["precious"] * existing


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_interruption_leaves_nothing(error: type[BaseException], tmp_path: Path) -> None:
    def interrupted(file: BinaryIO) -> None:
        file.write(b"half")
        raise error

    with pytest.raises(error):
        write_atomically(tmp_path / "file", interrupted)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("links", [True, False])
def test_one_of_many_writers_wins(links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not links:
        monkeypatch.setattr(files.os, "link", refuse_links)
    path, barrier, won = tmp_path / "file", threading.Barrier(8), []

    def compete(number: int) -> None:
        def write(file: BinaryIO) -> None:
            file.write(str(number).encode() * 1000)
            barrier.wait(10)

        try:
            write_atomically(path, write)
            won.append(number)
        except FileExistsError:
            pass

    threads = [threading.Thread(target=compete, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert path.read_text() == str(won[0]) * 1000
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_is_left_when_the_move_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is there ever an empty file under the name of the result, which a killed process would leave."""

    def fail(source: Path, target: Path) -> None:
        assert [path.suffix for path in tmp_path.iterdir()] == [".part"]
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(files.os, "link", refuse_links)
    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OSError, match="Input/output error"):
        write_atomically(tmp_path / "file", write_text("x"))
    assert not list(tmp_path.iterdir())


def test_targets_that_are_no_files(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        write_atomically(tmp_path, write_text("x"), overwrite=True)
    with pytest.raises(FileNotFoundError, match="absent'"):
        write_atomically(tmp_path / "absent" / "file", write_text("x"))
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(FileExistsError):
            write_atomically(tmp_path / "pipe", write_text("x"), overwrite=True)


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions and links")
def test_permissions_and_links(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        write_atomically(tmp_path / "new", write_text("x"))
    finally:
        os.umask(old)
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o640

    private, link = tmp_path / "private", tmp_path / "link"
    private.touch(0o600)
    link.symlink_to(private)
    with pytest.raises(FileExistsError):
        write_atomically(link, write_text("x"))
    write_atomically(link, write_text("x"), overwrite=True)
    assert link.is_symlink()
    assert private.read_text() == "x"
    assert private.stat().st_mode & 0o777 == 0o600


# What an output never replaces

HEADS = {
    "png": b"\x89PNG\r\n\x1a\n",
    "jpeg": b"\xff\xd8\xff\xe0",
    "tiff": b"II*\0\x08\0\0\0",
    "big-endian tiff": b"MM\0*\0\0\0\x08",
    "bigtiff": b"II+\0\x08\0\0\0",
    "webp": b"RIFF\x24\0\0\0WEBPVP8 ",
    "bmp": b"BM\x46\0\0\0\0\0\0\0\x36\0",
    "gif": b"GIF89a",
    "heic": b"\0\0\0\x18ftypheic",
    "raw": b"FUJIFILMCCD-RAW ",
    "safetensors": b'\x40\0\0\0\0\0\0\0{"a":',
    "zip of torch": b"PK\x03\x04\0\0",
    "pickle of torch": b"\x80\x02}q\0",
}


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("way", ["itself", "link", "hard link"])
def test_no_photograph_and_no_model_is_replaced_by_something_else(tmp_path: Path, kind: str, way: str) -> None:
    precious, out = tmp_path / "precious", tmp_path / "report.json"
    precious.write_bytes(HEADS[kind] + b"content")
    if way == "itself":
        precious = precious.rename(out)
    elif way == "link":
        out.symlink_to(precious)
    else:
        os.link(precious, out)
    before = precious.read_bytes()
    with pytest.raises(OutputError, match=r"report\.json (is a link to|holds) a (photograph|model)"):
        write_atomically(out, write_text("{}"), overwrite=True)
    assert precious.read_bytes() == before
    assert {path.suffix for path in tmp_path.iterdir()} <= {"", ".json"}


@pytest.mark.parametrize(
    ("name", "kind"), [("clean.png", "png"), ("clean", "tiff"), ("net.safetensors", "safetensors")]
)
def test_a_result_of_the_same_kind_is_replaced_but_not_through_a_link(tmp_path: Path, name: str, kind: str) -> None:
    path = tmp_path / name
    path.write_bytes(HEADS[kind])
    write_atomically(path, write_text("new"), overwrite=True)
    assert path.read_text() == "new"
    path.write_bytes(HEADS[kind])
    link = tmp_path / f"link{path.suffix}"
    link.symlink_to(path)
    with pytest.raises(OutputError, match="is a link to"):
        write_atomically(link, write_text("newer"), overwrite=True)
    assert path.read_bytes() == HEADS[kind]


@pytest.mark.parametrize("way", ["itself", "other path", "link", "link to a link", "hard link", "linked folder"])
def test_no_input_is_replaced_by_whatever_name(tmp_path: Path, way: str) -> None:
    (tmp_path / "in").mkdir()
    source, out = tmp_path / "in" / "net.bin", tmp_path / "out.json"
    source.write_text("weights")
    if way == "itself":
        out = source
    elif way == "other path":
        out = tmp_path / "in" / ".." / "in" / "net.bin"
    elif way == "hard link":
        os.link(source, out)
    elif way == "linked folder":
        (tmp_path / "folder").symlink_to(tmp_path / "in")
        out = tmp_path / "folder" / "net.bin"
    else:
        (tmp_path / "first").symlink_to(source)
        out.symlink_to(source if way == "link" else tmp_path / "first")
    with pytest.raises(OutputError, match="itself one of the inputs, and none is ever replaced"):
        check_replaceable(out, identities([source, tmp_path / "absent"]))
    check_replaceable(tmp_path / "new.json", identities([source]))
    check_replaceable(tmp_path / "absent", identities([tmp_path / "absent"]))


# Parts and locks


def part(folder: Path, letter: str, age: float) -> Path:
    path = folder / f".spikingir-{letter * 16}.part"
    path.write_bytes(b"half")
    os.utime(path, (time.time() - age,) * 2)
    return path


@pytest.mark.skipif(sys.platform == "win32", reason="needs locks of files")
def test_parts_of_killed_runs_are_removed_and_no_others(tmp_path: Path) -> None:
    stale, fresh, held = part(tmp_path, "a", 3600), part(tmp_path, "b", 5), part(tmp_path, "c", 3600)
    others = [tmp_path / name for name in (".spikingir-notes.part", "film.part", f"x.spikingir-{'d' * 16}.part")]
    for other in others:
        other.touch()
        os.utime(other, (0, 0))
    code = (
        "import fcntl, sys; file = open(sys.argv[1]); fcntl.flock(file, fcntl.LOCK_EX)\n"
        "print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(held)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        write_atomically(tmp_path / "file", write_text("x"))
        assert set(tmp_path.iterdir()) == {tmp_path / "file", fresh, held, *others}
        assert not stale.exists()
        holder.communicate()


@pytest.mark.skipif(sys.platform == "win32", reason="needs a signal that kills")
def test_what_a_killed_run_leaves_is_removed_by_the_next(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from spikingir.files import write_atomically\n"
        "write_atomically(sys.argv[1], lambda file: (file.write(b'half'), os.kill(os.getpid(), signal.SIGKILL)))"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "file")], check=False)
    (left,) = tmp_path.iterdir()
    os.utime(left, (0, 0))
    write_atomically(tmp_path / "file", write_text("x"))
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_a_folder_is_searched_for_parts_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    searched: list[Path] = []
    scan = os.scandir
    monkeypatch.setattr(files.os, "scandir", lambda path: (searched.append(path), scan(path))[1])
    for i in range(20):
        write_atomically(tmp_path / str(i), write_text("x"))
    assert searched == [tmp_path]


@pytest.mark.skipif(sys.platform == "win32", reason="needs locks of files")
def test_a_locked_folder_names_its_process(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "cells"
    code = (
        "import sys; from spikingir.files import locked\n"
        "with locked(sys.argv[1]):\n    print('locked', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(LockedError, match=f"cells is in use by process {holder.pid} on .*; wait"), locked(folder):
            pass
        holder.kill()  # a lock ends with its process, however that ends
        holder.wait()
    with locked(folder), pytest.raises(LockedError, match=f"process {os.getpid()} on"), locked(folder):
        pass
    with locked(folder):
        pass


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with a name")
def test_files_that_reading_would_wait_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    for path, kind in ((tmp_path / "pipe", "a pipe"), (tmp_path / "link", "a pipe"), ("/dev/zero", "a device")):
        with pytest.raises(OSError, match=f"it is {kind}, not a file"):
            require_file(path)
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file", tmp_path / "absent", tmp_path / "file" / "below"):
        require_file(path)
