"""Test sets: pairs that depend on the set and the seed alone, however many of them, and how much of each, is asked."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from spikingir.data.errors import DataError
from spikingir.data.folders import list_images, read_gray
from spikingir.data.noise import add_gaussian_noise, sample_generator
from spikingir.data.outdoor import list_outdoor
from spikingir.data.testsets import TestPair, spread
from spikingir.errors import SpikingIRError
from spikingir.evaluation import testsets
from spikingir.evaluation.testsets import open_photographs, open_testset
from spikingir.tasks import TASKS
from spikingir.training.recipe import RealHaze


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
    picked = spread(count, limit)
    assert len(picked) == min(count, limit)
    for k, i in enumerate(picked):
        assert k * count // len(picked) <= i < (k + 1) * count // len(picked)


def test_a_selection_meets_scenes_and_strengths_of_haze_alike() -> None:
    # ten strengths of each of 25 scenes, as in SOTS: most fixed strides meet few of them
    for limit in (20, 25, 26, 50, 51, 125):
        picked = spread(250, limit)
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
        ({"channels": 2}, "channels is 2; to denoise, expected 1 or 3"),
        ({"channels": 3}, r"set12 are gray; expected colour, such as cbsd68, for 3"),
        ({"name_or_folder": "sots-indoor"}, r"sots-indoor is to dehaze; to denoise, expected one of bsd68"),
        ({"task": "dehaze", "sigma": None, "channels": 1}, "channels is 1; to dehaze, expected 3"),
        ({"task": "dehaze", "channels": 3}, r"sigma is 25\.0; to dehaze, expected None"),
        ({"root": None}, "set12 needs the folder of the image collection"),
        ({"sigma": None}, "sigma is None"),
        ({"sigma": -1.0}, "sigma is -1"),
        ({"task": "derain"}, "the task is 'derain'; expected denoise or dehaze"),
        ({"limit": 0}, "limit is 0"),
        ({"limit": 1.5}, "limit is 1.5; expected a whole number"),
        ({"crop": 20.5}, "crop is 20.5; expected a whole number"),
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
    with pytest.raises(SpikingIRError, match=message):
        open_testset(**arguments)


def test_a_half_copied_set_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "denoise/set12"
    with pytest.raises(DataError, match=r"no folder .*set12"):
        open_testset("set12", tmp_path, task="denoise", channels=1, sigma=25)
    folder.mkdir(parents=True)
    Image.new("L", (4, 4)).save(folder / "01.png")
    with pytest.raises(DataError, match="set12 holds 1 images, expected 12; copy the whole set"):
        open_testset("set12", tmp_path, task="denoise", channels=1, sigma=25)


def test_every_name_is_of_one_set() -> None:
    names = testsets.testset_names()
    assert len(set(names)) == len(names) == sum(len(task.testsets) for task in TASKS.values()) > 1
    for task in TASKS.values():
        compared = {name for name, found in task.testsets.items() if found.reference}
        assert compared == set(task.degradation().testsets)


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    """A collection with two scenes of each set to dehaze, those of NYU in whole frames."""
    generator = np.random.default_rng(0)

    def save(path: str, *shape: int, kind: type[np.unsignedinteger[Any]] = np.uint8) -> None:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        low = generator.integers(1, 200, (shape[0] // 20, shape[1] // 20, *shape[2:]))
        Image.fromarray(low.repeat(20, 0).repeat(20, 1).astype(kind)).save(tmp_path / path)

    for i in ("0001", "0002"):
        save(f"dehaze/nyu/test_a/rgb/{i}.png", 480, 640, 3)
        save(f"dehaze/nyu/test_a/depth/{i}.png", 480, 640, kind=np.uint16)
        save(f"dehaze/sots_indoor/gt/{i}.png", 460, 620, 3)
        save(f"dehaze/sots_indoor/depth/{i}.png", 480, 640, kind=np.uint16)
        save(f"dehaze/sots_indoor/hazy/{i}_3.png", 460, 620, 3)
        save(f"dehaze/sots_outdoor/gt/{i}.png", 40, 60, 3)
        save(f"dehaze/sots_outdoor/hazy/{i}_0.8_0.2.jpg", 40, 60, 3)
        save(f"dehaze/middlebury/rgb/{i}.png", 40, 60, 3)
        save(f"dehaze/middlebury/disp/{i}.png", 40, 60)
    return tmp_path


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Photographs of three cameras, outdoor scenes of which the first is named last, and two in real haze."""
    generator = np.random.default_rng(0)

    def save(path: str, *shape: int) -> None:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 200, shape, np.uint8)).save(tmp_path / path)

    for camera in ("Sony_a", "Canon600D_b", "Nikon_c", "Sony_d"):
        for half in ("noisy", "clean"):
            save(f"denoise/polyu/{half}/{camera}_Real.png", 30, 40, 3)
    for i in range(43):
        save(f"dehaze/outdoor/rgb/{i:04}.png", 24, 32, 3)
        save(f"dehaze/outdoor/depth/{i:04}.png", 12, 16)
    save("dehaze/real/a.png", 20, 30, 3)
    save("dehaze/real/b.png", 24, 20, 3)
    return tmp_path


