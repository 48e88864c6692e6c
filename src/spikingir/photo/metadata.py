r"""EXIF and XMP data: what is kept of them, and what no longer holds of a restored photograph.

EXIF data and TIFF files are directories of the same form. Their entries are copied as they are, bytes in the order of
the file, so that no text and no number is written anew. EXIF bytes begin with ``Exif\0\0`` here, whatever file they
come from.

Source:
    TIFF 6.0, section 2; Exif 2.32, section 4.6.
"""

import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias
from xml.parsers import expat

EXIF_HEAD = b"Exif\0\0"
ORIENTATION = 0x0112
_WIDTHS, _HEIGHTS = (0x0100, 0xA002), (0x0101, 0xA003)  # of the image, and PixelXDimension and PixelYDimension

ORDERS = {b"II": "<", b"MM": ">"}
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_WHOLE = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I"}
_LONG = 4
_EXIF, _GPS, _INTEROPERABILITY = 0x8769, 0x8825, 0xA005
_THUMBNAIL = ((0x0201, 0x0202), (273, 279))  # where its data lies, and how long it is: as JPEG, in strips

# What a TIFF file says of the photograph; its other tags say how the pixels lie in that one file, point to other
# pictures, or are some program's own, whose meaning may hang on what is changed.
DESCRIBING = {
    269: "DocumentName",
    270: "ImageDescription",
    271: "Make",
    272: "Model",
    282: "XResolution",
    283: "YResolution",
    285: "PageName",
    296: "ResolutionUnit",
    305: "Software",
    306: "DateTime",
    315: "Artist",
    316: "HostComputer",
    18246: "Rating",
    18249: "RatingPercent",
    33432: "Copyright",
    33550: "ModelPixelScale",
    33922: "ModelTiepoint",
    34264: "ModelTransformation",
    34735: "GeoKeyDirectory",
    34736: "GeoDoubleParams",
    34737: "GeoAsciiParams",
    40091: "XPTitle",
    40092: "XPComment",
    40093: "XPAuthor",
    40094: "XPKeywords",
    40095: "XPSubject",
    42112: "GDAL metadata",
    _EXIF: "EXIF data",
    _GPS: "GPS data",
}


@dataclass(frozen=True)
class Entry:
    """A value in a directory.

    Attributes:
        kind: Number of its type.
        count: How many values of that type it has.
        data: Their bytes, in the order of the file.
    """

    kind: int
    count: int
    data: bytes


Directory: TypeAlias = Mapping[int, "Entry | Directory"]


def read_directory(content: bytes, at: int, order: str) -> tuple[dict[int, Entry], int]:
    """Entries of a directory by tag, the first of each, and where the next directory is (0: nowhere).

    Entries of unknown types, and those that reach beyond the content, are left out.

    Raises:
        ValueError: The directory is cut short, or its entries share the same bytes over and over.
    """
    entries: dict[int, Entry] = {}
    try:
        (count,) = struct.unpack_from(f"{order}H", content, at)
        following = struct.unpack_from(f"{order}I", content.ljust(at + 6 + 12 * count, b"\0"), at + 2 + 12 * count)[0]
        total = 0
        for place in range(at + 2, at + 2 + 12 * count, 12):
            tag, kind, values, offset = struct.unpack_from(f"{order}HHII", content, place)
            size = _SIZES.get(kind, 0) * values
            start = place + 8 if size <= 4 else offset
            if tag in entries or not 0 < size <= len(content) - start:
                continue
            total += size
            if total > len(content):
                raise ValueError("its tags share their bytes")
            entries[tag] = Entry(kind, values, content[start : start + size])
    except struct.error:
        raise ValueError("a directory of tags is cut short") from None
    return entries, following


def read_tree(content: bytes, at: int, order: str) -> tuple[dict[int, "Entry | Directory"], int]:
    """As :func:`read_directory`, with the EXIF, GPS and interoperability directories below it.

    Raises:
        ValueError: One of them is damaged.
    """
    entries, following = read_directory(content, at, order)
    tree: dict[int, Entry | Directory] = dict(entries)
    for tag in (_EXIF, _GPS):
        if tag in entries:
            below: dict[int, Entry | Directory] = dict(
                read_directory(content, numbers(entries[tag], order)[0], order)[0]
            )
            pointer = below.get(_INTEROPERABILITY)
            if isinstance(pointer, Entry):
                below[_INTEROPERABILITY] = read_directory(content, numbers(pointer, order)[0], order)[0]
            tree[tag] = below
    return tree, following


def write_directory(directory: Directory, at: int, order: str) -> bytes:
    """A directory that begins at byte ``at``, with the data of its entries and the directories below it.

    Raises:
        ValueError: It would reach beyond 4 GiB, where the format ends.
    """
    start = at + 6 + 12 * len(directory)
    head, body = struct.pack(f"{order}H", len(directory)), b""
    try:
        for tag, value in sorted(directory.items()):
            here = start + len(body)
            if isinstance(value, Entry):
                kind, count, data = value.kind, value.count, value.data
                field = data.ljust(4, b"\0") if len(data) <= 4 else struct.pack(f"{order}I", here)
            else:
                kind, count, data = _LONG, 1, write_directory(value, here, order)
                field = struct.pack(f"{order}I", here)
            head += struct.pack(f"{order}HHI", tag, kind, count) + field
            if len(data) > 4:
                body += data + bytes(len(data) % 2)
    except struct.error:
        raise ValueError("a TIFF file ends at 4 GiB") from None
    return head + bytes(4) + body


