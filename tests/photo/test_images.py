import errno
import io
import os
import struct
import sys
import warnings
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from spikingir import files
from spikingir.errors import InputError
from spikingir.photo import images
from spikingir.photo.images import (
    FORMATS,
    ImageError,
    Photo,
    check_output,
    default_output,
    read_image,
    write_image,
)

HEIGHT, WIDTH = 5, 7  # unequal, so that a swap of the axes shows
ORIENTATION = 0x0112
CAMERA = 0x010F


def samples(channels: int, dtype: type = np.uint8, seed: int = 0) -> NDArray[np.integer]:
    generator = np.random.default_rng(seed)
    return generator.integers(0, np.iinfo(dtype).max, (HEIGHT, WIDTH, channels), dtype, endpoint=True)


def picture(mode: str) -> Image.Image:
    """A Pillow image of ``mode``, all its samples random."""
    if mode == "I;16":
        return Image.fromarray(samples(1, np.uint16)[..., 0])
    if mode == "1":
        return Image.fromarray(samples(1)[..., 0] > 127)
    if mode == "P":
        image = Image.fromarray(samples(1)[..., 0] % 4).convert("P")
        image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255, 10, 20, 30])
        return image
    array = samples(len(Image.new(mode, (1, 1)).getbands()))
    return Image.frombytes(mode, (WIDTH, HEIGHT), array.tobytes())


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png_chunk(name: bytes, content: bytes) -> bytes:
    check = struct.pack(">I", zlib.crc32(name + content))
    return struct.pack(">I", len(content)) + name + content + check


