"""A folded network in the native engine: its layers in whole numbers, run one after the other on one image.

A number of output channel ``c`` is a multiple of ``2^-k_c``, so the engine computes with the multiples, in 32 bits.
The image's current comes from the first convolution in float64; every sum is exact, as it is with torch.
"""

import math
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spikingir.engine import _native
from spikingir.engine.plan import LayerPlan, plan_layers, widened
from spikingir.spiking.coding import spike_trains
from spikingir.spiking.folded import FoldedNetwork
from spikingir.spiking.formation import form_image
from spikingir.spiking.network import WHOLE, LayerTrace, Trace, Window


@dataclass(frozen=True)
class _Layer:
    """A layer of the engine: the layers that it reads, what turns the image into its current, its grid, ``2^k``."""

    name: str
    sources: tuple[str, ...]
    neurons: Any
    analog: Any
    grid: Tensor


@dataclass(frozen=True)
class _Fired:
    """What a layer did with one image: spikes on the engine's side, residual membranes where they were asked for."""

    name: str
    spikes: Any
    residual: Tensor | None


class NativeNetwork:
    """The layers of a folded network, made for the native engine.

    Args:
        network: The network. It is not kept: the methods are given it again.
        path: Instructions to use, one of ``_native.paths()``; the best ones unless given.

    Attributes:
        bytes_per_pixel: Bytes that restoring an image takes beside it, at its most.

    Raises:
        NotNativeError: The native engine cannot run the network.
    """

    def __init__(self, network: FoldedNetwork, path: str = "") -> None:
        plans = plan_layers(network)
        self._layers = [_make(network, plan, path) for plan in plans]
        self._border = max(plan.side for plan in plans) // 2
        self._last_reader = {name: i for i, plan in enumerate(plans) for name in plan.regular}
        self.bytes_per_pixel = max(self._bytes_alive(network))

    @torch.no_grad()
    def restore(self, network: FoldedNetwork, image: Tensor) -> Tensor:
        """What ``network(image)`` gives."""
        # the spikes of one layer at a time: a list would keep those of all
        runs = [deque(self._run(picture, every_residual=False), maxlen=1) for picture in network.on_image_grid(image)]
        return _restored(network, image, [run.pop() for run in runs])

    @torch.no_grad()
    def trace(self, network: FoldedNetwork, image: Tensor, *, trains: bool = False) -> tuple[Tensor, Trace]:
        """What ``network.trace(image, trains=trains)`` gives."""
        pictures = [list(self._run(picture, every_residual=True)) for picture in network.on_image_grid(image)]
        restored = _restored(network, image, [picture[-1] for picture in pictures])
        size = (image.shape[-2], image.shape[-1])
        layers = tuple(_layer_trace(network, fired, size, trains) for fired in zip(*pictures, strict=True))
        return restored, Trace(network.config.time_steps, network.config.schedule, size, layers)

    @torch.no_grad()
    def count(self, network: FoldedNetwork, image: Tensor, within: Mapping[str, Window]) -> tuple[Tensor, Trace]:
        """What ``network(image)`` gives, and the spikes in a window of each layer; nothing else of it is kept."""
        size = (image.shape[-2], image.shape[-1])
        counts: dict[str, list[Tensor]] = {layer.name: [] for layer in self._layers}
        last = []
        for picture in network.on_image_grid(image):
            for fired in self._run(picture, every_residual=False):
                counts[fired.name].append(_counts(network, fired, within[fired.name], size))
            last.append(fired)
        none = torch.empty(len(image), 0)
        layers = tuple(
            LayerTrace(name, torch.stack(found, 1), found[0].shape[1] * _pixels(within[name], size), none, None)
            for name, found in counts.items()
        )
        return _restored(network, image, last), Trace(network.config.time_steps, network.config.schedule, size, layers)

    def _bytes_alive(self, network: FoldedNetwork) -> Iterator[int]:
        """Bytes for each pixel, layer after layer."""
        alive: dict[str, int] = {}
        for i, layer in enumerate(self._layers):
            channels, clock = len(layer.grid), network.clocks[layer.name]
            words = math.ceil(channels / 32)
            alive[layer.name] = 64 * words if network.config.phased else 4 * words * clock.steps * (1 + clock.signed)
            current = 0 if layer.analog is None else 4 * 32 * words
            if layer is self._layers[-1]:  # the readout takes spikes in float64, and membranes
                current += channels * (9 * clock.steps + 64)
            yield sum(alive.values()) + current
            alive = {name: size for name, size in alive.items() if self._last_reader.get(name, -1) > i}

    def _run(self, picture: Tensor, *, every_residual: bool) -> Iterator[_Fired]:
        """The layers' spikes, layer after layer; those that nobody reads any more are dropped here."""
        height, width = picture.shape[-2:]
        threads = torch.get_num_threads()
        pixels = picture.contiguous().numpy()
        alive: dict[str, Any] = {}
        for i, layer in enumerate(self._layers):
            current = None if layer.analog is None else layer.analog.run(pixels, threads)
            sources = [alive[name] for name in layer.sources]
            wanted = every_residual or layer is self._layers[-1]
            spikes, residual = layer.neurons.fire(sources, current, height, width, self._border, threads, wanted)
            alive[layer.name] = spikes
            alive = {name: value for name, value in alive.items() if self._last_reader.get(name, -1) > i}
            del sources, current
            yield _Fired(layer.name, spikes, None if residual is None else _membranes(residual, layer.grid))


