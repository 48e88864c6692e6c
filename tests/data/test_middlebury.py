"""Middlebury: depth from disparity, holes filled with the background, in the published layouts."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from spikingir.data.errors import DataError
from spikingir.data.middlebury import fill_holes, list_middlebury

VIEW = np.random.default_rng(0).integers(0, 256, (3, 5, 3), np.uint8)
DISPARITY = np.array([[0, 40, 0, 60, 0], [0, 0, 0, 0, 0], [80, 70, 60, 50, 50]], np.uint8)
FILLED = np.array([[40, 40, 40, 60, 60], [40, 40, 40, 60, 60], [80, 70, 60, 50, 50]], np.float32)


def test_holes_get_the_background() -> None:
    assert np.array_equal(fill_holes(DISPARITY.astype(np.float32)), FILLED)


def test_unknown_is_zero_infinite_or_negative() -> None:
    for unknown in (np.inf, np.nan, -1.0):
        disparity = np.where(DISPARITY == 0, np.float32(unknown), DISPARITY.astype(np.float32))
        assert np.array_equal(fill_holes(disparity), FILLED)


@given(st.integers(0, 2**32 - 1))
def test_what_is_known_stays_and_nothing_is_invented(seed: int) -> None:
    generator = np.random.default_rng(seed)
    disparity = generator.integers(0, 5, (6, 7)).astype(np.float32)
    disparity[2, 3] = 3
    filled = fill_holes(disparity)
    assert np.array_equal(filled[disparity > 0], disparity[disparity > 0])
    assert set(np.unique(filled)) <= set(np.unique(disparity[disparity > 0]))
    assert np.array_equal(fill_holes(filled), filled)


def test_a_stray_pixel_does_not_make_the_scene_look_near() -> None:
    disparity = np.full((50, 60), 60, np.float32)
    disparity[20, 20] = 2
    assert (fill_holes(disparity) == 60).all()


def test_layout_of_the_collection(tmp_path: Path) -> None:
    for folder, array in (("rgb", VIEW), ("disp", DISPARITY)):
        (tmp_path / folder).mkdir()
        Image.fromarray(array).save(tmp_path / folder / "Art.png")
    (files,) = list_middlebury(tmp_path)
    scene = files.read()
    assert scene.name == "Art"
    assert np.array_equal(scene.image, VIEW)
    np.testing.assert_allclose(scene.depth().numpy(), 1 / FILLED)


def test_published_layouts_tell_their_offset(tmp_path: Path) -> None:
    old, new = tmp_path / "Art", tmp_path / "Piano"
    for folder in (old, new, tmp_path / "scripts"):
        folder.mkdir()
    Image.fromarray(VIEW).save(old / "view1.png")
    Image.fromarray(DISPARITY).save(old / "disp1.png")
    (old / "dmin.txt").write_text("200\n")
    Image.fromarray(VIEW).save(new / "im0.png")
    unknown = np.where(DISPARITY == 0, np.inf, DISPARITY).astype("<f4")
    (new / "disp0.pfm").write_bytes(b"Pf\n5 3\n-1.0\n" + unknown[::-1].tobytes())  # rows from the bottom up
    (new / "calib.txt").write_text("cam0=[1 0 2; 0 1 2; 0 0 1]\ndoffs=32.5\nbaseline=178\n")
    scenes = [files.read() for files in list_middlebury(tmp_path)]
    assert [scene.name for scene in scenes] == ["Art", "Piano"]
    for scene, offset in zip(scenes, (200, 32.5), strict=True):
        np.testing.assert_allclose(scene.depth().numpy(), 1 / (FILLED + offset), rtol=1e-6)


def test_what_is_not_whole_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no folder .*gone"):
        list_middlebury(tmp_path / "gone")
    with pytest.raises(DataError, match=r"no scene in .*view1\.png and disp1\.png or im0\.png and disp0\.pfm"):
        list_middlebury(tmp_path)
    scene = tmp_path / "Art"
    scene.mkdir()
    Image.fromarray(VIEW).save(scene / "view1.png")
    with pytest.raises(DataError, match=r"Art has view1\.png and no disp1\.png"):
        list_middlebury(tmp_path)
    Image.fromarray(np.zeros_like(DISPARITY)).save(scene / "disp1.png")
    with pytest.raises(DataError, match=r"disp1\.png knows no disparity"):
        list_middlebury(tmp_path)[0].read()
    Image.fromarray(DISPARITY).save(scene / "disp1.png")
    (scene / "dmin.txt").write_text("none\n")
    with pytest.raises(DataError, match="tells no offset"):
        list_middlebury(tmp_path)[0].read()


@pytest.mark.data
def test_the_collection(data_root: Path) -> None:
    scenes = [files.read() for files in list_middlebury(data_root / "dehaze/middlebury")]
    assert len(scenes) == 10
    for scene in scenes:
        depth = scene.depth() / scene.farthest
        assert 0.05 < depth.min() < depth.median() < 1
        assert depth.median() > 0.25  # no stray pixel is the farthest
