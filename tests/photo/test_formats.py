"""Every format, with every kind of pixels that it can hold, there and back; and damaged files of every format."""

import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageCms, TiffImagePlugin

from spikingir.cli import main
from spikingir.photo.codecs import encode
from spikingir.photo.formats import FORMATS
from spikingir.photo.images import ImageError, read_image, write_image
from spikingir.photo.photo import Photo

HEIGHT, WIDTH = 9, 12
CAMERA, EXIF, GPS, EXPOSURE, LATITUDE = 0x010F, 0x8769, 0x8825, 0x829A, 2
KINDS = [(channels, alpha, bits) for channels in (1, 3) for alpha in (False, True) for bits in (8, 16)]


def samples(channels: int, bits: int = 8) -> NDArray[np.integer]:
    dtype = np.uint8 if bits == 8 else np.uint16
    return np.random.default_rng(0).integers(0, 2**bits, (HEIGHT, WIDTH, channels), dtype)


def photo_of(channels: int = 3, alpha: bool = False, bits: int = 8, **metadata: object) -> Photo:
    values = samples(channels + alpha, bits).astype(np.float32) / np.float32(2**bits - 1)
    opacity = np.ascontiguousarray(values[..., -1]) if alpha else None
    return Photo(np.ascontiguousarray(values[..., :channels]), opacity, bits, **metadata)


def integers(values: NDArray[np.float32], bits: int) -> NDArray[np.int64]:
    return np.rint(values.astype(np.float64) * (2**bits - 1)).astype(np.int64)


