"""What a network reads: the image, its noise level as one more channel, sides that the strides divide."""

import torch
from torch import Tensor

from spikingir.errors import InputError


def with_level(image: Tensor, level: Tensor | float) -> Tensor:
    """What a network with a level input reads: the image, and its noise level as one more channel.

    Args:
        image: Degraded image.
        level: Noise level in units of the image, sigma / 255: a number, one for each image, or a map.

    Shape:
        ``image`` (B, C, H, W); ``level`` a number, (B,) or (B, 1, H, W). Result: (B, C + 1, H, W).

    Raises:
        ValueError: A level that is negative, not finite, or of another shape.
    """
    return torch.cat([image, level_channel(image, level)], 1)


def level_channel(image: Tensor, level: Tensor | float) -> Tensor:
    """The noise level as a channel beside those of an image; a number takes no memory for each pixel.

    Args:
        image: Degraded image, of which shape, type and device count.
        level: See :func:`with_level`.

    Shape:
        ``image`` (B, C, H, W); ``level`` as for :func:`with_level`. Result: (B, 1, H, W).

    Raises:
        ValueError: A level that is negative, not finite, or of another shape.
    """
    dtype = image.dtype if image.is_floating_point() else torch.float32
    values = torch.as_tensor(level, dtype=dtype, device=image.device)
    batch, _, height, width = image.shape
    if values.dim() <= 1 and values.numel() in (1, batch):
        values = values.reshape(-1, 1, 1, 1)
    elif values.shape != (batch, 1, height, width):
        raise InputError(
            f"the level has shape {tuple(values.shape)}; expected a number, ({batch},) or {(batch, 1, height, width)}"
        )
    if not (torch.isfinite(values) & (values >= 0)).all():
        raise InputError("the level is negative or not finite; expected sigma / 255, 0 or more")
    return values.expand(batch, 1, height, width)


def unit(values: Tensor) -> Tensor:
    """Values in [0, 1]: float32 of whole numbers of 8 or 16 bits; what is floating point stays as it is.

    Shape:
        Any; the result has the same.
    """
    if values.is_floating_point():
        return values
    # a division, not a factor: the same bits as NumPy's, which photographs were read with
    return values.to(torch.float32).div_(torch.iinfo(values.dtype).max)


class LevelError(InputError):
    """The noise level that a network is told is not known."""


def told(image: Tensor, takes_level: bool, sigma: float | None) -> Tensor:
    """What a network reads: the image, and the level of its noise where the network is told it.

    Args:
        image: Degraded image.
        takes_level: Whether the network is told the level.
        sigma: The level, of 255; None where it is not known.

    Shape:
        (B, C, H, W) to the same, or to (B, C + 1, H, W).

    Raises:
        LevelError: The network is told a level, and it is not known.
    """
    if not takes_level:
        return image
    if sigma is None:
        raise LevelError("the network is told the level of the noise, which is not known here; give sigma")
    return with_level(image, sigma / 255)


def pad_to_multiple(image: Tensor, multiple: int) -> Tensor:
    """The image with its last row and column repeated until both sides are multiples of ``multiple``.

    Shape:
        ``(B, C, H, W)`` to ``(B, C, H', W')``.
    """
    bottom, right = (-side % multiple for side in image.shape[-2:])
    if not bottom and not right:
        return image
    return torch.nn.functional.pad(image, (0, right, 0, bottom), mode="replicate")