def test_photographs_with_noise_of_their_own(photographs: Path) -> None:
    for channels in (1, 3):
        pairs = open_testset("polyu", photographs, task="denoise", channels=channels)
        assert [pair.name for pair in pairs] == ["Sony_a_Real", "Sony_d_Real", "Canon600D_b_Real"]
        assert {pair.sigma for pair in pairs} == {None}
        assert pairs[0].degraded.shape == pairs[0].clean.shape == (channels, 30, 40)
    read = np.asarray(Image.open(photographs / "denoise/polyu/noisy/Sony_a_Real.png"))
    assert np.array_equal((pairs[0].degraded * 255).round().permute(1, 2, 0).numpy(), read)
    with pytest.raises(SpikingIRError, match=r"sigma is 25; polyu, expected None, for no Gaussian noise is added"):
        open_testset("polyu", photographs, task="denoise", channels=3, sigma=25)
    for half in ("noisy", "clean"):
        (photographs / f"denoise/polyu/{half}/Canon600D_b_Real.png").unlink()
    with pytest.raises(DataError, match="no photographs of Canon600D; copy the whole set"):
        open_testset("polyu", photographs, task="denoise", channels=3)


def test_the_last_outdoor_scenes_by_name_are_those_that_training_leaves_out(photographs: Path) -> None:
    pairs = open_testset("outdoor-40", photographs, task="dehaze", channels=3)
    scenes, hazes = zip(*(pair.name.split("_", 1) for pair in pairs), strict=True)
    assert list(scenes) == [f"{i:04}" for i in range(3, 43)]
    assert list(scenes) == [
        files.name for files in list_outdoor(photographs / "dehaze/outdoor")[-RealHaze().left_out :]
    ]
    assert len(set(hazes[:21])) == 21  # every haze once, before any comes again
    (photographs / "dehaze/outdoor/rgb/0042.png").unlink()
    (photographs / "dehaze/outdoor/depth/0042.png").unlink()
    assert RealHaze().left_out == 40
    for i in range(3):
        (photographs / f"dehaze/outdoor/rgb/{i:04}.png").unlink()
        (photographs / f"dehaze/outdoor/depth/{i:04}.png").unlink()
    with pytest.raises(DataError, match="holds 39 scenes, expected 40 at least"):
        open_testset("outdoor-40", photographs, task="dehaze", channels=3)


def test_photographs_without_clean_ones(photographs: Path) -> None:
    found = open_photographs("dehaze-real", photographs, task="dehaze")
    assert [(one.name, tuple(one.degraded.shape)) for one in found] == [("a", (3, 20, 30)), ("b", (3, 24, 20))]
    (cropped,) = open_photographs("dehaze-real", photographs, task="dehaze", limit=1, crop=10)
    assert torch.equal(cropped.degraded, found[0].degraded[:, 5:15, 10:20])
    with pytest.raises(DataError, match="have no clean ones to measure against"):
        open_testset("dehaze-real", photographs, task="dehaze", channels=3)
    for name in ("sots-indoor", "nothing"):
        with pytest.raises(
            DataError, match=rf"no photographs '{name}' to dehaze without clean ones; known: dehaze-real"
        ):
            open_photographs(name, photographs, task="dehaze")
    with pytest.raises(DataError, match="needs the folder of the image collection"):
        open_photographs("dehaze-real", task="dehaze")


