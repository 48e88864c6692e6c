"""Weights on few bits, each rounded so that the errors of a sum cancel on what its inputs usually carry.

Rounded to the nearest, the weights of a sum leave it an error that has a mean, and errors of inputs that fire together
add up. Here layers are rounded in order, each on what the rounded ones before it give. With ``w`` the weights of one
output channel, ``x`` its inputs in the network as it was and ``x~`` in the rounded one, both less their means,

    H = E[x~ x~^T] + R,    t = (w E[x x~^T] + w R) H^-1,    R = r diag(E[x~ x~^T])

``t`` is what best makes up for the errors of earlier layers. Its entries are rounded one after the other, the error of
each made up for by those that are still free; the bias takes the mean that is left. The step of a channel, a power of
two, is the finest that its largest weight fits, or a finer one, on which that weight is cut off, if less error is left.

What comes out is a network whose weights need no further rounding: :func:`spikingir.fold` finds them on the grid.

Source:
    Frantar et al. 2023, "GPTQ" (error feedback); Nagel et al. 2019, "Data-Free Quantization" (bias correction).
"""

import copy
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from spikingir.conversion.calibrate import CalibrationImages, channel_means, image_batches
from spikingir.deploy.fold import GRID_BITS, WEIGHT_BITS, finest_step, fold
from spikingir.errors import InputError
from spikingir.graph.graph import Node, Wave
from spikingir.spiking.network import SpikingNetwork, require_spiking

_FINER = (1, 2, 4)
_RIDGE = 0.01
_POSITIONS = 16  # for each weight of an output channel
_FEWEST = 16_384
_BLOCK = 64

Pair = tuple[Tensor, Tensor]
"""A value in the network as it was, and in the rounded one."""


