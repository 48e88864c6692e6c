"""What lies in PNG, JPEG, WebP and BMP files beside the pixels, found before a decoder sees the file.

Whatever a result will not hold is named, and what would make the decoder work without end is refused.
"""

import re
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

from spikingir.photo.formats import RAISE_LIMIT, ImageError
from spikingir.photo.metadata import EXIF_HEAD

SCANS = 12
"""How often a JPEG of the most pixels that are read may go over all of them; libjpeg's progressive files do so 10."""

_MOST_METADATA = 2**26  # bytes that the compressed metadata of a file may unpack to
_MOST_PIECES, _PIECE = 10_000, 256  # pieces that a file may have, and one more for each so many bytes
_DEFLATE = 1032  # bytes that one byte can unpack to
_XMP_NAME = b"http://ns.adobe.com/xap/1.0/\0"


@dataclass
class Parts:
    """A file taken apart.

    Attributes:
        content: What the decoder gets.
        exif: EXIF bytes, or None.
        icc: ICC profile, or None.
        xmp: XMP packet, or None.
        lost: What a result will not hold, in words.
        lossless: Whether the file is a WebP file without loss.
        pictures: How many pictures the file holds, where that is known.
        marks: Kinds of the pieces that were seen.
        pieces: How many pieces were seen.
        room: Bytes that further metadata may unpack to.
    """

    content: bytes
    exif: bytes | None = None
    icc: bytes | None = None
    xmp: bytes | None = None
    lost: list[str] = field(default_factory=list)
    lossless: bool = False
    pictures: int = 1
    marks: set[bytes] = field(default_factory=set)
    pieces: int = 0
    room: int = _MOST_METADATA

    def count_piece(self) -> None:
        """Count one more.

        Raises:
            ValueError: They are too many for the length of the file, and going through them would take its time.
        """
        self.pieces += 1
        if self.pieces > _MOST_PIECES + len(self.content) // _PIECE:
            raise ValueError("it falls into too many pieces")

    def inflate(self, data: bytes) -> bytes | None:
        """What is unpacked from ``data``; None where it is damaged, or beyond all measure."""
        unpacker = zlib.decompressobj()
        try:
            unpacked = unpacker.decompress(data, self.room + 1)
        except zlib.error:
            return None
        self.room = max(0, self.room - len(unpacked))
        return unpacked if unpacker.eof and self.room else None


def lost_note(lost: list[str]) -> tuple[str, ...]:
    """The note that names what is dropped, if anything is."""
    named = list(dict.fromkeys(lost))
    if len(named) > 8:
        named = [*named[:8], f"{len(named) - 8} more"]
    return (f"dropped: {', '.join(named)}",) if named else ()


def readable(text: str, most: int = 40) -> str:
    """A text of a file, fit for one line of a message."""
    line = "".join(letter if letter.isprintable() else "?" for letter in " ".join(text.split()))
    return line if len(line) <= most else line[: most - 3] + "..."


# PNG

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_DROPPED = {
    b"bKGD": "background colour",
    b"cHRM": "primary colours",
    b"cICP": "colour space of video",
    b"caBX": "content credentials",
    b"cLLI": "light levels",
    b"hIST": "histogram",
    b"mDCV": "light levels",
    b"sBIT": "significant bits",
    b"sPLT": "suggested palette",
    b"tIME": "time of the last change",
}
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}