@pytest.mark.parametrize(
    ("name", "count", "first", "last"),
    [
        ("sots-indoor", 20, "0001_1", "0002_10"),
        ("sots-indoor-published", 2, "0001_3", "0002_3"),
        ("sots-outdoor", 2, "0001_0.8_0.2", "0002_0.8_0.2"),
        ("testset-a-like", 42, "0001_0.6_0.4", "0002_1_1.6"),
        ("middlebury", 42, "0001_0.6_0.4", "0002_1_1.6"),
    ],
)
def test_sets_to_dehaze(name: str, count: int, first: str, last: str, collection: Path) -> None:
    pairs = open_testset(name, collection, task="dehaze", channels=3)
    assert len(pairs) == count
    assert (pairs[0].name, pairs[-1].name) == (first, last)
    for pair, again in zip((pairs[0], pairs[-1]), (pairs[0], pairs[-1]), strict=True):
        assert torch.equal(pair.degraded, again.degraded)
        for image in (pair.degraded, pair.clean):
            assert image.shape[0] == 3
            assert image.dtype == torch.float32
            assert torch.equal((image * 255).round() / 255, image)
            assert 0 <= image.min() < image.max() <= 1


def test_made_haze_follows_its_name(collection: Path) -> None:
    pairs = {pair.name: pair for pair in open_testset("testset-a-like", collection, task="dehaze", channels=3)[:21]}
    image = np.asarray(Image.open(collection / "dehaze/nyu/test_a/rgb/0001.png"))[10:470, 10:630]
    depth = np.array(Image.open(collection / "dehaze/nyu/test_a/depth/0001.png"), np.float64)[10:470, 10:630, None]
    for airlight, beta in ((0.6, 0.4), (0.8, 1.2), (1.0, 1.6)):
        t = np.exp(-beta * depth / depth.max())
        hazy = image / 255 * t + airlight * (1 - t)
        got = pairs[f"0001_{airlight:g}_{beta:g}"].degraded.permute(1, 2, 0).numpy()
        assert np.abs(got - hazy).max() < 0.51 / 255


def test_a_folder_to_dehaze(collection: Path) -> None:
    pairs = open_testset(collection / "dehaze/sots_outdoor", task="dehaze", channels=3, limit=1, crop=30)
    assert [pair.name for pair in pairs] == ["0001_0.8_0.2"]
    assert pairs[0].clean.shape == pairs[0].degraded.shape == (3, 30, 30)
    with pytest.raises(DataError, match=r"no folder .*hazy"):
        open_testset(collection / "dehaze", task="dehaze", channels=3)


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("sots-indoor", 250),
        ("sots-indoor-published", 25),
        ("sots-outdoor", 40),
        ("testset-a-like", 1260),
        ("middlebury", 210),
        ("outdoor-40", 40),
    ],
)
def test_real_sets_to_dehaze(name: str, count: int, data_root: Path) -> None:
    pairs = open_testset(name, data_root, task="dehaze", channels=3)
    assert len(pairs) == count
    pair = pairs[count // 2]
    assert pair.degraded.shape == pair.clean.shape
    assert pair.degraded.mean() > pair.clean.mean()


@pytest.mark.data
def test_sots_indoor_is_what_reside_published(data_root: Path) -> None:
    made = open_testset("sots-indoor", data_root, task="dehaze", channels=3)
    published = open_testset("sots-indoor-published", data_root, task="dehaze", channels=3)
    numbers = {f"{1400 + i // 10}_{i % 10 + 1}": i for i in range(250)}
    for pair in published[::6]:
        ours = made[numbers[pair.name]]
        assert ours.name == pair.name
        assert torch.equal(ours.clean, pair.clean)
        levels = ((ours.degraded - pair.degraded) * 255).round().abs()
        assert levels.max() <= 1
        assert (levels > 0).float().mean() < 0.15


@pytest.mark.data
@pytest.mark.parametrize(("name", "channels", "count"), [("bsd68", 1, 68), ("set12", 1, 12), ("cbsd68", 3, 68)])
def test_real_sets_for_denoising(name: str, channels: int, count: int, data_root: Path) -> None:
    pairs = open_testset(name, data_root, task="denoise", channels=channels, sigma=25, limit=2, crop=64)
    assert len(open_testset(name, data_root, task="denoise", channels=channels, sigma=25)) == count
    for pair in pairs:
        assert pair.degraded.shape == pair.clean.shape == (channels, 64, 64)
        assert (pair.degraded - pair.clean).std().item() * 255 == pytest.approx(25, rel=0.1)
