"""The energy term of the loss: synaptic operations, through which gradients flow."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from spikingir.conversion.convert import convert
from spikingir.conversion.qcfs import QCFS
from spikingir.energy.operations import count_macs, operations_per_layer
from spikingir.networks.base import RestorationNetwork
from spikingir.spiking.network import SpikingNetwork

_SIDE = 64  # a multiple of any network's strides; by border rule "full" operations a pixel are the same at any size
_EVERY = 4  # images of a batch to one whose bits are counted in training


def _shares(network: SpikingNetwork) -> dict[str, float]:
    """Synaptic operations of each layer when all its neurons fire once, of all multiply-accumulates of the ANN."""
    size = (_SIDE, _SIDE)
    macs = count_macs(network, size)
    return {name: count / macs for name, count in operations_per_layer(network, size).items()}


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
        self._share = _shares(network)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Restored image and cost."""
        restored, counts = self.network.restore_and_count(image)
        return restored, torch.stack([self._share[name] * count for name, count in counts.items()]).sum()


class WithBitCost(nn.Module):
    """A quantised ANN that gives, beside the image, about what it costs as a binary spiking network.

    ``cost = sum over layers (mean of log2(1 + n) / 2 x neurons x fan-out) / MACs``. A count ``n`` leaves as its bits
    that are 1. How many they are jumps up and down with ``n`` and has no useful gradient. Half of the bits that ``n``
    takes, smoothed, rises with ``n`` as their mean does, and is about two thirds of it. Its slope is greatest at 0, so
    that small activations vanish and large ones are hardly moved. In training one image in four is counted, which has
    the same mean and costs a quarter of the time.

    Args:
        network: A network whose activations are :class:`~spikingir.conversion.qcfs.QCFS` of ``2^bits - 1`` levels.

    Shape:
        ``(B, C, H, W)`` to the restored image of that shape and a scalar.
    """

    def __init__(self, network: RestorationNetwork) -> None:
        super().__init__()
        self.network = network
        bits = network.activation_bits
        spiking = convert(
            network,
            torch.zeros(1, network.channels + network.takes_level, _SIDE, _SIDE),
            time_steps=max(bits),
            schedule="phased",
            coding="binary",
            activation_bits=bits,
        )
        shares = _shares(spiking)
        self._share = {
            name: shares[name.removeprefix("body.").replace(".", "_")]
            for name, module in network.named_modules()
            if isinstance(module, QCFS)
        }

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Restored image and cost."""
        costs: list[Tensor] = []

        def observe(share: float) -> Callable[[QCFS, tuple[Tensor, ...], Tensor], None]:
            def hook(module: QCFS, inputs: tuple[Tensor, ...], output: Tensor) -> None:
                part = output[::_EVERY] if module.training else output
                counts = part.float() * (module.levels / module.clip_level.view(-1, 1, 1))
                costs.append(share / (2 * math.log(2)) * counts.log1p().mean())

            return hook

        # put there for each pass, so that a copy of the network has none
        hooks = [self.network.get_submodule(name).register_forward_hook(observe(s)) for name, s in self._share.items()]
        restored = self.network(image)
        for hook in hooks:
            hook.remove()
        return restored, torch.stack(costs).sum()
