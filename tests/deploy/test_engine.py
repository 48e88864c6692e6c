"""The native engine gives what torch gives, bit for bit, or leaves the work to torch and says why."""

import itertools
import logging
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import assume, given, reject, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import spikingir
from spikingir.conversion.convert import convert
from spikingir.deploy import engine
from spikingir.deploy import engine as choice
from spikingir.deploy.fold import FoldError, fold
from spikingir.deploy.folded import FoldedNetwork
from spikingir.deploy.grids import largest_numbers
from spikingir.deploy.integers import NotNativeError
from spikingir.inputs import with_level
from spikingir.networks.aodnet import AODNet
from spikingir.spiking.network import SpikingNetwork, Trace
from spikingir.store import from_pretrained

pytestmark = pytest.mark.skipif(not engine.native_available(), reason="SpikingIR was installed without a compiler")

SHIPPED = sorted((Path(spikingir.__file__).parent / "zoo/models").glob("*/snn*.safetensors"))


def paths() -> list[str]:
    """Instructions that this processor has; none where there is no engine, whose tests are then skipped."""
    if not engine.native_available():
        return []
    from spikingir.deploy import _native

    return _native.paths()


def chain(*widths: int, kernel: int = 3, relu_last: bool = False) -> nn.Sequential:
    """Convolutions from ``widths[0]`` to ``widths[-1]`` channels."""
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        layers += [nn.Conv2d(before, after, kernel, padding=kernel // 2), nn.ReLU()]
    return nn.Sequential(*(layers if relu_last else layers[:-1]))


def assert_same(network: FoldedNetwork, image: Tensor) -> Trace:
    """Images, spikes, residual membranes and counts of every path are torch's."""
    from spikingir.deploy.native import NativeNetwork

    expected, reference = network.trace(image, trains=True)
    for path in paths():
        native = NativeNetwork(network, path)
        restored, trace = native.trace(network, image, trains=True)
        assert torch.equal(restored, expected), path
        assert torch.equal(native.restore(network, image), expected), path
        for layer, wanted in zip(trace.layers, reference.layers, strict=True):
            assert (layer.name, layer.neurons) == (wanted.name, wanted.neurons)
            assert layer.trains is not None
            assert wanted.trains is not None
            assert torch.equal(layer.trains, wanted.trains), (path, layer.name)
            assert torch.equal(layer.spikes, wanted.spikes), (path, layer.name)
            assert torch.equal(layer.residual_membrane, wanted.residual_membrane), (path, layer.name)
        window = (slice(1, None), slice(0, 4))
        counted = native.count(network, image, dict.fromkeys(network.clocks, window))
        assert torch.equal(counted[0], expected), path
        for layer, wanted in zip(counted[1].layers, reference.layers, strict=True):
            assert torch.equal(layer.spikes, wanted.part(window).spikes), (path, layer.name)
            assert (layer.name, layer.neurons) == (wanted.name, wanted.part(window).neurons)
    return reference


def scale_thresholds(network: SpikingNetwork, factor: float) -> SpikingNetwork:
    for name in network.layers[:-1]:
        network.neuron(name).log_threshold.data.add_(torch.tensor(factor).log())
    return network


def is_too_long(network: FoldedNetwork) -> bool:
    """Whether sums go beyond 32 bits, as where a channel that calibration found dead has next to no threshold."""
    return max(largest_numbers(network).values()) > 2**31 - 1


@settings(max_examples=20, deadline=None)
@given(
    width=st.integers(1, 70),
    channels=st.integers(1, 3),
    kernel=st.sampled_from([1, 3, 5, 7]),
    size=st.tuples(st.integers(1, 19), st.integers(1, 19)),
    time_steps=st.integers(1, 9),
    schedule=st.sampled_from(["clocked", "phased", "delayed"]),
    method=st.sampled_from(["spikingir", "rueckauer"]),
    v0=st.sampled_from([0.0, 0.3, 0.5]),
    bits=st.integers(4, 20),
    gain=st.floats(0.05, 30),
    threshold=st.floats(0.02, 50),
    relu_last=st.booleans(),
    seed=st.integers(0, 999),
)
def test_any_chain(
    width: int,
    channels: int,
    kernel: int,
    size: tuple[int, int],
    time_steps: int,
    schedule: str,
    method: str,
    v0: float,
    bits: int,
    gain: float,
    threshold: float,
    relu_last: bool,
    seed: int,
) -> None:
    torch.manual_seed(seed)
    body = chain(channels, width, 5, channels, kernel=kernel, relu_last=relu_last)
    body[2].weight.data *= gain
    network = convert(body, torch.rand(2, channels, 8, 8), method, time_steps=time_steps, percentile=90, v0=v0)
    network = scale_thresholds(network, threshold)
    delayed = network.at(schedule=time_steps // 2 if schedule == "delayed" else schedule)
    try:
        folded = fold(delayed, grid=bits)
    except FoldError:  # a channel that calibration found dead has next to no threshold
        reject()
    assume(not is_too_long(folded))
    assert_same(folded, 3 * torch.rand(2, channels, *size) - 1)


@pytest.mark.parametrize("method", ["spikingir", "rueckauer"])
@pytest.mark.parametrize("time_steps", [1, 7, 8, 15, 16, 33])  # with and without the extended step around whole vectors
def test_few_channels(time_steps: int, method: str) -> None:
    torch.manual_seed(time_steps)
    body = chain(2, 32, 4, 33, 1, 2)  # a whole word into few, few into many, more than a word into one, one into two
    body[2].weight.data *= 3
    network = convert(body, torch.rand(2, 2, 8, 8), method, time_steps=time_steps, percentile=90)
    for schedule in ("clocked", time_steps // 2):
        assert_same(fold(network.at(schedule=schedule)), 3 * torch.rand(1, 2, 6, 9) - 1)


@pytest.mark.parametrize("schedule", ["clocked", 3, "phased"])
@pytest.mark.parametrize("method", ["spikingir", "if"])
def test_concatenations(schedule: str | int, method: str) -> None:
    torch.manual_seed(1)
    network = convert(AODNet().eval(), torch.rand(2, 3, 16, 16), method, time_steps=6).at(schedule=schedule)
    assert_same(fold(network), torch.rand(2, 3, 17, 22))


class Branches(nn.Module):
    """Sums and differences: of weighted branches, of a skip, of the image's current, of spikes; two ways to a layer."""

    def __init__(self, width: int, kernels: tuple[int, int, int], groups: int, dilation: int) -> None:
        super().__init__()
        width *= groups
        first, second, third = kernels
        self.first = nn.Conv2d(2, width, first, padding=first // 2)
        self.second = nn.Conv2d(width, width, (third, second), padding=(third // 2, second // 2), groups=groups)
        self.third = nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation)
        self.image = nn.Conv2d(2, width, second, padding=second // 2)
        self.last = nn.Conv2d(2 * width, 2, third, padding=third // 2)

    def forward(self, x: Tensor) -> Tensor:
        a = torch.relu(self.first(x))
        b = torch.relu(self.second(a) - 0.5 * a)
        c = torch.relu(self.third(b) + (self.image(x) - self.second(a)) + b)
        d = torch.relu(self.third(c + a))
        return self.last(torch.cat([d - b, c], 1))


@settings(max_examples=12, deadline=None)
@given(
    width=st.integers(1, 20),
    kernels=st.tuples(*3 * [st.sampled_from([1, 3, 5, 7])]),
    groups=st.integers(1, 3),
    dilation=st.integers(1, 3),
    size=st.tuples(st.integers(1, 13), st.integers(1, 13)),
    time_steps=st.integers(1, 6),
    schedule=st.sampled_from(["clocked", "phased", "delayed"]),
    method=st.sampled_from(["spikingir", "if"]),
    seed=st.integers(0, 999),
)
def test_branches(
    width: int,
    kernels: tuple[int, int, int],
    groups: int,
    dilation: int,
    size: tuple[int, int],
    time_steps: int,
    schedule: str,
    method: str,
    seed: int,
) -> None:
    torch.manual_seed(seed)
    body = Branches(width, kernels, groups, dilation)
    network = convert(body, torch.rand(2, 2, 12, 12), method, time_steps=time_steps)
    for name in network.layers[:-1]:  # spikes of equal worth, which can be added as they are
        network.neuron(name).log_threshold.data.fill_(-1.0)
    network = network.at(schedule=time_steps // 2 if schedule == "delayed" else schedule)
    assert_same(fold(network), 2 * torch.rand(2, 2, *size) - 0.5)


@pytest.mark.parametrize("schedule", ["clocked", "phased"])
@pytest.mark.parametrize(("factor", "low", "high"), [(1e3, 0, 0), (1.0, 0.05, 0.5), (1e-3, 0.8, 1)])
def test_any_density(schedule: str, factor: float, low: float, high: float) -> None:
    torch.manual_seed(2)
    body = chain(1, 40, 33, 1)
    for layer in (body[0], body[2]):
        layer.bias.data.abs_()
        layer.weight.data.abs_()
    network = convert(body, torch.rand(2, 1, 16, 16), time_steps=5).at(schedule=schedule)
    trace = assert_same(fold(scale_thresholds(network, factor), grid=6), torch.rand(1, 1, 12, 13))
    steps = len(trace.layers[0].spikes)
    density = sum(int(layer.spikes.sum()) for layer in trace.layers[:-1]) / (
        steps * sum(layer.neurons for layer in trace.layers[:-1])
    )
    assert low <= density <= high


@pytest.mark.parametrize("largest", [4000, 8000, 16000, 32000, 100_000])
@pytest.mark.parametrize("schedule", ["clocked", "phased"])
def test_weights_of_any_size(largest: int, schedule: str) -> None:
    torch.manual_seed(3)
    folded = fold(convert(chain(1, 34, 20, 1), torch.rand(2, 1, 16, 16), time_steps=4).at(schedule=schedule))
    kernel = folded.kernel("_2")
    assert kernel is not None
    assert kernel.grid is not None
    for weight in (kernel.spike, kernel.extended):
        weight[0, 0, 1, 1] = largest / kernel.grid[0]
        weight[1, 5, 2, 0] = -largest / kernel.grid[1]
    assert_same(folded, torch.rand(1, 1, 9, 11))


def by_columns(folded: FoldedNetwork) -> list[bool]:
    """Of each clocked layer that reads spikes, whether the engine reads them by columns."""
    from spikingir.deploy.native import NativeNetwork

    return [layer._neurons.by_columns for layer in NativeNetwork(folded)._layers.layers[1:]]


@pytest.mark.parametrize("schedule", ["clocked", 2])
@pytest.mark.parametrize("factor", [1.0, 0.1, 1e-3])
@pytest.mark.parametrize(
    ("widths", "kernel", "size"),
    [((1, 40, 33, 1), 3, (5, 13)), ((2, 9, 64, 70), 1, (3, 17)), ((1, 7, 5, 9), 5, (9, 3)), ((1, 6, 20, 2), 7, (8, 9))],
)
def test_clocked_layers_by_columns(
    widths: tuple[int, ...], kernel: int, size: tuple[int, int], factor: float, schedule: str | int
) -> None:
    torch.manual_seed(6)
    body = chain(*widths, kernel=kernel)
    network = convert(body, torch.rand(2, widths[0], 16, 16), time_steps=5).at(schedule=schedule)
    folded = fold(scale_thresholds(network, factor), weight_bits=8)
    assert all(by_columns(folded))
    assert_same(folded, torch.rand(2, widths[0], *size))


@pytest.mark.parametrize(("inputs", "fits"), [(28, True), (29, False)])
def test_sums_that_just_fit_16_bits(inputs: int, fits: bool) -> None:
    torch.manual_seed(7)
    network = convert(chain(1, inputs, 2, 1), torch.rand(2, 1, 16, 16), time_steps=3).at(schedule="clocked")
    folded = fold(scale_thresholds(network, 1e-3), weight_bits=8)
    kernel = folded.kernel("_2")
    assert kernel is not None
    assert kernel.grid is not None
    for weight in (kernel.spike, kernel.extended):  # 252 of them reach 32 004, 261 do 33 147
        for output, sign in ((0, 1), (1, -1)):
            weight[output] = sign * 127 / kernel.grid[output]
            weight[output, 0, 0, 0] = 126 / kernel.grid[output]
    assert by_columns(folded)[0] is fits
    assert_same(folded, torch.rand(1, 1, 9, 11))


@pytest.mark.parametrize("schedule", ["clocked", 2, "phased"])
@pytest.mark.parametrize("file", SHIPPED, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_shipped_networks(file: Path, schedule: str | int) -> None:
    network = from_pretrained(file)
    generator = torch.Generator().manual_seed(4)
    if network.config.coding == "binary":  # on its own schedule alone
        if schedule != "phased":
            pytest.skip("a binary network runs phased")
    else:
        network = network.at(time_steps=4, schedule=schedule)
    image = torch.rand(1, network.config.channels, 16, 32, generator=generator)  # the scales of all divide its sides
    assert_same(fold(network), with_level(image, 0.1) if network.config.is_told_level else image)


def test_threads_and_batch_do_not_matter() -> None:
    torch.manual_seed(5)
    folded = fold(convert(chain(1, 9, 9, 1), torch.rand(2, 1, 16, 16), time_steps=5))
    images = torch.rand(3, 1, 15, 14)
    together = engine.restore(folded, images, engine="native")
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 40):
            torch.set_num_threads(count)
            assert torch.equal(engine.restore(folded, images, engine="native"), together)
    finally:
        torch.set_num_threads(threads)
    alone = [engine.restore(folded, image[None], engine="native") for image in images]
    assert torch.equal(torch.cat(alone), together)


@pytest.mark.parametrize("formation", ["residual", "atmospheric", "identity"])
def test_images_of_more_rows_than_are_formed_at_a_time(formation: str) -> None:
    torch.manual_seed(7)
    network = convert(chain(2, 3, 2), torch.rand(2, 2, 16, 16), time_steps=3, schedule="phased")
    network.config = replace(network.config, formation=formation)
    folded, images = fold(network), torch.rand(2, 2, 300, 401)
    assert torch.equal(engine.restore(folded, images, engine="native"), folded(images))


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (nn.Sequential(nn.Conv2d(1, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 33, padding=16), nn.Conv2d(4, 1, 1)), "33x33"),
        (nn.Sequential(nn.Conv2d(1, 4, 1), nn.ReLU(), nn.AvgPool2d(3, 1, 1), nn.Conv2d(4, 1, 1)), "avg_pool2d"),
    ],
)
def test_what_it_cannot_do_is_left_to_torch_and_said_once(
    body: nn.Module, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    choice._say.cache_clear()
    folded, image = fold(convert(body, torch.rand(2, 1, 16, 16), time_steps=3)), torch.rand(1, 1, 8, 8)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert torch.equal(engine.restore(folded, image), folded(image))
            engine.trace(folded, image)
    assert [reason in record.getMessage() for record in caplog.records] == [True]
    with pytest.raises(engine.EngineError, match=reason):
        engine.restore(folded, image, engine="native")


def test_sums_that_just_leave_32_bits_are_left_to_torch(caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(6)
    choice._say.cache_clear()
    folded = fold(convert(chain(1, 3, 2, 1), torch.rand(2, 1, 8, 8), time_steps=3))
    kernel, name = folded.kernel("_2"), list(folded.clocks)[1]
    assert kernel is not None
    assert kernel.grid is not None
    for bit in reversed(range(10, 31)):  # the largest weight with which the sums that are known beforehand fit
        for weight in (kernel.spike, kernel.extended):
            weight[0, 0, 1, 1] += 2.0**bit / kernel.grid[0]
        if largest_numbers(folded)[name] > 2**31 - 1:
            for weight in (kernel.spike, kernel.extended):
                weight[0, 0, 1, 1] -= 2.0**bit / kernel.grid[0]
    image = torch.rand(1, 1, 5, 6)
    assert torch.equal(engine.restore(folded, image), folded(image))
    assert caplog.text.count("the sums of output channel 0 do not fit 32 bits") == 1
    with pytest.raises(engine.EngineError, match=f"'{name}': the sums of output channel 0 do not fit 32 bits; torch"):
        engine.restore(folded, image, engine="native")


def test_without_the_extension_torch_does_it(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(choice, "native_available", lambda: False)
    choice._say.cache_clear()
    folded, image = fold(convert(chain(1, 3, 1), torch.rand(2, 1, 8, 8), time_steps=3)), torch.rand(1, 1, 8, 8)
    assert torch.equal(engine.restore(folded, image), folded(image))
    assert "compiler" in caplog.text
    with pytest.raises(engine.EngineError, match="compiler"):
        engine.restore(folded, image, engine="native")


def test_a_stale_extension_is_said_and_not_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    from spikingir.deploy import _native, native

    native.require_current(tmp_path / "site-packages")  # an installed package, without sources beside it
    (tmp_path / "native").mkdir()
    for name in ("native/module.cpp", "CMakeLists.txt"):
        (tmp_path / name).write_text("another")
    check, folded = native.require_current, fold(convert(chain(1, 3, 1), torch.rand(2, 1, 8, 8), time_steps=3))
    image, said = torch.rand(1, 1, 8, 8), r"stale, built from other sources.*; rebuild it by `.* pip install .*`"
    monkeypatch.setattr(native, "require_current", lambda: check(tmp_path))
    for old in (False, True):  # one that knows its sources, and one of before there was this check
        if old:
            monkeypatch.delattr(_native, "sources", raising=False)
        choice._say.cache_clear()
        with caplog.at_level(logging.WARNING):
            for _ in range(2):
                assert torch.equal(engine.restore(folded, image), folded(image))
        assert [bool(re.search(said, record.getMessage())) for record in caplog.records] == [True]
        caplog.clear()
        with pytest.raises(engine.EngineError, match=said):
            engine.restore(folded, image, engine="native")
        with pytest.raises(NotNativeError, match=said):
            native.NativeNetwork(folded)


def test_the_extension_is_that_of_the_sources() -> None:
    from spikingir.deploy import _native, native

    native.require_current()
    assert re.fullmatch("[0-9a-f]{64}", _native.sources)


def test_instructions_can_be_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    folded, image = fold(convert(chain(1, 3, 1), torch.rand(2, 1, 8, 8), time_steps=3)), torch.rand(1, 1, 8, 8)
    for path in paths():
        monkeypatch.setenv(choice.ISA, path)
        assert torch.equal(engine.restore(folded, image, engine="native"), folded(image))
        assert choice._made[folded].path == path
    monkeypatch.setenv(choice.ISA, "mmx")
    with pytest.raises(engine.EngineError, match=r"SPIKINGIR_ISA is 'mmx'; this processor has .*portable"):
        engine.restore(folded, image)


def test_refusals() -> None:
    network = convert(chain(1, 3, 1), torch.rand(2, 1, 8, 8), time_steps=3)
    image = torch.rand(1, 1, 8, 8)
    with pytest.raises(engine.EngineError, match="gpu"):
        engine.restore(fold(network), image, engine="gpu")  # type: ignore[arg-type]
    with pytest.raises(engine.EngineError, match="no grid"):
        engine.restore(fold(network, grid=None, dtype=torch.float64), image, engine="native")
    with pytest.raises(ValueError, match="shape"):
        engine.restore(fold(network), torch.rand(1, 2, 8, 8), engine="native")
    with pytest.raises(ValueError, match="within 8"):
        engine.restore(fold(network), image + float("nan"), engine="native")
