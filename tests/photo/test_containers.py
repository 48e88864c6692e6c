"""PNG, JPEG, WebP and BMP files as other programs write them: nothing is misread, nothing dropped without a word."""

import io
import os
import struct
import zlib
from collections.abc import Iterator

import imagecodecs
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from spikingir.photo.codecs import encode, library_messages
from spikingir.photo.formats import FORMATS
from spikingir.photo.images import ImageError, read_content, read_image
from spikingir.photo.metadata import upright_exif, without_claims

HEIGHT, WIDTH = 40, 60
SIGNATURE = b"\x89PNG\r\n\x1a\n"


def corners() -> NDArray[np.uint8]:
    """A picture whose turns all look different."""
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    picture[:20, :30], picture[:20, 30:] = (220, 30, 30), (30, 200, 30)
    picture[20:, :30], picture[20:, 30:] = (40, 60, 210), (230, 230, 60)
    return picture


TURNED = corners().swapaxes(0, 1)[:, ::-1]  # as orientation 6 asks


def written(kind: str, image: Image.Image | None = None, **options: object) -> bytes:
    file = io.BytesIO()
    (Image.fromarray(corners()) if image is None else image).save(file, kind, **options)
    return file.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def with_chunk(kind: bytes, data: bytes) -> bytes:
    plain = written("PNG")
    return plain[:33] + chunk(kind, data) + plain[33:]


def samples(values: NDArray[np.float32]) -> NDArray[np.int64]:
    return np.rint(values.astype(np.float64) * 255).astype(np.int64)


def exif(orientation: int = 6) -> bytes:
    tags = Image.Exif()
    tags[0x0112], tags[0x010F] = orientation, "Maker"
    return tags.tobytes()


# PNG


def gray_png(bits: int, key: int, colour: int = 0) -> bytes:
    """All grays of a depth, of which one is transparent; each row is the same."""
    levels = 2**bits
    rows = np.arange(16 * levels).reshape(16, levels) % levels
    values = np.repeat(rows[..., None], 3 if colour else 1, 2).reshape(16, -1).astype(np.uint8)
    packed = np.packbits(np.unpackbits(values[..., None], axis=2)[..., 8 - bits :].reshape(16, -1), axis=1)
    raw = b"".join(b"\0" + row.tobytes() for row in packed)
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", levels, 16, bits, colour, 0, 0, 0))
    transparent = chunk(b"tRNS", struct.pack(">H", key) * (3 if colour else 1))
    return SIGNATURE + head + transparent + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")


def transparencies() -> Iterator[tuple[int, int, int]]:
    for bits in (1, 2, 4, 8):
        for key in range(2**bits):
            yield bits, key, 0
    yield from ((8, key, 2) for key in range(0, 256, 5))


def test_transparent_gray_of_any_depth() -> None:
    """Fault: at 2 and 4 bits every key but 0 was ignored; bits beyond the depth do not count, as the format says."""
    tried = 0
    for bits, key, colour in transparencies():
        expected = np.arange(2**bits) != key
        for beyond in (0, 2**bits) if bits < 8 else (0, 256):
            photo = read_image(gray_png(bits, key + beyond, colour))
            assert photo.alpha is not None
            np.testing.assert_array_equal(photo.alpha[0], expected, err_msg=f"{bits} bits, {key}")
            np.testing.assert_array_equal(
                samples(photo.pixels)[3, :, 0], np.arange(2**bits) * 255 // (2**bits - 1), err_msg=f"{bits} bits"
            )
            assert not photo.notes
            tried += 1
    assert tried == 2 * (2 + 4 + 16 + 256 + 52)


