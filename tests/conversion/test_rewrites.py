"""Exact rewrites: the traced body is the module, its spikes tend to it, and its folded form fires as it does."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from spikingir.conversion.convert import convert
from spikingir.conversion.report import report
from spikingir.deploy import engine
from spikingir.deploy.fold import fold
from spikingir.energy.columns import ann_columns
from spikingir.energy.operations import count_macs
from spikingir.energy.twin import int8_twin
from spikingir.errors import InputError
from spikingir.export.npz import npz_content, read_npz
from spikingir.graph.activations import PiecewiseLinear
from spikingir.graph.errors import ConversionError
from spikingir.graph.trace import graph_of, trace_body
from spikingir.spiking.network import SpikingNetwork
from spikingir.store import from_pretrained, save_pretrained

IMAGES = torch.rand(2, 1, 12, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def conv(inputs: int = 4, outputs: int = 4, size: int = 3, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, padding=size // 2, **options)


class Body(nn.Module):
    """Something between convolutions: of the sums ``x`` of the first, of spikes ``relu(x)``."""

    def __init__(self, between: Callable[[Any, Tensor], Tensor], act: nn.Module | None = None, width: int = 4) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.first, self.second, self.third = conv(1), conv(), conv()
        self.last = conv(width, 1)
        self.act = act or nn.Identity()
        self.between = between
        with torch.no_grad():
            self.first.weight.mul_(3)

    def forward(self, image: Tensor) -> Tensor:
        return self.last(self.between(self, self.first(image)))


def of_sums(act: nn.Module, width: int = 4) -> Body:
    return Body(lambda b, x: b.act(x), act, width)


def of_spikes(act: nn.Module, width: int = 4) -> Body:
    return Body(lambda b, x: b.act(torch.relu(x)), act, width)


def channel_prelu() -> nn.PReLU:
    act = nn.PReLU(4)
    with torch.no_grad():
        act.weight.copy_(torch.tensor([0.25, -0.5, 0.0, 1.5]))
    return act


def pooled(b: Any, x: Tensor) -> Tensor:
    """A leaky ReLU, then the largest of it: spikes of both halves."""
    return functional.max_pool2d(functional.leaky_relu(b.second(torch.relu(x)), 0.3), 2)


def grouped(b: Any, x: Tensor) -> Tensor:
    return functional.conv2d(functional.leaky_relu(x, 0.2), b.third.weight[:, :2], padding=1, groups=2)


def parts(b: Any, x: Tensor) -> Tensor:
    one, two = functional.leaky_relu(x, 0.2).chunk(2, dim=1)
    three, four = torch.split(torch.relu(b.second(x)), [1, 3], dim=1)
    return torch.cat([two, four, one, three], 1)


def shuffled(b: Any, x: Tensor) -> Tensor:
    return functional.pixel_shuffle(functional.relu(b.second(functional.leaky_relu(x, 0.1))), 2)


def summed(b: Any, x: Tensor) -> Tensor:
    """A convolution that reads a sum of spikes, and of the spikes of a leaky ReLU."""
    y = torch.relu(x)
    return b.third(y + torch.relu(b.second(y))) - functional.leaky_relu(b.second(y), 0.2) * 0.5


BODIES: dict[str, Callable[[], nn.Module]] = {
    "leaky": lambda: of_sums(nn.LeakyReLU(0.2)),
    "leaky, steep": lambda: of_sums(nn.LeakyReLU(1.5)),
    "leaky, of spikes": lambda: of_spikes(nn.LeakyReLU(0.2)),
    "prelu": lambda: of_sums(nn.PReLU()),
    "prelu by channel": lambda: of_sums(channel_prelu()),
    "rrelu": lambda: of_sums(nn.RReLU()),
    "relu6": lambda: Body(lambda b, x: functional.relu6(20 * x)),
    "hardtanh": lambda: of_sums(nn.Hardtanh(-0.3, 0.2)),
    "hardtanh above": lambda: of_sums(nn.Hardtanh(0.1, 0.4)),
    "hardtanh below": lambda: of_sums(nn.Hardtanh(-0.4, -0.1)),
    "clamp": lambda: Body(lambda b, x: x.clamp(0, 0.5)),
    "clamp from below": lambda: Body(lambda b, x: torch.clamp(x, min=-0.2)),
    "clamp from above": lambda: Body(lambda b, x: torch.clamp(x, max=0.2)),
    "clamp of spikes": lambda: Body(lambda b, x: torch.relu(x).clamp_max(0.3)),
    "abs": lambda: Body(lambda b, x: torch.abs(x)),
    "softshrink": lambda: of_sums(nn.Softshrink(0.2)),
    "hardsigmoid": lambda: Body(lambda b, x: functional.hardsigmoid(8 * x)),
    "maximum": lambda: Body(lambda b, x: torch.maximum(b.second(x), b.third(x))),
    "maximum of spikes": lambda: Body(lambda b, x: torch.max(torch.relu(x), torch.relu(b.second(x)))),
    "minimum": lambda: Body(lambda b, x: torch.minimum(x, b.third(x))),
    "minimum of spikes": lambda: Body(lambda b, x: torch.min(torch.relu(x), torch.relu(b.second(x)))),
    "maximum with a number": lambda: Body(lambda b, x: torch.clamp_min(x, 0.1) - torch.relu(x).clamp(max=0.2)),
    "max pooling": lambda: of_spikes(nn.MaxPool2d(2)),
    "max pooling, padded": lambda: of_spikes(nn.MaxPool2d(3, 2, 1)),
    "max pooling, stride 1": lambda: of_spikes(nn.MaxPool2d(3, 1, 1)),
    "max pooling, large": lambda: of_spikes(nn.MaxPool2d(5, 1, 2)),
    "max pooling, dilated": lambda: of_spikes(nn.MaxPool2d(2, 1, 0, dilation=2)),
    "max pooling of sums": lambda: of_sums(nn.MaxPool2d((2, 3), 2)),
    "max pooling of sums, padded": lambda: of_sums(nn.MaxPool2d(3, 2, 1)),
    "max pooling of a leaky relu": lambda: Body(pooled),
    "global mean": lambda: Body(lambda b, x: torch.relu(x) - torch.relu(b.second(x)).mean((2, 3), keepdim=True)),
    "global pooling": lambda: Body(
        lambda b, x: functional.leaky_relu(x, 0.2) + functional.adaptive_avg_pool2d(x, 1).expand_as(x)
    ),
    "mean over channels": lambda: Body(lambda b, x: x - functional.leaky_relu(x).mean(1, keepdim=True)),
    "view": lambda: Body(lambda b, x: functional.leaky_relu(x, 0.1).contiguous().view(x.shape).clone()),
    "grouped after a leaky relu": lambda: Body(grouped),
    "parts": lambda: Body(parts, width=8),
    "channel shuffle": lambda: of_sums(nn.Sequential(nn.LeakyReLU(0.2), nn.ChannelShuffle(2))),
    "relu, then pixel shuffle": lambda: Body(shuffled, width=1),
    "a sum of spikes": lambda: Body(summed),
    "transposed by a function": lambda: Body(
        lambda b, x: functional.conv_transpose2d(torch.relu(x), b.third.weight, b.third.bias, stride=2)
    ),
}  # fmt: skip
PLAIN = {"leaky, of spikes", "a sum of spikes", "transposed by a function", "global mean", "mean over channels"}
"""Those in which an operation is kept, or converted as it is."""


def distance(spiking: SpikingNetwork, body: nn.Module) -> float:
    """RMS error over the RMS of the network's own output."""
    with torch.no_grad():
        wanted = body(IMAGES)
        return ((spiking(IMAGES) - wanted).square().mean() / wanted.square().mean()).sqrt().item()


