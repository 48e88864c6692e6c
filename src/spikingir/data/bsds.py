"""Berkeley's segmentation images (BSDS500) in their published layout: what denoisers are trained on.

Source:
    Arbelaez et al. 2011, "Contour Detection and Hierarchical Image Segmentation".
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from spikingir.data.errors import DataError
from spikingir.data.folders import list_images

SPLITS: Mapping[str, int] = MappingProxyType({"train": 200, "val": 100, "test": 200})
"""Number of images of each part."""

TRAINING = ("train", "test")
"""Parts without the images of BSD68, all of which are in ``val``."""


def list_bsds(folder: str | Path, *splits: str) -> list[Path]:
    """Images of some parts of BSDS500, sorted by name within each.

    They are colour JPEG files; :func:`spikingir.data.folders.read_gray` makes gray images of them.

    Args:
        folder: The folder that has ``data/images``.
        *splits: Names of :data:`SPLITS`; those of :data:`TRAINING` unless given.

    Raises:
        DataError: An unknown split, or one that is missing or half copied.
    """
    paths = []
    for split in splits or TRAINING:
        if split not in SPLITS:
            raise DataError(f"BSDS500 has no split {split!r}; expected some of {', '.join(SPLITS)}")
        images = list_images(Path(folder) / "data/images" / split)
        if len(images) != SPLITS[split]:
            raise DataError(f"{images[0].parent} holds {len(images)} images, expected {SPLITS[split]}; copy all of it")
        paths += images
    return paths