def pillow_bytes(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def tiff16(array: NDArray[np.uint16], photometric: int, *, planar: int = 1, **others: int) -> bytes:
    """An uncompressed 16-bit TIFF of a kind that Pillow does not write."""
    directory = TiffImagePlugin.ImageFileDirectory_v2(prefix=b"II")
    count = 1 if array.ndim == 2 else array.shape[2]
    tags = {256: array.shape[1], 257: array.shape[0], 258: (16,) * count, 259: 1, 262: photometric, 277: count}
    planes = np.moveaxis(array, 2, 0) if planar == 2 else array
    sizes = [array.nbytes // count] * count if planar == 2 else [array.nbytes]
    tags |= {273: tuple(sum(sizes[:i]) for i in range(len(sizes))), 278: array.shape[0], 279: tuple(sizes), 284: planar}
    tags |= {{"extra": 338, "orientation": 274}[name]: value for name, value in others.items()}
    for tag, value in tags.items():
        directory[tag] = value
    for tag in (273, 279):
        directory.tagtype[tag] = 4
    file = io.BytesIO()
    directory.save(file)
    return file.getvalue() + np.ascontiguousarray(planes).astype("<u2").tobytes()


def exif_bytes(orientation: int = 1) -> bytes:
    exif = Image.Exif()
    exif[CAMERA], exif[0x0112] = "Spike 1", orientation
    exif.get_ifd(EXIF)[EXPOSURE] = 0.25
    exif.get_ifd(GPS)[LATITUDE] = (47.0, 30.0, 0.0)
    return exif.tobytes()


def xmp(orientation: int) -> bytes:
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        f'<rdf:Description rdf:about="" xmp:Rating="5" tiff:Orientation="{orientation}" dc:title="Zürich"/>'
        "</rdf:RDF></x:xmpmeta>"
    ).encode()


def profile_of(space: bytes, name: str) -> bytes:
    """A profile for pixels of another kind than RGB: the header alone says so, the content is any."""
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    content = srgb[:16] + space + srgb[20:24] + bytes(12) + srgb[36:] + name.encode() * 40
    return struct.pack(">I", len(content)) + content[4:]


def rgb_profile(name: str, primaries: list[list[float]], curve: list[int]) -> bytes:
    """A matrix profile, ICC version 2: columns of XYZ for D50, and the curve of all three colours."""
    text = name.encode() + b"\0"
    description = b"desc\0\0\0\0" + struct.pack(">I", len(text)) + text + bytes(12 + 67)
    white, *columns = (
        b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(65536 * value) for value in xyz))
        for xyz in ([0.9642, 1.0, 0.8249], *primaries)
    )
    tone = b"curv\0\0\0\0" + struct.pack(f">I{len(curve)}H", len(curve), *curve)
    rights = b"text\0\0\0\0" + b"none\0"
    names = (b"desc", b"cprt", b"wtpt", b"rXYZ", b"gXYZ", b"bXYZ", b"rTRC", b"gTRC", b"bTRC")
    table, body, start = b"", b"", 128 + 4 + 12 * len(names)
    for tag, content in zip(names, (description, rights, white, *columns, tone, tone, tone), strict=True):
        table += tag + struct.pack(">II", start + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    header = struct.pack(">I4xI", start + len(body), 0x02400000) + b"mntrRGB XYZ " + bytes(12) + b"acsp"
    header = header.ljust(68, b"\0") + struct.pack(">3i", 63190, 65536, 54061)
    return header.ljust(128, b"\0") + struct.pack(">I", len(names)) + table + body


def srgb_curve(x: float) -> float:
    return x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4


P3 = [[0.51512, 0.24120, -0.00105], [0.29198, 0.69225, 0.04189], [0.15710, 0.06657, 0.78407]]
ADOBE = [[0.60974, 0.31111, 0.01947], [0.20528, 0.62567, 0.06087], [0.14919, 0.06322, 0.74457]]
PROFILES = {
    "Display P3": rgb_profile("Display P3", P3, [round(65535 * srgb_curve(i / 1023)) for i in range(1024)]),
    "Adobe RGB (1998)": rgb_profile("Adobe RGB (1998)", ADOBE, [0x0233]),  # the exponent 2 + 51 / 256
}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(("channels", "alpha", "bits"), KINDS)
def test_round_trip(name: str, channels: int, alpha: bool, bits: int, tmp_path: Path) -> None:
    format, photo = FORMATS[name], photo_of(channels, alpha, bits)
    path = tmp_path / f"out{format.suffixes[0]}"
    notes = write_image(photo, path, quality=100)
    back = read_image(path)

    kept = bits if format.deep else 8
    assert back.bits == kept
    assert ("written with 8 bits instead of 16" in notes) == (kept < bits)
    assert any("transparency" in note for note in notes) == (alpha and not format.alpha)
    assert (back.alpha is not None) == (alpha and format.alpha)
    assert back.notes == ()
    colours = 3 if name == "webp" else channels  # WebP has no gray
    assert back.pixels.shape == (HEIGHT, WIDTH, colours)
    pixels, opacity = photo.pixels, photo.alpha
    if alpha and not format.alpha:
        pixels = (pixels - 1) * opacity[..., None] + 1
    if name == "jpeg":
        assert np.abs(back.pixels - pixels).mean() < 0.02
    else:
        # what is cut from 16 to 8 bits is rounded; all else is exact
        np.testing.assert_array_equal(
            integers(back.pixels, kept), np.broadcast_to(integers(pixels, kept), back.pixels.shape)
        )
    if back.alpha is not None:
        np.testing.assert_array_equal(integers(back.alpha, kept), integers(opacity, kept))


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        (name, mode)
        for name, modes in {
            "png": ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"],
            "jpeg": ["1", "L", "RGB", "CMYK", "YCbCr"],
            "tiff": ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "I;16"],
            "webp": ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"],
            "bmp": ["1", "L", "P", "RGB", "RGBA"],
        }.items()
        for mode in modes
    ],
)
def test_what_pillow_writes_is_read(name: str, mode: str) -> None:
    """The pixels are those that Pillow shows, whatever kind of file it makes of the mode."""
    source = Image.fromarray(samples(3)).convert("L" if mode in ("1", "I;16") else "RGB")
    if mode == "PA":
        source = source.convert("RGBA").convert("PA")
    elif mode == "I;16":
        source = Image.fromarray(samples(1, 16)[..., 0])
    else:
        source = source.convert(mode)
    content = pillow_bytes(source, name)
    photo = read_image(content)
    with Image.open(io.BytesIO(content)) as image:
        if image.mode.startswith("I;16"):
            assert photo.bits == 16
            np.testing.assert_array_equal(integers(photo.pixels, 16)[..., 0], np.asarray(image))
            return
        kind = "L" if photo.pixels.shape[2] == 1 else "RGB"
        kind += "A" if photo.alpha is not None else ""
        shown = np.asarray(image.convert(kind)).reshape(HEIGHT, WIDTH, -1)
        assert (photo.alpha is not None) == image.has_transparency_data
        assert ("CMYK is converted to RGB without colour management" in photo.notes) == (image.mode == "CMYK")
    np.testing.assert_array_equal(integers(photo.pixels, 8), shown[..., : photo.pixels.shape[2]])


