"""Laws of the spiking network: recycling, schedules, memory, state, traces."""

import weakref
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from spikingir.graph.graph import Graph, Node
from spikingir.spiking.network import Schedule, SpikingConfig, SpikingNetwork
from spikingir.spiking.neurons import MPRN, IFNeuron
from spikingir.spiking.readout import PixelMapper

CONV = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1), "groups": 1}


def conv(name: str, source: str) -> Node:
    return Node(name, "conv2d", (source,), CONV, name)


def chain(depth: int) -> list[Node]:
    """Convolutions and neurons in turn; the last neuron is the output."""
    nodes = [Node("x", "input")]
    for i in range(depth):
        nodes += [conv(f"conv{i}", nodes[-1].name), Node(f"fire{i}", "neuron", (f"conv{i}",))]
    return nodes


def with_skips() -> list[Node]:
    """A convolution read by a neuron and a sum, a sum read twice, a skip from the image."""
    return [
        Node("x", "input"),
        conv("conv0", "x"),
        Node("fire0", "neuron", ("conv0",)),
        conv("conv1", "fire0"),
        Node("fire1", "neuron", ("conv1",)),
        Node("sum", "add", ("fire1", "conv1")),
        Node("fire2", "neuron", ("sum",)),
        Node("joined", "concat", ("fire2", "sum", "x")),
        conv("conv2", "joined"),
        Node("fire3", "neuron", ("conv2",)),
    ]


