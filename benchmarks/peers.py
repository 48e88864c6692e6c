"""A folded network's spikes in SpikingJelly and in snnTorch, by their own layers and neurons.

Both get the clocked schedule's steps 1..T with the folded weights, threshold 1 and the image's current computed once;
the extended step, the mapper and the output neuron are left out, in their favour, because neither has such neurons:
the last layer's mean current is their output. On the grid every sum is exact, so that they fire the very spikes that
the folded network fires, which :func:`expected` lets one check. Convolutions read channels last, the faster layout.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import snntorch
import torch
from spikingjelly.activation_based import functional, layer, neuron
from torch import Tensor, nn

from spikingir.deploy.folded import FoldedNetwork, Kernel
from spikingir.spiking.formation import form_image

StepMode = Literal["m", "s"]


@dataclass(frozen=True)
class _Layer:
    """A layer of the folded network; ``sources`` are positions of the layers it reads, none: the image."""

    name: str
    kernel: Kernel
    sources: tuple[int, ...]
    v0: float


class _Peer(nn.Module):
    """What the peers have in common: the image's current before, the restored image after."""

    def __init__(self, folded: FoldedNetwork) -> None:
        super().__init__()
        self.folded, self.layers = folded, _layers(folded)
        self.time_steps = folded.config.time_steps

    def image_current(self, image: Tensor) -> Tensor:
        """Current of the first layer, as the folded network computes it: in float64, then on the grid."""
        kernel = self.layers[0].kernel
        exact = self.folded.on_image_grid(image)
        padding = kernel.analog.shape[-1] // 2
        current = kernel.round(nn.functional.conv2d(exact, kernel.analog, kernel.bias, padding=padding))
        return current.float().contiguous(memory_format=torch.channels_last)

    def restored(self, image: Tensor, mean_current: Tensor) -> Tensor:
        """Restored image from the last layer's current."""
        output = mean_current * self.folded.theta.view(-1, 1, 1).float()
        signed = self.folded.clocks[self.layers[-1].name].signed
        return form_image(self.folded.config.formation, image, output if signed else output.relu()).to(image.dtype)


class SpikingJelly(_Peer):
    """SpikingJelly's multi-step (``m``) or single-step (``s``) mode; inference.

    Args:
        folded: A clocked network without delay, on a grid, of layers that read the image or spikes.
        mode: ``m`` gives each layer all steps at once, ``s`` gives each step to all layers.

    Shape:
        (B, C, H, W) to the same.

    Raises:
        ValueError: A network of another schedule.
    """

    def __init__(self, folded: FoldedNetwork, mode: StepMode) -> None:
        super().__init__(folded)
        self.mode = mode
        self.convolutions = nn.ModuleList(_fill(layer.Conv2d, one.kernel) for one in self.layers[1:])
        self.neurons = nn.ModuleList(neuron.IFNode(v_threshold=1.0, v_reset=None) for _ in self.layers[:-1])
        functional.set_step_mode(self, mode)
        self.eval()

    @torch.inference_mode()
    def forward(self, image: Tensor) -> Tensor:
        """Restored image, not clipped."""
        functional.reset_net(self)
        for node, one in zip(self.neurons, self.layers, strict=False):
            node.v = one.v0
        first = self.image_current(image)
        if self.mode == "m":
            mean = self._run(first.expand(self.time_steps, *first.shape), axis=2).mean(0)
        else:
            mean = torch.zeros(())
            for _ in range(self.time_steps):
                mean = mean + self._run(first, axis=1)
            mean = mean / self.time_steps
        return self.restored(image, mean)

    def _run(self, current: Tensor, axis: int) -> Tensor:
        spikes: list[Tensor] = []
        for one, convolution, node in zip(self.layers[1:], self.convolutions, self.neurons, strict=True):
            spikes.append(node(current))
            current = convolution(_read(spikes, one.sources, axis))
        return current


