"""From a folded network back to a spiking network, to be saved, restored with, measured and trained further.

Its hidden neurons have the threshold 1, as folding left them, and the last its own, in units of the image. Folding it
again gives the kernels that it came from: those of steps 1..T, ``W'``, lie on their grid already, and of those of the
extended step, which were rounded on their own, follows where between two numbers of the grid the weight was, but where
the file's ``beta`` is coarser than that.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from spikingir.deploy.fold import FoldError
from spikingir.deploy.folded import FoldedNetwork, Kernel
from spikingir.graph.graph import Graph, Node
from spikingir.spiking.network import SpikingNetwork
from spikingir.spiking.neurons import IFNeuron, MembranePotentialReuseNeuron
from spikingir.spiking.readout import PixelMapper
from spikingir.spiking.surrogate import Surrogate


def unfold(network: FoldedNetwork) -> SpikingNetwork:
    """The spiking network of a folded one, in float32.

    ``W = W' theta_l / theta_k`` and ``b = b' theta_l``, with ``theta = 1`` but for the last neuron.

    Args:
        network: A folded network on a grid.

    Raises:
        FoldError: It lies on no grid, or a neuron fires at T + 1 at a level that no neuron of this package has.
    """
    if not network.gridded:
        raise FoldError("the folded network lies on no grid; keep the spiking network that it was folded from")
    graph, last = network.graph, network.nodes[-1].name
    shapes = graph.shapes()
    feeds = graph.currents({name: shape[0] for name, shape in shapes.items()})
    carried = graph.carried(shapes)
    steps = network.config.time_steps
    levels = _by_channel(network, shapes, lambda name: network.levels.get(name, steps), steps)
    betas = _by_channel(network, shapes, network.beta, 1.0)
    weights: dict[str, tuple[Tensor, Tensor | None]] = {}
    for node in network.nodes:
        kernel = network.kernel(node.name)
        if kernel is None or node.weights is None:
            continue
        source, neuron = node.inputs[0], feeds.get(node.name)
        by_image = (carried[source].image & ~carried[source].spikes & ~carried[source].analog).double()
        # what a spike weighs is per spike of a window of the neuron that it feeds
        share = levels[source] / network.levels.get(neuron or "", steps)
        operation = node.operation
        spike = kernel.spike.double() if network.config.phased else _between(node, kernel, betas[source])
        weight = operation.scale_input(node, spike, (1 - by_image) * share)
        weight = weight + operation.scale_input(node, kernel.analog, by_image)
        bias = kernel.bias
        if neuron == last:
            theta = network.theta.repeat_interleave(shapes[node.name][0] // len(network.theta))
            weight = operation.scale_output(node, weight, theta)
            bias = None if bias is None else bias * theta
        weights[node.weights] = (weight.float(), None if bias is None else bias.float())
    shares = {**network.shares, **dict.fromkeys(network.scalings, 0.0)}
    body = Graph(network.nodes, weights, network.raw, network.config.input_channels, shares=shares)
    neurons = {name: _neuron(network, name) for name in network.clocks}
    return SpikingNetwork(body, neurons, network.config, _mapper(network)).eval()


def _between(node: Node, kernel: Kernel, beta: Tensor) -> Tensor:
    """Weights ``W`` in the middle of those that round to a kernel: ``W`` to ``W'``, ``beta W`` to ``W''``."""
    assert kernel.grid is not None
    operation = node.operation
    spike, last = (operation.scale_output(node, w.double(), kernel.grid) for w in (kernel.spike, kernel.extended))
    least, most = (operation.scale_input(node, last + half, 1 / beta) for half in (-0.5, 0.5))
    least, most = torch.maximum(spike - 0.5, least), torch.minimum(spike + 0.5, most)
    near = (0.5 - spike.abs() * 2.0**-20).clamp_min(0)  # so near that float32 keeps it on its side of a half
    between = torch.where(least < most, (least + most) / 2, spike).clamp(spike - near, spike + near)
    return operation.scale_output(node, between, 1 / kernel.grid)


def _by_channel(
    network: FoldedNetwork,
    shapes: Mapping[str, Sequence[int]],
    of_neuron: Callable[[str], Tensor | float],
    plain: float,
) -> dict[str, Tensor]:
    """A number of the neuron whose spikes a channel of a wire carries; ``plain`` where there is none."""

    def visit(node: Node, inputs: list[Tensor]) -> Tensor:
        one = torch.ones(shapes[node.name][0], dtype=torch.float64)
        if node.role == "neuron":
            return one * of_neuron(node.name)
        if node.role != "moves":
            return one * plain
        operation = node.operation
        spiking = [one for name, one in zip(node.inputs, inputs, strict=True) if name in network.spiking]
        parts = spiking if operation.sums and spiking else inputs[: len(node.reads)]
        return operation.per_channel(node, parts, _first, _first)

    return network.graph.each(visit)


def _first(parts: Tensor) -> Tensor:
    return parts[..., 0]


def _neuron(network: FoldedNetwork, name: str) -> IFNeuron:
    clock = network.clocks[name]
    theta = network.theta if name == network.nodes[-1].name else torch.ones(1)
    surrogate: Surrogate = clock.surrogate  # type: ignore[assignment]  # readers of files have checked it
    if not clock.extended:
        neuron = IFNeuron(theta.float(), v0=clock.v0, signed=clock.signed, surrogate=surrogate)
    elif not max(0.5, clock.v0 + 0.5) <= clock.alpha <= 1:
        raise FoldError(
            f"'{name}' fires at T + 1 at {clock.alpha:g} thresholds from an initial membrane of {clock.v0:g}; "
            "expected v0 + 1/2 to 1"
        )
    else:
        beta = network.beta(name).float()
        theta = theta.float().expand(max(theta.numel(), beta.numel()))
        alpha = max(clock.alpha, 0.5 + 2.0**-20)  # a level of 1/2 on its grid was above it
        neuron = MembranePotentialReuseNeuron(
            theta, beta, alpha=alpha, v0=clock.v0, signed=clock.signed, surrogate=surrogate
        )
    if network.config.coding == "binary":
        bits = (network.levels[name] + 1).bit_length() - 1
        neuron.activation_bits = None if bits == network.config.time_steps else bits
    return neuron


def _mapper(network: FoldedNetwork) -> PixelMapper | None:
    """The mapper; none where spikes are read as they are."""
    kernel, theta = network.mapper, network.theta
    if kernel.bias is None and torch.equal(kernel.spike, theta.diag()[:, :, None, None]):
        return None
    weight = kernel.spike / theta.view(1, -1, 1, 1)
    if weight.shape[-1] == 1:
        weight = torch.nn.functional.pad(weight, (1, 1, 1, 1))
    mapper = PixelMapper(len(theta))
    mapper.weight.data = weight.float()
    assert mapper.bias is not None
    mapper.bias.data = torch.zeros(len(theta)) if kernel.bias is None else kernel.bias.float()
    return mapper
