"""QCFS: the quantised activation of Bu et al. 2022, to train an ANN with before its conversion."""

import torch
from torch import Tensor, nn

from spikingir.spiking.firing import PhasedFiring


class QCFS(nn.Module):
    """Quantisation-clip-floor-shift activation, in place of ReLU.

    ``y = lambda clip(floor(x L / lambda + 1/2) / L, 0, 1)``, the floor straight-through, ``lambda`` trained per layer.
    It is the phased schedule of an IF neuron with ``theta = lambda`` and ``T = L``, and is computed as that.

    Args:
        levels: ``L``, the number of steps of the quantiser.
        clip_level: Initial ``lambda``.

    Shape:
        ``(B, C, H, W)`` to the same.

    Source:
        Bu et al. 2022, "Optimal ANN-SNN Conversion for High-accuracy and Ultra-low-latency SNNs", Eq. 15.
    """

    def __init__(self, levels: int = 8, clip_level: float = 1.0) -> None:
        super().__init__()
        if levels < 1:
            raise ValueError(f"levels is {levels}; a quantiser has at least 1")
        if not clip_level > 0:
            raise ValueError(f"clip_level is {clip_level}; it must be positive")
        self.levels = levels
        self.log_clip_level = nn.Parameter(torch.tensor([clip_level]).log())

    def forward(self, x: Tensor) -> Tensor:
        """Quantised activation."""
        quantised: Tensor = PhasedFiring.apply(x, self.log_clip_level.exp(), self.levels, False, False)  # type: ignore[no-untyped-call]
        return quantised
