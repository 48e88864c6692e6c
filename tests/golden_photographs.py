"""Digests of what the shipped models make of twelve images: `python -m tests.golden_photographs` writes them anew.

A change that means to leave the results as they are leaves the digests as they are. One that improves a model renews
its lines, and says how many dB it gains.
"""

import contextlib
import hashlib
import io
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageCms

from spikingir.cli import main

GOLDEN = Path(__file__).parent / "fixtures/golden_photographs.json"

RUNS = (
    ("denoise", "denoise-gray-15", "native", "clocked", 10),
    ("denoise", "denoise-gray-15", "native", "phased", 8),
    ("denoise", "denoise-gray-25", "native", "clocked", 10),
    ("denoise", "denoise-gray-25", "torch", "phased", 4),
    ("denoise", "denoise-gray-25", "native", "phased", 8),
    ("denoise", "denoise-gray-50", "torch", "clocked", 10),
    ("denoise", "denoise-gray-50", "native", "phased", 8),
    ("dehaze", "dehaze-aodnet", "native", "clocked", 10),
    ("dehaze", "dehaze-aodnet", "torch", "clocked", 5),
)
"""Task, model, engine, schedule, time steps."""


def write_images(folder: Path) -> None:
    """Twelve small images: formats, depths, alpha, palettes, a turn, a profile."""
    generator = np.random.default_rng(0)
    ramp = np.linspace(40, 200, 20)[None, :, None] + 20 * np.sin(np.arange(16.0))[:, None, None]
    rgb = np.clip(ramp + np.array([0, 20, -20]) + generator.normal(0, 15, (16, 20, 3)), 0, 255).astype(np.uint8)
    gray, alpha = rgb[..., 0], np.arange(0, 240, 0.75).reshape(16, 20).astype(np.uint8)
    made = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    made[24:36] = bytes(12)  # the time at which it was made
    profile = bytes(made)
    turned = Image.Exif()
    turned[0x0112], turned[0x010F] = 6, "Maker"
    Image.fromarray(gray).save(folder / "gray.png")
    Image.fromarray(rgb).save(folder / "rgb.png", icc_profile=profile, dpi=(300, 300))
    Image.fromarray(np.dstack([rgb, alpha])).save(folder / "rgba.png")
    Image.fromarray(np.dstack([gray, alpha])).save(folder / "gray-alpha.png")
    Image.fromarray(gray.astype(np.uint16) * 257).save(folder / "gray-16.png")
    Image.fromarray(rgb).quantize(32).save(folder / "palette.png")
    Image.fromarray(rgb).save(folder / "turned.jpg", quality=95, exif=turned, icc_profile=profile)
    Image.fromarray(gray).save(folder / "gray.jpg", quality=90)
    Image.fromarray(rgb).save(folder / "rgb.bmp")
    Image.fromarray(rgb).save(folder / "rgb.webp", lossless=True)
    tifffile.imwrite(folder / "rgb-16.tif", rgb.astype(np.uint16) * 257, photometric="rgb")
    Image.fromarray(gray).save(folder / "gray.tif", compression="tiff_lzw", dpi=(72, 72))


def digest(path: Path) -> str:
    """Of the decoded samples, and of what stands beside them."""
    samples: NDArray[np.generic]
    with Image.open(path) as image:
        kept = [image.info.get("icc_profile", b""), image.getexif().tobytes(), repr(image.info.get("dpi")).encode()]
        samples = np.array(image)
    if path.suffix == ".tif":
        samples = tifffile.imread(path)
    head = f"{samples.dtype} {samples.shape}".encode()
    return hashlib.sha256(b"\0".join([head, samples.tobytes(), *kept])).hexdigest()[:16]


def digests() -> Iterator[tuple[str, str]]:
    """Digest of each result by ``model engine schedule T name``."""
    with tempfile.TemporaryDirectory() as name:
        images = Path(name) / "images"
        images.mkdir()
        write_images(images)
        for number, (task, model, engine, schedule, time_steps) in enumerate(RUNS):
            out = Path(name) / str(number)
            how = ("--model", model, "--engine", engine, "--schedule", schedule, "--time-steps", str(time_steps))
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                main([task, str(images), "-o", str(out), *how, "--quiet"])
            for path in sorted(out.iterdir()):
                yield f"{model} {engine} {schedule} {time_steps} {path.name}", digest(path)


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(dict(digests()), indent=0) + "\n", encoding="utf-8")
