"""PolyU: photographs with the noise of real cameras, each beside the mean of many shots of the same scene.

Files: ``noisy/Canon80D_8_8_800_GO_11.jpg`` and ``clean/`` of the same name; the name begins with the camera.

Source:
    Xu et al. 2018, "Real-world Noisy Image Denoising: A New Benchmark".
"""

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spikingir.data.errors import DataError
from spikingir.data.folders import pair_images, read_rgb

Photographs = tuple[NDArray[np.uint8], NDArray[np.uint8]]
"""A noisy photograph and the clean one, (H, W, 3) each."""


def list_polyu(folder: str | Path) -> dict[str, list[tuple[Path, Path]]]:
    """Noisy and clean files by camera, in the order of their names.

    Raises:
        DataError: A folder is missing or half copied.
    """
    folder = Path(folder)
    cameras: dict[str, list[tuple[Path, Path]]] = {}
    for noisy, clean in pair_images(folder / "noisy", folder / "clean"):
        cameras.setdefault(noisy.stem.partition("_")[0], []).append((noisy, clean))
    return cameras


def read_polyu(
    folder: str | Path, *, cameras: Sequence[str] | None = None, without: Collection[str] = ()
) -> list[Photographs]:
    """Pairs of some cameras.

    Args:
        folder: Folder with ``noisy`` and ``clean``.
        cameras: Cameras to read; all unless given.
        without: Cameras to leave out.

    Raises:
        DataError: A folder is missing or half copied, a file cannot be read, the two of a pair differ in size, or a
            camera that was named is not there.
    """
    listed = list_polyu(folder)
    if unknown := sorted({*(cameras or ()), *without} - listed.keys()):
        raise DataError(f"{folder} has no camera {unknown[0]!r}; it has {', '.join(listed)}")
    found = []
    for camera, files in listed.items():
        if (cameras is not None and camera not in cameras) or camera in without:
            continue
        for noisy_file, clean_file in files:
            noisy, clean = read_rgb(noisy_file), read_rgb(clean_file)
            if noisy.shape != clean.shape:
                raise DataError(f"{noisy_file} and {clean_file} differ in size; copy both again")
            found.append((noisy, clean))
    return found