def png16(color_type: int, channels: int, extra: bytes = b"") -> bytes:
    """A 16-bit PNG of a kind that Pillow does not write."""
    array = samples(channels, np.uint16)
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 16, color_type, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)
    body = png_chunk(b"IHDR", header) + extra + png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def png_of_size(width: int, height: int) -> bytes:
    """A PNG that claims to be large, and has no pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(b"")) * 2


def profile(space: bytes) -> bytes:
    """An ICC profile whose header says that it is for ``space``, without a date: the same at every call."""
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return srgb[:16] + space + srgb[20:24] + bytes(12) + srgb[36:]


def exif_bytes(orientation: int | None = None, camera: str = "Spike 1") -> bytes:
    exif = Image.Exif()
    exif[CAMERA] = camera
    if orientation is not None:
        exif[ORIENTATION] = orientation
    return exif.tobytes()


def a_photo(channels: int = 3, **kwargs: object) -> Photo:
    return Photo(samples(channels).astype(np.float32) / np.float32(255), **kwargs)


def integers(values: NDArray[np.float32], bits: int = 8) -> NDArray[np.int64]:
    return np.rint(values.astype(np.float64) * (2**bits - 1)).astype(np.int64)


# Reading: kinds of pixels


@pytest.mark.parametrize(
    ("mode", "kind", "channels", "alpha", "bits"),
    [
        ("1", "PNG", 1, False, 8),
        ("L", "PNG", 1, False, 8),
        ("LA", "PNG", 1, True, 8),
        ("P", "PNG", 3, False, 8),
        ("RGB", "PNG", 3, False, 8),
        ("RGBA", "PNG", 3, True, 8),
        ("I;16", "PNG", 1, False, 16),
        ("L", "JPEG", 1, False, 8),
        ("RGB", "JPEG", 3, False, 8),
        ("CMYK", "JPEG", 3, False, 8),
    ],
)
def test_kinds_of_pixels(mode: str, kind: str, channels: int, alpha: bool, bits: int) -> None:
    content = encoded(picture(mode), kind)
    photo = read_image(content)
    assert photo.pixels.shape == (HEIGHT, WIDTH, channels)
    assert photo.pixels.dtype == np.float32
    assert (photo.alpha is not None) == alpha
    assert (photo.bits, photo.mode) == (bits, mode)
    assert len(photo.notes) == (mode == "CMYK")

    with Image.open(io.BytesIO(content)) as image:
        expected = np.asarray(image.convert("RGB") if mode in ("P", "CMYK") else image).astype(np.int64)
    expected = expected.reshape(HEIGHT, WIDTH, -1) * (255 if mode == "1" else 1)
    np.testing.assert_array_equal(integers(photo.pixels, bits), expected[..., :channels])
    if photo.alpha is not None:
        np.testing.assert_array_equal(integers(photo.alpha), expected[..., -1])


@pytest.mark.parametrize(
    ("mode", "transparency"),
    [("P", 2), ("P", bytes([0, 80, 255])), ("L", int(samples(1)[0, 0, 0])), ("RGB", tuple(map(int, samples(3)[0, 0])))],
)
def test_transparent_colour_becomes_alpha(mode: str, transparency: object) -> None:
    photo = read_image(encoded(picture(mode), transparency=transparency))
    assert photo.alpha is not None
    assert photo.pixels.shape[2] == (1 if mode == "L" else 3)
    assert 0 < photo.alpha.mean() < 1
    assert not photo.notes


@pytest.mark.parametrize(("color_type", "channels", "mode"), [(2, 3, "RGB"), (4, 2, "LA"), (6, 4, "RGBA")])
def test_sixteen_bits_stay(color_type: int, channels: int, mode: str) -> None:
    photo = read_image(png16(color_type, channels))
    assert (photo.bits, photo.mode, photo.notes) == (16, mode, ())
    expected = samples(channels, np.uint16)
    colors = 1 if channels < 3 else 3
    np.testing.assert_array_equal(integers(photo.pixels, 16), expected[..., :colors])
    if channels in (2, 4):
        np.testing.assert_array_equal(integers(photo.alpha, 16), expected[..., -1])


@pytest.mark.parametrize(("color_type", "channels"), [(0, 1), (2, 3)])
def test_transparent_colour_of_sixteen_bits_becomes_alpha(color_type: int, channels: int) -> None:
    first = samples(channels, np.uint16)[0, 0]
    photo = read_image(png16(color_type, channels, png_chunk(b"tRNS", first.astype(">u2").tobytes())))
    assert photo.bits == 16
    assert photo.alpha is not None
    assert (photo.alpha[0, 0], photo.alpha[1:].min()) == (0, 1)


@pytest.mark.parametrize("content", [png16(2, 3), png16(4, 2), png16(0, 1, png_chunk(b"tRNS", b"\x12\x34"))])
def test_sixteen_bits_are_never_cut_for_want_of_a_package(content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    with pytest.raises(ImageError, match=r"install it with: .*pip install 'spikingir\[io16\]'"):
        read_image(content)
    assert read_image(png16(0, 1)).bits == 16


def test_sixteen_bits_are_not_written_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    with pytest.raises(ImageError, match=r"out\.png was not written: .*pip install 'spikingir\[io16\]'"):
        write_image(a_photo(bits=16), tmp_path / "out.png")
    assert write_image(a_photo(bits=16), tmp_path / "out.jpg") == ("written with 8 bits instead of 16",)
    assert write_image(a_photo(bits=16), tmp_path / "out.tif") == ()


def test_animation_is_read_to_its_first_picture() -> None:
    content = encoded(picture("RGB"), save_all=True, append_images=[Image.new("RGB", (WIDTH, HEIGHT))])
    photo = read_image(content)
    np.testing.assert_array_equal(integers(photo.pixels), samples(3))
    assert photo.notes == ("only the first of its 2 pictures is read",)


def test_sources_are_equal(tmp_path: Path) -> None:
    content = encoded(picture("RGB"))
    path = tmp_path / "photo.png"
    path.write_bytes(content)
    with path.open("rb") as file:
        photos = [read_image(source) for source in (path, str(path), content, io.BytesIO(content), file)]
    for photo in photos:
        np.testing.assert_array_equal(integers(photo.pixels), samples(3))


def test_bytes_decide_not_the_suffix(tmp_path: Path) -> None:
    path = tmp_path / "really_a_jpeg.png"
    path.write_bytes(encoded(picture("CMYK"), "JPEG"))
    assert read_image(path).mode == "CMYK"


# Writing, and back


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".jpeg", ".PNG", ".JPG"])
@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("channels", [1, 3])
def test_round_trip(channels: int, bits: int, alpha: bool, suffix: str, tmp_path: Path) -> None:
    dtype = np.uint8 if bits == 8 else np.uint16
    scale = np.float32(2**bits - 1)
    opacity = samples(1, dtype, seed=1)[..., 0].astype(np.float32) / scale if alpha else None
    photo = Photo(samples(channels, dtype).astype(np.float32) / scale, opacity, bits)
    path = tmp_path / f"out{suffix}"
    notes = write_image(photo, path)
    back = read_image(path)

    jpeg = suffix.lower() != ".png"
    kept = 8 if jpeg else bits
    assert back.bits == kept
    assert ("written with 8 bits instead of 16" in notes) == (bits > kept)
    assert ("JPEG has no transparency: the image is laid over white" in notes) == (jpeg and alpha)
    assert back.pixels.shape == photo.pixels.shape
    if not jpeg:
        np.testing.assert_array_equal(integers(back.pixels, kept), integers(photo.pixels, kept))
        assert (back.alpha is not None) == alpha
        if alpha:
            np.testing.assert_array_equal(integers(back.alpha, kept), integers(opacity, kept))


def test_jpeg_keeps_full_colour_resolution_and_quality(tmp_path: Path) -> None:
    ramp = np.linspace(0, 1, 64, dtype=np.float32)
    pixels = np.stack(np.broadcast_arrays(ramp[:, None], ramp[None, :], np.float32(0.5)), axis=2)
    errors = []
    for quality in (20, 95):
        path = tmp_path / f"{quality}.jpg"
        write_image(Photo(pixels), path, quality=quality)
        with Image.open(path) as image:
            assert all(layer[1:3] == (1, 1) for layer in image.layer)
        errors.append(np.abs(read_image(path).pixels - pixels).mean())
    assert errors[1] < 0.01 < errors[0]


def test_jpeg_lays_transparency_over_white(tmp_path: Path) -> None:
    black = Photo(np.zeros((16, 16, 3), np.float32), np.zeros((16, 16), np.float32))
    write_image(black, tmp_path / "out.jpg")
    assert (read_image(tmp_path / "out.jpg").pixels == 1).all()


def test_values_are_rounded_and_clipped(tmp_path: Path) -> None:
    pixels = np.array([[-1, 0, 0.4 / 255, 0.6 / 255, 1, 2]], np.float32)[..., None]
    write_image(Photo(pixels), tmp_path / "out.png")
    np.testing.assert_array_equal(integers(read_image(tmp_path / "out.png").pixels).ravel(), [0, 0, 0, 1, 255, 255])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_pixels_that_are_no_numbers_are_refused(value: float, tmp_path: Path) -> None:
    photo = a_photo()
    photo.pixels[0, 0, 0] = value
    with pytest.raises(ImageError, match=r"out\.png was not written: the pixels hold NaN or infinity"):
        write_image(photo, tmp_path / "out.png")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("quality", [0, 101, 1.5])
def test_quality_out_of_range(quality: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"quality is {quality}; expected a whole number from 1 to 100"):
        write_image(a_photo(), tmp_path / "out.jpg", quality=quality)


@pytest.mark.parametrize(
    "change",
    [
        {"samples": np.zeros((2, 2), np.float32)},
        {"samples": np.zeros((2, 2, 4), np.float32)},
        {"samples": np.zeros((0, 2, 3), np.float32)},
        {"samples": np.zeros((2, 2, 3), np.float64)},
        {"samples": np.zeros((HEIGHT, WIDTH, 3), np.uint16)},
        {"alpha": np.zeros((2, 2), np.float32)},
        {"alpha": np.zeros((HEIGHT, WIDTH), np.float64)},
        {"bits": 12},
    ],
)
def test_photo_checks_itself(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"(samples are|alpha is|bits is) .*; expected "):
        replace(a_photo(), **change)


# Metadata


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_exif_and_profile_are_kept(mode: str, kind: str, tmp_path: Path) -> None:
    icc = profile(b"GRAY" if mode == "L" else b"RGB ")
    photo = read_image(encoded(picture(mode), kind, exif=exif_bytes(), icc_profile=icc))
    for suffix in (".png", ".jpg"):
        path = tmp_path / f"out{suffix}"
        assert write_image(photo, path) == ()
        with Image.open(path) as image:
            assert image.getexif()[CAMERA] == "Spike 1"
            assert image.info["icc_profile"] == icc
        back = read_image(path)
        assert (back.exif, back.icc) == (photo.exif, icc)


@pytest.mark.parametrize(("mode", "space"), [("CMYK", b"CMYK"), ("L", b"RGB "), ("RGB", b"GRAY")])
def test_profile_of_other_pixels_is_dropped(mode: str, space: bytes) -> None:
    photo = read_image(encoded(picture(mode), "JPEG", icc_profile=profile(space)))
    assert photo.icc is None
    assert "the colour profile does not fit the pixels and is dropped" in photo.notes


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["L", "I;16", "P", "RGBA"])
def test_orientation_is_applied_once(mode: str, orientation: int, tmp_path: Path) -> None:
    upright = read_image(encoded(picture(mode)))
    turned = read_image(encoded(picture(mode), exif=exif_bytes(orientation)))
    # Exif 2.32: which sides of what the viewer sees the stored 0th row and 0th column are.
    views: dict[int, Callable[[NDArray[np.float32]], NDArray[np.float32]]] = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: a.swapaxes(0, 1)[:, ::-1],
        7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
        8: lambda a: a.swapaxes(0, 1)[::-1],
    }
    np.testing.assert_array_equal(turned.pixels, views[orientation](upright.pixels))
    if turned.alpha is not None:
        np.testing.assert_array_equal(turned.alpha, views[orientation](upright.alpha))

    write_image(turned, tmp_path / "out.png")
    again = read_image(tmp_path / "out.png")
    np.testing.assert_array_equal(again.pixels, turned.pixels)
    with Image.open(tmp_path / "out.png") as image:
        assert image.getexif()[ORIENTATION] == 1
        assert image.getexif()[CAMERA] == "Spike 1"


def test_only_the_orientation_changes_in_exif() -> None:
    exif = exif_bytes(6)
    kept = read_image(encoded(picture("RGB"), "JPEG", exif=exif)).exif
    assert kept is not None
    assert len(kept) == len(exif)
    assert sum(a != b for a, b in zip(kept, exif, strict=True)) == 1


def test_a_turned_photograph_says_its_own_size() -> None:
    """Width and height change places in EXIF and XMP, too; where nothing is turned, their bytes stay."""
    xmp = b'<x xmlns:tiff="t" xmlns:exif="e" tiff:ImageWidth="12" exif:PixelYDimension="8"><tiff:ImageLength>8<x/></x>'
    upright, turned = (read_image(encoded(picture("RGB"), "JPEG", exif=sized(n), xmp=xmp)) for n in (3, 6))
    assert upright.exif == sized(1)
    assert upright.xmp == xmp
    assert turned.exif is not None
    assert turned.xmp == (
        b'<x xmlns:tiff="t" xmlns:exif="e" tiff:ImageWidth="%d" exif:PixelYDimension="%d"><tiff:ImageLength>%d<x/></x>'
        % (HEIGHT, WIDTH, WIDTH)
    )
    tags = Image.Exif()
    tags.load(turned.exif)
    inner = tags.get_ifd(0x8769)
    found = [directory[tag] for directory, first in ((tags, 0x0100), (inner, 0xA002)) for tag in (first, first + 1)]
    assert found == [HEIGHT, WIDTH, HEIGHT, WIDTH]
    assert tags[CAMERA] == "Spike 1"
    assert inner[0x9003] == "2026:01:02 03:04:05"


def sized(orientation: int) -> bytes:
    """EXIF data that gives a size twice, as cameras do, in 16 bits and in 32."""
    exif = Image.Exif()
    exif[ORIENTATION], exif[CAMERA], exif[0x0100], exif[0x0101] = orientation, "Spike 1", WIDTH, 70_000
    inner = exif.get_ifd(0x8769)
    inner[0xA002], inner[0xA003], inner[0x9003] = WIDTH, HEIGHT, "2026:01:02 03:04:05"
    return exif.tobytes()


@settings(deadline=None)
@given(st.binary(max_size=60), st.sampled_from([b"", b"II*\0", b"MM\0*"]))
def test_any_exif_bytes_do(rest: bytes, order: bytes) -> None:
    exif = b"Exif\0\0" + order + rest
    photo = read_image(encoded(picture("L"), "JPEG", exif=exif))
    assert photo.exif is not None
    assert len(photo.exif) == len(exif)


def test_exif_too_long_for_jpeg_is_dropped_with_a_note(tmp_path: Path) -> None:
    photo = a_photo(exif=exif_bytes(camera="x" * 70_000))
    assert write_image(photo, tmp_path / "out.png") == ()
    assert read_image(tmp_path / "out.png").exif == photo.exif
    assert write_image(photo, tmp_path / "out.jpg") == ("the EXIF data is too long for JPEG and is dropped",)


# Inputs that are none


def is_one_sentence(error: pytest.ExceptionInfo[ImageError], name: str) -> bool:
    text = str(error.value)
    return text.startswith(name) and "\n" not in text and ("expected" in text or ";" in text)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "is empty"),
        (b"hello, I am a text file", "is no image of a known format"),
        (b"\x89P", "is no image of a known format"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "is a damaged WebP file"),
        (b"II*\0" + bytes(20), "is a damaged TIFF file"),
        (b"II+\0" + bytes(20), "is a BigTIFF image"),
        (b"BM" + bytes(20), "is a BMP of an uncommon kind"),
        (b"GIF89a" + bytes(20), "is a GIF image"),
        (b"\0\0\0\x18ftypheic" + bytes(20), "is a HEIC image"),
        (b"\0\0\0\x1cftypavif" + bytes(20), "is an AVIF image"),
        (b"\0\0\0\x18ftypcrx " + bytes(20), "is a camera's raw image"),
        (b"II*\0\x10\0\0\0CR\2\0" + bytes(20), "is a camera's raw image"),
        (b"FUJIFILMCCD-RAW 0201", "is a camera's raw image"),
        (b"\x89PNG\r\n\x1a\n", "is a damaged PNG file"),
        (b"\xff\xd8\xff", "is a damaged JPEG file"),
        (encoded(picture("RGB"))[:-30], "is a damaged PNG file"),
        (encoded(picture("RGB"), "JPEG")[:-30], "is a damaged JPEG file"),
        (encoded(picture("RGB"), "JPEG")[:100], "is a damaged JPEG file"),
        (png_of_size(0, 5), "is a damaged PNG file"),
        (png_of_size(20_001, 20_000), "20001 x 20000 are 400 megapixels; expected at most 400"),
        (png_of_size(2**31 - 1, 2**31 - 1), "megapixels; expected at most 400"),
    ],
)
def test_contents_that_are_no_image(content: bytes, what: str, tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=what) as error:
        read_image(path)
    assert is_one_sentence(error, str(path))
    with pytest.raises(ImageError, match=what) as error:
        read_image(content)
    assert is_one_sentence(error, f"The image data ({len(content)} bytes)")


def test_pillows_limit_is_not_ours() -> None:
    """Between Pillow's warning (89 megapixels), its error (179) and our own limit an image is simply read."""
    content = png_of_size(15_000, 15_000)
    with pytest.raises(ImageError, match="is a damaged PNG file"):
        read_image(content)


