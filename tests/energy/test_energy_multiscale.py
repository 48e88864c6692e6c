"""Energy of multi-scale networks: spike by spike, by code and schedule, beside their int8 twins."""

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from spikingir.conversion.convert import convert
from spikingir.deploy.fold import fold
from spikingir.deploy.folded import FoldedNetwork
from spikingir.energy.columns import EnergyColumns, ann_columns, energy_columns
from spikingir.energy.operations import OperationCount, count_macs, count_operations, operations_per_layer
from spikingir.energy.paper import ann_energy, paper_energy
from spikingir.energy.prices import access_pj
from spikingir.energy.twin import int8_twin
from spikingir.graph.graph import Graph, Node, Wave
from spikingir.inputs import with_level
from spikingir.networks.dncnn import DnCNN
from spikingir.networks.multiscale import MultiScaleNet
from spikingir.spiking.coding import Coding
from spikingir.spiking.network import Trace

ON_IMAGE = ("inject", "head", "last_of_image", "avg_pool")


def network(blocks: tuple[int, ...] = (1, 1), **options: object) -> MultiScaleNet:
    """Random weights, half of the hidden neurons active."""
    made = MultiScaleNet(**{"width": 4, "blocks": blocks, **options})
    generator = torch.Generator().manual_seed(0)
    made.reset_parameters(generator)
    for parameter in made.parameters():
        parameter.data.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return made.eval()


def seen(made: MultiScaleNet, count: int = 1, height: int = 16, width: int = 24) -> Tensor:
    """What the body reads."""
    generator = torch.Generator().manual_seed(1)
    image = torch.rand(count, made.channels, height, width, generator=generator)
    return with_level(image, 0.1) if made.takes_level else image


def spiking(made: MultiScaleNet, time_steps: int, coding: Coding | None, bits: Sequence[int] = ()) -> FoldedNetwork:
    """Folded; clocked where there is no code."""
    how = {"schedule": "clocked"} if coding is None else {"schedule": "phased", "coding": coding}
    given = {"activation_bits": tuple(bits)} if bits else {}
    return fold(convert(made, seen(made, 2), time_steps=time_steps, percentile=100, **how, **given))


def count_one_by_one(
    folded: FoldedNetwork, trace: Trace, image: Tensor, around: bool
) -> dict[str, tuple[float, float]]:
    """Accumulates and image multiply-accumulates of each operation: with weights of one, each value adds one.

    ``around`` joins the image's borders, so that no synapse is lost there.
    """
    trains = {layer.name: layer.trains for layer in trace.layers}
    weights = {}
    for node in folded.nodes:
        kernel = folded.kernel(node.name)
        if kernel is not None and not node.op.startswith("avg"):
            weights[node.name] = (torch.ones_like(kernel.analog, dtype=torch.float64), None)
    nodes = [
        Node(n.name, "add" if n.op == "sub" else n.op, n.inputs, n.options, n.name if n.name in weights else None)
        for n in folded.nodes
    ]
    graph = Graph(tuple(nodes), weights)
    found: dict[str, tuple[float, float]] = {}

    def neuron(node: Node, current: Wave, owned: bool) -> Wave:
        fired = trains[node.name]
        assert fired is not None
        return Wave(fired.abs().double(), None)

    def apply(node: Node, inputs: Sequence[Wave]) -> Wave:
        if node.role == "moves":
            return graph.linear(node, inputs)
        (read,) = inputs
        if node.op.startswith("avg"):
            found[node.name] = 0.0, float(read.constant[0].numel())  # a kernel of 2 x 2, and as large a stride
            return Wave(None, read.constant[..., ::2, ::2])
        side = node.options["padding"] if node.op == "conv2d" else 0
        side = side if isinstance(side, int) else side[0]
        if around and side:
            node = Node(node.name, node.op, node.inputs, {**node.options, "padding": 0}, node.weights)
            wrap = (side,) * 4
            read = Wave(
                None if read.spikes is None else _wrapped(read.spikes, wrap),
                None if read.constant is None else functional.pad(read.constant, wrap, "circular"),
            )
        wave = graph.linear(node, [read])
        spikes = 0.0 if wave.spikes is None else wave.spikes.sum().item() / wave.spikes.shape[1]
        constant = 0.0 if wave.constant is None or wave.spikes is not None else wave.constant[0].sum().item()
        found[node.name] = spikes, constant
        return wave

    graph.run(torch.ones_like(image, dtype=torch.float64), neuron, apply)
    return found


