"""QCFS: the quantised activation of Bu et al. 2022, to train an ANN with before its conversion."""

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from spikingir.conversion.ranges import StreamingRange
from spikingir.graph.activations import QuantisedReLU
from spikingir.graph.errors import ConversionError
from spikingir.spiking.firing import PhasedFiring


class QCFS(QuantisedReLU):
    """Quantisation-clip-floor-shift activation, in place of ReLU.

    ``y = lambda clip(floor(x L / lambda + 1/2) / L, 0, 1)``, the floor straight-through, ``lambda`` trained, one for
    the layer as published, or one for each channel. It is the phased schedule of an IF neuron with ``theta = lambda``
    and ``T = L``, and is computed as that.

    Args:
        levels: ``L``, the number of steps of the quantiser.
        clip_level: Initial ``lambda``: one, or one for each channel, (C,).

    Attributes:
        compiled: Whether it runs through ``torch.compile``; the numbers are the same.

    Shape:
        ``(B, C, H, W)`` to the same.

    Source:
        Bu et al. 2022, "Optimal ANN-SNN Conversion for High-accuracy and Ultra-low-latency SNNs", Eq. 15.
    """

    def __init__(self, levels: int = 8, clip_level: float | Tensor = 1.0) -> None:
        super().__init__()
        if levels < 1:
            raise ValueError(f"levels is {levels}; a quantiser has at least 1")
        clip = torch.as_tensor(clip_level, dtype=torch.float32).reshape(-1)
        if not clip.is_meta and not (clip > 0).all():  # on torch's meta device there are no values
            raise ValueError(f"clip_level is {clip_level}; it must be positive")
        self.levels = levels
        self.compiled = False
        self.log_clip_level = nn.Parameter(clip.log())

    @property
    def clip_level(self) -> Tensor:
        """``lambda``."""
        return self.log_clip_level.exp()

    def forward(self, x: Tensor) -> Tensor:
        """Quantised activation."""
        quantised: Tensor = PhasedFiring.apply(  # type: ignore[no-untyped-call]
            x, self.clip_level.view(-1, 1, 1), self.levels, False, self.compiled
        )
        return quantised


def release_activations(network: nn.Module) -> nn.Module:
    """A copy of ``network`` with ``nn.ReLU`` in place of every QCFS: neither rounded nor clipped.

    Trained on a little, it is the conventional network of as many hours as the quantised one.
    """
    network = copy.deepcopy(network)
    for name in [name for name, module in network.named_modules() if isinstance(module, QCFS)]:
        network.set_submodule(name, nn.ReLU())
    return network


@torch.no_grad()
def quantise_activations(
    network: nn.Module,
    calibration_images: Tensor,
    levels: int = 8,
    percentile: float = 99.0,
    *,
    per_channel: bool = False,
    bits: Sequence[int] = (),
) -> nn.Module:
    """A copy of ``network`` with QCFS in place of every ``nn.ReLU``, to be trained on.

    Batch norm stays, which keeps the training steady: its layers see activations of one scale, and the clip bounds
    their tails.

    Args:
        network: Trained network whose activations are ``nn.ReLU`` modules.
        calibration_images: Degraded images that the initial clip levels are taken from.
        levels: ``L``.
        percentile: Of each layer's or channel's activations, for its initial clip level.
        per_channel: One clip level for each channel, or one for each layer, as published.
        bits: Of a binary code, bits of the activations at each resolution, finest first, the last for all that are
            coarser: ``2^bits - 1`` levels in place of ``levels``.

    Shape:
        ``calibration_images``: (B, C, H, W).

    Raises:
        ConversionError: The network has no ``nn.ReLU`` module.
    """
    network = copy.deepcopy(network).eval()
    ranges: dict[str, StreamingRange] = {}
    heights: dict[str, int] = {}

    def observe(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            ranges.setdefault(name, StreamingRange(output.shape[1])).update(output)
            heights[name] = output.shape[-2]

        return hook

    found = {name: module for name, module in network.named_modules() if isinstance(module, nn.ReLU)}
    if not found:
        raise ConversionError(f"{type(network).__name__} has no nn.ReLU module to put QCFS in the place of")
    hooks = [module.register_forward_hook(observe(name)) for name, module in found.items()]
    network(calibration_images)
    scales = sorted(set(heights.values()), reverse=True)
    for hook, name in zip(hooks, found, strict=True):
        hook.remove()
        if bits:
            levels = 2 ** bits[min(scales.index(heights[name]), len(bits) - 1)] - 1
        network.set_submodule(name, QCFS(levels, ranges[name].clip_level(percentile / 100, per_channel)))
    return network
