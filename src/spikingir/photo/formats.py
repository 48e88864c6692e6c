"""The image formats: how each is recognised, and what it can hold."""

from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from spikingir.errors import SpikingIRError


class ImageError(SpikingIRError, ValueError):
    """An image cannot be read or written; the message is one sentence for the person who gave it."""


@dataclass(frozen=True)
class Format:
    """What a file format can hold.

    Attributes:
        name: Name of the format, as Pillow has it.
        suffixes: Its file name suffixes in lower case, the usual one first.
        alpha: Whether it holds transparency.
        deep: Whether it holds 16 bits per sample.
        metadata: Whether it holds EXIF and XMP data and colour profiles.
        max_side: Longest side in pixels, if it ends before memory does.
        others: Suffixes of files that are read like it, but not written.
    """

    name: str
    suffixes: tuple[str, ...]
    alpha: bool = True
    deep: bool = True
    metadata: bool = True
    max_side: int | None = None
    others: tuple[str, ...] = ()


FORMATS = MappingProxyType(
    {
        "png": Format("PNG", (".png",), others=(".apng",)),
        "jpeg": Format(
            "JPEG", (".jpg", ".jpeg", ".jpe", ".jfif"), alpha=False, deep=False, max_side=65_500, others=(".mpo",)
        ),
        "tiff": Format("TIFF", (".tif", ".tiff")),
        "webp": Format("WebP", (".webp",), deep=False, max_side=16_383),
        "bmp": Format("BMP", (".bmp", ".dib"), alpha=False, deep=False, metadata=False),
    }
)
"""Formats that are read and written, by the names that ``--format`` takes."""

SUFFIXES = MappingProxyType(
    {suffix: format for format in FORMATS.values() for suffix in format.suffixes}
    | {suffix: format for format in FORMATS.values() for suffix in format.others}
)
"""Formats by suffix."""

EXPECTED = "expected a PNG, JPEG, TIFF, WebP or BMP image"

EXPECTED_NAME = f"expected a name that ends in one of {', '.join(SUFFIXES)}"

RAISE_LIMIT = "or raise --max-megapixels (max_pixels=)"
"""What errors say of the largest photograph; the page has other words for it."""

HEAD = 16
"""Bytes at the beginning of a file that tell its format."""

_SIGNATURES = (
    (8, b"CR\2\0", "a camera's raw"),  # the rest of which is TIFF
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (0, b"\xff\xd8\xff", "JPEG"),
    (8, b"WEBP", "WebP"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (0, b"II+\0", "a BigTIFF"),
    (0, b"MM\0+", "a BigTIFF"),
    (0, b"GIF8", "a GIF"),
    (0, b"BM", "BMP"),
    (4, b"ftyphei", "a HEIC"),
    (4, b"ftypmif", "a HEIC"),
    (4, b"ftypavif", "an AVIF"),
    (4, b"ftypcrx", "a camera's raw"),
    (0, b"FUJIFILMCCD-RAW", "a camera's raw"),
    (0, b"IIRO", "a camera's raw"),
    (0, b"IIU\0", "a camera's raw"),
)


def format_of(head: bytes, name: str) -> Format:
    """Format of a file that begins with ``head``; its name is for the message.

    Raises:
        ImageError: It is no image, or of a format that is not read.
    """
    if not head:
        raise ImageError(f"{name} is empty; {EXPECTED}: give another copy")
    kind = next((kind for at, magic, kind in _SIGNATURES if head.startswith(magic, at)), None)
    if kind is None:
        raise ImageError(f"{name} is no image of a known format; {EXPECTED}: give another file")
    if kind.lower() not in FORMATS:
        raise ImageError(f"{name} is {kind} image; {EXPECTED}: convert it first")
    return FORMATS[kind.lower()]


def format_of_name(path: Path) -> Format | None:
    """Format that a file name stands for, if it is one of ours."""
    return SUFFIXES.get(path.suffix.lower())
