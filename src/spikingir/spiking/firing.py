"""The arithmetic of firing and its derivative, on arrays ``(steps, positions, channels)``.

Two pairs of functions, forward and backward: the clocked one, step by step, and the phased one, a whole window at
once. They are plain tensor code without autograd, so that ``torch.compile`` turns each into one pass over memory
and the result without it is the same; :class:`ClockedFiring` and :class:`PhasedFiring` make them differentiable.

Channels are last here because a channels-last image is this array without a copy.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from spikingir.spiking.surrogate import SURROGATES


@dataclass(frozen=True)
class Clock:
    """What a layer does at each of its steps; all of it static, so that a compiled kernel exists per clock.

    Attributes:
        time_steps: ``T``.
        extended: Whether step ``T + 1`` follows (MPRN).
        alpha: Firing level of the extended step in units of the threshold.
        v0: Initial membrane potential in units of the threshold.
        signed: Whether the neuron also fires -1.
        delay: Inputs that the layer collects before it fires; 0 is clocked.
        surrogate: Name of the surrogate derivative.
    """

    time_steps: int
    extended: bool
    alpha: float
    v0: float
    signed: bool
    delay: int
    surrogate: str

    @property
    def steps(self) -> int:
        """Steps charged: ``T``, and one more with the extended step."""
        return self.time_steps + self.extended


def _accumulator(current: Tensor) -> torch.dtype:
    """Membranes are kept in float32 at least: a sum of many bfloat16 currents is not a bfloat16."""
    return torch.promote_types(current.dtype, torch.float32)


def fire(v: Tensor, level: Tensor, amplitude: Tensor, signed: bool) -> Tensor:
    """Weighted spike of one step: ``a s`` with ``s = [v >= level]``, for a signed neuron -1 where ``v <= -level``."""
    # not torch.where, which without a compiler takes four times as long as all of this
    spike = (v >= level).to(v.dtype) * amplitude
    return spike - (v <= -level).to(v.dtype) * amplitude if signed else spike


def _membranes(
    currents: Tensor | None,
    constant: Tensor,
    theta: Tensor,
    beta: Tensor,
    clock: Clock,
    before: list[Tensor] | None = None,
    fired: Tensor | None = None,
) -> tuple[list[Tensor], Tensor]:
    """Amplitude-weighted spikes of every step and the residual membrane.

    ``before`` collects the membranes before firing. The spikes are returned as a list, or written into ``fired``,
    which may be ``currents`` itself: no step reads a current that an earlier one has overwritten.
    """
    dtype = _accumulator(constant)
    constant, theta, beta = constant.to(dtype), theta.to(dtype), beta.to(dtype)

    def current(t: int) -> Tensor:
        return constant if currents is None else currents[t].to(dtype) + constant

    v = clock.v0 * theta
    for t in range(clock.delay):
        v = v + current(t)
    spikes = []
    for step in range(clock.steps):
        last = step == clock.time_steps
        if last:
            v = v if currents is None else v + currents[step].to(dtype)
        elif step + clock.delay < clock.time_steps:
            v = v + current(step + clock.delay)
        level = clock.alpha * theta if last else theta
        amplitude = beta * theta if last else theta
        spike = fire(v, level, amplitude, clock.signed)
        if before is not None:
            before.append(v)
        if fired is None:
            spikes.append(spike)
        else:
            fired[step] = spike
        v = v - spike
    return spikes, v


def clocked_forward(
    currents: Tensor | None, constant: Tensor, theta: Tensor, beta: Tensor, clock: Clock
) -> tuple[Tensor, Tensor, Tensor]:
    """Amplitude-weighted spikes, residual membrane and number of spikes of one layer, step by step.

    For t = 1..T: ``v'(t) = v(t-1) + I(t)``, ``s(t) = [v'(t) >= theta]``, ``v(t) = v'(t) - theta s(t)`` with
    ``v(0) = v0 theta``; at T+1 level ``alpha theta`` and reset ``beta theta`` (SpikingIR, Eq. 5-7).

    Args:
        currents: Time-varying part of the current, or None where all of it is constant.
        constant: Constant part, added at t <= T only.
        theta: Thresholds.
        beta: Amplitude of the extended step in units of the threshold.
        clock: The layer's steps.

    Shape:
        ``currents`` (S, N, C) with S = T, or T + 1 with the extended step; ``constant`` (N, C) or (1, C);
        ``theta`` and ``beta`` (C,) or (1,). Result: (S, N, C), (N, C) and a scalar.
    """
    fired, residual = _membranes(currents, constant, theta, beta, clock)
    dtype = constant.dtype if currents is None else currents.dtype
    # summed over time first: a reduction over all axes at once takes twenty times as long when compiled
    of_each = sum(((spike != 0).to(residual.dtype) for spike in fired), start=torch.zeros_like(residual))
    return torch.stack(fired).to(dtype), residual, of_each.sum()


def clocked_inference(
    currents: Tensor | None, constant: Tensor, theta: Tensor, beta: Tensor, clock: Clock, overwrite: bool
) -> tuple[Tensor, Tensor]:
    """:func:`clocked_forward` with the spikes in one buffer, that of ``currents`` if ``overwrite``, uncounted."""
    if currents is None:
        fired = constant.new_empty(clock.steps, *constant.shape)
    else:
        fired = currents if overwrite else torch.empty_like(currents)
    _, residual = _membranes(currents, constant, theta, beta, clock, fired=fired)
    return fired, residual


def clocked_backward(
    grad_fired: Tensor,
    grad_residual: Tensor | None,
    grad_count: Tensor,
    currents: Tensor | None,
    constant: Tensor,
    theta: Tensor,
    beta: Tensor,
    clock: Clock,
) -> tuple[Tensor | None, Tensor, Tensor, Tensor]:
    """Gradients of currents, constant, theta and beta by back-propagation through time.

    With ``y = a s`` (``a = theta``, at T+1 ``beta theta``) and ``v = v' - y``: the error of ``y`` is
    ``e = dL/dy - dL/dv`` (the reset stays attached), ``ds/dv' = g(u)/theta``, ``ds/dtheta = -g(u) v'/theta^2``.
    The count is the sum of ``|s|``. It has its place here as it then costs no pass over memory of its own.
    The membranes are computed again rather than kept: memory is dearer than arithmetic.
    """
    dtype = _accumulator(constant)
    before: list[Tensor] = []
    fired, residual = _membranes(currents, constant, theta, beta, clock, before)
    theta, beta = theta.to(dtype), beta.to(dtype)
    derivative = SURROGATES[clock.surrogate]
    zero = torch.zeros_like(residual)
    grad_v = zero if grad_residual is None else grad_residual.to(dtype)
    grad_theta, grad_beta, grad_constant = zero, zero, zero
    grads: list[Tensor] = [zero] * clock.steps
    for step in reversed(range(clock.steps)):
        last = step == clock.time_steps
        v, spike = before[step], fired[step]
        level, amplitude = (clock.alpha, beta * theta) if last else (1.0, theta)
        slope = rise = derivative(v / theta - level)
        if clock.signed:
            negative = derivative(-v / theta - level)
            slope, rise = slope + negative, slope - negative
        error = grad_fired[step].to(dtype) - grad_v
        grad_spike = (amplitude * error * slope + grad_count * rise) / theta
        grad_theta = grad_theta + spike / theta * error - grad_spike * v / theta
        if last:
            grad_beta = spike / beta * error
        grad_v = grad_v + grad_spike
        if last:
            grads[step] = grad_v
        elif step + clock.delay < clock.time_steps:
            grads[step + clock.delay] = grad_v
            grad_constant = grad_constant + grad_v
    for t in range(clock.delay):
        grads[t] = grad_v
        grad_constant = grad_constant + grad_v
    grad_theta = grad_theta + clock.v0 * grad_v
    return (
        None if currents is None else torch.stack(grads).to(currents.dtype),
        grad_constant.sum_to_size(constant.shape).to(constant.dtype),
        grad_theta.sum(0).sum_to_size(theta.shape),
        grad_beta.sum(0).sum_to_size(beta.shape),
    )


def phased_counts(current: Tensor, theta: Tensor, time_steps: int, signed: bool) -> Tensor:
    """Spikes of a whole window: ``n = clip(floor(T z / theta + 1/2), 0, T)``, for a signed neuron ``-T..T``.

    Args:
        current: Mean current ``z`` over the window.
        theta: Thresholds, broadcast against ``current``.
        time_steps: ``T``.
        signed: Whether the neuron also fires -1.
    """
    return _rounded(current, theta, time_steps).clamp_(-time_steps if signed else 0, time_steps)


def _rounded(current: Tensor, theta: Tensor, time_steps: int) -> Tensor:
    """``floor(T z / theta + 1/2)``. In place, as below: without a compiler each pass over new memory takes its time."""
    return (current * time_steps).div_(theta).add_(0.5).floor_()


def phased_forward(current: Tensor, theta: Tensor, time_steps: int, signed: bool) -> Tensor:
    """Decoded value ``r = theta n / T`` of the phased schedule, see :func:`phased_counts`."""
    z = current.to(_accumulator(current))
    return phased_counts(z, theta, time_steps, signed).mul_(theta).div_(time_steps).to(current.dtype)


def phased_backward(
    grad: Tensor, current: Tensor, theta: Tensor, time_steps: int, signed: bool
) -> tuple[Tensor, Tensor]:
    """Straight-through gradients: ``dr/dz = 1`` inside the clip, ``dr/dtheta = n/T - z/theta`` (inside) or ``n/T``."""
    dtype = _accumulator(current)
    z, grad = current.to(dtype), grad.to(dtype)
    rounded = _rounded(z, theta, time_steps)
    least, most = -time_steps if signed else 0, time_steps

    def inside(values: Tensor) -> Tensor:
        # values where the clip changes nothing, else 0: rounded is whole, and torch.where takes many times as long
        kept: Tensor = torch.ops.aten.hardtanh_backward(values, rounded, least - 0.5, most + 0.5)
        return kept

    of_theta = rounded.clamp(least, most).div_(time_steps).sub_(inside(z / theta)).mul_(grad)
    return inside(grad).to(current.dtype), of_theta.sum(0).sum_to_size(theta.shape)


@cache
def _kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    return torch.compile(function)


def _call(function: Callable[..., Any], compiled: bool, *arguments: Any) -> Any:
    """Run ``function``, compiled where asked for.

    One kernel is compiled per clock and layout, which for a benchmark over many T is more than dynamo's limit. A
    kernel must not depend on who will ask for gradients: it gets detached tensors.
    """
    if not compiled:
        return function(*arguments)
    arguments = tuple(a.detach() if isinstance(a, Tensor) else a for a in arguments)
    with torch._dynamo.config.patch(recompile_limit=256):
        return _kernel(function)(*arguments)


class ClockedFiring(torch.autograd.Function):
    """:func:`clocked_forward` with :func:`clocked_backward` as its derivative."""

    @staticmethod
    def forward(
        ctx: Any,
        currents: Tensor | None,
        constant: Tensor,
        theta: Tensor,
        beta: Tensor,
        clock: Clock,
        compiled: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Weighted spikes, residual membrane, number of spikes."""
        ctx.save_for_backward(currents, constant, theta, beta)
        ctx.clock, ctx.compiled = clock, compiled
        ctx.set_materialize_grads(False)
        fired, residual, count = _call(clocked_forward, compiled, currents, constant, theta, beta, clock)
        return fired, residual, count

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        """Gradients of currents, constant, theta and beta."""
        currents, constant, theta, beta = ctx.saved_tensors
        grad_fired, grad_residual, grad_count = grads
        if grad_fired is None:
            steps, size = ctx.clock.steps, constant.shape if currents is None else currents.shape[1:]
            grad_fired = constant.new_zeros(steps, *size)
        if grad_count is None:
            grad_count = theta.new_zeros(())
        result = _call(
            clocked_backward,
            ctx.compiled,
            grad_fired,
            grad_residual,
            grad_count,
            currents,
            constant,
            theta,
            beta,
            ctx.clock,
        )
        return (*result, None, None)


class PhasedFiring(torch.autograd.Function):
    """:func:`phased_forward` with the straight-through :func:`phased_backward`."""

    @staticmethod
    def forward(ctx: Any, current: Tensor, theta: Tensor, time_steps: int, signed: bool, compiled: bool) -> Tensor:
        """Decoded values."""
        ctx.save_for_backward(current, theta)
        ctx.time_steps, ctx.signed, ctx.compiled = time_steps, signed, compiled
        decoded: Tensor = _call(phased_forward, compiled, current, theta, time_steps, signed)
        return decoded

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of the mean current and of theta."""
        result = _call(phased_backward, ctx.compiled, grads[0], *ctx.saved_tensors, ctx.time_steps, ctx.signed)
        return (*result, None, None, None)
