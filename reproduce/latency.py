"""Latency in steps: how long a network takes from the image to the last spike that its output needs.

A hop from one spiking layer to the next takes a step, as on hardware whose layers run side by side; simulation has no
such hops, and the same results, because each layer reads the same inputs in the same order. With ``D`` layers on the
longest way from the image to the output, ``T`` time steps, ``d`` inputs that a layer waits for beyond the first (0
clocked, T - 1 phased) and ``e = 1`` where an extended step follows (0 otherwise), layer ``l`` reads its first input at
step ``(l - 1)(d + 1) + 1``, and the last layer reads its last at

    latency = (D - 1)(d + 1) + T + e        D + T clocked with the extended step, D T phased

Layers work on different images at once: the next image can follow every ``T + e`` steps. A phased layer then fires for
one image while it collects the next, for which it holds the counts that it fires from beside its membranes.
"""

from dataclasses import dataclass

from spikingir.spiking.network import SpikingNetwork


@dataclass(frozen=True)
class Latency:
    """Latency of a network.

    Attributes:
        depth: Spiking layers on the longest way from the image to the output.
        steps: Steps until the output of one image is complete.
        interval: Steps after which the next image can follow.
    """

    depth: int
    steps: int
    interval: int


def depth(network: SpikingNetwork) -> int:
    """Spiking layers on the longest way from the image to the output."""
    known: dict[str, int] = {}
    for node in network.nodes:
        known[node.name] = max((known.get(name, 0) for name in node.reads), default=0) + (node.role == "neuron")
    return known[network.nodes[-1].name]


def latency(network: SpikingNetwork) -> Latency:
    """Latency of a network at its time steps and on its schedule, see the module."""
    config = network.config
    extended = not config.phased and any(network.neuron(name).extended for name in network.layers)
    interval = config.time_steps + extended
    deep = depth(network)
    return Latency(deep, (deep - 1) * (config.delay + 1) + interval, interval)
