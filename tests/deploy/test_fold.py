"""The deployment form: folded = trained spike for spike, gridded = itself bit for bit."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from spikingir.conversion.convert import convert
from spikingir.deploy.fold import FoldError, fold
from spikingir.spiking.network import SpikingNetwork, Trace


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 12, 3, padding=1)
        self.c, self.d = nn.Conv2d(20, 8, 3, padding=1), nn.Conv2d(8, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        a = torch.relu(self.a(x))
        b = torch.relu(self.b(functional.avg_pool2d(a, 2)))
        up = functional.interpolate(b, scale_factor=2, mode="bilinear", align_corners=False)
        return self.d(torch.relu(self.c(torch.cat([up, a], 1))))


class Residual(nn.Module):
    """EDSR's block and a sum of two spiking branches, with a skip from the image."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.a, self.b = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1)
        self.left, self.right = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1)
        self.tail = nn.Conv2d(8, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        head = self.head(x)
        body = head + 0.1 * self.b(torch.relu(self.a(head)))
        return x + self.tail(torch.relu(self.left(body)) + torch.relu(self.right(body)))


class Shuffled(nn.Sequential):
    """FFDNet's shape, and a shuffle between a neuron and the next weights."""

    def __init__(self) -> None:
        super().__init__(
            nn.PixelUnshuffle(2), nn.Conv2d(4, 16, 3, padding=1), nn.ReLU(), nn.PixelShuffle(2),
            nn.Conv2d(4, 8, 3, padding=1, stride=2), nn.ReLU(), nn.Conv2d(8, 4, 3, padding=1), nn.PixelShuffle(2),
        )  # fmt: skip


class Transposed(nn.Sequential):
    """Strided, transposed and grouped convolutions, padding modes, a last ReLU."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(1, 8, 3, padding=1, stride=2, padding_mode="reflect"), nn.ReLU(),
            nn.Conv2d(8, 8, 3, padding=1, groups=4), nn.ReLU(),
            nn.ConvTranspose2d(8, 4, 4, stride=2, padding=1, groups=2), nn.ReLU(), nn.Conv2d(4, 1, 1), nn.ReLU(),
        )  # fmt: skip
        nn.init.constant_(self[-2].bias, 0.5)  # or the random output is dead


class ImageSkip(nn.Module):
    """Spikes beside the image itself, and a resizing that reads the image for its size alone."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 8, 3, padding=1, stride=2), nn.Conv2d(9, 8, 3, padding=1)
        self.c = nn.Conv2d(8, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        a = functional.interpolate(torch.relu(self.a(x)), size=x.shape[-2:], mode="nearest")
        return self.c(torch.relu(self.b(torch.cat([a, x], 1))) + x)


def plain(width: int = 12) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, 1, 3, padding=1),
    ).eval()  # fmt: skip


BODIES = {
    "plain": plain,
    "unet": UNet,
    "residual": Residual,
    "shuffled": Shuffled,
    "transposed": Transposed,
    "skip": ImageSkip,
}


def spiking(kind: str, method: str, seed: int = 0, **arguments: object) -> SpikingNetwork:
    """A converted network whose thresholds, betas and mapper are no longer at their initial values."""
    torch.manual_seed(seed)
    network = convert(BODIES[kind](), torch.rand(4, 1, 24, 24), method, **arguments).double()  # type: ignore[arg-type]
    for name, parameter in network.named_parameters():
        if "log_" in name or name.startswith("mapper"):
            parameter.data += 0.1 * torch.randn_like(parameter)
    return network


def different_spikes(first: Trace, second: Trace) -> int:
    assert [layer.name for layer in first.layers] == [layer.name for layer in second.layers]
    pairs = zip(first.layers, second.layers, strict=True)
    return sum(int((a.trains != b.trains).sum()) for a, b in pairs if a.trains is not None)