def png_chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG file."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def open_png(content: bytes, check_size: Callable[[int, int], None]) -> Parts:
    """Take a PNG file apart; the decoder gets its header, palette, transparency, gamma and pixels alone.

    Args:
        content: The file.
        check_size: Refuses a size that is too large.

    Raises:
        ValueError: The file is damaged.

    Source:
        PNG specification, third edition; ``Raw profile type`` texts as ImageMagick and ExifTool write them.
    """
    parts = Parts(content)
    pieces, at, size = [_PNG_SIGNATURE], len(_PNG_SIGNATURE), 0
    width = height = depth = colour = 0
    texts: dict[str, bytes] = {}
    while b"IEND" not in parts.marks and at + 8 <= len(content):
        parts.count_piece()
        length, kind = struct.unpack_from(">I4s", content, at)
        whole = content[at : at + 12 + length]
        data, at = whole[8 : 8 + length], at + 12 + length
        critical = not kind[0] & 0x20
        if (kind == b"IHDR") != (not parts.marks):
            raise ValueError("its first chunk, and no other, is the header")
        if len(whole) < 12 + length and not critical:
            break
        parts.marks.add(kind)
        if kind == b"IHDR":
            width, height, depth, colour = struct.unpack_from(">IIBB", data)
            check_size(width, height)
        if kind == b"tRNS":
            whole = png_chunk(kind, _transparent(data, depth, colour))
        if critical or kind in (b"tRNS", b"gAMA"):
            size += length if kind == b"IDAT" else 0
            pieces.append(whole)
        elif zlib.crc32(whole[4:-4]) != struct.unpack(">I", whole[-4:])[0]:
            parts.lost.append(f"a damaged {readable(kind.decode('latin-1'))} chunk")
        elif kind == b"eXIf":
            parts.exif = EXIF_HEAD + data.removeprefix(EXIF_HEAD)
        elif kind == b"iCCP":
            parts.icc = parts.icc or parts.inflate(data.partition(b"\0")[2][1:])
            if parts.icc is None:
                parts.lost.append("a damaged colour profile")
        elif kind in (b"tEXt", b"zTXt", b"iTXt"):
            _png_text(kind, data, texts, parts)
        elif kind == b"acTL":
            parts.pictures = int.from_bytes(data[:4], "big")
        elif kind == b"pHYs":
            if _means(int.from_bytes(data[:4], "big")):
                parts.lost.append("resolution")
        elif kind in _PNG_DROPPED:
            parts.lost.append(_PNG_DROPPED[kind])
        elif kind not in (b"sRGB", b"fcTL", b"fdAT"):
            parts.lost.append(f"the chunk {readable(kind.decode('latin-1'))}")
    if at < len(content) and content[at:].strip(b"\0"):
        parts.lost.append("what follows its end")
    if height * (width * depth * _PNG_CHANNELS.get(colour, 1) // 8) > _DEFLATE * size:
        raise ValueError("its pixels are cut short")
    for name, raw in texts.items():
        _raw_profile(name, raw, parts)
    parts.content = b"".join(pieces)
    return parts


def _transparent(data: bytes, depth: int, colour: int) -> bytes:
    """The transparent colour as decoders of 8 bits compare it: only the bits of a sample count."""
    if colour == 3 or depth > 8:
        return data
    keys = struct.unpack(f">{len(data) // 2}H", data[: len(data) // 2 * 2])
    return struct.pack(f">{len(keys)}H", *((key & (2**depth - 1)) * 255 // (2**depth - 1) for key in keys))


def _png_text(kind: bytes, data: bytes, texts: dict[str, bytes], parts: Parts) -> None:
    keyword, _, rest = data.partition(b"\0")
    name = keyword.decode("latin-1")
    wanted = name == "XML:com.adobe.xmp" or name.startswith("Raw profile type ")
    if not wanted:
        parts.lost.append(f"the text {readable(name)}")
        return
    packed = kind == b"zTXt" or (kind == b"iTXt" and rest[:1] == b"\1")
    if kind == b"zTXt":
        rest = rest[1:]
    elif kind == b"iTXt":
        rest = rest[2:].partition(b"\0")[2].partition(b"\0")[2]
    text = parts.inflate(rest) if packed else rest
    if text is None:
        parts.lost.append(f"the damaged text {readable(name)}")
    elif name == "XML:com.adobe.xmp":
        parts.xmp = parts.xmp or text
    else:
        texts.setdefault(name, text)


def _raw_profile(name: str, raw: bytes, parts: Parts) -> None:
    kind = name.removeprefix("Raw profile type ").lower()
    fields = raw.split(None, 2)
    try:
        data = bytes.fromhex(fields[2].decode("ascii"))[: int(fields[1])]
    except (IndexError, ValueError):
        parts.lost.append(f"the damaged text {readable(name)}")
        return
    if data.startswith(_XMP_NAME) or kind == "xmp":
        parts.xmp = parts.xmp or data.removeprefix(_XMP_NAME)
    elif kind in ("exif", "app1"):
        parts.exif = parts.exif or EXIF_HEAD + data.removeprefix(EXIF_HEAD)
    elif kind in ("icc", "icm"):
        parts.icc = parts.icc or data
    else:
        parts.lost.append("IPTC data" if kind in ("iptc", "8bim") else f"the text {readable(name)}")


# JPEG

_MARKER = re.compile(rb"\xff+([\x01-\xcf\xd8-\xfe])")
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_SOI, _EOI, _SOS, _COM, _APP0 = 0xD8, 0xD9, 0xDA, 0xFE, 0xE0
_SEGMENTS = (
    (0xE0, b"JFIF\0", ""),
    (0xE0, b"JFXX\0", "a thumbnail"),
    (0xE1, EXIF_HEAD, ""),
    (0xE1, _XMP_NAME, ""),
    (0xE1, b"http://ns.adobe.com/xmp/extension/\0", "the XMP data beyond 64 KB"),
    (0xE2, b"ICC_PROFILE\0", ""),
    (0xE2, b"MPF\0", "all of its pictures but the first (a gain map, depth map or second view)"),
    (0xE2, b"urn:iso:std:iso:ts:21496:-1", "a gain map"),
    (0xEB, b"JP", "content credentials or other JUMBF data"),
    (0xED, b"Photoshop 3.0\0", "Photoshop and IPTC data"),
    (0xEE, b"Adobe", ""),
)


def open_jpeg(content: bytes, max_pixels: int) -> Parts:
    """Look through a JPEG file, which the decoder gets as it is.

    Args:
        content: The file.
        max_pixels: Largest image that is read; its pixels times ``SCANS`` bound the work of all scans.

    Raises:
        ImageError: It goes over its pixels too often.
        ValueError: It falls into too many pieces.

    Source:
        ITU-T T.81, annex B.
    """
    parts, at, scans, pixels = Parts(content), 2, 0, 0
    while (found := _MARKER.search(content, at)) is not None:
        parts.count_piece()
        marker, at = found[1][0], found.end()
        if marker == _EOI:
            break
        if marker == _SOI or marker == 1:
            continue
        length = int.from_bytes(content[at : at + 2], "big")
        data, at = content[at + 2 : at + min(length, 64)], at + max(2, length)
        if marker in _FRAMES and len(data) >= 5:
            pixels = int.from_bytes(data[1:3], "big") * int.from_bytes(data[3:5], "big")
        elif marker == _SOS:
            scans += 1
        elif marker == _COM:
            parts.lost.append("a comment")
        elif _APP0 <= marker < _APP0 + 16:
            what = next((what for at_, head, what in _SEGMENTS if at_ == marker and data.startswith(head)), None)
            if what is None:
                name = readable(data.partition(b"\0")[0].decode("latin-1"), 20)
                what = f"APP{marker - _APP0} data ({name})"
            if what:
                parts.lost.append(what)
            dots = int.from_bytes(data[8:10], "big")
            if marker == _APP0 and _means({b"\1": dots / 0.0254, b"\2": dots * 100}.get(data[7:8], 0)):
                parts.marks.add(b"JFIF resolution")
            if data.startswith(EXIF_HEAD):
                parts.marks.add(b"Exif")
    if b"JFIF resolution" in parts.marks and b"Exif" not in parts.marks:
        parts.lost.append("resolution")
    if content[at:].strip(b"\0") and not any(what.startswith("all of its pictures") for what in parts.lost):
        parts.lost.append("what follows its end")
    if pixels <= max_pixels and scans * pixels > SCANS * max_pixels:
        raise ImageError(
            f"it goes over its {pixels / 1e6:.3g} megapixels {scans} times; expected at most "
            f"{SCANS * max_pixels // pixels} times: save it anew as a plain JPEG, {RAISE_LIMIT}"
        )
    return parts


def jpeg_frame(content: bytes) -> tuple[int, int, int] | None:
    """Width, height and channels of JPEG data, of which a file may hold several; None where it does not say."""
    at = 2
    while (found := _MARKER.search(content, at)) is not None and found[1][0] != _SOS:
        at = found.end()
        if found[1][0] in _FRAMES and at + 8 <= len(content):
            height, width, channels = struct.unpack_from(">HHB", content, at + 3)
            return width, height, channels
        if found[1][0] not in (1, _SOI):
            at += max(2, int.from_bytes(content[at : at + 2], "big"))
    return None


# WebP

_WEBP_KNOWN = (b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF", b"ICCP", b"EXIF", b"XMP ")


def open_webp(content: bytes) -> Parts:
    """Look through a WebP file, which the decoder gets as it is.

    Raises:
        ValueError: It falls into too many pieces.

    Source:
        RFC 9649, section 2.
    """
    parts, at = Parts(content), 12
    while at + 8 <= len(content):
        parts.count_piece()
        kind, length = struct.unpack_from("<4sI", content, at)
        data_at, at = at + 8, at + 8 + length + length % 2
        image = content[data_at + 16 : data_at + 20] if kind == b"ANMF" else kind
        if not parts.marks & {b"VP8 ", b"VP8L"} and image in (b"VP8 ", b"VP8L", b"ALPH"):
            parts.lossless = image == b"VP8L"
            parts.marks.add(b"VP8 " if image == b"ALPH" else image)
        if kind not in _WEBP_KNOWN:
            parts.lost.append(f"the chunk {readable(kind.decode('latin-1'))}")
    return parts


# BMP

_BMP_V5 = 124


def open_bmp(content: bytes) -> Parts:
    """Look through a BMP file, which the decoder gets as it is.

    Raises:
        ValueError: The rows of an uncompressed one cannot all be there.

    Source:
        BITMAPV5HEADER in the documentation of Windows.
    """
    parts = Parts(content)
    (header,) = struct.unpack_from("<I", content, 14)
    if header < 40:
        return parts
    width, height, _, bits, compression, _, across = struct.unpack_from("<iiHHIIi", content, 18)
    if compression in (0, 3) and abs(height) * ((abs(width) * bits + 31) // 32 * 4) > len(content):
        raise ValueError("its pixels are cut short")
    if _means(across):
        parts.lost.append("resolution")
    if header >= 108:
        space = content[14 + 56 : 14 + 60]
        if space == b"DEBM" and header == _BMP_V5:  # MBED, as a number from its other end
            at, size = struct.unpack_from("<II", content, 14 + 112)
            parts.icc = content[14 + at : 14 + at + size] or None
        elif space == b"KNIL":
            parts.lost.append("the link to its colour profile")
        elif space == bytes(4) and any(content[14 + 60 : 14 + 108]):
            parts.lost.append("primary colours and gamma")
    return parts


def _means(per_metre: float) -> bool:
    """Whether a resolution is more than what programs write that know none: 72 or 96 dots per inch."""
    return per_metre > 0 and all(abs(per_metre - dots / 0.0254) > 1.01 for dots in (72, 96))
