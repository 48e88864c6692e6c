"""Image quality, per image: averages over images are the caller's, and nothing is pooled."""

import torch
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


def _prepared(restored: Tensor, clean: Tensor) -> tuple[Tensor, Tensor]:
    """Both in one precision, float32 at least; the restored image clipped."""
    if restored.shape != clean.shape or clean.dim() != 4:
        raise ValueError(
            f"restored {tuple(restored.shape)} and clean {tuple(clean.shape)}; expected one shape (B, C, H, W)"
        )
    dtype = torch.promote_types(torch.promote_types(restored.dtype, clean.dtype), torch.float32)
    return restored.detach().to(dtype).clamp(0, 1), clean.detach().to(dtype)
