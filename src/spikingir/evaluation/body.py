"""A body to be counted: that of a conventional, a spiking or a folded network, in one form."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from spikingir.conversion.trace import trace_body
from spikingir.spiking.folded import FoldedNetwork
from spikingir.spiking.graph import LINEAR, Node, Wave, Weights, run_graph
from spikingir.spiking.network import SpikingNetwork


@dataclass(frozen=True)
class Body:
    """A body, each weighted node with weights of its own name.

    Attributes:
        nodes: Operations in order.
        weights: Weight and bias by node.
        raw: Functions of the raw nodes by name.
        channels: Channels that it reads: the image's, and the noise level where the network takes one.
        signed: Neurons that are no ReLU but the signed output.
        multiple: Heights and widths are rounded up to multiples of this, as the network pads its images.
        scalings: Operations that folding put in, which the conventional network does not have.
    """

    nodes: tuple[Node, ...]
    weights: Weights
    raw: Mapping[str, Callable[..., Tensor]]
    channels: int
    signed: frozenset[str]
    multiple: int = 1
    scalings: frozenset[str] = frozenset()

    @classmethod
    def of(cls, network: nn.Module, channels: int | None = None) -> "Body":
        """The body of a network.

        Args:
            network: A body or restoration network, a spiking or a folded one.
            channels: Channels that it reads, where the network does not say.

        Raises:
            ValueError: The number of channels is not known.
            ConversionError: The body cannot be traced.
        """
        if isinstance(network, FoldedNetwork):
            # pooling and resizing have weights of their own; the folded form keeps no more than a grid for them
            weighing = (node.name for node in network.nodes if node.op not in ("avg_pool2d", "interpolate"))
            kernels = {name: network.kernel(name) for name in weighing}
            weights = {name: (kernel.analog, kernel.bias) for name, kernel in kernels.items() if kernel is not None}
            signed = frozenset(name for name, clock in network.clocks.items() if clock.signed)
            nodes = tuple(replace(node, weights=node.name if node.name in weights else None) for node in network.nodes)
            channels = network.config.input_channels
            return cls(nodes, weights, network.raw, channels, signed, scalings=network.scalings)
        shared: Weights
        raw: Mapping[str, Callable[..., Tensor]]
        if isinstance(network, SpikingNetwork):
            nodes, shared, raw, channels = network.nodes, network.weights, network.raw, network.config.input_channels
            signed = frozenset(name for name in network.layers if network.neuron(name).signed)
        else:
            if (own := getattr(network, "channels", None)) is not None:
                channels = own + getattr(network, "takes_level", False)
            traced = trace_body(copy.deepcopy(getattr(network, "body", network)).eval())
            nodes, shared, raw, signed = traced.nodes, traced.weights, traced.raw, traced.signed
        if channels is None:
            raise ValueError(f"a {type(network).__name__} does not say how many channels its image has; pass channels")
        weights = {node.name: shared[node.weights] for node in nodes if node.weights is not None}
        nodes = tuple(replace(node, weights=node.name if node.name in weights else None) for node in nodes)
        return cls(nodes, weights, raw, channels, signed, getattr(network, "multiple", 1))

    def shapes(self, size: tuple[int, int]) -> dict[str, tuple[int, ...]]:
        """Shape (C, H, W) of every node's output for an image of height and width ``size``, without computing it.

        A size that is no multiple of :attr:`multiple` is rounded up.
        """
        shapes: dict[str, tuple[int, ...]] = {}
        light = {name: _light(weight) for name, (weight, _) in self.weights.items()}

        def note(name: str, value: Tensor) -> Tensor:
            shapes[name] = tuple(value.shape[1:])
            return value

        def blank(name: str) -> Callable[..., Tensor]:
            # a function of the user's own holds tensors of its own, so it is run for real
            return lambda *images: note(name, self.raw[name](*map(_blank, images)).to("meta", torch.float32))

        def neuron(node: Node, current: Wave, owned: bool) -> Wave:
            assert current.constant is not None
            return Wave(None, note(node.name, current.constant))

        def apply(node: Node, inputs: Sequence[Wave], _: object) -> Wave:
            values = [value.constant for value in inputs if value.constant is not None]
            return Wave(None, note(node.name, LINEAR[node.op].run(values, node.options, light.get(node.name))))

        image = (self.channels, *(side + -side % self.multiple for side in size))
        shapes[self.nodes[0].name] = image
        raw = {name: blank(name) for name in self.raw}
        run_graph(self.nodes, {}, torch.empty(1, *image, device="meta"), neuron, raw, apply)
        return shapes


def _light(weight: Tensor) -> Tensor:
    return torch.empty_like(weight, dtype=torch.float32, device="meta")


def _blank(image: Tensor) -> Tensor:
    return torch.zeros(image.shape, dtype=image.dtype)
