"""The state in the open: spikes and membranes of each step, the image at each step, images that change with it."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from spikingir.conversion.convert import convert
from spikingir.deploy.fold import fold
from spikingir.deploy.folded import FoldedNetwork
from spikingir.errors import InputError
from spikingir.networks.aodnet import AODNet
from spikingir.networks.dncnn import DnCNN
from spikingir.networks.multiscale import MultiScaleNet
from spikingir.spiking.coding import levels
from spikingir.spiking.network import SpikingNetwork
from tests.deploy.test_networks import disturbed

STEPS = 5
KINDS = {
    "dncnn": lambda: DnCNN(layers=4, width=5),
    "aodnet": lambda: AODNet(),
    "level": lambda: MultiScaleNet(1, 4, (1, 1)),
    "soft": lambda: MultiScaleNet(3, 4, (1, 1), "soft"),
    "recycled image": lambda: Skips(),
}


class Skips(nn.Module):
    """The image beside spikes in a concatenation and in a sum; a convolution of sums of spikes; pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(5, 4, 3, padding=1)
        self.third, self.fourth = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = torch.relu(self.first(x))
        b = torch.relu(self.second(torch.cat([x, a], 1)) + a)
        c = torch.relu(self.third(nn.functional.avg_pool2d(a + b, 3, 1, 1)))
        return self.fourth(c + b) + 0.5 * x


def image(name: str, count: int = 2) -> Tensor:
    channels = {"dncnn": 1, "aodnet": 3, "level": 2, "soft": 3, "recycled image": 1}[name]
    found = torch.rand(count, channels, 12, 16, generator=torch.Generator().manual_seed(3))
    if name == "level":
        found[:, 1] = 0.1
    return found


def spiking(name: str, method: str = "spikingir", **options: Any) -> SpikingNetwork:
    with torch.random.fork_rng():
        torch.manual_seed(2)
        body = disturbed(KINDS[name](), 2)
    network = convert(body, image(name), method, time_steps=STEPS, **options)
    generator = torch.Generator().manual_seed(4)
    for parameter in network.neurons.parameters():  # logarithms of thresholds, and of betas
        parameter.data.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return network


def assert_same_state(network: FoldedNetwork, x: Tensor) -> tuple[Tensor, Any]:
    """What is recorded is what the network does, bit for bit."""
    restored, expected = network.trace(x, trains=True)
    outputs, trace = network.record(x)
    assert torch.equal(outputs[-1], restored)
    assert (trace.time_steps, trace.schedule, trace.image_size) == (STEPS, expected.schedule, expected.image_size)
    for found, wanted in zip(trace.layers, expected.layers, strict=True):
        assert (found.name, found.neurons) == (wanted.name, wanted.neurons)
        assert found.trains is not None
        assert found.membranes is not None
        assert wanted.trains is not None
        assert torch.equal(found.trains, wanted.trains)
        assert torch.equal(found.trains.abs().sum((-2, -1)), found.spikes)
        assert torch.equal(found.spikes, wanted.spikes)
        assert torch.equal(found.residual_membrane, wanted.residual_membrane)
        assert torch.equal(found.membranes[-1], wanted.residual_membrane)
        assert found.trains.shape == found.membranes.shape
    assert sum(int(layer.spikes.sum()) for layer in trace.layers) > 500
    return outputs, trace


@pytest.mark.parametrize("method", ["spikingir", "if"])
@pytest.mark.parametrize("name", KINDS)
def test_clocked_state_is_what_the_network_does(name: str, method: str) -> None:
    network = fold(spiking(name, method))
    outputs, _ = assert_same_state(network, image(name))
    assert len(outputs) == STEPS + (method == "spikingir")


def test_other_grids() -> None:
    network = spiking("dncnn")
    for folded in (fold(network, weight_bits=6), fold(network, grid=8), fold(network, dtype=torch.float64)):
        assert_same_state(folded, image("dncnn"))
    plain = fold(network.double(), grid=None, dtype=torch.float64)
    x = image("dncnn").double()
    _, trace = plain.record(x)
    for found, wanted in zip(trace.layers, plain.trace(x, trains=True)[1].layers, strict=True):
        assert torch.equal(found.trains, wanted.trains)  # type: ignore[arg-type]
        torch.testing.assert_close(found.membranes[-1], wanted.residual_membrane)  # type: ignore[index]


