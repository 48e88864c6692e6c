"""What a photograph loses on its way into a form and back is said."""

import io
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import torch
from PIL import Image

from spikingir.inputs import unit
from spikingir.photo.forms import open_image
from spikingir.photo.images import ImageError, read_image
from spikingir.photo.photo import from_pillow

DEEP = np.random.default_rng(0).integers(0, 2**16, (5, 7, 3), np.uint16)


def test_bytes_keep_sixteen_bits() -> None:
    values, close = open_image(imagecodecs.png_encode(DEEP))
    np.testing.assert_array_equal(values[0].permute(1, 2, 0).numpy(), DEEP)
    np.testing.assert_array_equal(imagecodecs.png_decode(close(unit(values))), DEEP)


def test_pillow_has_no_sixteen_bits_in_colour(tmp_path: Path) -> None:
    path = tmp_path / "deep.png"
    path.write_bytes(imagecodecs.png_encode(DEEP))
    values, close = open_image(path)
    with pytest.warns(UserWarning, match="this one gets 8; read_image keeps 16"):
        assert close(unit(values)).mode == "RGB"
    path.write_bytes(imagecodecs.png_encode(np.ascontiguousarray(DEEP[..., 0])))
    values, close = open_image(path)
    np.testing.assert_array_equal(np.asarray(close(unit(values))), DEEP[..., 0])


def test_pillow_images_of_32_bits() -> None:
    assert from_pillow(Image.new("I", (4, 4), 60_000)).bits == 16
    with pytest.raises(ImageError, match="32 bits per sample"):
        from_pillow(Image.new("I", (4, 4), 70_000))


def test_transparent_colour_of_a_deep_pillow_image_is_dropped_with_a_note() -> None:
    file = io.BytesIO()
    Image.fromarray(DEEP[..., 0]).save(file, "PNG", transparency=3)
    assert from_pillow(Image.open(file)).notes == ("the transparent colour of the 16-bit image is dropped",)


def test_what_is_lost_of_a_file_is_warned_of() -> None:
    file = io.BytesIO()
    Image.new("CMYK", (4, 4)).save(file, "JPEG", comment=b"by me")
    with pytest.warns(UserWarning, match="CMYK|comment") as warned:
        open_image(file.getvalue())
    assert [str(warning.message) for warning in warned] == [
        "CMYK is converted to RGB without colour management",
        "dropped: a comment",
    ]
    photo = read_image(file.getvalue())
    assert len(photo.notes) == 2
    open_image(photo)  # which keeps them


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_large_array_is_rounded_piece_by_piece_as_at_once(dtype: type) -> None:
    most = np.iinfo(dtype).max
    image = np.random.default_rng(1).integers(0, most, (1300, 900), dtype, endpoint=True)  # more than a piece
    values, close = open_image(image)
    np.testing.assert_array_equal(values[0, 0].numpy(), image)
    np.testing.assert_array_equal(unit(values)[0, 0].numpy(), image.astype(np.float32) / np.float32(most))
    np.testing.assert_array_equal(close(unit(values)), image)
    changed = (unit(values) * 1.5 - 0.25).contiguous()
    np.testing.assert_array_equal(close(changed), np.rint(changed[0, 0].numpy().clip(0, 1) * np.float32(most)))


@pytest.mark.parametrize("kind", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("how", ["as it is", "read only", "turned"])
def test_an_array_is_opened_without_a_change(kind: str, how: str) -> None:
    image = np.random.default_rng(2).integers(0, 2, (5, 7, 3)).astype(kind)
    if how == "read only":
        image.flags.writeable = False
    elif how == "turned":
        image = image[::-1, ::-1]
    before = image.copy()
    values, close = open_image(image)
    assert values.dtype == getattr(torch, kind)
    np.testing.assert_array_equal(values[0].permute(1, 2, 0).numpy(), before)
    restored = close(1 - unit(values))
    assert restored.dtype == image.dtype
    np.testing.assert_array_equal(image, before)
