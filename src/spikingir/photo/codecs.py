"""From the bytes of an image file to a photo and back, for each format."""

import io
import logging
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from PIL import Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile, PngInfo
from PIL.WebPImagePlugin import WebPImageFile

from spikingir.errors import InputError
from spikingir.photo import deep, tiff
from spikingir.photo.containers import lost_note, open_bmp, open_jpeg, open_png, open_webp, readable
from spikingir.photo.formats import RAISE_LIMIT, Format, ImageError
from spikingir.photo.metadata import tree_of
from spikingir.photo.photo import Photo, Samples, from_pillow, from_samples, over_white, to_pillow, to_samples

MAX_PIXELS = 400_000_000
"""Largest image that is read: its pixels alone fill 4.8 GB as three float32 channels."""

# Not Image.open: its pixel limit is lower, global, and a warning before it is an error.
_READERS: MappingProxyType[str, type[ImageFile]] = MappingProxyType(
    {"PNG": PngImageFile, "JPEG": JpegImageFile, "WebP": WebPImageFile, "BMP": BmpImageFile}
)
_PNG_BITS, _PNG_COLOR = 24, 25  # where a PNG has its bits per sample and its colour type
_PNG_GRAY_ALPHA = 4
_JPEG_MAX_EXIF = 65_533  # a JPEG segment
_JPEG_MAX_XMP = _JPEG_MAX_EXIF - 29  # which begins with a name
_SRGB_GAMMA, _NEAR = 1 / 2.2, 0.005
_QUALITY = 95
_LOSSLESS = 100  # quality from which on WebP loses nothing


def decode(content: bytes, format: Format, max_pixels: int = MAX_PIXELS) -> Photo:
    """Photo of the content of an image file.

    Raises:
        ImageError: It has too many pixels, or pixels of a kind that is not read.
        Exception: Whatever the parsers come across in a damaged file.
    """

    def check(width: int, height: int) -> None:
        _check_size(width, height, max_pixels)

    with library_messages() as said:
        if format.name == "TIFF":
            photo = tiff.decode(content, max_pixels, check)
        elif format.name == "PNG":
            photo = _decode_png(content, check)
        else:
            if format.name == "BMP":
                image = _opened(content, format)
                check(*image.size)
                parts = open_bmp(content)
            else:  # before a decoder sees it
                parts = open_jpeg(content, max_pixels) if format.name == "JPEG" else open_webp(content)
                image = _opened(content, format)
                check(*image.size)
            image.load()
            if parts.icc is not None:
                image.info["icc_profile"] = parts.icc
            photo = from_pillow(image, parts.lost, parts.lossless)
    return replace(photo, notes=(*photo.notes, *(f"the decoder says: {line}" for line in said)))


def _opened(content: bytes, format: Format) -> ImageFile:
    try:
        return _READERS[format.name](io.BytesIO(content))
    except Image.DecompressionBombError:
        most = 2 * (Image.MAX_IMAGE_PIXELS or 0) / 1e6
        raise ImageError(
            f"it has more than {most:.3g} megapixels, where the decoder of {format.name} ends: save it as PNG"
        ) from None
    except OSError as error:
        if format.name != "BMP":
            raise
        # of which there are as many kinds as there were programs; what is read of the header alone fails here
        raise ImageError(f"it is a BMP of an uncommon kind ({one_line(error)}); save it as PNG") from None


def _decode_png(content: bytes, check: Callable[[int, int], None]) -> Photo:
    parts = open_png(content, check)
    image = PngImageFile(io.BytesIO(parts.content))
    image.load()
    gamma = image.info.get("gamma", _SRGB_GAMMA)
    notes = [f"only the first of its {parts.pictures} pictures is read"] if parts.pictures > 1 else []
    if abs(gamma - _SRGB_GAMMA) > _NEAR and parts.icc is None and b"sRGB" not in parts.marks:
        notes.append(f"its gamma of {gamma:.3g}, without a colour profile, is dropped: it will look other than it did")
    if parts.content[_PNG_BITS] == 16 and (image.mode != "I;16" or "transparency" in image.info):
        # Pillow knows no gray with alpha in 16 bits
        mode = "LA" if parts.content[_PNG_COLOR] == _PNG_GRAY_ALPHA else image.mode
        samples = deep.decode_png(parts.content)
        photo = from_samples(samples, exif=parts.exif, icc=parts.icc, xmp=parts.xmp, mode=mode, lost=parts.lost)
    else:
        image.info |= {"exif": parts.exif, "icc_profile": parts.icc, "xmp": parts.xmp}
        photo = from_pillow(image, parts.lost)
    return replace(photo, notes=(*notes, *photo.notes))