def numbers(entry: Entry, order: str) -> tuple[int, ...]:
    """Whole numbers of an entry.

    Raises:
        ValueError: It holds something else.
    """
    if entry.kind not in _WHOLE:
        raise ValueError(f"a tag is of type {entry.kind} where whole numbers belong")
    return struct.unpack(f"{order}{entry.count}{_WHOLE[entry.kind]}", entry.data)


def describing(tree: Directory) -> dict[int, "Entry | Directory"]:
    """The tags that describe the photograph."""
    return {tag: value for tag, value in tree.items() if tag in DESCRIBING}


def exif_of(tree: Directory, order: str) -> bytes | None:
    """EXIF bytes with the tags of a directory; None where there are none."""
    if not tree:
        return None
    mark = b"II*\0" if order == "<" else b"MM\0*"
    return EXIF_HEAD + mark + struct.pack(f"{order}I", 8) + write_directory(tree, 8, order)


def tree_of(exif: bytes) -> tuple[dict[int, "Entry | Directory"], str]:
    """The tags in EXIF bytes, and their byte order; the inverse of :func:`exif_of`.

    Raises:
        ValueError: They are damaged.
    """
    content = exif.removeprefix(EXIF_HEAD)
    order = ORDERS.get(content[:2])
    if order is None or len(content) < 8:
        raise ValueError("EXIF data begins with a byte order")
    return read_tree(content, struct.unpack_from(f"{order}I", content, 4)[0], order)[0], order


def upright_exif(exif: bytes) -> tuple[int | None, bytes, bool]:
    """Orientation that EXIF bytes ask for, the same bytes for the upright photograph, and whether a thumbnail went.

    The orientation (1: upright; None: they say nothing) becomes 1 where it stands: writing the tree anew would break
    the offsets inside maker notes. The thumbnail shows the photograph as it was: it is blanked, and no longer pointed
    to. Bytes that cannot be understood are left as they are, and so is the image.
    """
    start = len(EXIF_HEAD)
    order = ORDERS.get(exif[start : start + 2])
    if order is None:
        return None, exif, False
    asked, changed = None, bytearray(exif)
    try:
        directory = start + struct.unpack_from(f"{order}I", exif, start + 4)[0]
        (count,) = struct.unpack_from(f"{order}H", exif, directory)
        for tag, kind, at in _single_numbers(exif, directory, order):
            if tag == ORIENTATION:
                (asked,) = struct.unpack_from(order + _WHOLE[kind], exif, at + 8)
                struct.pack_into(order + _WHOLE[kind], changed, at + 8, 1)
                break
        link = directory + 2 + 12 * count
        (following,) = struct.unpack_from(f"{order}I", exif, link)
    except struct.error:  # cut short
        return asked, bytes(changed), False
    if not following:
        return asked, bytes(changed), False
    struct.pack_into(f"{order}I", changed, link, 0)
    try:
        entries, _ = read_directory(exif[start:], following, order)
        pieces = [
            piece
            for begins, lengths in _THUMBNAIL
            if begins in entries and lengths in entries
            for piece in zip(numbers(entries[begins], order), numbers(entries[lengths], order), strict=False)
        ]
    except ValueError:
        pieces = []
    for begin, length in pieces:
        begin, end = start + begin, min(start + begin + length, len(changed))
        if end == len(changed) and begin > link + 4:
            del changed[begin:]
        elif begin > link + 4:
            changed[begin:end] = bytes(max(0, end - begin))
    return asked, bytes(changed), True


def _single_numbers(exif: bytes, directory: int, order: str) -> Iterator[tuple[int, int, int]]:
    """Tag, type and place of each entry of a directory that holds one whole number.

    Raises:
        struct.error: The directory is cut short.
    """
    (count,) = struct.unpack_from(f"{order}H", exif, directory)
    for at in range(directory + 2, directory + 2 + 12 * count, 12):
        tag, kind, values = struct.unpack_from(f"{order}HHI", exif, at)
        if kind in _WHOLE and values == 1:
            yield tag, kind, at


def sized_exif(exif: bytes, width: int, height: int) -> bytes:
    """EXIF bytes that give this size of the photograph, where they give one.

    The numbers change where they stand, see :func:`upright_exif`. Bytes that cannot be understood are left as they are.
    """
    start = len(EXIF_HEAD)
    order = ORDERS.get(exif[start : start + 2])
    if order is None:
        return exif
    changed = bytearray(exif)
    try:
        directories = [start + struct.unpack_from(f"{order}I", exif, start + 4)[0]]
        for directory in directories:
            for tag, _, at in _single_numbers(exif, directory, order):
                if tag in _WIDTHS + _HEIGHTS:  # may be of 16 or 32 bits
                    struct.pack_into(f"{order}HII", changed, at + 2, _LONG, 1, width if tag in _WIDTHS else height)
                elif tag == _EXIF and len(directories) == 1:
                    directories.append(start + struct.unpack_from(f"{order}I", exif, at + 8)[0])
    except struct.error:  # cut short
        return exif
    return bytes(changed)