@pytest.mark.parametrize("kind", BODIES)
def test_rewrite(kind: str) -> None:
    body = BODIES[kind]().double().eval()
    graph = trace_body(body)
    with torch.no_grad():
        found = graph.run(IMAGES, graph.activate).constant
        torch.testing.assert_close(found, body(IMAGES), rtol=0, atol=1e-10)
    fates = {fate for _, _, fate in graph.origin}
    assert any(fate.startswith("rewritten: ") for fate in fates) or kind in PLAIN or fates <= {"kept", "converted"}

    spiking = convert(body, IMAGES, "rueckauer", percentile=100)
    errors = [distance(spiking.at(time_steps=steps), body) for steps in (8, 64, 512)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.06
    phased = convert(body, IMAGES, percentile=100, schedule="phased")
    errors = [distance(phased.at(time_steps=steps), body) for steps in (2**4, 2**10, 2**18)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-4

    image, generator = IMAGES[:1] * 0.93, torch.Generator().manual_seed(1)
    for name in spiking.layers:  # so that no membrane sits on a threshold: what a ReLU passes on twice does
        for network in (spiking, phased):
            threshold = network.neuron(name).log_threshold
            threshold.data += 0.05 * torch.rand(threshold.shape, generator=generator)
    for trained in (spiking.at(time_steps=5), phased.at(time_steps=5)):
        restored, fired = trained.trace(image, trains=True)
        folded, refired = fold(trained, grid=None, dtype=torch.float64).trace(image, trains=True)
        torch.testing.assert_close(folded, restored, rtol=0, atol=1e-9)
        for one, other in zip(fired.layers, refired.layers, strict=True):
            assert one.trains is not None
            assert torch.equal(one.trains, other.trains)  # type: ignore[arg-type]


NATIVE = [
    *("leaky", "prelu by channel", "relu6", "hardtanh", "clamp", "abs", "softshrink", "clamp of spikes"),
    *("maximum of spikes", "minimum of spikes", "max pooling", "max pooling, padded", "max pooling, stride 1"),
    *("max pooling, large", "max pooling of a leaky relu", "view", "channel shuffle"),
]  # fmt: skip


@pytest.mark.skipif(not engine.native_available(), reason="SpikingIR was installed without a compiler")
@pytest.mark.parametrize(("schedule", "coding"), [("phased", "unary"), ("phased", "binary"), ("clocked", "unary")])
@pytest.mark.parametrize("kind", NATIVE)
def test_rewrite_runs_natively(kind: str, schedule: str, coding: str) -> None:
    body = BODIES[kind]().eval()
    spiking = convert(body, IMAGES.float(), percentile=100, schedule=schedule, coding=coding, time_steps=5)
    folded = fold(spiking)
    assert torch.equal(engine.restore(folded, IMAGES.float(), engine="native"), folded(IMAGES.float()))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(low=st.floats(-3, 3), width=st.floats(0.01, 3))
def test_clamp_is_a_sum_of_relus(low: float, width: float) -> None:
    x = torch.linspace(-7, 7, 701, dtype=torch.float64)
    wanted = x.clamp(low, low + width)
    torch.testing.assert_close(PiecewiseLinear.clamp(low, low + width)(x), wanted, rtol=0, atol=1e-12)


def test_the_conventional_network_is_charged_for_its_own_operations() -> None:
    """Not for twins of convolutions, comparisons of a pooling, or weights for both halves of a leaky ReLU."""

    def network(act: Callable[[], nn.Module]) -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(conv(1), act(), conv(), act(), nn.MaxPool2d(2), conv(4, 1)).eval()

    full = (9 * 4 + 9 * 16) * 16 * 16 + 9 * 4 * 8 * 8
    image = torch.rand(1, 1, 16, 16)
    for act in (nn.ReLU, lambda: nn.LeakyReLU(0.2), nn.PReLU):
        assert count_macs(network(act), (16, 16), 1) == full
        columns = ann_columns(network(act), (16, 16), 1)
        assert columns.ann_mj["paper"] == pytest.approx(4.6e-9 * full)
    dense = nn.Sequential(conv(1), nn.Identity(), conv(), nn.Identity(), nn.AvgPool2d(2), conv(4, 1))
    # a leaky ReLU leaves no zeros, so its twin multiplies as one without activations does, pooling aside
    twin = int8_twin(network(lambda: nn.LeakyReLU(0.9)), image, 1).macs
    assert 0.9 < twin / (int8_twin(dense, image, 1).macs - 4 * 4 * 8 * 8) < 1.01
    leaky = convert(network(lambda: nn.LeakyReLU(0.2)), image)
    assert count_macs(leaky, (16, 16)) == count_macs(fold(leaky), (16, 16)) == full


def test_a_rewritten_network_is_saved_and_read(tmp_path: Any) -> None:
    class Sized(Body):
        def forward(self, image: Tensor) -> Tensor:
            height, width = image.shape[-2:]
            x = functional.pad(image, (0, -width % 8, 0, -height % 8), mode="replicate")
            x = functional.max_pool2d(functional.leaky_relu(self.first(x), 0.2), 2)
            x = torch.relu(self.second(x)) - x.mean((2, 3), keepdim=True)
            x = functional.interpolate(x, scale_factor=2)
            return self.last(x)[..., :height, :width]

    spiking = convert(Sized(lambda b, x: x), IMAGES.float(), time_steps=4)
    assert {"pad_to", "crop", "global_avg_pool2d"} <= {node.op for node in spiking.nodes}
    save_pretrained(spiking, tmp_path / "network.safetensors")
    again = from_pretrained(tmp_path / "network.safetensors")
    assert again.graph.shares == spiking.graph.shares
    assert spiking.graph.shares
    assert again.origin == spiking.origin
    for size in ((12, 16), (13, 21)):
        image = torch.rand(1, 1, *size)
        assert torch.equal(again(image), spiking(image))
    assert count_macs(again, (12, 16)) == count_macs(spiking, (12, 16))
    folded = fold(spiking)
    assert torch.equal(read_npz(npz_content(folded))(IMAGES.float()), folded(IMAGES.float()))


SMOOTH = {
    "gelu": nn.GELU(), "silu": nn.SiLU(), "tanh": nn.Tanh(), "sigmoid": nn.Sigmoid(), "elu": nn.ELU(),
    "softplus": nn.Softplus(), "mish": nn.Mish(), "hardswish": nn.Hardswish(),
}  # fmt: skip


@pytest.mark.parametrize("kind", SMOOTH)
def test_straight_pieces(kind: str) -> None:
    """More pieces, less error, and what is printed is the worst error of the activation."""
    body = Body(lambda b, x: b.act(4 * x), SMOOTH[kind]).double().eval()
    with pytest.raises(ConversionError, match=r"cannot convert '\w+' at 'act': it is smooth, .* pass pieces=8 .*ReLU"):
        convert(body, IMAGES)
    printed = []
    for pieces in (2, 4, 8, 16):
        spiking = convert(body, IMAGES, pieces=pieces)
        text = next(fate for place, _, fate in report(spiking).operations if place == "act")
        error = float(text.split("worst error ")[1].split()[0])
        printed.append(error)
        if pieces == 8:
            sums = 4 * body.first(IMAGES).detach()
            graph = spiking.graph
            with torch.no_grad():
                found = graph.run(IMAGES, graph.activate).constant
                # the last convolution passes no more on than its weights allow
                most = error * body.last.weight.abs().sum()
                assert 0 < (found - body(IMAGES)).abs().max() <= 1.1 * most  # type: ignore[operator]
            assert f"from {sums.min():.3g} to {sums.max():.3g}" in text
    assert printed == sorted(printed, reverse=True)
    assert printed[-1] < printed[0] / 10
    assert "replaced activations change the output by" in str(report(spiking))
    assert "2 replaced" in str(report(spiking)).splitlines()[0]


def test_zero_stays_zero() -> None:
    fitted = PiecewiseLinear.fit(functional.gelu, -2.0, 3.0, 8)
    assert fitted(torch.zeros(1, dtype=torch.float64)).item() == 0
    assert PiecewiseLinear.fit(torch.tanh, 0.5, 2.0, 4).worst_error(torch.tanh, 0.5, 2.0) < 0.02
    assert PiecewiseLinear.fit(torch.tanh, -2.0, -0.5, 4).worst_error(torch.tanh, -2.0, -0.5) < 0.02


@pytest.mark.parametrize("pieces", [0, 1, 65])
def test_pieces_out_of_range(pieces: int) -> None:
    with pytest.raises(InputError, match=f"pieces is {pieces}; expected 2 to 64 straight pieces"):
        convert(of_sums(nn.GELU()), IMAGES.float(), pieces=pieces)


REFUSED: dict[str, tuple[Callable[[], nn.Module], str, str]] = {
    "product": (lambda: Body(lambda b, x: x * b.second(x)), "'mul' at 'mul'", "train the network with their sum"),
    "product in a block": (
        lambda: of_sums(nn.Sequential(nn.Identity(), Body(lambda b, x: x * x, width=4))), "at 'act.1.", "their sum"
    ),
    "softmax": (lambda: Body(lambda b, x: torch.softmax(x, 1)), "'softmax'", "attention multiplies feature maps"),
    "instance norm": (lambda: of_sums(nn.InstanceNorm2d(4)), "'InstanceNorm2d' at 'act'", "train .* nn.BatchNorm2d"),
    "group norm": (lambda: of_sums(nn.GroupNorm(2, 4)), "'GroupNorm' at 'act'", "train .* nn.BatchNorm2d"),
    "power": (lambda: Body(lambda b, x: torch.relu(x).pow(2)), "'pow'", "nn.BatchNorm2d, or without it"),
    "linear": (lambda: of_sums(nn.Linear(16, 16)), "'Linear' at 'act'", "put an nn.Conv2d of one pixel"),
    "layout": (lambda: Body(lambda b, x: x.permute(0, 1, 3, 2)), "'permute'", "nn.PixelShuffle, nn.ChannelShuffle"),
    "another view": (lambda: Body(lambda b, x: x.view(1, 8, -1, 16)), "'view'", "changes the layout"),
    "pooling to a size": (lambda: of_spikes(nn.AdaptiveAvgPool2d(3)), "'AdaptiveAvgPool2d'", "it pools to 3"),
    "max pooling, ceil": (lambda: of_spikes(nn.MaxPool2d(2, ceil_mode=True)), "'MaxPool2d'", "ceil_mode"),
    "largest of all": (lambda: Body(lambda b, x: x - torch.max(x)), "'max'", "only the larger or smaller of two maps"),
    "bounds that are maps": (lambda: Body(lambda b, x: torch.clamp(x, max=b.second(x))), "'clamp'", "expected numbers"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_what_stays_refused_says_what_would_convert(kind: str) -> None:
    make, place, advice = REFUSED[kind]
    with pytest.raises(ConversionError, match=f"cannot convert .*{place}.*: .*{advice}") as caught:
        convert(make().eval(), IMAGES.float())
    assert "\n" not in str(caught.value)


def test_unused_sums_leave_nothing_behind() -> None:
    """A sum that a convolution reads branch by branch is no node, and what nobody reads is not computed."""
    graph = graph_of(Body(summed).eval(), 1)
    read = {name for node in graph.nodes for name in node.inputs}
    assert {node.name for node in graph.nodes} - read == {graph.nodes[-1].name}
    assert graph.analog_operations() == ("last",)