@pytest.mark.parametrize("name", ["dncnn", "soft"])
def test_membranes_obey_the_equation(name: str) -> None:
    """v(t) is below the threshold unless the current was above it; the last layer's v(t) is the sum of its currents."""
    network = fold(spiking(name, "if"))
    _, trace = network.record(image(name))
    first, second = (trace.layer(layer) for layer in list(network.clocks)[:2])
    # the first layer's current is the same at every step: v(t) + spikes so far grow by it
    assert first.membranes is not None
    assert first.trains is not None
    received = first.membranes + first.trains.cumsum(0)
    gained = received.diff(dim=0)
    torch.testing.assert_close(gained, gained[:1].expand_as(gained), rtol=0, atol=0)
    torch.testing.assert_close(received[0] - network.clocks[first.name].v0, gained[0], rtol=0, atol=0)
    # the second reads the first's spikes of the same step
    node = next(node for node in network.nodes if node.name == second.name)
    kernel = network.kernel(node.inputs[0])
    assert kernel is not None
    assert kernel.bias is not None
    assert second.membranes is not None
    assert second.trains is not None
    if name == "dncnn":
        spikes = first.trains.double().flatten(0, 1)
        current = nn.functional.conv2d(spikes, kernel.spike.double(), kernel.bias.double(), padding=1)
        current = current.view(second.trains.shape)
        received = second.membranes.double() + second.trains.cumsum(0)
        assert torch.equal(received, current.cumsum(0) + network.clocks[second.name].v0)


@pytest.mark.parametrize("name", KINDS)
def test_the_image_at_a_step_is_that_of_as_many_steps(name: str) -> None:
    """Clocked spikes do not depend on the steps that follow, so output t is the network's at T = t."""
    network = spiking(name, "if").double()
    x = image(name).double()
    outputs, _ = fold(network, grid=None, dtype=torch.float64).record(x)
    for steps in range(1, STEPS + 1):
        shorter = fold(network.at(time_steps=steps), grid=None, dtype=torch.float64)
        torch.testing.assert_close(outputs[steps - 1], shorter(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("method", ["spikingir", "if"])
@pytest.mark.parametrize("name", KINDS)
def test_frames_that_do_not_change_are_the_still_image(name: str, method: str) -> None:
    network = fold(spiking(name, method))
    x = image(name)
    still, trace = network.record(x)
    moving, other = network.record(torch.stack([x.clone() for _ in range(STEPS)]))
    assert torch.equal(moving, still)
    for found, wanted in zip(other.layers, trace.layers, strict=True):
        assert torch.equal(found.trains, wanted.trains)  # type: ignore[arg-type]
        assert torch.equal(found.membranes, wanted.membranes)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["dncnn", "recycled image"])
def test_a_frame_matters_from_its_step_on(name: str) -> None:
    network = fold(spiking(name))
    frames = image(name).expand(STEPS, -1, -1, -1, -1).clone()
    before, _ = network.record(frames)
    frames[3] = 1 - frames[3]
    after, _ = network.record(frames)
    assert torch.equal(after[:3], before[:3])
    assert (after[3] != before[3]).any()
    assert (after[-1] != before[-1]).any()


def test_frames_are_currents_of_their_steps() -> None:
    """A network of one hidden layer, with the neurons' own equation over currents that change."""
    torch.manual_seed(1)
    body = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 1, 3, padding=1)).double()
    network = convert(body, torch.rand(2, 1, 8, 8).double(), "if", time_steps=STEPS)
    frames = torch.rand(STEPS, 2, 1, 8, 8).double()
    hidden, last = (network.neuron(name) for name in network.layers)
    with torch.no_grad():
        fired = hidden(torch.stack([body[0](frame) for frame in frames])).weighted_spikes
        currents = torch.stack([body[2](spikes) for spikes in fired])
        expected = last(currents)
    outputs, trace = fold(network, grid=None, dtype=torch.float64).record(frames)
    theta = hidden.v_threshold.view(-1, 1, 1)
    assert 0.1 < (fired / theta).mean() < 0.9
    for layer, weighted in zip(trace.layers, (fired, expected.weighted_spikes), strict=True):
        assert torch.equal(layer.trains, weighted.sign().to(torch.int8))  # type: ignore[arg-type]
    torch.testing.assert_close(outputs, expected.weighted_spikes.cumsum(0) / torch.arange(1, 6).view(-1, 1, 1, 1, 1))


