"""Spiking neurons as multi-step modules on ``(T, B, C, H, W)``: IF and MPRN, unsigned and signed.

A neuron gives *weighted spikes* ``theta s(t)`` (at the extended step ``beta theta s(T+1)``): what the next layer's
raw weights read. :func:`spikingir.fold` turns them into pure 0/1 spikes.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from spikingir.errors import InputError
from spikingir.spiking.firing import Clock, ClockedFiring, PhasedFiring, clocked_inference
from spikingir.spiking.surrogate import SURROGATES, Surrogate


class Firing(NamedTuple):
    """What a neuron did.

    Attributes:
        weighted_spikes: Spikes times their amplitude in data units, ``(S, B, C, H, W)``.
        residual_membrane: ``v(end)`` in data units, ``(B, C, H, W)``.
        spike_count: Number of spikes, a scalar through which gradients flow; None where no gradients are wanted.
    """

    weighted_spikes: Tensor
    residual_membrane: Tensor
    spike_count: Tensor | None = None


class IFNeuron(nn.Module):
    """Integrate-and-fire neuron with reset by subtraction.

    ``v(t) = v(t-1) + I(t) - theta s(t)``, ``s(t) = [v(t-1) + I(t) >= theta]``, ``v(0) = v0 theta``. The signed
    neuron also fires -1 at ``v <= -theta``. Trained through the surrogate derivative ``ds/du`` at
    ``u = v/theta - 1``, passed on to ``v`` by ``1/theta`` and to ``theta`` by ``-v/theta^2``, reset attached.

    Args:
        threshold: ``theta > 0`` in data units: one value per channel, or one for the layer.
        v0: Initial membrane potential in units of the threshold, in [0, 1).
        signed: Whether the neuron also fires -1 (the output neuron of a body without a last ReLU).
        surrogate: ``triangle``, ``rectangle`` or ``arctan``.

    Attributes:
        activation_bits: Bits ``m`` of a layer of a binary network; None for as many as there are time steps.
        compiled: Whether training runs the neuron through ``torch.compile``; the numbers are the same.

    Raises:
        ValueError: A threshold that is not positive and finite, v0 outside [0, 1), an unknown surrogate.

    Source:
        Rueckauer et al. 2017; SpikingIR, Eq. 1 and 2.

    Example:
        >>> neuron = IFNeuron(1.0)
        >>> neuron(torch.full((4, 1, 1, 1, 1), 0.5)).weighted_spikes.flatten().tolist()
        [0.0, 1.0, 0.0, 1.0]
    """

    extended = False
    alpha = 1.0

    def __init__(
        self,
        threshold: Tensor | float,
        *,
        v0: float = 0.0,
        signed: bool = False,
        surrogate: Surrogate = "triangle",
    ) -> None:
        super().__init__()
        theta = _vector(threshold)
        if not (torch.isfinite(theta) & (theta > 0)).all():
            raise ValueError(f"thresholds must be positive and finite; the smallest is {theta.min().item()}")
        if not 0 <= v0 < 1:
            raise InputError(f"v0 is {v0}; the initial membrane must lie in [0, 1) thresholds")
        if surrogate not in SURROGATES:
            raise ValueError(f"unknown surrogate {surrogate!r}; known ones: {', '.join(SURROGATES)}")
        self.log_threshold = nn.Parameter(theta.log())
        self.v0, self.signed, self.surrogate = v0, signed, surrogate
        self.activation_bits: int | None = None
        self.compiled = False

    @property
    def v_threshold(self) -> Tensor:
        """``theta``, ``(C,)`` or ``(1,)``."""
        return self.log_threshold.exp()

    @property
    def beta(self) -> Tensor:
        """Amplitude of the extended step in thresholds, ``(C,)`` or ``(1,)``; 1 for the IF neuron, which has none."""
        return torch.ones_like(self.log_threshold)

    def clock(self, time_steps: int, delay: int = 0) -> Clock:
        """What it does at each of its steps."""
        return Clock(time_steps, self.extended, self.alpha, self.v0, self.signed, delay, self.surrogate)

    def forward(
        self,
        currents: Tensor | None,
        constant: Tensor | None = None,
        *,
        time_steps: int | None = None,
        delay: int = 0,
        overwrite: bool = False,
    ) -> Firing:
        """Fire over a window.

        Args:
            currents: Time-varying part of the current; None where all of it is constant.
            constant: Current added at each of the steps 1..T and not at the extended one.
            time_steps: ``T``; needed only without ``currents``.
            delay: Inputs to collect before firing; the layer's steps are then counted from its first spike.
            overwrite: Whether, without gradients, the spikes may take the memory of ``currents``.

        Shape:
            ``currents``: (S, B, C, H, W) with S = T, or T + 1 for MPRN. ``constant``: (B, C, H, W) or (1, C, 1, 1).

        Raises:
            ValueError: No currents and no constant, or no ``time_steps`` with it; a delay outside 0..T-1.
        """
        if currents is None and (constant is None or time_steps is None):
            raise ValueError("without time-varying currents a neuron needs a constant one and time_steps")
        steps = (time_steps or 0) + self.extended if currents is None else currents.shape[0]
        clock = self.clock(steps - self.extended, delay)
        if not 0 <= delay < clock.time_steps:
            raise ValueError(f"delay is {delay} with {clock.time_steps} time steps; expected 0..T-1")
        shape = currents.shape[1:] if currents is not None else constant.shape  # type: ignore[union-attr]
        batch, channels, height, width = shape
        positions = batch * height * width
        flat = None if currents is None else _channels_last(currents).reshape(steps, positions, channels)
        if constant is None:
            still = self.log_threshold.new_zeros(1, channels)
        elif constant.shape == (1, channels, 1, 1):
            still = constant.reshape(1, channels)
        else:
            still = _channels_last(constant.expand(shape)).reshape(positions, channels)
        theta, beta = self.v_threshold, self.beta
        if torch.is_grad_enabled():
            fired, residual, count = ClockedFiring.apply(flat, still, theta, beta, clock, self.compiled)  # type: ignore[no-untyped-call]
        else:
            count = None
            fired, residual = clocked_inference(flat, still, theta, beta, clock, overwrite)
        return Firing(
            fired.view(steps, batch, height, width, channels).permute(0, 1, 4, 2, 3),
            residual.view(batch, height, width, channels).permute(0, 3, 1, 2),
            count,
        )

    def quantise(self, current: Tensor, levels: int) -> Tensor:
        """Decoded value of the phased schedule: ``theta/L clip(floor(L z/theta + 1/2), 0, L)``, signed from -L.

        Args:
            current: Mean current ``z``.
            levels: ``L``, see :func:`spikingir.spiking.coding.levels`.

        Shape:
            (B, C, H, W) to the same.
        """
        batch, channels, height, width = current.shape
        flat = _channels_last(current).reshape(batch * height * width, channels)
        decoded: Tensor = PhasedFiring.apply(  # type: ignore[no-untyped-call]
            flat, self.v_threshold, levels, self.signed, self.compiled
        )
        return decoded.view(batch, height, width, channels).permute(0, 3, 1, 2)

    def spikes(self, weighted_spikes: Tensor) -> Tensor:
        """Spikes in {-1, 0, 1} of weighted spikes, in their shape and dtype."""
        return weighted_spikes.sign()

    def extra_repr(self) -> str:
        """Settings shown in the module's repr."""
        return f"channels={self.log_threshold.numel()}, v0={self.v0}, signed={self.signed}"