def raw_profile(kind: str, data: bytes) -> bytes:
    return f"\n{kind}\n{len(data):8}\n".encode() + data.hex().encode() + b"\n"


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("prefix", [b"", b"Exif\0\0"])
@pytest.mark.parametrize("kind", ["exif", "APP1"])
def test_exif_in_raw_profiles(kind: str, prefix: bytes, compressed: bool) -> None:
    """Fault: the turn was not applied and the data gone, without a word."""
    text, name = raw_profile(kind.lower(), prefix + exif().removeprefix(b"Exif\0\0")), f"Raw profile type {kind}"
    data = name.encode() + (b"\0\0" + zlib.compress(text) if compressed else b"\0" + text)
    photo = read_image(with_chunk(b"zTXt" if compressed else b"tEXt", data))
    np.testing.assert_array_equal(samples(photo.pixels), TURNED)
    assert photo.exif == exif(1)
    assert not photo.notes


def test_other_raw_profiles() -> None:
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"/>'
    for name, data, what, expected in [
        ("icc", icc, "icc", icc),
        ("xmp", xmp, "xmp", xmp),
        ("APP1", b"http://ns.adobe.com/xap/1.0/\0" + xmp, "xmp", xmp),
    ]:
        photo = read_image(with_chunk(b"tEXt", f"Raw profile type {name}\0".encode() + raw_profile(name, data)))
        assert getattr(photo, what) == expected
        assert not photo.notes
    photo = read_image(with_chunk(b"tEXt", b"Raw profile type iptc\0" + raw_profile("iptc", b"8BIM")))
    assert photo.notes == ("dropped: IPTC data",)
    photo = read_image(with_chunk(b"tEXt", b"Raw profile type exif\0\nexif\n 9 zz"))
    assert photo.notes == ("dropped: the damaged text Raw profile type exif",)


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt"])
def test_texts_of_any_length_stop_no_picture(kind: bytes) -> None:
    """Fault: more than 1 MiB of compressed text was a damaged file."""
    head = b"workflow\0\0" if kind == b"zTXt" else b"workflow\0\1\0\0\0"
    photo = read_image(with_chunk(kind, head + zlib.compress(b"{}" * 5_000_000)))
    np.testing.assert_array_equal(samples(photo.pixels), corners())
    assert photo.notes == ("dropped: the text workflow",)


def test_profiles_of_any_length_are_kept() -> None:
    """Fault of the same kind: a profile of more than 1 MiB went without a word."""
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes().ljust(3_000_000, b"\1")
    photo = read_image(with_chunk(b"iCCP", b"LUT\0\0" + zlib.compress(icc)))
    assert photo.icc == icc
    assert read_image(encode(photo, FORMATS["png"])[0]).icc == icc


def test_metadata_that_unpacks_without_end_is_dropped() -> None:
    unending = zlib.compress(bytes(2**26 + 1))
    photo = read_image(with_chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + unending))
    assert photo.notes == ("dropped: the damaged text XML:com.adobe.xmp",)
    assert read_image(with_chunk(b"iCCP", b"x\0\0" + unending)).notes == ("dropped: a damaged colour profile",)


def test_what_a_png_says_besides_is_named_in_one_note() -> None:
    texts = PngInfo()
    texts.add_text("Comment", "by me")
    texts.add_itxt("Ti\x01tle", "x")
    texts.add(b"tIME", bytes(7))
    content = written("PNG", pnginfo=texts, dpi=(300, 300)) + b"film"
    assert read_image(content).notes == (
        "dropped: the text Comment, the text Ti?tle, time of the last change, resolution, what follows its end",
    )


@pytest.mark.parametrize("place", [8, 33, -12])
def test_a_second_header_is_damage(place: int) -> None:
    """Fault: decoders differed on which of two sizes was meant."""
    content = written("PNG")
    other = chunk(b"IHDR", struct.pack(">IIBBBBB", 12_000, 12_000, 8, 2, 0, 0, 0))
    with pytest.raises(ImageError, match="its first chunk, and no other, is the header"):
        read_image(content[:place] + other + content[place:])


