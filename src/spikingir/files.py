"""Files: which may be read, which may be replaced, and how one is written so that it is complete or absent."""

import errno
import os
import re
import secrets
import shutil
import socket
import stat
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from spikingir.errors import SpikingIRError

try:
    import fcntl
except ImportError:  # Windows, where a rename refuses to replace, and no folder is locked
    fcntl = None  # type: ignore[assignment]

Identity = tuple[int, int]
"""What all names of one file share: its device and its number there."""

_STALE = 60.0  # seconds, after which a part that nobody holds is left over from a run that was killed
_PART = re.compile(r"\.spikingir-[0-9a-f]{16}\.part")
# Broader than the formats that are read: whatever begins like this was no report and no table
_PICTURE = re.compile(
    rb"\x89PNG|\xff\xd8\xff|II[*+]\0|MM\0[*+]|GIF8|BM.{4}\0{4}|RIFF.{4}WEBP|.{4}ftyp|FUJIFILM", re.DOTALL
)
_MODEL = re.compile(rb"PK\x03\x04|\x80[\x02-\x05]|.{6}\0\0\{\"", re.DOTALL)  # zip or pickle of torch, safetensors
_KINDS = {
    "a photograph": {
        ".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".tif", ".tiff", ".webp", ".bmp", ".dib", ".gif"
    },
    "a model": {".safetensors", ".pth", ".pt", ".ckpt", ".pt2", ".npz"},
}  # fmt: skip
_SPECIAL = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class OutputError(SpikingIRError):
    """A file that must not be written to, because it is something that nobody asked to replace; the text says what."""


class LockedError(SpikingIRError):
    """A folder that another process works in; the text names the process."""


def require_file(path: str | os.PathLike[str]) -> None:
    """Check that reading ``path`` comes to an end: that it is no pipe, socket or device. What is missing passes.

    Raises:
        OSError: It is one of those.
    """
    with suppress(FileNotFoundError, NotADirectoryError):
        kind = _SPECIAL.get(stat.S_IFMT(os.stat(path).st_mode))
        if kind is not None:
            raise OSError(errno.EINVAL, f"it is {kind}, not a file", os.fspath(path))


