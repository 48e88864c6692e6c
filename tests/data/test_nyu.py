"""NYU Depth V2: frames without their border, depth in metres, from files and from the archive alike."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from spikingir.data.errors import DataError
from spikingir.data.nyu import list_nyu

GENERATOR = np.random.default_rng(0)
FRAME = GENERATOR.integers(0, 256, (480, 640, 3), np.uint8)
MILLIMETRES = GENERATOR.integers(700, 10_000, (480, 640), np.uint16)


def write(folder: Path, number: str, depth: np.ndarray, frame: np.ndarray = FRAME) -> None:
    for part, array in (("rgb", frame), ("depth", depth)):
        (folder / part).mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(folder / part / f"{number}.png")


def test_files(tmp_path: Path) -> None:
    write(tmp_path, "0002", MILLIMETRES)
    write(tmp_path, "0001", (MILLIMETRES / 39.198).astype(np.uint8))
    coarse, fine = (files.read() for files in list_nyu(tmp_path))
    assert (coarse.name, fine.name) == ("0001", "0002")
    assert np.array_equal(fine.image, FRAME[10:470, 10:630])
    assert fine.image.flags.owndata  # a view would keep the border in memory
    assert fine.depth_map.flags.owndata
    torch.testing.assert_close(fine.depth(), torch.from_numpy(MILLIMETRES[10:470, 10:630] / 1000).float())
    # the middle of a step is half a step from its ends
    assert (coarse.depth() - fine.depth()).abs().max() <= 0.0197
    assert coarse.depth_map.dtype == np.uint8


def test_the_archive_holds_the_same(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    write(tmp_path, "0002", MILLIMETRES)
    with h5py.File(tmp_path / "nyu_depth_v2_labeled.mat", "w") as file:
        file["images"] = np.stack([np.zeros((3, 640, 480), np.uint8), FRAME.transpose(2, 1, 0)])
        file["depths"] = np.stack([np.ones((640, 480), np.float32), MILLIMETRES.T.astype(np.float32) / 1000])
    scenes = list_nyu(tmp_path / "nyu_depth_v2_labeled.mat")
    assert [scene.name for scene in scenes] == ["0001", "0002"]
    ours, theirs = scenes[1].read(), list_nyu(tmp_path)[0].read()
    assert np.array_equal(ours.image, theirs.image)
    assert torch.equal(ours.depth(), theirs.depth())


def test_an_archive_that_cannot_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "nyu.mat"
    path.write_bytes(b"MATLAB 5.0")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "h5py", None)
        with pytest.raises(DataError, match=r"pip install 'spikingir\[nyu\]'"):
            list_nyu(path)
    h5py = pytest.importorskip("h5py")
    with pytest.raises(DataError, match=r"cannot read .*nyu\.mat"):
        list_nyu(path)
    with h5py.File(path, "w") as file:
        file["depths"] = np.ones((1, 640, 480), np.float32)
    with pytest.raises(DataError, match="holds no images"):
        list_nyu(path)


def test_a_half_copied_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no folder .*rgb"):
        list_nyu(tmp_path)
    write(tmp_path, "0001", MILLIMETRES)
    for number in ("0002", "0003"):
        Image.fromarray(FRAME[:4]).save(tmp_path / f"rgb/{number}.png")
    with pytest.raises(DataError, match=r"0002\.png and 1 more of .*rgb without a partner in .*depth"):
        list_nyu(tmp_path)


def test_what_is_no_frame_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "0001", MILLIMETRES[:, :600])
    with pytest.raises(DataError, match="600x480; expected a frame of NYU"):
        list_nyu(tmp_path)[0].read()
    write(tmp_path, "0001", FRAME)
    with pytest.raises(DataError, match="is a colour image"):
        list_nyu(tmp_path)[0].read()


@pytest.mark.data
@pytest.mark.parametrize(("part", "count"), [("train", 600), ("test_a", 60)])
def test_the_collection(part: str, count: int, data_root: Path) -> None:
    files = list_nyu(data_root / "dehaze/nyu" / part)
    assert len(files) == count
    scene = files[count // 2].read()
    assert scene.image.shape == (460, 620, 3)
    assert 0.5 < scene.depth().min() < scene.farthest <= 10.1
