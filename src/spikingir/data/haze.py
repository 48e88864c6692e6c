"""Haze made from depth, by the atmospheric scattering model."""

import torch
from torch import Tensor

AOD_DEPTH = 5.7
"""Depth in metres that plays the part of the largest one in AOD-Net's own images: inferred from two of them."""


def transmission(depth: Tensor, beta: float | Tensor, farthest: float | None = None) -> Tensor:
    """Share of the scene's light that reaches the camera, ``t = exp(-beta d / farthest)``.

    Args:
        depth: Depth ``d`` in any unit, not negative.
        beta: Scattering coefficient; a number, or one per image.
        farthest: Depth at which ``t = exp(-beta)``, in the unit of ``depth``. Without one it is the largest depth of
            each image, as RESIDE makes its images; :data:`AOD_DEPTH` with metres is AOD-Net's convention.

    Shape:
        ``depth`` and the result: (..., H, W); ``beta``: (...) of it.

    Raises:
        ValueError: Depth that is negative, infinite or nothing but zero; a negative beta; ``farthest`` not positive.

    Source:
        Li et al. 2019, "Benchmarking Single-Image Dehazing and Beyond" (RESIDE), Eq. 1 and 2; the normalisation is
        measured on RESIDE's published images.

    Example:
        >>> transmission(torch.tensor([[0.0, 2.0], [4.0, 4.0]]), 1.0)
        tensor([[1.0000, 0.6065],
                [0.3679, 0.3679]])
    """
    if not torch.isfinite(depth).all() or (depth < 0).any():
        raise ValueError("depth holds negative or infinite values; fill holes before making haze")
    beta = torch.as_tensor(beta, dtype=depth.dtype, device=depth.device)
    if not (beta >= 0).all():
        raise ValueError(f"beta is {beta.min().item()}; a scattering coefficient is not negative")
    scale = depth.amax((-2, -1), keepdim=True) if farthest is None else depth.new_tensor(farthest)
    if not (scale > 0).all():
        raise ValueError("the farthest depth is 0; expected a positive one")
    return torch.exp(-beta[..., None, None] * depth / scale)


def add_haze(
    clean: Tensor,
    depth: Tensor,
    beta: float | Tensor,
    airlight: float | Tensor = 1.0,
    farthest: float | None = None,
) -> Tensor:
    """Hazy image ``I = J t + A (1 - t)``, with ``t`` of :func:`transmission`.

    Args:
        clean: Haze-free image ``J`` in [0, 1].
        depth: Depth of each pixel.
        beta: Scattering coefficient; a number, or one per image.
        airlight: Atmospheric light ``A`` in [0, 1]; a number, or one per image.
        farthest: See :func:`transmission`.

    Shape:
        ``clean`` and the result: (..., C, H, W); ``depth``: (..., H, W); ``beta`` and ``airlight``: (...).

    Raises:
        ValueError: See :func:`transmission`; sizes of image and depth that differ.

    Source:
        Li et al. 2017 (AOD-Net), Eq. 1; Narasimhan and Nayar 2002.
    """
    if clean.shape[:-3] + clean.shape[-2:] != depth.shape:
        raise ValueError(f"an image of shape {tuple(clean.shape)} with a depth of {tuple(depth.shape)}")
    t = transmission(depth, beta, farthest).to(clean.dtype).unsqueeze(-3)
    light = torch.as_tensor(airlight, dtype=clean.dtype, device=clean.device)[..., None, None, None]
    return clean * t + light * (1 - t)
