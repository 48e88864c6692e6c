"""Reading an image out of the last layer: pixel mapper and membrane recycling."""

import torch
from torch import Tensor, nn


class PixelMapper(nn.Conv2d):
    """3x3 convolution, C to C with bias, from the spikes of the last layer to pixels (SpikingIR, Eq. 1-3).

    Initialised to the identity, so that before fine-tuning the output is that of the converted network.

    Args:
        channels: C.

    Shape:
        ``(B, C, H, W)`` to the same.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 3, padding=1)

    def reset_parameters(self) -> None:
        """Set the identity."""
        nn.init.dirac_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)


def read_out(decoded: Tensor, leftover: Tensor | None, mapper: PixelMapper | None, *, signed: bool) -> Tensor:
    """Body output from the last layer: ``Mapper(decoded) + I``, for an unsigned output neuron its positive part.

    The mapper is linear, so that it runs once, on the time-summed spikes; its bias counts once. With the identity
    mapper and recycling the result is ``1/T`` times the sum of the last layer's currents, whatever v0, beta and the
    spikes: the gradient then reaches the currents alone.

    Args:
        decoded: ``1/T sum_{t=1..T+1} a(t) s(t)`` of the last layer; divided by T, not by T + 1.
        leftover: ``I = (v(end) - v(0))/T``, or None without membrane recycling.
        mapper: Pixel mapper, or None for the plain decoded output.
        signed: Whether the output neuron is signed.

    Shape:
        ``decoded``, ``leftover`` and the result: (B, C, H, W).

    Source:
        SpikingIR, Eq. 1-4.
    """
    output: Tensor = decoded if mapper is None else mapper(decoded)
    if leftover is not None:
        output = output + leftover
    return output if signed else torch.relu(output)
