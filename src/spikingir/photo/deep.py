"""PNG with 16 bits per sample in colour or with alpha, which Pillow cuts to 8 bits without a word."""

import zlib
from importlib import import_module
from typing import Any

import numpy as np

from spikingir.environment import install_command
from spikingir.photo.containers import png_chunk
from spikingir.photo.formats import ImageError
from spikingir.photo.metadata import EXIF_HEAD
from spikingir.photo.photo import Samples

XMP_CHUNK = b"XML:com.adobe.xmp\0\0\0\0\0"
"""What an iTXt chunk of a PNG file begins with where an XMP packet follows, not compressed, of no language."""

_HEADER_END = 33  # signature, and IHDR, which comes first


def decode_png(content: bytes) -> Samples:
    """Samples of a 16-bit PNG file; a transparent colour becomes alpha.

    Shape:
        (H, W, C), uint16.

    Raises:
        ImageError: The package for it is missing.
        Exception: Whatever libpng has to say of a damaged file.
    """
    samples: Samples = _codecs().png_decode(content)
    return samples.reshape(*samples.shape[:2], -1)


def encode_png(samples: Samples, exif: bytes | None, icc: bytes | None, xmp: bytes | None) -> bytes:
    """Content of a 16-bit PNG file.

    Args:
        samples: Gray or RGB, and perhaps alpha.
        exif: EXIF bytes, or None.
        icc: ICC profile, or None.
        xmp: XMP packet, or None.

    Shape:
        ``samples``: (H, W, C), ``C`` 1 to 4, uint16.

    Raises:
        ImageError: The package for it is missing.
    """
    content: bytes = _codecs().png_encode(np.ascontiguousarray(samples))
    chunks = b""
    if icc:
        chunks += png_chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(icc))
    if exif:
        chunks += png_chunk(b"eXIf", exif.removeprefix(EXIF_HEAD))
    if xmp:
        chunks += png_chunk(b"iTXt", XMP_CHUNK + xmp)
    return content[:_HEADER_END] + chunks + content[_HEADER_END:]


def _codecs() -> Any:
    try:
        return import_module("imagecodecs")
    except ModuleNotFoundError:
        raise ImageError(
            "it has 16 bits per sample in colour or with transparency, which another package reads and writes; "
            f"install it with: {install_command('spikingir[io16]')}"
        ) from None
