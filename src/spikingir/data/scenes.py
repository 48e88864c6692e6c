"""Haze-free images with the depth of their pixels, from which haze is made."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spikingir.data.errors import DataError
from spikingir.data.folders import Map, to_tensor
from spikingir.errors import InputError

Item = TypeVar("Item")

_WHOLE = slice(None)


@dataclass(frozen=True)
class Scene:
    """A haze-free image and its depth, as compact as in their files: ``d = unit (m + offset)``.

    Attributes:
        name: Name of the scene in its set.
        image: Colour image.
        depth_map: The map ``m`` that depth is stored in.
        unit: Depth of one step of it, in metres where the set knows them.
        offset: Where its zero is.

    Shape:
        ``image``: (H, W, 3); ``depth_map``: (H, W).

    Raises:
        DataError: Image and map differ in size.
    """

    name: str
    image: NDArray[np.uint8]
    depth_map: Map
    unit: float = 1.0
    offset: float = 0.0

    def __post_init__(self) -> None:
        if self.image.shape[:2] != self.depth_map.shape:
            image, depth = self.image.shape[:2], self.depth_map.shape
            raise DataError(f"scene {self.name} has an image of {image} and a depth of {depth}; expected one size")

    def clean(self, rows: slice = _WHOLE, columns: slice = _WHOLE) -> Tensor:
        """A part of the image.

        Shape:
            (3, H, W), in [0, 1].
        """
        return to_tensor(self.image[rows, columns])

    def depth(self, rows: slice = _WHOLE, columns: slice = _WHOLE) -> Tensor:
        """Depth of the same part.

        Shape:
            (H, W), float32.
        """
        part = torch.from_numpy(self.depth_map[rows, columns].astype(np.float32))
        return (part + self.offset) * self.unit

    @cached_property
    def farthest(self) -> float:
        """Largest depth of the whole scene."""
        return (float(self.depth_map.max()) + self.offset) * self.unit


@dataclass(frozen=True)
class DepthFiles:
    """Two files of a scene that is not read yet.

    Attributes:
        image: Haze-free image.
        depth: Its depth.
    """

    image: Path
    depth: Path

    @property
    def name(self) -> str:
        """Name of the scene."""
        return self.image.stem


def require_room(scenes: Iterable[Scene], size: int) -> None:
    """Refuse scenes that patches are too large for.

    Raises:
        InputError: A side of one is shorter than ``size``.
    """
    for scene in scenes:
        if min(scene.depth_map.shape) < size:
            raise InputError(f"scene {scene.name} is {scene.depth_map.shape}; a patch of {size}x{size} does not fit")


class SceneFiles(Protocol):
    """A scene that is not read yet."""

    @property
    def name(self) -> str:
        """Name of the scene in its set."""

    def read(self) -> Scene:
        """Read it."""


def hold_back(items: Sequence[Item], share: float = 0.05, blocks: int = 5) -> tuple[list[Item], list[Item]]:
    """Split a set into what is trained on and what is held back for validation.

    Neighbours of a set often show the same room, so whole runs of them are held back: the last ones of each of
    ``blocks`` equal stretches.

    Args:
        items: The set, in its order.
        share: Part that is held back, in (0, 1).
        blocks: Number of runs.

    Returns:
        Items to train on, and items held back.

    Raises:
        ValueError: ``share`` or ``blocks`` is out of its range, or nothing would be left on either side.
    """
    if not 0 < share < 1 or blocks < 1:
        raise InputError(f"share is {share} and blocks {blocks}; expected a share in (0, 1) and at least one block")
    train: list[Item] = []
    held: list[Item] = []
    for k in range(blocks):
        stretch = items[k * len(items) // blocks : (k + 1) * len(items) // blocks]
        kept = len(stretch) - round(share * len(stretch))
        train += stretch[:kept]
        held += stretch[kept:]
    if not train or not held:
        raise InputError(f"{len(items)} items in {blocks} blocks with a share of {share} leave one side empty")
    return train, held