def test_paths_that_are_no_image(tmp_path: Path) -> None:
    with pytest.raises(
        ImageError, match=r"absent\.png does not exist; expected a PNG, JPEG, TIFF, WebP or BMP image: check the path"
    ):
        read_image(tmp_path / "absent.png")
    with pytest.raises(ImageError, match="is a folder; expected a PNG, JPEG"):
        read_image(tmp_path)
    with pytest.raises(ImageError, match="cannot be read"):
        read_image(tmp_path / ("x" * 300))


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="needs a device without end")
def test_device_without_end_is_not_read_to_its_end() -> None:
    with pytest.raises(ImageError, match=r"/dev/zero cannot be read \(it is a device, not a file\)"):
        read_image("/dev/zero")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_file_without_permission(tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(encoded(picture("L")))
    path.chmod(0)
    with pytest.raises(ImageError, match="may not be read by this user"):
        read_image(path)


@pytest.mark.parametrize(
    ("error", "what"),
    [
        (PermissionError(errno.EACCES, "Permission denied"), "may not be read by this user"),
        (OSError(errno.EIO, "Input/output error"), r"cannot be read \(Input/output error\)"),
    ],
)
def test_file_that_fails(error: OSError, what: str) -> None:
    class Failing(io.BytesIO):
        name = "photo.png"

        def read(self, size: int | None = -1, /) -> bytes:
            raise error

    with pytest.raises(ImageError, match=f"^photo.png {what}"):
        read_image(Failing())


@settings(deadline=None)
@given(st.data())
def test_broken_files_raise_image_errors_alone(data: st.DataObject) -> None:
    kind, mode = data.draw(st.sampled_from([("PNG", "P"), ("PNG", "RGBA"), ("JPEG", "RGB"), ("JPEG", "CMYK")]))
    content = bytearray(encoded(picture(mode), kind, exif=exif_bytes(3), icc_profile=profile(b"RGB ")))
    for at, value in data.draw(st.dictionaries(st.integers(0, len(content) - 1), st.integers(0, 255))).items():
        content[at] = value
    content = content[: data.draw(st.integers(0, len(content)))]
    message = ""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            read_image(bytes(content))
        except ImageError as error:
            message = str(error)
    assert "\n" not in message


# Outputs that cannot be


def test_output_is_checked_before_the_work(tmp_path: Path) -> None:
    taken = tmp_path / "taken.png"
    taken.write_bytes(b"precious")
    (tmp_path / "folder.png").mkdir()
    for path, what in [
        (taken, "taken.png exists and is kept; .*--overwrite"),
        (tmp_path / "folder.png", "is a folder"),
        (tmp_path / "out.gif", r"ends in one of \.png, \.jpg, \.jpeg, .*\.tif"),
        (tmp_path / "out", r"ends in one of \.png, \.jpg, \.jpeg"),
        (tmp_path / "absent" / "out.png", "there is no folder .*absent; make it first"),
    ]:
        for check in (check_output, lambda path: write_image(a_photo(), path)):
            with pytest.raises(ImageError, match=what) as error:
                check(path)
            assert is_one_sentence(error, str(path))
    assert taken.read_bytes() == b"precious"
    assert len(list(tmp_path.iterdir())) == 2

    check_output(taken, overwrite=True)
    write_image(a_photo(), taken, overwrite=True)
    np.testing.assert_array_equal(integers(read_image(taken).pixels), samples(3))


def test_name_too_long(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"was not written: .*; choose another folder or name"):
        write_image(a_photo(), tmp_path / f"{'x' * 300}.png")


def test_jpeg_has_a_longest_side(tmp_path: Path) -> None:
    photo = Photo(np.zeros((1, 65_501, 1), np.float32))
    with pytest.raises(ImageError, match=r"65501 x 1, and JPEG ends at 65500: write a \.png"):
        write_image(photo, tmp_path / "out.jpg")
    write_image(photo, tmp_path / "out.png")
    assert read_image(tmp_path / "out.png").pixels.shape == (1, 65_501, 1)


@pytest.mark.parametrize("existing", [False, True])
@pytest.mark.parametrize(
    ("number", "what"),
    [(errno.ENOSPC, "the disk is full; free some space"), (errno.EIO, ".*; choose another folder or name")],
)
def test_disk_that_fails(
    number: int, what: str, existing: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: int) -> None:
        raise OSError(number, os.strerror(number))

    path = tmp_path / "out.png"
    if existing:
        path.write_bytes(b"precious")
    monkeypatch.setattr(files.os, "fsync", fail)
    with pytest.raises(ImageError, match=f"out.png was not written: {what}"):
        write_image(a_photo(), path, overwrite=existing)
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"precious"] * existing


