"""Files that are complete or absent, and that replace nothing unasked."""

import errno
import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO


def write_atomically(
    path: str | os.PathLike[str], write: Callable[[BinaryIO], object], *, overwrite: bool = False
) -> None:
    """Let ``write`` fill a file beside ``path``, then move it into place.

    Whatever happens on the way (an error, a full disk, Ctrl-C), ``path`` is afterwards what it was before.
    With ``overwrite`` a link is followed and the permissions of the replaced file are kept.

    Args:
        path: Where the file goes; its folder must be there.
        write: Writes the content to the open binary file that it is given.
        overwrite: Whether an existing file is replaced.

    Raises:
        FileExistsError: ``path`` exists and ``overwrite`` is false, or it is a device or the like.
        IsADirectoryError: ``path`` is a folder.
        FileNotFoundError: The folder of ``path`` is missing.
        OSError: The system refuses to write.
    """
    path = Path(path)
    if overwrite:
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


def _exists(path: Path) -> FileExistsError:
    return FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))


def _move_without_replacing(source: Path, target: Path) -> None:
    """Rename that fails where ``target`` exists, even if another process made it a moment ago."""
    try:
        os.link(source, target)
    except FileExistsError:
        raise _exists(target) from None
    except OSError:
        # No hard links here (exFAT cards, network shares): an empty file claims the name, then is replaced.
        target.open("xb").close()
        try:
            source.replace(target)
        except BaseException:
            target.unlink()
            raise
