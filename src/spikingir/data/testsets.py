"""Test sets by name or folder: pairs of a degraded and a clean image, made when they are asked for.

Pair ``i`` of a set is the same whatever else is asked of it: a smaller selection takes some of the same pairs, and a
crop is cut out of the whole degraded image.
"""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar, Literal, overload

import torch
from torch import Tensor

from spikingir.data.errors import DataError
from spikingir.data.folders import list_images, read_gray, read_rgb
from spikingir.data.noise import add_gaussian_noise, sample_generator

Task = Literal["denoise", "dehaze"]

_GOLDEN = (5**0.5 - 1) / 2


@dataclass(frozen=True)
class TestPair:
    """A problem and its answer.

    Attributes:
        name: Of the image or of the scene and its haze.
        degraded: Noisy or hazy image; noise that is not clipped leaves [0, 1].
        clean: What restoring it should give, in [0, 1].

    Shape:
        (C, H, W) each, float32.
    """

    __test__: ClassVar[bool] = False  # pytest takes a class of this name for a test

    name: str
    degraded: Tensor
    clean: Tensor


@dataclass(frozen=True)
class _Known:
    """What a name stands for.

    Attributes:
        task: What the set tests.
        folder: Where it is below the data root.
        channels: Channel counts of networks that it suits.
        images: Number of images of the whole set.
    """

    task: Task
    folder: str
    channels: tuple[int, ...]
    images: int


_TESTSETS: Mapping[str, _Known] = MappingProxyType(
    {
        "bsd68": _Known("denoise", "denoise/bsd68", (1,), 68),
        "set12": _Known("denoise", "denoise/set12", (1,), 12),
        "cbsd68": _Known("denoise", "denoise/cbsd68", (1, 3), 68),
    }
)


def testset_names() -> list[str]:
    """Names that :func:`open_testset` knows."""
    return list(_TESTSETS)


def open_testset(
    name_or_folder: str | Path,
    root: Path | None = None,
    *,
    task: Task,
    channels: int,
    sigma: float | None = None,
    clip: bool = False,
    seed: int = 0,
    limit: int | None = None,
    crop: int | None = None,
) -> Sequence[TestPair]:
    """Open a test set; a pair is read, and noise or haze added to it, each time that it is asked for.

    Args:
        name_or_folder: One of :func:`testset_names`, or a folder of clean images.
        root: Folder of the image collection; only names need it.
        task: What the set is to test.
        channels: 1 for gray images, 3 for colour.
        sigma: Level of the noise on the 0..255 scale, for denoising. The noise of image ``i`` of the whole set comes
            from ``sample_generator(seed, i)``.
        clip: Whether noisy images are clipped to [0, 1].
        seed: Seed of the noise.
        limit: Take at most so many pairs, spread evenly: one of each of ``limit`` equal stretches of the set, at a
            place in it that differs from stretch to stretch, so that neither scenes nor strengths of haze are missed.
        crop: Cut ``crop`` x ``crop`` pixels out of the middle, fewer where the image is smaller.

    Raises:
        DataError: An unknown name that is no folder either, a set that does not fit the task or the channels, or one
            that is missing or half copied.
        ValueError: ``sigma``, ``limit`` or ``crop`` is out of its range.
    """
    for key, value in (("limit", limit), ("crop", crop)):
        if value is not None and value < 1:
            raise ValueError(f"{key} is {value}; expected at least 1, or None")
    if sigma is None or sigma < 0:
        raise ValueError(f"sigma is {sigma}; expected a noise level on the 0..255 scale, such as 25")
    folder = _folder(name_or_folder, root, task, channels)
    images = list_images(folder)
    readers = [partial(_noisy, path, channels, sigma, clip, seed, i) for i, path in enumerate(images)]
    return _LazyPairs(tuple(readers[i] for i in _spread(len(readers), limit)), crop)


def _folder(name: str | Path, root: Path | None, task: Task, channels: int) -> Path:
    """Folder that a name stands for, or the given one."""
    known = _TESTSETS.get(str(name))
    if known is None:
        if Path(name).is_dir():
            return Path(name)
        near = difflib.get_close_matches(str(name), _TESTSETS, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(_TESTSETS)}, or a folder"
        raise DataError(f"no test set {str(name)!r} and no such folder; {hint}")
    if known.task != task:
        fitting = ", ".join(key for key, other in _TESTSETS.items() if other.task == task)
        raise DataError(f"test set {name} is to {known.task}, not to {task}; expected one of {fitting}, or a folder")
    if channels not in known.channels:
        raise DataError(f"test set {name} is for {' or '.join(map(str, known.channels))} channels, not {channels}")
    if root is None:
        raise DataError(f"test set {name} needs the folder of the image collection; give it as the data root")
    folder = Path(root) / known.folder
    if (found := len(list_images(folder))) != known.images:
        raise DataError(f"{folder} holds {found} images, expected the {known.images} of {name}; copy it completely")
    return folder


def _noisy(path: Path, channels: int, sigma: float, clip: bool, seed: int, index: int) -> TestPair:
    clean = _read(path, channels)
    return TestPair(path.stem, add_gaussian_noise(clean, sigma, sample_generator(seed, index), clip), clean)


def _read(path: Path, channels: int) -> Tensor:
    """Image in [0, 1].

    Shape:
        ``(channels, H, W)``.
    """
    if channels == 1:
        return torch.from_numpy(read_gray(path))[None].float() / 255
    return torch.from_numpy(read_rgb(path)).movedim(2, 0).contiguous().float() / 255


def _spread(count: int, limit: int | None) -> list[int]:
    """At most ``limit`` of ``range(count)``, one of each of so many equal stretches.

    Any fixed stride would meet the same scene or the same strength of haze over and over; steps of the golden ratio
    fall in with nothing.
    """
    if limit is None or limit >= count:
        return list(range(count))
    edges = [k * count // limit for k in range(limit + 1)]
    return [start + int(k * _GOLDEN % 1 * (end - start)) for k, (start, end) in enumerate(pairwise(edges))]


@dataclass(frozen=True)
class _LazyPairs(Sequence[TestPair]):
    """Pairs that are made when they are asked for."""

    readers: tuple[Callable[[], TestPair], ...]
    crop: int | None = None

    def __len__(self) -> int:
        return len(self.readers)

    @overload
    def __getitem__(self, index: int) -> TestPair: ...
    @overload
    def __getitem__(self, index: slice) -> "_LazyPairs": ...
    def __getitem__(self, index: int | slice) -> "TestPair | _LazyPairs":
        if isinstance(index, slice):
            return _LazyPairs(self.readers[index], self.crop)
        pair = self.readers[index]()
        if self.crop is None:
            return pair
        return TestPair(pair.name, _centre(pair.degraded, self.crop), _centre(pair.clean, self.crop))


def _centre(image: Tensor, size: int) -> Tensor:
    """The middle of an image, at most ``size`` x ``size``."""
    height, width = image.shape[-2:]
    top, left = max(height - size, 0) // 2, max(width - size, 0) // 2
    return image[..., top : top + size, left : left + size].contiguous()
