"""Image files in and out.

Everything that can be wrong with a file becomes an :class:`ImageError` of one sentence; what is lost but
harmless becomes a note. Bytes decide what a file is, its suffix decides only how it is written.
"""

import errno
import os
import warnings
from pathlib import Path
from typing import BinaryIO

from spikingir.files import require_file, write_atomically
from spikingir.photo.codecs import MAX_PIXELS, decode, encode, one_line
from spikingir.photo.formats import (
    EXPECTED,
    EXPECTED_NAME,
    FORMATS,
    HEAD,
    RAISE_LIMIT,
    SUFFIXES,
    Format,
    ImageError,
    format_of,
    format_of_name,
)
from spikingir.photo.photo import Photo

__all__ = [
    "FORMATS",
    "MAX_PIXELS",
    "ImageError",
    "Photo",
    "check_output",
    "default_output",
    "encode_image",
    "read_content",
    "read_image",
    "write_content",
    "write_image",
]

FILE_BYTES = 8
"""Bytes that a file may have for each pixel of the largest image that is read: four samples of 16 bits."""

METADATA_BYTES = 2**26
"""Bytes that it may have besides."""

ImageSource = str | os.PathLike[str] | bytes | BinaryIO


def read_image(source: ImageSource, *, name: str | None = None, max_pixels: int = MAX_PIXELS) -> Photo:
    """Read a PNG, JPEG, TIFF, WebP or BMP image, turned upright as its EXIF orientation asks.

    Palettes become RGB, CMYK becomes RGB with a note. 16 bits per sample stay 16; in colour or with alpha that takes
    the ``io16`` extra, without which they are refused. Of several pictures (animation, pages) the first is read, with
    a note. EXIF, XMP and the ICC profile are kept; what else is dropped is named in one note.

    Args:
        source: Path, content, or binary file open for reading.
        name: What errors call it; its path unless given.
        max_pixels: Largest image that is read. Its file may have ``FILE_BYTES`` for each of them and ``METADATA_BYTES``
            more, and a JPEG may go over all of them ``SCANS`` times.

    Raises:
        ImageError: There is no such image, it cannot be read, or it is beyond ``max_pixels``.
    """
    name = _name(source) if name is None else name
    format, content = _content(source, name, max_pixels)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # whatever Pillow has to say becomes an error or a note here
        try:
            return decode(content, format, max_pixels)
        except ImageError as error:
            raise ImageError(f"{name}: {error}") from None
        except MemoryError:
            raise ImageError(f"{name} does not fit in memory; give a smaller image, or crop it") from None
        except Exception as error:  # on broken files Pillow raises whatever its parsers came across
            raise ImageError(
                f"{name} is a damaged {format.name} file, or an uncommon one ({one_line(error)}); {EXPECTED}: "
                "give an unbroken copy, or convert it"
            ) from error


def read_content(source: ImageSource, *, name: str | None = None, max_pixels: int = MAX_PIXELS) -> bytes:
    """What is in an image file, not unpacked.

    Args:
        source: As for :func:`read_image`.
        name: Likewise.
        max_pixels: Likewise.

    Raises:
        ImageError: There is no such file, it cannot be read, or its first bytes are those of no image.
    """
    return _content(source, name or _name(source), max_pixels)[1]


def write_image(
    photo: Photo,
    path: str | os.PathLike[str],
    *,
    format: Format | None = None,
    quality: int | None = None,
    overwrite: bool = False,
) -> tuple[str, ...]:
    """Write a PNG, JPEG, TIFF, WebP or BMP file, complete or not at all.

    See :func:`~spikingir.photo.codecs.encode` for what becomes of the photo.

    Args:
        photo: What to write.
        path: File name.
        format: Format, one of ``FORMATS``; by the suffix of ``path`` unless given.
        quality: Quality of JPEG and WebP, 1 to 100; 95 unless given, but a WebP file without loss stays so.
        overwrite: Whether an existing file is replaced.

    Returns:
        What was lost in writing, one line each.

    Raises:
        ImageError: ``path`` is unsuitable or taken, the disk is full, or the pixels cannot be encoded.
        InputError: ``quality`` is no whole number of its range.
    """
    path = Path(path)
    check_output(path, format=format, overwrite=overwrite)
    # Encoded in memory: when Pillow writes to a file that fails, it hides the reason.
    content, notes = encode_image(photo, path, format=format, quality=quality)
    write_content(content, path, overwrite=overwrite)
    return notes


