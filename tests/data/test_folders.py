"""Folders of images: what is in them, in the order of their names, and what is said of those that are not whole."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from spikingir.data.errors import DataError
from spikingir.data.folders import list_images, read_gray, read_rgb

COLOUR = np.random.default_rng(0).integers(0, 256, (4, 5, 3), np.uint8)


def test_images_are_listed_by_name_and_read(tmp_path: Path) -> None:
    for name in ("b.png", "a.PNG", "note.txt"):
        if name.lower().endswith("png"):
            Image.fromarray(COLOUR).save(tmp_path / name)
        else:
            (tmp_path / name).write_text("no image")
    assert [path.name for path in list_images(tmp_path)] == ["a.PNG", "b.png"]
    assert np.array_equal(read_rgb(tmp_path / "b.png"), COLOUR)
    luma = COLOUR @ [0.299, 0.587, 0.114]
    assert np.abs(read_gray(tmp_path / "b.png") - luma).max() <= 0.51


def test_what_is_missing_or_damaged_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no folder .*missing"):
        list_images(tmp_path / "missing")
    with pytest.raises(DataError, match=f"no image in {tmp_path}"):
        list_images(tmp_path)
    whole = tmp_path / "whole.png"
    Image.fromarray(COLOUR).save(whole)
    half = tmp_path / "half.png"
    half.write_bytes(whole.read_bytes()[:60])
    for path in (half, tmp_path / "gone.png"):
        with pytest.raises(DataError, match=f"cannot read .*{path.name}"):
            read_gray(path)
