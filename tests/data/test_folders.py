"""Folders of images: what is in them, in the order of their names, and what is said of those that are not whole."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from spikingir.data.errors import DataError
from spikingir.data.folders import list_images, pair_images, read_gray, read_map, read_rgb, to_tensor

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


def test_a_giant_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(COLOUR).save(tmp_path / "giant.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1)
    with pytest.raises(DataError, match=r"giant\.png is too large"):
        read_gray(tmp_path / "giant.png")


def test_maps_are_read_as_they_are(tmp_path: Path) -> None:
    for dtype in (np.uint8, np.uint16):
        array = np.arange(20).reshape(4, 5).astype(dtype) * (255 if dtype is np.uint16 else 1)
        Image.fromarray(array).save(tmp_path / "map.png")
        read = read_map(tmp_path / "map.png")
        assert read.dtype == dtype
        assert np.array_equal(read, array)
    # Pillow would make white of every value above 255
    for read_image in (read_gray, read_rgb):
        with pytest.raises(DataError, match=r"map\.png has more than 8 bits"):
            read_image(tmp_path / "map.png")
    Image.fromarray(COLOUR).save(tmp_path / "colour.png")
    with pytest.raises(DataError, match=r"colour\.png is a colour image"):
        read_map(tmp_path / "colour.png")


def test_images_as_tensors() -> None:
    assert torch.equal(to_tensor(COLOUR), torch.from_numpy(COLOUR / np.float32(255)).permute(2, 0, 1))
    assert torch.equal(to_tensor(COLOUR[..., 0]), to_tensor(COLOUR)[:1])


def test_partners_have_the_same_name_or_its_beginning(tmp_path: Path) -> None:
    hazy, clean = tmp_path / "hazy", tmp_path / "clean"
    for folder, names in ((hazy, ("1_a.jpg", "1_b.png", "2_x.png", "3.png")), (clean, ("1.png", "2_x.png", "3.jpg"))):
        folder.mkdir()
        for name in names:
            Image.fromarray(COLOUR).save(folder / name)
    assert [partner.name for _, partner in pair_images(hazy, clean)] == ["1.png", "1.png", "2_x.png", "3.jpg"]
    (clean / "1.png").unlink()
    with pytest.raises(DataError, match=r"1_a\.jpg and 1 more of .*hazy without a partner in .*clean; copy the whole"):
        pair_images(hazy, clean)
    (hazy / "1_a.jpg").unlink()
    (hazy / "1_b.png").unlink()
    (hazy / "3.png").unlink()
    with pytest.raises(DataError, match=r"3\.jpg of .*clean without a partner in .*hazy"):
        pair_images(hazy, clean)