@pytest.mark.parametrize("kind", BODIES)
@pytest.mark.parametrize("method", ["spikingir", "if"])
@pytest.mark.parametrize("schedule", ["clocked", 3, "phased"])
def test_folded_equals_trained_spike_for_spike(kind: str, method: str, schedule: str | int) -> None:
    network = spiking(kind, method, time_steps=7, schedule=schedule)
    image = torch.rand(2, 1, 24, 24, dtype=torch.float64)
    expected, trace = network.trace(image, trains=True)
    restored, folded = fold(network, grid=None, dtype=torch.float64).trace(image, trains=True)
    assert different_spikes(trace, folded) == 0
    assert sum(int(layer.spikes.sum()) for layer in folded.layers) > 1000
    torch.testing.assert_close(restored, expected, rtol=0, atol=1e-12)
    for a, b in zip(trace.layers, folded.layers, strict=True):
        torch.testing.assert_close(b.residual_membrane, a.residual_membrane, rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", BODIES)
@pytest.mark.parametrize("schedule", ["clocked", 3, "phased"])
def test_gridded_is_the_same_bit_for_bit_in_float32_and_float64(kind: str, schedule: str | int) -> None:
    network = spiking(kind, "spikingir", time_steps=7, schedule=schedule)
    image = torch.rand(2, 1, 24, 24)
    single, double = fold(network), fold(network, dtype=torch.float64)
    restored, trace = single.trace(image, trains=True)
    expected, reference = double.trace(image, trains=True)
    assert different_spikes(trace, reference) == 0
    assert torch.equal(restored, expected)
    close = fold(network, grid=None, dtype=torch.float64)(image.double())
    assert (restored - close).square().mean().sqrt() < 0.02 * close.square().mean().sqrt()


@settings(max_examples=15, deadline=None)
@given(
    width=st.integers(1, 9),
    time_steps=st.integers(1, 12),
    bits=st.integers(6, 16),
    gain=st.floats(0.1, 30),
    v0=st.sampled_from([0.0, 0.3, 0.5]),
    seed=st.integers(0, 999),
)
def test_grid_law_holds_for_any_network(
    width: int, time_steps: int, bits: int, gain: float, v0: float, seed: int
) -> None:
    torch.manual_seed(seed)
    body = plain(width)
    body[0].weight.data *= gain
    network = convert(body, torch.rand(2, 1, 12, 12), time_steps=time_steps, percentile=90, v0=v0)
    image = 3 * torch.rand(1, 1, 12, 12) - 1
    restored, trace = fold(network, grid=bits).trace(image, trains=True)
    expected, reference = fold(network, grid=bits, dtype=torch.float64).trace(image, trains=True)
    assert different_spikes(trace, reference) == 0
    assert torch.equal(restored, expected)


@pytest.mark.parametrize("kind", BODIES)
def test_gridded_does_not_depend_on_batch_threads_or_layout(kind: str) -> None:
    folded = fold(spiking(kind, "spikingir", time_steps=6))
    images = torch.rand(5, 1, 24, 24)
    together = folded(images)
    assert torch.equal(folded(images.flip(0)).flip(0), together)
    assert torch.equal(torch.cat([folded(image[None]) for image in images]), together)
    assert torch.equal(folded(images.contiguous(memory_format=torch.channels_last)), together)
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            assert torch.equal(folded(images), together)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize(("bits", "v0", "wanted"), [(14, 0.3, 4915 / 2**14), (1, 0.3, 0.5), (1, 0.9, 0.5), (1, 0.2, 0)])
def test_initial_membranes_lie_on_the_grid_below_the_threshold(bits: int, v0: float, wanted: float) -> None:
    body = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU())
    network = convert(body, torch.rand(2, 1, 8, 8), "if", v0=v0)
    (clock,) = fold(network, grid=bits).clocks.values()
    assert clock.v0 == wanted
    (clock,) = fold(network, grid=None, dtype=torch.float64).clocks.values()
    assert clock.v0 == v0


def test_gridded_does_not_depend_on_the_tile() -> None:
    folded = fold(spiking("plain", "spikingir", time_steps=6))
    image = torch.rand(1, 1, 40, 36)
    whole = folded(image)
    halo = 3 + 1  # three 3x3 convolutions and the mapper
    tile = folded(image[..., 10 - halo : 20 + halo, 8 - halo : 23 + halo])
    assert torch.equal(tile[..., halo:-halo, halo:-halo], whole[..., 10:20, 8:23])


