"""Image files with parts changed, cut, moved or doubled: an image error, or the pixels that another decoder sees.

As a script, ``python -m tests.photo.test_mutations 10000`` tries that many files in processes of their own, and
names those that crash, take more than 5 seconds, write to standard error, or differ from another decoder.
"""

import faulthandler
import io
import struct
import subprocess
import sys
import warnings
import zlib
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import imagecodecs
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from spikingir.photo.codecs import encode, library_messages
from spikingir.photo.formats import FORMATS
from spikingir.photo.images import ImageError, read_image
from spikingir.photo.photo import Photo
from tests.photo.test_tiff import KEPT, KINDS, Kind

MOST_PIXELS = 20_000_000
SECONDS = 5
NEAR = 2 / 255  # of two decoders of JPEG


def _pillow(kind: str, image: Image.Image, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@cache
def specimens() -> tuple[bytes, ...]:
    """Small files of every format, many with metadata."""
    colours = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 24, 3), np.uint8))
    smooth = colours.resize((40, 40), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Maker"
    exif.get_ifd(0x8769)[0x829A] = 0.25
    data = exif.tobytes()
    found = [kind.content() for kind in KINDS[::37]] + [Kind(2, others=KEPT).content()]
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
        image = smooth.convert("L" if mode in ("1", "I;16") else "RGB").convert(mode.replace("I;16", "I"))
        image = image.convert("I;16") if mode == "I;16" else image
        found += [_pillow("PNG", image), _pillow("PNG", image, exif=data)]
        if mode not in ("LA", "I;16"):
            found.append(_pillow("BMP", image))
    found.append(_pillow("PNG", smooth.convert("L"), transparency=100))
    found.append(_pillow("PNG", smooth, save_all=True, append_images=[colours.resize((40, 40))]))
    for bits, channels in ((16, 1), (16, 3)):
        values = np.random.default_rng(1).random((9, 12, channels), np.float32)
        alpha = np.random.default_rng(2).random((9, 12), np.float32)
        for opacity in (None, alpha):
            photo = Photo(values, opacity, bits, exif=data, xmp=b'<x xmlns:tiff="t" tiff:Orientation="3"/>')
            found += [encode(photo, FORMATS[name])[0] for name in ("png", "tiff")]
    for options in ({}, {"progressive": True}, {"subsampling": 0, "exif": data}, {"quality": 20, "comment": b"x"}):
        found += [_pillow("JPEG", smooth, **options), _pillow("JPEG", smooth.convert("L"), **options)]
    found.append(_pillow("JPEG", smooth.convert("CMYK")))
    found.append(_pillow("MPO", smooth, save_all=True, append_images=[colours]))
    for options in ({}, {"lossless": True}, {"exif": data}, {"lossless": True, "exif": data}):
        found += [_pillow("WebP", smooth, **options), _pillow("WebP", smooth.convert("RGBA"), **options)]
    found.append(_pillow("WebP", smooth, save_all=True, append_images=[colours.resize((40, 40))]))
    for compression in ("tiff_lzw", "jpeg", "packbits"):
        found.append(_pillow("TIFF", smooth, compression=compression))
    found.append(_pillow("TIFF", smooth.convert("1"), compression="group4"))
    found.append(_pillow("TIFF", smooth.convert("YCbCr"), compression="raw"))
    return tuple(found)


def mutated(seed: int) -> bytes:
    """A specimen with a few changes, the same for the same seed; chunks of PNG files mostly get right checksums."""
    generator = np.random.default_rng(seed)
    content = bytearray(specimens()[generator.integers(len(specimens()))])
    for _ in range(generator.integers(1, 3)):
        size = len(content)
        at = int(generator.integers(size if generator.random() < 0.4 else min(size, 250)))
        span = int(generator.integers(1, 40))
        kind = generator.integers(9)
        if kind in (0, 1, 2, 7, 8):
            content[at] = int(generator.choice([0, 1, 2, 3, 6, 8, 16, 127, 128, 255, int(generator.integers(256))]))
        elif kind == 3:
            content[at : at + 4] = struct.pack("<I", int(generator.choice([0, 1, size, 2**16, 2**31 - 1, 2**32 - 1])))
        elif kind == 4:
            content[at : at + span] = b""
        elif kind == 5:
            content[at:at] = content[at : at + span]
        elif generator.random() < 0.3:
            del content[at + 1 :]
        else:
            other = int(generator.integers(size))
            content[at : at + span] = content[other : other + span]
        if not content:
            return b""
    if content.startswith(b"\x89PNG\r\n\x1a\n") and generator.random() < 0.8:
        at = 8
        while at + 12 <= len(content):
            end = at + 8 + int.from_bytes(content[at : at + 4], "big")
            if end + 4 > len(content):
                break
            content[end : end + 4] = struct.pack(">I", zlib.crc32(content[at + 4 : end]))
            at = end + 4
    return bytes(content)


def _other(content: bytes) -> NDArray[np.float64] | None:
    """The pixels that another decoder sees, in [0, 1], if it reads the file and means the same by its pixels."""
    readers: dict[bytes, Callable[[bytes], NDArray[np.integer]]] = {
        b"\x89P": imagecodecs.png_decode,
        b"\xff\xd8": imagecodecs.jpeg8_decode,
        b"RI": imagecodecs.webp_decode,
        b"II": imagecodecs.tiff_decode,
        b"MM": imagecodecs.tiff_decode,
        b"BM": imagecodecs.bmp_decode,
    }
    try:
        samples = np.asarray(readers[content[:2]](content))
    except (KeyError, ValueError, RuntimeError, OSError, NotImplementedError, MemoryError, IndexError):
        return None
    if samples.dtype not in (np.uint8, np.uint16):
        return None
    values = samples / np.iinfo(samples.dtype).max
    return values.reshape(*values.shape[:2], -1) if values.ndim in (2, 3) else None


def _differs(content: bytes, photo: Photo) -> bool:
    """Whether another decoder sees other pixels, whichever way it is turned."""
    with library_messages(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        head, seen = content[:2], _other(content)
        if seen is not None and head in (b"II", b"MM"):
            seen = _tiff_colours(content, seen)
    if seen is None:
        return False
    ours = photo.pixels.astype(np.float64)
    if photo.alpha is not None:
        ours = np.concatenate([ours, photo.alpha[..., None]], 2)
    if head in (b"II", b"MM"):
        ours = ours[..., : seen.shape[2]]
    if head == b"\xff\xd8" and seen.shape[2] == 4:
        return False  # CMYK, which is not turned into RGB there
    if head == b"RI" and ours.shape[2] != seen.shape[2]:
        ours, seen = ours[..., :3], seen[..., :3]
    if head == b"BM" and ours.shape[2] != seen.shape[2]:
        ours, seen = np.broadcast_to(ours, (*ours.shape[:2], 3)), np.broadcast_to(seen, (*seen.shape[:2], 3))
    limit = NEAR if head == b"\xff\xd8" else 0.51 / 255
    for turned in (ours, ours.swapaxes(0, 1)):
        for flipped in (turned, turned[::-1], turned[:, ::-1], turned[::-1, ::-1]):
            if flipped.shape == seen.shape and np.abs(flipped - seen).max(initial=0) <= limit:
                return False
    return True


def _tiff_colours(content: bytes, seen: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Colours of the samples that libtiff gives, where the file holds plain gray or RGB of 8 or 16 bits."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            tags = dict(image.tag_v2)
    except Exception:  # Pillow raises whatever its parsers came across
        return None
    photometric, extra = tags.get(262), tags.get(338, ())
    if photometric not in (0, 1, 2) or set(tags.get(258, (1,))) - {8, 16} or 1 in np.atleast_1d(extra):
        return None
    if tags.get(284, 1) == 2 and seen.shape[:2] != (tags[257], tags[256]):
        seen = np.moveaxis(seen, 0, 2)
    colours = seen[..., : 3 if photometric == 2 else 1]
    return 1 - colours if photometric == 0 else colours


def outcome(seed: int) -> str:
    """``refused``, ``read``, or what is wrong."""
    content = mutated(seed)
    try:
        photo = read_image(content, max_pixels=MOST_PIXELS)
    except ImageError as error:
        text = str(error)
        sentence = text.isprintable() and len(text) < 1000 and (";" in text or ":" in text)
        return "refused" if sentence else f"no sentence: {text!r}"
    if not all(note.isprintable() for note in photo.notes):
        return f"no sentence: {photo.notes}"
    encode(photo, FORMATS["tiff"])
    return "differs" if _differs(content, photo) else "read"


def test_specimens_are_read_and_other_decoders_agree() -> None:
    compared = 0
    for number, content in enumerate(specimens()):
        photo = read_image(content)
        assert not _differs(content, photo), number
        compared += _differs(content, replace(photo, samples=1 - photo.pixels))
    assert compared > len(specimens()) / 2


def test_some_mutations(capfd: pytest.CaptureFixture[str]) -> None:
    found = [outcome(seed) for seed in range(400)]
    assert set(found) == {"refused", "read"}, [i for i, what in enumerate(found) if what not in ("refused", "read")]
    assert capfd.readouterr().err == ""


def _try_all(first: int, count: int) -> None:
    for seed in range(first, first + count):
        faulthandler.dump_traceback_later(SECONDS, exit=True)
        print(seed, outcome(seed), flush=True)
    faulthandler.cancel_dump_traceback_later()


def main(count: int, first: int = 0, together: int = 500) -> int:
    """Try files in processes of ``together``; print what is wrong, and how many were read and refused."""
    found: dict[str, int] = {}
    seed, end, wrong = first, first + count, 0
    while seed < end:
        size = min(together, end - seed)
        command = [sys.executable, "-m", "tests.photo.test_mutations", "--one", str(seed), str(size)]
        run = subprocess.run(command, check=False, capture_output=True, text=True)
        for line in run.stdout.splitlines():
            _, _, what = line.partition(" ")
            found[what] = found.get(what, 0) + 1
            if what not in ("read", "refused"):
                print(line)
                wrong += 1
        done = len(run.stdout.splitlines())
        if run.returncode or run.stderr:
            print(f"process of {seed + done} ended with {run.returncode}: {run.stderr[-1500:]}")
            wrong += 1
            done += run.returncode != 0
        seed += max(1, done)
    print(found)
    return int(wrong > 0)


if __name__ == "__main__":
    if sys.argv[1] == "--one":
        _try_all(int(sys.argv[2]), int(sys.argv[3]))
    else:
        sys.exit(main(*map(int, sys.argv[1:])))
