r"""EXIF and XMP data: the orientation that they ask for, and the part that TIFF files have among their own tags.

EXIF bytes begin with ``Exif\0\0`` here, whatever file they come from.
"""

import re
import struct
from typing import Any

from PIL.Image import Exif

EXIF_HEAD = b"Exif\0\0"
ORIENTATION = 0x0112

# What a TIFF file says of the photograph: description, camera, resolution, software, date, author, computer,
# rights. Its other tags say how the pixels lie in that one file.
_DESCRIBING = (270, 271, 272, 282, 283, 296, 305, 306, 315, 316, 33432)
_DIRECTORIES = (0x8769, 0x8825)  # EXIF and GPS
_INTEROPERABILITY = 0xA005
_XMP_ORIENTATION = re.compile(rb"(<tiff:Orientation>|tiff:Orientation=[\"'])([1-8])")


def reset_orientation(exif: bytes) -> tuple[int | None, bytes]:
    """Orientation that EXIF bytes ask for (1: upright; None: they say nothing), and the same bytes asking for 1.

    One number is changed where it stands: writing the tree anew would break the offsets inside maker notes.
    Bytes that cannot be understood are left as they are, and so is the image.

    Source:
        Exif 2.32, section 4.6: TIFF header, 0th IFD of 12-byte entries, tag 0x0112 of type SHORT (3).
    """
    start = len(EXIF_HEAD)
    order = {b"II": "<", b"MM": ">"}.get(exif[start : start + 2])
    if order is None:
        return None, exif
    try:
        directory = start + struct.unpack_from(order + "I", exif, start + 4)[0]
        (entries,) = struct.unpack_from(order + "H", exif, directory)
        for at in range(directory + 2, directory + 2 + 12 * entries, 12):
            tag, kind, _, orientation = struct.unpack_from(order + "HHIH", exif, at)
            if (tag, kind) == (ORIENTATION, 3):
                upright = struct.pack(order + "H", 1)
                return orientation, exif[: at + 8] + upright + exif[at + 10 :]
    except struct.error:  # cut short
        pass
    return None, exif


def reset_xmp_orientation(xmp: bytes) -> tuple[int | None, bytes]:
    """Orientation that an XMP packet asks for, and the same packet asking for 1, see :func:`reset_orientation`.

    Its length stays, so that what it says of its own size holds.

    Source:
        XMP specification, part 2, section 3.2: ``tiff:Orientation``, as an element or as an attribute.
    """
    asked = _XMP_ORIENTATION.search(xmp)
    return (None, xmp) if asked is None else (int(asked[2]), _XMP_ORIENTATION.sub(rb"\g<1>1", xmp))


def describing(tags: Exif) -> dict[int, Any]:
    """The tags that describe the photograph, EXIF and GPS directories included, without those of its file."""
    kept: dict[int, Any] = {tag: tags[tag] for tag in _DESCRIBING if tag in tags}
    for directory in _DIRECTORIES:
        content = dict(tags.get_ifd(directory))
        content.pop(_INTEROPERABILITY, None)
        if content:
            kept[directory] = content
    return kept


def exif_bytes(tags: dict[int, Any]) -> bytes | None:
    """EXIF bytes of tags as :func:`describing` gives them; None where there are none."""
    exif = Exif()
    for tag, value in tags.items():
        if tag in _DIRECTORIES:
            exif.get_ifd(tag).update(value)
        else:
            exif[tag] = value
    return exif.tobytes() if tags else None