def _wrapped(spikes: Tensor, wrap: tuple[int, ...]) -> Tensor:
    return functional.pad(spikes.flatten(0, 1), wrap, "circular").unflatten(0, spikes.shape[:2])


@st.composite
def networks(draw: st.DrawFn) -> tuple[MultiScaleNet, FoldedNetwork]:
    """A small network in any code."""
    scales = draw(st.integers(2, 3))
    blocks = (*(draw(st.integers(0, 1)) for _ in range(scales - 1)), 1)
    form = draw(st.sampled_from(["level", "residual", "soft", "airlight"]))
    made = network(
        blocks,
        form=form,
        channels=draw(st.sampled_from([1, 3])),
        width=draw(st.integers(1, 4)),
        top_residual=draw(st.booleans()),
        inject_kernel=draw(st.sampled_from([1, 3])),
        batch_norm=draw(st.booleans()),
    )
    coding = draw(st.sampled_from(["binary", "binary", "unary", None]))
    steps = draw(st.integers(2, 5))
    bits = [draw(st.integers(1, steps)) for _ in range(scales)] if coding == "binary" else []
    return made, spiking(made, steps, coding, bits)


@given(both=networks(), count=st.integers(1, 2))
@settings(max_examples=25)
def test_every_spike_at_every_synapse(both: tuple[MultiScaleNet, FoldedNetwork], count: int) -> None:
    made, folded = both
    image = seen(made, count)
    _, trace = folded.trace(image, trains=True)
    assert sum(int(layer.spikes.sum()) for layer in trace.layers[:-1]) > 0
    for border in ("full", "true"):
        counts = {found.name: found for found in count_operations(folded, trace, border)}
        expected = count_one_by_one(folded, trace, image, around=border == "full")
        assert counts.keys() == expected.keys()
        for name, (accumulates, macs) in expected.items():
            assert counts[name].synaptic_operations == pytest.approx(accumulates, rel=1e-9, abs=1e-9), (border, name)
            assert (counts[name].image_macs, counts[name].analog_macs) == (macs, 0), (border, name)
        assert any(count.image_macs for count in counts.values())


@given(time_steps=st.integers(1, 6), data=st.data())
@settings(max_examples=6)
def test_spikes_of_a_binary_network_are_the_bits_of_its_counts(time_steps: int, data: st.DataObject) -> None:
    made, bits = network(), [data.draw(st.integers(1, time_steps)) for _ in range(2)]
    folded, image = spiking(made, time_steps, "binary", bits), seen(made)
    _, trace = folded.trace(image, trains=True)
    for layer in trace.layers:
        assert layer.trains is not None
        worth = 2 ** torch.arange(time_steps).flip(0).view(-1, 1, 1, 1, 1)
        counts = (layer.trains.int() * worth).sum(0).abs().flatten().tolist()
        assert layer.spikes.sum() == sum(n.bit_count() for n in counts)
        assert max(counts) <= folded.levels[layer.name]


@pytest.mark.parametrize(
    ("coding", "bits", "constants", "updates"),
    [
        ("binary", (4, 2), 1, (4 + 4, 4 + 2)),  # comparisons, and doublings at each of four steps
        ("binary", (), 1, (4 + 4, 4 + 4)),
        ("unary", (), 1, (4, 4)),
        (None, (), 4, (5, 5)),  # clocked: the image anew at each step; the extended one compares
    ],
)
def test_columns_are_the_sum_of_what_is_done(
    coding: Coding | None, bits: tuple[int, ...], constants: int, updates: tuple[int, int]
) -> None:
    made = network()
    folded, image = spiking(made, 4, coding, bits), seen(made)
    _, trace = folded.trace(image, trains=True)
    found = energy_columns(folded, trace, image, made)
    one_by_one = count_one_by_one(folded, trace, image, around=False)
    synaptic, macs = (sum(pair[i] for pair in one_by_one.values()) for i in (0, 1))
    scale = {name.replace(".", "_"): scale for name, scale in made.activations().items()}
    spikes = sum(layer.spikes.sum().item() for layer in trace.layers)
    output, pixels = trace.layers[-1], image[:, :1].numel()
    assert output.trains is not None
    mapper = torch.ones(1, 1, 3, 3)
    fired = functional.conv2d(output.trains.abs().sum(0).float(), mapper, padding=1).sum().item()
    compared = sum(layer.neurons * updates[scale.get(layer.name, 0)] for layer in trace.layers)
    biased = sum(
        int(kernel.bias is not None) * outputs_of(folded, node.name)
        for node in folded.nodes
        if (kernel := folded.kernel(node.name)) is not None
    )
    mapped = pixels * (1 + 1)  # its bias and the recycled membrane
    mapped += pixels * 4 * (coding == "binary")
    accumulates = synaptic + fired + spikes + compared + constants * biased + mapped
    for column, mac, add in (("complete", 4.6, 0.9), ("int8", 0.9, 0.03), ("int32", 0.9, 0.1)):
        assert found.snn_mj[column] * 1e9 == pytest.approx(mac * constants * macs + add * accumulates), column
    assert found.snn_mj["paper"] == pytest.approx(paper_energy(folded, trace).snn_mj)
    assert found.synaptic_operations == pytest.approx(synaptic + fired)


