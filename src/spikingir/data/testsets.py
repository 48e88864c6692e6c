"""Pairs of a degraded and a clean image to measure on, made when they are asked for.

Pair ``i`` of a set is the same whatever else is asked of it: a smaller selection takes some of the same pairs, and a
crop is cut out of the whole degraded image.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise, product
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar, Self, TypeVar, overload

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from spikingir.data.errors import DataError
from spikingir.data.folders import list_images, read_gray, read_rgb, require_size, to_tensor
from spikingir.data.haze import BETAS, add_haze
from spikingir.data.middlebury import list_middlebury
from spikingir.data.noise import add_gaussian_noise, sample_generator
from spikingir.data.nyu import list_nyu
from spikingir.data.outdoor import list_outdoor
from spikingir.data.polyu import list_polyu
from spikingir.data.samples import Sample, hazy_sample, noisy_sample
from spikingir.data.scenes import SceneFiles
from spikingir.data.sets import TESTED_CAMERAS, TESTED_SCENES
from spikingir.data.sots import INDOOR_BETAS, HazyFiles, list_hazy, list_indoor

_AIRLIGHTS = (0.6, 0.8, 1.0)
_GOLDEN = (5**0.5 - 1) / 2


@dataclass(frozen=True)
class Photograph:
    """A problem.

    Attributes:
        name: Of the image, or of the scene and its haze.
        degraded: Noisy or hazy image; noise that is not clipped leaves [0, 1].

    Shape:
        (C, H, W), float32.
    """

    name: str
    degraded: Tensor

    def cropped(self, size: int) -> Self:
        """The middle of it, at most ``size`` x ``size``."""
        return replace(self, degraded=_centre(self.degraded, size))


@dataclass(frozen=True)
class TestPair(Photograph):
    """A problem and its answer.

    Attributes:
        clean: What restoring it should give, in [0, 1]; to enlarge, larger than the degraded one.
        scene: What other pairs may show as well, with other haze; empty where no other does.
        sigma: Level of the noise that was added, on the 0..255 scale; None where it is not known.

    Shape:
        (C, H, W) each, float32; the clean one of a smaller degraded one is a whole number of times as large.
    """

    __test__: ClassVar[bool] = False  # pytest takes a class of this name for a test

    clean: Tensor
    scene: str = ""
    sigma: float | None = None

    def cropped(self, size: int) -> Self:
        """The middle of it, at most ``size`` x ``size``."""
        scale = max(1, self.clean.shape[-1] // self.degraded.shape[-1])
        return replace(super().cropped(size), clean=_centre(self.clean, size, scale))


Item = TypeVar("Item", bound=Photograph)

Reader = Callable[[], TestPair]
"""Makes one pair."""


@dataclass(frozen=True)
class Request:
    """What pairs are asked for, beside which set.

    Attributes:
        channels: Of the images.
        sigma: Of the noise, on the 0..255 scale.
        clip: Whether noisy images are clipped.
        seed: Of the noise.
        max_pixels: Largest image of a folder that is read; any unless given.
    """

    channels: int
    sigma: float
    clip: bool
    seed: int
    max_pixels: int | None = None


PairMaker = Callable[[Path, Request], list[Reader]]
"""Tells how to make each pair of a folder."""


@dataclass(frozen=True)
class Degradation:
    """How clean images become degraded ones, to measure on.

    Attributes:
        channels: Channel counts that its images can have.
        pairs: Tells how to make each pair of a folder of one's own.
        testsets: Tells how to make each pair of a test set, by its name, see :mod:`spikingir.data.sets`.
        sample: Makes the photograph that the demonstration restores.
    """

    channels: tuple[int, ...]
    pairs: PairMaker
    testsets: Mapping[str, PairMaker]
    sample: Callable[[], Sample]


def _noisy_images(folder: Path, request: Request, gray: bool = False, count: int | None = None) -> list[Reader]:
    """Clean images of a folder, with noise."""
    if gray and request.channels != 1:
        raise DataError(
            f"the images of {folder} are gray; expected colour, such as cbsd68, for {request.channels} channels"
        )
    images = list_images(folder)
    if count not in (None, len(images)):
        raise DataError(f"{folder} holds {len(images)} images, expected {count}; copy the whole set")
    return [partial(_noisy, path, i, request) for i, path in enumerate(images)]


def _published(folder: Path, request: Request) -> list[Reader]:
    """Hazy images as they are."""
    return [partial(_hazy, files, request) for files in list_hazy(folder)]


def _sots_indoor(folder: Path, request: Request) -> list[Reader]:
    """Each scene with RESIDE's ten strengths of haze."""
    return [
        partial(_made, scene, f"{scene.name}_{number}", beta, 1.0)
        for scene in list_indoor(folder)
        for number, beta in enumerate(INDOOR_BETAS, 1)
    ]


def _grid(list_scenes: Callable[[Path], Sequence[SceneFiles]], folder: Path, request: Request) -> list[Reader]:
    """Each scene with 21 hazes of the range that AOD-Net is trained on."""
    return [
        partial(_made, scene, f"{scene.name}_{airlight:g}_{beta:g}", beta, airlight)
        for scene in list_scenes(folder)
        for airlight, beta in product(_AIRLIGHTS, BETAS)
    ]


