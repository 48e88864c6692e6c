"""Neurons against a float64 reference written plainly: forward, gradients, precision, memory."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import spikingir.conversion.lan  # noqa: F401  (registers its neuron)
from spikingir.spiking.firing import phased_backward, phased_forward
from spikingir.spiking.kinds import NEURONS
from spikingir.spiking.neurons import MPRN, IFNeuron
from spikingir.spiking.surrogate import SURROGATES

DERIVATIVES = {
    "triangle": lambda u: (1 - u.abs()).clamp(min=0),
    "rectangle": lambda u: (u.abs() < 0.5).double(),
    "arctan": lambda u: 1 / (1 + (torch.pi * u) ** 2),
}
BATCH, CHANNELS, HEIGHT, WIDTH = 2, 3, 2, 3


class Step(torch.autograd.Function):
    """A spike: 1 where ``u >= 0``, with a surrogate derivative."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, surrogate: str) -> Tensor:
        ctx.save_for_backward(u)
        ctx.surrogate = surrogate
        return (u >= 0).to(u.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0] * DERIVATIVES[ctx.surrogate](ctx.saved_tensors[0]), None


def reference(
    currents: Tensor | None, constant: Tensor | None, neuron: IFNeuron, time_steps: int, delay: int
) -> tuple[Tensor, Tensor, Tensor]:
    """docs/method.md, section 1, 2 and 6, one step after the other, autograd doing the rest."""
    theta, beta = (p.exp().view(-1, 1, 1) for p in (neuron.log_threshold, getattr(neuron, "log_beta", torch.zeros(1))))
    shape = currents[0].shape if currents is not None else constant.shape
    v = (neuron.v0 * theta).expand(shape)

    def current(t: int) -> Tensor:
        varying = torch.zeros(()) if currents is None else currents[t]
        return varying + (0 if constant is None or t == time_steps else constant)

    count = torch.zeros(())

    def fire(v: Tensor, level: float) -> Tensor:
        nonlocal count
        spike = Step.apply(v / theta - level, neuron.surrogate)
        count = count + spike.sum()
        if not neuron.signed:
            return spike
        negative = Step.apply(-v / theta - level, neuron.surrogate)
        count = count + negative.sum()
        return spike - negative

    fired = []
    for t in range(min(delay, time_steps)):
        v = v + current(t)
    for t in range(time_steps):
        if t + delay < time_steps:
            v = v + current(t + delay)
        fired.append(theta * fire(v, 1))
        v = v - fired[-1]
    if neuron.extended:
        v = v + current(time_steps)
        fired.append(beta * theta * fire(v, neuron.alpha))
        v = v - fired[-1]
    return torch.stack(fired), v, count


def leaf(*shape: int, generator: torch.Generator, scale: float = 1.0, shift: float = 0.0) -> Tensor:
    values = torch.randn(shape, generator=generator, dtype=torch.float64) * scale + shift
    return values.requires_grad_()


@st.composite
def windows(draw: st.DrawFn) -> dict[str, Any]:
    """A window's settings: everything but the kind of neuron."""
    time_steps = draw(st.integers(1, 5))
    return {
        "time_steps": time_steps,
        "delay": draw(st.integers(0, time_steps - 1)),
        "v0": draw(st.sampled_from([0.0, 0.3, 0.5])),
        "per_channel": draw(st.booleans()),
        "varying": draw(st.booleans()),
        "constant": draw(st.sampled_from(["none", "uniform", "full"])),
        "seed": draw(st.integers(0, 99)),
    }


def build(
    extended: bool, signed: bool, surrogate: str, window: dict[str, Any], generator: torch.Generator
) -> tuple[IFNeuron, Tensor | None, Tensor | None]:
    """Neuron, currents and constant current of a window, all float64."""
    count = CHANNELS if window["per_channel"] else 1
    theta = 0.5 + torch.rand(count, generator=generator, dtype=torch.float64)
    settings_of = {"v0": window["v0"], "signed": signed, "surrogate": surrogate}
    neuron = IFNeuron(theta, **settings_of)
    if extended:
        beta = 0.5 + torch.rand(count, generator=generator, dtype=torch.float64)
        alpha = max(0.501, window["v0"] + 0.5)
        neuron = MPRN(theta, beta, alpha=alpha, **settings_of)
    shape = (BATCH, CHANNELS, HEIGHT, WIDTH)
    still = None
    if window["constant"] == "full" or not window["varying"]:
        still = leaf(*shape, generator=generator, shift=0.3)
    elif window["constant"] == "uniform":
        still = leaf(1, CHANNELS, 1, 1, generator=generator, scale=0.5)
    steps = window["time_steps"] + extended
    currents = leaf(steps, *shape, generator=generator, shift=0.3) if window["varying"] else None
    return neuron, currents, still