def identity(path: str | os.PathLike[str]) -> Identity | None:
    """What a file has in common with all its names and links, if it is there."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def identities(paths: Iterable[str | os.PathLike[str]]) -> frozenset[Identity]:
    """The :func:`identity` of each file that is there."""
    return frozenset(found for path in paths if (found := identity(path)) is not None)


def check_replaceable(path: str | os.PathLike[str], inputs: Collection[Identity] = ()) -> None:
    """Check that writing to ``path`` destroys nothing that was not meant. The one rule for every output.

    An output never replaces one of the inputs, by whatever name, link or hard link it is reached. It never replaces a
    photograph or a model through a link, nor under a name that belongs to something else, such as ``report.json``.
    Nothing is said of a path where no file is.

    Args:
        path: Where an output is to go.
        inputs: The :func:`identities` of all files that are read: photographs, weights, models.

    Raises:
        OutputError: It would.
    """
    path = Path(path)
    if identity(path) in inputs:
        raise OutputError(
            f"{path} is itself one of the inputs, and none is ever replaced; give the output another name"
        )
    if not os.path.isfile(path):
        return
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except OSError:  # what may not be read cannot be told; whoever writes says what is wrong
        return
    kind = "a photograph" if _PICTURE.match(head) else "a model" if _MODEL.match(head) else None
    if kind is None:
        return
    if os.path.islink(path):
        raise OutputError(f"{path} is a link to {kind}, which is not replaced; give the output another name")
    if path.suffix and path.suffix.lower() not in _KINDS[kind]:
        raise OutputError(f"{path} holds {kind}, whatever its name says, and is kept; give the output another name")


def write_atomically(
    path: str | os.PathLike[str], write: Callable[[BinaryIO], object], *, overwrite: bool = False
) -> None:
    """Let ``write`` fill a file beside ``path``, then move it into place.

    Whatever happens on the way (an error, a full disk, Ctrl-C), ``path`` is afterwards what it was before.
    With ``overwrite`` a link is followed and the permissions of the replaced file are kept.
    The first write to a folder also removes what killed runs left there.

    Args:
        path: Where the file goes; its folder must be there.
        write: Writes the content to the open binary file that it is given.
        overwrite: Whether an existing file is replaced.

    Raises:
        FileExistsError: ``path`` exists and ``overwrite`` is false, or it is a device or the like.
        IsADirectoryError: ``path`` is a folder.
        FileNotFoundError: The folder of ``path`` is missing.
        OutputError: ``path`` must not be replaced, see :func:`check_replaceable`.
        OSError: The system refuses to write.
    """
    path = Path(path)
    if overwrite:
        check_replaceable(path)
        path = path.resolve()
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    # A device such as /dev/null would be replaced by a file: never meant.
    if os.path.lexists(path) and not (overwrite and path.is_file()):
        raise _exists(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path.parent))

    # Not tempfile: its files are readable by their owner alone, ours follow the umask. A name of its own,
    # since that of `path` may be as long as the file system allows.
    beside = path.with_name(f".spikingir-{secrets.token_hex(8)}.part")
    try:
        with beside.open("xb") as file:
            _lock(file.fileno(), wait=True)  # shows other runs that it is in use
            _remove_stale(path.parent)
            write(file)
            file.flush()
            os.fsync(file.fileno())
        if overwrite:
            if path.exists():
                shutil.copymode(path, beside)
            beside.replace(path)
        else:
            _move_without_replacing(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file in UTF-8, complete or not at all, in place of one that is there.

    Raises:
        OSError: As :func:`write_atomically`.
    """
    write_bytes(path, text.encode())


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file, complete or not at all, in place of one that is there.

    Raises:
        OSError: As :func:`write_atomically`.
    """
    write_atomically(path, lambda file: file.write(content), overwrite=True)


@contextmanager
def locked(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Keep other processes out of a folder of results, which is made where it is missing.

    The lock is the system's own on a file ``.lock`` in the folder: it ends with the process, however that ends.

    Raises:
        LockedError: Another process holds it; the text names the process.
        OSError: The folder cannot be made or written to.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a+b") as file:
        if _lock(file.fileno()) is False:
            file.seek(0)
            owner = file.read(200).decode(errors="replace").strip() or "another process"
            raise LockedError(f"{folder} is in use by {owner}; wait until that ends, or give another folder")
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}".encode())
        file.flush()
        yield


def _lock(descriptor: int, *, wait: bool = False) -> bool | None:
    """Lock an open file: whether it is ours now; None where the file system has no locks."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:  # some network shares
        return None
    return True


_swept: set[Path] = set()  # folders that this process has searched: once is enough, and keeps many writes linear


def _remove_stale(folder: Path) -> None:
    """Remove parts that runs left which were killed: those that are old, and that no process holds."""
    if folder in _swept:
        return
    _swept.add(folder)
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if _PART.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                with suppress(OSError), open(entry.path, "rb") as part:
                    if time.time() - os.fstat(part.fileno()).st_mtime > _STALE and _lock(part.fileno()) is True:
                        os.unlink(entry.path)


def _exists(path: Path) -> FileExistsError:
    return FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))


def _move_without_replacing(source: Path, target: Path) -> None:
    """Rename that fails where ``target`` exists, even if another process made it a moment ago."""
    try:
        os.link(source, target)
    except FileExistsError:
        raise _exists(target) from None
    except OSError:
        # No hard links here (exFAT cards, network shares). The folder is locked, so that of several processes of ours
        # one wins; no empty file claims the name, which would look like a result if this process were killed.
        with _locked_folder(target.parent):
            if os.path.lexists(target):
                raise _exists(target) from None
            source.rename(target)


@contextmanager
def _locked_folder(folder: Path) -> Iterator[None]:
    if fcntl is None:  # there a rename refuses to replace
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        _lock(descriptor, wait=True)
        yield
    finally:
        os.close(descriptor)