def encode(photo: Photo, format: Format, *, quality: int | None = None) -> tuple[bytes, tuple[str, ...]]:
    """Content of an image file, and what is lost in it, one line each.

    Values outside [0, 1] are clipped. JPEG is written with full colour resolution (4:4:4), TIFF under lossless
    compression, WebP without loss at quality 100, and where it came so and no quality is given. What a format cannot
    hold (transparency, which is laid over white, 16 bits, metadata) is named in the notes.

    Args:
        photo: What to write.
        format: One of ``FORMATS``.
        quality: Quality of JPEG and WebP, 1 to 100; 95 unless given.

    Raises:
        ImageError: The pixels are not finite, or too many for the format, or the package for 16 bits is missing.
        InputError: ``quality`` is no whole number of its range.
    """
    if quality is None:
        quality = _LOSSLESS if format.name == "WebP" and photo.lossless else _QUALITY
    if type(quality) is not int or not 1 <= quality <= 100:
        raise InputError(f"quality is {quality}; expected a whole number from 1 to 100")
    (width, height), channels = photo.size, photo.samples.shape[2]
    if format.max_side is not None and max(height, width) > format.max_side:
        raise ImageError(f"it would be {width} x {height}, and {format.name} ends at {format.max_side}: write a .png")
    notes = []
    samples, alpha, bits, exif, icc, xmp = photo.samples, photo.alpha, photo.bits, photo.exif, photo.icc, photo.xmp
    if alpha is not None and not format.alpha:
        samples, alpha = over_white(photo.pixels, alpha), None
        notes.append(f"{format.name} has no transparency: the image is laid over white")
    if bits == 16 and not format.deep:
        bits = 8
        notes.append("written with 8 bits instead of 16")
    if (exif or icc or xmp) and not format.metadata:
        exif = icc = xmp = None
        notes.append(f"{format.name} holds neither EXIF and XMP data nor a colour profile: they are dropped")
    if exif and format.name == "JPEG" and len(exif) > _JPEG_MAX_EXIF:
        exif = None
        notes.append("the EXIF data is too long for JPEG and is dropped")
    if xmp and format.name == "JPEG" and len(xmp) > _JPEG_MAX_XMP:
        xmp = None
        notes.append("the XMP data is too long for JPEG and is dropped")
    if icc and format.name == "WebP" and channels == 1:
        icc = None
        notes.append("WebP is always colour: the gray colour profile is dropped")

    try:
        if format.name == "TIFF":
            encoded = _encode_tiff(to_samples(samples, alpha, bits), exif, icc, xmp, notes)
        elif bits == 16 and (channels == 3 or alpha is not None):
            encoded = deep.encode_png(to_samples(samples, alpha, bits), exif, icc, xmp)
        else:
            options: dict[str, dict[str, Any]] = {
                "PNG": {"pnginfo": _png_chunks(xmp)},
                "JPEG": {"quality": quality, "subsampling": "4:4:4", "xmp": xmp},
                "WebP": {"quality": quality, "lossless": quality == _LOSSLESS, "exact": True, "xmp": xmp or b""},
            }
            file = io.BytesIO()
            image = to_pillow(samples, alpha, bits)
            image.save(file, format.name, exif=exif or b"", icc_profile=icc, **options.get(format.name, {}))
            encoded = file.getvalue()
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # Pillow's own, as many as it has parsers
        raise ImageError(f"{format.name} cannot hold it ({one_line(error)}); write another format") from error
    return encoded, tuple(notes)


def _png_chunks(xmp: bytes | None) -> PngInfo:
    chunks = PngInfo()
    if xmp:
        chunks.add(b"iTXt", deep.XMP_CHUNK + xmp)
    return chunks


def _encode_tiff(samples: Samples, exif: bytes | None, icc: bytes | None, xmp: bytes | None, notes: list[str]) -> bytes:
    if exif is not None:
        try:
            tree_of(exif)
        except ValueError:
            exif = None
            notes.append("the EXIF data is damaged and dropped")
    content, lost = tiff.encode(samples, exif, icc, xmp)
    notes += lost_note(lost)
    return content


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise ImageError(
            f"{width} x {height} are {width * height / 1e6:.3g} megapixels; expected at most {max_pixels / 1e6:g}, "
            f"since more could exhaust the memory: cut it up, make it smaller, {RAISE_LIMIT}"
        )


def one_line(error: Exception) -> str:
    """What an error of a library says, or its name where it says nothing."""
    return readable(str(error), 200) or type(error).__name__


_CAPTURE = threading.Lock()
_MOST_SAID = 3


@contextmanager
def library_messages() -> Iterator[list[str]]:
    """What codecs log, and C libraries write to standard error, meanwhile: each line once, instead of showing it.

    The list is filled at the end. Lines with control characters are not theirs (a progress bar draws so, from another
    thread): they go on to where they were meant to go. One thread at a time.
    """
    said: dict[str, None] = {}
    lines: list[str] = []

    class Listening(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.setdefault(readable(record.getMessage(), 200))

    handler = Listening(logging.WARNING)
    loggers = [logging.getLogger(name) for name in ("imagecodecs", "tifffile")]
    with _CAPTURE, _standard_error(said):
        for logger in loggers:
            logger.addHandler(handler)
        try:
            yield lines
        finally:
            for logger in loggers:
                logger.removeHandler(handler)
    lines += list(said)[:_MOST_SAID]


@contextmanager
def _standard_error(said: dict[str, None]) -> Iterator[None]:
    try:
        kept = os.dup(2)
    except OSError:  # there is no standard error
        yield
        return
    try:
        with tempfile.TemporaryFile() as file:
            os.dup2(file.fileno(), 2)
            try:
                yield
            finally:
                os.dup2(kept, 2)
                file.seek(0)
                for raw in file.read().splitlines(keepends=True):
                    text = raw.decode("utf-8", "replace").strip()
                    if not text.isprintable():
                        os.write(2, raw)
                    elif text:
                        said.setdefault(readable(text, 200))
    finally:
        os.close(kept)
