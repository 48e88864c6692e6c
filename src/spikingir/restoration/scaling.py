"""Networks whose image is larger than the photograph, or of other channels."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from spikingir.inputs import unit
from spikingir.photo.photo import resized
from spikingir.spiking.formation import ESTIMATES_MAPS
from spikingir.zoo.catalogue import ModelError

if TYPE_CHECKING:
    from spikingir.spiking.network import SpikingNetwork


def output_of(network: "SpikingNetwork") -> tuple[int, int]:
    """How many times larger, along each side, the network's image is than the photograph; and its channels.

    Raises:
        ModelError: It is smaller, larger by no whole factor, or the image formation needs the photograph's own size.
    """
    config, shapes = network.config, network.graph.shapes()
    before = (config.channels, *shapes[network.nodes[0].name][1:])
    after = shapes[network.nodes[-1].name]
    maps = 2 if config.formation in ESTIMATES_MAPS else 1
    if (maps * before[0], *before[1:]) == after:
        return 1, before[0]
    made = f"the network makes {_in_words(after)} of {_in_words(before)}"
    if config.formation != "identity":
        raise ModelError(f"{made}, and its image formation '{config.formation}' needs as much as there is")
    factor = after[1] // before[1]
    if factor < 1 or after[1:] != (factor * before[1], factor * before[2]):
        raise ModelError(f"{made}; expected the same size, or a whole multiple of it")
    return factor, after[0]


def upscaled(image: Tensor, factor: int) -> Tensor:
    """An image made larger by Pillow's bicubic interpolation, which is what a network must do better.

    Shape:
        (B, C, H, W) to (B, C, factor H, factor W).
    """
    if factor == 1:
        return image
    height, width = (factor * side for side in image.shape[-2:])
    planes = [torch.from_numpy(resized(plane.float().numpy(), height, width)) for plane in image.flatten(0, 1)]
    return torch.stack(planes).view(*image.shape[:2], height, width).to(image.dtype)


def as_large(before: Tensor, after: Tensor) -> Tensor:
    """A photograph in the size and the channels of the restored one, to compare them; as it is where it has these.

    Shape:
        (B, C, H, W) and (B, C', n H, n W) to the latter.
    """
    if before.shape == after.shape:
        return before
    large = upscaled(unit(before), after.shape[-1] // before.shape[-1])
    return large if large.shape == after.shape else large.mean(1, keepdim=True).expand_as(after)


def _in_words(shape: tuple[int, ...]) -> str:
    channels, height, width = shape
    return f"{channels} channel{'s' * (channels > 1)} of {width} x {height} pixels"