def _make(network: FoldedNetwork, plan: LayerPlan, path: str) -> _Layer:
    clock, grid, sources = network.clocks[plan.name], plan.grid, tuple(plan.regular)
    inputs = [weight.shape[1] for weight in plan.regular.values()]
    regular, extended = (_side_by_side(weights, plan) for weights in (plan.regular, plan.extended))
    bias = plan.bias * grid
    analog = None
    if plan.image is not None:
        weight, shift = plan.image.weight * grid.view(-1, 1, 1, 1), plan.image.bias * grid
        analog = _native.Analog(weight.contiguous().numpy(), shift.numpy(), _whole(bias), path)
    steps = _native.Clock(clock.time_steps, clock.delay, clock.extended, clock.signed)
    if network.config.phased:
        neurons: Any = _native.Phased(regular, inputs, _whole(bias), _whole(grid.log2()), steps, path)
        return _Layer(plan.name, sources, neurons, analog, grid)
    neurons = _native.Clocked(
        regular,
        extended,
        inputs,
        bias=_whole(bias),
        start=_whole(clock.v0 * grid),
        threshold=_whole(grid),
        level=_whole((clock.alpha * grid).ceil()),
        amplitude=_whole(network.beta(plan.name) * grid),
        clock=steps,
        path=path,
    )
    return _Layer(plan.name, sources, neurons, analog, grid)


def _side_by_side(weights: Mapping[str, Tensor], plan: LayerPlan) -> NDArray[np.int32]:
    """One kernel on all channels that a layer reads."""
    wide = [widened(weight, plan.side) for weight in weights.values()]
    joined = torch.cat(wide, 1) if wide else torch.zeros(len(plan.grid), 0, 1, 1)
    return _whole(joined.double() * plan.grid.view(-1, 1, 1, 1))


def _whole(x: Tensor) -> NDArray[np.int32]:
    return x.to(torch.int32).contiguous().numpy()


def _membranes(residual: Any, grid: Tensor) -> Tensor:
    """``v(end)`` in units of the threshold, (C, H, W)."""
    return torch.from_numpy(residual.array(len(grid))) / grid.float().view(-1, 1, 1)


def _spikes(network: FoldedNetwork, fired: _Fired) -> Tensor:
    """Spikes as the network's readout takes them, (S, C, H, W)."""
    spikes = torch.from_numpy(fired.spikes.array())
    return spikes[None] if network.config.phased else spikes


def _restored(network: FoldedNetwork, image: Tensor, last: list[_Fired]) -> Tensor:
    spikes = torch.stack([_spikes(network, fired) for fired in last], 1)
    residual = torch.stack([fired.residual for fired in last if fired.residual is not None])
    output = network.read(spikes, residual)
    return form_image(network.config.formation, image.double(), output).to(image.dtype)


def _pixels(window: Window, size: tuple[int, int]) -> int:
    return math.prod(len(range(length)[part]) for part, length in zip(window, size, strict=True))


def _counts(network: FoldedNetwork, fired: _Fired, window: Window, size: tuple[int, int]) -> Tensor:
    """Spikes in a window, (S, C)."""
    inside = [part.indices(length)[:2] for part, length in zip(window, size, strict=True)]
    steps = (network.config.time_steps,) if network.config.phased else ()
    return torch.from_numpy(fired.spikes.spikes(*steps, *inside))


def _layer_trace(network: FoldedNetwork, fired: tuple[_Fired, ...], size: tuple[int, int], trains: bool) -> LayerTrace:
    phased, steps = network.config.phased, network.config.time_steps
    residual = torch.stack([one.residual for one in fired if one.residual is not None]).to(network.dtype)
    counts = [_counts(network, one, WHOLE, size) for one in fired]
    kept = torch.stack([_spikes(network, one) for one in fired], 1) if trains else None
    if phased and kept is not None:
        kept = spike_trains(kept[0], "unary", steps)
    kept = None if kept is None else kept.to(torch.int8)
    return LayerTrace(fired[0].name, torch.stack(counts, 1), residual[0].numel(), residual, kept)
