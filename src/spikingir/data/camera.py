"""What a camera does to a photograph: noise of its sensor, noise as it leaves the camera, and JPEG.

A Gaussian denoiser fails on photographs: their noise depends on brightness, and it is correlated between pixels and
between colours. The functions here make such noise on small patches, fast enough for one processor core to train with.

Source:
    The sensor after Guo et al. 2019 (CBDNet); strengths and correlations of the camera's noise as measured on PolyU
    (Xu et al. 2018).
"""

import io
import math
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Generator

from spikingir.data.errors import DataError
from spikingir.environment import install_command

Patch = NDArray[np.float32]
"""An image (3, H, W) in [0, 1], or one channel (H, W)."""

QUALITIES = (60, 99)
"""Least and greatest JPEG quality."""

SUBSAMPLINGS = (0, 1, 2)
"""Pillow's names of 4:4:4, 4:2:2 and 4:2:0."""

_CURVES = "201_CRF_data.mat"
_MARGIN = 16  # pixels beyond a patch that a blur reads: four standard deviations of the widest


@dataclass(frozen=True)
class CameraCurves:
    """Camera response functions: brightness ``f(L)`` of irradiance ``L``, both in [0, 1], each increasing.

    Attributes:
        irradiance: Points of each curve.
        brightness: The curve there.

    Shape:
        (N, points) each.

    Raises:
        DataError: The arrays differ in shape, or a curve falls.

    Source:
        Grossberg and Nayar 2004, "Modeling the Space of Camera Response Functions" (DoRF).
    """

    irradiance: Patch
    brightness: Patch

    def __post_init__(self) -> None:
        if self.irradiance.ndim != 2 or self.irradiance.shape != self.brightness.shape:
            raise DataError(
                f"camera curves of shapes {self.irradiance.shape} and {self.brightness.shape}; expected two of one "
                "shape, (curves, points)"
            )
        if (np.diff(self.irradiance) < 0).any() or (np.diff(self.brightness) < 0).any():
            raise DataError("a camera curve falls somewhere; expected curves that rise")

    def __len__(self) -> int:
        return len(self.irradiance)

    def expose(self, which: int, light: Patch) -> Patch:
        """Brightness of irradiance, ``f(clip(L))``."""
        return cast(Patch, np.interp(light, self.irradiance[which], self.brightness[which]).astype(np.float32))

    def invert(self, which: int, brightness: Patch) -> Patch:
        """Irradiance of brightness."""
        return cast(Patch, np.interp(brightness, self.brightness[which], self.irradiance[which]).astype(np.float32))


def read_curves(folder: str | Path) -> CameraCurves:
    """Camera response functions of ``201_CRF_data.mat``: ``I`` irradiance and ``B`` brightness.

    Raises:
        DataError: scipy is missing, or the file is missing or holds something else.
    """
    path = Path(folder) / _CURVES
    try:
        scipy_io = import_module("scipy.io")
    except ModuleNotFoundError:
        command = install_command("spikingir[train]")
        raise DataError(f"{path} is read by scipy; install it with: {command}") from None
    try:
        held: dict[str, Any] = scipy_io.loadmat(path)
    except (OSError, ValueError, TypeError, scipy_io.matlab.MatReadError) as error:  # of what is no such file
        raise DataError(f"cannot read {path} ({error}); expected a MATLAB file: copy it again") from error
    if missing := [name for name in ("I", "B") if name not in held]:
        raise DataError(f"{path} holds no {' and '.join(missing)}; expected irradiance I and brightness B")
    return CameraCurves(*(np.ascontiguousarray(held[name], np.float32) for name in ("I", "B")))


