"""Clip levels: exact maximum, streamed percentiles, the floor under dead channels."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from spikingir.conversion.calibrate import calibrate, image_batches
from spikingir.conversion.convert import convert
from spikingir.conversion.ranges import StreamingRange
from spikingir.graph.errors import ConversionError
from spikingir.graph.trace import trace_body

SHAPE = (4, 3, 40, 50)


def draw(kind: str) -> Tensor:
    """Non-negative activations, another scale in each channel."""
    generator = torch.Generator().manual_seed(11)
    normal = torch.randn(SHAPE, generator=generator)
    values = {
        "uniform": torch.rand(SHAPE, generator=generator),
        "rectified": normal.relu(),
        "sparse": torch.where(torch.rand(SHAPE, generator=generator) < 0.97, 0, normal.abs()),
        "heavy tail": torch.exp(3 * normal),
        "tiny": normal.relu() * 1e-6,
        "huge": normal.relu() * 1e6,
        "few values": torch.randint(0, 5, SHAPE, generator=generator) / 4,
        "constant": torch.full(SHAPE, 0.7),
    }[kind]
    return values * torch.tensor([1.0, 0.03, 20.0]).view(1, 3, 1, 1)


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize(
    "kind", ["uniform", "rectified", "sparse", "heavy tail", "tiny", "huge", "few values", "constant"]
)
def test_percentile_is_within_half_a_per_cent(kind: str, per_channel: bool) -> None:
    values = draw(kind)
    seen = StreamingRange(3)
    seen.update(values)
    flat = values.movedim(1, 0).flatten(1) if per_channel else values.reshape(1, -1)
    for q in (0.5, 0.9, 0.98, 0.99, 0.999, 0.9999):
        wanted = np.quantile(flat.double().numpy(), q, axis=1, method="inverted_cdf")
        np.testing.assert_allclose(seen.quantile(q, per_channel).numpy(), wanted, rtol=0.005)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_maximum_is_exact(dtype: torch.dtype) -> None:
    values = draw("heavy tail").to(dtype) * torch.tensor(1 / 3, dtype=dtype)
    seen = StreamingRange(3)
    for piece in values:
        seen.update(piece[None])
    assert seen.quantile(1.0, True).dtype == dtype
    assert torch.equal(seen.quantile(1.0, True), values.amax((0, 2, 3)))
    assert torch.equal(seen.quantile(1.0, False), values.amax().view(1))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    cuts=st.lists(st.integers(0, 60), max_size=4).map(sorted),
    zeros=st.floats(0, 1),
    q=st.floats(0.001, 1),
    seed=st.integers(0, 99),
)
def test_in_pieces_is_at_once(cuts: list[int], zeros: float, q: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(60, 2, 2, 3, generator=generator).abs() ** 3
    values = torch.where(torch.rand(values.shape, generator=generator) < zeros, 0, values)
    whole, pieces = StreamingRange(2), StreamingRange(2)
    whole.update(values)
    for piece in torch.tensor_split(values, cuts):
        if len(piece):
            pieces.update(piece)
    for per_channel in (False, True):
        found = pieces.quantile(q, per_channel)
        assert torch.equal(found, whole.quantile(q, per_channel))
        assert (found <= whole.quantile(1.0, per_channel)).all()
        assert (found >= whole.quantile(q / 2, per_channel)).all()


def test_nothing_but_zeros() -> None:
    seen = StreamingRange(2)
    seen.update(torch.zeros(1, 2, 3, 3))
    assert seen.quantile(0.999, True).tolist() == [0, 0]
    assert seen.quantile(1.0, False).tolist() == [0]


class Scaled(nn.Module):
    """One convolution whose channels are the image times a gain; with or without a last ReLU."""

    def __init__(self, gains: list[float], last: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, len(gains), 1, bias=False).double()
        self.conv.weight.data = torch.tensor(gains, dtype=torch.float64).view(-1, 1, 1, 1)
        self.last = last

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv(x)) if self.last else self.conv(x)


def levels(body: nn.Module, images: Tensor, percentile: float = 100, per_channel: bool = True) -> Tensor:
    (level,) = calibrate(trace_body(body), [images], percentile, per_channel).values()
    return level


IMAGES = torch.rand(3, 1, 9, 9, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_floor_keeps_a_dead_channel_finite() -> None:
    body = Scaled([2.0, -1.0, 1e-5, 0.0], last=True)
    top = 2 * IMAGES.max()
    wanted = torch.stack([top, 1e-3 * top, 1e-3 * top, 1e-3 * top])
    torch.testing.assert_close(levels(body, IMAGES), wanted, rtol=1e-12, atol=0)
    assert torch.equal(levels(body, IMAGES, per_channel=False), top.view(1))


@pytest.mark.parametrize("percentile", [99.9, 100])
def test_floor_is_of_the_maximum_also_for_percentiles(percentile: float) -> None:
    """A sparse layer whose percentile is zero gets the floor, too."""
    image = torch.zeros(1, 1, 100, 100, dtype=torch.float64)
    image[..., 0, 0] = 0.5
    level = levels(Scaled([1.0], last=True), image, percentile)
    assert level.item() == pytest.approx(0.5 if percentile == 100 else 0.0005)


def test_layer_without_any_activity_gets_one() -> None:
    assert levels(Scaled([-1.0, -2.0], last=True), IMAGES).tolist() == [1, 1]


def test_signed_layer_uses_magnitudes() -> None:
    body = Scaled([-3.0, 1.0], last=False)
    torch.testing.assert_close(levels(body, IMAGES), torch.stack([3 * IMAGES.max(), IMAGES.max()]), rtol=1e-12, atol=0)


def test_zeros_count() -> None:
    """Half of the activations are zero: the median is the smallest positive one, the 75th percentile their median."""
    image = torch.cat([-IMAGES, IMAGES])
    found = levels(Scaled([1.0], last=True), image, percentile=75)
    assert found.item() == pytest.approx(IMAGES.median().item(), rel=0.01)


def test_thresholds_are_the_clip_levels() -> None:
    """Per channel for SpikingIR and per layer for Rueckauer, in the network's precision."""
    body = Scaled([1.0, 0.3], last=True)
    for method, wanted in (("spikingir", [1.0, 0.3]), ("rueckauer", [1.0])):
        spiking = convert(body, IMAGES, method, percentile=100)
        (name,) = spiking.layers
        theta = spiking.neuron(name).v_threshold
        assert theta.dtype == torch.float64
        torch.testing.assert_close(
            theta.detach(), levels(body, IMAGES, per_channel=len(wanted) == 2), rtol=1e-12, atol=0
        )
        torch.testing.assert_close(theta.detach(), torch.tensor(wanted).double() * IMAGES.max())
    per_layer = convert(body, IMAGES, per_channel=False)
    assert per_layer.neuron(per_layer.layers[0]).v_threshold.shape == (1,)
    lower = convert(body, IMAGES, percentile=90)
    assert (lower.neuron(lower.layers[0]).v_threshold < 0.95 * per_layer.neuron(name).v_threshold).all()


