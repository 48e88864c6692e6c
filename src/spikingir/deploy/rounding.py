"""Weights on few bits, each rounded so that the errors of a sum cancel on what its inputs usually carry.

Rounded to the nearest, the weights of a sum leave it an error that has a mean, and errors of inputs that fire together
add up. Here layers are rounded in order, each on what the rounded ones before it give. With ``x`` the inputs of an
output channel less their means, ``H = E[x x^T]`` and ``e`` the errors of its weights, its sum has the error
``e H e^T`` beside a mean. Weights are rounded one after the other, the error of each made up for by those that are
still free; the bias takes the mean. The unit of an output channel is the least number on the grid whose multiples reach
its largest weight.

What comes out is a network whose weights need no further rounding: :func:`spikingir.fold` finds them on the grid.

Source:
    Frantar et al. 2023, "GPTQ" (error feedback); Nagel et al. 2019, "Data-Free Quantization" (bias correction).
"""

import copy
from collections import Counter
from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional

from spikingir.conversion.calibrate import CalibrationImages, channel_means, image_batches
from spikingir.deploy.fold import fold, least_unit, weight_grid
from spikingir.deploy.grids import GRID_BITS
from spikingir.errors import InputError
from spikingir.graph.graph import Fire, Node, Wave
from spikingir.spiking.network import SpikingNetwork, require_spiking

_RIDGE = 0.001
_POSITIONS = 8  # for each weight of an output channel
_FEWEST = 4096
_BLOCK = 64

Pair = tuple[Tensor, Tensor]
"""A value in the network as it was, and in the rounded one."""


@torch.no_grad()
def round_weights(
    network: SpikingNetwork, calibration_images: CalibrationImages, *, weight_bits: int = 8
) -> SpikingNetwork:
    """A copy whose convolutions of spikes have weights of a few bits, chosen so that its sums stay as they were.

    The weights of an output channel are, once thresholds are folded into them, whole multiples of one number on the
    grid of :func:`spikingir.fold`, of magnitude below ``2^(weight_bits - 1)``. Biases change, thresholds do not. All
    images are held at once.

    Args:
        network: A network on the phased schedule.
        calibration_images: Degraded images like those that will be restored: a few dozen crops.
        weight_bits: Bits of a weight, its sign among them.

    Raises:
        InputError: Another schedule, ``weight_bits`` out of 2..16, convolutions that share weights.
        ConversionError: The images, see :func:`spikingir.convert`.
        FoldError: The network has no deployment form.
        TypeError: It is no spiking network.

    Shape:
        ``calibration_images``: (B, C, H, W), or pieces of that shape or (C, H, W).
    """
    require_spiking(network)
    if not network.config.phased:
        raise InputError(
            f"weights are rounded for the phased schedule; the network is {network.config.schedule}: give "
            "network.at(schedule='phased')"
        )
    if not 2 <= weight_bits <= 16:
        raise InputError(f"weight_bits is {weight_bits}; expected 2..16")
    weight = next(network.parameters())
    images = [batch.to(weight) for batch in image_batches(calibration_images, network.config.input_channels)]
    rounded = copy.deepcopy(network)
    rounding = _Rounding(rounded, weight_bits)
    fires = _fire(network), _fire(rounded)

    def visit(node: Node, inputs: list[list[Pair]], owned: bool) -> list[Pair]:
        read = list(zip(*inputs, strict=True)) or [()] * len(images)
        if node.name in rounding.nodes:
            rounding.round(node, [pair for (pair,) in read])
        found: list[Pair] = []
        graphs = network.graph, rounded.graph
        for pairs, image in zip(read, images, strict=True):
            values = []
            for i in range(2):
                wave = graphs[i].step(node, [Wave(None, pair[i]) for pair in pairs], False, image, fires[i])
                assert wave.constant is not None
                values.append(wave.constant)
            found.append((values[0], values[1]))
        if node.name in rounding.nodes:
            assert node.weights is not None
            shift = channel_means([exact - other for exact, other in found])
            bias = rounded.bias[node.weights] if node.weights in rounded.bias else torch.zeros_like(shift)
            rounded.bias[node.weights] = nn.Parameter(bias.detach() + shift)
            found = [(exact, other + shift.view(-1, 1, 1)) for exact, other in found]
        return found

    network.graph.walk(visit)
    return rounded


def _fire(network: SpikingNetwork) -> Fire:
    """What the neurons of a network do, but for the last, which nothing reads."""

    def fire(node: Node, current: Wave, owned: bool) -> Wave:
        assert current.constant is not None
        if node.name == network.nodes[-1].name:
            return current
        return Wave(None, network.neuron(node.name).quantise(current.constant, network.levels(node.name)))

    return fire


