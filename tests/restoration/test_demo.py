"""The demonstration tells the truth about the pictures that it writes."""

from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from spikingir.data.samples import AIRLIGHT, BETA, hazy_sample, noisy_sample
from spikingir.photo.images import ImageError
from spikingir.restoration.demo import Demo, demo_model, run_demo
from spikingir.restoration.restorer import Restorer
from spikingir.tasks import TASKS
from spikingir.zoo.catalogue import model_names

SIDE = 192


@pytest.fixture(scope="module")
def found(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Demo:
    return run_demo(tmp_path_factory.mktemp("demo") / "new" / "folder", Restorer.from_pretrained(tiny_model))


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path)) / 255


def db(one: np.ndarray, other: np.ndarray) -> float:
    return float(-10 * np.log10(np.square(one - other).mean()))


def test_the_photographs_are_those_that_are_named() -> None:
    """The cat is scikit-image's, pixel for pixel."""
    photograph = noisy_sample().original
    assert photograph.shape == (3, SIDE, SIDE)
    chelsea = import_module("skimage.data").chelsea()
    top, left = ((size - SIDE) // 2 for size in chelsea.shape[:2])
    middle = torch.from_numpy(chelsea[top : top + SIDE, left : left + SIDE].copy()).movedim(2, 0)
    assert torch.equal((photograph * 255).round().byte(), middle)


def test_haze_follows_the_depth() -> None:
    """The share of the airlight grows from the lower edge to the upper one, and hides nothing altogether."""
    sample = hazy_sample()
    assert sample.original.shape == sample.degraded.shape == (3, 427, 640)
    share = ((sample.degraded - sample.original) / (AIRLIGHT - sample.original)).nanmedian(0).values.median(1).values
    assert (share.diff() < 0).all()
    assert share[0] == pytest.approx(1 - np.exp(-BETA), abs=1e-3)
    assert share[-1] == pytest.approx(1 - np.exp(-0.3 * BETA), abs=1e-3)


def test_pictures(found: Demo) -> None:
    original = pixels(found.original)
    assert np.array_equal(original, noisy_sample().original.permute(1, 2, 0).double().mul(255).round().numpy() / 255)
    assert db(pixels(found.restored), original) == pytest.approx(found.restored_db, abs=0.02)
    assert found.degraded_db == pytest.approx(20 * np.log10(255 / 25), abs=0.05)
    # clipping, as the picture needs it, takes a little of the noise away
    assert 0 < db(pixels(found.degraded), original) - found.degraded_db < 1
    height, width = pixels(found.comparison).shape[:2]
    assert height > 2 * SIDE
    assert width > 6 * SIDE


def test_numbers(found: Demo) -> None:
    assert found.clock == "T = 3, clocked"
    assert found.restoration.spikes > 0
    assert found.restoration.ann_mj > 0
    assert found.restoration.snn_mj > 0


def test_again_it_is_the_same(found: Demo, tiny_model: Path) -> None:
    before = {path: path.read_bytes() for path in found.original.parent.iterdir()}
    with pytest.raises(ImageError, match=r"original\.png exists and is kept"):
        run_demo(found.original.parent, Restorer.from_pretrained(tiny_model))
    again = run_demo(found.original.parent, Restorer.from_pretrained(tiny_model), overwrite=True)
    assert (again.degraded_db, again.restored_db) == (found.degraded_db, found.restored_db)
    assert {path: path.read_bytes() for path in found.original.parent.iterdir()} == before


def test_no_place_for_the_pictures(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        run_demo(tmp_path / "file", Restorer.from_pretrained(tiny_model))
    (tmp_path / "noisy.png").mkdir()
    with pytest.raises(ImageError, match="is a folder"):
        run_demo(tmp_path, Restorer.from_pretrained(tiny_model))


def test_dehazing(tiny_model: Path, tmp_path: Path) -> None:
    found = run_demo(tmp_path, Restorer.from_pretrained(tiny_model, time_steps=1), task="dehaze")
    assert {path.name for path in tmp_path.iterdir()} == {"original.png", "hazy.png", "restored.png", "comparison.png"}
    assert pixels(found.comparison).shape[1] > 3 * 640
    assert db(pixels(found.degraded), pixels(found.original)) == pytest.approx(found.degraded_db, abs=0.02)


@pytest.mark.slow
@pytest.mark.parametrize(("task", "gain"), [("denoise", 7), ("dehaze", 2)])
def test_shipped_model_restores(task: str, gain: float, tmp_path: Path) -> None:
    assert demo_model(task, TASKS[task].degradation().sample()) in model_names()
    found = run_demo(tmp_path, task=task)
    assert found.restored_db - found.degraded_db >= gain
    assert found.restoration.spikes_per_neuron < 4.6 / 0.9  # where the paper counts as much for it as for the ANN
    assert found.restoration.snn_mj < found.restoration.ann_mj
