"""RESIDE's test sets (SOTS), indoor and outdoor: published hazy images, and the indoor ones made anew from depth.

Source:
    Li et al. 2019, "Benchmarking Single-Image Dehazing and Beyond"; the parameters of the indoor images are measured
    on all 500 of them, which are met to within one of 255 levels.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikingir.data.errors import DataError
from spikingir.data.folders import pair_images, read_map, read_rgb
from spikingir.data.nyu import FRAME, inside, scale_of
from spikingir.data.scenes import DepthFiles, Scene

INDOOR_BETAS = tuple(0.5 + 0.1 * number for number in range(1, 11))
"""Scattering coefficients of ``1400_1.png`` to ``1400_10.png``; atmospheric light is 1, depth relative."""


class IndoorFiles(DepthFiles):
    """A haze-free image inside the border of NYU's frame, and its depth, of the same size or of the whole frame."""

    def read(self) -> Scene:
        """Read the scene inside the border.

        Raises:
            DataError: A file cannot be read, or the sizes do not fit.
        """
        image, depth = read_rgb(self.image), read_map(self.depth)
        return Scene(self.name, _without_border(image), _without_border(depth), *scale_of(depth, self.depth))


@dataclass(frozen=True)
class HazyFiles:
    """A published hazy image and the haze-free one.

    Attributes:
        hazy: Hazy image.
        clean: Haze-free image.
    """

    hazy: Path
    clean: Path

    @property
    def name(self) -> str:
        """Name of the hazy image."""
        return self.hazy.stem

    def read(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Read both; of a haze-free frame of NYU, the part that its hazy image shows.

        Raises:
            DataError: A file cannot be read, or the sizes differ.

        Shape:
            ``(H, W, 3)`` each.
        """
        hazy, clean = read_rgb(self.hazy), read_rgb(self.clean)
        if hazy.shape != clean.shape and hazy.shape == (bare := _without_border(clean)).shape:
            clean = bare
        if hazy.shape != clean.shape:
            raise DataError(
                f"{self.hazy} is {hazy.shape[1]}x{hazy.shape[0]} and {self.clean} {clean.shape[1]}x{clean.shape[0]}; "
                "expected one size"
            )
        return hazy, clean


def list_indoor(folder: str | Path) -> list[IndoorFiles]:
    """Indoor scenes to make haze in: ``gt/1400.png`` and ``depth/1400.png``.

    Raises:
        DataError: A folder is missing or half copied.
    """
    folder = Path(folder)
    return [IndoorFiles(image, depth) for image, depth in pair_images(folder / "gt", folder / "depth")]


def list_hazy(folder: str | Path) -> list[HazyFiles]:
    """Hazy images, indoor or outdoor, and their haze-free ones.

    ``hazy/1400_1.png`` or ``hazy/0001_0.8_0.2.jpg``, and ``gt/1400.png`` or ``clear/1400.png``; see
    :func:`spikingir.data.folders.pair_images`.

    Raises:
        DataError: A folder is missing or half copied.
    """
    folder = Path(folder)
    clean = folder / "clear" if (folder / "clear").is_dir() else folder / "gt"
    return [HazyFiles(*paths) for paths in pair_images(folder / "hazy", clean)]


def _without_border(image: NDArray[Any]) -> NDArray[Any]:
    """A frame of NYU without its border; what is no such frame stays as it is."""
    return inside(image) if image.shape[:2] == FRAME else image