def add_sensor_noise(clean: Patch, curves: CameraCurves, generator: Generator) -> Patch:
    """Noise of a sensor behind a Bayer filter, ``y = f(clip(L + demosaic(e)))`` with ``L = f^-1(x)``.

    ``e ~ N(0, sigma_s^2 L + sigma_c^2)`` in each of the mosaic's pixels, in one of four phases; ``sigma_s`` in
    [0, .16] and ``sigma_c`` in [0, .06], denser near 0. The mosaic is interpolated linearly. As that is linear, the
    noise alone goes through it: what the interpolation itself does to edges is left out, so that no noise leaves the
    image as it is. Three times in ten the noise is blurred, as cameras smooth.

    Args:
        clean: The image ``x``.
        curves: Camera response functions, one of which is drawn.
        generator: Source of the draws.

    Shape:
        (3, H, W), H and W even; in [0, 1].

    Source:
        Guo et al. 2019 (CBDNet), Section 3.1; Liu et al. 2008.
    """
    shot, read, smooth, width, *phase = torch.rand(6, generator=generator).tolist()
    which = int(torch.randint(len(curves), (), generator=generator))
    shot, read = 0.16 * shot**2, 0.06 * read**1.5
    row, column = (int(value < 0.5) for value in phase)
    light = curves.invert(which, clean)
    samples = _mosaic(light, row, column)
    noise = _normal(samples.shape, generator) * np.sqrt(shot**2 * samples + read**2)
    colours = _demosaic(noise, row, column)
    if smooth < 0.3:
        colours = _blur(colours, 0.5 + 0.5 * width)
    return curves.expose(which, light + colours)


def add_camera_noise(
    clean: Patch, generator: Generator, strength: float = 1.0, *, smooth: bool = True
) -> tuple[Patch, Patch]:
    """Noise as it leaves a camera, ``y = x + a(brightness) (luminance + chroma)``, and the target.

    The luminance field is white noise blurred by 0 to 1.1 pixels; the chroma fields Cb and Cr are blurred by .4 to 4
    and are .3 to 1.1 times as strong; wide blurs are the more frequent, as on PolyU. Each has unit variance. The
    amplitude ``a`` grows with brightness or with darkness. With ``smooth`` both images are blurred a little three
    times in ten, as cameras smooth.

    Args:
        clean: The image ``x``.
        generator: Source of the draws.
        strength: Scales the noise.
        smooth: Whether images may be blurred.

    Shape:
        (3, H, W), each.
    """
    u = torch.rand(10, generator=generator).tolist()
    brightness = clean.mean(0)
    if u[0] < 0.4:
        brightness = 1 - brightness
    amplitude = strength * (0.5 + 12 * u[1] ** 2) / 255 * np.sqrt(0.25 + 1.5 * u[2] * brightness)
    side = clean.shape[1] + 2 * _MARGIN, clean.shape[2] + 2 * _MARGIN
    white = _normal((3, *side), generator)
    coarse = 0.4 + 3.6 * math.sqrt(u[4])
    luminance = _field(white[0], 1.1 * math.sqrt(u[3]))
    blue, red = ((0.3 + 0.8 * u[6 + i]) * _field(white[1 + i], coarse) for i in range(2))
    # from luminance, Cb and Cr to the colours, as JPEG has them
    colours = np.stack([luminance + 1.402 * red, luminance - 0.344 * blue - 0.714 * red, luminance + 1.772 * blue])
    noisy = clean + colours * amplitude
    if smooth and u[8] < 0.3:
        sigma = 0.3 + 0.4 * u[9]
        return _blur(noisy, sigma), _blur(clean, sigma)
    return noisy, clean


def as_file(image: Patch, generator: Generator, jpeg: float) -> Patch:
    """An image as a file holds it: JPEG with a probability of ``jpeg``, or 8 bits.

    Quality is uniform in :data:`QUALITIES`, chroma subsampling one of 4:4:4, 4:2:2 and 4:2:0.

    Shape:
        (3, H, W).
    """
    levels = (image.clip(0, 1) * 255 + 0.5).astype(np.uint8)
    if torch.rand((), generator=generator).item() < jpeg:
        low, high = QUALITIES
        quality = int(torch.randint(low, high + 1, (), generator=generator))
        subsampling = SUBSAMPLINGS[int(torch.randint(len(SUBSAMPLINGS), (), generator=generator))]
        file = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(levels.transpose(1, 2, 0))).save(
            file, "JPEG", quality=quality, subsampling=subsampling
        )
        with Image.open(file) as decoded:
            levels = np.asarray(decoded).transpose(2, 0, 1)
    return cast(Patch, levels.astype(np.float32) / np.float32(255))


