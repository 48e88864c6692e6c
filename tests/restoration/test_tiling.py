"""Tiles equal the whole image, bit for bit, whatever the network and the tile."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from spikingir.conversion.convert import convert
from spikingir.deploy.fold import fold
from spikingir.deploy.folded import FoldedNetwork
from spikingir.graph.errors import TilingError
from spikingir.inputs import with_level
from spikingir.networks import AODNet, DnCNN
from spikingir.networks.multiscale import MultiScaleNet
from spikingir.restoration.tiling import MEMORY, default_tile, layout, restore_tiled, trace_tiled
from spikingir.spiking.network import SpikingNetwork


class Plus(nn.Module):
    """``x + inner(x)``."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x)


class ResizedLike(nn.Module):
    """Half the resolution and back to that of the input, beside it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(width, width, 2, stride=2)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        small = self.relu(self.down(x))
        return torch.cat([x, nn.functional.interpolate(small, size=x.shape[-2:], mode="nearest")], 1)


class Crop(nn.Module):
    """One row less above and one column less on the right."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, 1:, :-1]


C = 3
# Blocks that take C channels to C channels at the same resolution, if sizes are even.
BLOCKS = {
    "conv": lambda: nn.Sequential(nn.Conv2d(C, C, 3, padding=1), nn.ReLU()),
    "even kernel": lambda: nn.Sequential(nn.ZeroPad2d((1, 2, 0, 1)), nn.Conv2d(C, C, (2, 4)), nn.ReLU()),
    "dilated": lambda: nn.Sequential(nn.Conv2d(C, C, 3, padding=2, dilation=2), nn.ReLU()),
    "unpadded": lambda: nn.Sequential(nn.Conv2d(C, C, (3, 1)), nn.ReLU(), nn.ZeroPad2d((0, 0, 1, 1))),
    "reflect": lambda: nn.Sequential(nn.Conv2d(C, C, 5, padding=2, padding_mode="reflect"), nn.ReLU()),
    "replicate": lambda: nn.Sequential(nn.ReplicationPad2d((2, 0, 1, 1)), nn.Conv2d(C, C, 3), nn.ReLU()),
    "shifted": lambda: nn.Sequential(nn.ZeroPad2d((3, -3, -1, 1)), nn.Conv2d(C, C, 1), nn.ReLU()),
    "cropped": lambda: nn.Sequential(nn.ZeroPad2d((0, 1, 1, 0)), Crop(), nn.Conv2d(C, C, 1), nn.ReLU()),
    "shuffle": lambda: nn.Sequential(
        nn.Conv2d(C, 4 * C, 3, stride=2, padding=1), nn.ReLU(), nn.PixelShuffle(2), nn.Conv2d(C, C, 1), nn.ReLU()
    ),
    "unshuffle": lambda: nn.Sequential(
        nn.PixelUnshuffle(2), nn.Conv2d(4 * C, C, 3, padding=1), nn.ReLU(), nn.ConvTranspose2d(C, C, 2, 2), nn.ReLU()
    ),
    "transposed": lambda: nn.Sequential(
        nn.Conv2d(C, C, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.ConvTranspose2d(C, C, 3, stride=2, padding=1, output_padding=1, bias=False),
        nn.ReLU(),
    ),
    "pool": lambda: nn.Sequential(
        nn.AvgPool2d(3, 2, padding=1, count_include_pad=False),
        nn.Conv2d(C, C, 3, padding=1),
        nn.ReLU(),
        nn.Upsample(scale_factor=2, mode="nearest"),
        nn.Conv2d(C, C, 3, padding=1),
        nn.ReLU(),
    ),
    "bilinear": lambda: nn.Sequential(
        nn.AvgPool2d(2), nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(C, C, 1), nn.ReLU()
    ),
    "skip": lambda: nn.Sequential(Plus(nn.Sequential(nn.Conv2d(C, C, 3, padding=1), nn.ReLU())), nn.Conv2d(C, C, 1)),
    "resized like": lambda: nn.Sequential(ResizedLike(C), nn.Conv2d(2 * C, C, 3, padding=1), nn.ReLU()),
}


def spiking(body: nn.Module, seed: int = 0, **options: object) -> SpikingNetwork:
    """A converted network whose biases are not zero and whose neurons are busy."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in body.parameters():
        with torch.no_grad():
            scale = 0.3 if parameter.dim() == 1 else 2 / parameter[0].numel() ** 0.5
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
    images = torch.rand(2, 1, 16, 16, generator=generator)
    return convert(body, images, **{"time_steps": 3, **options})


def folded(blocks: list[str], seed: int, *, end: nn.Module | None = None) -> FoldedNetwork:
    body = nn.Sequential(
        nn.Conv2d(1, C, 3, padding=1), nn.ReLU(), *(BLOCKS[b]() for b in blocks), end or nn.Conv2d(C, 1, 3, padding=1)
    )
    network = spiking(body, seed)
    with torch.no_grad():
        network.mapper.weight.add_(torch.randn(network.mapper.weight.shape, generator=torch.manual_seed(seed)) * 0.1)
    return fold(network)


def same_spikes(network: FoldedNetwork, image: Tensor, tile: int) -> None:
    whole, trace = network.trace(image)
    tiled, counted = trace_tiled(network, image, tile)
    assert torch.equal(tiled, whole)
    assert counted.image_size == trace.image_size
    for one, other in zip(counted.layers, trace.layers, strict=True):
        assert (one.name, one.neurons) == (other.name, other.neurons)
        assert torch.equal(one.spikes, other.spikes)


@pytest.mark.parametrize("block", BLOCKS)
def test_each_operation(block: str) -> None:
    network = folded([block], seed=1)
    image = torch.rand(1, 1, 24, 20, generator=torch.manual_seed(0))
    assert network.trace(image)[1].spikes_per_neuron > 0.2
    for tile in (3, 7):
        same_spikes(network, image, tile)


@settings(max_examples=20, deadline=None)
@given(
    blocks=st.lists(st.sampled_from(sorted(BLOCKS)), max_size=3),
    tile=st.integers(1, 40),
    height=st.integers(2, 12),
    width=st.integers(2, 12),
    seed=st.integers(0, 1000),
)
def test_tiles_are_the_whole_image(blocks: list[str], tile: int, height: int, width: int, seed: int) -> None:
    network = folded(blocks, seed)
    image = torch.rand(2, 1, 4 * height, 4 * width, generator=torch.manual_seed(seed))
    whole = network(image)
    assert torch.equal(restore_tiled(network, image, max(tile, height)), whole)


@pytest.mark.parametrize("size", [(21, 17), (7, 30)])
def test_sizes_that_the_stride_does_not_divide(size: tuple[int, int]) -> None:
    network = folded(["pool", "shuffle"], seed=2)
    same_spikes(network, torch.rand(1, 1, *size, generator=torch.manual_seed(0)), 6)


@pytest.mark.parametrize(
    ("end", "scale"),
    [
        (nn.Sequential(nn.Conv2d(C, 4, 3, padding=1), nn.PixelShuffle(2)), 2),
        (nn.Conv2d(C, 1, 3, stride=2, padding=1), 0.5),
    ],
)
def test_output_of_another_resolution(end: nn.Module, scale: float) -> None:
    network = folded(["conv"], seed=3, end=end)
    image = torch.rand(1, 1, 22, 16, generator=torch.manual_seed(0))
    assert restore_tiled(network, image, 6).shape == (1, 1, 22 * scale, 16 * scale)
    same_spikes(network, image, 6)


@pytest.mark.parametrize("schedule", ["clocked", "phased", 1], ids=lambda s: s if isinstance(s, str) else f"delay {s}")
def test_schedules(schedule: str | int) -> None:
    body = nn.Sequential(
        nn.Conv2d(1, C, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(C, C, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(C, 1, 3, padding=1),
    )
    network = fold(spiking(body, schedule=schedule))
    same_spikes(network, torch.rand(1, 1, 20, 20, generator=torch.manual_seed(0)), 5)


def test_networks_that_ship() -> None:
    dncnn = layout(convert(DnCNN(width=2), torch.rand(1, 1, 32, 32), time_steps=2))
    assert (dncnn.halo, dncnn.stride) == (17 + 1, 1)  # 17 convolutions and the mapper
    aodnet = layout(convert(AODNet(), torch.rand(1, 3, 32, 32), time_steps=2))
    assert (aodnet.halo, aodnet.stride) == (0 + 1 + 2 + 3 + 1 + 1, 1)


def test_layout_is_the_same_folded() -> None:
    body = nn.Sequential(nn.Conv2d(1, C, 3, padding=1), nn.ReLU(), BLOCKS["shuffle"](), nn.Conv2d(C, 1, 3, padding=1))
    network = spiking(body)
    one, other = layout(network), layout(fold(network))
    assert (one.halo, one.stride, one.output) == (other.halo, other.stride, other.output)
    assert one.wires.items() <= other.wires.items()


def test_halo_is_no_larger_than_needed() -> None:
    network = folded(["conv", "conv"], seed=4)
    image = torch.rand(1, 1, 40, 40, generator=torch.manual_seed(0))
    whole, halo = network(image), layout(network).halo
    assert halo == 5
    assert torch.equal(restore_tiled(network, image, 13, halo), whole)
    assert not torch.equal(restore_tiled(network, image, 13, halo - 1), whole)


def test_default_tile_keeps_to_the_memory() -> None:
    network = convert(DnCNN(), torch.rand(1, 1, 24, 24), time_steps=10)
    halo = layout(network).halo
    side = default_tile(network) + 2 * halo
    # Alive at once: the spikes that a convolution reads, those that it gives, and a copy of them.
    assert 0.97 < side**2 * 3 * 64 * 11 * 4 / MEMORY <= 1
    assert default_tile(network, traced=True) < default_tile(network)
    assert default_tile(network.at(time_steps=20)) < default_tile(network)
    few, many = (network.at(schedule="phased", time_steps=steps) for steps in (2, 20))
    assert default_tile(few) == default_tile(many)
    assert default_tile(many, traced=True) < default_tile(few, traced=True)
    assert default_tile(network, memory=1) == 32
    # An image that fits is not cut.
    assert default_tile(network, (side, side)) == side
    assert default_tile(network, (side // 2, 2 * side - 10)) == 2 * side - 10
    assert default_tile(network, (side + 10, side + 10)) == default_tile(network)


def test_no_tile_is_smaller_than_its_halo() -> None:
    deep = MultiScaleNet(width=4, blocks=(1, 1, 1, 4))
    deep.reset_parameters(torch.Generator().manual_seed(0))
    network = fold(convert(deep.eval(), with_level(torch.rand(2, 1, 32, 32), 0.1), time_steps=2, schedule="phased"))
    halo = layout(network).halo
    assert halo > 100
    assert default_tile(network, traced=True, memory=2**20) == halo


def test_progress_and_batches() -> None:
    network = folded([], seed=5)
    images = torch.rand(2, 1, 10, 20, generator=torch.manual_seed(0))
    seen = []
    restored = restore_tiled(network, images, 10, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert torch.equal(restored[1:], network(images[1:]))
    _, trace = trace_tiled(network, images, 10)
    assert torch.equal(trace.layers[0].spikes, network.trace(images)[1].layers[0].spikes)


def test_tiles_are_equal_and_the_result_has_the_order_of_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    network = folded([], seed=6)
    image = torch.rand(1, 41, 50, 1, generator=torch.manual_seed(0)).permute(0, 3, 1, 2)
    sizes, halo = [], layout(network).halo

    def restore(piece: Tensor) -> Tensor:
        sizes.append(tuple(piece.shape[-2:]))
        return network(piece)

    restored = restore_tiled(network, image, 40, restore=restore)
    assert sorted(sizes) == sorted((rows + halo, 25 + halo) for rows in (21, 20) for _ in range(2))
    assert torch.equal(restored, network(image))
    assert restored.is_contiguous(memory_format=torch.channels_last)


def test_the_conventional_network_runs_in_tiles_too() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        ann = DnCNN(layers=4, width=3).double().eval()
    image = torch.rand(1, 1, 18, 23, dtype=torch.float64, generator=torch.manual_seed(0))
    network = fold(convert(ann, image, time_steps=2))
    with torch.no_grad():
        assert torch.allclose(restore_tiled(network, image, 5, restore=ann), ann(image), rtol=0, atol=1e-12)


def test_a_whole_image_is_counted_without_its_spikes(monkeypatch: pytest.MonkeyPatch) -> None:
    network, image = folded([], seed=5), torch.rand(1, 1, 10, 20, generator=torch.manual_seed(0))
    asked = []

    def trace(piece: Tensor, *, trains: bool = False) -> object:
        asked.append(trains)
        return FoldedNetwork.trace(network, piece, trains=trains)

    monkeypatch.setattr(network, "trace", trace)
    for tile in (None, 10):
        trace_tiled(network, image, tile, engine="torch")
    assert asked == [False, True, True]


@pytest.mark.parametrize(
    ("block", "match"),
    [
        (nn.CircularPad2d(1), "opposite side"),
        (nn.Upsample(size=(8, 8)), "size of its own"),
        (nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True), "size of its own"),
    ],
)
def test_what_cannot_be_tiled_is_refused(block: nn.Module, match: str) -> None:
    body = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), block, nn.Conv2d(2, 1, 3, padding=1))
    with pytest.raises(TilingError, match=match):
        layout(spiking(body))


def test_function_on_the_image_is_refused() -> None:
    class Normalised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 1, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x - torch.amax(x))

    with pytest.raises(TilingError, match="of your own"):
        layout(spiking(Normalised()))


def test_crop_counted_from_the_end_is_refused() -> None:
    class Corner(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[:, :, -8:, :8]

    body = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), Corner(), nn.Conv2d(2, 1, 3, padding=1))
    with pytest.raises(TilingError, match="size of the whole image"):
        layout(spiking(body))


def test_odd_image_for_resizing_by_size_is_refused() -> None:
    with pytest.raises(TilingError, match="multiples of 2"):
        restore_tiled(folded(["resized like"], seed=6), torch.rand(1, 1, 9, 8))


@pytest.mark.parametrize("options", [{"tile": 0}, {"halo": -1}])
def test_impossible_tiles_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="expected at least 1 and 0 pixels"):
        restore_tiled(folded([], seed=7), torch.rand(1, 1, 8, 8), **options)


def short_of_memory(monkeypatch: pytest.MonkeyPatch, pixels: int, error: Exception) -> None:
    """Let networks fail on pieces of more than so many pixels."""

    def hungry(name: str) -> None:
        run = getattr(FoldedNetwork, name)

        def call(self: FoldedNetwork, piece: Tensor, **options: object) -> object:
            if piece.shape[-1] * piece.shape[-2] > pixels:
                raise error
            return run(self, piece, **options)

        monkeypatch.setattr(FoldedNetwork, name, call)

    for name in ("forward", "trace"):
        hungry(name)


@pytest.mark.filterwarnings("ignore:memory ran out")
@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory"), None])
@pytest.mark.parametrize("tile", [None, 50])
def test_tiles_are_halved_where_memory_runs_out(
    error: Exception | None, tile: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if error is None:
        with pytest.raises(RuntimeError) as real:  # torch's own on the CPU
            torch.empty(2**60)
        error = real.value
    network = folded(["pool"], seed=8)
    images = torch.rand(2, 1, 90, 110, generator=torch.manual_seed(0))
    whole, trace = network.trace(images)
    short_of_memory(monkeypatch, 62 * 62, error)
    progress: list[tuple[int, int]] = []
    assert torch.equal(
        restore_tiled(network, images, tile, engine="torch", progress=lambda *n: progress.append(n)), whole
    )
    assert progress[-1][0] == progress[-1][1] == len(progress)
    tiled, counted = trace_tiled(network, images, tile, engine="torch")
    assert torch.equal(tiled, whole)
    for one, other in zip(counted.layers, trace.layers, strict=True):
        assert one.neurons == other.neurons
        assert torch.equal(one.spikes, other.spikes)


def test_the_smaller_tile_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    network = folded([], seed=9)
    short_of_memory(monkeypatch, 50 * 50, MemoryError())
    with pytest.warns(RuntimeWarning, match="goes on with tiles of 40 pixels"):
        restore_tiled(network, torch.rand(1, 1, 80, 80), engine="torch")


@pytest.mark.filterwarnings("ignore:memory ran out")
def test_no_memory_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    network = folded([], seed=9)
    short_of_memory(monkeypatch, 0, MemoryError())
    with pytest.raises(MemoryError, match="no memory even for tiles of 32 pixels"):
        restore_tiled(network, torch.rand(1, 1, 80, 80), engine="torch")


def test_other_errors_are_not_taken_for_want_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    network = folded([], seed=9)
    short_of_memory(monkeypatch, 0, RuntimeError("a bug"))
    with pytest.raises(RuntimeError, match="a bug"):
        restore_tiled(network, torch.rand(1, 1, 80, 80), engine="torch")
