"""Image files in and out.

Everything that can be wrong with a file becomes an :class:`ImageError` of one sentence; what is lost but
harmless becomes a note. Bytes decide what a file is, its suffix decides only how it is written.
"""

import errno
import io
import os
import struct
import warnings
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

import numpy as np
from PIL import Image
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from spikingir.files import write_atomically
from spikingir.restoration.photo import Photo, from_pillow, to_pillow

__all__ = ["FORMATS", "ImageError", "Photo", "check_output", "default_output", "read_image", "write_image"]

ImageSource = str | os.PathLike[str] | bytes | BinaryIO

FORMATS = MappingProxyType({".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"})
"""Suffixes that can be written, lower case, and their formats."""

MAX_PIXELS = 400_000_000
"""Largest image that is read: its pixels alone fill 4.8 GB as three float32 channels."""

# Not Image.open: its pixel limit is lower, global, and a warning before it is an error.
_READERS: MappingProxyType[str, type[ImageFile]] = MappingProxyType({"PNG": PngImageFile, "JPEG": JpegImageFile})
_SIGNATURES = (
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (0, b"\xff\xd8\xff", "JPEG"),
    (8, b"WEBP", "WebP"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (0, b"GIF8", "GIF"),
    (0, b"BM", "BMP"),
    (4, b"ftyphei", "HEIC"),
    (4, b"ftypmif", "HEIC"),
    (4, b"ftypavif", "AVIF"),
)
_HEAD = 16  # bytes that tell a format
_PNG_BITS, _PNG_COLOR = 24, 25  # where a PNG has its bits per sample and its colour type
_PNG_GRAY_ALPHA = 4
_EXPECTED = "expected a PNG or JPEG image"
_JPEG_MAX_SIDE = 65_500  # libjpeg's own limit
_JPEG_MAX_EXIF = 65_533  # a JPEG segment


class ImageError(ValueError):
    """An image cannot be read or written; the message is one sentence for the person who gave it."""


def read_image(source: ImageSource) -> Photo:
    """Read a PNG or JPEG image, turned upright as its EXIF orientation asks.

    Palettes become RGB, CMYK becomes RGB with a note. 16-bit gray PNG stays 16-bit, 16-bit colour is cut to
    8 bits with a note. Of an animation the first picture is read. EXIF and the ICC profile are kept, other
    metadata is not.

    Args:
        source: Path, content, or binary file open for reading.

    Raises:
        ImageError: There is no such image, it cannot be read, or it has more than ``MAX_PIXELS`` pixels.
    """
    name = _name(source)
    kind, data = _content(source, name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # whatever Pillow has to say becomes an error or a note here
        try:
            image: Image.Image = _READERS[kind](io.BytesIO(data))
            _check_size(image, name)
            image.load()
            if kind != "PNG":
                return from_pillow(image)
            if data[_PNG_COLOR] == _PNG_GRAY_ALPHA:  # with 16 bits, Pillow makes it RGBA
                image = image.convert("LA")
            return from_pillow(image, data[_PNG_BITS])
        except ImageError:
            raise
        except MemoryError:
            raise ImageError(f"{name} does not fit in memory; give a smaller image, or crop it") from None
        except Exception as error:  # on broken files Pillow raises whatever its parsers came across
            raise ImageError(
                f"{name} is a damaged {kind} file ({error}); {_EXPECTED}: give an unbroken copy"
            ) from error


def write_image(
    photo: Photo, path: str | os.PathLike[str], *, quality: int = 95, overwrite: bool = False
) -> tuple[str, ...]:
    """Write a PNG or JPEG file, by the suffix of ``path``, complete or not at all.

    Values outside [0, 1] are clipped. JPEG is written with full colour resolution (4:4:4); what it cannot
    hold (alpha, which is laid over white, and 16 bits) is named in the notes.

    Args:
        photo: What to write.
        path: A file name ending in ``.png``, ``.jpg`` or ``.jpeg``.
        quality: JPEG quality, 1 to 100.
        overwrite: Whether an existing file is replaced.

    Returns:
        What was lost in writing, one line each.

    Raises:
        ImageError: ``path`` is unsuitable or taken, the disk is full, or the pixels are not finite.
        ValueError: ``quality`` is out of its range.
    """
    if not 1 <= quality <= 100:
        raise ValueError(f"quality is {quality}; expected 1 to 100")
    path = Path(path)
    check_output(path, overwrite=overwrite)
    if not np.isfinite(photo.pixels).all():
        raise ImageError(f"{path} was not written: the pixels hold NaN or infinity; expected values in [0, 1]")
    # Encoded in memory: when Pillow writes to a file that fails, it hides the reason.
    encoded, notes = _encode(photo, FORMATS[path.suffix.lower()], quality, path)
    try:
        write_atomically(path, lambda file: file.write(encoded), overwrite=overwrite)
    except FileExistsError:
        raise _taken(path) from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            reason, advice = "the disk is full", "free some space, or write to another disk"
        else:
            reason, advice = error.strerror or str(error), "choose another folder or name"
        raise ImageError(f"{path} was not written: {reason}; {advice}") from error
    return notes


def check_output(path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Check that :func:`write_image` could write to ``path``, before the work that leads there.

    Raises:
        ImageError: The suffix is not one of ``FORMATS``, the folder is missing, or ``path`` is a folder, or
            an existing file without ``overwrite``.
    """
    path = Path(path)
    if os.path.isdir(path):  # unlike Path.is_dir, bears names too long for the system
        raise ImageError(f"{path} is a folder; expected the name of a file to write")
    if path.suffix.lower() not in FORMATS:
        raise ImageError(f"{path} cannot be written; expected a name that ends in one of {', '.join(FORMATS)}")
    if not os.path.isdir(path.parent):
        raise ImageError(f"{path} cannot be written: there is no folder {path.parent}; make it first")
    if os.path.lexists(path) and not overwrite:
        raise _taken(path)


def default_output(path: str | os.PathLike[str], task: str) -> Path:
    """Name of the restored image unless told otherwise: ``photo_{task}.png`` beside ``photo.png``."""
    path = Path(path)
    return path.with_name(f"{path.stem}_{task}{path.suffix}")


def _taken(path: Path) -> ImageError:
    return ImageError(f"{path} exists and is kept; write elsewhere, or give --overwrite (overwrite=True) to replace it")


def _name(source: ImageSource) -> str:
    if isinstance(source, bytes):
        return f"The image data ({len(source)} bytes)"
    if isinstance(source, str | os.PathLike):
        return os.fspath(source)
    return str(getattr(source, "name", "The image file"))


def _content(source: ImageSource, name: str) -> tuple[str, bytes]:
    """Format and all bytes of a source."""
    if isinstance(source, bytes):
        return _format(source, name), source
    try:
        if isinstance(source, str | os.PathLike):
            with open(source, "rb") as file:
                return _content_of_file(file, name)
        return _content_of_file(source, name)
    except FileNotFoundError:
        raise ImageError(f"{name} does not exist; {_EXPECTED}: check the path") from None
    except IsADirectoryError:
        raise ImageError(f"{name} is a folder; {_EXPECTED}: name the files in it") from None
    except PermissionError:
        raise ImageError(f"{name} may not be read by this user; {_EXPECTED}: change its permissions") from None
    except OSError as error:
        reason = error.strerror or error
        raise ImageError(f"{name} cannot be read ({reason}); {_EXPECTED}: give a readable file") from error


def _content_of_file(file: BinaryIO, name: str) -> tuple[str, bytes]:
    # The head first: a film of 50 GB, or a device without end, is refused before it is read.
    head = file.read(_HEAD)
    return _format(head, name), head + file.read()


def _format(head: bytes, name: str) -> str:
    """Key into ``_READERS`` of a file that begins with ``head``."""
    if not head:
        raise ImageError(f"{name} is empty; {_EXPECTED}: give another copy")
    kind = next((kind for at, magic, kind in _SIGNATURES if head.startswith(magic, at)), None)
    if kind is None:
        raise ImageError(f"{name} is no image of a known format; {_EXPECTED}: give another file")
    if kind not in _READERS:
        raise ImageError(f"{name} is a {kind} image; {_EXPECTED}: convert it first")
    return kind


def _check_size(image: Image.Image, name: str) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ImageError(
            f"{name} is {width} x {height}, {width * height / 1e6:.0f} megapixels; expected at most "
            f"{MAX_PIXELS / 1e6:.0f}, since more could exhaust the memory: cut it up, or make it smaller"
        )


def _encode(photo: Photo, kind: str, quality: int, path: Path) -> tuple[bytes, tuple[str, ...]]:
    """Content of the file, and what is lost in it."""
    notes = []
    pixels, alpha, bits, exif = photo.pixels, photo.alpha, photo.bits, photo.exif
    height, width, channels = pixels.shape
    if kind == "JPEG":
        if max(height, width) > _JPEG_MAX_SIDE:
            raise ImageError(f"{path} would be {width} x {height}; JPEG ends at {_JPEG_MAX_SIDE}: write a .png")
        if alpha is not None:
            pixels, alpha = (pixels - 1) * alpha[..., None] + 1, None
            notes.append("JPEG has no transparency: the image is laid over white")
        if exif and len(exif) > _JPEG_MAX_EXIF:
            exif = None
            notes.append("the EXIF data is too long for JPEG and is dropped")
    # Pillow writes 16 bits only as gray PNG without alpha.
    if bits == 16 and (kind == "JPEG" or channels == 3 or alpha is not None):
        bits = 8
        notes.append("written with 8 bits instead of 16")

    options = {"quality": quality, "subsampling": "4:4:4"} if kind == "JPEG" else {}
    file = io.BytesIO()
    try:
        to_pillow(pixels, alpha, bits).save(file, kind, exif=exif or b"", icc_profile=photo.icc, **options)
    except (OSError, ValueError, struct.error, MemoryError) as error:
        raise ImageError(f"{path} cannot be encoded as {kind} ({error}); write the other format") from error
    return file.getvalue(), tuple(notes)
