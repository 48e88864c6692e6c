"""Folding of wide networks: no width is refused, folded = trained, ties and all."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from spikingir.conversion.convert import convert
from spikingir.deploy.engine import EngineError, restore
from spikingir.deploy.fold import FoldError, fold
from spikingir.deploy.folded import FoldedNetwork
from spikingir.deploy.grids import DOUBLE_BITS, INTEGER_BITS, SINGLE_BITS, Sums, choose_grid
from spikingir.spiking.network import SpikingNetwork
from tests.deploy.test_fold import different_spikes


def conv(inputs: int, outputs: int, side: int = 3, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, side, stride, side // 2)


class Block(nn.Module):
    """What EDSR and DRUNet add to their stream before any activation."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.a, self.b = conv(width, width), conv(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.b(torch.relu(self.a(x)))


class DRUNet(nn.Module):
    """Strided and transposed convolutions without bias, blocks on a stream of analog sums, a skip for each scale."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.head, self.tail = conv(1, width), conv(width, 1)
        self.down = nn.Sequential(Block(width), nn.Conv2d(width, 2 * width, 2, 2, bias=False))
        self.body = Block(2 * width)
        self.up = nn.Sequential(nn.ConvTranspose2d(2 * width, width, 2, 2, bias=False), Block(width))

    def forward(self, x: Tensor) -> Tensor:
        first = self.head(x)
        second = self.down(first)
        return self.tail(first + self.up(second + self.body(second)))


class EDSR(nn.Module):
    """A deep stream, twice as large at the end, where it is asked for."""

    def __init__(self, width: int, factor: int = 1) -> None:
        super().__init__()
        self.head, self.body = (
            conv(1, width),
            nn.Sequential(Block(width), Block(width), Block(width), conv(width, width)),
        )
        self.tail = nn.Sequential(conv(width, factor**2 * width), nn.PixelShuffle(factor), conv(width, 1))

    def forward(self, x: Tensor) -> Tensor:
        first = self.head(x)
        return self.tail(first + self.body(first))


class RDN(nn.Module):
    """Dense blocks, fused locally and globally: chains of sums of sums."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.head, self.shallow, self.tail = conv(1, width), conv(width, width), conv(width, 1)
        self.dense = nn.ModuleList(nn.ModuleList([conv(width, width), conv(2 * width, width)]) for _ in range(2))
        self.local = nn.ModuleList(conv(3 * width, width, 1) for _ in range(2))
        self.fuse = nn.Sequential(conv(2 * width, width, 1), conv(width, width))

    def forward(self, x: Tensor) -> Tensor:
        first = self.head(x)
        stream, found = self.shallow(first), []
        for (a, b), local in zip(self.dense, self.local, strict=True):
            one = torch.relu(a(stream))
            two = torch.relu(b(torch.cat([stream, one], 1)))
            stream = stream + local(torch.cat([stream, one, two], 1))
            found.append(stream)
        return self.tail(self.fuse(torch.cat(found, 1)) + first)


