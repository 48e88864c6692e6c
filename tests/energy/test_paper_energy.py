"""Energy by the paper's column: its printed figures, and counting spike by spike."""

import itertools
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from spikingir.conversion.convert import convert, correct_biases
from spikingir.deploy.fold import fold
from spikingir.energy.operations import count_macs, count_operations
from spikingir.energy.paper import ann_energy, in_words, paper_energy
from spikingir.graph.graph import Node, Wave
from spikingir.networks import AODNet, DnCNN
from spikingir.spiking.network import LayerTrace, SpikingNetwork, Trace

MAC, ACCUMULATE = 4.6e-9, 0.9e-9  # in mJ


class Chain(nn.Module):
    """Two hidden layers; circular padding, so that no border loses a synapse."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1, padding_mode="circular"),
            nn.ReLU(),
            nn.Conv2d(4, 6, 3, padding=1, padding_mode="circular", groups=2),
            nn.ReLU(),
            nn.Conv2d(6, 2, 1),
        )

    def forward(self, image: Tensor) -> Tensor:
        return self.layers(image)


class Branches(nn.Module):
    """All that moves or weighs spikes without a border, several readers for a neuron."""

    def __init__(self) -> None:
        super().__init__()
        circular = {"padding": 1, "padding_mode": "circular"}
        self.first = nn.Conv2d(2, 4, 3, **circular)
        self.down = nn.Conv2d(4, 8, 2, stride=2)
        self.grouped = nn.Conv2d(4, 6, 3, groups=2, **circular)
        self.up = nn.ConvTranspose2d(6, 4, 2, stride=2)
        self.after = nn.Conv2d(8, 3, 3, **circular)
        self.both = nn.Conv2d(4, 3, 1)
        self.last = nn.Conv2d(8, 2, 3, **circular)

    def forward(self, image: Tensor) -> Tensor:
        a = self.first(image).relu()
        b = self.down(a).relu()
        c = self.grouped(b[:, 2:6]).relu()
        d = self.up(c).relu()
        e = self.after(torch.cat([nn.functional.pixel_shuffle(b, 2), d, a[:, ::2]], 1)).relu()
        f = self.both(d + a).relu()
        return self.last(torch.cat([nn.functional.pixel_unshuffle(e[:, :1] - f[:, 2:], 2), b[:, 4:]], 1))


class Analog(nn.Module):
    """Weighted operations that read analog sums, and a skip of the image."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(2, 4, 1)
        self.b = nn.Conv2d(4, 3, 1)
        self.c = nn.Conv2d(3, 2, 1)
        self.d = nn.Conv2d(6, 5, 1)
        self.e = nn.Conv2d(7, 2, 1)

    def forward(self, image: Tensor) -> Tensor:
        x = self.a(image).relu()
        y = self.c(self.b(x)).relu()
        pooled = nn.functional.interpolate(nn.functional.avg_pool2d(x, 2), scale_factor=2, mode="nearest")
        z = self.d(torch.cat([y, pooled], 1)).relu()
        return self.e(torch.cat([z, image], 1))


def converted(body: nn.Module, method: str = "spikingir", side: int = 8) -> SpikingNetwork:
    torch.manual_seed(1)
    for parameter in body.parameters():
        nn.init.normal_(parameter, std=0.4)
    channels = getattr(body, "channels", 2)
    return convert(body, torch.rand(2, channels, side, side), method, time_steps=3)


def random_trace(network: SpikingNetwork, image: Tensor) -> Trace:
    """Spikes that no dynamics gave: any will do for counting."""
    shapes: list[LayerTrace] = list(network.trace(image, trains=True)[1].layers)
    layers = []
    for layer in shapes:
        assert layer.trains is not None
        trains = (torch.rand(layer.trains.shape) < torch.rand(1, 1, layer.trains.shape[2], 1, 1)).to(torch.int8)
        spikes = trains.sum((-2, -1)).long()
        layers.append(LayerTrace(layer.name, spikes, layer.neurons, layer.residual_membrane, trains))
    return Trace(network.config.time_steps, "clocked", (image.shape[-2], image.shape[-1]), tuple(layers))


def count_one_by_one(network: SpikingNetwork, trace: Trace, image: Tensor) -> dict[str, float]:
    """Accumulates of each weighted operation: with weights of one, each spike adds one wherever it arrives."""
    trains = {layer.name: layer.trains for layer in trace.layers}
    ones = {name: (torch.ones_like(weight), None) for name, (weight, _) in network.weights.items()}
    graph = replace(network.graph, weights=ones)
    counts: dict[str, float] = {}

    def neuron(node: Node, current: Wave, owned: bool) -> Wave:
        assert trains[node.name] is not None
        return Wave(trains[node.name].float(), None)

    def apply(node: Node, inputs: list[Wave]) -> Wave:
        node = Node(node.name, "add" if node.op == "sub" else node.op, node.inputs, node.options, node.weights)
        wave = graph.linear(node, inputs)
        if node.role == "weighs" and wave.spikes is not None:
            counts[node.name] = wave.spikes.double().sum().item() / wave.spikes.shape[1]
        return wave

    graph.run(image, neuron, apply)
    return counts