def build(
    nodes: list[Node],
    *,
    width: int = 4,
    extended: bool = True,
    signed: bool = True,
    alpha: float = 0.501,
    v0: float = 0.0,
    time_steps: int = 5,
    schedule: Schedule = "clocked",
    mapper: bool = True,
    recycling: bool = True,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> SpikingNetwork:
    """A network on gray images with random weights, thresholds and betas."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, dtype=dtype)

    channels = {"x": 1}
    weights, neurons = {}, {}
    for node in nodes:
        if node.op == "concat":
            channels[node.name] = sum(channels[name] for name in node.inputs)
        elif node.op != "input":
            channels[node.name] = channels[node.inputs[0]]
        last = node is nodes[-1]
        if node.weights is not None:
            incoming = channels[node.inputs[0]]
            outgoing = channels[node.name] = 1 if node.name == nodes[-1].inputs[0] else width
            spread = torch.randn(outgoing, incoming, 3, 3, generator=generator, dtype=dtype) / (3 * incoming**0.5)
            if node.name == nodes[-1].inputs[0]:  # an output of both signs
                spread = 2 * (spread - spread.mean())
            weights[node.weights] = (spread, 0.4 * random(outgoing) - 0.1)
        if node.op == "neuron":
            theta = 0.3 + 0.5 * random(channels[node.name])
            options: dict[str, Any] = {"v0": v0, "signed": signed and last}
            neurons[node.name] = (
                MPRN(theta, 0.7 + 0.5 * random(len(theta)), alpha=alpha, **options)
                if extended
                else IFNeuron(theta, **options)
            )
    config = SpikingConfig(time_steps, schedule, "identity", 1, recycling)
    return SpikingNetwork(Graph(tuple(nodes), weights), neurons, config, PixelMapper(1).to(dtype) if mapper else None)


def image(*shape: int, seed: int = 9, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def watch_output(network: SpikingNetwork) -> dict[str, Tensor]:
    """Mean input current of the last layer, filled in by the next forward."""
    seen: dict[str, Tensor] = {}
    time_steps = network.config.time_steps

    def note(module: torch.nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        currents, constant = arguments
        total = torch.zeros(()) if currents is None else currents.detach().clone().sum(0)
        seen["mean"] = total / time_steps + (0 if constant is None else constant.detach())

    network.neuron(network.layers[-1]).register_forward_pre_hook(note, with_kwargs=True)
    return seen


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    extended=st.booleans(),
    signed=st.booleans(),
    v0=st.sampled_from([0.0, 0.2, 0.5]),
    alpha=st.sampled_from([0.501, 0.7, 1.0]),
    steps_and_delay=st.integers(1, 8).flatmap(lambda t: st.tuples(st.just(t), st.integers(0, max(0, t - 2)))),
    grad=st.booleans(),
    seed=st.integers(0, 50),
)
def test_identity_mapper_and_recycling_give_the_mean_current(
    extended: bool,
    signed: bool,
    v0: float,
    alpha: float,
    steps_and_delay: tuple[int, int],
    grad: bool,
    seed: int,
) -> None:
    """SpikingIR, Eq. 1-4, whatever v0, beta, alpha and the spikes."""
    time_steps, delay = steps_and_delay
    network = build(
        chain(3),
        extended=extended,
        signed=signed,
        v0=v0,
        alpha=max(alpha, v0 + 0.5),
        time_steps=time_steps,
        schedule=delay,
        seed=seed,
    )
    seen = watch_output(network)
    with torch.set_grad_enabled(grad):
        output = network(image(2, 1, 5, 6, seed=seed))
    wanted = seen["mean"] if signed else seen["mean"].relu()
    torch.testing.assert_close(output.detach(), wanted, rtol=0, atol=1e-6)


def test_recycling_lets_the_gradient_reach_the_currents_alone() -> None:
    network = build(chain(2))
    network(image(1, 1, 6, 6)).square().sum().backward()
    last = network.neuron("fire1")
    torch.testing.assert_close(last.log_threshold.grad, torch.zeros(1, dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close(last.log_beta.grad, torch.zeros(1, dtype=torch.float64), rtol=0, atol=1e-12)
    assert network.neuron("fire0").log_threshold.grad.abs().max() > 1e-6
    assert network.neuron("fire0").log_beta.grad.abs().max() > 1e-6
    assert all(p.grad.abs().max() > 1e-6 for p in [*network.weight.values(), *network.bias.values()])


def test_mapper_is_a_convolution_of_the_decoded_spikes_and_its_bias_counts_once() -> None:
    network = build(chain(2), time_steps=4)
    assert network.mapper is not None
    torch.nn.init.normal_(network.mapper.weight, generator=torch.Generator().manual_seed(3))
    torch.nn.init.constant_(network.mapper.bias, 0.25)
    noisy = image(1, 1, 6, 6)
    output, trace = network.trace(noisy, trains=True)
    last, neuron = trace.layers[-1], network.neuron("fire1")
    theta, beta = neuron.v_threshold.view(-1, 1, 1), neuron.beta.view(-1, 1, 1)
    amplitude = torch.cat([theta.expand(4, 1, 1, 1), (theta * beta)[None]])[:, None]
    mapped = [functional.conv2d(train, network.mapper.weight, padding=1) for train in last.trains * amplitude]
    wanted = torch.stack(mapped).sum(0) / 4 + 0.25 + last.residual_membrane * theta / 4
    torch.testing.assert_close(output, wanted.detach())


@pytest.mark.parametrize("extended", [False, True], ids=["if", "mprn"])
def test_layer_by_layer_is_all_layers_together(extended: bool) -> None:
    """docs/method.md, section 1 and 2, written out: at each step every layer in turn, no constant at T + 1."""
    network = build(with_skips(), extended=extended, time_steps=6, mapper=False, recycling=False)
    x = image(2, 1, 5, 4)
    weights, time_steps = network.weights, network.config.time_steps
    neurons = {name: network.neuron(name) for name in network.layers}
    v: dict[str, Any] = {name: n.v0 * n.v_threshold.view(-1, 1, 1) for name, n in neurons.items()}
    decoded: Tensor | float = 0.0
    for t in range(1, time_steps + extended + 1):
        on = t <= time_steps

        def fire(name: str, current: Tensor, on: bool = on) -> Tensor:
            neuron = neurons[name]
            theta = neuron.v_threshold.view(-1, 1, 1)
            level, amplitude = (theta, theta) if on else (neuron.alpha * theta, neuron.beta.view(-1, 1, 1) * theta)
            v[name] = v[name] + current
            spike = (v[name] >= level).double() - ((v[name] <= -level).double() if neuron.signed else 0)
            v[name] = v[name] - amplitude * spike
            return amplitude * spike

        def weigh(name: str, value: Tensor, on: bool = on) -> Tensor:
            weight, bias = weights[name]
            return functional.conv2d(value, weight, bias if on else None, padding=1)

        fire0 = fire("fire0", weigh("conv0", x if on else 0 * x))
        conv1 = weigh("conv1", fire0)
        total = fire("fire1", conv1) + conv1
        fire2 = fire("fire2", total)
        joined = torch.cat([fire2, total, x if on else 0 * x], 1)
        decoded = decoded + fire("fire3", weigh("conv2", joined))
    torch.testing.assert_close(network(x), decoded / time_steps, rtol=0, atol=1e-10)


@pytest.mark.parametrize("schedule", ["clocked", 1, "phased"])
@pytest.mark.parametrize("extended", [False, True], ids=["if", "mprn"])
def test_inference_gives_the_numbers_of_training(extended: bool, schedule: Schedule) -> None:
    """Without gradients spikes overwrite currents, but never those that a skip still reads."""
    network = build(with_skips(), extended=extended, schedule=schedule)
    x = image(2, 1, 6, 5)
    kept = x.clone()
    trained = network(x)
    with torch.no_grad():
        inferred = network(x)
    assert trained.requires_grad
    assert not inferred.requires_grad
    torch.testing.assert_close(inferred, trained, rtol=0, atol=1e-12)
    assert torch.equal(x, kept)


class LiveBytes(TorchDispatchMode):
    """Most bytes held at a time in tensors that operations made, and how many were made of at least ``large`` bytes."""

    def __init__(self, large: int) -> None:
        super().__init__()
        self.peak = self.made = 0
        self._large = large
        self._tensors: dict[int, weakref.ref[Tensor]] = {}

    def _storages(self) -> dict[int, int]:
        """Bytes of what is alive, by address."""
        alive = [tensor for reference in self._tensors.values() if (tensor := reference()) is not None]
        self._tensors = {id(tensor): weakref.ref(tensor) for tensor in alive}
        return {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in alive}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before = self._storages()  # what was freed since may give its address to what is made now
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(tensor, Tensor):
                self._tensors[id(tensor)] = weakref.ref(tensor)
        storages = self._storages()
        self.peak = max(self.peak, sum(storages.values()))
        self.made += sum(size >= self._large for key, size in storages.items() if key not in before)
        return result


def memory(depth: int, grad: bool) -> tuple[float, int]:
    """Peak memory in units of one layer's currents, and how many tensors of that size were made."""
    network = build(chain(depth), width=8, time_steps=19, dtype=torch.float32)
    x = image(1, 1, 24, 24, dtype=torch.float32).contiguous(memory_format=torch.channels_last)
    layer = 20 * 8 * 24 * 24 * 4
    meter = LiveBytes(layer)
    with torch.set_grad_enabled(grad), meter:
        network(x)
    return meter.peak / layer, meter.made


def test_without_gradients_one_layer_is_alive_at_a_time() -> None:
    """One layer's spikes and the next one's currents, and a few single steps; at any depth.

    Spikes take the memory of their currents: the first neuron makes its own, and each convolution but the last.
    """
    (shallow, few), (deep, many) = memory(4, grad=False), memory(9, grad=False)
    assert 2 <= shallow < 2.5
    assert deep == pytest.approx(shallow, rel=0.02)
    assert (few, many) == (3, 8)
    peak, made = memory(9, grad=True)
    assert peak > 9
    assert made == 15


def dyadic(network: SpikingNetwork) -> None:
    """Weights on a grid and thresholds that are powers of two: every sum is exact, and ties are frequent."""
    for weight in (*network.weight.values(), *network.bias.values()):
        weight.data = (weight.data * 8).round() / 8
    for name in network.layers:
        theta = network.neuron(name).log_threshold
        theta.data = torch.tensor([0.5, 1.0, 2.0, 1.0], dtype=theta.dtype)[: len(theta)].log()
        assert torch.equal(theta.exp().log2().round().exp2(), theta.exp())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("time_steps", [1, 2, 4, 8])
def test_phased_schedule_is_the_quantised_network(time_steps: int, signed: bool, dtype: torch.dtype) -> None:
    """docs/method.md, section 6: activations in T levels, the last layer read with recycling and so not quantised."""
    network = build(chain(4), time_steps=time_steps, schedule="phased", signed=signed, dtype=dtype)
    dyadic(network)
    x = (image(2, 1, 6, 5, dtype=dtype) * 16).round() / 16
    value, ties = x, 0
    for i in range(4):
        weight, bias = network.weights[f"conv{i}"]
        current = functional.conv2d(value, weight, bias, padding=1)
        theta = network.neuron(f"fire{i}").v_threshold.view(-1, 1, 1)
        levels = current * time_steps / theta + 0.5
        ties += int((levels == levels.round()).sum())
        value = levels.floor().clamp(0, time_steps) * theta / time_steps
    wanted = current if signed else current.relu()
    assert ties > 10
    assert torch.equal(network(x), wanted)
    output, trace = network.trace(x, trains=True)
    assert torch.equal(output, wanted)
    if time_steps > 2:
        assert torch.equal(network.at(schedule=time_steps - 1)(x), wanted)
    assert all(len(layer.trains) == time_steps for layer in trace.layers)  # no extended step


def test_phased_gradient_is_that_of_a_quantised_network() -> None:
    network = build(chain(3), schedule="phased", time_steps=4)
    x = image(1, 1, 6, 6)
    network(x).square().sum().backward()
    assert all(network.neuron(name).log_threshold.grad.abs().max() > 1e-6 for name in network.layers[:-1])
    assert all(p.grad.abs().max() > 1e-6 for p in [*network.weight.values(), *network.bias.values()])


@pytest.mark.parametrize("time_steps", [1, 3, 8])
def test_waiting_for_the_whole_window_is_phased(time_steps: int) -> None:
    """An IF neuron with v0 = 1/2 that waits T - 1 inputs counts what the quantiser counts."""
    theta = torch.tensor([0.5, 0.8, 1.3], dtype=torch.float64)
    neuron = IFNeuron(theta, v0=0.5)
    generator = torch.Generator().manual_seed(4)
    currents = torch.randn(time_steps, 2, 3, 4, 4, generator=generator, dtype=torch.float64) + 0.4
    fired, *_ = neuron(currents, delay=time_steps - 1)
    torch.testing.assert_close(fired.sum(0) / time_steps, neuron.quantise(currents.mean(0), time_steps))


def test_untrained_mprn_is_if_with_half_a_threshold() -> None:
    """docs/method.md, section 2: on constant currents they differ in the 0.1 % between alpha = 0.501 and one half."""
    z = image(1, 1, 400, 400)
    plain, *_ = IFNeuron(1.0, v0=0.5)(None, z, time_steps=8)
    reused, *_ = MPRN(1.0)(None, z, time_steps=8)
    difference = (reused.sum(0) - plain.sum(0)).abs()
    assert difference.max() <= 1
    assert 0 < difference.mean() < 0.002
    from_zero, *_ = IFNeuron(1.0)(None, z, time_steps=8)
    assert (from_zero.sum(0) - plain.sum(0)).abs().mean() > 0.4


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"threshold": 0.0}, "thresholds must be positive and finite; the smallest is 0.0"),
        ({"threshold": torch.tensor([1.0, float("nan")])}, "thresholds must be positive and finite"),
        ({"threshold": 1.0, "beta": 0.0}, "beta must be positive and finite; the smallest is 0.0"),
        ({"threshold": 1.0, "beta": float("inf")}, "beta must be positive and finite"),
        ({"threshold": torch.ones(3), "beta": torch.ones(2)}, "2 betas for 3 thresholds"),
        ({"threshold": 1.0, "alpha": 0.5}, r"alpha is 0.5; it must lie in \(0.5, 1\]"),
        ({"threshold": 1.0, "alpha": 1.01}, r"alpha is 1.01; it must lie in \(0.5, 1\]"),
        ({"threshold": 1.0, "alpha": float("nan")}, "alpha is nan"),
        ({"threshold": 1.0, "alpha": 0.9, "v0": 0.5}, "alpha 0.9 with v0 0.5 rounds twice"),
        ({"threshold": 1.0, "v0": 1.0}, "v0 is 1.0"),
        ({"threshold": 1.0, "v0": -0.1}, "v0 is -0.1"),
        ({"threshold": 1.0, "surrogate": "sigmoid"}, "unknown surrogate 'sigmoid'; known ones: triangle, rectangle"),
    ],
)
def test_neuron_refuses(arguments: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        MPRN(**arguments)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"time_steps": 0}, "time_steps is 0; a network needs a whole number T >= 1"),
        ({"time_steps": -3}, "time_steps is -3"),
        ({"time_steps": 2.5}, "time_steps is 2.5"),
        ({"time_steps": True}, "time_steps is True"),
        ({"schedule": "clockwise"}, "unknown schedule 'clockwise'; expected clocked, phased or a delay"),
        ({"time_steps": 4, "schedule": 4}, "a delay of 4 does not fit 4 time steps; 0..T-1 does"),
        ({"schedule": -1}, "a delay of -1 does not fit"),
        ({"schedule": 0.5}, "schedule is 0.5"),
        ({"schedule": True}, "schedule is True"),
    ],
)
def test_configuration_refuses(arguments: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        SpikingConfig(**arguments)
    network = build(chain(2))
    with pytest.raises(ValueError, match=complaint):
        network.at(**arguments)


def test_forward_refuses() -> None:
    network = build(chain(2))
    with pytest.raises(ValueError, match=r"expected images of shape \(B, 1, H, W\), got \(1, 3, 8, 8\)"):
        network(image(1, 3, 8, 8))
    with pytest.raises(ValueError, match=r"got \(8, 8\)"):
        network(image(8, 8))
    with pytest.raises(ValueError, match="needs a constant one and time_steps"):
        IFNeuron(1.0)(None)
    with pytest.raises(ValueError, match="delay is 3 with 3 time steps"):
        IFNeuron(1.0)(torch.ones(3, 1, 1, 1, 1), delay=3)
    with pytest.raises(ValueError, match="ends with its output neuron"):
        SpikingNetwork(Graph(tuple(chain(2)[:-1]), network.weights), network.neurons, network.config)


def test_at_shares_parameters_and_changes_nothing_else() -> None:
    network = build(chain(3), time_steps=4)
    x = image(1, 1, 6, 6)
    before = network(x)
    longer = network.at(time_steps=9, schedule=2)
    assert (longer.config.time_steps, longer.config.schedule) == (9, 2)
    assert longer.config.method == network.config.method
    assert not torch.equal(longer(x), before)
    assert torch.equal(network(x), before)
    assert all(a is b for a, b in zip(longer.parameters(), network.parameters(), strict=True))


@pytest.mark.parametrize("schedule", ["clocked", 2, "phased"])
def test_no_state_from_one_image_to_the_next(schedule: Schedule) -> None:
    network, other = (build(with_skips(), schedule=schedule) for _ in range(2))
    first, second = image(1, 1, 6, 6, seed=1), image(1, 1, 6, 6, seed=2)
    with torch.no_grad():
        network(first)
        network.trace(first)
        network(image(2, 1, 3, 9))
        assert torch.equal(network(second), other(second))


@pytest.mark.parametrize("schedule", ["clocked", 2, "phased"])
def test_batch_order_does_not_matter(schedule: Schedule) -> None:
    network = build(with_skips(), schedule=schedule)
    batch = image(5, 1, 6, 6)
    order = torch.tensor([3, 0, 4, 1, 2])
    with torch.no_grad():
        whole = network(batch)
        torch.testing.assert_close(network(batch[order]), whole[order], rtol=0, atol=1e-10)
        for i in range(5):
            torch.testing.assert_close(network(batch[i : i + 1]), whole[i : i + 1], rtol=0, atol=1e-10)


def test_a_single_pixel_is_an_image() -> None:
    """B = H = W = 1, where a full constant looks like one that stands for all pixels."""
    network = build(with_skips(), mapper=False, recycling=False)
    pixel = image(1, 1, 1, 1)
    with torch.no_grad():
        alone, among = network(pixel), network(pixel.expand(3, 1, 1, 1))
    assert alone.abs().item() > 0
    torch.testing.assert_close(among, alone.expand(3, 1, 1, 1), rtol=0, atol=1e-10)


@pytest.mark.parametrize("extended", [False, True], ids=["if", "mprn"])
@pytest.mark.parametrize("schedule", ["clocked", 2, "phased"])
def test_trace(schedule: Schedule, extended: bool) -> None:
    network = build(with_skips(), extended=extended, schedule=schedule, time_steps=5)
    x = image(2, 1, 6, 7)
    output, trace = network.trace(x, trains=True)
    _, light = network.trace(x)
    torch.testing.assert_close(output, network(x).detach(), rtol=0, atol=1e-12)
    steps = 5 + (extended and schedule != "phased")
    assert [layer.name for layer in trace.layers] == list(network.layers)
    assert (trace.time_steps, trace.schedule, trace.image_size) == (5, schedule, (6, 7))
    total = neurons = 0
    for layer, untrained in zip(trace.layers, light.layers, strict=True):
        channels = 1 if layer.name == "fire3" else 4
        assert untrained.trains is None
        assert layer.trains is not None
        assert layer.trains.dtype == torch.int8
        assert layer.trains.shape == (steps, 2, channels, 6, 7)
        assert set(layer.trains.unique().tolist()) <= ({-1, 0, 1} if layer.name == "fire3" else {0, 1})
        assert layer.spikes.dtype == torch.int64
        assert torch.equal(layer.spikes, layer.trains.abs().sum((-2, -1), dtype=torch.int64))
        assert torch.equal(layer.spikes, untrained.spikes)
        assert layer.neurons == channels * 42
        count = int(layer.trains.abs().sum())
        assert 0.05 < count / layer.trains.numel() < 0.95
        assert layer.spikes_per_neuron == pytest.approx(count / (2 * layer.neurons))
        assert trace.firing_rates()[layer.name] == pytest.approx(count / (2 * layer.neurons * 5))
        total, neurons = total + count, neurons + 2 * layer.neurons
    assert set(trace.layers[-1].trains.unique().tolist()) == {-1, 0, 1}
    assert trace.spikes_per_neuron == pytest.approx(total / neurons)


def test_phased_trace_counts_the_window() -> None:
    network = build(chain(2), schedule="phased", time_steps=5)
    x = image(1, 1, 6, 6)
    _, trace = network.trace(x, trains=True)
    weight, bias = network.weights["conv0"]
    neuron = network.neuron("fire0")
    current = functional.conv2d(x, weight, bias, padding=1) / neuron.v_threshold.view(-1, 1, 1)
    counts = (current * 5 + 0.5).floor().clamp(0, 5)
    layer = trace.layers[0]
    assert set(counts.unique().tolist()) == {0, 1, 2, 3, 4, 5}
    assert torch.equal(layer.trains.sum(0), counts)
    assert (layer.trains[1:] <= layer.trains[:-1]).all()  # n spikes leave one per step, from the first step on
    torch.testing.assert_close(layer.residual_membrane, (current * 5 - counts).detach())


def test_clocked_trace_balances_the_membrane() -> None:
    """What came in is what went out and what is left, in thresholds."""
    network = build(chain(1), time_steps=6, signed=False)
    x = image(1, 1, 5, 5)
    _, trace = network.trace(x, trains=True)
    weight, bias = network.weights["conv0"]
    neuron = network.neuron("fire0")
    came = 6 * functional.conv2d(x, weight, bias, padding=1) / neuron.v_threshold
    trains = trace.layers[0].trains.double()
    went = trains[:6].sum(0) + neuron.beta * trains[6]
    torch.testing.assert_close(trace.layers[0].residual_membrane, came - went)


def test_autocast_leaves_the_image_in_its_precision() -> None:
    """bfloat16 would cut the image to 8 bits at once, also behind operations on it."""
    nodes = [
        Node("x", "input"),
        Node("scaled", "affine", ("x",), {}, "scaled"),
        conv("conv0", "scaled"),
        Node("fire0", "neuron", ("conv0",)),
        conv("conv1", "fire0"),
        Node("fire1", "neuron", ("conv1",)),
    ]
    template = build(chain(2), dtype=torch.float32)
    weights = {**template.weights, "scaled": (torch.tensor([2.0]), torch.tensor([-1.0]))}
    network = SpikingNetwork(Graph(tuple(nodes), weights), dict(template.neurons.items()), template.config)
    seen: dict[str, list[torch.dtype | None]] = {}
    for name in network.layers:
        network.neuron(name).register_forward_pre_hook(
            lambda module, waves, name=name: seen.update({name: [None if x is None else x.dtype for x in waves]})
        )
    x = image(1, 1, 6, 6, dtype=torch.float32)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        output = network(x)
    assert seen["fire0"] == [None, torch.float32]
    assert seen["fire1"][0] == torch.bfloat16
    assert output.dtype == torch.float32
    torch.testing.assert_close(output, network(x), rtol=0, atol=0.05)


def test_add_current_reaches_every_image_at_every_step_but_the_extended_one() -> None:
    """Through the bias where that is the layer's own, through a node where the convolution has other readers."""
    x = image(2, 1, 5, 5)
    shift = torch.linspace(0.1, 0.4, 4, dtype=torch.float64)
    for nodes, layer in ((chain(3), "fire1"), (with_skips(), "fire1"), (with_skips(), "fire2")):
        network, reference = build(nodes), build(nodes)
        network.add_current(layer, shift)
        network.add_current(layer, shift)
        reference.neuron(layer).register_forward_pre_hook(
            lambda module, waves: (waves[0], waves[1] + 2 * shift.view(1, -1, 1, 1))
        )
        torch.testing.assert_close(network(x), reference(x), rtol=0, atol=1e-10)
        assert not torch.equal(network(x), build(nodes)(x))
