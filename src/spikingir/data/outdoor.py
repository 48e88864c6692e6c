"""Outdoor scenes with relative depth, recovered from published pairs of hazy and clean photographs.

Files: ``rgb/0444.jpg`` and ``depth/0444.png``, which may be smaller. Depth is relative to each scene: 8 bits, of which
255 is far. Where sky and haze look alike the sky came out near; here it is set to far.
"""

from importlib import import_module
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional

from spikingir.data.errors import DataError
from spikingir.data.folders import pair_images, read_map, read_rgb, to_tensor
from spikingir.data.scenes import DepthFiles, Scene
from spikingir.environment import install_command

FAR = 255
"""Depth of what is farthest, and of the sky."""

_BRIGHT = 0.55  # least brightness of sky, in [0, 1]
_SMOOTH = 0.02  # greatest mean gradient of sky, a pixel
_WINDOW = 9  # pixels that it is averaged over


class OutdoorFiles(DepthFiles):
    """A colour photograph without haze, and its relative depth in 8 bits, of the same shape or smaller."""

    def read(self) -> Scene:
        """Read the scene; its depth is 1 where it is farthest, sky included.

        Raises:
            DataError: A file cannot be read, or depth is stored otherwise.
        """
        image, depth = read_rgb(self.image), read_map(self.depth)
        if depth.dtype != np.uint8:
            raise DataError(f"{self.depth} holds {depth.dtype}; expected relative depth in 8 bits")
        height, width = image.shape[:2]
        large = np.asarray(Image.fromarray(depth).resize((width, height), Image.Resampling.BILINEAR), np.float32)
        sky = sky_mask(image)
        levels = np.rint(large * (1 - sky) + FAR * sky).astype(np.uint8)
        return Scene(self.name, image, levels, 1 / FAR)


def list_outdoor(folder: str | Path) -> list[OutdoorFiles]:
    """Outdoor scenes in the order of their names.

    Raises:
        DataError: A folder is missing or half copied.
    """
    folder = Path(folder)
    return [OutdoorFiles(image, depth) for image, depth in pair_images(folder / "rgb", folder / "depth")]


def sky_mask(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Where a photograph shows sky: bright in one colour, smooth, connected to the top; 1 for sky, soft at its edge.

    Shape:
        ``(H, W, 3)``; the result ``(H, W)``.

    Raises:
        DataError: scipy is missing.
    """
    try:
        label = import_module("scipy.ndimage").label
    except ModuleNotFoundError:
        command = install_command("spikingir[train]")
        raise DataError(f"sky is found with scipy; install it with: {command}") from None
    brightness = _mean(to_tensor(image).amax(0), 3)
    down, across = torch.gradient(brightness)
    gradient = _mean(torch.hypot(down, across), _WINDOW)
    plain = ((brightness > _BRIGHT) & (gradient < _SMOOTH)).float()
    plain = torch.maximum(plain, (_mean(plain, 5) > 0.8).float())
    regions = label(plain.numpy() > 0)[0]
    sky = np.isin(regions, np.unique(regions[0])) & (regions > 0)
    return cast(NDArray[np.float32], _mean(torch.from_numpy(sky).float(), _WINDOW).numpy())


def _mean(values: Tensor, side: int) -> Tensor:
    """Mean over a square around each pixel, of what lies inside the image."""
    return functional.avg_pool2d(values[None], side, 1, side // 2, count_include_pad=False)[0]
