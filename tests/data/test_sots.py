"""RESIDE's test sets: hazy images beside their clean ones, in the layouts that go round."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from spikingir.data.errors import DataError
from spikingir.data.sots import list_hazy, list_indoor

FRAME = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def test_hazy_images_find_their_clean_ones(tmp_path: Path) -> None:
    for name in ("1400_1", "1400_10", "1401_2"):
        save(tmp_path / f"hazy/{name}.png", FRAME[10:470, 10:630])
    save(tmp_path / "clear/1400.png", FRAME)  # RESIDE's own clean frames have the border, its hazy ones do not
    save(tmp_path / "clear/1401.png", FRAME[10:470, 10:630])
    files = list_hazy(tmp_path)
    assert [(pair.name, pair.clean.name) for pair in files] == [
        ("1400_1", "1400.png"),
        ("1400_10", "1400.png"),
        ("1401_2", "1401.png"),
    ]
    for pair in files:
        hazy, clean = pair.read()
        assert np.array_equal(hazy, clean)


def test_outdoor_names_and_equal_names(tmp_path: Path) -> None:
    for hazy, clean in (("0001_0.8_0.2.jpg", "0001.png"), ("street_1.png", "street_1.jpg")):
        save(tmp_path / "hazy" / hazy, FRAME[:8, :8])
        save(tmp_path / "gt" / clean, FRAME[:8, :8])
    assert [pair.clean.name for pair in list_hazy(tmp_path)] == ["0001.png", "street_1.jpg"]


def test_sizes_that_differ_are_refused(tmp_path: Path) -> None:
    save(tmp_path / "hazy/1_1.png", FRAME[:8, :8])
    save(tmp_path / "gt/1.png", FRAME[:8, :9])
    with pytest.raises(DataError, match=r"1_1\.png is 8x8 and .*1\.png 9x8"):
        list_hazy(tmp_path)[0].read()


def test_half_copied_sets_are_refused(tmp_path: Path) -> None:
    save(tmp_path / "hazy/1_1.png", FRAME[:8, :8])
    with pytest.raises(DataError, match=r"no folder .*gt"):
        list_hazy(tmp_path)
    save(tmp_path / "gt/1.png", FRAME[:8, :8])
    save(tmp_path / "gt/2.png", FRAME[:8, :8])
    with pytest.raises(DataError, match=r"2\.png of .*gt without a partner in .*hazy"):
        list_hazy(tmp_path)


@pytest.mark.parametrize("cut", [..., (slice(10, 470), slice(10, 630))])
def test_indoor_depth_with_and_without_border(cut: object, tmp_path: Path) -> None:
    depth = FRAME[..., 0].astype(np.uint16) * 30
    save(tmp_path / "gt/1400.png", FRAME[10:470, 10:630])
    save(tmp_path / "depth/1400.png", depth[cut])
    scene = list_indoor(tmp_path)[0].read()
    assert np.array_equal(scene.image, FRAME[10:470, 10:630])
    assert np.array_equal(scene.depth_map, depth[10:470, 10:630])
    assert scene.farthest == pytest.approx(depth[10:470, 10:630].max() / 1000)
