"""Haze made from depth, by the atmospheric scattering model, and the patches that dehazers are trained on."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import Dataset

from spikingir.data.noise import sample_generator
from spikingir.data.scenes import Scene, require_room
from spikingir.errors import InputError

BETAS = (0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6)
"""Scattering coefficients that AOD-Net is trained on."""

AIRLIGHT = (0.6, 1.0)
"""Least and greatest atmospheric light that AOD-Net is trained on."""

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
        raise InputError("depth holds negative or infinite values; fill holes before making haze")
    beta = torch.as_tensor(beta, dtype=depth.dtype, device=depth.device)
    if not (beta >= 0).all():
        raise InputError(f"beta is {beta.min().item()}; a scattering coefficient is not negative")
    scale = depth.amax((-2, -1), keepdim=True) if farthest is None else depth.new_tensor(farthest)
    if not (scale > 0).all():
        raise InputError("the farthest depth is 0; expected a positive one")
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
        raise InputError(f"an image of shape {tuple(clean.shape)} with a depth of {tuple(depth.shape)}")
    t = transmission(depth, beta, farthest).to(clean.dtype).unsqueeze(-3)
    light = torch.as_tensor(airlight, dtype=clean.dtype, device=clean.device)[..., None, None, None]
    return clean * t + light * (1 - t)


@dataclass(frozen=True)
class HazyPatches(Dataset[tuple[Tensor, Tensor]]):
    """Endless pairs of (hazy, clean) patches, sample ``i`` a function of ``(seed, i)`` alone.

    Scene, position, mirroring, ``beta`` of :data:`BETAS` and ``A``, uniform in ``airlight``, are drawn per sample.
    Depth is relative to the farthest of the whole scene, so that a patch is a piece of the hazy image. One ``A`` holds
    for all three colours.

    Args:
        scenes: Scenes in memory, each at least ``size`` on both sides.
        size: Side of the patches in pixels.
        seed: Seed of the whole set.
        farthest: As in :func:`transmission`.
        airlight: Least and greatest atmospheric light ``A``.

    Shape:
        Each item: two tensors ``(3, size, size)``.

    Raises:
        ValueError: A scene is smaller than a patch.

    Source:
        Li et al. 2017 (AOD-Net), Section 4.1.
    """

    scenes: Sequence[Scene]
    size: int
    seed: int = 0
    farthest: float | None = None
    airlight: tuple[float, float] = AIRLIGHT

    def __post_init__(self) -> None:
        require_room(self.scenes, self.size)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        generator = sample_generator(self.seed, index)
        scene = self.scenes[int(torch.randint(len(self.scenes), (), generator=generator))]
        top, left = (int(torch.randint(n - self.size + 1, (), generator=generator)) for n in scene.depth_map.shape)
        mirrored, which = (int(torch.randint(n, (), generator=generator)) for n in (2, len(BETAS)))
        low, high = self.airlight
        airlight = low + (high - low) * torch.rand((), generator=generator).item()
        part = slice(top, top + self.size), slice(left, left + self.size)
        clean, depth = scene.clean(*part), scene.depth(*part)
        if mirrored:
            clean, depth = clean.flip(-1), depth.flip(-1)
        farthest = scene.farthest if self.farthest is None else self.farthest
        return add_haze(clean, depth, BETAS[which], airlight, farthest), clean