@pytest.mark.parametrize(
    ("network", "size", "expected", "weights"),
    [
        (AODNet(), (480, 640), 2.467, 1_746),
        (DnCNN(), (321, 481), 393.555, 554_112),
        (DnCNN(), (481, 321), 393.555, 554_112),
    ],
    ids=["aodnet", "dncnn", "dncnn-upright"],
)
def test_printed_figures(network: nn.Module, size: tuple[int, int], expected: float, weights: int) -> None:
    assert round(ann_energy(network, size), 3) == expected
    assert count_macs(network, size) == weights * size[0] * size[1]


def test_one_ann_whatever_stands_for_it() -> None:
    network = DnCNN(layers=4, width=4, batch_norm=True).eval()
    spiking = convert(network, torch.rand(1, 1, 12, 12), time_steps=2)
    folded = fold(spiking)
    _, trace = spiking.trace(torch.rand(1, 1, 12, 10))
    expected = MAC * 12 * 10 * 9 * (4 + 16 + 16 + 4)
    for form in (network, spiking, folded):
        assert ann_energy(form, (12, 10)) == pytest.approx(expected)
    assert ann_energy(network.body, (12, 10), channels=1) == pytest.approx(expected)
    assert paper_energy(spiking, trace).ann_mj == pytest.approx(expected)
    assert paper_energy(folded, folded.trace(torch.rand(1, 1, 12, 10))[1]).ann_mj == pytest.approx(expected)


def test_tracing_leaves_the_network_alone() -> None:
    network = DnCNN(layers=3, width=2, batch_norm=True).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    ann_energy(network, (16, 16))
    assert network.training
    assert network.body.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize("make", [lambda: AODNet(), lambda: DnCNN(layers=4, width=3)], ids=["aodnet", "dncnn"])
def test_silent_network_costs_its_first_convolution(make: Callable[[], nn.Module]) -> None:
    network = make()
    for name, parameter in network.named_parameters():
        nn.init.constant_(parameter, -1.0 if name.endswith("bias") else 0.0)
    image = torch.rand(2, network.channels, 9, 7)
    spiking = convert(network, image, time_steps=4)
    first = next(iter(network.body.modules() if isinstance(network, AODNet) else network.body))
    weights = (network.body.conv1 if isinstance(network, AODNet) else first).weight.numel()
    energy = paper_energy(spiking, spiking.trace(image)[1])
    assert sum(operation.count.image_macs for operation in energy.operations) == 9 * 7 * weights
    assert energy.snn_mj == pytest.approx(MAC * 9 * 7 * weights)
    assert (energy.synaptic_operations, energy.analog_macs, energy.spikes_per_synapse) == (0, 0, 0)


def test_loop_over_every_synapse() -> None:
    spiking, image = converted(Chain(), side=4), torch.rand(2, 2, 4, 4)
    trace = random_trace(spiking, image)
    first, second = (layer.trains for layer in trace.layers[:2])
    assert len(first) == 4  # three steps and the extended one
    accumulates = 0
    for t, b, out, row, column in itertools.product(range(4), range(2), range(6), range(4), range(4)):
        group = out // 3
        for source, i, j in itertools.product(range(2), range(-1, 2), range(-1, 2)):
            accumulates += first[t, b, 2 * group + source, (row + i) % 4, (column + j) % 4].item()
        if out < 2:
            accumulates += second[t, b, :, row, column].sum().item()
    energy = paper_energy(spiking, trace)
    assert energy.synaptic_operations == pytest.approx(accumulates / 2)
    assert energy.snn_mj == pytest.approx(MAC * 16 * 2 * 4 * 9 + ACCUMULATE * accumulates / 2)
    assert energy.spikes_per_synapse == pytest.approx(accumulates / 2 / (16 * (4 * 3 * 9 + 6 * 2)))
    assert (energy.steps, energy.border) == (4, "full")


@pytest.mark.parametrize("method", ["spikingir", "rueckauer"])
def test_branches_are_counted_as_one_by_one(method: str) -> None:
    spiking, image = converted(Branches(), method), torch.rand(3, 2, 8, 8)
    trace = random_trace(spiking, image)
    counts = {count.name: count for count in count_operations(spiking, trace)}
    expected = count_one_by_one(spiking, trace, image)
    assert set(counts) == {*expected, "first"}
    for name, accumulates in expected.items():
        assert counts[name].synaptic_operations == pytest.approx(accumulates), name
        assert (counts[name].image_macs, counts[name].analog_macs) == (0, 0)
    # both neurons that a sum reads have synapses of their own; the conventional network adds before it multiplies
    assert 2 * counts["both"].macs == counts["both"].spiking_synapses == 2 * 8 * 8 * 4 * 3
    assert counts["up"].macs == 4 * 4 * 6 * 4 * 4