class MembranePotentialReuseNeuron(IFNeuron):
    """IF neuron with one extended step that reuses the residual membrane (MPRN).

    After steps 1..T: ``v = v(T) + I(T+1)``, ``s(T+1) = [v >= alpha theta]``, ``v(end) = v - beta theta s(T+1)``;
    decoded ``r = theta/T (sum_{t<=T} s(t) + beta s(T+1))``.

    Args:
        threshold: As for :class:`IFNeuron`.
        beta: Amplitude of the extended step in thresholds, ``> 0``; one per channel, or one.
        alpha: Firing level of the extended step, in (0.5, 1] and at least ``v0 + 1/2``; by default a little above.
        v0: Initial membrane potential in units of the threshold.
        signed: As for :class:`IFNeuron`; at the extended step it fires -1 at ``v <= -alpha theta``.
        surrogate: As for :class:`IFNeuron`.

    Raises:
        ValueError: As for :class:`IFNeuron`, and alpha or beta out of range.

    Source:
        SpikingIR, Eq. 5-7.
    """

    extended = True

    def __init__(
        self,
        threshold: Tensor | float,
        beta: Tensor | float = 1.0,
        *,
        alpha: float | None = None,
        v0: float = 0.0,
        signed: bool = False,
        surrogate: Surrogate = "triangle",
    ) -> None:
        super().__init__(threshold, v0=v0, signed=signed, surrogate=surrogate)
        alpha = min(1.0, v0 + 0.501) if alpha is None else alpha
        if not 0.5 < alpha <= 1:
            raise ValueError(f"alpha is {alpha}; it must lie in (0.5, 1] (SpikingIR, Eq. 5)")
        if alpha < v0 + 0.5:
            raise ValueError(
                f"alpha {alpha} with v0 {v0} rounds twice: an initial membrane of v0 needs alpha >= v0 + 1/2"
            )
        amplitude = _vector(beta).to(self.log_threshold.dtype)
        if not (torch.isfinite(amplitude) & (amplitude > 0)).all():
            raise ValueError(f"beta must be positive and finite; the smallest is {amplitude.min().item()}")
        if amplitude.numel() not in (1, self.log_threshold.numel()):
            raise ValueError(f"{amplitude.numel()} betas for {self.log_threshold.numel()} thresholds; give one each")
        self.alpha = alpha
        self.log_beta = nn.Parameter(amplitude.log().expand_as(self.log_threshold).clone())

    @property
    def beta(self) -> Tensor:
        """``beta``, ``(C,)`` or ``(1,)``."""
        return self.log_beta.exp()