@pytest.mark.parametrize(("bits", "colour"), [(1, 0), (8, 2), (16, 2), (16, 6)])
def test_a_size_that_the_file_cannot_fill_is_refused_before_it_takes_memory(bits: int, colour: int) -> None:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 19_990, 19_990, bits, colour, 0, 0, 0))
    content = SIGNATURE + head + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    with pytest.raises(ImageError, match="its pixels are cut short"):
        read_image(content)


# JPEG


def with_segment(marker: int, data: bytes, content: bytes | None = None) -> bytes:
    content = written("JPEG", quality=95) if content is None else content
    return content[:2] + struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data + content[2:]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("kind", "form"), [(1, "B3x"), (3, "H2x"), (4, "I")])
@pytest.mark.parametrize("name", ["JPEG", "PNG", "WebP"])
def test_orientation_of_any_whole_type(name: str, kind: int, form: str, order: str) -> None:
    """Fault: as LONG or BYTE it was ignored, and lost with --strip-metadata."""
    mark = b"II*\0" if order == "<" else b"MM\0*"
    data = b"Exif\0\0" + mark + struct.pack(f"{order}IHHHI{form}I", 8, 1, 0x0112, kind, 1, 6, 0)
    photo = read_image(
        written(name, exif=data, quality=100, **{"WebP": {"lossless": True}, "JPEG": {"subsampling": 0}}.get(name, {}))
    )
    assert photo.pixels.shape == (WIDTH, HEIGHT, 3)
    assert np.abs(samples(photo.pixels) - TURNED).mean() < 2
    assert photo.exif is not None
    assert upright_exif(photo.exif)[0] == 1


def exif_with_thumbnail(thumbnail: bytes, order: str = "<", after: bytes = b"") -> bytes:
    mark = b"II*\0" if order == "<" else b"MM\0*"
    first = struct.pack(f"{order}HHHIHHI", 1, 0x0112, 3, 1, 6, 0, 26)
    second = struct.pack(f"{order}HHHIIHHIII", 2, 0x0201, 4, 1, 26 + 30, 0x0202, 4, 1, len(thumbnail), 0)
    return b"Exif\0\0" + mark + struct.pack(f"{order}I", 8) + first + second + thumbnail + after


