"""TIFF files where Pillow ends: it cuts 16-bit colour to 8 bits, and cannot write EXIF data with compression."""

import io
import zlib
from itertools import accumulate
from typing import Any

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from spikingir.restoration.formats import ImageError
from spikingir.restoration.metadata import ORIENTATION, describing
from spikingir.restoration.photo import Photo, Samples, from_samples

WIDTH, HEIGHT, BITS = 256, 257, 258
_XMP = 700
_SUBFILE, _COMPRESSION, _PHOTOMETRIC, _OFFSETS, _SAMPLES, _ROWS, _COUNTS = 254, 259, 262, 273, 277, 278, 279
_PLANAR, _PREDICTOR, _EXTRA, _SAMPLE_FORMAT, _PROFILE = 284, 317, 338, 339, 34675
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB = 0, 1, 2
_DEFLATE, _DIFFERENCES = 8, 2
_PREMULTIPLIED, _STRAIGHT = 1, 2
_PREVIEW = 1
_MOST_SAMPLES = 5  # CMYK with alpha; what is unpacked grows with them
_STRIP = 2**18  # bytes that are compressed together


def read_tags(content: bytes) -> Image.Exif:
    """Tags of the first picture in a TIFF file, EXIF and GPS directories included.

    Raises:
        ImageError: Its samples are not whole numbers of at most 8 bits, or 16.
        Exception: Whatever Pillow's parser comes across in a damaged file.
    """
    tags = Image.Exif()
    tags.load(content)
    # Camera's raw files pass for TIFF, and have a thumbnail first
    if _number(tags, _SUBFILE, 0) & _PREVIEW:
        raise ImageError("its first picture is a mere preview, as in a raw file; export the photograph from it first")
    if (samples := _number(tags, _SAMPLES, 1)) > _MOST_SAMPLES:
        raise ImageError(f"it has {samples} samples a pixel; expected gray, RGB or CMYK, and perhaps alpha: convert it")
    bits = _bits(tags)
    if (bits > 8 and bits != 16) or _number(tags, _SAMPLE_FORMAT, 1) != 1:
        raise ImageError(f"it has {bits}-bit samples of an uncommon kind; convert it to whole numbers of 8 or 16 bits")
    return tags


def is_deep(tags: Image.Exif) -> bool:
    """Whether the picture has 16 bits per sample and is one that Pillow would cut, or misread."""
    plain_gray = (_number(tags, _SAMPLES, 1), _number(tags, _PHOTOMETRIC, -1)) == (1, _BLACK_IS_ZERO)
    gray_or_rgb = _number(tags, _PHOTOMETRIC, -1) in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB)
    return _bits(tags) == 16 and gray_or_rgb and not plain_gray


def bits_in_file(tags: Image.Exif) -> int:
    """8 or 16."""
    return 16 if _bits(tags) == 16 else 8


def has_more(content: bytes) -> bool:
    """Whether other pictures follow the first."""
    directory, file = ImageFileDirectory_v2(content[:8]), io.BytesIO(content)
    file.seek(directory.next)
    directory.load(file)
    return bool(directory.next)


def photo_of(samples: Samples, tags: Image.Exif, exif: bytes | None) -> Photo:
    """Photo of 16-bit samples as they lie in the file.

    Shape:
        ``samples``: (H, W), (H, W, C), or (C, H, W) where the file keeps colours apart.
    """
    if samples.ndim == 2:
        samples = samples[..., None]
    elif _number(tags, _PLANAR, 1) == 2:
        samples = np.moveaxis(samples, 0, 2)
    colours = 3 if _number(tags, _PHOTOMETRIC, _RGB) == _RGB else 1
    extra = _number(tags, _EXTRA, 0)
    samples = samples[..., : colours + (extra in (_PREMULTIPLIED, _STRAIGHT))]
    if samples.dtype != np.uint16 or samples.shape[2] < colours:
        raise ImageError(f"its samples are {samples.dtype} {samples.shape} where its tags say otherwise; convert it")
    if _number(tags, _PHOTOMETRIC, _RGB) == _WHITE_IS_ZERO:
        samples = np.concatenate([65_535 - samples[..., :1], samples[..., 1:]], axis=2)
    if extra == _PREMULTIPLIED:
        alpha = samples[..., -1:].astype(np.float32)
        straight = samples[..., :-1] * (65_535 / np.maximum(alpha, 1))
        samples = np.concatenate([straight.clip(0, 65_535).astype(np.uint16), samples[..., -1:]], axis=2)
    orientation, mode = _number(tags, ORIENTATION, 0) or None, "RGB" if colours == 3 else "L"
    icc, xmp = tags.get(_PROFILE), tags.get(_XMP)
    return from_samples(samples, exif=exif, icc=icc, xmp=xmp, mode=mode, orientation=orientation)


def encode(samples: Samples, exif: bytes | None, icc: bytes | None, xmp: bytes | None) -> bytes:
    """Content of a TIFF file: strips under Deflate with horizontal differences, lossless.

    Args:
        samples: Gray or RGB, and perhaps alpha, of 8 or 16 bits.
        exif: EXIF bytes, or None.
        icc: ICC profile, or None.
        xmp: XMP packet, or None.

    Shape:
        ``samples``: (H, W, C), ``C`` 1 to 4.

    Raises:
        Exception: Whatever Pillow comes across in damaged EXIF data.

    Source:
        TIFF 6.0, sections 8 and 14; Adobe's technical notes for Deflate.
    """
    height, width, channels = samples.shape
    rows = max(1, _STRIP // (width * channels * samples.itemsize))
    strips = []
    for top in range(0, height, rows):
        strip = samples[top : top + rows].copy()
        strip[:, 1:] -= samples[top : top + rows, :-1]
        strips.append(zlib.compress(strip.astype(strip.dtype.newbyteorder("<"), copy=False).tobytes()))
    counts = [len(strip) for strip in strips]

    layout: dict[int, Any] = {}
    if exif:
        tags = Image.Exif()
        tags.load(exif)
        layout |= describing(tags)
    layout |= {
        WIDTH: width,
        HEIGHT: height,
        BITS: (8 * samples.itemsize,) * channels,
        _COMPRESSION: _DEFLATE,
        _PHOTOMETRIC: _BLACK_IS_ZERO if channels < 3 else _RGB,
        # from the end of the directory, which Pillow adds
        _OFFSETS: tuple(accumulate(counts[:-1], initial=0)),
        _SAMPLES: channels,
        _ROWS: rows,
        _COUNTS: tuple(counts),
        _PLANAR: 1,
        _PREDICTOR: _DIFFERENCES,
    }
    if channels in (2, 4):
        layout[_EXTRA] = _STRAIGHT
    if icc:
        layout[_PROFILE] = icc
    if xmp:
        layout[_XMP] = xmp
    directory = ImageFileDirectory_v2(prefix=b"II")
    for tag, value in layout.items():
        directory[tag] = value
    for tag in (WIDTH, HEIGHT, _OFFSETS, _ROWS, _COUNTS):
        directory.tagtype[tag] = 4  # LONG; Pillow would take SHORT from small numbers, before it adds to them
    file = io.BytesIO()
    directory.save(file)
    file.write(b"".join(strips))
    return file.getvalue()


def _bits(tags: Image.Exif) -> int:
    bits = tags.get(BITS, 1)
    return int(max(bits) if isinstance(bits, tuple) else bits)


def _number(tags: Image.Exif, tag: int, otherwise: int) -> int:
    """Value of a tag, the first where there are several."""
    value = tags.get(tag, otherwise)
    return int(value[0] if isinstance(value, tuple) else value)