MPRN = MembranePotentialReuseNeuron


def if_equation(neuron: IFNeuron, currents: Sequence[float]) -> list[float]:
    """The clocked equation of the IF neuron for one pixel of its first channel: the weighted spike of each step."""
    theta = neuron.v_threshold[0].item()
    return _spikes(neuron, currents, [(theta, theta)] * len(currents))


def mpr_equation(neuron: IFNeuron, currents: Sequence[float]) -> list[float]:
    """The same of the MPR neuron; the last current is that of the extended step (SpikingIR, Eq. 5-7)."""
    theta, beta = neuron.v_threshold[0].item(), neuron.beta[0].item()
    return _spikes(neuron, currents, [*[(theta, theta)] * (len(currents) - 1), (neuron.alpha * theta, beta * theta)])


def _spikes(neuron: IFNeuron, currents: Sequence[float], steps: Sequence[tuple[float, float]]) -> list[float]:
    """Weighted spikes of steps with a firing level and an amplitude each."""
    v, fired = neuron.v0 * neuron.v_threshold[0].item(), []
    for current, (level, amplitude) in zip(currents, steps, strict=True):
        v += current
        fired.append(amplitude if v >= level else -amplitude if neuron.signed and v <= -level else 0.0)
        v -= fired[-1]
    return fired


def _vector(value: Tensor | float) -> Tensor:
    """A number or a tensor as a vector, in the tensor's precision."""
    if isinstance(value, Tensor) and value.is_floating_point():
        return value.detach().flatten()
    return torch.as_tensor(value, dtype=torch.get_default_dtype()).flatten()


def _channels_last(x: Tensor) -> Tensor:
    """``(..., C, H, W)`` as contiguous ``(..., H, W, C)``; no copy where the memory is channels-last already."""
    return x.movedim(-3, -1).contiguous()
