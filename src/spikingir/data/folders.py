"""Images of a folder as arrays, in the order of their names, and beside their partners in another."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from PIL.ImageFile import ImageFile
from torch import Tensor

from spikingir.data.errors import DataError
from spikingir.files import require_file

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")

Map = NDArray[np.uint8] | NDArray[np.uint16] | NDArray[np.float32]
"""Depth or disparity, as files hold it."""


def list_images(folder: str | Path) -> list[Path]:
    """Image files of ``folder``, sorted by name.

    Raises:
        DataError: The folder is missing or holds no image.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"no folder {folder}; it should hold images ({', '.join(SUFFIXES)})")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise DataError(f"no image in {folder}; expected files ending in {', '.join(SUFFIXES)}")
    return paths


def pair_images(folder: str | Path, partners: str | Path) -> list[tuple[Path, Path]]:
    """Each image of ``folder`` with its partner in another.

    The partner has the same name before the suffix, or all of it up to the first underscore: the haze-free image of
    ``0001_0.8_0.2.jpg`` is ``0001.png``. Several images may share a partner; a partner without an image is a sign of a
    set that was not copied to its end.

    Raises:
        DataError: A folder is missing or holds no image, or an image of either has no partner.
    """
    images, others = list_images(folder), {path.stem: path for path in list_images(partners)}
    names = [image.stem if image.stem in others else image.stem.partition("_")[0] for image in images]
    alone = [image.name for image, name in zip(images, names, strict=True) if name not in others]
    if alone:
        raise DataError(f"{_some(alone)} of {folder} without a partner in {partners}; copy the whole set")
    met = set(names)
    alone = [other.name for name, other in others.items() if name not in met]
    if alone:
        raise DataError(f"{_some(alone)} of {partners} without a partner in {folder}; copy the whole set")
    return [(image, others[name]) for image, name in zip(images, names, strict=True)]


def _some(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def read_gray(path: str | Path) -> NDArray[np.uint8]:
    """Gray 8-bit image; colour becomes luma after ITU-R 601.

    Shape:
        ``(H, W)``.

    Raises:
        DataError: The file is missing, damaged, no image, or one of more than 8 bits.
    """
    return _read(path, "L")


def read_rgb(path: str | Path) -> NDArray[np.uint8]:
    """Colour 8-bit image; gray becomes three equal channels.

    Shape:
        ``(H, W, 3)``.

    Raises:
        DataError: The file is missing, damaged, no image, or one of more than 8 bits.
    """
    return _read(path, "RGB")


def read_map(path: str | Path) -> Map:
    """Depth or disparity as the file holds it: 8 or 16 bits, or floating point.

    Shape:
        ``(H, W)``.

    Raises:
        DataError: The file is missing, damaged, or has more than one channel.
    """
    values = _read(path, None)
    if values.ndim != 2:
        raise DataError(f"{path} is a colour image; expected a map of one channel, of 8 or 16 bits or floating point")
    return values


def require_size(path: str | Path, max_pixels: int | None) -> None:
    """Check from the head of an image file that it has no more than ``max_pixels`` pixels; None is any number.

    Raises:
        DataError: It has more, or cannot be read.
    """
    if max_pixels is None:
        return
    with _opened(path) as image:
        width, height = image.size
    if width * height > max_pixels:
        raise DataError(
            f"{path}: {width} x {height} are {width * height / 1e6:.1f} megapixels, expected at most "
            f"{max_pixels / 1e6:g}; give a smaller image, or raise --max-megapixels (max_pixels=)"
        )


def to_tensor(image: NDArray[np.uint8]) -> Tensor:
    """8-bit image in [0, 1].

    Shape:
        ``(H, W)`` or ``(H, W, C)``; the result (C, H, W), float32.
    """
    tensor = torch.from_numpy(image)
    return (tensor[None] if tensor.dim() == 2 else tensor.movedim(2, 0)).contiguous().float() / 255


def _read(path: str | Path, mode: str | None) -> NDArray[np.uint8]:
    with _opened(path) as image:
        # Pillow would cut off what does not fit; that it does so to colour only its decoder's name tells
        if mode and (image.mode.startswith(("I", "F")) or ";16" in str(image.tile)):
            raise DataError(f"{path} has more than 8 bits a pixel; make an 8-bit image of it")
        return np.array(image.convert(mode) if mode else image)


@contextmanager
def _opened(path: str | Path) -> Iterator[ImageFile]:
    """An image file; what is wrong with it is said, while it is opened and decoded."""
    try:
        require_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # how large it may be is checked elsewhere
            with Image.open(path) as image:
                yield image
    except Image.DecompressionBombError as error:
        raise DataError(f"{path} is too large to be read ({error}); cut a part out of it") from error
    except (OSError, SyntaxError) as error:  # Pillow raises both of damaged files
        raise DataError(f"cannot read {path} ({error}); expected an image: copy it again") from error
