"""The int8 twin: the conventional network that a spiking one has to beat, with weights and activations of 8 bits."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from spikingir.energy.paper import PJ_TO_MJ
from spikingir.energy.prices import PRICES
from spikingir.energy.synapses import Active, count_active
from spikingir.graph.trace import graph_of


@dataclass(frozen=True)
class Twin:
    """What the int8 twin of a conventional network costs, mean over a batch of images.

    Attributes:
        macs: Multiply-accumulates for one image that multiply something other than zero, border rule "true".
        pixels: Pixels of the image.
    """

    macs: float
    pixels: int

    @classmethod
    def of(cls, active: Mapping[str, Active], image: Tensor) -> "Twin":
        """The twin of a network whose operations multiply so much on an image.

        Args:
            active: By operation.
            image: The image.

        Shape:
            ``image``: (B, C, H, W).
        """
        return cls(sum(operation.in_8_bits for operation in active.values()), image.shape[-2] * image.shape[-1])

    @property
    def mj(self) -> float:
        """Energy of one image in mJ."""
        return PRICES["mac_int8"].pj * self.macs * PJ_TO_MJ

    @property
    def nj_per_pixel(self) -> float:
        """Energy of one pixel in nJ."""
        return self.mj * 1e6 / self.pixels

    def milliwatts(self, images_per_second: float) -> float:
        """Power in mW at so many images a second, which is energy in mJ per second."""
        return self.mj * images_per_second


def int8_twin(network: nn.Module, image: Tensor, channels: int | None = None) -> Twin:
    """The float network quantised to 8 bits: 0.23 pJ a multiply-accumulate, multiplications by zero skipped.

    What an operation reads has 255 steps between its least and its largest value on this image; what rounds to zero
    counts as zero. Biases, ReLUs, sums and the search for zeros are not charged, in the twin's favour.

    Args:
        network: A body or restoration network; or a spiking one, whose neurons are run as ReLUs.
        image: What its body reads: the image, and the noise level where it takes one
            (:func:`~spikingir.inputs.with_level`).
        channels: Channels that it reads, where the network does not say.

    Shape:
        ``image``: (B, C, H, W).

    Raises:
        ValueError: The number of channels is not known.
        ConversionError: The body cannot be traced.

    Source:
        docs/method.md, section 13.

    Example:
        >>> import torch
        >>> from spikingir.networks import AODNet
        >>> round(int8_twin(AODNet(), torch.ones(1, 3, 8, 8)).nj_per_pixel, 3) <= 0.23 * 1.746
        True
    """
    return Twin.of(count_active(graph_of(network, channels), image), image)