def test_weights_and_spikes_are_what_the_form_promises() -> None:
    folded = fold(spiking("plain", "spikingir", time_steps=6), grid=10)
    for name, kernel in folded.kernels.items():
        low, high = folded.exponents[name]
        assert 1 <= low <= high <= 10
        for tensor in (kernel.spike, kernel.extended, kernel.bias):
            assert torch.equal(tensor.double() * 2**10, (tensor.double() * 2**10).round())
    _, trace = folded.trace(torch.rand(1, 1, 16, 16), trains=True)
    for layer, allowed in zip(trace.layers, ({0, 1}, {0, 1}, {-1, 0, 1}), strict=True):
        assert layer.trains is not None
        assert set(layer.trains.unique().tolist()) <= allowed


def test_first_convolution_alone_where_nothing_fires() -> None:
    network = spiking("plain", "spikingir", time_steps=4)
    for name in network.layers:
        network.neuron(name).log_threshold.data.fill_(20.0)
    _, trace = fold(network).trace(torch.rand(1, 1, 8, 8))
    assert sum(int(layer.spikes.sum()) for layer in trace.layers) == 0


class Steep(nn.Sequential):
    """A function of the user's own on the image, with values beyond what sums on a grid are exact for."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(torch.exp(3 * x))


def test_functions_of_the_image_are_bounded_on_a_grid_alone() -> None:
    network = convert(Steep(*plain()), torch.rand(2, 1, 16, 16), "if", time_steps=4).double()
    image = torch.ones(1, 1, 8, 8, dtype=torch.float64)
    with pytest.raises(ValueError, match="makes of the image must be finite and within 8"):
        fold(network)(image)
    torch.testing.assert_close(fold(network, grid=None, dtype=torch.float64)(image), network(image))


def test_refusals() -> None:
    network = spiking("plain", "if", time_steps=4)
    with pytest.raises(FoldError, match="float64"):
        fold(network, grid=None)
    for grid in (0, 40, 4.5, True):
        with pytest.raises(FoldError, match=f"grid is {grid}; expected a whole number from 1 to 20"):
            fold(network, grid=grid)  # type: ignore[arg-type]
    for bits in (1, 17, 4.5):
        with pytest.raises(FoldError, match=f"weight_bits is {bits}; expected a whole number from 2 to 16"):
            fold(network, weight_bits=bits)  # type: ignore[arg-type]
    with pytest.raises(FoldError, match="float16"):
        fold(network, dtype=torch.float16)
    with pytest.raises(ValueError, match="within 8"):
        fold(network)(torch.full((1, 1, 8, 8), float("nan")))
    with pytest.raises(ValueError, match="within 8"):
        fold(network)(torch.full((1, 1, 8, 8), 255.0))
    network.weight["_2"].data[0, 0, 0, 0] = float("nan")
    with pytest.raises(FoldError, match="not finite"):
        fold(network)
    network = spiking("plain", "if", time_steps=4)
    network.bias["_0"].data[0] = float("nan")
    with pytest.raises(FoldError, match="not finite"):
        fold(network)
    lan = convert(plain(), torch.rand(2, 1, 16, 16), "lan", time_steps=4)
    with pytest.raises(FoldError, match="AdaptiveThresholdNeuron"):
        fold(lan)


@pytest.mark.parametrize("stride", [3, 128])
def test_strides_that_do_not_divide_the_first_blank_image(stride: int) -> None:
    body = nn.Sequential(nn.PixelUnshuffle(stride), nn.Conv2d(stride**2, 2, 1), nn.ReLU(), nn.Conv2d(2, 1, 1))
    image = torch.rand(1, 1, 2 * stride, stride)
    network = convert(body, image, time_steps=4).double()
    torch.testing.assert_close(fold(network, grid=None, dtype=torch.float64)(image.double()), network(image.double()))


def test_a_stride_that_no_blank_image_fits() -> None:
    body = nn.Sequential(nn.PixelUnshuffle(7), nn.Conv2d(49, 1, 1), nn.ReLU())
    with pytest.raises(FoldError, match="takes no image of 64, 128, 256, 360 pixels"):
        fold(convert(body, torch.rand(1, 1, 7, 7)))