@pytest.mark.parametrize("make", [AODNet, lambda: DnCNN(layers=5, width=4)], ids=["aodnet", "dncnn"])
def test_a_spike_of_every_neuron_uses_every_synapse_once(make: Callable[[], nn.Module]) -> None:
    spiking = converted(make())
    image = torch.rand(1, spiking.config.channels, 10, 13)
    trace = random_trace(spiking, image)
    layers = []
    for layer in trace.layers:
        assert layer.trains is not None
        trains = torch.ones_like(layer.trains[:2])
        layers.append(LayerTrace(layer.name, trains.sum((-2, -1)).long(), layer.neurons, layer.residual_membrane, None))
    energy = paper_energy(spiking, Trace(2, "clocked", (10, 13), tuple(layers)))
    assert energy.spikes_per_synapse == pytest.approx(2)
    on_image = sum(operation.count.image_macs for operation in energy.operations)
    assert energy.synaptic_operations == pytest.approx(2 * (energy.macs - on_image))


def test_analog_sums_cost_multiplications_at_every_step() -> None:
    spiking, image = converted(Analog()), torch.rand(2, 2, 8, 8)
    trace = random_trace(spiking, image)
    counts = {count.name: count for count in count_operations(spiking, trace)}
    spikes = {layer.name: layer.spikes.sum((0, 2)).double().mean().item() for layer in trace.layers}
    x, y, z, _ = spikes.values()
    pooling = next(name for name in counts if "avg_pool" in name)

    def row(name: str) -> tuple[int, float, int]:
        return counts[name].image_macs, pytest.approx(counts[name].synaptic_operations), counts[name].analog_macs

    steps = 4
    assert row("a") == (64 * 8, 0, 0)
    assert row("b") == (0, x * 3, 0)
    assert row("c") == (0, 0, steps * 64 * 6)
    assert row(pooling) == (0, x, 0)
    assert row("d") == (0, y * 5, steps * 64 * 4 * 5)
    assert row("e") == (64 * 2 * 2, z * 2, 0)
    energy = paper_energy(spiking, trace)
    assert energy.snn_mj == pytest.approx(
        MAC * (64 * 12 + steps * 64 * 26) + ACCUMULATE * (x * 4 + y * 5 + z * 2), rel=1e-9
    )
    assert energy.ann_mj == pytest.approx(MAC * 64 * (8 + 12 + 6 + 30 + 14 + 4))


def test_signs_and_carriers_of_a_bias_multiply_nothing() -> None:
    spiking, image = converted(Branches()), torch.rand(2, 2, 8, 8)
    before = paper_energy(spiking, spiking.trace(image)[1]).ann_mj
    correct_biases(spiking, image)
    body = nn.Sequential(nn.Conv2d(2, 3, 1), nn.ReLU(), nn.Conv2d(3, 2, 1))
    assert paper_energy(spiking, spiking.trace(image)[1]).ann_mj == before
    assert count_macs(Shifted(body), (4, 4), channels=2) == count_macs(body, (4, 4), channels=2)


class Shifted(nn.Module):
    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.inner = body

    def forward(self, image: Tensor) -> Tensor:
        return 1 - self.inner(image)


def test_folding_changes_nothing() -> None:
    spiking, image = converted(AODNet()), torch.rand(2, 3, 12, 16)
    folded = fold(spiking.double(), grid=None, dtype=torch.float64)
    own = paper_energy(spiking, spiking.trace(image.double())[1])
    assert own == paper_energy(folded, folded.trace(image.double())[1])
    assert own.synaptic_operations > 0


def test_phased_network_is_charged_for_its_windows() -> None:
    spiking, image = converted(Chain()).at(schedule="phased"), torch.rand(2, 2, 8, 8)
    _, trace = spiking.trace(image)
    hidden = [layer.spikes.sum().item() / 2 for layer in trace.layers[:2]]
    energy = paper_energy(spiking, trace)
    assert energy.synaptic_operations == pytest.approx(hidden[0] * 27 + hidden[1] * 2)
    assert energy.steps == 3


def test_images_count_alike() -> None:
    spiking, images = converted(Chain()), torch.rand(3, 2, 8, 8)
    alone = [paper_energy(spiking, spiking.trace(image[None])[1]).snn_mj for image in images]
    assert paper_energy(spiking, spiking.trace(images)[1]).snn_mj == pytest.approx(sum(alone) / 3)