@pytest.mark.parametrize("surrogate", SURROGATES)
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("extended", [False, True], ids=["if", "mprn"])
@settings(max_examples=20, deadline=None, derandomize=True)
@given(window=windows())
def test_neuron_and_its_gradients(extended: bool, signed: bool, surrogate: str, window: dict[str, Any]) -> None:
    generator = torch.Generator().manual_seed(window["seed"])
    neuron, currents, constant = build(extended, signed, surrogate, window, generator)
    time_steps, delay = window["time_steps"], window["delay"]
    leaves = [x for x in (currents, constant, *neuron.parameters()) if x is not None]

    found = neuron(currents, constant, time_steps=time_steps, delay=delay)
    wanted = reference(currents, constant, neuron, time_steps, delay)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)

    weights = [torch.randn(x.shape, generator=generator, dtype=torch.float64) for x in found]
    grads = torch.autograd.grad(sum((w * x).sum() for w, x in zip(weights, found, strict=True)), leaves)
    expected = torch.autograd.grad(sum((w * x).sum() for w, x in zip(weights, wanted, strict=True)), leaves)
    assert any(grad.any() for grad in grads)
    for a, b in zip(grads, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("read", ["spikes", "residual", "count"])
def test_gradient_where_one_of_the_results_is_read(read: str) -> None:
    generator = torch.Generator().manual_seed(0)
    currents = leaf(4, BATCH, CHANNELS, HEIGHT, WIDTH, generator=generator)
    neuron = MPRN(torch.ones(CHANNELS, dtype=torch.float64))
    which = ["spikes", "residual", "count"].index(read)
    leaves = [currents, neuron.log_threshold, neuron.log_beta]
    found = torch.autograd.grad(neuron(currents)[which].square().sum(), leaves)
    expected = reference(currents, None, neuron, 3, 0)[which].square().sum()
    wanted = torch.autograd.grad(expected, leaves, materialize_grads=True)  # no count depends on the last amplitude
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("signed", [False, True])
def test_phased_quantiser_and_its_straight_through_gradients(signed: bool, per_channel: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    count, time_steps = CHANNELS if per_channel else 1, 4
    neuron = IFNeuron(0.5 + torch.rand(count, generator=generator, dtype=torch.float64), signed=signed)
    z = leaf(BATCH, CHANNELS, 8, 8, generator=generator)
    theta = neuron.log_threshold.exp().view(-1, 1, 1)

    x = z / theta
    counts = torch.floor(x.detach() * time_steps + 0.5)
    low = -time_steps if signed else 0
    inside = (counts >= low) & (counts <= time_steps)
    rounded = x + (counts / time_steps - x).detach()  # the value of the count, the derivative of x
    wanted = theta * torch.where(inside, rounded, counts.clamp(low, time_steps) / time_steps)
    found = neuron.quantise(z, time_steps)
    torch.testing.assert_close(found, wanted)
    assert 0 < inside.sum() < inside.numel()

    weight = torch.randn(z.shape, generator=generator, dtype=torch.float64)
    leaves = [z, neuron.log_threshold]
    grads = torch.autograd.grad((weight * found).sum(), leaves)
    for a, b in zip(grads, torch.autograd.grad((weight * wanted).sum(), leaves), strict=True):
        torch.testing.assert_close(a, b)
    assert torch.equal(
        grads[0], torch.where(inside, weight, 0)
    )  # docs/method.md, section 6: dr/dz is 1 inside the clip


@pytest.mark.parametrize("constant", [None, torch.zeros(1, 1, 1, 1, dtype=torch.bfloat16)])
@pytest.mark.parametrize("grad", [False, True])
def test_bfloat16_currents_keep_float32_membranes(grad: bool, constant: Tensor | None) -> None:
    """600 currents of 2^-8: a bfloat16 sum would stand still at 1 and never reach the threshold of 2."""
    currents = torch.full((600, 1, 1, 1, 1), 2.0**-8, dtype=torch.bfloat16, requires_grad=grad)
    with torch.set_grad_enabled(grad):
        fired, residual, _ = IFNeuron(2.0)(currents, constant)
    assert residual.dtype == torch.float32
    assert fired.dtype == torch.bfloat16
    assert fired.flatten().nonzero().flatten().tolist() == [511]
    assert residual.item() == 600 / 256 - 2
    if grad:
        fired.sum().backward()
        assert currents.grad is not None
        assert currents.grad.dtype == torch.bfloat16


@settings(max_examples=40, deadline=None, derandomize=True)
@given(window=windows(), extended=st.booleans(), signed=st.booleans(), overwrite=st.booleans())
def test_inference_gives_the_numbers_of_training(
    window: dict[str, Any], extended: bool, signed: bool, overwrite: bool
) -> None:
    generator = torch.Generator().manual_seed(window["seed"])
    neuron, currents, constant = build(extended, signed, "triangle", window, generator)
    time_steps, delay = window["time_steps"], window["delay"]
    wanted = neuron(currents, constant, time_steps=time_steps, delay=delay)
    assert wanted.weighted_spikes.requires_grad
    before = None if currents is None else currents.detach().clone()
    with torch.no_grad():
        found = neuron(currents, constant, time_steps=time_steps, delay=delay, overwrite=overwrite)
    assert found.spike_count is None
    for a, b in zip(found[:2], wanted[:2], strict=True):
        assert not a.requires_grad
        assert torch.equal(a, b)
    if currents is not None and not overwrite:
        assert torch.equal(currents, before)


def test_overwrite_takes_the_memory_of_channels_last_currents() -> None:
    currents = torch.rand(4 * 2, 3, 5, 5).contiguous(memory_format=torch.channels_last).view(4, 2, 3, 5, 5)
    with torch.no_grad():
        fired, *_ = IFNeuron(1.0)(currents, overwrite=True)
    assert fired.data_ptr() == currents.data_ptr()


def test_one_pixel_and_no_image() -> None:
    """H = W = B = 1: a full constant current has the shape of a uniform one."""
    constant = torch.tensor([0.4, 0.8]).view(1, 2, 1, 1)
    fired, *_ = IFNeuron(1.0)(None, constant, time_steps=5)
    assert fired.sum(0).flatten().tolist() == [2, 4]
    fired, *_ = IFNeuron(1.0)(torch.zeros(5, 1, 2, 1, 1), constant)
    assert fired.sum(0).flatten().tolist() == [2, 4]
    with torch.no_grad():
        assert IFNeuron(1.0)(torch.zeros(5, 0, 2, 3, 4)).weighted_spikes.shape == (5, 0, 2, 3, 4)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning")  # torch's own, at its import
def test_compiled_neurons_give_the_eager_numbers() -> None:
    generator = torch.Generator().manual_seed(2)
    results = []
    values = torch.randn(4, BATCH, CHANNELS, 4, 4, generator=generator)
    shift = torch.randn(1, CHANNELS, 1, 1, generator=generator)
    for compiled in (False, True):
        neuron = MPRN(torch.tensor([0.5, 1.0, 1.5]), torch.tensor([0.8, 1.0, 1.2]), signed=True)
        neuron.compiled = compiled
        currents = values.clone().requires_grad_()
        constant = shift.clone().requires_grad_()
        firing = neuron(currents, constant)
        quantised = neuron.quantise(currents[0], 4)
        assert firing.spike_count is not None
        loss = firing.weighted_spikes.square().sum() + firing.residual_membrane.sum() + 0.3 * firing.spike_count
        (loss + quantised.square().sum()).backward()
        grads = [x.grad for x in (currents, constant, neuron.log_threshold, neuron.log_beta)]
        results.append([*firing, quantised, *grads])
    for eager, compiled_ in zip(*results, strict=True):
        torch.testing.assert_close(compiled_, eager, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NEURONS)
@pytest.mark.parametrize("signed", [False, True])
def test_neuron_fires_as_the_equation_of_its_kind(name: str, signed: bool) -> None:
    kind, generator = NEURONS[name], torch.Generator().manual_seed(0)
    assert kind.equation is not None
    neuron = kind.neuron(torch.tensor(0.75, dtype=torch.float64), signed=signed)
    currents = torch.randn(6 + neuron.extended, 40, generator=generator, dtype=torch.float64)
    if kind.adapts:
        neuron.adapt([(currents.view(-1, 1, 1, 5, 8), None)], len(currents), 0.3)
    found = neuron(currents.view(-1, 1, 1, 5, 8)).weighted_spikes.reshape(currents.shape)
    wanted = [kind.equation(neuron, pixel) for pixel in currents.T.tolist()]
    torch.testing.assert_close(found.T, torch.tensor(wanted, dtype=torch.float64), rtol=0, atol=1e-12)
    assert found.any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize(("levels", "signed"), [(1, False), (5, True), (31, False)])
def test_the_quantiser_is_its_equation_bit_for_bit(levels: int, signed: bool, dtype: torch.dtype) -> None:
    """Forward and straight-through backward are written for speed; here as docs/method.md, section 6, has them."""
    generator = torch.Generator().manual_seed(levels)
    exact = torch.promote_types(dtype, torch.float32)
    theta = torch.rand(4, generator=generator, dtype=exact) + 0.1
    z, grad = (2 * torch.randn(2, 500, 4, generator=generator)).to(dtype)
    z[:3] = torch.tensor([-2.0, 0.0, 2.0])[:, None] * theta  # at and beyond the ends
    wide = z.to(exact)
    rounded = (wide * levels / theta + 0.5).floor()
    counts = rounded.clamp(-levels if signed else 0, levels)
    inside, zero = rounded == counts, torch.zeros((), dtype=exact)
    of_theta = grad.to(exact) * (counts / levels - torch.where(inside, wide / theta, zero))

    assert torch.equal(phased_forward(z, theta, levels, signed), (counts * theta / levels).to(dtype))
    found = phased_backward(grad, z, theta, levels, signed)
    assert torch.equal(found[0], torch.where(inside, grad, zero.to(dtype)))
    assert torch.equal(found[1], of_theta.sum(0))
    shared = phased_backward(grad, z, theta[:1], levels, signed)[1]  # one threshold for all channels
    assert shared.shape == (1,)
    assert 0 < inside.double().mean() < 1
