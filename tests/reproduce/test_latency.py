"""Latency in steps is what a simulation that moves every spike by one layer a step takes."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from reproduce.latency import depth, latency
from spikingir.conversion.convert import convert
from spikingir.data.noise import sample_generator
from spikingir.networks import AODNet, DnCNN
from spikingir.spiking.network import Schedule, SpikingNetwork

T = 3
IMAGES = torch.rand(3, 1, 6, 6, generator=sample_generator(5, 0), dtype=torch.float64)


class Layer:
    """One layer's work on one image: what it read, and the spikes that it still has to send."""

    def __init__(self, network: SpikingNetwork, i: int) -> None:
        self.neuron, self.config = network.neuron(network.layers[i]), network.config
        self.weight, self.bias = list(network.graph.weights.values())[i]
        self.theta = self.neuron.v_threshold.view(-1, 1, 1)
        self.v = self.neuron.v0 * self.theta * (not self.config.phased)
        self.total: Tensor | float = 0.0
        self.window = T + (self.neuron.extended and not self.config.phased)
        self.read = self.sent = 0

    def receive(self, spikes: Tensor) -> None:
        bias = None if self.read == T else self.bias
        if self.read < T or not isinstance(self.total, float):
            current = functional.conv2d(spikes, self.weight, bias, padding=1)
            self.v, self.total = self.v + current, self.total + current
        self.read += 1

    def send(self) -> Tensor | None:
        """Weighted spikes of its next step, once it has read what it waits for."""
        if self.sent == self.window or self.read < min(self.sent + self.config.delay + 1, self.window):
            return None
        if self.config.phased:
            if not self.sent:
                self.left = (self.v / self.theta + 0.5).floor().clamp(0, T)
            spikes = (self.left > 0).to(self.v)
            self.left = self.left - spikes
            self.sent += 1
            return spikes * self.theta
        last = self.sent == T
        level = self.theta * (self.neuron.alpha if last else 1)
        amplitude = self.theta * (self.neuron.beta.view(-1, 1, 1) if last else 1)
        weighted = amplitude * (self.v >= level)
        self.v = self.v - weighted
        self.sent += 1
        return weighted


def outputs(network: SpikingNetwork, images: Tensor, interval: int) -> Iterator[tuple[int, int, Tensor]]:
    """Step, number and body's output of each image, one fed every ``interval`` steps, as soon as it is complete."""
    deep = len(network.layers)
    jobs = [[Layer(network, i) for i in range(deep)] for _ in images]
    on_wire: list[dict[int, Tensor]] = [{} for _ in range(deep)]
    for step in range(1, 200):
        sent: list[dict[int, Tensor]] = [{} for _ in range(deep)]
        for j in range(len(images)):
            first = jobs[j][0]
            if j * interval < step and first.read < first.window:
                first.receive(images[j : j + 1] * (first.read < T))
                on_wire[0].pop(j, None)
        for i in range(deep):
            if i:
                assert len(on_wire[i]) < 2, "two images reach one layer at the same step"
                for j, spikes in on_wire[i].items():
                    jobs[j][i].receive(spikes)
            for j in range(len(images)):
                if i + 1 < deep and (spikes := jobs[j][i].send()) is not None:
                    sent[i + 1][j] = spikes
                if i + 1 == deep and jobs[j][i].read == jobs[j][i].window and on_wire[i].get(j) is not None:
                    yield step, j, jobs[j][i].total / T
        on_wire = sent


@pytest.mark.parametrize(
    ("method", "schedule", "expected", "interval"),
    [
        ("spikingir", "clocked", 3 + T, T + 1),
        ("if", "clocked", 3 + T - 1, T),
        ("spikingir", "phased", 3 * T, T),
        ("if", 1, 2 * 2 + T, T),
    ],
)
@torch.no_grad()
def test_a_step_a_hop(method: str, schedule: Schedule, expected: int, interval: int) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        ann = DnCNN(layers=3, width=4).double().eval()
    how: dict[str, Any] = {"recycling": True}
    network = convert(ann, IMAGES, method, time_steps=T, schedule=schedule, **how).double()
    found = latency(network)
    assert (found.depth, found.steps, found.interval) == (3, expected, interval)
    simulated = list(outputs(network, IMAGES, found.interval))
    assert [(step, j) for step, j, _ in simulated] == [(expected + j * interval, j) for j in range(len(IMAGES))]
    for _, j, body in simulated:  # with recycling and the identity as mapper: the mean of the last layer's currents
        assert torch.allclose(IMAGES[j : j + 1] - body, network(IMAGES[j : j + 1]), atol=1e-9)
    with pytest.raises(AssertionError, match="two images"):
        list(outputs(network, IMAGES, found.interval - 1))


def test_depth_is_the_longest_way() -> None:
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = (nn.Conv2d(1, 2, 3, padding=1) for _ in range(3))
            self.d, self.e = nn.Conv2d(2, 2, 3, padding=1), nn.Conv2d(4, 1, 1)

        def forward(self, image: Tensor) -> Tensor:
            short, long = torch.relu(self.a(image)), torch.relu(self.d(torch.relu(self.b(image))))
            return torch.relu(self.e(torch.cat([short, long], 1)))

    images = torch.rand(1, 1, 8, 8, generator=sample_generator(0, 0))
    network = convert(Branches().eval(), images)
    assert (len(network.layers), depth(network)) == (4, 3)
    assert depth(convert(AODNet().eval(), torch.rand(1, 3, 8, 8, generator=sample_generator(0, 1)))) == 5