def test_operations_on_the_raw_image_run_once() -> None:
    class Squared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(4, 1, 1)

        def forward(self, image: Tensor) -> Tensor:
            return self.conv(torch.cat([image**2, image], 1)).relu()

    assert count_macs(Squared(), (5, 6), channels=2) == 30 * 4
    spiking = converted(Squared())
    energy = paper_energy(spiking, spiking.trace(torch.rand(1, 2, 5, 6))[1])
    assert energy.snn_mj == energy.ann_mj == pytest.approx(MAC * 30 * 4)
    assert energy.spikes_per_synapse == 0


def test_refuses_what_does_not_fit() -> None:
    spiking, other = converted(Chain()), converted(Branches())
    _, trace = spiking.trace(torch.rand(1, 2, 8, 8))
    with pytest.raises(ValueError, match="the network has"):
        paper_energy(other, trace)
    with pytest.raises(ValueError, match="is not that of a layer"):
        paper_energy(spiking, Trace(3, "clocked", (8, 9), trace.layers))
    with pytest.raises(ValueError, match="pass channels"):
        ann_energy(Chain(), (8, 8))


class Borders(nn.Module):
    """All that loses synapses at a border, or repeats some: zeros, strides, dilation, reflection, cropping."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3, padding=1)
        self.down = nn.Conv2d(4, 8, 3, stride=2, padding=1)
        self.grouped = nn.Conv2d(4, 6, 3, groups=2, padding=2, dilation=2)
        self.up = nn.ConvTranspose2d(6, 4, 4, stride=2, padding=1)
        self.reflected = nn.Conv2d(8, 3, 3, padding=1, padding_mode="reflect")
        self.repeated = nn.Conv2d(3, 3, 5, padding=2, padding_mode="replicate")
        self.last = nn.Conv2d(6, 2, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        a = self.first(image).relu()
        b = self.down(a).relu()
        c = self.grouped(b[:, 2:6]).relu()
        d = self.up(c).relu()
        e = self.reflected(torch.cat([a, d], 1)).relu()
        f = self.repeated(nn.functional.pad(e[:, :, 1:-1, 1:-1], (1, 1, 1, 1))).relu()
        return self.last(torch.cat([e, f], 1))


@pytest.mark.parametrize("make", [Borders, Branches, AODNet, lambda: DnCNN(layers=4, width=3)])
def test_real_synapses_are_counted_as_one_by_one(make: Callable[[], nn.Module]) -> None:
    spiking = converted(make())
    image = torch.rand(3, spiking.config.channels, 8, 8)
    trace = random_trace(spiking, image)
    counts = {count.name: count for count in count_operations(spiking, trace, "true")}
    for name, accumulates in count_one_by_one(spiking, trace, image).items():
        assert counts[name].synaptic_operations == pytest.approx(accumulates, rel=1e-12), name
    # a spike of every neuron reaches every real synapse once
    layers = []
    for layer in trace.layers:
        assert layer.trains is not None
        layers.append(replace(layer, trains=torch.ones_like(layer.trains)[:1]))
    every = count_operations(spiking, replace(trace, layers=tuple(layers)), "true")
    if make is not Branches:  # both of the neurons that a sum reads use its synapses
        assert all(count.synaptic_operations == count.spiking_synapses for count in every)


def test_no_border_no_difference() -> None:
    spiking, image = converted(Chain()), torch.rand(2, 2, 8, 8)
    trace = random_trace(spiking, image)
    for full, true in zip(count_operations(spiking, trace), count_operations(spiking, trace, "true"), strict=True):
        assert (full.macs, full.image_macs) == (true.macs, true.image_macs)
        assert full.synaptic_operations == pytest.approx(true.synaptic_operations)


def test_folding_keeps_the_real_synapses() -> None:
    spiking, image = converted(DnCNN(layers=4, width=3)), torch.rand(2, 1, 9, 7)
    folded = fold(spiking.double(), grid=None, dtype=torch.float64)
    own = count_operations(spiking, spiking.trace(image.double(), trains=True)[1], "true")
    assert own == count_operations(folded, folded.trace(image.double(), trains=True)[1], "true")


def test_real_synapses_need_spikes_per_position() -> None:
    spiking = converted(Chain())
    _, trace = spiking.trace(torch.rand(1, 2, 8, 8))
    with pytest.raises(ValueError, match="has no spikes per position; trace with trains=True"):
        count_operations(spiking, trace, "true")


@pytest.mark.parametrize(
    ("energy", "words"), [(0.0, "0 mJ"), (0.012345, "0.0123 mJ"), (2.976, "2.98 mJ"), (12345.6, "12,346 mJ")]
)
def test_in_words(energy: float, words: str) -> None:
    assert in_words(energy) == words