def outputs_of(folded: FoldedNetwork, name: str) -> int:
    """Numbers that an operation makes of an image of 16 x 24."""
    shapes = {}

    def note(node: Node, inputs: Sequence[Wave]) -> Wave:
        wave = folded.linear(node, inputs)
        part = wave.spikes if wave.spikes is not None else wave.constant
        assert part is not None
        shapes[node.name] = part[0].numel() if wave.spikes is None else part[0, 0].numel()
        return wave

    folded.graph.run(
        torch.zeros(1, folded.config.input_channels, 16, 24, dtype=torch.float64),
        lambda node, current, owned: Wave(folded._fire(node, current, False)[0], None),
        note,
    )
    return shapes[name]


def test_a_doubling_reads_and_writes_a_membrane() -> None:
    made = network(top_residual=True)
    folded, image = spiking(made, 5, "binary", (5, 3)), seen(made)
    _, trace = folded.trace(image, trains=True)
    layers = {layer.name: layer for layer in energy_columns(folded, trace, image, made).layers}
    for name, bits, neurons in (("encoder_0_0_conv1_conv", 5, 4 * 8 * 12), ("middle_0_conv1_conv", 3, 8 * 4 * 6)):
        channels = 4 if bits == 5 else 8
        bias, update = neurons * (0.1 + access_pj(channels)), neurons * (0.1 + 2 * access_pj(neurons))
        assert layers[name].snn_mj["memory"].fixed * 1e9 == pytest.approx(bias + (bits + 5) * update)


def test_the_image_of_a_phased_network_is_computed_once() -> None:
    torch.manual_seed(0)
    made, image = DnCNN(layers=3, width=4).eval(), torch.rand(1, 1, 9, 8)
    phased = convert(made, image, time_steps=5, schedule="phased")
    found = {}
    for schedule in ("phased", 4, 3):  # a layer that waits for four of five inputs is phased
        one = phased.at(schedule=schedule)
        found[schedule] = energy_columns(one, one.trace(image, trains=True)[1], image, made).layers[0].snn_mj
    assert found["phased"] == found[4]
    real = 4 * (9 * 72 - 3 * (2 * 9 + 2 * 8) + 4)
    updates = 4 * 72 * 5  # as many comparisons whatever the layer waits for, without an extended step
    for column, mac, add in (("complete", 4.6, 0.9), ("int8", 0.23, 0.03), ("int32", 0.3, 0.1)):
        biases = 4 * 72
        assert found["phased"][column].fixed * 1e9 == pytest.approx(mac * real + add * (biases + updates))
        extended = 4 * 72 * add
        assert found[3][column].fixed * 1e9 == pytest.approx(mac * 5 * real + add * (5 * biases + updates) + extended)


def quantised(x: Tensor) -> Tensor:
    """In 8 bits, by torch's own rule for activations."""
    least, most = min(0.0, x.min().item()), max(0.0, x.max().item())
    scale = (most - least) / 255 or 1.0
    return torch.fake_quantize_per_tensor_affine(x, scale, round(-least / scale), 0, 255)


