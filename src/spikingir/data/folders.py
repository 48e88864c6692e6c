"""Images of a folder as arrays, in the order of their names."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from spikingir.data.errors import DataError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")


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


def read_gray(path: str | Path) -> NDArray[np.uint8]:
    """Gray 8-bit image; colour becomes luma after ITU-R 601.

    Shape:
        ``(H, W)``.

    Raises:
        DataError: The file is missing, damaged or no image.
    """
    return _read(path, "L")


def read_rgb(path: str | Path) -> NDArray[np.uint8]:
    """Colour 8-bit image; gray becomes three equal channels.

    Shape:
        ``(H, W, 3)``.

    Raises:
        DataError: The file is missing, damaged or no image.
    """
    return _read(path, "RGB")


def _read(path: str | Path, mode: str) -> NDArray[np.uint8]:
    try:
        with Image.open(path) as image:
            return np.array(image.convert(mode))
    except OSError as error:
        raise DataError(f"cannot read {path} ({error}); expected an image: copy it again") from error
