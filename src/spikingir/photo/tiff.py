"""TIFF files, through tifffile; JPEG, fax and the like in them through Pillow.

A decoder never sees the file as it came: it gets a directory with those tags alone that say how the pixels of the first
picture lie, each once and checked. So no other picture is walked to, no damaged text stops the pixels, and all decoders
are told the same size. What they return is compared with it.
"""

import io
import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import TiffTags
from PIL.TiffImagePlugin import TiffImageFile

from spikingir.environment import install_command
from spikingir.photo.containers import jpeg_frame
from spikingir.photo.formats import RAISE_LIMIT, ImageError
from spikingir.photo.metadata import (
    DESCRIBING,
    ORDERS,
    ORIENTATION,
    Directory,
    Entry,
    describing,
    exif_of,
    numbers,
    read_directory,
    read_tree,
    tree_of,
    write_directory,
)
from spikingir.photo.photo import Photo, Samples, from_samples, naive_rgb

_XMP, _PROFILE, _SUB_DIRECTORIES, _OLD_SUBFILE = 700, 34675, 330, 255
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _SAMPLES = 256, 257, 258, 259, 262, 277
_SUBFILE, _PLANAR, _PREDICTOR, _MAP, _EXTRA, _SAMPLE_FORMAT = 254, 284, 317, 320, 338, 339
_TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_COUNTS, _OFFSETS, _ROWS, _COUNTS = 322, 323, 324, 325, 273, 278, 279
_INKS, _DEPTH, _TILE_DEPTH = 332, 32997, 32998
_FILL, _JPEG_TABLES = 266, 347
# how the pixels lie: those above, options of fax and JPEG, subsampling and range of YCbCr
_PIXELS = {
    *(_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _FILL, _OFFSETS, _SAMPLES, _ROWS, _COUNTS, _PLANAR),
    *(_PREDICTOR, _MAP, _TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_COUNTS, _EXTRA, _SAMPLE_FORMAT, _JPEG_TABLES),
    *(292, 293, *range(512, 522), 529, 530, 531, 532),
}
# what goes without a word: it says how the pixels of this file lay, and is read or written anew
_SPENT = _PIXELS | {_SUBFILE, _INKS, _DEPTH, _TILE_DEPTH, ORIENTATION, _XMP, _PROFILE, 280, 281, 297, 334}

_WHITE_IS_ZERO, _RGB, _PALETTE, _CMYK, _YCBCR = 0, 2, 3, 5, 6
_COLOURS = {_WHITE_IS_ZERO: 1, 1: 1, _RGB: 3, _PALETTE: 1, _CMYK: 4, _YCBCR: 3}
_PHOTOMETRICS = {4: "mask", 8: "LAB", 9: "LAB", 10: "LAB", 32803: "raw sensor", 32844: "LogL", 32845: "LogLuv"}
_NONE, _LZW, _DEFLATE, _PACKBITS, _LZMA, _ZSTD = 1, 5, 8, 32773, 34925, 50000
_PLAIN = (_NONE, _DEFLATE, 32946, _PACKBITS)  # what tifffile unpacks by itself
_PACKED = (*_PLAIN, _LZW, _LZMA, _ZSTD)  # and with imagecodecs
_PREDICTED = (_LZW, _DEFLATE, 32946, _LZMA, _ZSTD)  # elsewhere libtiff and the specification know no predictor
_JPEG = 7
_PILLOW = (2, 3, 4, 6, _JPEG, 50001)  # fax, JPEG, WebP
_PREMULTIPLIED, _STRAIGHT = 1, 2
_PREVIEW = 1
_PIECE, _LEAST_PIECES = 2_000, 1_000
_MOST_SAMPLES = 8  # what is unpacked grows with them
_EXPECTED = "expected gray, RGB, palette or CMYK: convert it"


