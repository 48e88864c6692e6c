"""NYU Depth V2: indoor scenes with depth from a Kinect, as files or as the official archive.

Files: ``rgb/0012.jpg`` and ``depth/0012.png``, numbered from 1 as RESIDE does. The archive is
``nyu_depth_v2_labeled.mat``, an HDF5 file. Frames are 640x480 with a white border of ten pixels, which is cut off, as
RESIDE does.

Source:
    Silberman et al. 2012, "Indoor Segmentation and Support Inference from RGBD Images".
"""

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikingir.data.errors import DataError
from spikingir.data.folders import Map, pair_images, read_map, read_rgb
from spikingir.data.scenes import DepthFiles, Scene, SceneFiles
from spikingir.environment import install_command

FRAME = (480, 640)
"""Height and width of a frame with its border."""

MILLIMETRE = 0.001
"""Unit of 16-bit depth in metres."""

_INSIDE = (slice(10, 470), slice(10, 630))
_STEP = 0.039198  # metres, of 8-bit depth; values are the middles of its steps


class NyuFiles(DepthFiles):
    """A colour frame and its depth: 16 bits are millimetres, 8 bits steps of 39.198 mm."""

    def read(self) -> Scene:
        """Read the scene inside the border.

        Raises:
            DataError: A file cannot be read, or is no frame of 640x480.
        """
        image, depth = read_rgb(self.image), read_map(self.depth)
        for path, frame in ((self.image, image), (self.depth, depth)):
            if frame.shape[:2] != FRAME:
                raise DataError(f"{path} is {frame.shape[1]}x{frame.shape[0]}; expected a frame of NYU, 640x480")
        return Scene(self.name, inside(image), inside(depth), *scale_of(depth, self.depth))


@dataclass(frozen=True)
class NyuArchived:
    """One scene of ``nyu_depth_v2_labeled.mat``.

    Attributes:
        archive: The file.
        index: Place in it, from 0.
    """

    archive: Path
    index: int

    @property
    def name(self) -> str:
        """Number of the scene, from 1."""
        return f"{self.index + 1:04}"

    def read(self) -> Scene:
        """Read the scene inside the border; depth is rounded to millimetres.

        Raises:
            DataError: h5py is missing, or the file is not that archive.
        """
        with _open(self.archive) as file:
            image, depth = file["images"][self.index], file["depths"][self.index]
        millimetres = np.round(inside(depth.T) / MILLIMETRE).astype(np.uint16)
        return Scene(self.name, inside(image.transpose(2, 1, 0)), millimetres, MILLIMETRE)


def list_nyu(source: str | Path) -> list[SceneFiles]:
    """Scenes of NYU Depth V2 in their order; neighbours often show the same room.

    Args:
        source: Folder with ``rgb`` and ``depth``, or ``nyu_depth_v2_labeled.mat``.

    Raises:
        DataError: A folder is missing or half copied; h5py is missing, or the file is not that archive.
    """
    source = Path(source)
    if not source.is_file():
        return [NyuFiles(image, depth) for image, depth in pair_images(source / "rgb", source / "depth")]
    with _open(source) as file:
        return [NyuArchived(source, index) for index in range(len(file["depths"]))]


def inside(frame: NDArray[Any]) -> NDArray[Any]:
    """The part of a frame inside its border, in memory of its own.

    Shape:
        ``(480, 640, ...)``; the result ``(460, 620, ...)``.
    """
    return np.ascontiguousarray(frame[_INSIDE])


def scale_of(depth: Map, path: Path) -> tuple[float, float]:
    """Unit and offset of :class:`Scene` for depth stored in 8 or 16 bits.

    Raises:
        DataError: It is stored otherwise.
    """
    if depth.dtype == np.uint8:
        return _STEP, 0.5
    if depth.dtype == np.uint16:
        return MILLIMETRE, 0.0
    raise DataError(f"{path} holds {depth.dtype}; expected depth in 8 or 16 bits")


def _open(archive: Path) -> Any:
    """The archive as an open HDF5 file."""
    try:
        h5py = import_module("h5py")
    except ModuleNotFoundError:
        command = install_command("spikingir[nyu]")
        raise DataError(f"{archive} is read by h5py; install it with: {command}") from None
    try:
        file = h5py.File(archive, "r")
    except OSError as error:
        raise DataError(f"cannot read {archive} ({error}); expected nyu_depth_v2_labeled.mat: copy it again") from error
    if not (missing := {"images", "depths"} - set(file)):
        return file
    file.close()
    raise DataError(f"{archive} holds no {' and '.join(sorted(missing))}; expected nyu_depth_v2_labeled.mat")
