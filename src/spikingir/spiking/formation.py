"""Image formation: the analog step that turns a body's output into the restored image.

It runs once per image, outside the spiking part (docs/method.md, section 1). The forms are a closed set, named by
strings, so that a saved network can say which one it needs without carrying code.
"""

from collections.abc import Callable
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor

ImageFormation = Literal["identity", "residual", "atmospheric", "level", "soft"]


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


IMAGE_FORMATIONS: MappingProxyType[str, Callable[[Tensor, Tensor], Tensor]] = MappingProxyType(
    {"identity": _identity, "residual": _residual, "atmospheric": _atmospheric, "level": _level, "soft": _soft}
)


ESTIMATES_MAPS: frozenset[str] = frozenset({"soft"})
"""Formations whose bodies estimate maps of the photograph: smooth but for its edges, so that a smaller one will do."""


def form_image(formation: str, image: Tensor, output: Tensor) -> Tensor:
    """Restored image from the degraded one and the body's output.

    ``identity``: ``x = body(y)``. ``residual`` (DnCNN): ``x = y - body(y)``. ``atmospheric`` (AOD-Net, with
    ``K = body(y)``): ``J = relu(K * y - K + 1)``. ``level``: ``x = y - level body(y, level)``, the image coming
    :func:`~spikingir.inputs.with_level`. ``soft``, with ``K, B = body(y)`` of C channels each: ``J = K y - B + y``.

    Args:
        formation: A key of :data:`IMAGE_FORMATIONS`.
        image: Degraded image ``y`` in [0, 1].
        output: Body output.

    Shape:
        ``image`` and the result: ``(B, C, H, W)``; for ``level`` the image has one channel more. ``output``:
        ``(B, C, H, W)``; for ``soft`` it has 2 C channels.

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
