"""Images of a folder as arrays, in the order of their names."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")


def list_images(folder: str | Path) -> list[Path]:
    """Image files of ``folder``, sorted by name.

    Raises:
        FileNotFoundError: The folder is missing or holds no image.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}; it should hold images ({', '.join(SUFFIXES)})")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise FileNotFoundError(f"no image in {folder}; expected files ending in {', '.join(SUFFIXES)}")
    return paths


def read_gray(path: str | Path) -> NDArray[np.uint8]:
    """Gray 8-bit image.

    Shape:
        ``(H, W)``.
    """
    with Image.open(path) as image:
        return np.array(image.convert("L"))
