"""Image formation: the analog step that turns a body's output into the restored image.

It runs once per image, outside the spiking part (docs/method.md, section 1). The forms are a closed set, named by
strings, so that a saved network can say which one it needs without carrying code.
"""

import math
from collections.abc import Callable
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import Tensor

ImageFormation = Literal["identity", "residual", "atmospheric", "level", "soft", "airlight"]

LIGHT, LIGHT_WEIGHT = 0.8, 2.0**-10
"""Airlight where maps say nothing of it, and what it counts for: as a pixel of ``K K`` as large as that."""

LIGHT_BITS = 20
"""K, and its products with itself and B, are rounded to ``2^-LIGHT_BITS``, so that sums are exact in any order."""


def _identity(image: Tensor, output: Tensor) -> Tensor:
    return output


def _residual(image: Tensor, output: Tensor) -> Tensor:
    return image - output


def _atmospheric(image: Tensor, output: Tensor) -> Tensor:
    return torch.relu(output * image - output + 1)


def _level(image: Tensor, output: Tensor) -> Tensor:
    return image[:, :-1] - image[:, -1:] * output


def _soft(image: Tensor, output: Tensor) -> Tensor:
    k, b = output.chunk(2, 1)
    return k * image - b + image


def _airlight(image: Tensor, output: Tensor) -> Tensor:
    return dehazed(image, *one_airlight(output))


def one_airlight(maps: Tensor) -> tuple[Tensor, Tensor]:
    """One K for all colours, and one airlight ``A`` for each photograph and colour, of maps K and B.

    K is the mean of its channels where that is positive, else 0, as ``1 / t - 1`` is. ``A`` is
    ``(mean(K B) + e A0) / (mean(K K) + e)`` within [0, 1], the least-squares fit of ``B = A K``; ``A0 = 0.8`` where the
    maps say next to nothing (``e = 2^-10``). Sums are of whole numbers, so exact in any order.

    Shape:
        (B, 2 C, H, W) to (B, 1, H, W) and (B, C, 1, 1).
    """
    k, b = maps.chunk(2, 1)
    shared = _bounded(_mean(k, (1,)), math.inf).to(maps.dtype)
    pixels = (2, 3)
    above = _mean(shared * b, pixels) + LIGHT_WEIGHT * LIGHT
    return shared, _bounded(above / (_mean(shared * shared, pixels) + LIGHT_WEIGHT), 1.0).to(maps.dtype)


def dehazed(image: Tensor, k: Tensor, light: Tensor) -> Tensor:
    """``J = y + K (y - A)``: where a photograph shows nothing but air, ``y = A``, it stays as it came, whatever K is.

    Shape:
        (B, C, H, W), (B, 1, H, W) and (B, C, 1, 1) to (B, C, H, W).
    """
    return image + k * (image - light)


class _Bounded(torch.autograd.Function):
    """Values within [0, most]. One beyond has a gradient all the same where that leads back, or it would stay there."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, most: float) -> Tensor:
        ctx.save_for_backward(values)
        ctx.most = most
        return values.clamp(0, most)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (values,) = ctx.saved_tensors
        leaves = ((values < 0) & (gradient > 0)) | ((values > ctx.most) & (gradient < 0))
        return gradient.masked_fill(leaves, 0), None


def _bounded(values: Tensor, most: float) -> Tensor:
    bounded: Tensor = _Bounded.apply(values, most)  # type: ignore[no-untyped-call]
    return bounded


def _mean(values: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Mean in float64 of values rounded to the grid; the gradient is that of the plain mean."""
    plain = values.mean(dims, keepdim=True)
    whole = (values.detach().double() * 2**LIGHT_BITS).round().sum(dims, keepdim=True)
    mean: Tensor = whole / 2**LIGHT_BITS / (values.numel() // plain.numel()) + (plain - plain.detach())
    return mean


IMAGE_FORMATIONS: MappingProxyType[str, Callable[[Tensor, Tensor], Tensor]] = MappingProxyType(
    {
        "identity": _identity,
        "residual": _residual,
        "atmospheric": _atmospheric,
        "level": _level,
        "soft": _soft,
        "airlight": _airlight,
    }
)

SEES_WHOLE: frozenset[str] = frozenset({"airlight"})
"""Formations that need the whole image; the others form each pixel of the pixels at its place."""

ESTIMATES_MAPS: frozenset[str] = frozenset({"soft", "airlight"})
"""Formations whose bodies estimate maps of the photograph: smooth but for its edges, so that a smaller one will do."""


def form_image(formation: str, image: Tensor, output: Tensor) -> Tensor:
    """Restored image from the degraded one and the body's output.

    ``identity``: ``x = body(y)``. ``residual`` (DnCNN): ``x = y - body(y)``. ``atmospheric`` (AOD-Net, with
    ``K = body(y)``): ``J = relu(K * y - K + 1)``. ``level``: ``x = y - level body(y, level)``, the image coming
    :func:`~spikingir.inputs.with_level`. ``soft``, with ``K, B = body(y)`` of C channels each: ``J = K y - B + y``.
    ``airlight``: ``J = y + K (y - A)`` of :func:`one_airlight`; it needs the whole image.

    Args:
        formation: A key of :data:`IMAGE_FORMATIONS`.
        image: Degraded image ``y`` in [0, 1].
        output: Body output.

    Shape:
        ``image`` and the result: ``(B, C, H, W)``; for ``level`` the image has one channel more. ``output``:
        ``(B, C, H, W)``; for ``soft`` and ``airlight`` it has 2 C channels.

    Raises:
        ValueError: There is no such formation.

    Source:
        SpikingIR, section "Preliminaries"; Zhang et al. 2017 (DnCNN); Li et al. 2017 (AOD-Net), Eq. 8.
    """
    try:
        form = IMAGE_FORMATIONS[formation]
    except KeyError:
        known = ", ".join(IMAGE_FORMATIONS)
        raise ValueError(f"unknown image formation {formation!r}; known ones: {known}") from None
    return form(image, output)
