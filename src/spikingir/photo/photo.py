"""A photograph: pixels for the network, and all the rest that it carries kept aside.

From Pillow's images and back; files are the matter of :mod:`spikingir.photo.images`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from spikingir.photo.containers import lost_note
from spikingir.photo.formats import ImageError
from spikingir.photo.metadata import (
    EXIF_HEAD,
    reset_xmp_orientation,
    sized_exif,
    sized_xmp,
    upright_exif,
    without_claims,
)

Samples = NDArray[np.integer[Any]]

_GRAY16 = ("I;16", "I;16B", "I")  # by Pillow's age
_GRAY = ("1", "L", "LA", "La")
_COLOUR = ("P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV")
_CHUNK = 2**20  # values that are rounded at a time

# Exif 2.32: how the stored rows and columns are turned to be seen upright.
_TURNS: dict[int, Callable[[Samples], Samples]] = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a.swapaxes(0, 1)[:, ::-1],
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: a.swapaxes(0, 1)[::-1],
}


@dataclass(frozen=True, eq=False)
class Photo:
    """An image upright, and what is to be written back with it.

    Attributes:
        samples: Gray or RGB, encoded as in the file (sRGB mostly): whole numbers of its bits, which take the least
            memory, or values in [0, 1] in float32.
        alpha: Opacity in [0, 1], which bypasses the network, or None.
        bits: Bits per sample that the pixels carry, and a PNG or TIFF is written with: 8 or 16.
        exif: EXIF bytes, orientation reset, or None.
        xmp: XMP packet, orientation reset, or None.
        icc: ICC colour profile that the pixels are encoded in, or None.
        mode: Pillow's name of the kind of pixels in the file.
        notes: What was lost in reading, one line each.
        lossless: Whether it comes from a WebP file without loss, and goes to one.

    Shape:
        ``samples``: ``(H, W, C)``, ``C`` 1 or 3. ``alpha``: ``(H, W)`` float32.

    Raises:
        ValueError: Shapes, types or bits other than these.
    """

    samples: Samples | NDArray[np.float32]
    alpha: NDArray[np.float32] | None = None
    bits: int = 8
    exif: bytes | None = None
    icc: bytes | None = None
    xmp: bytes | None = None
    mode: str = "RGB"
    notes: tuple[str, ...] = ()
    lossless: bool = False

    def __post_init__(self) -> None:
        if self.bits not in (8, 16):
            raise ValueError(f"bits is {self.bits}; expected 8 or 16")
        shape, type_, whole = self.samples.shape, self.samples.dtype, f"uint{self.bits}"
        if len(shape) != 3 or shape[2] not in (1, 3) or 0 in shape or type_ not in (np.float32, whole):
            raise ValueError(f"samples are {type_} {shape}; expected float32 or {whole}, (H, W, 1) or (H, W, 3)")
        if self.alpha is not None and (self.alpha.shape != shape[:2] or self.alpha.dtype != np.float32):
            raise ValueError(f"alpha is {self.alpha.dtype} {self.alpha.shape}; expected float32 {shape[:2]}")

    @property
    def pixels(self) -> NDArray[np.float32]:
        """Gray or RGB values in [0, 1]; made anew each time where the samples are whole numbers.

        Shape:
            ``(H, W, C)``.
        """
        return unit_samples(self.samples)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        height, width, _ = self.samples.shape
        return width, height


def from_samples(
    samples: Samples,
    *,
    exif: bytes | None,
    icc: bytes | None,
    mode: str,
    xmp: bytes | None = None,
    orientation: int | None = None,
    notes: Sequence[str] = (),
    lost: Sequence[str] = (),
    lossless: bool = False,
) -> Photo:
    """Photo of the samples in a file.

    Args:
        samples: Gray or RGB, and perhaps alpha, of 8 or 16 bits.
        exif: EXIF bytes, or None.
        icc: ICC profile, or None.
        mode: See :class:`Photo`.
        xmp: XMP packet, or None.
        orientation: As in EXIF, where the file says it elsewhere.
        notes: What was lost so far, in lines.
        lost: What else of the file is dropped, in words.
        lossless: See :class:`Photo`.

    Shape:
        ``samples``: ``(H, W, C)``, ``C`` 1 to 4.
    """
    notes, lost = list(notes), list(lost)
    if exif:
        exif = exif if exif.startswith(EXIF_HEAD) else EXIF_HEAD + exif
        asked, exif, thumbnail = upright_exif(exif)
        orientation = asked if orientation is None else orientation
        if thumbnail:
            lost.append("the thumbnail in the EXIF data")
    if xmp:
        asked, xmp = reset_xmp_orientation(xmp)
        orientation = asked if orientation is None else orientation  # as Pillow has it: EXIF goes first
        xmp, claims = without_claims(xmp)
        lost += [f"what the XMP data says of {claim}" for claim in claims]
    if orientation in _TURNS:
        samples = _TURNS[orientation](samples)

    colours = 1 if samples.shape[2] < 3 else 3
    alpha = unit_samples(samples[..., -1]) if samples.shape[2] > colours else None
    # A profile for other pixels (CMYK now RGB, gray with an RGB profile) would show wrong colours.
    if icc and {b"GRAY": 1, b"RGB ": 3}.get(icc[16:20]) != colours:
        icc = None
        notes.append("the colour profile does not fit the pixels and is dropped")
    photo = Photo(
        # an array of its own: what a decoder gives may be read alone, or hold alpha too
        np.array(samples[..., :colours], samples.dtype.newbyteorder("="), order="C"),
        alpha,
        bits=8 * samples.dtype.itemsize,
        exif=exif or None,
        icc=icc or None,
        xmp=xmp or None,
        mode=mode,
        notes=(*notes, *lost_note(lost)),
        lossless=lossless,
    )
    return told_its_size(photo) if orientation in (5, 6, 7, 8) else photo  # width and height changed places


def told_its_size(photo: Photo) -> Photo:
    """The photo with its own size in its EXIF and XMP data, where they give one: after it was turned or enlarged."""
    width, height = photo.size
    exif = None if photo.exif is None else sized_exif(photo.exif, width, height)
    return replace(photo, exif=exif, xmp=None if photo.xmp is None else sized_xmp(photo.xmp, width, height))


def from_pillow(image: Image.Image, lost: Sequence[str] = (), lossless: bool = False) -> Photo:
    """Photo of a loaded Pillow image.

    Args:
        image: Gray, RGB, palette or CMYK image, with or without alpha, as Pillow's plugins give it.
        lost: See :func:`from_samples`.
        lossless: See :class:`Photo`.

    Raises:
        ImageError: Pixels of another kind, such as floating-point or CIELAB ones.
    """
    mode, notes = image.mode, []
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        notes.append(f"only the first of its {frames} pictures is read")
    if mode == "CMYK":
        notes.append("CMYK is converted to RGB without colour management")

    if mode in _GRAY16:
        # "I" has room for 32 bits; from PNG files it comes with 16
        samples: Samples = np.asarray(image)
        if samples.dtype != np.uint16 and (samples.min() < 0 or samples.max() > 65_535):
            raise ImageError("the image has 32 bits per sample; expected 8 or 16: convert it first")
        samples = samples.astype(np.uint16, copy=False)
        if "transparency" in image.info:
            notes.append("the transparent colour of the 16-bit image is dropped")
    elif mode in _GRAY + _COLOUR:
        kind = "L" if mode in _GRAY else "RGB"
        kind += "A" if image.has_transparency_data else ""
        samples = np.asarray(image if mode == kind else image.convert(kind))
    else:
        raise ImageError(f"the image has pixels of the kind {mode}; expected gray, RGB, palette or CMYK: convert it")
    return from_samples(
        samples.reshape(image.height, image.width, -1),
        exif=image.info.get("exif"),
        icc=image.info.get("icc_profile"),
        xmp=image.info.get("xmp"),
        mode=mode,
        notes=notes,
        lost=lost,
        lossless=lossless,
    )


def naive_rgb(cmyk: Samples) -> Samples:
    """RGB of CMYK samples without colour management, ``(m - c)(m - k) / m`` where ``m`` is the most; as Pillow has it.

    Shape:
        (H, W, 4) to (H, W, 3).
    """
    most = int(np.iinfo(cmyk.dtype).max)
    light = most - cmyk[..., 3:].astype(np.int64)
    return (light - (cmyk[..., :3] * light + most // 2) // most).astype(cmyk.dtype)


def to_pillow(
    pixels: Samples | NDArray[np.float32], alpha: NDArray[np.float32] | None = None, bits: int = 8
) -> Image.Image:
    """Pillow image of a photo's pixels; values outside [0, 1] are clipped.

    Args:
        pixels: Gray or RGB, as a :class:`Photo` has them.
        alpha: Opacity, or None.
        bits: 8, or 16 for gray without alpha, the only one that Pillow has.

    Shape:
        ``pixels``: ``(H, W, C)``, ``C`` 1 or 3. ``alpha``: ``(H, W)``.
    """
    samples = to_samples(pixels, alpha, bits)
    return Image.fromarray(samples[..., 0] if samples.shape[2] == 1 else samples)


def to_samples(pixels: Samples | NDArray[np.float32], alpha: NDArray[np.float32] | None, bits: int) -> Samples:
    """Whole numbers of 8 or 16 bits, alpha last; values outside [0, 1] are clipped.

    Args:
        pixels: Gray or RGB, as a :class:`Photo` has them; those of as many bits come back as they are.
        alpha: Opacity, or None.
        bits: 8 or 16.

    Shape:
        ``(H, W, C)``, ``C`` 1 to 4.

    Raises:
        ImageError: Values are not finite.
    """
    samples = _integers(pixels, bits)
    return samples if alpha is None else np.concatenate([samples, _integers(alpha, bits)[..., None]], axis=2)


def resized(plane: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """One channel of another size, by Pillow's bicubic interpolation.

    Shape:
        (H, W) to (height, width).
    """
    image = Image.fromarray(np.ascontiguousarray(plane, np.float32))
    return np.array(image.resize((width, height), Image.Resampling.BICUBIC))


def over_white(pixels: NDArray[np.float32], alpha: NDArray[np.float32]) -> NDArray[np.float32]:
    """Transparent pixels as they look on white."""
    return (pixels - 1) * alpha[..., None] + 1


def unit_samples(samples: NDArray[Any]) -> NDArray[Any]:
    """Values in [0, 1]: float32 of whole numbers of 8 or 16 bits; what is floating point stays as it is.

    Shape:
        Any; the result has the same.
    """
    if samples.dtype.kind == "f":
        return samples
    # in place, as below: a large photograph in float32 takes more memory than all else
    values = np.ascontiguousarray(samples, dtype=np.float32)
    values /= np.float32(np.iinfo(samples.dtype).max)
    return values


def _integers(values: NDArray[Any], bits: int) -> Samples:
    kind = np.dtype(np.uint8 if bits == 8 else np.uint16)
    if values.dtype == kind:
        return values
    whole = np.empty(values.shape, kind)
    rows = max(1, _CHUNK // values[0].size)
    for top in range(0, len(values), rows):
        scaled = unit_samples(values[top : top + rows])
        if not np.isfinite(scaled).all():
            raise ImageError("the pixels hold NaN or infinity; expected values in [0, 1]")
        scaled = scaled.clip(0, 1)
        scaled *= np.float32(2**bits - 1)
        np.rint(scaled, out=scaled)
        whole[top : top + rows] = scaled
    return whole