@torch.no_grad()
def round_weights(
    network: SpikingNetwork, calibration_images: CalibrationImages, *, weight_bits: int = WEIGHT_BITS
) -> SpikingNetwork:
    """A copy whose convolutions of spikes have weights of a few bits, chosen so that its sums stay as they were.

    The weights of an output channel are, once thresholds are folded into them, whole multiples of one power of two, of
    magnitude below ``2^(weight_bits - 1)``; biases change, thresholds do not. All images are held at once.

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
    graph, rounding = network.graph, _Rounding(rounded, weight_bits)
    last = network.nodes[-1].name

    def fire(node: Node, current: Wave, owned: bool) -> Wave:
        assert current.constant is not None
        neuron = network.neuron(node.name)
        return (
            current if node.name == last else Wave(None, neuron.quantise(current.constant, network.levels(node.name)))
        )

    def visit(node: Node, inputs: list[list[Pair]], owned: bool) -> list[Pair]:
        read = list(zip(*inputs, strict=True)) or [()] * len(images)
        if node.name in rounding.units:
            rounding.round(node, [pair for (pair,) in read])
        found: list[Pair] = []
        for pairs, image in zip(read, images, strict=True):
            values = []
            for i, side in enumerate((graph, rounded.graph)):
                wave = side.step(node, [Wave(None, pair[i]) for pair in pairs], False, image, fire)
                assert wave.constant is not None
                values.append(wave.constant)
            found.append((values[0], values[1]))
        if node.name in rounding.units:
            assert node.weights is not None
            shift = channel_means([exact - other for exact, other in found])
            bias = rounded.bias[node.weights] if node.weights in rounded.bias else torch.zeros_like(shift)
            rounded.bias[node.weights] = nn.Parameter(bias.detach() + shift)
            found = [(exact, other + shift.view(-1, 1, 1)) for exact, other in found]
        return found

    graph.walk(visit)
    return rounded


class _Rounding:
    """Rounds the convolutions of a network in place.

    Attributes:
        units: Of each convolution of spikes, what its weights are multiplied by when thresholds are folded into them.
    """

    def __init__(self, network: SpikingNetwork, weight_bits: int) -> None:
        self.network = network
        self.most = 2 ** (weight_bits - 1) - 1
        ones = copy.deepcopy(network)
        for parameter in ones.weight.values():
            parameter.fill_(1)
        folded = fold(ones, grid=None, dtype=torch.float64)
        nodes = [
            node
            for node in network.nodes
            if node.weights is not None and not node.operation.pointwise and node.inputs[0] in folded.spiking
        ]
        for name, count in Counter(node.weights for node in network.nodes if node.weights is not None).items():
            if count > 1 and any(node.weights == name for node in nodes):
                raise InputError(f"{count} operations share the weights '{name}'; give each weights of its own first")
        self.units: dict[str, Tensor] = {}
        channels = {name: shape[0] for name, shape in network.graph.shapes().items()}
        neurons = network.graph.currents(channels)
        self._sums = {node.name: neurons.get(node.name, node.name) for node in nodes}
        self._channels = channels
        self._parts = Counter(self._sums.values())
        largest: dict[str, Tensor] = {}
        for node in nodes:
            kernel = folded.kernel(node.name)
            assert kernel is not None
            self.units[node.name] = kernel.spike
            assert node.weights is not None
            by_output = node.operation.by_output(node, network.weight[node.weights].double() * kernel.spike)
            of_sum = by_output.abs().reshape(channels[self._sums[node.name]], -1).amax(1)
            name = self._sums[node.name]
            largest[name] = torch.maximum(largest[name], of_sum) if name in largest else of_sum
        self._step = {name: finest_step(each, weight_bits).clamp_max(2.0**GRID_BITS) for name, each in largest.items()}

    def round(self, node: Node, inputs: Sequence[Pair]) -> None:
        """Round the weights of a convolution, which reads ``inputs``."""
        assert node.weights is not None
        weight, name = self.network.weight[node.weights], self._sums[node.name]
        unit, operation, channels = self.units[node.name], node.operation, self._channels[node.name]
        by_output = operation.by_output(node, unit)
        spread = channels // len(self._step[name])
        step = self._step[name].repeat_interleave(spread)
        exact = weight.double()
        if node.op != "conv2d" or node.options["groups"] > 1:
            scale = operation.scale_output(node, unit, step)
            weight.copy_((exact * scale).round().clamp(-self.most, self.most) / scale)
            return
        moments, mixed = _moments(node, weight, inputs)
        ridge = _RIDGE * torch.diag(moments)
        ridge = ridge + _RIDGE * ridge.mean() + torch.finfo(ridge.dtype).tiny
        moments, mixed = moments + torch.diag(ridge), mixed + torch.diag(ridge)
        factor = torch.linalg.cholesky(moments)
        rows = exact.flatten(1)
        target = torch.cholesky_solve((rows @ mixed).T, factor).T
        best, least = rows, torch.full_like(step, torch.inf)
        for finer in _FINER if self._parts[name] == 1 else _FINER[:1]:
            scale = by_output * (step * finer).clamp_max(2.0**GRID_BITS).view(-1, 1)
            found = _fed_back(target, factor, scale, self.most)
            error = ((found - target) @ factor).square().sum(1).view(-1, spread).sum(1).repeat_interleave(spread)
            best = torch.where((error < least).view(-1, 1), found, best)
            least = torch.minimum(error, least)
        weight.copy_(best.view_as(weight))


def _moments(node: Node, weight: Tensor, inputs: Sequence[Pair]) -> tuple[Tensor, Tensor]:
    """``E[x~ x~^T]`` and ``E[x x~^T]`` of what one output of a convolution reads, less the means; float64.

    Of many positions some, evenly spread: no more are needed than a few for each weight.
    """
    count = weight[0].numel()
    wanted = max(_POSITIONS * count, _FEWEST) // len(inputs)
    sums = torch.zeros(2, count, count, dtype=torch.float64)
    means = torch.zeros(2, count, dtype=torch.float64)
    positions = 0
    for i, pair in enumerate(inputs):
        windows = [_windows(node, weight, value) for value in pair]
        every = max(1, windows[0].shape[1] // wanted)
        x, rounded = (window[:, i % every :: every].contiguous() for window in windows)
        positions += x.shape[1]
        sums += torch.stack([rounded @ rounded.T, x @ rounded.T]).double()
        means += torch.stack([rounded.double().sum(1), x.double().sum(1)])
    means /= positions
    of_rounded, mixed = sums / positions - means.unsqueeze(2) * means[0]
    return of_rounded, mixed


def _windows(node: Node, weight: Tensor, value: Tensor) -> Tensor:
    """What each output of a convolution reads, (weights of an output channel, positions)."""
    o = node.options
    windows = functional.unfold(value, weight.shape[-2:], o["dilation"], o["padding"], o["stride"])
    return windows.movedim(1, 0).flatten(1)


def _fed_back(target: Tensor, factor: Tensor, scale: Tensor, most: int) -> Tensor:
    """``target``, its columns rounded one after the other, the error of each made up for by those that follow.

    Args:
        target: Weights, (outputs, inputs).
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