@dataclass(frozen=True)
class _Layout:
    """How the pixels lie, as the tags say."""

    width: int
    height: int
    bits: int
    samples: int
    photometric: int
    compression: int
    planar: int
    predictor: int
    extra: tuple[int, ...]
    orientation: int | None

    @property
    def colours(self) -> int:
        return _COLOURS[self.photometric]

    @property
    def alpha(self) -> int | None:
        """Which sample is the opacity."""
        kinds = (_PREMULTIPLIED, _STRAIGHT)
        return next((self.colours + i for i, kind in enumerate(self.extra) if kind in kinds), None)


def decode(content: bytes, max_pixels: int, check_size: Callable[[int, int], None]) -> Photo:
    """Photo of the first picture of a TIFF file.

    Args:
        content: The file.
        max_pixels: Largest image that is read; a strip or tile for each 2,000 of them is the most that it may have.
        check_size: Refuses a size that is too large.

    Raises:
        ImageError: It has pixels of a kind that is not read, or needs a package that is missing.
        Exception: Whatever the decoders come across in a damaged file.
    """
    order = ORDERS[content[:2]]
    start = struct.unpack_from(f"{order}I", content, 4)[0]
    tags, following = read_directory(content, start, order)
    layout = _layout(tags, order)
    check_size(layout.width, layout.height)
    pieces = _check_pieces(tags, order, layout, content, check_size)
    if pieces > max(_LEAST_PIECES, max_pixels // _PIECE):
        raise ImageError(f"it has {pieces} strips or tiles; save it anew with fewer, {RAISE_LIMIT}")
    pixels = {tag: entry for tag, entry in tags.items() if tag in _PIXELS}
    if layout.compression not in _PREDICTED:
        pixels.pop(_PREDICTOR, None)
    at = len(content) + len(content) % 2
    bare = content[:4] + struct.pack(f"{order}I", at) + content[8:].ljust(at - 8, b"\0")
    bare += write_directory(pixels, at, order)

    reader = _with_pillow if _needs_pillow(layout) else _with_tifffile
    samples, notes = reader(bare, layout), list[str]()
    lost = [_name(tag) for tag in tags if tag not in _SPENT and tag not in DESCRIBING]
    hidden = layout.samples - layout.colours - (layout.alpha is not None)
    if hidden > 0:
        lost.append("an extra channel" if hidden == 1 else f"{hidden} extra channels")
    samples, alpha = _split(samples, layout)
    if layout.photometric == _PALETTE:
        samples = _shown(samples, numbers(tags[_MAP], order), layout.bits)
    elif layout.bits < 8:
        samples = (samples.astype(np.uint16) * 255 // (2**layout.bits - 1)).astype(np.uint8)
    if layout.photometric == _WHITE_IS_ZERO:
        samples = np.iinfo(samples.dtype).max - samples
    if layout.photometric == _CMYK:
        samples = naive_rgb(samples)
        notes.append("CMYK is converted to RGB without colour management")
    if alpha is not None:
        samples = np.concatenate([_straight(samples, alpha, layout), alpha], axis=2)

    try:
        exif = exif_of(describing(read_tree(content, start, order)[0]), order)
    except ValueError:
        exif = None
        notes.append("the EXIF data is damaged and dropped")
    icc, xmp = (entry.data if (entry := tags.get(tag)) is not None else None for tag in (_PROFILE, _XMP))
    if following:
        notes.append("only the first of its pictures is read")
    return from_samples(
        samples,
        exif=exif,
        icc=icc,
        xmp=xmp,
        mode=_mode(layout),
        orientation=layout.orientation,
        notes=notes,
        lost=lost,
    )


def encode(samples: Samples, exif: bytes | None, icc: bytes | None, xmp: bytes | None) -> tuple[bytes, list[str]]:
    """Content of a TIFF file: strips under Deflate with horizontal differences, lossless; and what of EXIF is lost.

    Args:
        samples: Gray or RGB, and perhaps alpha, of 8 or 16 bits.
        exif: EXIF bytes, or None.
        icc: ICC profile, or None.
        xmp: XMP packet, or None.

    Shape:
        ``samples``: (H, W, C), ``C`` 1 to 4.

    Raises:
        ValueError: The EXIF data is damaged, or the file would be longer than 4 GiB.
    """
    import tifffile

    tree, order = tree_of(exif) if exif else ({}, "<")
    channels = samples.shape[2]
    file = io.BytesIO()
    tifffile.imwrite(
        file,
        samples if channels > 1 else samples[..., 0],
        byteorder="<" if order == "<" else ">",
        bigtiff=False,
        photometric="rgb" if channels > 2 else "minisblack",
        planarconfig="contig" if channels > 1 else None,
        extrasamples=["unassalpha"] if channels in (2, 4) else None,
        compression="zlib",
        predictor=True,
        metadata=None,
        software=False,
        maxworkers=1,
    )
    content = file.getvalue()
    written, _ = read_directory(content, struct.unpack_from(f"{order}I", content, 4)[0], order)
    directory: dict[int, Entry | Directory] = {tag: entry for tag, entry in written.items() if tag in _PIXELS}
    directory |= describing(tree)
    if icc:
        directory[_PROFILE] = Entry(7, len(icc), icc)
    if xmp:
        directory[_XMP] = Entry(1, len(xmp), xmp)
    at = len(content) + len(content) % 2
    content = content[:4] + struct.pack(f"{order}I", at) + content[8:].ljust(at - 8, b"\0")
    lost = [_name(tag) for tag in tree if tag not in DESCRIBING and tag not in _SPENT]
    return content + write_directory(directory, at, order), lost


def _name(tag: int) -> str:
    if tag == _SUB_DIRECTORIES:
        return "the pictures in SubIFDs"
    name: str = TiffTags.lookup(tag).name
    return f"the tag {tag}" if name == "unknown" else name


def _layout(tags: dict[int, Entry], order: str) -> _Layout:
    """What the tags say of the pixels.

    Raises:
        ImageError: Pixels of a kind that is not read.
        ValueError: The tags are damaged.
    """

    def first(tag: int, otherwise: int) -> int:
        return numbers(tags[tag], order)[0] if tag in tags else otherwise

    # Camera's raw files pass for TIFF, and have a thumbnail first
    if first(_SUBFILE, 0) & _PREVIEW or first(_OLD_SUBFILE, 0) == 2:
        raise ImageError("its first picture is a mere preview, as in a raw file; export the photograph from it first")
    samples, photometric, compression = first(_SAMPLES, 1), first(_PHOTOMETRIC, 0), first(_COMPRESSION, 1)
    if not 1 <= samples <= _MOST_SAMPLES:
        raise ImageError(f"it has {samples} samples a pixel; {_EXPECTED}")
    bits = set(numbers(tags[_BITS], order)[:samples]) if _BITS in tags else {1}
    form = set(numbers(tags[_SAMPLE_FORMAT], order)[:samples]) if _SAMPLE_FORMAT in tags else {1}
    depth = max(bits)
    if len(bits) > 1 or (depth > 8 and depth != 16) or not depth or form - {1, 4}:
        raise ImageError(f"it has {depth}-bit samples of an uncommon kind; convert it to whole numbers of 8 or 16 bits")
    if photometric not in _COLOURS or (photometric == _CMYK and first(_INKS, 1) != 1):
        kind = _PHOTOMETRICS.get(photometric, f"number {photometric}")
        raise ImageError(
            f"it has pixels of the kind {'of several inks' if photometric == _CMYK else kind}; {_EXPECTED}"
        )
    if samples < _COLOURS[photometric] or (photometric == _PALETTE and depth > 8):
        raise ImageError(f"it has {samples} samples of {depth} bits, too few for its colours, or too many; convert it")
    if max(first(_DEPTH, 1), first(_TILE_DEPTH, 1)) > 1:
        raise ImageError("it is a volume of several layers; save one of them as an image")
    if compression not in _PACKED + _PILLOW:
        raise ImageError(f"its compression (number {compression}) is not read; save it without compression, or as PNG")
    predictor = first(_PREDICTOR, 1) if compression in _PREDICTED else 1
    if predictor not in (1, 2) or (predictor == 2 and depth < 8):
        raise ImageError(f"its predictor (number {predictor}) does not go with {depth} bits; save it without one")
    extra = numbers(tags[_EXTRA], order) if _EXTRA in tags else (_STRAIGHT,)
    return _Layout(
        width=first(_WIDTH, 0),
        height=first(_HEIGHT, 0),
        bits=depth,
        samples=samples,
        photometric=photometric,
        compression=compression,
        planar=first(_PLANAR, 1) if samples > 1 else 1,
        predictor=predictor,
        extra=extra[: samples - _COLOURS[photometric]],
        orientation=first(ORIENTATION, 0) or None,
    )


def _check_pieces(
    tags: dict[int, Entry], order: str, layout: _Layout, content: bytes, check_size: Callable[[int, int], None]
) -> int:
    """How many strips or tiles there must be, where they all lie in the file and do not make work without end.

    Raises:
        ImageError: The tiles are too large.
        ValueError: The tags are damaged.
    """
    if layout.width <= 0 or layout.height <= 0 or layout.planar not in (1, 2):
        raise ValueError("its tags give no size")
    if layout.compression == 6:
        return 1  # JPEG of old has tags of its own, and libtiff for them
    if _TILE_WIDTH in tags or _TILE_OFFSETS in tags:
        width, height = numbers(tags[_TILE_WIDTH], order)[0], numbers(tags[_TILE_HEIGHT], order)[0]
        if width <= 0 or height <= 0:
            raise ValueError("its tags give tiles of no size")
        across, down = math.ceil(layout.width / width), math.ceil(layout.height / height)
        check_size(across * width, down * height)
        heights = {height}
        pieces, offsets, counts = across * down, _TILE_OFFSETS, _TILE_COUNTS
    else:
        rows = numbers(tags[_ROWS], order)[0] if _ROWS in tags else layout.height
        if rows <= 0:
            raise ValueError("its tags give strips of no size")
        pieces, offsets, counts = math.ceil(layout.height / rows), _OFFSETS, _COUNTS
        width, heights = layout.width, {min(rows, layout.height), layout.height - (pieces - 1) * rows}
    pieces *= layout.samples if layout.planar == 2 else 1
    at, sizes = (np.array(numbers(tags[tag], order)[:pieces], np.int64) for tag in (offsets, counts))
    length = len(content)
    if len(at) < pieces or len(sizes) < pieces or at.min() < 8 or sizes.min() < 1 or at.max() >= length:
        raise ValueError("some of its pixels are missing")
    if np.minimum(sizes, length - at).sum() > 2 * length:
        raise ValueError("its strips or tiles share their bytes")
    if layout.compression == _JPEG:
        channels = layout.samples if layout.planar == 1 else 1
        for begin, size in zip(at.tolist(), sizes.tolist(), strict=True):
            frame = jpeg_frame(content[begin : begin + size])
            if frame is None or frame[0] != width or frame[1] not in heights or frame[2] != channels:
                raise ValueError(f"its JPEG data is {frame} where its tags say {width, *sorted(heights), channels}")
    return pieces


def _needs_pillow(layout: _Layout) -> bool:
    if layout.compression in _PILLOW or layout.photometric == _YCBCR:
        return True
    if (layout.compression in _PLAIN and layout.bits in (1, 8, 16)) or _has_codecs():
        return False
    kinds = {(): (0, 1, _RGB, _CMYK, _YCBCR), (_STRAIGHT,): (1, _RGB)}
    plain = layout.bits == 8 and layout.photometric in kinds.get(layout.extra, ())
    few = layout.samples == 1 and layout.bits in (1, 2, 4, 8)
    if layout.planar == 2 or not (plain or few):
        raise ImageError(
            "its compression, with samples of this kind, is read by another package; "
            f"install it with: {install_command('spikingir[io16]')}"
        )
    return True


def _has_codecs() -> bool:
    import tifffile

    return _LZW in tifffile.TIFF.DECOMPRESSORS


def _with_tifffile(content: bytes, layout: _Layout) -> Samples:
    """Samples as they lie in the file, of shape (H, W, C)."""
    import tifffile

    with tifffile.TiffFile(io.BytesIO(content)) as file:
        page = file.pages.first
        samples: Any = np.asarray(page.asarray(squeeze=False, maxworkers=1))
    shape = (1, 1, layout.height, layout.width, layout.samples)
    if layout.planar == 2:
        shape = (layout.samples, 1, layout.height, layout.width, 1)
    if samples.shape != shape or samples.dtype.itemsize * 8 != max(8, layout.bits):
        raise ValueError(f"its samples are {samples.dtype} {samples.shape} where its tags say {shape}")
    samples = samples[0, 0] if layout.planar == 1 else np.moveaxis(samples[:, 0, ..., 0], 0, 2)
    found: Samples = samples.astype(np.uint8) if samples.dtype == bool else samples
    return found


def _with_pillow(content: bytes, layout: _Layout) -> Samples:
    """The same, of what tifffile does not unpack."""
    image = TiffImageFile(io.BytesIO(content))
    size, bands = image.size, image.getbands()
    if size != (layout.width, layout.height):
        raise ValueError(f"it is {size[0]} x {size[1]} where its tags say {layout.width} x {layout.height}")
    deep = image.mode.startswith("I;16")
    known = image.mode in ("1", "L", "P", "LA", "PA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr") or deep
    known = known and _PREMULTIPLIED not in layout.extra
    if not known or len(bands) != layout.samples or deep != (layout.bits == 16):
        raise ImageError(
            f"it has {layout.samples} samples of {layout.bits} bits, which are not read under its compression; "
            "save it without compression"
        )
    image.load()
    samples: Samples = np.asarray(image.convert("RGB") if image.mode == "YCbCr" else image)
    if samples.dtype == bool:
        samples = samples.astype(np.uint8)  # whose truth is 255 in memory
    elif image.mode in ("L", "LA") and layout.bits < 8:
        samples = samples // (255 // (2**layout.bits - 1))  # which Pillow has stretched
    if layout.photometric == _WHITE_IS_ZERO:  # and turned over
        samples = (2**layout.bits - 1) - samples
    return samples.reshape(layout.height, layout.width, -1)


def _split(samples: Samples, layout: _Layout) -> tuple[Samples, Samples | None]:
    """Colours, and opacity of 8 or 16 bits."""
    alpha = None if layout.alpha is None else samples[..., layout.alpha, None]
    if alpha is not None and layout.bits < 8:
        alpha = (alpha.astype(np.uint16) * 255 // (2**layout.bits - 1)).astype(np.uint8)
    return samples[..., : layout.colours], alpha


def _shown(indices: Samples, colours: tuple[int, ...], bits: int) -> Samples:
    """Colours of a palette; a map whose values all fit in 8 bits, as old scanners write it, holds 8-bit ones.

    Source:
        libtiff, ``checkcmap`` in ``tif_getimage.c``, for the maps of 8 bits.
    """
    entries = 2**bits
    if len(colours) < 3 * entries:
        raise ValueError("its palette is cut short")
    table = np.array(colours[: 3 * entries], np.uint32).reshape(3, entries).T
    shown: Samples = (table >> (0 if table.max() < 256 else 8)).astype(np.uint8)[indices[..., 0]]
    return shown


def _straight(colours: Samples, alpha: Samples, layout: _Layout) -> Samples:
    """Colours that were multiplied by their opacity, as they were before."""
    if layout.alpha is None or layout.extra[layout.alpha - layout.colours] != _PREMULTIPLIED:
        return colours
    most = np.iinfo(colours.dtype).max
    values = colours * (np.float32(most) / np.maximum(alpha, 1).astype(np.float32))
    straight: Samples = np.rint(values.clip(0, most)).astype(colours.dtype)
    return straight


def _mode(layout: _Layout) -> str:
    names = {_PALETTE: "P", _CMYK: "CMYK", _YCBCR: "YCbCr", _RGB: "RGB"}
    alpha = "A" if layout.alpha is not None else ""
    if layout.photometric in (_CMYK, _YCBCR):
        return names[layout.photometric]
    if layout.photometric in names:
        return names[layout.photometric] + alpha
    return "L" + alpha