@pytest.mark.parametrize("bits", [1, 2, 4])
@pytest.mark.parametrize("mode", ["L", "P"])
def test_png_of_few_bits(mode: str, bits: int) -> None:
    levels = np.arange(HEIGHT * WIDTH, dtype=np.uint8).reshape(HEIGHT, WIDTH) % 2**bits
    image = Image.fromarray(levels)
    if mode == "P":
        image.putpalette(samples(3).ravel()[: 3 * 2**bits].tolist())
        shown = np.asarray(image.convert("RGB"))
    else:  # which Pillow does not write: the head says gray, the palette goes
        shown = (levels * (255 // (2**bits - 1)))[..., None]
        image.putpalette([0, 0, 0] * 2**bits)
    content = pillow_bytes(image, "png", bits=bits)
    if mode == "L":
        head = content[12:24] + bytes([bits, 0]) + content[26:29]
        content = content[:12] + head + struct.pack(">I", zlib.crc32(head)) + content[33:]
    np.testing.assert_array_equal(integers(read_image(content).pixels, 8), shown)


def test_bmp_of_fifteen_bits() -> None:
    """A sample of 5 bits each for red, green and blue, rows from the bottom up and filled to four bytes."""
    values = np.random.default_rng(0).integers(0, 2**15, (4, 6), dtype=np.uint16)
    head = b"BM" + struct.pack("<IIIIiiHHIIiiII", 54 + 48, 0, 54, 40, 6, 4, 1, 16, 0, 48, 0, 0, 0, 0)
    pixels = integers(read_image(head + values[::-1].astype("<u2").tobytes()).pixels, 8)
    np.testing.assert_array_equal(pixels, np.stack([values >> shift & 31 for shift in (10, 5, 0)], 2) * 255 // 31)


def test_tiff_of_sixteen_bits_from_the_other_end() -> None:
    array = samples(1, 16)[..., 0]
    content = pillow_bytes(Image.fromarray(array.astype(">u2")), "tiff")
    assert content[:2] == b"MM"
    np.testing.assert_array_equal(integers(read_image(content).pixels, 16)[..., 0], array)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"])
def test_compressions_of_tiff(compression: str) -> None:
    content = pillow_bytes(Image.fromarray(samples(3)), "TIFF", compression=compression)
    tolerance = 255 if compression == "jpeg" else 0
    assert np.abs(integers(read_image(content).pixels, 8) - samples(3)).max() <= tolerance


@pytest.mark.parametrize("planar", [1, 2])
@pytest.mark.parametrize(
    ("photometric", "channels", "extra"), [(1, 2, 2), (2, 3, None), (2, 4, 2), (2, 4, 0), (0, 1, None), (0, 2, 2)]
)
def test_tiff_of_sixteen_bits(photometric: int, channels: int, extra: int | None, planar: int) -> None:
    array = samples(channels, 16)
    photo = read_image(tiff16(array, photometric, planar=planar, **({} if extra is None else {"extra": extra})))
    colours = 3 if photometric == 2 else 1
    expected = 65535 - array[..., :colours].astype(int) if photometric == 0 else array[..., :colours]
    np.testing.assert_array_equal(integers(photo.pixels, 16), expected)
    assert (photo.bits, photo.alpha is not None) == (16, extra == 2)
    if extra == 2:
        np.testing.assert_array_equal(integers(photo.alpha, 16), array[..., -1])


def test_premultiplied_tiff_of_sixteen_bits() -> None:
    array = np.full((HEIGHT, WIDTH, 4), 10_000, np.uint16)
    array[..., 3] = 20_000
    photo = read_image(tiff16(array, 2, extra=1))
    assert photo.alpha is not None
    np.testing.assert_allclose(photo.pixels, 0.5, atol=1e-4)


def test_sixteen_bit_colour_of_others_is_read_in_full() -> None:
    """Another library's files: the depth is there, and Pillow alone would have lost it."""
    array = samples(3, 16)
    np.testing.assert_array_equal(integers(read_image(imagecodecs.png_encode(array)).pixels, 16), array)
    assert np.asarray(Image.open(io.BytesIO(imagecodecs.png_encode(array)))).dtype == np.uint8


@pytest.mark.parametrize(
    ("mode", "said"), [("F", "32-bit samples of an uncommon kind"), ("I", "32-bit samples"), ("LAB", "of the kind LAB")]
)
def test_pixels_that_are_not_read(mode: str, said: str) -> None:
    with pytest.raises(ImageError, match=said):
        read_image(pillow_bytes(Image.new(mode, (4, 4)), "TIFF"))


def test_preview_of_a_raw_file_is_not_taken_for_the_photograph() -> None:
    content = pillow_bytes(Image.new("RGB", (4, 4)), "TIFF", tiffinfo={254: 1})
    with pytest.raises(ImageError, match="a mere preview"):
        read_image(content)


@pytest.mark.parametrize(("name", "options"), [("png", {}), ("webp", {"lossless": True}), ("tiff", {})])
def test_of_several_pictures_the_first_is_read(name: str, options: dict[str, object]) -> None:
    others = [Image.new("RGB", (WIDTH, HEIGHT), colour) for colour in ("red", "blue")]
    content = pillow_bytes(Image.fromarray(samples(3)), name, save_all=True, append_images=others, **options)
    photo = read_image(content)
    np.testing.assert_array_equal(integers(photo.pixels, 8), samples(3))
    count = "" if name == "tiff" else "3 "  # whose directories are not walked
    assert photo.notes == (f"only the first of its {count}pictures is read",)


def test_of_several_deep_pictures_the_first_is_read() -> None:
    file = io.BytesIO()
    with TiffImagePlugin.AppendingTiffWriter(file) as pages:
        for _ in range(2):
            pages.write(tiff16(samples(3, 16), 2))
            pages.newFrame()
    photo = read_image(file.getvalue())
    np.testing.assert_array_equal(integers(photo.pixels, 16), samples(3, 16))
    assert photo.notes == ("only the first of its pictures is read",)


# Metadata


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("target", FORMATS)
@pytest.mark.parametrize("source", [name for name in FORMATS if FORMATS[name].metadata])
def test_metadata_goes_from_any_format_to_any(source: str, target: str, bits: int, profile: str) -> None:
    icc = PROFILES[profile]
    photo = read_image(encode(photo_of(bits=bits, exif=exif_bytes(), icc=icc), FORMATS[source])[0])
    content, notes = encode(photo, FORMATS[target])
    back = read_image(content)
    assert photo.icc == icc
    if target == "bmp":
        assert (back.exif, back.icc) == (None, None)
        assert "BMP holds neither EXIF and XMP data nor a colour profile: they are dropped" in notes
        return
    assert back.icc == icc
    with Image.open(io.BytesIO(content)) as image:
        exif = image.getexif()
        assert exif[CAMERA] == "Spike 1"
        assert exif.get_ifd(EXIF)[EXPOSURE] == 0.25
        assert exif.get_ifd(GPS)[LATITUDE] == (47.0, 30.0, 0.0)
    if "tiff" not in (source, target):
        assert back.exif == exif_bytes()


@pytest.mark.parametrize("name", PROFILES)
def test_colours_of_a_wide_gamut_stay(name: str) -> None:
    """What leaves the gamut of sRGB in the file is as far outside of it afterwards, and is no other colour."""
    profile = ImageCms.ImageCmsProfile(io.BytesIO(PROFILES[name]))
    assert ImageCms.getProfileDescription(profile).strip() == name
    green = Image.new("RGB", (8, 8), (0, 255, 0))
    content = pillow_bytes(green, "png", icc_profile=PROFILES[name])
    back = Image.open(io.BytesIO(encode(read_image(content), FORMATS["tiff"])[0]))
    lab = ImageCms.createProfile("LAB")
    there, here = (
        ImageCms.profileToProfile(image, io.BytesIO(icc), lab, outputMode="LAB").getpixel((0, 0))
        for image, icc in ((green, PROFILES[name]), (back, back.info["icc_profile"]))
    )
    assert there == here
    srgb = ImageCms.profileToProfile(green, ImageCms.createProfile("sRGB"), lab, outputMode="LAB").getpixel((0, 0))
    assert np.int8(here[1]) < np.int8(srgb[1]) - 5  # greener than the green of sRGB


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("target", FORMATS)
@pytest.mark.parametrize("source", [name for name in FORMATS if FORMATS[name].metadata])
def test_xmp_goes_from_any_format_to_any(source: str, target: str, bits: int) -> None:
    photo = read_image(encode(photo_of(bits=bits, xmp=xmp(1)), FORMATS[source])[0])
    content, notes = encode(photo, FORMATS[target])
    assert photo.xmp == xmp(1)
    assert read_image(content).xmp == (xmp(1) if FORMATS[target].metadata else None)
    assert (notes != ()) == (target == "bmp" or (photo.bits > 8 and not FORMATS[target].deep))


@pytest.mark.parametrize("name", ["jpeg", "png", "webp"])
def test_xmp_no_longer_asks_for_a_turn(name: str) -> None:
    content = encode(photo_of(exif=exif_bytes(6), xmp=xmp(6)), FORMATS[name])[0]
    assert read_image(content).xmp == xmp(1)
    element = b"<tiff:Orientation>%d</tiff:Orientation>"
    assert read_image(encode(photo_of(xmp=element % 8), FORMATS[name])[0]).xmp == element % 1


@pytest.mark.parametrize("name", ["jpeg", "png", "webp"])  # TIFF has a tag of its own
def test_a_turn_that_xmp_alone_asks_for(name: str) -> None:
    plain = read_image(encode(photo_of(xmp=xmp(1)), FORMATS[name])[0])
    turned = read_image(encode(photo_of(xmp=xmp(6)), FORMATS[name])[0])
    assert turned.pixels.shape == (plain.pixels.shape[1], plain.pixels.shape[0], 3)
    assert turned.xmp == xmp(1)
    upright = read_image(encode(photo_of(exif=exif_bytes(1), xmp=xmp(6)), FORMATS[name])[0])
    assert upright.pixels.shape == plain.pixels.shape  # EXIF goes first, as in Pillow


def test_xmp_too_long_for_jpeg_is_dropped_with_a_note() -> None:
    photo = photo_of(xmp=xmp(1).ljust(65_505))
    assert encode(photo, FORMATS["jpeg"])[1] == ("the XMP data is too long for JPEG and is dropped",)
    assert read_image(encode(replace(photo, xmp=xmp(1).ljust(65_504)), FORMATS["jpeg"])[0]).xmp == xmp(1).ljust(65_504)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["jpeg", "tiff", "webp", "png"])
@pytest.mark.parametrize("target", ["jpeg", "tiff", "webp", "png"])
def test_orientation_is_applied_once(name: str, target: str, orientation: int) -> None:
    turned = Image.fromarray(np.kron(np.arange(6, dtype=np.uint8).reshape(2, 3) * 40, np.ones((16, 16), np.uint8)))
    options = {"quality": 100} | ({"lossless": True} if name == "webp" else {})
    options = {} if name in ("tiff", "png") else options
    exif = exif_bytes(orientation)
    if name == "tiff":  # uncompressed, since Pillow writes EXIF directories in such alone
        options = {"compression": "raw"}
    photo = read_image(pillow_bytes(turned.convert("RGB"), name, exif=exif, **options))
    once = read_image(encode(photo, FORMATS[target], quality=100)[0])
    assert once.pixels.shape == ((48, 32, 3) if orientation > 4 else (32, 48, 3))
    assert np.abs(once.pixels - photo.pixels).max() < 0.05
    # Exif 2.32: which corner of what is seen the stored first pixel is
    corner = {1: (0, 0), 2: (0, -1), 3: (-1, -1), 4: (-1, 0), 5: (0, 0), 6: (0, -1), 7: (-1, -1), 8: (-1, 0)}[
        orientation
    ]
    assert photo.pixels[corner].mean() == pytest.approx(0, abs=0.05)
    with Image.open(io.BytesIO(encode(photo, FORMATS[target])[0])) as image:
        assert image.getexif().get(0x0112, 1) == 1


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_orientation_of_a_deep_tiff(orientation: int) -> None:
    upright = read_image(tiff16(samples(3, 16), 2)).pixels
    turned = read_image(tiff16(samples(3, 16), 2, orientation=orientation)).pixels
    expected = {1: upright, 3: upright[::-1, ::-1], 6: upright.swapaxes(0, 1)[:, ::-1]}
    np.testing.assert_array_equal(turned, expected[orientation])


def test_cmyk_loses_its_profile_and_says_so() -> None:
    icc = profile_of(b"CMYK", "Coated FOGRA39")
    for name in ("jpeg", "tiff"):
        photo = read_image(pillow_bytes(Image.fromarray(samples(3)).convert("CMYK"), name, icc_profile=icc))
        assert photo.icc is None
        assert photo.notes == (
            "CMYK is converted to RGB without colour management",
            "the colour profile does not fit the pixels and is dropped",
        )


def test_gray_profile_does_not_fit_webp() -> None:
    content, notes = encode(photo_of(1, icc=profile_of(b"GRAY", "Dot Gain 20%")), FORMATS["webp"])
    assert notes == ("WebP is always colour: the gray colour profile is dropped",)
    assert read_image(content).icc is None


# Sizes


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("size", [(1, 1), (1, 16_000), (16_000, 1)])
def test_thin_images(name: str, size: tuple[int, int]) -> None:
    photo = Photo(np.zeros((*size, 3), np.float32))
    assert read_image(encode(photo, FORMATS[name])[0]).pixels.shape == (*size, 3)


@pytest.mark.parametrize(("name", "side"), [("jpeg", 65_501), ("webp", 16_384)])
def test_sides_that_a_format_cannot_hold(name: str, side: int) -> None:
    with pytest.raises(ImageError, match=rf"{side} x 1, and \w+ ends at {side - 1}: write a \.png"):
        encode(Photo(np.zeros((1, side, 1), np.float32)), FORMATS[name])


@pytest.mark.parametrize("name", ["tiff", "bmp"])
def test_claims_of_size_are_checked_before_decoding(name: str) -> None:
    content = bytearray(pillow_bytes(Image.new("RGB", (4, 4)), name))
    if name == "bmp":
        content[18:26] = struct.pack("<II", 30_000, 30_000)
    else:
        tags = TiffImagePlugin.ImageFileDirectory_v2(prefix=b"II")
        for tag, value in {256: 30_000, 257: 30_000, 258: (8, 8, 8), 259: 1, 262: 2, 273: 8, 277: 3, 279: 48}.items():
            tags[tag] = value
        file = io.BytesIO()
        tags.save(file)
        content = bytearray(file.getvalue() + bytes(48))
    with pytest.raises(ImageError, match="30000 x 30000 are 900 megapixels"):
        read_image(bytes(content))


# Damage


def specimens() -> Iterator[bytes]:
    """Small files of every format, with metadata."""
    for channels, alpha, bits in KINDS:
        photo = photo_of(
            channels,
            alpha,
            bits,
            exif=exif_bytes(6),
            xmp=xmp(6),
            icc=PROFILES["Adobe RGB (1998)"] if channels == 3 else None,
        )
        for format in FORMATS.values():
            yield encode(photo, format, quality=80)[0]
    palette = Image.fromarray(samples(3)).convert("P", palette=Image.Palette.ADAPTIVE, colors=8)
    for name in ("png", "tiff", "bmp"):
        yield pillow_bytes(palette, name)
    for compression in ("raw", "tiff_lzw", "packbits", "jpeg"):
        yield pillow_bytes(Image.fromarray(samples(3)), "tiff", compression=compression)
    yield pillow_bytes(Image.fromarray(samples(3)).convert("CMYK"), "jpeg")
    yield pillow_bytes(Image.fromarray(samples(3)), "jpeg", progressive=True)


SPECIMENS = list(specimens())


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A file with some bytes changed, often in its head, and perhaps cut short."""
    content = bytearray(draw(st.sampled_from(SPECIMENS)))
    at = st.integers(0, len(content) - 1) | st.integers(0, min(200, len(content) - 1))
    for position, value in draw(st.dictionaries(at, st.integers(0, 255), max_size=8)).items():
        content[position] = value
    if draw(st.booleans()):
        del content[draw(st.integers(0, len(content))) :]
    return bytes(content)


@settings(max_examples=200, deadline=None)
@given(damaged())
def test_damage_is_an_image_error(content: bytes) -> None:
    message = ""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            photo = read_image(content)
            encode(photo, FORMATS["tiff"])  # what was read can be written
        except ImageError as error:
            message = str(error)
    assert "\n" not in message
    assert len(message) < 1000


@pytest.mark.slow
@settings(max_examples=2500, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(damaged())
def test_much_damage_on_the_command_line(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    """A whole result and exit code 0, or one sentence and 1; nothing else is left, and the photograph is as it was."""
    photo, result = tmp_path / "photo.png", tmp_path / "result.tif"
    photo.write_bytes(content)
    result.unlink(missing_ok=True)
    code = main(["denoise", str(photo), "-o", str(result), "--model", str(tiny_model)])
    out, err = capsys.readouterr()
    assert (code, out.count("\n")) in ((0, 1), (1, 0))
    assert result.exists() == (code == 0)
    if code == 0:
        assert all(line.startswith("spikingir: note: ") for line in err.splitlines())
        read_image(result)
    else:
        assert err.startswith("spikingir: ")
        assert err.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} <= {photo.name, result.name}
    assert photo.read_bytes() == content
