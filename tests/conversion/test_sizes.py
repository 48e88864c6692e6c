"""What a forward computes from the size of its image is kept as what it is, and the network takes every size."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from spikingir.conversion.convert import convert
from spikingir.deploy import engine
from spikingir.deploy.fold import fold
from spikingir.graph.errors import ConversionError, TilingError
from spikingir.graph.trace import trace_body
from spikingir.restoration.tiling import layout, padded, restore_tiled

SIZES = ((16, 24), (17, 31), (33, 50), (64, 64), (15, 23), (40, 37))


class Body(nn.Module):
    """Convolutions that keep, halve and double the size; the forward is given."""

    def __init__(self, run: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.same, self.join = (nn.Conv2d(i, 4, 3, padding=1) for i in (1, 4, 8))
        self.down, self.up = nn.Conv2d(4, 4, 3, 2, 1), nn.ConvTranspose2d(4, 4, 2, 2)
        self.last = nn.Conv2d(4, 1, 3, padding=1)
        self.run = run

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, x)


def plain(b: Body, x: Tensor) -> Tensor:
    """Half the size and back."""
    return b.last(torch.relu(b.up(torch.relu(b.down(torch.relu(b.first(x)))))))


def remainder(b: Body, x: Tensor) -> Tensor:
    height, width = x.shape[-2:]
    x = functional.pad(x, (0, (8 - width % 8) % 8, 0, (8 - height % 8) % 8), mode="reflect")
    return plain(b, x)[:, :, :height, :width]


def ceiling(b: Body, x: Tensor) -> Tensor:
    """As some write it: with a quotient of floats, a branch, and half of the padding on each side."""
    height, width = x.size(2), x.size(3)
    tall, wide = math.ceil(height / 16) * 16 - height, math.ceil(width / 16) * 16 - width
    if tall or wide:
        x = functional.pad(x, (wide // 2, wide - wide // 2, tall // 2, tall - tall // 2))
    y = plain(b, x)
    return y[..., tall // 2 : tall // 2 + height, wide // 2 : wide // 2 + width]


def before(b: Body, x: Tensor) -> Tensor:
    """All of the padding before the image."""
    tall, wide = -x.shape[2] % 4, -x.shape[3] % 4
    return plain(b, functional.pad(x, (wide, 0, tall, 0), mode="replicate"))


def rows_alone(b: Body, x: Tensor) -> Tensor:
    return b.last(functional.relu(b.first(functional.pad(x, (0, 0, 0, x.shape[2] % 2)))))


def to_the_skip(b: Body, x: Tensor) -> Tensor:
    skip = torch.relu(b.first(x))
    large = b.up(torch.relu(b.down(skip)))
    tall, wide = skip.size(2) - large.size(2), skip.size(3) - large.size(3)
    large = functional.pad(large, [wide // 2, wide - wide // 2, tall // 2, tall - tall // 2])
    return b.last(torch.relu(b.join(torch.cat([skip, large], 1))))


def if_it_differs(b: Body, x: Tensor) -> Tensor:
    skip = torch.relu(b.first(x))
    large = b.up(b.up(torch.relu(b.same(functional.avg_pool2d(functional.avg_pool2d(skip, 2), 2)))))
    if large.shape != skip.shape:
        large = functional.interpolate(large, size=skip.shape[2:], mode="bilinear", align_corners=False)
    return b.last(torch.relu(b.join(torch.cat([skip, large], 1))))


def cropped_skip(b: Body, x: Tensor) -> Tensor:
    skip = torch.relu(b.first(x))
    large = b.up(torch.relu(b.down(skip)))
    return b.last(torch.relu(b.join(torch.cat([skip, large[:, :, : skip.shape[2], : skip.shape[3]]], 1))))


def centre(b: Body, x: Tensor) -> Tensor:
    """A valid convolution, and the centre of the skip."""
    skip = torch.relu(b.first(x))
    small = functional.conv2d(skip, b.same.weight)
    top, left = (skip.shape[2] - small.shape[2]) // 2, (skip.shape[3] - small.shape[3]) // 2
    middle = skip[:, :, top : top + small.shape[2], left : left + small.shape[3]]
    return b.last(torch.relu(b.join(torch.cat([middle, small], 1))))


def level_map(b: Body, x: Tensor) -> Tensor:
    batch, _, height, width = x.shape
    level = torch.full((batch, 1, height, width), 0.1, dtype=x.dtype, device=x.device).expand(batch, 4, height, width)
    return b.last(torch.relu(b.join(torch.cat([torch.relu(b.first(x)), level], 1))))


def shorter(b: Body, x: Tensor) -> Tensor:
    y = torch.relu(b.first(x))
    return b.last(y[:, :, : y.shape[2] - 1, 2 : y.shape[3] - 3])


def twice(b: Body, x: Tensor) -> Tensor:
    y = torch.relu(b.first(x))
    return b.last(functional.interpolate(y, size=(2 * y.shape[2], y.shape[3] * 2)))


def half(b: Body, x: Tensor) -> Tensor:
    y = torch.relu(b.first(x))
    return b.last(functional.interpolate(y, size=(y.shape[2] // 2, y.shape[3] // 2), mode="bilinear"))


def views(b: Body, x: Tensor) -> Tensor:
    y = torch.relu(b.first(x))
    batch, channels, height, width = y.size()
    return b.last(y.view(batch, channels, height, width).reshape(y.shape))


def context(b: Body, x: Tensor) -> Tensor:
    y = torch.relu(b.first(x))
    mean = functional.adaptive_avg_pool2d(y, 1).repeat(1, 1, y.shape[2], y.shape[3])
    return b.last(torch.relu(b.join(torch.cat([y, mean], 1))))


BODIES = (
    *(plain, remainder, ceiling, before, rows_alone, to_the_skip, if_it_differs, cropped_skip, centre, level_map),
    *(shorter, twice, half, views, context),
)


@pytest.mark.parametrize("run", BODIES, ids=lambda run: run.__name__)
def test_every_size(run: Callable[[Any, Tensor], Tensor]) -> None:
    body = Body(run).double().eval()
    before = set(vars(body))
    graph = trace_body(body)
    assert set(vars(body)) == before  # what the trace needed is gone
    taken = 0
    for size in SIZES:
        image = torch.rand(2, 1, *size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        with torch.no_grad():
            try:
                wanted = body(image)
            except RuntimeError:  # it pads by more than reflection can
                continue
            torch.testing.assert_close(graph.run(image, graph.activate).constant, wanted, rtol=0, atol=1e-10)
        taken += 1
    assert taken >= 5


@pytest.mark.parametrize("run", BODIES, ids=lambda run: run.__name__)
def test_spikes_of_another_size_than_the_calibration_images(run: Callable[[Any, Tensor], Tensor]) -> None:
    body = Body(run).double().eval()
    images = torch.rand(2, 1, 16, 24, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    spiking = convert(body, images, percentile=100, time_steps=256, schedule="phased")
    clocked = convert(body, images, "rueckauer", percentile=100, time_steps=4)
    image = images.repeat(1, 1, 3, 2)[..., :35, :30]
    with torch.no_grad():
        wanted = body(image)
        assert (spiking(image) - wanted).square().mean() < 4e-4 * wanted.square().mean()
        folded = fold(clocked)
        assert folded(image).shape == wanted.shape
        if engine.native_available():
            assert torch.equal(engine.restore(folded, image), engine.restore(folded, image, engine="torch"))


@pytest.mark.skipif(not engine.native_available(), reason="SpikingIR was installed without a compiler")
@pytest.mark.parametrize(("schedule", "coding"), [("phased", "unary"), ("phased", "binary"), ("clocked", "unary")])
def test_padding_and_cropping_natively(schedule: str, coding: str) -> None:
    """A crop before the output computes fewer pixels; one of spikes is for torch where it is more than nothing."""
    images = torch.rand(2, 1, 16, 24, generator=torch.Generator().manual_seed(1))

    def shuffled(b: Body, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        x = functional.pad(x, (0, -width % 2, 0, -height % 2), mode="replicate")
        y = torch.relu(b.same(torch.relu(b.down(torch.relu(b.first(x))))))
        return functional.pixel_shuffle(b.same(y), 2)[:, :, :height, :width]

    def added(b: Body, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        x = functional.pad(x, (0, -width % 4, 0, -height % 4), mode="replicate")
        a = torch.relu(b.first(x))
        return b.last(torch.relu((b.same(torch.relu(b.same(a))) + 0.5 * a)[:, :, :height, :width]))

    def skips(b: Body, x: Tensor) -> Tensor:
        skip = torch.relu(b.first(x))
        large = torch.relu(b.up(torch.relu(b.down(skip))))[:, :, : skip.shape[2], : skip.shape[3]]
        return b.last(torch.relu(b.join(torch.cat([skip, large], 1))))

    sizes = [(16, 24), (13, 21), (30, 17), (9, 9)]
    for run, taken in ((remainder, sizes), (shuffled, sizes), (added, sizes), (skips, sizes[:1])):
        how: dict[str, Any] = {"percentile": 100, "time_steps": 5, "schedule": schedule, "coding": coding}
        spiking = convert(Body(run).eval(), images, **how)
        folded = fold(spiking)
        for size in sizes:
            image = torch.rand(2, 1, *size, generator=torch.Generator().manual_seed(2))
            if size not in taken:
                with pytest.raises(engine.EngineError, match="makes it pad or crop spikes"):
                    engine.restore(folded, image, engine="native")
                assert torch.equal(engine.restore(folded, image), folded(image))
                continue
            native, trace = engine.trace(folded, image, engine="native", trains=True)
            wanted, fired = folded.trace(image, trains=True)
            assert torch.equal(native, wanted)
            for one, other in zip(trace.layers, fired.layers, strict=True):
                assert torch.equal(one.trains, other.trains)  # type: ignore[arg-type]
                assert torch.equal(one.spikes, other.spikes)
                assert one.neurons == other.neurons


def always_less(b: Body, x: Tensor) -> Tensor:
    """As large as what a convolution without padding leaves, of even and odd sizes."""
    y = torch.relu(b.first(x))
    small = torch.relu(functional.conv2d(b.up(torch.relu(b.down(y))), b.same.weight))
    return b.last(y[:, :, : small.shape[2], : small.shape[3]] + small)


def squared(b: Body, x: Tensor) -> Tensor:
    y = torch.relu(b.first(x))
    return b.last(y[:, :, y.shape[2] ** 2 % 7 :])


def to_a_third(b: Body, x: Tensor) -> Tensor:
    y = torch.relu(b.first(x))
    return b.last(functional.interpolate(y, size=(y.shape[2] * 2 // 3, y.shape[3] * 2 // 3)))


def other_path(b: Body, x: Tensor) -> Tensor:
    """Another network for even heights."""
    y = torch.relu(b.first(x))
    return b.last(torch.relu(b.same(y)) if x.shape[2] % 2 == 0 else y)


def factor(b: Body, x: Tensor) -> Tensor:
    return b.last(torch.relu(b.first(x)) / x.shape[2])


def on_the_image(b: Body, x: Tensor) -> Tensor:
    return b.last(torch.relu(b.first(torch.roll(x, x.shape[2] // 2, 2))))


@pytest.mark.parametrize(
    ("run", "complaint"),
    [
        (squared, "cannot convert 'getitem' at 'getitem': its first row or column follows from the size in a way"),
        (to_a_third, "cannot convert 'interpolate' at 'interpolate': it resizes to a size that is computed, and that"),
        (other_path, "does not give what the network gives on an image of .* pixels: it computes with sizes .* branch"),
        (factor, "cannot convert 'truediv' at 'truediv': its settings follow from the size of the image"),
        (on_the_image, "cannot convert 'roll' at 'roll': its settings follow from the size of the image"),
    ],
)
def test_other_functions_of_the_size_are_refused(run: Callable[[Any, Tensor], Tensor], complaint: str) -> None:
    body = Body(run).eval()
    before = set(vars(body))
    with pytest.raises(ConversionError, match=complaint) as caught:
        convert(body, torch.rand(1, 1, 16, 24))
    assert "\n" not in str(caught.value)
    assert set(vars(body)) == before


@pytest.mark.parametrize("run", [remainder, ceiling, to_the_skip, cropped_skip], ids=lambda run: run.__name__)
def test_tiles_of_a_network_that_pads_by_itself(run: Callable[[Any, Tensor], Tensor]) -> None:
    """On images of multiples of its stride it pads and crops nothing, and tiles are the whole image."""
    folded = fold(convert(Body(run).eval(), torch.rand(1, 1, 16, 24), time_steps=3))
    stride = layout(folded).stride
    assert stride == {remainder: 8, ceiling: 16}.get(run, 2)
    image = padded(folded, torch.rand(1, 1, 45, 39, generator=torch.Generator().manual_seed(0)))
    assert all(side % stride == 0 for side in image.shape[-2:])
    assert torch.equal(restore_tiled(folded, image, stride), folded(image))
    with pytest.raises(TilingError, match=f"expected multiples of {stride}: pad it"):
        restore_tiled(folded, image[..., :-1, :])


def test_a_crop_that_never_ends_is_not_tiled() -> None:
    spiking = convert(Body(centre).eval(), torch.rand(1, 1, 16, 24), time_steps=2)
    assert "crop" not in {node.op for node in spiking.nodes}  # two rows and columns less, at every size
    body = Body(always_less).eval()
    with pytest.raises(TilingError, match="pads or crops by the size of the whole image, even of 128 x 128 pixels"):
        layout(convert(body, torch.rand(1, 1, 16, 24), time_steps=2))
