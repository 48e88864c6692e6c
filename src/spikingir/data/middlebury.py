"""Middlebury stereo scenes: the left view, and depth from its disparity.

Here ``rgb/Art.png`` with ``disp/Art.png``; as published, a folder for each scene with ``view1.png`` and ``disp1.png``
(2005, 2006) or ``im0.png`` and ``disp0.pfm`` (2014).

Depth is ``1 / (disparity + offset)``, up to a factor that relative depth does not need. The offset undoes the cropping
of the views; published scenes tell it, in ``dmin.txt`` or as ``doffs`` in ``calib.txt``. Without one it is 0, which
exaggerates differences in depth.

Source:
    Scharstein and Pal 2007, "Learning Conditional Random Fields for Stereo"; Scharstein et al. 2014, "High-Resolution
    Stereo Datasets with Subpixel-Accurate Ground Truth".
"""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spikingir.data.errors import DataError
from spikingir.data.folders import pair_images, read_map, read_rgb
from spikingir.data.scenes import Scene

_PUBLISHED = (("view1.png", "disp1.png"), ("im0.png", "disp0.pfm"))
_STRAYS = 1e-3


@dataclass(frozen=True)
class StereoFiles:
    """One scene.

    Attributes:
        name: Name of the scene.
        view: Left view.
        disparity: Its disparity; what is not finite or not positive is unknown.
    """

    name: str
    view: Path
    disparity: Path

    def read(self) -> Scene:
        """Read the scene, with depth in a unit of its own and holes filled.

        Raises:
            DataError: A file cannot be read, the sizes differ, or no disparity is known.
        """
        disparity = read_map(self.disparity).astype(np.float32)
        if not (np.isfinite(disparity) & (disparity > 0)).any():
            raise DataError(f"{self.disparity} knows no disparity; expected a map with some above 0")
        depth = np.reciprocal(fill_holes(disparity) + np.float32(_offset(self.view.parent)))
        return Scene(self.name, read_rgb(self.view), depth)


def list_middlebury(folder: str | Path) -> list[StereoFiles]:
    """Middlebury's scenes, in either layout, sorted by name.

    Raises:
        DataError: The folder is missing, half copied, or holds no scene.
    """
    folder = Path(folder)
    if (folder / "rgb").is_dir():
        return [StereoFiles(view.stem, view, disp) for view, disp in pair_images(folder / "rgb", folder / "disp")]
    if not folder.is_dir():
        raise DataError(f"no folder {folder}; it should hold Middlebury's scenes")
    scenes = []
    for scene in sorted(path for path in folder.iterdir() if path.is_dir()):
        for view, disparity in _PUBLISHED:
            if (scene / view).is_file():
                if not (scene / disparity).is_file():
                    raise DataError(f"{scene} has {view} and no {disparity}; copy the whole set")
                scenes.append(StereoFiles(scene.name, scene / view, scene / disparity))
                break
    if not scenes:
        raise DataError(
            f"no scene in {folder}; expected rgb and disp, or a folder for each scene with "
            + " or ".join(f"{view} and {disparity}" for view, disparity in _PUBLISHED)
        )
    return scenes


def fill_holes(disparity: NDArray[np.float32]) -> NDArray[np.float32]:
    """Disparity with its holes filled, each by the smaller of the nearest known values left and right of it.

    A hole is where the other camera does not see the scene, for something near hides it: what is seen there is the
    background. A row without any known value is that of the nearest row that has some. The smallest thousandth of the
    known values is not trusted: one stray pixel, far behind everything else, would make the whole scene look near.

    Args:
        disparity: Disparity in any unit; what is not finite or not positive is unknown, and not all of it is.

    Shape:
        ``(H, W)``; the result has the same.
    """
    known = np.isfinite(disparity) & (disparity > 0)
    known &= disparity >= np.quantile(disparity[known], _STRAYS, method="lower")
    columns = np.arange(disparity.shape[1])
    left = np.maximum.accumulate(np.where(known, columns, -1), axis=1)
    right = np.minimum.accumulate(np.where(known, columns, columns.size)[:, ::-1], axis=1)[:, ::-1]
    padded = np.pad(disparity, ((0, 0), (0, 1)), constant_values=np.inf)  # both -1 and the width lead to it
    filled: NDArray[np.float32] = np.minimum(np.take_along_axis(padded, left, 1), np.take_along_axis(padded, right, 1))
    rows = np.flatnonzero(known.any(axis=1))
    nearest = rows[np.abs(np.arange(len(filled))[:, None] - rows).argmin(axis=1)]
    whole: NDArray[np.float32] = filled[nearest]
    return whole


def _offset(scene: Path) -> float:
    """What is to be added to the disparities of a published scene, in pixels of its full size."""
    if (scene / "dmin.txt").is_file():
        text, pattern = (scene / "dmin.txt").read_text(), r"\s*([-+.\d]+)"
    elif (scene / "calib.txt").is_file():
        text, pattern = (scene / "calib.txt").read_text(), r"(?s).*\bdoffs\s*=\s*([-+.\d]+)"
    else:
        return 0.0
    found = re.match(pattern, text)
    if found is None:
        raise DataError(f"{scene} tells no offset of its disparities; copy its dmin.txt or calib.txt again")
    return float(found[1])
