"""Networks of several scales run natively, bit for bit as with torch: ours, and what users' U-Nets are made of."""

from typing import Any

import pytest
import torch
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from spikingir.conversion.convert import convert
from spikingir.deploy import engine
from spikingir.deploy.fold import FoldError, fold
from spikingir.inputs import pad_to_multiple, with_level
from spikingir.networks.multiscale import MultiScaleNet
from tests.deploy.test_engine import assert_same

pytestmark = pytest.mark.skipif(not engine.native_available(), reason="SpikingIR was installed without a compiler")


def disturbed(network: nn.Module, seed: int, amount: float = 0.05) -> Any:
    """A network with weights, biases and norms of every size and sign."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        parameter.data.add_(amount * torch.randn(parameter.shape, generator=generator))
    return network.eval()


def assert_integers(network: Any) -> None:
    """The integer kernels run it, not those for wider numbers."""
    from spikingir.deploy.native import NativeNetwork, _ByteLayer

    assert all(isinstance(layer, _ByteLayer) for layer in NativeNetwork(network)._layers.layers)


def multiscale(
    channels: int, width: int, blocks: tuple[int, ...], form: str, top_residual: bool, inject_kernel: int, seed: int
) -> MultiScaleNet:
    network = MultiScaleNet(channels, width, blocks, form, top_residual, batch_norm=True, inject_kernel=inject_kernel)
    network.reset_parameters(torch.Generator().manual_seed(seed))
    disturbed(network, seed)
    return network


def inputs_of(network: MultiScaleNet, count: int, height: int, width: int, generator: torch.Generator) -> Tensor:
    """Images somewhat beyond [0, 1], with a level map where the network reads one."""
    found = torch.rand(count, network.channels, height, width, generator=generator) * 1.4 - 0.2
    if network.takes_level:
        found = with_level(found, 0.4 * torch.rand(count, 1, height, width, generator=generator))
    return found


@settings(max_examples=12, deadline=None)
@given(
    width=st.integers(1, 35),
    blocks=st.sampled_from([(1, 1), (0, 1), (2, 1), (1, 1, 1), (0, 0, 2)]),
    channels=st.sampled_from([1, 3]),
    form=st.sampled_from(["level", "residual", "soft", "airlight"]),
    top_residual=st.booleans(),
    inject_kernel=st.sampled_from([1, 3]),
    size=st.tuples(st.integers(1, 3), st.integers(1, 5)),
    coding=st.sampled_from(["binary", "unary"]),
    time_steps=st.integers(1, 8),
    weight_bits=st.sampled_from([4, 8, 11]),
    percentile=st.sampled_from([90, 100]),
    bright=st.booleans(),
    seed=st.integers(0, 999),
)
def test_multiscale(
    width: int,
    blocks: tuple[int, ...],
    channels: int,
    form: str,
    top_residual: bool,
    inject_kernel: int,
    size: tuple[int, int],
    coding: str,
    time_steps: int,
    weight_bits: int,
    percentile: float,
    bright: bool,
    seed: int,
) -> None:
    network = multiscale(channels, width, blocks, form, top_residual, inject_kernel, seed)
    generator = torch.Generator().manual_seed(seed)

    def images(count: int, height: int, width: int) -> Tensor:
        return inputs_of(network, count, height, width, generator)

    bits = tuple(max(1, time_steps - i) for i in range(len(blocks))) if coding == "binary" else ()
    how: dict[str, Any] = {"time_steps": time_steps, "schedule": "phased", "coding": coding, "percentile": percentile}
    spiking = convert(network, images(2, 16, 24), activation_bits=bits, **how)
    try:
        folded = fold(spiking, weight_bits=weight_bits)
    except FoldError:  # a channel that calibration found dead has next to no threshold
        return
    assert_integers(folded)
    image = images(2, *(side * network.multiple for side in size))
    if bright:  # beyond what 16 bits hold
        image[0, 0] *= 4
    assert_same(folded, image)


@settings(max_examples=16, deadline=None)
@given(
    width=st.sampled_from([1, 3, 8, 20, 33]),
    blocks=st.sampled_from([(1, 1), (0, 1), (2, 1), (1, 1, 1), (0, 0, 2), (1, 0, 1, 1)]),
    channels=st.sampled_from([1, 3]),
    form=st.sampled_from(["level", "residual", "soft", "airlight"]),
    top_residual=st.booleans(),
    inject_kernel=st.sampled_from([1, 3]),
    size=st.tuples(st.integers(1, 29), st.integers(1, 37)),
    method=st.sampled_from(["spikingir", "if"]),
    time_steps=st.integers(1, 12),
    delayed=st.booleans(),
    weight_bits=st.sampled_from([None, 4, 8, 12, 16]),
    percentile=st.sampled_from([90, 100]),
    seed=st.integers(0, 999),
)
def test_clocked_multiscale(
    width: int,
    blocks: tuple[int, ...],
    channels: int,
    form: str,
    top_residual: bool,
    inject_kernel: int,
    size: tuple[int, int],
    method: str,
    time_steps: int,
    delayed: bool,
    weight_bits: int | None,
    percentile: float,
    seed: int,
) -> None:
    from spikingir.deploy.native import NativeNetwork, _TrainLayer

    network = multiscale(channels, width, blocks, form, top_residual, inject_kernel, seed)
    generator = torch.Generator().manual_seed(seed)
    few = inputs_of(network, 2, 16, 32, generator)
    spiking = convert(network, few, method, time_steps=time_steps, percentile=percentile)
    try:
        folded = fold(spiking.at(schedule=time_steps // 2 if delayed else "clocked"), weight_bits=weight_bits)
    except FoldError:  # a channel that calibration found dead has next to no threshold
        reject()
    if not folded.config.phased:  # as is a delay by all steps but one
        assert all(isinstance(layer, _TrainLayer) for layer in NativeNetwork(folded)._layers.layers)
    assert_same(folded, pad_to_multiple(inputs_of(network, 2, *size, generator), network.multiple))


class Moves(nn.Module):
    """Shuffles, slices, concatenations, strides, groups, transposed convolutions, sums that a convolution reads."""

    def __init__(self, width: int, kernel: int, groups: int) -> None:
        super().__init__()
        width *= 4 * groups
        self.first = nn.Conv2d(2, width, kernel, padding=kernel // 2)
        self.second = nn.Conv2d(width, width, 3, padding=1, groups=groups)
        self.down = nn.Conv2d(width, width, (2, 3), 2, padding=(0, 1))
        self.unshuffled = nn.Conv2d(4 * width, width, 3, padding=1)
        self.shuffled = nn.Conv2d(width // 4, width, kernel, stride=2, padding=kernel // 2)
        self.up = nn.ConvTranspose2d(width, width, 2, 2, groups=groups)
        self.repeated = nn.Conv2d(width, width, 3, padding=1)
        self.joined = nn.Conv2d(2 * width + 2, width, 1)
        self.last = nn.Conv2d(width, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        a = torch.relu(self.first(x))
        b = torch.relu(self.second(a))
        low = torch.relu(self.unshuffled(functional.pixel_unshuffle(a, 2)) - self.down(b))
        same = torch.relu(self.shuffled(functional.pixel_shuffle(b, 2)))
        up = torch.relu(self.up(low) + b)
        rough = torch.relu(self.repeated(functional.interpolate(low, scale_factor=2, mode="nearest")) - 0.25 * a)
        joined = torch.relu(self.joined(torch.cat([up, a[:, 1:3], rough], 1)) + same)
        return self.last(joined + up)


@settings(max_examples=16, deadline=None)
@given(
    width=st.integers(1, 5),
    kernel=st.sampled_from([1, 3, 5]),
    groups=st.integers(1, 2),
    size=st.tuples(st.integers(1, 8), st.integers(1, 8)),
    coding=st.sampled_from(["binary", "unary"]),
    schedule=st.sampled_from(["phased", "clocked"]),
    time_steps=st.integers(1, 6),
    seed=st.integers(0, 999),
)
def test_moves(
    width: int, kernel: int, groups: int, size: tuple[int, int], coding: str, schedule: str, time_steps: int, seed: int
) -> None:
    torch.manual_seed(seed)
    body = disturbed(Moves(width, kernel, groups), seed)
    coding = coding if schedule == "phased" else "unary"
    how: dict[str, Any] = {"time_steps": time_steps, "schedule": schedule, "coding": coding, "percentile": 99}
    network = convert(body, torch.rand(2, 2, 16, 16), **how)
    for name in network.layers[:-1]:  # spikes of equal worth, which can be added and shuffled as they are
        network.neuron(name).log_threshold.data.fill_(-1.0)
    folded = fold(network, weight_bits=8)
    if schedule == "phased":
        assert_integers(folded)
    assert_same(folded, 2 * torch.rand(2, 2, *(2 * side for side in size)) - 0.5)


class UNet(nn.Module):
    """Nine convolutions, two scales, ReLU: a published blind network's form."""

    def __init__(self, width: int, bias: bool, transposed: bool) -> None:
        super().__init__()
        widths = [(1, width), (width, width), (width, 2 * width), (2 * width, 2 * width), (2 * width, 2 * width)]
        self.encoder = nn.ModuleList(
            nn.Conv2d(a, b, 3, 2 if i == 2 else 1, padding=1, bias=bias) for i, (a, b) in enumerate(widths)
        )
        kernel = 4 if transposed else 2
        self.up = nn.ConvTranspose2d(2 * width, width, kernel, 2, padding=kernel // 2 - 1, bias=bias)
        self.decoder = nn.ModuleList(
            nn.Conv2d(a, b, 3, padding=1, bias=bias) for a, b in [(2 * width, width), (width, width), (width, 1)]
        )

    def forward(self, x: Tensor) -> Tensor:
        skip = torch.relu(self.encoder[1](torch.relu(self.encoder[0](x))))
        low = skip
        for convolution in self.encoder[2:]:
            low = torch.relu(convolution(low))
        high = torch.cat([torch.relu(self.up(low)), skip], 1)
        for convolution in self.decoder[:-1]:
            high = torch.relu(convolution(high))
        return self.decoder[-1](high)


@pytest.mark.parametrize(("bias", "transposed"), [(False, False), (False, True), (True, False)])
@pytest.mark.parametrize(("schedule", "coding"), [("phased", "binary"), ("phased", "unary"), ("clocked", "unary")])
def test_unet(bias: bool, transposed: bool, schedule: str, coding: str) -> None:
    torch.manual_seed(6)
    how: dict[str, Any] = {"time_steps": 4, "schedule": schedule, "coding": coding}
    network = convert(disturbed(UNet(9, bias, transposed), 6), torch.rand(2, 1, 16, 16), **how)
    folded = fold(network)
    assert_same(folded, torch.rand(2, 1, 18, 30))


class Sides(nn.Module):
    """A sum of convolutions whose kernels have different sides."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.large, self.small = nn.Conv2d(4, 3, 7, padding=3), nn.Conv2d(4, 3, 3, padding=1)
        self.last = nn.Conv2d(3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = torch.relu(self.first(x))
        b = torch.relu(self.second(a))
        return self.last(torch.relu(self.large(a) + self.small(b)))


@pytest.mark.parametrize("schedule", ["phased", "clocked"])
def test_kernels_of_several_sides(schedule: str) -> None:
    """On the phased schedule in layers of wide weights, whose kernels all have the side of the largest."""
    from spikingir.deploy.native import NativeNetwork, _TrainLayer, _WideLayer

    torch.manual_seed(3)
    folded = fold(convert(Sides().eval(), torch.rand(2, 1, 16, 24), time_steps=5, schedule=schedule))  # type: ignore[arg-type]
    kind = _WideLayer if schedule == "phased" else _TrainLayer
    assert all(isinstance(layer, kind) for layer in NativeNetwork(folded)._layers.layers)
    assert_same(folded, torch.rand(2, 1, 13, 21))


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize(("schedule", "coding"), [("phased", "binary"), ("clocked", "unary")])
def test_threads_do_not_matter_where_few_rows_have_many_channels(schedule: str, coding: str, threads: int) -> None:
    network = disturbed(MultiScaleNet(1, 40, (1, 1), "residual"), 7)
    how: dict[str, Any] = {"time_steps": 4, "schedule": schedule, "coding": coding}
    folded = fold(convert(network, torch.rand(2, 1, 16, 16), **how))
    image = torch.rand(1, 1, 8, 40)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        assert torch.equal(engine.restore(folded, image, engine="native"), folded(image))
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("tile", [8, 24])
@pytest.mark.parametrize(("schedule", "coding", "bits"), [("phased", "binary", (5, 3)), ("clocked", "unary", ())])
def test_tiles_are_the_whole_image(schedule: str, coding: str, bits: tuple[int, ...], tile: int) -> None:
    from spikingir.restoration.tiling import restore_tiled

    network = disturbed(MultiScaleNet(1, 6, (1, 1)), 8)
    image = with_level(torch.rand(1, 1, 40, 56), 0.1 * torch.rand(1, 1, 40, 56))
    how: dict[str, Any] = {"time_steps": 5, "schedule": schedule, "coding": coding, "activation_bits": bits}
    folded = fold(convert(network, image, **how))
    assert torch.equal(restore_tiled(folded, image, tile, engine="native"), folded(image))
