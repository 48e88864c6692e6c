"""Restoration without any network: what the others are measured against."""

from importlib import import_module

import torch
from torch import Tensor
from torch.nn import functional

_PATCH = 15
_OMEGA, _LEAST_TRANSMISSION = 0.95, 0.1
_RADIUS, _EPSILON = 60, 1e-3
_BRIGHTEST = 1e-3


def dark_channel_prior(hazy: Tensor) -> Tensor:
    """Dehazed image by the dark channel prior.

    ``D(I) = min over 15 x 15 pixels and colours``; ``A`` is the brightest of the pixels with the highest 0.1 % of
    ``D(I)``; ``t = 1 - 0.95 D(I / A)``, refined by a guided filter (radius 60, epsilon 1e-3) along the image;
    ``J = (I - A) / max(t, 0.1) + A``.

    Args:
        hazy: Image in [0, 1].

    Shape:
        (3, H, W) to the same; the result is not clipped.

    Source:
        He, Sun and Tang 2011, "Single Image Haze Removal Using Dark Channel Prior"; the filter of He et al. 2013 in
        place of soft matting, which the authors themselves put there.
    """
    dark = _dark_channel(hazy)
    count = max(1, round(_BRIGHTEST * dark.numel()))
    candidates = hazy.flatten(1)[:, dark.flatten().topk(count).indices]
    airlight = candidates[:, candidates.sum(0).argmax()].view(3, 1, 1).clamp_min(1e-3)
    rough = 1 - _OMEGA * _dark_channel(hazy / airlight)
    transmission = _guided_filter(hazy.mean(0), rough).clamp(_LEAST_TRANSMISSION, 1)
    return (hazy - airlight) / transmission + airlight


def non_local_means(noisy: Tensor, sigma: float) -> Tensor:
    """Image denoised by non-local means, as scikit-image has it.

    Args:
        noisy: Image.
        sigma: Level of the noise on the 0..255 scale.

    Shape:
        (C, H, W) to the same.

    Raises:
        ModuleNotFoundError: scikit-image is missing; the ``plot`` extra has it.

    Source:
        Buades, Coll and Morel 2005; the weights' decay is 0.8 sigma, as scikit-image advises.
    """
    denoise = import_module("skimage.restoration").denoise_nl_means
    level = sigma / 255
    image = noisy.movedim(0, -1).double().numpy()
    found = denoise(image, 5, 6, 0.8 * level, sigma=level, fast_mode=True, channel_axis=-1)
    return torch.from_numpy(found.reshape(image.shape)).movedim(-1, 0).to(noisy.dtype)


def bm3d(noisy: Tensor, sigma: float) -> Tensor:
    """Image denoised by the authors' BM3D, where the user has it: its licence is not free for commercial use.

    Args:
        noisy: Image.
        sigma: Level of the noise on the 0..255 scale.

    Shape:
        (1, H, W) or, as colour, (3, H, W) to the same.

    Raises:
        ModuleNotFoundError: bm3d is not installed.

    Source:
        Dabov et al. 2007.
    """
    package = import_module("bm3d")
    denoise = package.bm3d if len(noisy) == 1 else package.bm3d_rgb
    found = denoise(noisy.movedim(0, -1).double().numpy(), sigma / 255)
    return torch.as_tensor(found, dtype=noisy.dtype).reshape(*noisy.shape[1:], -1).movedim(-1, 0)


def _dark_channel(image: Tensor) -> Tensor:
    """(3, H, W) to (H, W)."""
    darkest = image.amin(0)[None, None]
    return -functional.max_pool2d(-darkest, _PATCH, 1, _PATCH // 2)[0, 0]


def _guided_filter(guide: Tensor, rough: Tensor) -> Tensor:
    """``rough`` made locally linear in ``guide``; both (H, W)."""

    def mean(x: Tensor) -> Tensor:
        side = 2 * _RADIUS + 1  # rows, then columns: the same mean at a sixtieth of the work
        rows = functional.avg_pool2d(x[None, None], (side, 1), 1, (_RADIUS, 0), count_include_pad=False)
        return functional.avg_pool2d(rows, (1, side), 1, (0, _RADIUS), count_include_pad=False)[0, 0]

    guide, rough = guide.double(), rough.double()
    mean_guide, mean_rough = mean(guide), mean(rough)
    slope = (mean(guide * rough) - mean_guide * mean_rough) / (mean(guide * guide) - mean_guide**2 + _EPSILON)
    offset = mean_rough - slope * mean_guide
    return (mean(slope) * guide + mean(offset)).float()
