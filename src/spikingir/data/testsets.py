"""Test sets by name or folder: pairs of a degraded and a clean image, made when they are asked for.

Pair ``i`` of a set is the same whatever else is asked of it: a smaller selection takes some of the same pairs, and a
crop is cut out of the whole degraded image.
"""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise, product
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar, Literal, overload

from torch import Tensor

from spikingir.data.errors import DataError
from spikingir.data.folders import list_images, read_gray, read_rgb, to_tensor
from spikingir.data.haze import BETAS, add_haze
from spikingir.data.middlebury import list_middlebury
from spikingir.data.noise import add_gaussian_noise, sample_generator
from spikingir.data.nyu import list_nyu
from spikingir.data.scenes import SceneFiles
from spikingir.data.sots import INDOOR_BETAS, HazyFiles, list_hazy, list_indoor
from spikingir.errors import InputError

Task = Literal["denoise", "dehaze"]

_AIRLIGHTS = (0.6, 0.8, 1.0)
_GOLDEN = (5**0.5 - 1) / 2


@dataclass(frozen=True)
class TestPair:
    """A problem and its answer.

    Attributes:
        name: Of the image, or of the scene and its haze.
        degraded: Noisy or hazy image; noise that is not clipped leaves [0, 1].
        clean: What restoring it should give, in [0, 1].
        scene: What other pairs may show as well, with other haze; empty where no other does.
        sigma: Level of the noise that was added, on the 0..255 scale; None where it is not known.

    Shape:
        (C, H, W) each, float32.
    """

    __test__: ClassVar[bool] = False  # pytest takes a class of this name for a test

    name: str
    degraded: Tensor
    clean: Tensor
    scene: str = ""
    sigma: float | None = None


_Reader = Callable[[], TestPair]


@dataclass(frozen=True)
class _Request:
    """What pairs are asked for, beside which set.

    Attributes:
        channels: Of the images.
        sigma: Of the noise, on the 0..255 scale.
        clip: Whether noisy images are clipped.
        seed: Of the noise.
    """

    channels: int
    sigma: float
    clip: bool
    seed: int


_Maker = Callable[[Path, _Request], list[_Reader]]


@dataclass(frozen=True)
class _Set:
    """What a name stands for.

    Attributes:
        task: What the set tests.
        folder: Where it is, below the data root.
        maker: Tells how to make each pair.
    """

    task: Task
    folder: str
    maker: _Maker


def _noisy_images(folder: Path, request: _Request, gray: bool = False, count: int | None = None) -> list[_Reader]:
    """Clean images of a folder, with noise."""
    if gray and request.channels != 1:
        raise DataError(
            f"the images of {folder} are gray; expected colour, such as cbsd68, for {request.channels} channels"
        )
    images = list_images(folder)
    if count not in (None, len(images)):
        raise DataError(f"{folder} holds {len(images)} images, expected {count}; copy the whole set")
    return [partial(_noisy, path, i, request) for i, path in enumerate(images)]


def _published(folder: Path, request: _Request) -> list[_Reader]:
    """Hazy images as they are."""
    return [partial(_hazy, files) for files in list_hazy(folder)]


def _sots_indoor(folder: Path, request: _Request) -> list[_Reader]:
    """Each scene with RESIDE's ten strengths of haze."""
    return [
        partial(_made, scene, f"{scene.name}_{number}", beta, 1.0)
        for scene in list_indoor(folder)
        for number, beta in enumerate(INDOOR_BETAS, 1)
    ]


def _grid(list_scenes: Callable[[Path], Sequence[SceneFiles]], folder: Path, request: _Request) -> list[_Reader]:
    """Each scene with 21 hazes of the range that AOD-Net is trained on."""
    return [
        partial(_made, scene, f"{scene.name}_{airlight:g}_{beta:g}", beta, airlight)
        for scene in list_scenes(folder)
        for airlight, beta in product(_AIRLIGHTS, BETAS)
    ]


_TESTSETS: Mapping[str, _Set] = MappingProxyType(
    {
        "bsd68": _Set("denoise", "denoise/bsd68", partial(_noisy_images, gray=True, count=68)),
        "set12": _Set("denoise", "denoise/set12", partial(_noisy_images, gray=True, count=12)),
        "cbsd68": _Set("denoise", "denoise/cbsd68", partial(_noisy_images, count=68)),
        "sots-indoor": _Set("dehaze", "dehaze/sots_indoor", _sots_indoor),
        "sots-indoor-published": _Set("dehaze", "dehaze/sots_indoor", _published),
        "sots-outdoor": _Set("dehaze", "dehaze/sots_outdoor", _published),
        "testset-a-like": _Set("dehaze", "dehaze/nyu/test_a", partial(_grid, list_nyu)),
        "middlebury": _Set("dehaze", "dehaze/middlebury", partial(_grid, list_middlebury)),
    }
)

