"""Image quality, per image: averages over images are the caller's, and nothing is pooled."""

import math
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from spikingir.errors import InputError

_WINDOW = 11


def psnr(restored: Tensor, clean: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each image in dB.

    ``10 log10(1 / mean((clip(x, 0, 1) - clean)^2))``, the mean over channels and pixels; infinite where they agree.

    Args:
        restored: Restored images ``x``; clipped to [0, 1], as writing them does.
        clean: Clean images in [0, 1].

    Shape:
        (B, C, H, W) each; the result (B,).

    Raises:
        ValueError: The shapes differ, or are not those of image batches.

    Source:
        docs/method.md, section 8.

    Example:
        >>> psnr(torch.full((1, 1, 4, 4), 0.6), torch.full((1, 1, 4, 4), 0.5)).round(decimals=3)
        tensor([20.])
    """
    restored, clean = _prepared(restored, clean)
    return peak_signal_noise_ratio(restored, clean, data_range=1.0, reduction="none", dim=(1, 2, 3))


def ssim(restored: Tensor, clean: Tensor) -> Tensor:
    """Structural similarity of each image: Gaussian window 11x11, sigma 1.5, K1 = 0.01, K2 = 0.03, data range 1.

    The mean over channels and over the windows that lie inside the image.

    Args:
        restored: Restored images; clipped to [0, 1].
        clean: Clean images in [0, 1].

    Shape:
        (B, C, H, W) each, H and W at least 11; the result (B,).

    Raises:
        ValueError: The shapes differ, are not those of image batches, or are smaller than the window.

    Source:
        Wang et al. 2004, IEEE TIP 13(4); docs/method.md, section 8.
    """
    restored, clean = _prepared(restored, clean)
    if min(clean.shape[-2:]) < _WINDOW:
        raise InputError(f"images of {clean.shape[-2]}x{clean.shape[-1]} pixels; SSIM needs {_WINDOW}x{_WINDOW}")
    # `kernel_size` is not passed: torchmetrics takes a Gaussian's from sigma, 2 * int(3.5 sigma + 1/2) + 1 = 11.
    # Its own mean takes in reflected borders in some versions and not in others, so the mean is taken here.
    _, windows = structural_similarity_index_measure(
        restored, clean, sigma=1.5, reduction="none", data_range=1.0, return_full_image=True
    )
    margin = _WINDOW // 2
    return windows[..., margin:-margin, margin:-margin].mean((1, 2, 3))


class Visibility(NamedTuple):
    """What restoring a photograph does to what can be seen, without knowing the clean one.

    Attributes:
        e: Rate of edges that became visible; negative where edges went; infinite where none was visible before, not a
            number where none is after either.
        r: How many times steeper visible edges became, their geometric mean; not a number where there is none.
        sigma: Share of pixels that became black or white, and were not before.
    """

    e: float
    r: float
    sigma: float


def visibility(before: Tensor, after: Tensor) -> Visibility:
    """Hautiere's descriptors of restored contrast: ``e``, ``r`` and ``sigma``.

    With ``n_o`` and ``n_r`` pixels on visible edges before and after, ``G`` the magnitude of Sobel's gradient and the
    sum over visible edges after::

        e = (n_r - n_o) / n_o,   r = exp(1/n_r sum log(G_r / G_o)),   sigma = n_s / (H W)

    ``n_s`` counts the pixels at 0 or 255 after and not before. An edge is visible where Koehler's contrast in a window
    of 7 x 7 pixels, laid every four pixels, is above 5 %: for each level ``s`` of 255 the neighbours ``x1 <= s < x2``
    of the window that it separates have the mean contrast ``C(s) = mean min((s - x1) / s, (x2 - s) / x2)``; the pixels
    that the best ``s`` separates are on a visible edge where ``2 C(s) > 5 %``. Pixels where one of the gradients is 0
    are left out of ``r``.

    Args:
        before: Degraded photograph; of colours the luma after ITU-R 601 counts, in 8 bits.
        after: Restored photograph, clipped to [0, 1].

    Shape:
        (C, H, W) each, C = 1 or 3.

    Raises:
        ValueError: The shapes differ.

    Source:
        Hautiere, Tarel, Aubert and Dumont 2008, "Blind contrast enhancement assessment by gradient ratioing at visible
        edges", Image Analysis & Stereology 27(2), and the first author's code for windows and gradients.
    """
    if before.shape != after.shape or before.dim() != 3:
        raise ValueError(f"before {tuple(before.shape)} and after {tuple(after.shape)}; expected one shape (C, H, W)")
    old, new = _luma(before), _luma(after)
    seen_before, seen_after = _visible_edges(old), _visible_edges(new)
    n_before, n_after = int(seen_before.sum()), int(seen_after.sum())
    e = (n_after - n_before) / n_before if n_before else (math.inf if n_after else math.nan)
    gradients = _gradient(new)[seen_after], _gradient(old)[seen_after]
    known = (gradients[0] > 0) & (gradients[1] > 0)
    ratios = (gradients[0][known] / gradients[1][known]).log()
    saturated = ((new == 0) | (new == 255)) & (old != 0) & (old != 255)
    return Visibility(e, ratios.mean().exp().item(), saturated.float().mean().item())


_EDGE_WINDOW, _EDGE_STEP, _VISIBLE = 7, 4, 0.05
_EDGE_BAND = 32  # rows of windows at a time
_LUMA = (0.299, 0.587, 0.114)  # ITU-R 601


def _luma(image: Tensor) -> Tensor:
    """Levels 0 to 255 of brightness, whole numbers in float64.

    Shape:
        (C, H, W) to (H, W).
    """
    values = image.detach().double().clamp(0, 1) * 255
    weighted = values[0] if len(values) == 1 else (values * values.new_tensor(_LUMA).view(3, 1, 1)).sum(0)
    return weighted.round()


def _gradient(levels: Tensor) -> Tensor:
    """Magnitude of Sobel's gradient; what lies beyond the border is as the border is."""
    sobel = levels.new_tensor([[1, 0, -1], [2, 0, -2], [1, 0, -1]])
    padded = torch.nn.functional.pad(levels[None, None], (1, 1, 1, 1), mode="replicate")
    x, y = torch.nn.functional.conv2d(padded, torch.stack([sobel, sobel.T])[:, None])[0]
    return torch.hypot(x, y)


def _visible_edges(levels: Tensor) -> Tensor:
    """Pixels on visible edges, see :func:`visibility`.

    Shape:
        (H, W), whole numbers from 0 to 255; the result likewise, boolean.
    """
    height, width = levels.shape
    rows, columns = (max(0, math.ceil((side - _EDGE_WINDOW) / _EDGE_STEP)) + 1 for side in (height, width))
    beyond = [_EDGE_STEP * (n - 1) + _EDGE_WINDOW - side for n, side in ((rows, height), (columns, width))]
    image = np.pad(levels.short().cpu().numpy(), [(0, n) for n in beyond], mode="edge")  # repeated: no edge
    edges = np.zeros(image.shape, bool)
    for first in range(0, rows, _EDGE_BAND):  # of windows, for the memory
        last = min(rows, first + _EDGE_BAND)
        band = slice(_EDGE_STEP * first, _EDGE_STEP * (last - 1) + _EDGE_WINDOW)
        edges[band] |= _edges_in_windows(image[band], last - first, columns)
    return torch.from_numpy(edges[:height, :width])


def _edges_in_windows(image: NDArray[np.int16], rows: int, columns: int) -> NDArray[np.bool_]:
    """Pixels on visible edges, of so many windows below and beside each other."""
    bins, pixels, contrasts = [], [], []
    for down, right in ((0, 1), (1, 0)):
        one, other = image[: image.shape[0] - down, : image.shape[1] - right], image[down:, right:]
        y, x = np.nonzero(one != other)
        low, high = np.minimum(one, other)[y, x], np.maximum(one, other)[y, x]
        # each level that separates the two
        pair = np.repeat(np.arange(len(y)), high - low)
        level = np.arange(len(pair)) - np.repeat(np.cumsum(high - low) - high, high - low)
        contrast = np.minimum(1 - low[pair] / np.maximum(level, 1), 1 - level / high[pair])
        contrast[level == 0] = 0
        y, x = y[pair], x[pair]
        for up, left in product(range(2), range(2)):  # each window that the two lie in
            i, j = y // _EDGE_STEP - up, x // _EDGE_STEP - left
            inside = (i >= 0) & (i < rows) & (y + down < _EDGE_STEP * i + _EDGE_WINDOW)
            inside &= (j >= 0) & (j < columns) & (x + right < _EDGE_STEP * j + _EDGE_WINDOW)
            bins.append(((i * columns + j) * 256 + level)[inside])
            pixels.append(np.stack([y, x, y + down, x + right])[:, inside])
            contrasts.append(contrast[inside])
    where, shape = np.concatenate(bins), (rows * columns, 256)
    count = np.bincount(where, minlength=rows * columns * 256).reshape(shape)
    mean = np.bincount(where, np.concatenate(contrasts), rows * columns * 256).reshape(shape) / np.maximum(count, 1)
    best = mean.argmax(1)
    seen = 2 * mean[np.arange(len(mean)), best] > _VISIBLE
    marked = seen[where // 256] & (where % 256 == best[where // 256])
    edges = np.zeros(image.shape, bool)
    for y, x in np.concatenate(pixels, 1)[:, marked].reshape(2, 2, -1):
        edges[y, x] = True
    return edges


def _prepared(restored: Tensor, clean: Tensor) -> tuple[Tensor, Tensor]:
    """Both in one precision, float32 at least; the restored image clipped."""
    if restored.shape != clean.shape or clean.dim() != 4:
        raise ValueError(
            f"restored {tuple(restored.shape)} and clean {tuple(clean.shape)}; expected one shape (B, C, H, W)"
        )
    dtype = torch.promote_types(torch.promote_types(restored.dtype, clean.dtype), torch.float32)
    return restored.detach().to(dtype).clamp(0, 1), clean.detach().to(dtype)