def test_the_formation_has_the_mean_of_the_frames_so_far() -> None:
    """A body that gives nothing: the image that comes out is the one that went in."""
    network = DnCNN(layers=3, width=3)
    for parameter in network.parameters():
        parameter.data.zero_()
    network.eval()
    folded = fold(convert(network, torch.rand(1, 1, 8, 8), time_steps=4))
    frames = torch.tensor([0.0, 1.0, 0.5, 0.5]).view(4, 1, 1, 1, 1).expand(4, 1, 1, 8, 8)
    outputs, _ = folded.record(frames)
    assert outputs[:, 0, 0, 0, 0].tolist() == [0, 0.5, 0.5, 0.5, 0.5]


@pytest.mark.parametrize("coding", ["unary", "binary"])
@pytest.mark.parametrize("name", ["dncnn", "level"])
def test_phased_state_is_of_each_layers_window(name: str, coding: str) -> None:
    network = fold(spiking(name, schedule="phased", coding=coding))
    outputs, trace = assert_same_state(network, image(name))
    assert len(outputs) == 1
    for layer in trace.layers:
        assert layer.trains is not None
        assert layer.membranes is not None
        assert len(layer.trains) == STEPS
        most = levels(coding, STEPS, None)  # type: ignore[arg-type]
        each = torch.tensor([most + 1 >> (t + 1) if coding == "binary" else 1 for t in range(STEPS)])
        taken = layer.trains * each.view(-1, 1, 1, 1, 1)
        assert torch.equal(layer.membranes[0] - layer.membranes[-1], taken[1:].sum(0).float())
        assert torch.equal(-layer.membranes.diff(dim=0), taken[1:].float())


def test_chosen_layers_alone() -> None:
    for schedule in ("clocked", "phased"):
        network = fold(spiking("dncnn", schedule=schedule))
        x, chosen = image("dncnn"), list(network.clocks)[1]
        _, whole = network.record(x)
        _, trace = network.record(x, layers=[chosen], membranes=False)
        for layer in trace.layers:
            assert (layer.trains is None) == (layer.name != chosen)
            assert layer.membranes is None
            assert torch.equal(layer.spikes, whole.layer(layer.name).spikes)
        assert torch.equal(trace.layer(chosen).trains, whole.layer(chosen).trains)  # type: ignore[arg-type]
        _, trace = network.record(x, layers=[])
        assert all(layer.trains is None for layer in trace.layers)


def test_refusals() -> None:
    network, x = spiking("dncnn"), image("dncnn")
    folded = fold(network)
    with pytest.raises(InputError, match=r"there is no layer 'nothing'; the network has \w+, "):
        folded.record(x, layers=["nothing"])
    with pytest.raises(InputError, match="there is no layer 'nothing'"):
        folded.record(x)[1].layer("nothing")
    with pytest.raises(InputError, match=r"there are 3 frames for T = 5 steps; give one for each, or fold network\.at"):
        folded.record(x.expand(3, *x.shape))
    with pytest.raises(InputError, match="expected images of shape"):
        folded.record(x[0])
    with pytest.raises(InputError, match="expected images of shape"):
        folded.record(torch.rand(STEPS, 1, 3, 8, 8))
    phased = fold(network.at(schedule="phased"))
    with pytest.raises(InputError, match="the mean of the frames alone; give that as an image, or run clocked"):
        phased.record(x.expand(STEPS, *x.shape))
    with pytest.raises(InputError, match="delay 2, where each layer has steps of its own; record it clocked or phased"):
        fold(network.at(schedule=2)).record(x)
    frames = torch.rand(STEPS, 1, 1, 8, 8)
    frames[2, 0, 0, 0, 0] = float("nan")
    with pytest.raises(InputError, match="image values must be finite"):
        folded.record(frames)