@given(seed=st.integers(0, 1000), shift=st.floats(-1, 0.2))
@settings(max_examples=15)
def test_the_twin_skips_what_8_bits_round_to_zero(seed: int, shift: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    made = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 4, 2, stride=2), nn.ReLU())
    made.append(nn.Conv2d(4, 8, 1)).append(nn.PixelShuffle(2)).append(nn.ReLU()).append(nn.Conv2d(2, 1, 1))
    for parameter in made.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    image = torch.rand(2, 2, 6, 8, generator=generator) ** 4 + shift  # many values near zero
    a = made[:2](image)
    b = made[2:4](a)
    c = made[4:7](b)
    ones = torch.ones(1, 1, 3, 3)
    macs = functional.conv2d((quantised(image) != 0).float().sum(1, keepdim=True), ones, padding=1).sum().item() * 3
    macs += (
        (quantised(a) != 0).sum().item() * 4 + (quantised(b) != 0).sum().item() * 8 + (quantised(c) != 0).sum().item()
    )
    twin = int8_twin(made, image, 2)
    assert twin.macs == pytest.approx(macs / 2, abs=9 * 3)  # a value on an edge between two steps may fall either way
    assert twin.mj == pytest.approx(0.23e-9 * twin.macs)
    assert twin.nj_per_pixel == pytest.approx(0.23e-3 * twin.macs / 48)
    assert twin.milliwatts(30) == pytest.approx(0.23 * twin.macs * 30 * 1e-9)


def test_the_twin_beside_the_columns() -> None:
    made = network()
    folded, image = spiking(made, 5, "binary", (5, 3)), seen(made)
    found = energy_columns(folded, folded.trace(image, trains=True)[1], image, made)
    assert found.int8_twin == int8_twin(made, image)
    assert 0 < found.int8_twin.mj < found.ann_mj["int8"]  # which has biases and ReLUs, and no grid
    assert found.over_twin["int32"] == found.snn_mj["int32"] / found.int8_twin.mj
    plain = found.as_dict()["int8_twin"]
    assert plain["mj"] == found.int8_twin.mj
    assert plain["snn_over_twin"] == found.over_twin
    assert energy_columns(folded, folded.trace(image, trains=True)[1], image).int8_twin is None
    assert "int8_twin" not in ann_columns(made, (16, 24)).as_dict()


@pytest.mark.parametrize("form", ["level", "residual"])
def test_any_size_is_counted_as_it_is_padded(form: str) -> None:
    made = network(form=form)
    assert count_macs(made, (13, 21)) == count_macs(made, (16, 24))
    assert ann_energy(made, (13, 21)) == ann_energy(made, (16, 24))
    assert ann_columns(made, (13, 21)).ann_mj == ann_columns(made, (16, 24)).ann_mj
    assert count_macs(spiking(made, 5, "binary", (5, 3)), (13, 21)) == count_macs(made, (13, 21))
    image = seen(made)[..., :13, :21]
    last = functional.pad(image, (0, 3, 0, 3), "replicate")
    assert int8_twin(made, image).macs == int8_twin(made, last).macs
    assert int8_twin(made, image).pixels == 13 * 21


def test_a_conventional_network_and_its_spiking_one_agree() -> None:
    made = network()
    converted, folded = (
        convert(made, seen(made), time_steps=3),
        spiking(made, 3, None),
    )
    per_pixel = count_macs(made, (16, 24))
    assert count_macs(converted, (16, 24)) == per_pixel
    assert count_macs(made.body, (16, 24)) == per_pixel
    assert sum(node.op == "affine" for node in folded.nodes) == len(folded.scalings) > 0  # skips
    assert count_macs(folded, (16, 24)) == per_pixel
    _, trace = folded.trace(seen(made), trains=True)
    assert paper_energy(folded, trace).ann_mj == ann_energy(made, (16, 24))
    blind, reference = energy_columns(folded, trace, seen(made)), ann_columns(made, (16, 24))
    assert blind.ann_mj == pytest.approx(reference.ann_mj)
    shares = operations_per_layer(converted, (16, 24))
    assert set(shares) == set(converted.layers)
    image_macs = sum(count.image_macs for count in _counts(converted, seen(made)))
    assert sum(shares.values()) == pytest.approx(per_pixel - image_macs)


def _counts(converted: nn.Module, image: Tensor) -> tuple[OperationCount, ...]:
    return count_operations(converted, converted.trace(image)[1])


def test_operations_on_the_image_are_those_that_read_it_alone() -> None:
    made = network((1, 1), top_residual=True)
    folded, image = spiking(made, 4, "binary"), seen(made)
    found: EnergyColumns = energy_columns(folded, folded.trace(image, trains=True)[1], image, made)
    for layer in found.layers:
        dense = any(part in layer.name for part in ON_IMAGE)
        assert (layer.snn_mj["paper"].fixed > 0) == dense, layer.name
        assert layer.snn_mj["paper"].driven == 0 or not dense, layer.name
