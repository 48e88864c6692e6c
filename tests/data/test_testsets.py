"""Test sets: pairs that depend on the set and the seed alone, however many of them, and how much of each, is asked."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from spikingir.data import testsets
from spikingir.data.errors import DataError
from spikingir.data.folders import list_images, read_gray
from spikingir.data.noise import add_gaussian_noise, sample_generator
from spikingir.data.testsets import TestPair, open_testset


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five colour images of several sizes."""
    generator = np.random.default_rng(0)
    for i in range(5):
        Image.fromarray(generator.integers(0, 256, (12 + i, 20, 3), np.uint8)).save(tmp_path / f"{i}.png")
    return tmp_path


def noisy(folder: Path, **options: Any) -> list[TestPair]:
    return list(open_testset(folder, **{"task": "denoise", "channels": 1, "sigma": 25.0, **options}))


def test_noise_of_an_image_is_that_of_its_number(folder: Path) -> None:
    for i, (path, pair) in enumerate(zip(list_images(folder), noisy(folder, seed=3), strict=True)):
        clean = torch.from_numpy(read_gray(path))[None, None].float() / 255
        assert pair.name == path.stem
        assert torch.equal(pair.clean[None], clean)
        assert torch.equal(pair.degraded[None], add_gaussian_noise(clean, 25, sample_generator(3, i)))


@pytest.mark.parametrize("channels", [1, 3])
def test_a_selection_is_of_the_same_pairs_and_a_crop_of_the_same_noise(folder: Path, channels: int) -> None:
    whole = {pair.name: pair for pair in noisy(folder, channels=channels)}
    some = noisy(folder, channels=channels, limit=3, crop=14)
    assert len(some) == 3
    for pair in some:
        height = min(14, whole[pair.name].clean.shape[1])
        top = (whole[pair.name].clean.shape[1] - height) // 2
        for part in ("degraded", "clean"):
            image = getattr(whole[pair.name], part)
            assert torch.equal(getattr(pair, part), image[:, top : top + height, 3:17])
            assert getattr(pair, part).shape[0] == channels


def test_clipped_noise(folder: Path) -> None:
    for pair, clipped in zip(noisy(folder, sigma=80.0), noisy(folder, sigma=80.0, clip=True), strict=True):
        assert pair.degraded.max() > 1
        assert torch.equal(clipped.degraded, pair.degraded.clamp(0, 1))


@given(st.integers(1, 300), st.integers(1, 300))
def test_a_selection_has_one_of_each_stretch(count: int, limit: int) -> None:
    picked = testsets._spread(count, limit)
    assert len(picked) == min(count, limit)
    for k, i in enumerate(picked):
        assert k * count // len(picked) <= i < (k + 1) * count // len(picked)


def test_a_selection_meets_scenes_and_strengths_of_haze_alike() -> None:
    # ten strengths of each of 25 scenes, as in SOTS: most fixed strides meet few of them
    for limit in (20, 25, 26, 50, 51, 125):
        picked = testsets._spread(250, limit)
        assert len({i // 10 for i in picked}) > 0.7 * min(limit, 25)
        assert len({i % 10 for i in picked}) > 8


def test_it_is_a_lazy_sequence(folder: Path) -> None:
    pairs = open_testset(folder, task="denoise", channels=1, sigma=25)
    (folder / "4.png").unlink()
    assert len(pairs) == 5
    assert [pair.name for pair in pairs[1:3]] == ["1", "2"]
    with pytest.raises(DataError, match=r"4\.png"):
        pairs[-1]
    with pytest.raises(IndexError):
        pairs[5]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name_or_folder": "bsd86"}, "no test set 'bsd86'.*did you mean 'bsd68'"),
        ({"name_or_folder": "xyz"}, "expected one of .*set12.*or a folder"),
        ({"channels": 3}, "set12 is for 1 channels, not 3"),
        ({"root": None}, "set12 needs the folder of the image collection"),
        ({"sigma": None}, "sigma is None"),
        ({"sigma": -1.0}, "sigma is -1"),
        ({"limit": 0}, "limit is 0"),
        ({"crop": 0}, "crop is 0"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    arguments: dict[str, Any] = {
        "name_or_folder": "set12",
        "root": tmp_path,
        "task": "denoise",
        "channels": 1,
        "sigma": 25.0,
        **change,
    }
    with pytest.raises(ValueError, match=message):
        open_testset(**arguments)


def test_a_half_copied_set_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "denoise/set12"
    with pytest.raises(DataError, match=r"no folder .*set12"):
        open_testset("set12", tmp_path, task="denoise", channels=1, sigma=25)
    folder.mkdir(parents=True)
    Image.new("L", (4, 4)).save(folder / "01.png")
    with pytest.raises(DataError, match="set12 holds 1 images, expected the 12"):
        open_testset("set12", tmp_path, task="denoise", channels=1, sigma=25)


@pytest.mark.data
@pytest.mark.parametrize(("name", "channels", "count"), [("bsd68", 1, 68), ("set12", 1, 12), ("cbsd68", 3, 68)])
def test_real_sets_for_denoising(name: str, channels: int, count: int, data_root: Path) -> None:
    pairs = open_testset(name, data_root, task="denoise", channels=channels, sigma=25, limit=2, crop=64)
    assert len(open_testset(name, data_root, task="denoise", channels=channels, sigma=25)) == count
    for pair in pairs:
        assert pair.degraded.shape == pair.clean.shape == (channels, 64, 64)
        assert (pair.degraded - pair.clean).std().item() * 255 == pytest.approx(25, rel=0.1)
