"""A photograph: pixels for the network, and all the rest that it carries kept aside.

From Pillow's images and back; files are the matter of :mod:`spikingir.restoration.images`.
"""

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_GRAY16 = ("I;16", "I;16B", "I")  # by Pillow's age


@dataclass(frozen=True, eq=False)
class Photo:
    """An image upright, and what is to be written back with it.

    Attributes:
        pixels: Gray or RGB values in [0, 1], encoded as in the file (sRGB mostly).
        alpha: Opacity in [0, 1], which bypasses the network, or None.
        bits: Bits per sample that the pixels carry, and a PNG is written with: 8 or 16.
        exif: EXIF bytes, orientation reset, or None.
        icc: ICC colour profile that the pixels are encoded in, or None.
        mode: Pillow's name of the kind of pixels in the file.
        notes: What was lost in reading, one line each.

    Shape:
        ``pixels``: ``(H, W, C)`` float32, ``C`` 1 or 3. ``alpha``: ``(H, W)`` float32.

    Raises:
        ValueError: Shapes, types or bits other than these.
    """

    pixels: NDArray[np.float32]
    alpha: NDArray[np.float32] | None = None
    bits: int = 8
    exif: bytes | None = None
    icc: bytes | None = None
    mode: str = "RGB"
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        shape = self.pixels.shape
        if len(shape) != 3 or shape[2] not in (1, 3) or 0 in shape or self.pixels.dtype != np.float32:
            raise ValueError(f"pixels are {self.pixels.dtype} {shape}; expected float32 (H, W, 1) or (H, W, 3)")
        if self.alpha is not None and (self.alpha.shape != shape[:2] or self.alpha.dtype != np.float32):
            raise ValueError(f"alpha is {self.alpha.dtype} {self.alpha.shape}; expected float32 {shape[:2]}")
        if self.bits not in (8, 16):
            raise ValueError(f"bits is {self.bits}; expected 8 or 16")


def from_pillow(image: Image.Image, bits_in_file: int = 8) -> Photo:
    """Photo of a loaded Pillow image.

    Args:
        image: Gray, RGB, palette or CMYK image, with or without alpha, as Pillow's plugins give it.
        bits_in_file: Bits per sample in the file. Pillow cuts all 16-bit images but gray ones to 8 and does not tell.
    """
    mode, info, notes = image.mode, image.info, []
    exif, icc = info.get("exif"), info.get("icc_profile")
    if getattr(image, "n_frames", 1) > 1:
        notes.append("only the first picture of the animation is read")
    if bits_in_file == 16 and mode not in _GRAY16:
        notes.append("16 bits per sample are cut to 8")
    if bits_in_file == 16 and info.pop("transparency", None) is not None:
        notes.append("the transparent colour of the 16-bit image is dropped")
    if mode == "CMYK":
        notes.append("CMYK is converted to RGB without colour management")

    if exif:
        orientation, exif = _reset_orientation(exif)
        if orientation in _TRANSPOSITIONS:
            image = image.transpose(_TRANSPOSITIONS[orientation])

    bits, alpha = 8, None
    if mode in _GRAY16:
        bits, samples = 16, np.asarray(image)[..., None]
    else:
        kind = "L" if mode in ("1", "L", "LA") else "RGB"
        transparent = image.has_transparency_data
        samples = np.asarray(image.convert(kind + "A" if transparent else kind))
        samples = samples.reshape(*samples.shape[:2], -1)
        if transparent:
            samples, alpha = samples[..., :-1], _unit(samples[..., -1], bits)

    # A profile for other pixels (CMYK now RGB, gray with an RGB profile) would show wrong colours.
    if icc and {b"GRAY": 1, b"RGB ": 3}.get(icc[16:20]) != samples.shape[2]:
        icc = None
        notes.append("the colour profile does not fit the pixels and is dropped")
    return Photo(_unit(samples, bits), alpha, bits, exif or None, icc or None, mode, tuple(notes))


def to_pillow(pixels: NDArray[np.float32], alpha: NDArray[np.float32] | None = None, bits: int = 8) -> Image.Image:
    """Pillow image of pixels in [0, 1]; values outside are clipped.

    Args:
        pixels: Gray or RGB values.
        alpha: Opacity, or None.
        bits: 8, or 16 for gray without alpha, the only one that Pillow has.

    Shape:
        ``pixels``: ``(H, W, C)``, ``C`` 1 or 3. ``alpha``: ``(H, W)``.
    """
    samples = _integers(pixels, bits)
    if alpha is not None:
        samples = np.concatenate([samples, _integers(alpha, bits)[..., None]], axis=2)
    return Image.fromarray(samples[..., 0] if samples.shape[2] == 1 else samples)


def _unit(samples: NDArray[np.integer], bits: int) -> NDArray[np.float32]:
    return samples.astype(np.float32) / np.float32(2**bits - 1)


def _integers(values: NDArray[np.float32], bits: int) -> NDArray[np.integer]:
    return np.rint(values.clip(0, 1) * np.float32(2**bits - 1)).astype(np.uint8 if bits == 8 else np.uint16)


def _reset_orientation(exif: bytes) -> tuple[int, bytes]:
    """Orientation that EXIF bytes ask for (1: none), and the same bytes asking for none.

    One number is changed where it stands: writing the tree anew would break the offsets inside maker notes.
    Bytes that cannot be understood are left as they are, and so is the image.

    Source:
        Exif 2.32, section 4.6: TIFF header, 0th IFD of 12-byte entries, tag 0x0112 of type SHORT (3).
    """
    start = 6 if exif.startswith(b"Exif\0\0") else 0
    order = {b"II": "<", b"MM": ">"}.get(exif[start : start + 2])
    if order is None:
        return 1, exif
    try:
        directory = start + struct.unpack_from(order + "I", exif, start + 4)[0]
        (entries,) = struct.unpack_from(order + "H", exif, directory)
        for at in range(directory + 2, directory + 2 + 12 * entries, 12):
            tag, kind, _, orientation = struct.unpack_from(order + "HHIH", exif, at)
            if (tag, kind) == (0x0112, 3):
                upright = struct.pack(order + "H", 1)
                return orientation, exif[: at + 8] + upright + exif[at + 10 :]
    except struct.error:  # cut short
        pass
    return 1, exif