def _polyu(folder: Path, request: Request) -> list[Reader]:
    """Photographs of the cameras that are tested on."""
    cameras = list_polyu(folder)
    if missing := [camera for camera in TESTED_CAMERAS if camera not in cameras]:
        raise DataError(f"{folder} has no photographs of {missing[0]}; copy the whole set")
    read = read_gray if request.channels == 1 else read_rgb
    return [partial(_photographed, read, *files) for camera in TESTED_CAMERAS for files in cameras[camera]]


def _outdoor(folder: Path, request: Request) -> list[Reader]:
    """The scenes that are tested on, each with one of the 21 hazes: in steps of eight, to meet all of them."""
    scenes = list_outdoor(folder)
    if len(scenes) < TESTED_SCENES:
        raise DataError(f"{folder} holds {len(scenes)} scenes, expected {TESTED_SCENES} at least; copy the whole set")
    hazes = list(product(_AIRLIGHTS, BETAS))
    return [
        partial(_made, scene, f"{scene.name}_{airlight:g}_{beta:g}", beta, airlight)
        for i, scene in enumerate(scenes[-TESTED_SCENES:])
        for airlight, beta in [hazes[8 * i % len(hazes)]]
    ]


NOISE = Degradation(
    channels=(1, 3),
    pairs=_noisy_images,
    testsets=MappingProxyType(
        {
            "bsd68": partial(_noisy_images, gray=True, count=68),
            "set12": partial(_noisy_images, gray=True, count=12),
            "cbsd68": partial(_noisy_images, count=68),
            "polyu": _polyu,
        }
    ),
    sample=noisy_sample,
)
"""Gaussian noise, added to clean images; noise of cameras, as photographed."""

HAZE = Degradation(
    channels=(3,),
    pairs=_published,
    testsets=MappingProxyType(
        {
            "sots-indoor": _sots_indoor,
            "sots-indoor-published": _published,
            "sots-outdoor": _published,
            "outdoor-40": _outdoor,
            "testset-a-like": partial(_grid, list_nyu),
            "middlebury": partial(_grid, list_middlebury),
        }
    ),
    sample=hazy_sample,
)
"""Haze, made from depth or published with its clean images."""


def _photographed(read: Callable[[Path], NDArray[np.uint8]], noisy_file: Path, clean_file: Path) -> TestPair:
    noisy, clean = to_tensor(read(noisy_file)), to_tensor(read(clean_file))
    if noisy.shape != clean.shape:
        raise DataError(f"{noisy_file} and {clean_file} differ in size; copy both again")
    return TestPair(noisy_file.stem, noisy, clean)


def _noisy(path: Path, index: int, request: Request) -> TestPair:
    require_size(path, request.max_pixels)
    clean = to_tensor(read_gray(path) if request.channels == 1 else read_rgb(path))
    noisy = add_gaussian_noise(clean, request.sigma, sample_generator(request.seed, index), request.clip)
    return TestPair(path.stem, noisy, clean, sigma=request.sigma)


def _hazy(files: HazyFiles, request: Request) -> TestPair:
    for path in (files.hazy, files.clean):
        require_size(path, request.max_pixels)
    hazy, clean = files.read()
    return TestPair(files.name, to_tensor(hazy), to_tensor(clean), files.clean.stem)


def _made(files: SceneFiles, name: str, beta: float, airlight: float) -> TestPair:
    scene = files.read()
    clean = scene.clean()
    hazy = add_haze(clean, scene.depth(), beta, airlight)
    return TestPair(name, (hazy * 255).round() / 255, clean, files.name)


def read_photographs(folder: Path) -> list[Callable[[], Photograph]]:
    """How to read each photograph of a folder, in colour.

    Raises:
        DataError: The folder is missing or holds no image.
    """
    return [partial(_read_photograph, path) for path in list_images(folder)]


def _read_photograph(path: Path) -> Photograph:
    return Photograph(path.stem, to_tensor(read_rgb(path)))


def spread(count: int, limit: int | None) -> list[int]:
    """At most ``limit`` of ``range(count)``, one of each of so many equal stretches.

    Any fixed stride would meet the same scene or the same strength of haze over and over; steps of the golden ratio
    fall in with nothing.
    """
    if limit is None or limit >= count:
        return list(range(count))
    edges = [k * count // limit for k in range(limit + 1)]
    return [start + int(k * _GOLDEN % 1 * (end - start)) for k, (start, end) in enumerate(pairwise(edges))]


@dataclass(frozen=True)
class Lazy(Sequence[Item]):
    """Photographs or pairs that are made when they are asked for."""

    readers: tuple[Callable[[], Item], ...]
    crop: int | None = None

    def __len__(self) -> int:
        return len(self.readers)

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> "Lazy[Item]": ...
    def __getitem__(self, index: int | slice) -> "Item | Lazy[Item]":
        if isinstance(index, slice):
            return Lazy(self.readers[index], self.crop)
        one = self.readers[index]()
        return one if self.crop is None else one.cropped(self.crop)


def _centre(image: Tensor, size: int, scale: int = 1) -> Tensor:
    """The middle of an image, at most ``size`` x ``size`` squares of ``scale`` x ``scale`` pixels."""
    height, width = (side // scale for side in image.shape[-2:])
    top, left = (scale * (max(side - size, 0) // 2) for side in (height, width))
    return image[..., top : top + scale * size, left : left + scale * size].contiguous()
