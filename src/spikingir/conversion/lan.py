"""Lan et al. 2023, a reconstruction: thresholds per step from calibration, graded firing.

The paper ("Efficient converted SNN for 3D and 2D classification") gives no equations that could be followed to the
letter; this is the reading of docs/method.md, section 7, and is labelled as a reconstruction wherever it is reported.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from spikingir.spiking.kinds import NEURONS, NeuronKind
from spikingir.spiking.neurons import Firing, IFNeuron

MAX_SPIKES = 2
_CLOCKED = "thresholds per step (Lan et al.) exist on the clocked schedule alone; expected schedule clocked"


class AdaptiveThresholdNeuron(IFNeuron):
    """Neuron with a threshold of its own at each step and graded spikes; for inference only.

    ``v(t) = v(t-1) + I(t) - theta(t) s(t)``, ``s(t) = clip(floor(v/theta(t)), 0, 2)``; the signed neuron floors the
    magnitude. A graded spike is charged as many accumulates as its value.

    Args:
        clip_level: ``lambda``, the cap of the thresholds.
        signed: Whether the neuron also fires negative spikes.

    Attributes:
        step_thresholds: ``theta(t)``, (T, 1), set by :meth:`adapt`.
    """

    step_thresholds: Tensor

    def __init__(self, clip_level: Tensor, *, signed: bool = False) -> None:
        super().__init__(clip_level, signed=signed)
        self.register_buffer("step_thresholds", torch.empty(0, 1))

    def forward(
        self,
        currents: Tensor | None,
        constant: Tensor | None = None,
        *,
        time_steps: int | None = None,
        delay: int = 0,
        overwrite: bool = False,
    ) -> Firing:
        """Fire over a window; see :meth:`IFNeuron.forward`.

        Raises:
            ValueError: Another number of time steps than the thresholds were adapted for, or a delay.
        """
        steps = len(currents) if currents is not None else int(time_steps or 0)
        if delay:
            raise ValueError(_CLOCKED)
        if steps != len(self.step_thresholds):
            raise ValueError(
                f"this network's thresholds were adapted for T = {len(self.step_thresholds)}; "
                f"convert it again for T = {steps}"
            )
        fired = []
        v: Tensor | float = 0.0
        for t, theta in enumerate(self.step_thresholds):
            v = v + _current(currents, constant, t)
            fired.append(self._fire(v, theta))
            v = v - fired[-1]
        assert isinstance(v, Tensor)
        return Firing(torch.stack(fired), v)

    def quantise(self, current: Tensor, time_steps: int) -> Tensor:
        """Refused: the phased schedule has one threshold.

        Raises:
            ValueError: Always.
        """
        raise ValueError(_CLOCKED)

    def _fire(self, v: Tensor, theta: Tensor) -> Tensor:
        spikes = (v.abs() / theta).floor().clamp_max(MAX_SPIKES) * v.sign()
        return theta * (spikes if self.signed else spikes.clamp_min(0))

    def spikes(self, weighted_spikes: Tensor) -> Tensor:
        """Graded spikes, whole numbers."""
        return (weighted_spikes / self.step_thresholds.view(-1, 1, 1, 1, 1)).round()

    @torch.no_grad()
    def adapt(self, windows: Sequence[tuple[Tensor | None, Tensor | None]], time_steps: int, rho: float) -> None:
        """Set each step's threshold: the ``1 - rho`` quantile of the positive membranes, at most ``lambda``.

        Args:
            windows: Currents and constant current of this layer, one pair per calibration image.
            time_steps: ``T``.
            rho: Share of positive membranes that should reach the threshold.
        """
        membranes: list[Tensor | float] = [0.0] * len(windows)
        thresholds = []
        cap = self.v_threshold.max()
        for t in range(time_steps):
            charged = [v + _current(*window, t) for v, window in zip(membranes, windows, strict=True)]
            level = torch.cat([v.abs().flatten() if self.signed else v[v > 0] for v in charged])
            if level.numel():
                rank = max(1, min(level.numel(), round((1 - rho) * level.numel())))
                theta = torch.minimum(level.kthvalue(rank).values.clamp_min(1e-3 * cap), cap)
            else:
                theta = cap
            thresholds.append(theta.view(1))
            membranes = [v - self._fire(v, theta) for v in charged]
        self.step_thresholds = torch.stack(thresholds)


def adaptive_equation(neuron: AdaptiveThresholdNeuron, currents: Sequence[float]) -> list[float]:
    """The clocked equation for one pixel: the graded weighted spike of each step."""
    v, fired = 0.0, []
    for current, theta in zip(currents, neuron.step_thresholds.flatten().tolist(), strict=True):
        v += current
        size = min(math.floor(abs(v) / theta), MAX_SPIKES) * theta
        fired.append(size if v > 0 else -size if neuron.signed else 0.0)
        v -= fired[-1]
    return fired


NEURONS["lan"] = NeuronKind(AdaptiveThresholdNeuron, takes=("signed",), adapts=True, equation=adaptive_equation)


def _current(currents: Tensor | None, constant: Tensor | None, t: int) -> Tensor:
    if currents is None:
        assert constant is not None
        return constant
    return currents[t] if constant is None else currents[t] + constant
