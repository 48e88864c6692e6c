"""The energy term of the loss: synaptic operations, through which gradients flow."""

import torch
from torch import Tensor, nn

from spikingir.energy.operations import count_macs, operations_per_layer
from spikingir.spiking.network import SpikingNetwork

_SIDE = 64  # a multiple of any network's strides; by border rule "full" operations a pixel are the same at any size


class WithSpikeCost(nn.Module):
    """A spiking network that gives its cost beside the image.

    ``cost = sum over layers (spikes a neuron x neurons x fan-out) / MACs``: accumulates of the network for each
    multiply-accumulate of its ANN, which is also the spikes that a synapse sees. It is the L1 norm of all spikes,
    weighted by what they cause.

    Args:
        network: The network.

    Shape:
        ``(B, C, H, W)`` to the restored image of that shape and a scalar.
    """

    def __init__(self, network: SpikingNetwork) -> None:
        super().__init__()
        self.network = network
        size = (_SIDE, _SIDE)
        macs = count_macs(network, size)
        self._share = {name: count / macs for name, count in operations_per_layer(network, size).items()}

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Restored image and cost."""
        restored, counts = self.network.restore_and_count(image)
        return restored, torch.stack([self._share[name] * count for name, count in counts.items()]).sum()
