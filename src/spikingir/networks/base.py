"""What every restoration network is: a body and an image formation step."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from spikingir.spiking.formation import ImageFormation, form_image


class RestorationNetwork(nn.Module):
    """A body, converted to spikes, and an image formation step, which stays analog.

    ``restored = form(image, body(image))``, see :func:`spikingir.spiking.formation.form_image`.

    Args:
        body: Network from the degraded image to the quantity that the formation needs (DnCNN: the noise;
            AOD-Net: the map ``K``).
        formation: Name of the image formation.
        channels: Channels of the image.

    Shape:
        ``(B, channels, H, W)`` to the same.
    """

    def __init__(self, body: nn.Module, formation: ImageFormation, channels: int) -> None:
        super().__init__()
        self.body = body
        self.formation: ImageFormation = formation
        self.channels = channels

    @property
    def options(self) -> dict[str, int]:
        """Arguments that build this network anew; empty where it has no choices."""
        return {}

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw the weights anew, as training starts from.

        Args:
            generator: Source of the draws; torch's global generator without one.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say what training starts from")

    def forward(self, image: Tensor) -> Tensor:
        """Restored image."""
        return form_image(self.formation, image, self.body(image))


class Recognised(NamedTuple):
    """What an architecture reads out of the tensors of a file.

    Attributes:
        options: Arguments that build the network.
        state: The file's tensors under the network's own names, completed where the file's convention leaves
            something out (a bias that is zero).
        source: Name in the file of each of the network's own names, for messages.
    """

    options: dict[str, int]
    state: dict[str, Tensor]
    source: dict[str, str]
