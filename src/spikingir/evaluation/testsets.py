"""Test sets by name or folder."""

import difflib
from collections.abc import Sequence
from pathlib import Path

from spikingir.data.errors import DataError
from spikingir.data.sets import TestSet
from spikingir.data.testsets import Lazy, PairMaker, Photograph, Request, TestPair, read_photographs, spread
from spikingir.errors import InputError
from spikingir.tasks import TASKS, Task, TaskName, find_task


def testset_names() -> list[str]:
    """Names of all test sets."""
    return [name for _, task in TASKS.usable() for name in task.testsets]


def open_testset(
    name_or_folder: str | Path,
    root: Path | None = None,
    *,
    task: TaskName,
    channels: int,
    sigma: float | None = None,
    clip: bool = False,
    seed: int = 0,
    limit: int | None = None,
    crop: int | None = None,
    max_pixels: int | None = None,
) -> Sequence[TestPair]:
    """Open a test set; a pair is read, and noise or haze added to it, each time that it is asked for.

    To denoise: one of :data:`~spikingir.data.sets.NOISE_SETS`, or a folder of clean images, to which noise is added.

    To dehaze: one of :data:`~spikingir.data.sets.HAZE_SETS`, or a folder with ``hazy`` and ``gt`` or ``clear``. In
    ``sots-indoor`` haze is made from depth as RESIDE did; ``testset-a-like`` (scenes of NYU Depth V2) and
    ``middlebury`` have each scene with ``A`` of 0.6, 0.8, 1 and ``beta`` of :data:`spikingir.data.haze.BETAS`,
    ``outdoor-40`` each scene with one of these. Haze is made by depth relative to the farthest of each scene, and
    rounded to 8 bits, as in published images.

    Args:
        name_or_folder: One of :func:`testset_names`, or a folder.
        root: Folder of the image collection; only names need it.
        task: What the set is to test.
        channels: 1 for gray images, 3 for colour; 3 to dehaze.
        sigma: Level of the noise on the 0..255 scale, where noise is added. The noise of image ``i`` of the whole set
            comes from ``sample_generator(seed, i)``.
        clip: Whether noisy images are clipped to [0, 1].
        seed: Seed of the noise.
        limit: Take at most so many pairs, spread evenly: one of each of ``limit`` equal stretches of the set, at a
            place in it that differs from stretch to stretch, so that neither scenes nor strengths of haze are missed.
        crop: Cut ``crop`` x ``crop`` pixels out of the middle, fewer where the image is smaller.
        max_pixels: Largest image of a folder that is read; any unless given.

    Raises:
        DataError: An unknown name that is no folder either, a set that does not fit the task or the channels, or one
            that is missing or half copied.
        InputError: There is no such task, or ``channels``, ``sigma``, ``limit`` or ``crop`` is out of its range.
    """
    _check_part(limit, crop)
    wanted = find_task(task)
    degradation = wanted.degradation()
    known = wanted.testsets.get(str(name_or_folder))
    if known is not None and not known.reference:
        raise DataError(f"the photographs of {name_or_folder} have no clean ones to measure against; assess them")
    if wanted.sigma_of is None or (known is not None and known.degraded):
        if sigma is not None:
            what = str(name_or_folder) if wanted.sigma_of else f"to {task}"
            raise InputError(f"sigma is {sigma}; {what}, expected None, for no {wanted.sigma_of or 'noise'} is added")
    elif sigma is None or sigma < 0:
        raise InputError(f"sigma is {sigma}; to {task}, expected a level of {wanted.sigma_of}, 0 to 255, such as 25")
    if channels not in degradation.channels:
        counts = " or ".join(map(str, degradation.channels))
        raise InputError(f"channels is {channels}; to {task}, expected {counts}")
    folder, make = _find(name_or_folder, root, wanted)
    readers = make(folder, Request(channels, sigma or 0.0, clip, seed, max_pixels))
    return Lazy(tuple(readers[i] for i in spread(len(readers), limit)), crop)


def open_photographs(
    name: str, root: Path | None = None, *, task: TaskName, limit: int | None = None, crop: int | None = None
) -> Sequence[Photograph]:
    """Open a test set of photographs whose clean ones are not known.

    Args:
        name: Its name.
        root: Folder of the image collection.
        task: What the set is to test.
        limit: See :func:`open_testset`.
        crop: Likewise.

    Raises:
        DataError: There is no such set of that task, or it is missing.
        InputError: ``limit`` or ``crop`` is out of its range.
    """
    _check_part(limit, crop)
    wanted = find_task(task)
    known = {name: found for name, found in wanted.testsets.items() if not found.reference}
    if name not in known:
        raise DataError(f"no photographs {name!r} to {task} without clean ones; known: {', '.join(known) or 'none'}")
    readers = read_photographs(_folder(name, known[name], root))
    return Lazy(tuple(readers[i] for i in spread(len(readers), limit)), crop)


def _check_part(limit: int | None, crop: int | None) -> None:
    for key, value in (("limit", limit), ("crop", crop)):
        if value is not None and (type(value) is not int or value < 1):
            raise InputError(f"{key} is {value}; expected a whole number from 1 up, or None")


def _folder(name: str, found: TestSet, root: Path | None) -> Path:
    if root is None:
        raise DataError(f"test set {name} needs the folder of the image collection; give it as the data root")
    return Path(root) / found.folder


def _find(name: str | Path, root: Path | None, task: Task) -> tuple[Path, PairMaker]:
    """Folder of a set, and what makes its pairs."""
    own, degradation = task.testsets, task.degradation()
    if (found := own.get(str(name))) is not None:
        return _folder(str(name), found, root), degradation.testsets[str(name)]
    expected = f"expected {'one of ' * (len(own) > 1)}{', '.join([*own, 'or a folder' if own else 'a folder'])}"
    for _, other in TASKS.usable():
        if str(name) in other.testsets:
            raise DataError(f"test set {name} is to {other.name}; to {task.name}, {expected}")
    if Path(name).is_dir():
        return Path(name), degradation.pairs
    near = difflib.get_close_matches(str(name), testset_names(), 1)
    hint = f"did you mean {near[0]!r}?" if near else expected
    raise DataError(f"no test set {str(name)!r} and no such folder; {hint}")