class PRN(nn.Module):
    """One block run several times on the image and what it made of it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.head, self.tail = conv(2, width), conv(width, 1)
        self.blocks = nn.ModuleList(nn.ModuleList([conv(width, width), conv(width, width)]) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        made = x
        for _ in range(2):
            y = torch.relu(self.head(torch.cat([x, made], 1)))
            for a, b in self.blocks:
                y = torch.relu(torch.relu(b(torch.relu(a(y)))) + y)
            made = self.tail(y)
        return made


class ResUNet(nn.Module):
    """Blocks with a convolution as skip, strides, resized and joined features."""

    def __init__(self, width: int) -> None:
        super().__init__()
        w = width
        self.a, self.b, self.skip = conv(1, w), conv(w, w), conv(1, w, 1)
        self.down = nn.Sequential(nn.BatchNorm2d(w), nn.ReLU(), conv(w, 2 * w, stride=2))
        self.down_skip, self.up, self.tail = conv(w, 2 * w, 1, 2), conv(3 * w, w), conv(w, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        first = self.b(torch.relu(self.a(x))) + self.skip(x)
        second = torch.relu(self.down(first) + self.down_skip(first))
        large = functional.interpolate(second, scale_factor=2, mode="bilinear", align_corners=False)
        return self.tail(torch.relu(self.up(torch.cat([large, first], 1))))


SHAPES = {"DRUNet": DRUNet, "EDSR": EDSR, "RDN": RDN, "PRN": PRN, "ResUNet": ResUNet}
WIDE = 64
SIDE = 16


def spiking(kind: str, width: int, **arguments: object) -> SpikingNetwork:
    torch.manual_seed(1)
    return convert(SHAPES[kind](width).eval(), images(), time_steps=4, **arguments)  # type: ignore[arg-type]


def images() -> Tensor:
    return torch.rand(2, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(2))


def images_to_restore() -> Tensor:
    return torch.rand(2, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(7))


def share_of_different(network: SpikingNetwork, folded: FoldedNetwork) -> float:
    _, expected = network.double().trace(images_to_restore().double(), trains=True)
    _, found = folded.trace(images_to_restore(), trains=True)
    return different_spikes(expected, found) / sum(int(layer.spikes.sum()) for layer in expected.layers)


@pytest.mark.parametrize("schedule", ["clocked", "phased"])
@pytest.mark.parametrize("kind", SHAPES)
def test_folded_equals_trained(kind: str, schedule: str) -> None:
    """Without a grid spike for spike; on one, but for membranes within a rounding of a level, and what follows them."""
    network = spiking(kind, WIDE, schedule=schedule)
    folded = fold(network)
    assert torch.equal(folded(images()), fold(network, dtype=torch.float64)(images()))
    fine = fold(network, grid=20)
    network = network.double()
    assert share_of_different(network, fold(network, grid=None, dtype=torch.float64)) == 0
    assert share_of_different(network, fine) < 2e-3


@pytest.mark.parametrize("schedule", ["clocked", 2])
@pytest.mark.parametrize("method", ["if", "spikingir"])
def test_ties_fall_alike(method: str, schedule: str | int) -> None:
    """Currents that are the threshold itself: of the image, by a skip that weighs nothing, and as a sum of two."""
    torch.manual_seed(5)
    first, second, third = nn.Conv2d(1, 32, 1, bias=False), nn.Conv2d(32, 32, 1, bias=False), nn.Conv2d(32, 1, 1)
    nn.init.dirac_(second.weight)
    network = convert(
        nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), third).double(),
        images().double(),
        method,
        time_steps=5,
        v0=0.0,
        schedule=schedule,
    )
    for name in network.layers[:2]:
        network.neuron(name).log_threshold.data = torch.linspace(-2, 1, 32, dtype=torch.float64)
    network.weight["_0"].data = network.neuron(network.layers[0]).v_threshold.detach().view(32, 1, 1, 1).clone()
    image = torch.ones(1, 1, 4, 4, dtype=torch.float64)
    image[..., 2:] = 0.5
    restored, trace = network.trace(image, trains=True)
    assert trace.layers[1].spikes[: 5 - network.config.delay].sum() > 0
    found, folded = fold(network, grid=None, dtype=torch.float64).trace(image, trains=True)
    assert different_spikes(trace, folded) == 0
    torch.testing.assert_close(found, restored, rtol=0, atol=1e-12)


def small_thresholds(network: SpikingNetwork, by: float) -> SpikingNetwork:
    for name in network.layers[1:-1]:
        network.neuron(name).log_threshold.data -= by
    return network


@pytest.mark.parametrize("schedule", ["clocked", "phased"])
@pytest.mark.parametrize(("by", "held_in"), [(0, "float32"), (5, "int32"), (16, "float64")])
def test_grid_follows_from_what_the_sums_reach(schedule: str, by: float, held_in: str) -> None:
    torch.manual_seed(3)
    body = nn.Sequential(conv(1, 8), nn.ReLU(), conv(8, 8), nn.ReLU(), conv(8, 1))
    network = small_thresholds(convert(body, images(), time_steps=4, schedule=schedule), by)
    folded = fold(network)
    assert bool(folded.wide) == (held_in != "float32")
    assert {folded.kernel(name).spike.dtype for name in folded.kernels} <= {torch.float32, torch.float64}  # type: ignore[union-attr]
    assert torch.equal(folded(images()), fold(network, dtype=torch.float64)(images()))
    if held_in == "float64":
        with pytest.raises(EngineError, match="whole numbers of 32 bits; torch can"):
            restore(folded, images(), engine="native")
    else:
        assert torch.equal(restore(folded, images(), engine="native"), folded(images()))


def test_no_grid_at_all() -> None:
    body = nn.Sequential(conv(1, 8), nn.ReLU(), conv(8, 1))
    network = convert(body, images())
    network.neuron(network.layers[0]).log_threshold.data -= 40
    with pytest.raises(FoldError, match="too far for exact sums"):
        fold(network)


class Shuffled(nn.Module):
    """Sums of which one in four is large, shuffled, and weighed as they are."""

    def __init__(self, large: int) -> None:
        super().__init__()
        self.a, self.b, self.c = conv(1, 4), conv(4, 8, 1), conv(2, 1)
        self.b.weight.data[large::4] *= 2**12

    def forward(self, x: Tensor) -> Tensor:
        return self.c(functional.pixel_shuffle(self.b(torch.relu(self.a(x))), 2))


def test_a_shuffled_current_is_bounded_by_the_largest_of_its_channels() -> None:
    exponents = []
    for large in range(4):
        torch.manual_seed(4)
        network = convert(Shuffled(large), images(), time_steps=3)
        network.neuron("output").log_threshold.data.zero_()
        assert torch.equal(fold(network)(images()), fold(network, dtype=torch.float64)(images()))
        exponents.append(fold(network).exponents["c"][0])
    assert max(exponents) - min(exponents) <= 2  # weights differ, by far less than 2^12


def test_grids() -> None:
    def choose(
        window: float, exact: float = 1, bits: int = 0, finest: int = 14, any_grid: bool = False
    ) -> tuple[int, int]:
        sums, held_in = (
            Sums(torch.tensor([window]), torch.tensor([exact]), bits),
            (SINGLE_BITS, INTEGER_BITS, DOUBLE_BITS),
        )
        grid, held = choose_grid(sums, finest, held_in, lambda most: FoldError(str(most)), any_grid=any_grid)
        return int(grid.log2()), held

    assert choose(2**10) == (14, SINGLE_BITS)
    assert choose(2**14) == (10, SINGLE_BITS)
    assert choose(2**15) == (14, INTEGER_BITS)
    assert choose(2**15, finest=9) == (9, SINGLE_BITS)
    assert choose(2**20) == (10, INTEGER_BITS)
    assert choose(2**21) == (14, DOUBLE_BITS)
    assert choose(2**50) == (2, DOUBLE_BITS)
    assert choose(2**21, any_grid=True) == (3, SINGLE_BITS)
    assert choose(2**24, any_grid=True) == (6, INTEGER_BITS)
    assert choose(4, exact=2**20, bits=20) == (12, SINGLE_BITS)  # products of 20 + 12 bits behind, 20 before the point
    with pytest.raises(FoldError):
        choose(2**52)