@pytest.mark.parametrize("after", [b"", b"maker's own"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("name", ["JPEG", "PNG", "WebP"])
def test_the_thumbnail_is_dropped(name: str, order: str, after: bytes) -> None:
    """Fault: it stayed as it was, on its side and noisy, beside the restored picture."""
    thumbnail = written("JPEG", Image.fromarray(corners()).resize((30, 20)))
    photo = read_image(written(name, exif=exif_with_thumbnail(thumbnail, order, after)))
    assert photo.notes == ("dropped: the thumbnail in the EXIF data",)
    content, _ = encode(photo, FORMATS["jpeg"])
    assert thumbnail[-60:-10] not in content
    assert content.count(after) or not after
    with Image.open(io.BytesIO(content)) as image:
        assert not image.getexif().get_ifd(0x14A)
        assert 0x0201 not in image.getexif()
        assert image.getexif()[0x0112] == 1
    assert not read_image(content).notes


def xmp(namespaces: str, properties: str, elements: str = "") -> bytes:
    return (
        '<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
        f'xmlns:xmp="http://ns.adobe.com/xap/1.0/" {namespaces} xmp:Rating="5" {properties}>{elements}'
        '</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
    ).encode()


CLAIMS = [
    ('xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/"', 'hdrgm:Version="1.0"', "", "a gain map"),
    (
        'xmlns:C="http://ns.google.com/photos/1.0/container/" xmlns:Item="http://ns.google.com/photos/1.0/container/item/"',
        "",
        '<C:Directory><rdf:Seq><rdf:li rdf:parseType="Resource"><C:Item Item:Mime="image/jpeg" '
        'Item:Semantic="GainMap"/></rdf:li></rdf:Seq></C:Directory>',
        "other pictures in the file",
    ),
    ('xmlns:GDepth="http://ns.google.com/photos/1.0/depthmap/"', "GDepth:Near='1' GDepth:Far='2'", "", "a depth map"),
    ('xmlns:G="http://ns.google.com/photos/1.0/camera/"', 'G:MotionPhoto="1"', "<G:Offset>3</G:Offset>", "a film"),
    ("", "", "<xmp:Thumbnails><rdf:Alt><rdf:li>/9j/</rdf:li></rdf:Alt></xmp:Thumbnails>", "a thumbnail"),
]


@pytest.mark.parametrize(("namespaces", "properties", "elements", "what"), CLAIMS)
def test_xmp_claims_nothing_that_is_gone(namespaces: str, properties: str, elements: str, what: str) -> None:
    packet = xmp(namespaces, properties, elements)
    photo = read_image(with_segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + packet))
    assert photo.notes == (f"dropped: what the XMP data says of {what}",)
    assert photo.xmp is not None
    assert b'xmp:Rating="5"' in photo.xmp
    for word in (b"Version", b"GainMap", b"Near", b"Far", b"MotionPhoto", b"Offset", b"/9j/"):
        assert word not in photo.xmp
    assert without_claims(photo.xmp) == (photo.xmp, ())


def test_xmp_out_of_which_a_claim_cannot_be_taken_is_dropped() -> None:
    packet = xmp('xmlns:h="http://ns.adobe.com/hdr-gain-map/1.0/"', "", "<h:a>").replace(b"</rdf", b"<rdf")
    assert without_claims(packet) == (None, ("a gain map",))
    plain = b"<this is no XML"
    assert without_claims(plain) == (plain, ())


def test_pictures_behind_the_first_are_named() -> None:
    """Fault: a gain map, second view or depth map went without a word."""
    several = written("MPO", save_all=True, append_images=[Image.new("L", (15, 10))], quality=95)
    packet = xmp('xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/"', 'hdrgm:Version="1.0"')
    photo = read_image(with_segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + packet, several))
    assert photo.notes == (
        "dropped: all of its pictures but the first (a gain map, depth map or second view), "
        "what the XMP data says of a gain map",
    )
    assert b"hdrgm:" not in encode(photo, FORMATS["jpeg"])[0]


def test_what_a_jpeg_says_besides_is_named_in_one_note() -> None:
    content = written("JPEG", comment=b"by me", dpi=(300, 300)) + b"film"
    for marker, data in [
        (0xED, b"Photoshop 3.0\0" + b"8BIM"),
        (0xEB, b"JP\0\1"),
        (0xE1, b"http://ns.adobe.com/xmp/extension/\0" + bytes(40)),
        (0xE7, b"Maker\x1b[31m\0data"),
    ]:
        content = with_segment(marker, data, content)
    (note,) = read_image(content).notes
    for what in (
        "Photoshop and IPTC data",
        "content credentials or other JUMBF data",
        "the XMP data beyond 64 KB",
        "APP7 data (Maker?[31m)",
        "a comment",
        "resolution",
        "what follows its end",
    ):
        assert what in note
    assert read_image(written("JPEG")).notes == ()


def progressive(side: int, scans: int) -> bytes:
    """A gray JPEG that goes over its pixels that many times more, to change nothing."""
    content = written("JPEG", Image.new("L", (64, 64), 128), progressive=True)
    at = content.rindex(b"\xff\xda")
    frame = content.index(b"\xff\xc2")
    content = content[: frame + 5] + struct.pack(">HH", side, side) + content[frame + 9 :]
    return content[:at] + content[at:-2] * scans + b"\xff\xd9"


def test_work_on_a_jpeg_is_bounded_by_its_size() -> None:
    content = progressive(1000, 1000)
    with pytest.raises(
        ImageError, match=r"goes over its 1 megapixels 10\d\d times; expected at most 12 times: save it"
    ):
        read_image(content, max_pixels=1_000_000)
    assert read_image(written("JPEG", progressive=True), max_pixels=HEIGHT * WIDTH).notes == ()