def test_images_in_any_wrapping_give_the_same_levels() -> None:
    body, images = Scaled([1.0, 0.3], last=True), IMAGES

    def one_by_one() -> Iterator[Tensor]:
        yield from images

    found = []
    for wrapping in (images, list(images), one_by_one(), [images[:1], images[1:]], images.float()):
        spiking = convert(body, wrapping, percentile=99)
        found.append(spiking.neuron(spiking.layers[0]).v_threshold.detach())
    for other in found[1:-1]:
        assert torch.equal(other, found[0])
    torch.testing.assert_close(found[-1], found[0], rtol=1e-6, atol=0)
    single = convert(body, images[0])
    assert torch.equal(single.neuron(single.layers[0]).v_threshold, levels_of_one(body, images[0]))


def levels_of_one(body: nn.Module, image: Tensor) -> Tensor:
    spiking = convert(body, [image])
    return spiking.neuron(spiking.layers[0]).v_threshold


def test_all_images_have_the_channels_of_the_first() -> None:
    with pytest.raises(ConversionError, match=r"image 1 has shape \(3, 8, 8\); expected \(B, 1, H, W\)"):
        list(image_batches([torch.rand(1, 8, 8), torch.rand(3, 8, 8)]))


def test_batches_are_streamed_in_small_pieces() -> None:
    assert [len(batch) for batch in image_batches(torch.rand(19, 1, 4, 4))] == [8, 8, 3]
