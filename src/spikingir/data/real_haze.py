"""Patches with haze as photographs have it, indoors and outdoors, near and dense, with noise and JPEG behind it."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset

from spikingir.data.camera import add_camera_noise, as_file
from spikingir.data.haze import AOD_DEPTH, add_haze, transmission
from spikingir.data.noise import sample_generator
from spikingir.data.scenes import Scene, require_room
from spikingir.errors import InputError

WITHOUT_HAZE = 1 / 8
"""Share of the patches that have no haze and are their own target, so that clear photographs are left alone."""

_SMALLEST = 0.5  # scale of an image that a patch is cut from
_BETA_INDOORS = (0.3, 1.8)
_BETA_RESIDE = (0.6, 1.8)
_AIRLIGHT_RESIDE = (0.7, 1.0)
_WHITE_RESIDE = 0.5  # share of its patches whose airlight is 1, as in all of SOTS-indoor
_BETA_OUTDOORS = (0.3, 1.2)  # of half of the patches; the others have dense haze
_DENSE = 0.8
_CAST = 0.03  # standard deviation of the airlight between colours
_CHANGED = 0.5  # share of patches whose brightness and gamma are changed
_GAIN = (0.7, 1.1)
_GAMMA = (0.7, 1.3)
_NOISY = 0.3
_NOISE = 0.5  # greatest strength of a camera's noise
_JPEG = 0.5


@dataclass(frozen=True)
class RealHazePatches(Dataset[tuple[Tensor, Tensor]]):
    """Endless pairs of (hazy, clean) patches, sample ``i`` a function of ``(seed, i)`` alone.

    ``I = J t + A (1 - t)``, ``t = exp(-beta d)``. Depth ``d`` of an indoor scene is relative to its farthest point
    (RESIDE) or to 5.7 m (AOD-Net), of an outdoor scene as the scene has it. Scene, scale, position, mirroring,
    brightness and gamma of ``J``, ``beta``, ``A`` with a slight colour cast, noise and JPEG are drawn per sample. One
    in eight has no haze and is its own target. Of the indoor patches with haze, a share may be as RESIDE makes its own
    (Li et al. 2019, "Benchmarking Single-Image Dehazing and Beyond"): the scene as it is, depth relative to its
    farthest point, ``beta`` in [0.6, 1.8], a gray ``A``, of half of them 1 and of the others in [0.7, 1], and nothing
    behind it.

    Args:
        indoor: Scenes with depth in metres.
        outdoor: Scenes whose depth is 1 where it is farthest.
        size: Side of the patches in pixels, cut from images at half scale to full scale.
        seed: Seed of the whole set.
        beta: Greatest scattering coefficient, that of outdoor scenes.
        airlight: Least and greatest atmospheric light ``A``; bright light is the more frequent.
        reside: Share of the indoor patches with haze that are RESIDE's.

    Shape:
        Each item: two tensors ``(3, size, size)``.

    Raises:
        ValueError: A scene is smaller than a patch, or a range is out of order.
    """

    indoor: Sequence[Scene]
    outdoor: Sequence[Scene]
    size: int
    seed: int = 0
    beta: float = 3.0
    airlight: tuple[float, float] = (0.25, 1.0)
    reside: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.airlight[0] <= self.airlight[1] <= 1:
            raise InputError(f"airlight is {self.airlight}; expected least and greatest, between 0 and 1")
        if self.beta < _BETA_OUTDOORS[1]:
            raise InputError(f"beta is {self.beta}; expected at least {_BETA_OUTDOORS[1]}")
        if not 0 <= self.reside <= 1:
            raise InputError(f"reside is {self.reside}; expected a share from 0 to 1")
        require_room((*self.indoor, *self.outdoor), self.size)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        generator = sample_generator(self.seed, index)
        which = int(torch.randint(len(self.indoor) + len(self.outdoor), (), generator=generator))
        inside = which < len(self.indoor)
        scene = self.indoor[which] if inside else self.outdoor[which - len(self.indoor)]
        clean, depth = self._cut(scene, generator)
        hazeless, changed, gain, gamma, relative, dense, strength, light, noisy, noise = torch.rand(
            10, generator=generator
        ).tolist()
        # drawn only where it is asked for, so that other sets stay as they are
        if inside and self.reside and torch.rand((), generator=generator) < self.reside and hazeless >= WITHOUT_HAZE:
            gray = 1.0 if relative < _WHITE_RESIDE else _between(_AIRLIGHT_RESIDE, light)
            return add_haze(clean, depth, _between(_BETA_RESIDE, strength), gray, scene.farthest), clean
        if changed < _CHANGED:
            clean = (_between(_GAIN, gain) * clean).clamp(0, 1) ** _between(_GAMMA, gamma)
        if hazeless < WITHOUT_HAZE:
            return clean, clean
        if inside:
            farthest = scene.farthest if relative < 0.5 else AOD_DEPTH
            beta = _between(_BETA_INDOORS, strength)
        else:
            farthest = 1.0
            beta = _between(_BETA_OUTDOORS if dense < 0.5 else (_DENSE, self.beta), strength)
        airlight = _between(self.airlight, light**0.5) + _CAST * torch.randn(3, generator=generator)
        t = transmission(depth, min(beta, self.beta), farthest)
        hazy = (clean * t + airlight.clamp(*self.airlight)[:, None, None] * (1 - t)).numpy()
        if noisy < _NOISY:
            hazy = add_camera_noise(hazy, generator, _NOISE * noise, smooth=False)[0]
        return torch.from_numpy(as_file(hazy, generator, _JPEG)), clean

    def _cut(self, scene: Scene, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Image and depth of a patch, brought to its size."""
        scale, mirrored = torch.rand(2, generator=generator).tolist()
        side = min(round(self.size / (_SMALLEST + (1 - _SMALLEST) * scale)), *scene.depth_map.shape)
        top, left = (int(torch.randint(n - side + 1, (), generator=generator)) for n in scene.depth_map.shape)
        part = slice(top, top + side), slice(left, left + side)
        both = torch.cat([scene.clean(*part), scene.depth(*part)[None]])
        if side != self.size:
            size = (self.size, self.size)
            both = functional.interpolate(both[None], size, mode="bilinear", antialias=True, align_corners=False)[0]
        if mirrored < 0.5:
            both = both.flip(-1)
        return both[:3].contiguous(), both[3].contiguous()


def _between(ends: tuple[float, float], share: float) -> float:
    return ends[0] + (ends[1] - ends[0]) * share
