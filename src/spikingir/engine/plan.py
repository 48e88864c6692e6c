"""A folded network as layers that each read spikes, or the image, through one convolution."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from spikingir.spiking.folded import FoldedNetwork
from spikingir.spiking.graph import Node

LARGEST_KERNEL = 7
_MOST_STEPS = 2**15 - 1  # a count of spikes takes 16 bits


class NotNativeError(ValueError):
    """A network that the native engine cannot run; the text says what it has that is in the way."""


@dataclass(frozen=True)
class LayerPlan:
    """One spiking layer.

    Attributes:
        name: Its name.
        convolution: Name of the convolution that it reads.
        sources: Layers that the convolution reads, in the order of its input channels; none: it reads the image.
    """

    name: str
    convolution: str
    sources: tuple[str, ...]


def plan_layers(network: FoldedNetwork) -> tuple[LayerPlan, ...]:
    """The layers of a network in order.

    Raises:
        NotNativeError: The network has operations other than convolutions that keep the image's size and
            concatenations of spikes, or numbers that do not lie on its grid.
    """
    if not network.gridded:
        raise NotNativeError("its numbers are on no grid")
    if network.config.time_steps > _MOST_STEPS:
        raise NotNativeError(f"{network.config.time_steps} time steps are more than {_MOST_STEPS}")
    if len({clock.extended for clock in network.clocks.values()}) > 1:
        raise NotNativeError("only some of its layers have an extended step")
    wires: dict[str, tuple[str, ...]] = {}
    convolutions: dict[str, tuple[str, ...]] = {}
    layers = []
    for node in network.nodes:
        spiking = all(name in wires for name in node.inputs)
        if node.op == "input":
            wires[node.name] = ()
        elif node.op == "conv2d" and spiking:
            _check(node, network)
            convolutions[node.name] = wires[node.inputs[0]]
        elif node.op == "concat" and spiking and all(wires[name] for name in node.inputs):
            wires[node.name] = tuple(source for name in node.inputs for source in wires[name])
        elif node.op == "neuron" and node.inputs[0] in convolutions:
            layers.append(LayerPlan(node.name, node.inputs[0], convolutions[node.inputs[0]]))
            wires[node.name] = (node.name,)
        else:
            raise NotNativeError(f"'{node.name}' ({node.op}) is beyond it")
    for layer in layers[:-1]:
        if network.clocks[layer.name].signed and not network.config.phased:
            raise NotNativeError(f"'{layer.name}' fires -1 before the last layer")
    return tuple(layers)


def _check(node: Node, network: FoldedNetwork) -> None:
    kernel = network.kernel(node.name)
    assert kernel is not None
    side = kernel.spike.shape[-1]
    expected: Mapping[str, Any] = {
        "stride": (1, 1),
        "padding": (side // 2, side // 2),
        "dilation": (1, 1),
        "groups": 1,
    }
    square = kernel.spike.shape[-2] == side and side % 2 == 1 and side <= LARGEST_KERNEL
    for name, value in expected.items():
        if node.options[name] != value or not square:
            shape = "x".join(str(n) for n in kernel.spike.shape[-2:])
            raise NotNativeError(
                f"'{node.name}' is a {shape} convolution with {name} {node.options[name]}; expected a square one of "
                f"odd size up to {LARGEST_KERNEL} that keeps the image's size"
            )