class SnnTorch(_Peer):
    """snnTorch's leaky neuron without leak, step by step; inference. Arguments and errors as :class:`SpikingJelly`."""

    def __init__(self, folded: FoldedNetwork) -> None:
        super().__init__(folded)
        self.convolutions = nn.ModuleList(_fill(nn.Conv2d, one.kernel) for one in self.layers[1:])
        self.neurons = nn.ModuleList(snntorch.Leaky(beta=1.0, threshold=1.0) for _ in self.layers[:-1])
        self.eval()

    @torch.inference_mode()
    def forward(self, image: Tensor) -> Tensor:
        """Restored image, not clipped."""
        first = self.image_current(image)
        membranes: list[Tensor] = [self._start(one, first) for one in self.layers[:-1]]
        total = torch.zeros(())
        for _ in range(self.time_steps):
            current, spikes = first, []
            for i, (convolution, node) in enumerate(zip(self.convolutions, self.neurons, strict=True)):
                fired, membranes[i] = node(current, membranes[i])
                spikes.append(fired)
                current = convolution(_read(spikes, self.layers[i + 1].sources, 1))
            total = total + current
        return self.restored(image, total / self.time_steps)

    def _start(self, one: _Layer, first: Tensor) -> Tensor:
        """Its neuron fires above the threshold, ours at it, too: half a step of the grid makes up for that."""
        assert one.kernel.grid is not None
        start = one.v0 + 0.5 / one.kernel.grid.float().view(1, -1, 1, 1)
        shape = (first.shape[0], start.shape[1], *first.shape[2:])
        return start.expand(shape).contiguous(memory_format=torch.channels_last)


@torch.inference_mode()
def expected(folded: FoldedNetwork, image: Tensor) -> Tensor:
    """What a peer has to give: the restored image from the spikes that the folded network fires at steps 1..T.

    Shape:
        (B, C, H, W) to the same.
    """
    peer = _Peer(folded)
    trains = [one.trains[: peer.time_steps].double() for one in folded.trace(image, trains=True)[1].layers]
    last = peer.layers[-1]
    mean = _read([train.mean(0) for train in trains], last.sources, 1)
    weight = last.kernel.spike.double()
    return peer.restored(image, nn.functional.conv2d(mean, weight, last.kernel.bias, padding=weight.shape[-1] // 2))


def _layers(folded: FoldedNetwork) -> list[_Layer]:
    if folded.config.schedule != "clocked":
        raise ValueError(f"the schedule is {folded.config.schedule!r}; the peers run clocked networks only")
    nodes = {node.name: node for node in folded.nodes}
    neurons = [node for node in folded.nodes if node.op == "neuron"]
    place = {node.name: i for i, node in enumerate(neurons)}
    layers = []
    for fires in neurons:
        convolution = nodes[fires.inputs[0]]
        kernel = folded.kernel(convolution.name)
        read = nodes[convolution.inputs[0]]
        names = read.inputs if read.op == "concat" else (read.name,)
        if convolution.op != "conv2d" or kernel is None or not {*names} <= {*place, folded.nodes[0].name}:
            raise ValueError("the peers run layers of one convolution each, on the image or on spikes")
        sources = tuple(place[name] for name in names if name in place)
        layers.append(_Layer(fires.name, kernel, sources, folded.clocks[fires.name].v0))
    if layers[0].sources or not all(one.sources for one in layers[1:]):
        raise ValueError("the peers run networks whose first layer alone reads the image")
    return layers


def _fill(kind: type[nn.Conv2d], kernel: Kernel) -> nn.Conv2d:
    outputs, inputs, side, _ = kernel.spike.shape
    convolution = kind(inputs, outputs, side, padding=side // 2, bias=kernel.bias is not None)
    with torch.no_grad():
        convolution.weight.copy_(kernel.spike)
        if kernel.bias is not None:
            assert convolution.bias is not None
            convolution.bias.copy_(kernel.bias)
    return convolution.to(memory_format=torch.channels_last)


def _read(spikes: Sequence[Tensor], sources: tuple[int, ...], axis: int) -> Tensor:
    return spikes[sources[0]] if len(sources) == 1 else torch.cat([spikes[i] for i in sources], axis)