# WebP


def blocks() -> Image.Image:
    colours = np.random.default_rng(0).integers(0, 2, (32, 32, 3), dtype=np.uint8) * 255
    return Image.fromarray(colours)


@pytest.mark.parametrize("animated", [False, True])
def test_lossless_webp_stays_lossless(animated: bool) -> None:
    """Fault: colours were kept at half the resolution, with a mean difference of 42 of 255, without a word."""
    others = {"save_all": True, "append_images": [Image.new("RGB", (32, 32))]} if animated else {}
    photo = read_image(written("WebP", blocks(), lossless=True, **others))
    assert photo.lossless
    back = read_image(encode(photo, FORMATS["webp"])[0])
    np.testing.assert_array_equal(samples(back.pixels), np.asarray(blocks()))
    assert len(photo.notes) == animated
    chosen = read_image(encode(photo, FORMATS["webp"], quality=95)[0])
    assert np.abs(samples(chosen.pixels) - np.asarray(blocks())).mean() > 10


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_lossy_webp_stays_lossy(mode: str) -> None:
    photo = read_image(written("WebP", blocks().convert(mode), exif=exif(1)))
    assert not photo.lossless
    assert not read_image(encode(photo, FORMATS["webp"])[0]).lossless


# BMP


def bmp(header: int, bits: int, compression: int, size: tuple[int, int] = (8, 8)) -> bytes:
    body = struct.pack("<IiiHHIIiiII", header, *size, 1, bits, compression, 256, 0, 0, 0, 0).ljust(header, b"\0")
    return b"BM" + struct.pack("<III", 0, 0, 14 + len(body)) + body + bytes(2000)


@pytest.mark.parametrize(
    ("header", "bits", "compression"),
    [(40, 8, 5), (40, 24, 4), (40, 1, 3), (40, 2, 0), (40, 64, 0), (124, 64, 0), (40, 24, 7), (99, 24, 0), (16, 24, 0)],
)
def test_uncommon_bmp_files_are_refused_in_one_wording(header: int, bits: int, compression: int) -> None:
    with pytest.raises(ImageError, match=r": it is a BMP of an uncommon kind \(.+\); save it as PNG$"):
        read_image(bmp(header, bits, compression))


def test_a_bmp_whose_rows_cannot_be_there_is_refused() -> None:
    with pytest.raises(ImageError, match="its pixels are cut short"):
        read_image(bmp(40, 24, 0, (19_990, 19_990)))


def test_the_profile_in_a_bmp_is_kept() -> None:
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    content = bytearray(bmp(124, 24, 0))
    content[14 + 56 : 14 + 60] = b"DEBM"
    content[14 + 112 : 14 + 120] = struct.pack("<II", len(content) - 14, len(icc))
    photo = read_image(bytes(content) + icc)
    assert photo.icc == icc
    assert not photo.notes


@pytest.mark.parametrize(
    ("space", "calibration", "resolution", "lost"),
    [
        (b"KNIL", 0, 0, "the link to its colour profile"),
        (bytes(4), 7, 0, "primary colours and gamma"),
        (b"BGRs", 7, 11_811, "resolution"),
        (b"BGRs", 7, 2835, None),
        (bytes(4), 0, 3780, None),
    ],
)
def test_what_a_bmp_says_besides_is_named(space: bytes, calibration: int, resolution: int, lost: str | None) -> None:
    content = bytearray(bmp(124, 24, 0))
    content[14 + 56 : 14 + 64] = space + struct.pack("<I", calibration)
    content[14 + 24 : 14 + 28] = struct.pack("<I", resolution)
    assert read_image(bytes(content)).notes == ((f"dropped: {lost}",) if lost else ())


# All