def test_file_that_appears_during_the_work_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "out.png"
    encode = images.encode

    def slow(*args: Any, **options: Any) -> object:
        path.write_bytes(b"precious")
        return encode(*args, **options)

    monkeypatch.setattr(images, "encode", slow)
    with pytest.raises(ImageError, match="exists and is kept"):
        write_image(a_photo(), path)
    assert path.read_bytes() == b"precious"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a/photo.png", "a/photo_denoised.png"),
        ("b.JPG", "b_denoised.JPG"),
        ("x.y.jpeg", "x.y_denoised.jpeg"),
        ("scan", "scan_denoised.png"),
        ("a.gif", "a_denoised.png"),
    ],
)
def test_default_output(path: str, expected: str) -> None:
    assert default_output(path, "denoised") == Path(expected)


@pytest.mark.parametrize(
    ("path", "name", "expected"),
    [("a.png", "jpeg", "a_dehazed.jpg"), ("a.JPEG", "jpeg", "a_dehazed.JPEG"), ("a.jpg", "tiff", "a_dehazed.tif")],
)
def test_default_output_in_another_format(path: str, name: str, expected: str) -> None:
    assert default_output(path, "dehazed", FORMATS[name]) == Path(expected)


def test_a_gamma_that_is_dropped_is_noted() -> None:
    def png(gamma: bytes, **profile: Any) -> bytes:
        chunks = PngInfo()
        chunks.add(b"gAMA", gamma)
        file = io.BytesIO()
        Image.new("RGB", (4, 3), "gray").save(file, "PNG", pnginfo=chunks, **profile)
        return file.getvalue()

    linear, usual = (100_000).to_bytes(4, "big"), (45_455).to_bytes(4, "big")
    (note,) = read_image(png(linear)).notes
    assert note == "its gamma of 1, without a colour profile, is dropped: it will look other than it did"
    assert read_image(png(usual)).notes == ()
    assert (
        read_image(png(linear, icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())).notes
        == ()
    )


def test_samples_of_a_tiff_are_limited_before_they_are_unpacked() -> None:
    file = io.BytesIO()
    Image.new("RGB", (4, 3)).save(file, "TIFF")
    three = struct.pack("<HHII", 277, 3, 1, 3)
    assert file.getvalue().count(three) == 1
    content = file.getvalue().replace(three, struct.pack("<HHII", 277, 3, 1, 9))
    with pytest.raises(ImageError, match="it has 9 samples a pixel; expected gray, RGB, palette or CMYK"):
        read_image(content)
