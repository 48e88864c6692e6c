import errno
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest

from spikingir import files
from spikingir.files import write_atomically


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


def test_claimed_name_is_given_up_when_the_move_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(files.os, "link", refuse_links)
    monkeypatch.setattr(Path, "replace", fail)
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