@pytest.mark.parametrize(
    "content",
    [
        SIGNATURE + written("PNG")[8:33] + chunk(b"tEXt", b"a\0") * 11_000 + written("PNG")[33:],
        b"\xff\xd8" + b"\xff\xfe\0\2" * 11_000,
        written("WebP") + b"what\0\0\0\0" * 11_000,
    ],
    ids=["PNG", "JPEG", "WebP"],
)
def test_files_of_pieces_without_end_are_refused(content: bytes) -> None:
    with pytest.raises(ImageError, match="it falls into too many pieces"):
        read_image(content)


def test_metadata_is_bounded_as_a_whole() -> None:
    """What is dropped counts too: one compressed text of 64 KB unpacks to 64 MiB."""
    half = zlib.compress(bytes(2**25))
    text = chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + half)
    plain = written("PNG")
    assert read_image(plain[:33] + text + plain[33:]).notes == ()
    photo = read_image(plain[:33] + chunk(b"iCCP", b"x\0\0" + half) + text + text + plain[33:])
    assert photo.notes == (
        "the colour profile does not fit the pixels and is dropped",
        "dropped: the damaged text XML:com.adobe.xmp",
    )


def test_xmp_with_claims_without_end_is_dropped() -> None:
    names = "".join(f' xmlns:h{i}="http://ns.adobe.com/hdr-gain-map/1.0/"' for i in range(51))
    assert without_claims(f"<x{names}/>".encode()) == (None, ("a gain map",))


def test_files_far_larger_than_any_image_are_not_read_to_their_end() -> None:
    """Zeros by the gigabyte behind a small PNG."""

    class Endless(io.BytesIO):
        taken = 0

        def read(self, size: int | None = -1, /) -> bytes:
            assert size is not None
            assert size >= 0
            self.taken += size
            return super().read(16) if size == 16 else bytes(size)

    source = Endless(written("PNG"))
    for read in (read_image, read_content):
        with pytest.raises(
            ImageError, match=r"has more than 67 MB, as no image of 0\.01 megapixels needs; give a smaller"
        ):
            read(source, name="photo.png", max_pixels=10_000)
        source.seek(0)
    assert source.taken < 2 * (2**26 + 80_000 + 20)
    padded = written("PNG") + bytes(1000)
    assert not read_image(padded).notes


def test_messages_of_c_libraries_become_notes(capfd: pytest.CaptureFixture[str]) -> None:
    with library_messages() as said:
        os.write(2, b"libpng warning: iCCP: known incorrect sRGB profile\n" * 3)
        os.write(2, b"TIFFReadDirectory: Warning, \xff.\n\x1b[2Kprogress 40%\n")
    assert said == ["libpng warning: iCCP: known incorrect sRGB profile", "TIFFReadDirectory: Warning, \ufffd."]
    assert capfd.readouterr().err == "\x1b[2Kprogress 40%\n"
    with pytest.raises(KeyError), library_messages():
        raise KeyError
    os.write(2, b"heard\n")
    assert capfd.readouterr().err == "heard\n"


def test_reading_says_nothing_on_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    """libpng warns of chunks that come twice, libtiff of data that ends early."""
    deep = imagecodecs.png_encode(np.zeros((4, 4, 3), np.uint16))
    photo = read_image(deep[:33] + 2 * chunk(b"gAMA", struct.pack(">I", 45_455)) + deep[33:])
    assert photo.notes == ("the decoder says: PNG warning: gAMA: duplicate",)
    messages = []
    for kind in ("jpeg", "group4"):
        content = written("TIFF", Image.fromarray(corners()).convert("L" if kind == "jpeg" else "1"), compression=kind)
        at = struct.unpack_from("<I", content, 4)[0]
        for place in range(8, min(at, 60), 3):
            try:
                messages += read_image(content[:place] + b"\0\xff" + content[place + 2 :]).notes
            except ImageError as error:
                messages.append(str(error))
    assert messages
    assert not any("\n" in message for message in messages)
    assert capfd.readouterr().err == ""
