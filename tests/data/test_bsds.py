"""BSDS500 in its published layout."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from spikingir.data.bsds import SPLITS, list_bsds
from spikingir.data.errors import DataError
from spikingir.data.folders import read_gray


@pytest.fixture(scope="module")
def bsds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("BSDS500")
    for split, count in SPLITS.items():
        folder = root / "data/images" / split
        folder.mkdir(parents=True)
        (folder / "Thumbs.db").touch()
        for i in range(count):
            Image.fromarray(np.full((4, 4, 3), (i, 0, 0), np.uint8)).save(folder / f"{split}{i:03}.jpg")
    return root


def test_parts(bsds: Path) -> None:
    images = list_bsds(bsds)
    assert len(images) == 400
    assert not [path for path in images if path.parent.name == "val"]
    assert [path.name for path in list_bsds(bsds, "val")] == [f"val{i:03}.jpg" for i in range(100)]
    assert read_gray(images[0]).shape == (4, 4)


def test_what_is_not_there_is_refused(bsds: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no split 'tset'; expected some of train, val, test"):
        list_bsds(bsds, "tset")
    folder = tmp_path / "data/images/val"
    folder.mkdir(parents=True)
    Image.new("L", (4, 4)).save(folder / "1.jpg")
    with pytest.raises(DataError, match="val holds 1 images, expected 100"):
        list_bsds(tmp_path, "val")