def _normal(shape: tuple[int, ...], generator: Generator) -> Patch:
    return cast(Patch, torch.randn(shape, generator=generator).numpy())


def _mosaic(image: Patch, row: int, column: int) -> Patch:
    """What a Bayer filter lets through; red stands in the given row and column of each square of four."""
    samples: Patch = image[1].copy()
    samples[row::2, column::2] = image[0, row::2, column::2]
    samples[1 - row :: 2, 1 - column :: 2] = image[2, 1 - row :: 2, 1 - column :: 2]
    return samples


def _demosaic(samples: Patch, row: int, column: int) -> Patch:
    """Linear interpolation of the colours of a Bayer filter; mirrored at the border, which keeps the filter's phase."""
    colours = np.zeros((3, *samples.shape), np.float32)
    rows, columns = (row, 1 - row), (column, 1 - column)
    colours[0, rows[0] :: 2, columns[0] :: 2] = samples[rows[0] :: 2, columns[0] :: 2]
    colours[1, rows[0] :: 2, columns[1] :: 2] = samples[rows[0] :: 2, columns[1] :: 2]
    colours[1, rows[1] :: 2, columns[0] :: 2] = samples[rows[1] :: 2, columns[0] :: 2]
    colours[2, rows[1] :: 2, columns[1] :: 2] = samples[rows[1] :: 2, columns[1] :: 2]
    padded = np.pad(colours, ((0, 0), (1, 1), (1, 1)), "reflect")
    wide = padded[:, :, 1:-1] + 0.5 * (padded[:, :, :-2] + padded[:, :, 2:])
    full = wide[:, 1:-1] + 0.5 * (wide[:, :-2] + wide[:, 2:])
    cross = 0.25 * (
        padded[1, :-2, 1:-1] + padded[1, 2:, 1:-1] + padded[1, 1:-1, :-2] + padded[1, 1:-1, 2:]
    )  # green lies on a chequerboard: its gaps have four neighbours
    full[1] = colours[1] + cross
    return cast(Patch, full)


def _field(white: Patch, sigma: float) -> Patch:
    """White noise of unit variance, blurred and scaled back to unit variance, without its margin."""
    height, width = (side - 2 * _MARGIN for side in white.shape)
    down, across = _kernels(height, sigma), _kernels(width, sigma)
    return cast(Patch, down @ white @ across.T)


def _kernels(size: int, sigma: float) -> Patch:
    """A Gaussian around each pixel, as rows that read the margin too; their squares sum to 1."""
    kernel = _gaussian(sigma)
    matrix = np.zeros((size, size + 2 * _MARGIN), np.float32)
    rows = np.arange(size)[:, None]
    matrix[rows, rows + np.arange(2 * _MARGIN + 1)] = kernel / math.sqrt(float(np.square(kernel).sum()))
    return matrix


def _blur(image: Patch, sigma: float) -> Patch:
    """A blurred image; at the border the kernel's weights inside the image sum to 1."""
    kernel = _gaussian(sigma)
    matrices = []
    for size in image.shape[-2:]:
        matrix = kernel[np.clip(_distances(size) + _MARGIN, 0, 2 * _MARGIN)] * (abs(_distances(size)) <= _MARGIN)
        matrices.append(matrix / matrix.sum(1, keepdims=True))
    return cast(Patch, matrices[0] @ image @ matrices[1].T)


def _gaussian(sigma: float) -> Patch:
    offsets = np.arange(-_MARGIN, _MARGIN + 1, dtype=np.float32)
    if sigma < 0.05:  # a single pixel
        return cast(Patch, (offsets == 0).astype(np.float32))
    return cast(Patch, np.exp(-0.5 * np.square(offsets / sigma)))


@lru_cache(maxsize=16)
def _distances(size: int) -> NDArray[np.int64]:
    places = np.arange(size)
    return cast(NDArray[np.int64], places[None] - places[:, None])
