"""TIFF in all its storage variants: each file is made here, byte by byte, and the right values are known beforehand."""

import io
import itertools
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from spikingir.photo.codecs import encode
from spikingir.photo.formats import FORMATS
from spikingir.photo.images import ImageError, read_image

HEIGHT, WIDTH = 11, 13  # odd, so that rows of few bits end within a byte
COLOURS = {0: 1, 1: 1, 2: 3, 3: 1, 5: 4}
PACK: dict[int, Callable[[bytes], bytes]] = {
    1: bytes,
    5: imagecodecs.lzw_encode,
    8: zlib.compress,
    32773: imagecodecs.packbits_encode,
    34925: imagecodecs.lzma_encode,
    50000: imagecodecs.zstd_encode,
}
NONE, LZW, DEFLATE, PACKBITS = 1, 5, 8, 32773
SHORT, LONG = 3, 4


def directory(tags: dict[int, tuple[int, bytes]], at: int, order: str = "<", following: int = 0) -> bytes:
    """A directory of tags, of which each is the number of its type and its bytes."""
    sizes = {1: 1, 2: 1, SHORT: 2, LONG: 4, 5: 8, 7: 1, 12: 8, 13: 4}
    head, body = struct.pack(f"{order}H", len(tags)), b""
    start = at + 6 + 12 * len(tags)
    for tag, (kind, data) in sorted(tags.items()):
        value = data.ljust(4, b"\0") if len(data) <= 4 else struct.pack(f"{order}I", start + len(body))
        head += struct.pack(f"{order}HHI", tag, kind, len(data) // sizes[kind]) + value
        body += b"" if len(data) <= 4 else data + bytes(len(data) % 2)
    return head + struct.pack(f"{order}I", following) + body


def shorts(*values: int, order: str = "<") -> tuple[int, bytes]:
    return SHORT, struct.pack(f"{order}{len(values)}H", *values)


def longs(*values: int, order: str = "<") -> tuple[int, bytes]:
    return LONG, struct.pack(f"{order}{len(values)}I", *values)


def rows_of(values: NDArray[np.integer], bits: int, order: str) -> bytes:
    """Samples of shape (H, W, C) as they lie in a strip: rows begin at a byte."""
    if bits >= 8:
        return values.astype(f"{order}u{bits // 8}").tobytes()
    flat = values.reshape(values.shape[0], -1, 1).astype(np.uint8)
    unpacked = np.unpackbits(flat, axis=2)[..., 8 - bits :].reshape(values.shape[0], -1)
    return np.packbits(unpacked, axis=1).tobytes()


@dataclass(frozen=True)
class Kind:
    """A way to store samples."""

    photometric: int = 1
    bits: int = 8
    planar: int = 1
    compression: int = NONE
    predictor: int = 1
    extra: tuple[int, ...] = ()
    tiled: bool = False
    order: str = "<"
    others: dict[int, tuple[int, bytes]] = field(default_factory=dict)

    @property
    def channels(self) -> int:
        return COLOURS[self.photometric] + len(self.extra)

    def samples(self) -> NDArray[np.uint16]:
        """Any, with full opacity where colours are multiplied by it: they could not be told otherwise."""
        shape = (HEIGHT, WIDTH, self.channels)
        values = np.random.default_rng(1).integers(0, 2**self.bits, shape).astype(np.uint16)
        if 1 in self.extra:
            values[..., COLOURS[self.photometric] + self.extra.index(1)] = 2**self.bits - 1
        return values

    def palette(self) -> NDArray[np.uint16]:
        return np.random.default_rng(2).integers(0, 256, (2**self.bits, 3)).astype(np.uint16)

    def content(self) -> bytes:
        """The file."""
        values = self.samples()
        planes = [values] if self.planar == 1 else [values[..., i, None] for i in range(self.channels)]
        step, side = (16, 16) if self.tiled else (4, WIDTH)
        pieces = []
        for plane in planes:
            for top, left in itertools.product(range(0, HEIGHT, step), range(0, WIDTH, side)):
                piece = plane[top : top + step, left : left + side].copy()
                if self.tiled:
                    missing = ((0, step - piece.shape[0]), (0, side - piece.shape[1]), (0, 0))
                    piece = np.pad(piece, missing)
                if self.predictor == 2:
                    piece[:, 1:] = (piece[:, 1:].astype(int) - piece[:, :-1]) % 2**self.bits
                pieces.append(PACK[self.compression](rows_of(piece, self.bits, self.order)))
        offsets = list(itertools.accumulate((len(piece) for piece in pieces[:-1]), initial=8))
        at = 8 + sum(map(len, pieces))
        at += at % 2
        order = self.order
        tags = {
            256: longs(WIDTH, order=order),
            257: longs(HEIGHT, order=order),
            258: shorts(*[self.bits] * self.channels, order=order),
            259: shorts(self.compression, order=order),
            262: shorts(self.photometric, order=order),
            324 if self.tiled else 273: longs(*offsets, order=order),
            277: shorts(self.channels, order=order),
            325 if self.tiled else 279: longs(*map(len, pieces), order=order),
            284: shorts(self.planar, order=order),
            317: shorts(self.predictor, order=order),
        }
        if self.tiled:
            tags |= {322: shorts(side, order=order), 323: shorts(step, order=order)}
        else:
            tags[278] = shorts(step, order=order)
        if self.extra:
            tags[338] = shorts(*self.extra, order=order)
        if self.photometric == 3:
            tags[320] = shorts(*(self.palette().T.ravel() * 257).tolist(), order=order)
        tags |= self.others
        head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", at)
        return (head + b"".join(pieces)).ljust(at, b"\0") + directory(tags, at, order)

    def shown(self) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
        """Colours and opacity in [0, 1], by the definitions."""
        values, most = self.samples().astype(np.float64), 2**self.bits - 1
        unit, colours = values / most, COLOURS[self.photometric]
        alpha = next((unit[..., colours + i] for i, kind in enumerate(self.extra) if kind in (1, 2)), None)
        if self.photometric == 0:
            return 1 - unit[..., :1], alpha
        if self.photometric == 3:
            return self.palette()[self.samples()[..., 0]] / 255, alpha
        if self.photometric == 5:
            return (1 - unit[..., :3]) * (1 - unit[..., 3:4]), alpha
        return unit[..., :colours], alpha


def kinds() -> Iterator[Kind]:
    """Photometric x bits x planar x compression x predictor x extra samples, and tiles and byte orders by turns."""
    counter = itertools.count()
    for photometric, bits, planar, compression, predictor, extra in itertools.product(
        COLOURS, (1, 2, 4, 8, 16), (1, 2), PACK, (1, 2), ((), (0,), (1,), (2,), (0, 2))
    ):
        if photometric == 3 and bits == 16:
            continue  # there is no such palette
        if predictor == 2 and (bits < 8 or compression in (NONE, PACKBITS)):
            continue  # there is no such predictor
        if compression not in (NONE, LZW, DEFLATE) and extra not in ((), (2,)):
            continue  # they are as many as they need be without
        if planar == 2 and COLOURS[photometric] + len(extra) == 1:
            continue
        turn = next(counter)
        yield Kind(photometric, bits, planar, compression, predictor, extra, turn % 3 == 0, "<>"[turn % 2])


KINDS = list(kinds())


def assert_is(kind: Kind, content: bytes) -> None:
    photo = read_image(content)
    colours, alpha = kind.shown()
    half = 0.501 / (65_535 if kind.bits == 16 else 255)
    assert photo.bits == (16 if kind.bits == 16 else 8), kind
    assert photo.pixels.shape == colours.shape, kind
    np.testing.assert_allclose(photo.pixels, colours, rtol=0, atol=half, err_msg=str(kind))
    assert (photo.alpha is None) == (alpha is None), kind
    if alpha is not None:
        np.testing.assert_allclose(photo.alpha, alpha, rtol=0, atol=half, err_msg=str(kind))
    hidden = len(kind.extra) - (alpha is not None)
    assert any("extra channel" in note for note in photo.notes) == (hidden > 0), (kind, photo.notes)


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("photometric", COLOURS)
def test_matrix(photometric: int, bits: int) -> None:
    """Every kind is read as it was made, and libtiff agrees on the samples wherever it reads the file."""
    compared = 0
    for kind in KINDS:
        if (kind.photometric, kind.bits) != (photometric, bits):
            continue
        content = kind.content()
        assert_is(kind, content)
        if bits >= 8 and photometric != 5:  # else libtiff gives packed bytes, or RGB
            shape = (HEIGHT, WIDTH, -1) if kind.planar == 1 else (-1, HEIGHT, WIDTH)
            samples = imagecodecs.tiff_decode(content).reshape(shape)
            samples = samples if kind.planar == 1 else np.moveaxis(samples, 0, 2)
            np.testing.assert_array_equal(samples, kind.samples(), err_msg=str(kind))
            compared += 1
        elif bits == 8 and kind.planar == 1 and not kind.extra:
            with Image.open(io.BytesIO(content)) as image:
                np.testing.assert_array_equal(np.asarray(image), kind.samples(), err_msg=str(kind))
            compared += 1
    assert compared > (5 if photometric == 5 else 40) or bits < 8 or (photometric, bits) in ((3, 16), (5, 16))


def test_matrix_without_imagecodecs(tmp_path: Path) -> None:
    """Without the package every file is read as it is with it, or the package is asked for; a third of the matrix."""
    some = KINDS[::3]
    for i, kind in enumerate(some):
        content = kind.content()
        (tmp_path / f"{i}.tif").write_bytes(content)
        photo = read_image(content)
        values = photo.pixels if photo.alpha is None else np.concatenate([photo.pixels, photo.alpha[..., None]], 2)
        np.save(tmp_path / f"{i}.npy", values)
    code = """if True:
        import sys
        from pathlib import Path
        import numpy as np
        sys.modules["imagecodecs"] = None
        from spikingir.photo.images import ImageError, read_image
        read = refused = 0
        for path in Path(sys.argv[1]).glob("*.tif"):
            try:
                photo = read_image(path)
            except ImageError as error:
                assert "pip install 'spikingir[io16]'" in str(error), error
                refused += 1
                continue
            values = photo.pixels if photo.alpha is None else np.concatenate([photo.pixels, photo.alpha[..., None]], 2)
            np.testing.assert_array_equal(values, np.load(path.with_suffix(".npy")), err_msg=path.name)
            read += 1
        print(read, refused)
    """
    run = subprocess.run([sys.executable, "-c", code, tmp_path], check=False, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    read, refused = map(int, run.stdout.split())
    assert read + refused == len(some)
    assert read > 100
    assert refused > 50


def test_gray_with_alpha_in_planes_apart_under_compression() -> None:
    """Fault: the alpha was 0 everywhere, without a word."""
    kind = Kind(1, 8, 2, LZW, 2, (2,))
    photo = read_image(kind.content())
    assert photo.alpha is not None
    np.testing.assert_array_equal(np.rint(photo.alpha * 255), kind.samples()[..., 1])
    assert not photo.notes


def test_palette_of_eight_bit_values() -> None:
    """Fault: black, without a word; old scanners write such maps, and libtiff reads them so."""
    kind = Kind(3)
    small = {320: shorts(*kind.palette().T.ravel().tolist())}
    content = Kind(3, others=small).content()
    np.testing.assert_array_equal(np.rint(read_image(content).pixels * 255), kind.palette()[kind.samples()[..., 0]])
    assert not read_image(content).notes


def test_premultiplied_colours_are_divided_by_their_opacity() -> None:
    class Half(Kind):
        def samples(self) -> NDArray[np.uint16]:
            values = np.full((HEIGHT, WIDTH, 4), 40, np.uint16)
            values[..., 3] = 80
            return values

    photo = read_image(Half(2, extra=(1,)).content())
    np.testing.assert_array_equal(np.rint(photo.pixels * 255), 128)


@pytest.mark.parametrize("depth", [2, 1000, 2**31 - 1])
@pytest.mark.parametrize("tag", [32997, 32998])
def test_volumes_are_refused(tag: int, depth: int) -> None:
    """Fault: ImageDepth made another size of the picture than its tags say, and work without end."""
    with pytest.raises(ImageError, match="it is a volume of several layers; save one of them as an image"):
        read_image(Kind(bits=16, others={tag: longs(depth)}).content())
    assert not read_image(Kind(bits=16, others={tag: longs(1)}).content()).notes


@pytest.mark.parametrize(
    ("others", "said"),
    [
        ({256: longs(60_000), 257: longs(60_000)}, "megapixels; expected at most 400"),
        ({256: longs(WIDTH + 1)}, "damaged TIFF"),
        ({257: longs(HEIGHT + 8)}, "some of its pixels are missing"),
        ({258: shorts(16)}, "damaged TIFF"),
        ({258: shorts(12)}, "it has 12-bit samples of an uncommon kind; convert it"),
        ({339: shorts(3)}, "samples of an uncommon kind; convert it"),
        ({259: shorts(DEFLATE)}, "damaged TIFF"),
        ({259: shorts(34712)}, r"its compression \(number 34712\) is not read; save it without"),
        ({262: shorts(2)}, "too few for its colours"),
        ({262: shorts(8)}, "pixels of the kind LAB; expected gray, RGB, palette or CMYK: convert it"),
        ({273: longs(8, 60, 10**9)}, "some of its pixels are missing"),
        ({279: longs(52, 52, 0)}, "some of its pixels are missing"),
        ({278: shorts(0)}, "its tags give strips of no size"),
        ({284: shorts(7), 277: shorts(2)}, "its tags give no size"),
        ({322: shorts(65_535), 323: longs(2**31), 324: longs(8), 325: longs(9)}, "megapixels; expected at most 400"),
        ({322: shorts(0), 323: shorts(0)}, "its tags give tiles of no size"),
        ({254: longs(1)}, "a mere preview"),
        ({258: (12, struct.pack("<d", 8))}, "a tag is of type 12 where whole numbers belong"),
    ],
)
def test_tags_that_the_pixels_belie_are_refused(others: dict[int, tuple[int, bytes]], said: str) -> None:
    with pytest.raises(ImageError, match=said):
        read_image(Kind(others=others).content())


def test_predictors_beside_a_compression_that_knows_none_are_ignored() -> None:
    """As libtiff has it: the tag is left behind by programs that changed the compression."""
    kind = Kind(2)
    content = Kind(2, others={317: shorts(2)}).content()
    np.testing.assert_array_equal(np.rint(read_image(content).pixels * 255), kind.samples())
    np.testing.assert_array_equal(imagecodecs.tiff_decode(content), kind.samples())


def pillow_tiff(mode: str, compression: str, changes: dict[int, int]) -> bytes:
    """A file that Pillow writes, in which some tags are another number."""
    file = io.BytesIO()
    colours = Image.fromarray(np.random.default_rng(0).integers(0, 256, (10, 12, 3), np.uint8)).resize((48, 40))
    colours.convert(mode).save(file, "TIFF", compression=compression)
    content = bytearray(file.getvalue())
    at = struct.unpack_from("<I", content, 4)[0]
    for place in range(at + 2, at + 2 + 12 * struct.unpack_from("<H", content, at)[0], 12):
        tag, kind = struct.unpack_from("<HH", content, place)
        if tag in changes:
            struct.pack_into("<H" if kind == SHORT else "<I", content, place + 8, changes[tag])
    return bytes(content)


@pytest.mark.parametrize("photometric", [0, 1])
@pytest.mark.parametrize("compression", ["group3", "group4", "tiff_ccitt"])
def test_fax(compression: str, photometric: int) -> None:
    content = pillow_tiff("1", compression, {262: photometric})
    with Image.open(io.BytesIO(content)) as image:
        np.testing.assert_array_equal(read_image(content).pixels[..., 0], np.asarray(image.convert("L")) / 255)


@pytest.mark.parametrize("mode", ["L", "RGB", "YCbCr"])
def test_jpeg_of_another_size_than_the_tags_say_is_refused(mode: str) -> None:
    """Its decoder says nothing, and fills up what is missing with anything."""
    assert read_image(pillow_tiff(mode, "jpeg", {256: 48})).pixels.shape[:2] == (40, 48)
    for changes in ({256: 56}, {256: 40}, {257: 32}, {278: 48, 257: 48}):
        with pytest.raises(ImageError, match=r"its JPEG data is \(48, 40, [13]\) where its tags say"):
            read_image(pillow_tiff(mode, "jpeg", changes))


def test_thousands_of_directories_are_not_walked() -> None:
    """A ring of directories, which has no end, is as good as one that has."""
    content = Kind().content()
    start = struct.unpack_from("<I", content, 4)[0]
    count = struct.unpack_from("<H", content, start)[0]
    link = start + 2 + 12 * count
    photo = read_image(content[:link] + struct.pack("<I", start) + content[link + 4 :])
    assert photo.notes == ("only the first of its pictures is read",)


def test_directories_whose_tags_share_their_bytes_are_refused() -> None:
    """65,000 tags of a megabyte each would be 65 GB."""
    tags = b"".join(struct.pack("<HHII", tag, 7, 1_000_000, 8) for tag in range(60_000))
    content = b"II*\0" + struct.pack("<I", 1_000_008) + bytes(1_000_000) + struct.pack("<H", 60_000) + tags + bytes(4)
    with pytest.raises(ImageError, match="its tags share their bytes"):
        read_image(content)


def test_strips_without_end_are_refused() -> None:
    content = b"II*\0" + struct.pack("<I", 16) + bytes(8)
    tags = {256: longs(4), 257: longs(1100), 258: shorts(8), 262: shorts(1), 278: longs(1)}
    tags |= {273: longs(*[8] * 1100), 279: longs(*[4] * 1100)}
    content += directory(tags, 16)
    assert read_image(content).pixels.shape == (1100, 4, 1)
    with pytest.raises(ImageError, match="it has 1100 strips or tiles; save it anew with fewer, or raise"):
        read_image(content, max_pixels=1_000_000)


# Metadata

DOUBLE, ASCII, BYTE = 12, 2, 1
GEO = {
    33550: (DOUBLE, struct.pack("<3d", 1, 1, 0)),
    33922: (DOUBLE, struct.pack("<6d", 0, 0, 0, 100, 200, 0)),
    34735: shorts(1, 1, 0, 1, 1024, 0, 1, 1),
    34737: (ASCII, b"WGS 84|\0"),
}
KEPT = GEO | {
    269: (ASCII, b"roll 7\0"),
    270: (ASCII, "Straße, 東京".encode() + b"\0"),
    18246: shorts(4),
    40091: (BYTE, "Zürich".encode("utf-16le") + b"\0\0"),
    282: (5, struct.pack("<II", 300, 1)),
}


def test_describing_tags_are_kept_byte_for_byte() -> None:
    """Fault: GeoTIFF's position, Windows' titles and document names were gone without a word, and ß became ??."""
    photo = read_image(Kind(others=KEPT).content())
    assert not photo.notes
    content, notes = encode(photo, FORMATS["tiff"])
    assert not notes
    with tifffile.TiffFile(io.BytesIO(content)) as file:
        tags = file.pages[0].tags
        assert tags[270].value == "Straße, 東京"
        assert tags[269].value == "roll 7"
        assert tags[33922].value == (0, 0, 0, 100, 200, 0)
        assert tags[34735].value == (1, 1, 0, 1, 1024, 0, 1, 1)
        assert tags[18246].value == 4
        assert bytes(tags[40091].value).decode("utf-16le") == "Zürich\0"
        assert tags[282].value == (300, 1)
        assert set(KEPT) <= {tag.code for tag in tags}
    again = read_image(encode(read_image(encode(photo, FORMATS["jpeg"])[0]), FORMATS["tiff"])[0])
    assert again.exif == photo.exif


@pytest.mark.parametrize("name", ["jpeg", "png", "webp", "tiff"])
def test_text_of_any_file_stays_what_it_is_in_tiff(name: str) -> None:
    big = b"Exif\0\0MM\0*\0\0\0\x08" + directory({270: (ASCII, "Straße\0".encode())}, 8, ">")
    photo = read_image(encode(read_image(Kind(2).content()), FORMATS[name])[0])
    content, notes = encode(type(photo)(photo.pixels, exif=big, mode="RGB"), FORMATS["tiff"])
    assert content[:2] == b"MM"  # in the order of its EXIF data
    assert "Straße\0".encode() in content
    assert not notes
    np.testing.assert_array_equal(read_image(content).pixels, photo.pixels)


def test_what_is_dropped_is_named_in_one_note() -> None:
    others = {330: longs(8), 34377: (7, b"8BIM"), 37724: (7, b"Adobe Photoshop"), 65_000: shorts(1)}
    photo = read_image(Kind(2, extra=(0,), others=others).content())
    assert photo.notes == (
        "dropped: the pictures in SubIFDs, PhotoshopInfo, ImageSourceData, the tag 65000, an extra channel",
    )


def test_damaged_exif_data_stops_no_picture() -> None:
    photo = read_image(Kind(others={34665: longs(2**31)}).content())
    assert photo.notes == ("the EXIF data is damaged and dropped",)


@pytest.mark.parametrize("kind", [SHORT, LONG, BYTE])
def test_orientation_of_any_whole_type(kind: int) -> None:
    value = {SHORT: shorts(6), LONG: longs(6), BYTE: (BYTE, b"\6")}[kind]
    photo = read_image(Kind(others={274: value}).content())
    np.testing.assert_array_equal(np.rint(photo.pixels * 255), Kind().samples().swapaxes(0, 1)[:, ::-1])