class _Rounding:
    """Rounds the convolutions of a network in place.

    Attributes:
        nodes: The convolutions of spikes, by name.
    """

    def __init__(self, network: SpikingNetwork, weight_bits: int) -> None:
        self.network = network
        self.most = 2 ** (weight_bits - 1) - 1
        ones = copy.deepcopy(network)
        for parameter in ones.weight.values():
            parameter.fill_(1)
        folded = fold(ones, grid=None, dtype=torch.float64)
        self.nodes = {
            node.name: node
            for node in network.nodes
            if node.weights is not None and not node.operation.pointwise and node.inputs[0] in folded.spiking
        }
        shared = Counter(node.weights for node in network.nodes)
        for node in self.nodes.values():
            if (count := shared[node.weights]) > 1:
                raise InputError(f"{count} operations share the weights '{node.weights}'; give each its own first")
        channels = {name: shape[0] for name, shape in network.graph.shapes().items()}
        neurons = network.graph.currents(channels)
        fed = {name: neurons.get(name, name) for name in self.nodes}
        largest: dict[str, Tensor] = {}
        factors: dict[str, Tensor] = {}  # that thresholds multiply weights by
        for name, node in self.nodes.items():
            kernel = folded.kernel(name)
            assert kernel is not None
            factors[name] = kernel.spike
            if (neuron := neurons.get(name)) is not None:  # which divides by its threshold what it reads
                gain = folded.levels.get(neuron, 1) / folded.threshold(neuron)
                gain = gain.repeat_interleave(channels[name] // len(gain))
                factors[name] = node.operation.scale_output(node, kernel.spike, gain)
            by_output = node.operation.by_output(node, self.weight(node) * factors[name])
            most = by_output.abs().reshape(channels[fed[name]], -1).amax(1)
            largest[fed[name]] = torch.maximum(most, largest.get(fed[name], most))
        self._scales = {}  # what weights are multiplied by to be whole
        for name, node in self.nodes.items():
            reached = largest[fed[name]]
            # as coarse as where rounding makes the largest weight larger
            grid = weight_grid(reached * (1 + 1 / self.most), torch.full_like(reached, 2.0**GRID_BITS))
            per_unit = grid / least_unit(reached * grid, weight_bits)
            spread = per_unit.repeat_interleave(channels[name] // len(per_unit))
            self._scales[name] = node.operation.scale_output(node, factors[name], spread)

    def weight(self, node: Node) -> Tensor:
        """The weights of a convolution."""
        assert node.weights is not None
        weight: Tensor = self.network.weight[node.weights]
        return weight

    def round(self, node: Node, inputs: Sequence[Pair]) -> None:
        """Round the weights of a convolution, which reads ``inputs``."""
        weight, scale = self.weight(node), self._scales[node.name]
        exact = weight.double()
        if node.op != "conv2d" or node.options["groups"] > 1:
            weight.copy_((exact * scale).round() / scale)
            return
        moments = _moments(node, weight, [rounded for _, rounded in inputs])
        ridge = _RIDGE * torch.diag(moments)
        ridge = ridge + _RIDGE * ridge.mean() + torch.finfo(ridge.dtype).tiny
        factor = torch.linalg.cholesky(moments + torch.diag(ridge))
        weight.copy_(_fed_back(exact.flatten(1), factor, scale.flatten(1), self.most).view_as(weight))


def _moments(node: Node, weight: Tensor, inputs: Sequence[Tensor]) -> Tensor:
    """``E[x x^T]`` of what one output of a convolution reads, less the means; float64.

    Of many positions some, evenly spread: no more are needed than a few for each weight.
    """
    count = weight[0].numel()
    there = sum(len(value) * value.shape[-2] * value.shape[-1] for value in inputs) / prod(node.options["stride"])
    # odd, so that all places of a pixel shuffle's squares are seen
    every = max(1, int((there / max(_POSITIONS * count, _FEWEST)) ** 0.5 - 1) // 2 * 2 + 1)
    sums = torch.zeros(count, count, dtype=torch.float64)
    means = torch.zeros(count, dtype=torch.float64)
    positions = 0
    for value in inputs:
        x = _windows(node, weight, value, every).double()
        positions += x.shape[1]
        sums += x @ x.T
        means += x.sum(1)
    means /= positions
    return sums / positions - torch.outer(means, means)


def _windows(node: Node, weight: Tensor, value: Tensor, every: int) -> Tensor:
    """What outputs of a convolution read, every so many rows and columns: (weights of an output channel, positions)."""
    o = node.options
    rows, columns = o["stride"]
    strides = (every * rows, every * columns)
    windows = functional.unfold(value, weight.shape[-2:], o["dilation"], o["padding"], strides)
    return windows.movedim(1, 0).flatten(1)


def _fed_back(target: Tensor, factor: Tensor, scale: Tensor, most: int) -> Tensor:
    """``target``, its columns rounded one after the other, the error of each made up for by those that follow.

    Args:
        target: Weights, (outputs, inputs), in float64.
        factor: Cholesky factor of the inputs' moments.
        scale: Weights are whole multiples of ``1 / scale``.
        most: Largest multiple.
    """
    inverse = torch.cholesky_inverse(factor)
    order = torch.diag(inverse).argsort()  # what others can least make up for comes first
    upper = torch.linalg.cholesky(inverse[order][:, order], upper=True)
    left, scale = target[:, order], scale[:, order]
    found = torch.empty_like(left)
    for start in range(0, len(order), _BLOCK):
        stop = min(start + _BLOCK, len(order))
        errors = torch.empty(len(left), stop - start, dtype=left.dtype)
        for i in range(start, stop):
            found[:, i] = (left[:, i] * scale[:, i]).round().clamp(-most, most) / scale[:, i]
            errors[:, i - start] = (left[:, i] - found[:, i]) / upper[i, i]
            left[:, i:stop] -= torch.outer(errors[:, i - start], upper[i, i:stop])
        left[:, stop:] -= errors @ upper[start:stop, stop:]
    return found[:, order.argsort()]
