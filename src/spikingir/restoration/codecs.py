"""From the bytes of an image file to a photo and back, for each format."""

import io
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
from PIL.BmpImagePlugin import BmpImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile, PngInfo
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from spikingir.restoration import deep, tiff
from spikingir.restoration.formats import Format, ImageError
from spikingir.restoration.metadata import describing, exif_bytes
from spikingir.restoration.photo import Photo, Samples, from_pillow, from_samples, over_white, to_pillow, to_samples

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
_LOSSLESS = 100  # quality from which on WebP loses nothing


def decode(content: bytes, format: Format, max_pixels: int = MAX_PIXELS) -> Photo:
    """Photo of the content of an image file.

    Raises:
        ImageError: It has too many pixels, or pixels of a kind that is not read.
        Exception: Whatever the parsers come across in a damaged file.
    """
    if format.name == "TIFF":
        return _decode_tiff(content, max_pixels)
    image = _READERS[format.name](io.BytesIO(content))
    _check_size(*image.size, max_pixels)
    image.load()
    photo = _loaded(image, format, content)
    gamma = image.info.get("gamma", _SRGB_GAMMA)
    if format.name == "PNG" and abs(gamma - _SRGB_GAMMA) > _NEAR and not {"icc_profile", "srgb"} & image.info.keys():
        note = f"its gamma of {gamma:.3g}, without a colour profile, is dropped: it will look other than it did"
        photo = replace(photo, notes=(*photo.notes, note))
    return photo


def _loaded(image: ImageFile, format: Format, content: bytes) -> Photo:
    if format.name != "PNG" or content[_PNG_BITS] != 16 or (image.mode == "I;16" and "transparency" not in image.info):
        return from_pillow(image)
    # Pillow knows no gray with alpha in 16 bits
    mode = "LA" if content[_PNG_COLOR] == _PNG_GRAY_ALPHA else image.mode
    exif, icc, xmp = (image.info.get(key) for key in ("exif", "icc_profile", "xmp"))
    return from_samples(deep.decode_png(content), exif=exif, icc=icc, xmp=xmp, mode=mode)


def encode(photo: Photo, format: Format, *, quality: int = 95) -> tuple[bytes, tuple[str, ...]]:
    """Content of an image file, and what is lost in it, one line each.

    Values outside [0, 1] are clipped. JPEG is written with full colour resolution (4:4:4), TIFF under lossless
    compression, WebP without loss at quality 100. What a format cannot hold (transparency, which is laid over white,
    16 bits, metadata) is named in the notes.

    Args:
        photo: What to write.
        format: One of ``FORMATS``.
        quality: Quality of JPEG and WebP, 1 to 100.

    Raises:
        ImageError: The pixels are not finite, or too many for the format, or the package for 16 bits is missing.
        ValueError: ``quality`` is out of its range.
    """
    if not 1 <= quality <= 100:
        raise ValueError(f"quality is {quality}; expected 1 to 100")
    if not np.isfinite(photo.pixels).all():
        raise ImageError("the pixels hold NaN or infinity; expected values in [0, 1]")
    height, width, channels = photo.pixels.shape
    if format.max_side is not None and max(height, width) > format.max_side:
        raise ImageError(f"it would be {width} x {height}, and {format.name} ends at {format.max_side}: write a .png")
    notes = []
    pixels, alpha, bits, exif, icc, xmp = photo.pixels, photo.alpha, photo.bits, photo.exif, photo.icc, photo.xmp
    if alpha is not None and not format.alpha:
        pixels, alpha = over_white(pixels, alpha), None
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
            encoded = _encode_tiff(to_samples(pixels, alpha, bits), exif, icc, xmp, notes)
        elif bits == 16 and (channels == 3 or alpha is not None):
            encoded = deep.encode_png(to_samples(pixels, alpha, bits), exif, icc, xmp)
        else:
            options: dict[str, dict[str, Any]] = {
                "PNG": {"pnginfo": _png_chunks(xmp)},
                "JPEG": {"quality": quality, "subsampling": "4:4:4", "xmp": xmp},
                "WebP": {"quality": quality, "lossless": quality == _LOSSLESS, "exact": True, "xmp": xmp or b""},
            }
            file = io.BytesIO()
            image = to_pillow(pixels, alpha, bits)
            image.save(file, format.name, exif=exif or b"", icc_profile=icc, **options.get(format.name, {}))
            encoded = file.getvalue()
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # Pillow's own, as many as it has parsers
        raise ImageError(f"{format.name} cannot hold it ({one_line(error)}); write another format") from error
    return encoded, tuple(notes)


def _decode_tiff(content: bytes, max_pixels: int) -> Photo:
    tags = tiff.read_tags(content)
    _check_size(int(tags[tiff.WIDTH]), int(tags[tiff.HEIGHT]), max_pixels)
    notes: tuple[str, ...] = ()
    try:
        exif = exif_bytes(describing(tags))
    except Exception:
        exif, notes = None, ("the EXIF data is damaged and dropped",)
    if tiff.is_deep(tags):
        photo = tiff.photo_of(deep.decode_tiff(content), tags, exif)
        if tiff.has_more(content):
            notes += ("only the first of its pictures is read",)
    else:
        image = TiffImageFile(io.BytesIO(content))
        _check_size(*image.size, max_pixels)
        image.load()  # upright: Pillow sees to that in TIFF files, and in them alone
        image.info["exif"] = exif
        photo = from_pillow(image, tiff.bits_in_file(tags))
    return replace(photo, notes=photo.notes + notes)


def _png_chunks(xmp: bytes | None) -> PngInfo:
    chunks = PngInfo()
    if xmp:
        chunks.add(b"iTXt", deep.XMP_CHUNK + xmp)
    return chunks


def _encode_tiff(samples: Samples, exif: bytes | None, icc: bytes | None, xmp: bytes | None, notes: list[str]) -> bytes:
    try:
        return tiff.encode(samples, exif, icc, xmp)
    except Exception:
        if not exif:
            raise
        notes.append("the EXIF data is damaged and dropped")
        return tiff.encode(samples, None, icc, xmp)


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise ImageError(
            f"{width} x {height} are {width * height / 1e6:.3g} megapixels; expected at most "
            f"{max_pixels / 1e6:g}, since more could exhaust the memory: cut it up, or make it smaller"
        )


def one_line(error: Exception) -> str:
    """What an error of a library says, or its name where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__
