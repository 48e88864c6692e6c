"""What every restoration network is: a body and an image formation step."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from spikingir.errors import InputError
from spikingir.inputs import pad_to_multiple, with_level
from spikingir.spiking.formation import ImageFormation, form_image


class RestorationNetwork(nn.Module):
    """A body, converted to spikes, and an image formation step, which stays analog.

    ``restored = form(image, body(image))``, see :func:`spikingir.spiking.formation.form_image`.

    Args:
        body: Network from the degraded image to the quantity that the formation needs (DnCNN: the noise;
            AOD-Net: the map ``K``).
        formation: Name of the image formation.
        channels: Channels of the image.

    Attributes:
        takes_level: Whether the body reads the noise level too, as one more channel behind the image's.
        activation_bits: Bits of quantised activations by scale, finest first; empty where they are not quantised.
        scale: Height and width of the restored image, in those of the image.
        multiple: The body takes heights and widths that are multiples of this; images of others are padded.

    Shape:
        ``(B, channels, H, W)`` to the same, or to ``(B, C, scale H, scale W)``.
    """

    takes_level = False
    scale = 1
    multiple = 1
    activation_bits: tuple[int, ...] = ()

    def __init__(self, body: nn.Module, formation: ImageFormation, channels: int) -> None:
        super().__init__()
        self.body = body
        self.formation: ImageFormation = formation
        self.channels = channels

    @property
    def options(self) -> dict[str, Any]:
        """Arguments that build this network anew; empty where it has no choices."""
        return {}

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw the weights anew, as training starts from.

        Args:
            generator: Source of the draws; torch's global generator without one.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say what training starts from")

    def forward(self, image: Tensor, level: Tensor | float | None = None) -> Tensor:
        """Restored image.

        Args:
            image: Degraded image, or :func:`~spikingir.inputs.with_level` of it.
            level: Noise level in units of the image, where the network takes one and ``image`` does not hold it.

        Raises:
            ValueError: Another number of channels; a network with a level input and no level, or the other way round.
        """
        given = image if level is None else with_level(image, level)
        if (found := given.shape[1]) != (wanted := self.channels + self.takes_level):
            needs = f"{self.channels} channels and a noise level" if self.takes_level else f"{wanted} channels"
            raise InputError(f"the image has {found} channels; {type(self).__name__} takes {needs}")
        height, width = given.shape[-2:]
        padded = pad_to_multiple(given, self.multiple)
        output = self.body(padded)[..., : self.scale * height, : self.scale * width]
        return form_image(self.formation, given if self.formation == "level" else given[:, : self.channels], output)


def reset_convolutions(body: nn.Module, generator: torch.Generator | None = None) -> None:
    """Draw a body's convolutions anew for ReLUs (He et al. 2015, fan-in), biases zero; reset its batch norms.

    Args:
        body: The body.
        generator: Source of the draws; torch's global generator without one.
    """
    for module in body.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()


class Recognised(NamedTuple):
    """What an architecture reads out of the tensors of a file.

    Attributes:
        options: Arguments that build the network, as its tensors tell them.
        state: The file's tensors under the network's own names, completed where the file's convention leaves
            something out (a bias that is zero).
        source: Name in the file of each of the network's own names, for messages.
        guessed: Arguments that the tensors leave open, where no header says them.
    """

    options: dict[str, Any]
    state: dict[str, Tensor]
    source: dict[str, str]
    guessed: Mapping[str, Any] = MappingProxyType({})