_FOLDERS: Mapping[Task, _Maker] = MappingProxyType({"denoise": _noisy_images, "dehaze": _published})


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

    To denoise: ``bsd68``, ``set12``, ``cbsd68``, or a folder of clean images.

    To dehaze: ``sots-indoor``, made from depth as RESIDE did; ``sots-indoor-published``; ``sots-outdoor``;
    ``testset-a-like`` (scenes of NYU Depth V2) and ``middlebury``, each scene with ``A`` of 0.6, 0.8, 1 and ``beta`` of
    :data:`spikingir.data.haze.BETAS`; or a folder with ``hazy`` and ``gt`` or ``clear``. Haze is made by depth relative
    to the farthest of each scene, and rounded to 8 bits, as in published images.

    Args:
        name_or_folder: One of :func:`testset_names`, or a folder.
        root: Folder of the image collection; only names need it.
        task: What the set is to test.
        channels: 1 for gray images, 3 for colour; 3 to dehaze.
        sigma: Level of the noise on the 0..255 scale, to denoise. The noise of image ``i`` of the whole set comes
            from ``sample_generator(seed, i)``.
        clip: Whether noisy images are clipped to [0, 1].
        seed: Seed of the noise.
        limit: Take at most so many pairs, spread evenly: one of each of ``limit`` equal stretches of the set, at a
            place in it that differs from stretch to stretch, so that neither scenes nor strengths of haze are missed.
        crop: Cut ``crop`` x ``crop`` pixels out of the middle, fewer where the image is smaller.

    Raises:
        DataError: An unknown name that is no folder either, a set that does not fit the task or the channels, or one
            that is missing or half copied.
        ValueError: ``channels``, ``sigma``, ``limit`` or ``crop`` is out of its range.
    """
    for key, value in (("limit", limit), ("crop", crop)):
        if value is not None and value < 1:
            raise InputError(f"{key} is {value}; expected at least 1, or None")
    if task == "denoise" and (sigma is None or sigma < 0):
        raise InputError(f"sigma is {sigma}; to denoise, expected a noise level on the 0..255 scale, such as 25")
    if task == "dehaze" and sigma is not None:
        raise InputError(f"sigma is {sigma}; to dehaze, expected None, for no noise is added to haze")
    if channels not in ((1, 3) if task == "denoise" else (3,)):
        raise InputError(f"channels is {channels}; to {task}, expected {'1 or 3' if task == 'denoise' else '3'}")
    folder, make = _find(name_or_folder, root, task)
    readers = make(folder, _Request(channels, sigma or 0.0, clip, seed))
    return _LazyPairs(tuple(readers[i] for i in _spread(len(readers), limit)), crop)


def _find(name: str | Path, root: Path | None, task: Task) -> tuple[Path, _Maker]:
    """Folder of a set, and what makes its pairs."""
    known = _TESTSETS.get(str(name))
    if known is None and Path(name).is_dir():
        return Path(name), _FOLDERS[task]
    fitting = ", ".join(key for key, other in _TESTSETS.items() if other.task == task)
    if known is None:
        near = difflib.get_close_matches(str(name), _TESTSETS, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"expected one of {fitting}, or a folder"
        raise DataError(f"no test set {str(name)!r} and no such folder; {hint}")
    if known.task != task:
        raise DataError(f"test set {name} is to {known.task}; to {task}, expected one of {fitting}, or a folder")
    if root is None:
        raise DataError(f"test set {name} needs the folder of the image collection; give it as the data root")
    return Path(root) / known.folder, known.maker


def _noisy(path: Path, index: int, request: _Request) -> TestPair:
    clean = to_tensor(read_gray(path) if request.channels == 1 else read_rgb(path))
    noisy = add_gaussian_noise(clean, request.sigma, sample_generator(request.seed, index), request.clip)
    return TestPair(path.stem, noisy, clean, sigma=request.sigma)


def _hazy(files: HazyFiles) -> TestPair:
    hazy, clean = files.read()
    return TestPair(files.name, to_tensor(hazy), to_tensor(clean), files.clean.stem)


def _made(files: SceneFiles, name: str, beta: float, airlight: float) -> TestPair:
    scene = files.read()
    clean = scene.clean()
    hazy = add_haze(clean, scene.depth(), beta, airlight)
    return TestPair(name, (hazy * 255).round() / 255, clean, files.name)


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
        return replace(pair, degraded=_centre(pair.degraded, self.crop), clean=_centre(pair.clean, self.crop))


def _centre(image: Tensor, size: int) -> Tensor:
    """The middle of an image, at most ``size`` x ``size``."""
    height, width = image.shape[-2:]
    top, left = max(height - size, 0) // 2, max(width - size, 0) // 2
    return image[..., top : top + size, left : left + size].contiguous()