def encode_image(
    photo: Photo, path: str | os.PathLike[str], *, format: Format | None = None, quality: int | None = None
) -> tuple[bytes, tuple[str, ...]]:
    """What :func:`write_image` writes to ``path``, and what is lost in it.

    Raises:
        ImageError: The pixels cannot be encoded.
        InputError: ``quality`` is no whole number of its range.
    """
    try:
        return encode(photo, format or SUFFIXES[Path(path).suffix.lower()], quality=quality)
    except ImageError as error:
        raise ImageError(f"{os.fspath(path)} was not written: {error}") from error.__cause__


def write_content(content: bytes, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Write the content of an image file, complete or not at all.

    Raises:
        ImageError: ``path`` is taken, its folder is missing, or the disk is full.
    """
    path = Path(path)
    try:
        write_atomically(path, lambda file: file.write(content), overwrite=overwrite)
    except FileExistsError:
        raise _taken(path) from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            reason, advice = "the disk is full", "free some space, or write to another disk"
        else:
            reason, advice = error.strerror or str(error), "choose another folder or name"
        raise ImageError(f"{path} was not written: {reason}; {advice}") from error


def check_output(path: str | os.PathLike[str], *, format: Format | None = None, overwrite: bool = False) -> None:
    """Check that :func:`write_image` could write to ``path``, before the work that leads there.

    Raises:
        ImageError: Neither ``format`` nor the suffix says how to write, the folder is missing or not writable, or
            ``path`` is a folder, or an existing file without ``overwrite``.
    """
    path = Path(path)
    if os.path.isdir(path):  # unlike Path.is_dir, bears names too long for the system
        raise ImageError(f"{path} is a folder; expected the name of a file to write")
    if format is None and format_of_name(path) is None:
        raise ImageError(f"{path} cannot be written; {EXPECTED_NAME}")
    if not os.path.isdir(path.parent):
        raise ImageError(f"{path} cannot be written: there is no folder {path.parent}; make it first")
    if not os.access(path.parent, os.W_OK):
        raise ImageError(f"{path} cannot be written: the folder is not writable for this user; choose another")
    if os.path.lexists(path) and not overwrite:
        raise _taken(path)


def default_output(path: str | os.PathLike[str], word: str, format: Format | None = None) -> Path:
    """Name of the restored image unless told otherwise: ``photo_{word}.png`` beside ``photo.png``.

    The suffix is that of ``format`` where one is given, and ``.png`` where ``path`` has none that can be written.
    """
    path = Path(path)
    if format is None:
        format = format_of_name(path) or FORMATS["png"]
    suffix = path.suffix if path.suffix.lower() in format.suffixes else format.suffixes[0]
    return path.with_name(f"{path.stem}_{word}{suffix}")


def _taken(path: Path) -> ImageError:
    return ImageError(f"{path} exists and is kept; write elsewhere, or give --overwrite to replace it")


def _name(source: ImageSource) -> str:
    if isinstance(source, bytes):
        return f"The image data ({len(source)} bytes)"
    if isinstance(source, str | os.PathLike):
        return os.fspath(source)
    return str(getattr(source, "name", "The image file"))


def _content(source: ImageSource, name: str, max_pixels: int) -> tuple[Format, bytes]:
    """Format and all bytes of a source."""
    if isinstance(source, bytes):
        return format_of(source[:HEAD], name), source
    try:
        if isinstance(source, str | os.PathLike):
            require_file(source)
            with open(source, "rb") as file:
                return _content_of_file(file, name, max_pixels)
        return _content_of_file(source, name, max_pixels)
    except FileNotFoundError:
        raise ImageError(f"{name} does not exist; {EXPECTED}: check the path") from None
    except IsADirectoryError:
        raise ImageError(f"{name} is a folder; {EXPECTED}: name the files in it") from None
    except PermissionError:
        raise ImageError(f"{name} may not be read by this user; {EXPECTED}: change its permissions") from None
    except OSError as error:
        reason = error.strerror or error
        raise ImageError(f"{name} cannot be read ({reason}); {EXPECTED}: give a readable file") from error


def _content_of_file(file: BinaryIO, name: str, max_pixels: int) -> tuple[Format, bytes]:
    # The head first: a film of 50 GB, or a device without end, is refused before it is read.
    head = file.read(HEAD)
    format = format_of(head, name)
    most = max_pixels * FILE_BYTES + METADATA_BYTES
    content = head + file.read(most + 1 - len(head))
    if len(content) > most:
        raise ImageError(
            f"{name} has more than {most / 1e6:.0f} MB, as no image of {max_pixels / 1e6:g} megapixels needs; "
            f"give a smaller one, {RAISE_LIMIT}"
        )
    return format, content