_XMP_ORIENTATION = re.compile(rb"(<tiff:Orientation>|tiff:Orientation=[\"'])([1-8])")


def reset_xmp_orientation(xmp: bytes) -> tuple[int | None, bytes]:
    """Orientation that an XMP packet asks for, and the same packet asking for 1, see :func:`upright_exif`.

    Its length stays, so that what it says of its own size holds.

    Source:
        XMP specification, part 2, section 3.2: ``tiff:Orientation``, as an element or as an attribute.
    """
    asked = _XMP_ORIENTATION.search(xmp)
    return (None, xmp) if asked is None else (int(asked[2]), _XMP_ORIENTATION.sub(rb"\g<1>1", xmp))


_XMP_SIZE = re.compile(rb"((?:<|\s)(?:tiff:Image|exif:Pixel)(Width|Length|XDimension|YDimension)(?:>|\s*=\s*[\"']))\d+")


def sized_xmp(xmp: bytes, width: int, height: int) -> bytes:
    """The same XMP packet with this size of the photograph, where it gives one.

    Source:
        XMP specification, part 2, sections 3.2 and 3.3: ``tiff:ImageWidth`` and ``ImageLength``,
        ``exif:PixelXDimension`` and ``PixelYDimension``.
    """
    wide = (b"Width", b"XDimension")
    return _XMP_SIZE.sub(lambda found: found[1] + b"%d" % (width if found[2] in wide else height), xmp)


# What is said in XMP of other pictures in the file, by the beginning of the namespace. Only the first picture is kept.
_CLAIMS = (
    (b"http://ns.adobe.com/hdr-gain-map/", rb"[\w.-]+", "a gain map"),
    (b"http://ns.apple.com/HDRGainMap/", rb"[\w.-]+", "a gain map"),
    (b"http://ns.apple.com/pixeldatainfo/", rb"[\w.-]+", "a gain map"),
    (b"http://ns.google.com/photos/1.0/container/", rb"[\w.-]+", "other pictures in the file"),
    (b"http://ns.google.com/photos/1.0/depthmap/", rb"[\w.-]+", "a depth map"),
    (b"http://ns.google.com/photos/dd/", rb"[\w.-]+", "a depth map"),
    (b"http://ns.google.com/photos/1.0/image/", rb"[\w.-]+", "a second picture"),
    (b"http://ns.google.com/photos/1.0/audio/", rb"[\w.-]+", "a sound"),
    (b"http://ns.google.com/photos/1.0/camera/", rb"[\w.-]+", "a film"),
    (b"http://ns.adobe.com/xmp/note/", rb"HasExtendedXMP", "more XMP data"),
    (b"http://ns.adobe.com/xap/1.0/", rb"Thumbnails", "a thumbnail"),
)
_MOST_CLAIMS = 50  # each takes a pass
_NAMESPACE = re.compile(rb"xmlns:([\w.-]+)\s*=\s*[\"']([^\"'<>]*)[\"']")


def without_claims(xmp: bytes) -> tuple[bytes | None, tuple[str, ...]]:
    """XMP without what it says of pictures that a result does not hold, and the names of those.

    None instead of the packet where that cannot be taken out of it.
    """
    names: dict[str, None] = {}
    kept = xmp
    claims = [
        (prefix, properties, what)
        for prefix, uri in dict(_NAMESPACE.findall(xmp)).items()
        for beginning, properties, what in _CLAIMS
        if uri.startswith(beginning)
    ]
    if len(claims) > _MOST_CLAIMS:
        return None, tuple(dict.fromkeys(what for _, _, what in claims))
    for prefix, properties, what in claims:
        name = re.escape(prefix) + b":" + properties
        without = re.sub(rb"\s" + name + rb"\s*=\s*(?:\"[^\"]*\"|'[^']*')", b"", kept)
        without = b"".join(_outside(without, re.compile(rb"<(" + name + rb")(?:\s[^<>]*?)?(/?)>")))
        if without != kept:
            names[what] = None
        kept = without
    if not names:
        return xmp, ()
    try:
        expat.ParserCreate().Parse(kept.strip(b"\0"), True)
    except expat.ExpatError:
        return None, tuple(names)
    return kept, tuple(names)


def _outside(content: bytes, element: re.Pattern[bytes]) -> Iterator[bytes]:
    """The pieces of XML that are outside of all elements of some names."""
    at = 0
    while (found := element.search(content, at)) is not None:
        yield content[at : found.start()]
        at = found.end()
        if not found[2]:
            close = b"</" + found[1] + b">"
            end = content.find(close, at)
            at = len(content) if end < 0 else end + len(close)
    yield content[at:]
