"""A folded network in the native engine: its layers in whole numbers, run one after the other on one image.

A number of output channel ``c`` is a multiple of ``2^-k_c``, so the engine computes with the multiples, in 32 bits.
Every sum is exact, as it is with torch. There are two kinds of layers: those of counts of one byte, on the phased
schedule, in :mod:`spikingir.deploy.integers`; and those of the clocked schedule, or of wider numbers, which keep the
image's size and get the image's current from a convolution in float64.
"""

import math
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from spikingir.deploy import _native
from spikingir.deploy.folded import FoldedNetwork
from spikingir.deploy.grids import largest_numbers
from spikingir.deploy.integers import (
    IntegerPlan,
    NetworkPlan,
    Size,
    Term,
    fits_pixels,
    image_wires,
    plan_integers,
)
from spikingir.deploy.plan import LARGEST_KERNEL, LayerPlan, NotNativeError, plan_layers, widened
from spikingir.spiking.coding import spike_trains
from spikingir.spiking.formation import form_image
from spikingir.spiking.network import WHOLE, LayerTrace, Trace, Window

_MOST_SUM = 2**31 - 1
_MOST_IMAGE_WEIGHT = 2**22 - 1
_MOST_DIGITS = 2  # with more, 16-bit weights are faster
_TRIAL_SIDE = 11_520  # a multiple of many strides


@dataclass(frozen=True)
class _Fired:
    """What a layer did with one image: spikes on the engine's side, residual membranes where they were asked for."""

    name: str
    size: Size
    spikes: Any
    residual: Tensor | None


class _Layers(Protocol):
    """The layers of a network.

    Attributes:
        names: Their names, in order.
        bytes_per_pixel: Bytes that an image takes on its way through them, at its most.
    """

    names: tuple[str, ...]
    bytes_per_pixel: float

    def takes(self, size: Size) -> bool:
        """Whether they run on images of a size."""

    def run(self, network: FoldedNetwork, picture: Tensor, *, every_residual: bool) -> Iterator[_Fired]:
        """The layers' spikes, layer after layer; those that nobody reads any more are dropped."""


class NativeNetwork:
    """The layers of a folded network, made for the native engine.

    Args:
        network: The network. It is not kept: the methods are given it again.
        path: Instructions to use, one of ``_native.paths()``; the best ones unless given.

    Attributes:
        path: The instructions that were asked for.
        bytes_per_pixel: Bytes that restoring an image takes beside it, at its most.

    Raises:
        NotNativeError: The native engine cannot run the network.
    """

    def __init__(self, network: FoldedNetwork, path: str = "") -> None:
        self.path = path
        if network.gridded:
            _require_short(network)
        self._layers = _layers(network, path)
        self.bytes_per_pixel = self._layers.bytes_per_pixel

    def takes(self, size: Size) -> bool:
        """Whether it runs on images of a height and width; torch runs on those that it does not."""
        return self._layers.takes(size)

    @torch.no_grad()
    def restore(self, network: FoldedNetwork, image: Tensor) -> Tensor:
        """What ``network(image)`` gives."""
        # the spikes of one layer at a time: a list would keep those of all
        runs = [
            deque(self._layers.run(network, picture, every_residual=False), maxlen=1)
            for picture in network.on_image_grid(image)
        ]
        return _restored(network, image, [run.pop() for run in runs])

    @torch.no_grad()
    def trace(self, network: FoldedNetwork, image: Tensor, *, trains: bool = False) -> tuple[Tensor, Trace]:
        """What ``network.trace(image, trains=trains)`` gives."""
        pictures = [
            list(self._layers.run(network, picture, every_residual=True)) for picture in network.on_image_grid(image)
        ]
        restored = _restored(network, image, [picture[-1] for picture in pictures])
        layers = tuple(_layer_trace(network, fired, trains) for fired in zip(*pictures, strict=True))
        return restored, _trace(network, image, layers)

    @torch.no_grad()
    def count(self, network: FoldedNetwork, image: Tensor, within: Mapping[str, Window]) -> tuple[Tensor, Trace]:
        """What ``network(image)`` gives, and the spikes in a window of each layer; nothing else of it is kept."""
        counts: dict[str, list[Tensor]] = {name: [] for name in self._layers.names}
        neurons: dict[str, int] = {}
        last = []
        for picture in network.on_image_grid(image):
            for fired in self._layers.run(network, picture, every_residual=False):
                counts[fired.name].append(_counts(network, fired, within[fired.name]))
                neurons[fired.name] = counts[fired.name][0].shape[1] * _pixels(within[fired.name], fired.size)
            last.append(fired)
        none = torch.empty(len(image), 0)
        layers = tuple(
            LayerTrace(name, torch.stack(found, 1), neurons[name], none, None) for name, found in counts.items()
        )
        return _restored(network, image, last), _trace(network, image, layers)


def _require_short(network: FoldedNetwork) -> None:
    """Refuse a network whose sums go beyond whole numbers of 32 bits."""
    for name, largest in largest_numbers(network).items():
        if largest > _MOST_SUM:
            raise NotNativeError(f"the sums of '{name}' may reach {largest:.3g}, and it has whole numbers of 32 bits")


def _layers(network: FoldedNetwork, path: str) -> _Layers:
    """The layers of the kind that runs the network, or runs it faster."""
    if not network.config.phased:
        return _SameSizeLayers(network, path)
    try:
        plan = plan_integers(network)
    except NotNativeError as error:
        try:
            return _SameSizeLayers(network, path)
        except NotNativeError:
            raise error from None
    if max(layer.digits for layer in plan.layers) > _MOST_DIGITS:
        try:
            return _SameSizeLayers(network, path)
        except NotNativeError:
            pass
    return _IntegerLayers(network, plan, path)


@dataclass(frozen=True)
class _IntegerLayer:
    """A layer of counts of one byte.

    Attributes:
        plan: Its plan.
        neurons: It, on the engine's side.
        in_pixels: Whether it can sum an image of 16 bits.
        analog: The image's current in float64, where the image takes more and the engine can.
        order: The sum, or -1 for none, that each channel of such a current is for.
        border: Zeros around its counts for those that read them.
    """

    plan: IntegerPlan
    neurons: Any
    in_pixels: bool
    analog: Any
    order: Tensor
    border: int


class _IntegerLayers:
    """Layers of counts of one byte, of any size."""

    def __init__(self, network: FoldedNetwork, plan: NetworkPlan, path: str) -> None:
        self._plan = plan
        borders: dict[str, int] = {}
        for layer in plan.layers:
            for term in (*layer.terms, *([] if layer.image is None else [layer.image])):
                borders[term.source] = max(borders.get(term.source, 0), term.border)
        self._borders = borders
        before = {layer.name: layer.levels for layer in plan.layers}
        self._layers = [
            _integer_layer(network, plan, layer, before, borders.get(layer.name, 0), path) for layer in plan.layers
        ]
        self.names = tuple(before)
        self._last_reader = {name: i for i, layer in enumerate(plan.layers) for name in layer.reads}
        self.bytes_per_pixel = self._bytes_alive(network)

    def run(self, network: FoldedNetwork, picture: Tensor, *, every_residual: bool) -> Iterator[_Fired]:
        """The layers' spikes, layer after layer; those that nobody reads any more are dropped."""
        threads = torch.get_num_threads()
        size = (picture.shape[-2], picture.shape[-1])
        images = image_wires(network, self._plan, picture[None])
        pixels: dict[str, Any] = {}
        alive: dict[str, Any] = {}
        for i, layer in enumerate(self._layers):
            plan = layer.plan
            height, width = (-(-side // plan.factor) for side in plan.size(size))
            image = current = None
            if plan.image is not None:
                source = plan.image.source
                if layer.in_pixels and source not in pixels:
                    pixels[source] = self._in_pixels(source, images[source][0])
                image = pixels.get(source)
                if image is None or not layer.in_pixels or image.most > layer.neurons.image_limit:
                    image, current = None, _current(layer, images[source], (height, width), threads)
            sources = [alive[term.source] for term in plan.terms]
            skips = [alive[name] for name, _ in plan.skips]
            wanted = every_residual or i == len(self._layers) - 1
            spikes, residual = layer.neurons.fire(
                sources, skips, image, current, height, width, layer.border, threads, wanted
            )
            alive[plan.name] = spikes
            alive = {name: value for name, value in alive.items() if self._last_reader.get(name, -1) > i}
            del sources, skips, current
            grid = plan.grid.view(-1, plan.factor**2)[:, 0]
            left = None if residual is None else _inside(_membranes(residual, grid), plan.size(size))
            yield _Fired(plan.name, plan.size(size), spikes, left)

    def takes(self, size: Size) -> bool:
        """Where padding and cropping of counts change nothing."""
        return self._plan.takes(size)

    def _in_pixels(self, name: str, wire: Tensor) -> Any:
        """A wire of the image in 16 bits."""
        return _native.Pixels(wire.contiguous().numpy(), self._plan.image_bits[name], self._borders[name])

    def _bytes_alive(self, network: FoldedNetwork) -> float:
        """Bytes for each pixel of the image, at the layer that takes most."""
        whole = _TRIAL_SIDE**2
        of_image = 8.0 * network.config.input_channels * (len(self._plan.image_nodes) + 2)
        alive: dict[str, float] = {}
        most = 0.0
        for i, layer in enumerate(self._layers):
            plan = layer.plan
            height, width = plan.size((_TRIAL_SIDE, _TRIAL_SIDE))
            share = height * width / whole
            alive[plan.name] = share * 16 * math.ceil(plan.channels / 16)
            current = 0.0 if plan.image is None or layer.in_pixels else share * 8 * (plan.channels + 32)
            if i == len(self._layers) - 1:  # the readout takes spikes and membranes in float64
                current += share * (6 * 16 * math.ceil(plan.channels / 16) + 80 * plan.channels)
            most = max(most, of_image + sum(alive.values()) + current)
            alive = {name: size for name, size in alive.items() if self._last_reader.get(name, -1) > i}
        return most


def _integer_layer(
    network: FoldedNetwork, plan: NetworkPlan, layer: IntegerPlan, levels: Mapping[str, int], border: int, path: str
) -> _IntegerLayer:
    clock, last = network.clocks[layer.name], layer.name == plan.layers[-1].name
    sources = [
        (_whole(layer.whole(term.weight)), term.stride, term.padding, levels[term.source]) for term in layer.terms
    ]
    grid = layer.grid.view(-1, layer.factor**2)[:, 0]
    skips = [_whole(scale * grid) for _, scale in layer.skips]
    image: Any = None
    in_pixels = fits_pixels(plan, layer)
    bias = layer.whole(layer.bias)
    if layer.image is not None:
        weights, shift = layer.whole(layer.image.weight), layer.whole(layer.image_bias)
        in_pixels = in_pixels and bool(weights.abs().max() <= _MOST_IMAGE_WEIGHT)
        if in_pixels:
            bits = plan.image_bits[layer.image.source]
            image = (_whole(weights), layer.image.stride, layer.image.padding, bits, _whole(shift))
    neurons = _native.Integer(
        channels=layer.channels,
        factor=layer.factor,
        steps=layer.levels,
        signed=clock.signed,
        last=last,
        sources=sources,
        skips=skips,
        image=image,
        bias=_whole(bias),
        exponent=_whole(layer.grid.log2()),
        path=path,
    )
    order = torch.tensor(neurons.current_order)
    analog = None
    if layer.image is not None and _keeps_size(layer.image):
        # in the order of the layer's blocks, which are filled up with sums of nothing
        known = (order >= 0).double()
        weights = weights[order.clamp_min(0)] * known.view(-1, 1, 1, 1)
        shift = shift[order.clamp_min(0)] * known
        none = np.zeros(len(order), np.int32)
        analog = _native.Analog(weights.contiguous().numpy(), shift.numpy(), none, path)
    return _IntegerLayer(layer, neurons, in_pixels, analog, order, border)


def _keeps_size(term: Term) -> bool:
    side = term.weight.shape[-1]
    return term.stride == 1 and side <= LARGEST_KERNEL and 2 * term.padding == side - 1


def _current(layer: _IntegerLayer, wire: Tensor, size: Size, threads: int) -> Any:
    """The image's current in float64, where 16 bits do not hold the image."""
    if layer.analog is not None and wire.shape[-2:] == size:
        return layer.analog.run(wire[0].contiguous().numpy(), threads)
    plan, term = layer.plan, layer.plan.image
    assert term is not None
    height, width = ((side - 1) * term.stride + term.weight.shape[-1] for side in size)
    after = (height - term.padding - wire.shape[-2], width - term.padding - wire.shape[-1])
    reach = functional.pad(wire, (term.padding, after[1], term.padding, after[0]))
    sums = functional.conv2d(reach, term.weight, plan.image_bias, term.stride)[0]
    whole = (sums * plan.grid.view(-1, 1, 1)).round().to(torch.int32)
    known = (layer.order >= 0).view(-1, 1, 1)
    return _native.Current((whole[layer.order.clamp_min(0)] * known).contiguous().numpy())


@dataclass(frozen=True)
class _Layer:
    """A layer of the engine: the layers that it reads, what turns the image into its current, its grid, ``2^k``."""

    name: str
    sources: tuple[str, ...]
    neurons: Any
    analog: Any
    grid: Tensor


class _SameSizeLayers:
    """Layers that keep the image's size, on any schedule."""

    def __init__(self, network: FoldedNetwork, path: str) -> None:
        plans = plan_layers(network)
        self._layers = [_make(network, plan, path) for plan in plans]
        self.names = tuple(plan.name for plan in plans)
        self._border = max(plan.side for plan in plans) // 2
        self._last_reader = {name: i for i, plan in enumerate(plans) for name in plan.regular}
        self.bytes_per_pixel = float(max(self._bytes_alive(network)))

    def takes(self, size: Size) -> bool:
        """Any size."""
        return True

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

    def run(self, network: FoldedNetwork, picture: Tensor, *, every_residual: bool) -> Iterator[_Fired]:
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
            membranes = None if residual is None else _membranes(residual, layer.grid)
            yield _Fired(layer.name, (height, width), spikes, membranes)


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
    return torch.from_numpy(residual.array(len(grid))) / grid.double().view(-1, 1, 1)


def _spikes(network: FoldedNetwork, fired: _Fired) -> Tensor:
    """Spikes as the network's readout takes them, (S, C, H, W)."""
    spikes = _inside(torch.from_numpy(fired.spikes.array()), fired.size)
    return spikes[None] if network.config.phased else spikes


def _inside(pixels: Tensor, size: Size) -> Tensor:
    """Pixels of a layer without those that only fill its last windows."""
    return pixels[..., : size[0], : size[1]]


def _restored(network: FoldedNetwork, image: Tensor, last: list[_Fired]) -> Tensor:
    spikes = torch.stack([_spikes(network, fired) for fired in last], 1)
    residual = torch.stack([fired.residual for fired in last if fired.residual is not None])
    output = network.read(spikes, residual)
    return form_image(network.config.formation, network.config.formed_from(image).double(), output).to(image.dtype)


def _trace(network: FoldedNetwork, image: Tensor, layers: tuple[LayerTrace, ...]) -> Trace:
    size = (image.shape[-2], image.shape[-1])
    return Trace(network.config.time_steps, network.config.schedule, size, layers)


def _pixels(window: Window, size: Size) -> int:
    return math.prod(len(range(length)[part]) for part, length in zip(window, size, strict=True))


def _counts(network: FoldedNetwork, fired: _Fired, window: Window) -> Tensor:
    """Spikes in a window, (S, C)."""
    inside = [part.indices(length)[:2] for part, length in zip(window, fired.size, strict=True)]
    if not network.config.phased:
        return torch.from_numpy(fired.spikes.spikes(*inside))
    # how many neurons have each number of spikes, and at which steps such a neuron fires
    neurons = torch.from_numpy(fired.spikes.histogram(*inside))
    numbers = torch.arange(len(neurons)).view(1, -1, 1, 1)
    fires = spike_trains(numbers, network.config.coding, network.config.time_steps)[:, 0, :, 0, 0]
    return fires @ neurons


def _layer_trace(network: FoldedNetwork, fired: tuple[_Fired, ...], trains: bool) -> LayerTrace:
    config = network.config
    residual = torch.stack([one.residual for one in fired if one.residual is not None]).to(
        network.dtype_of(fired[0].name)
    )
    counts = [_counts(network, one, WHOLE) for one in fired]
    kept = torch.stack([_spikes(network, one) for one in fired], 1) if trains else None
    if config.phased and kept is not None:
        kept = spike_trains(kept[0].to(torch.int16), config.coding, config.time_steps)
    kept = None if kept is None else kept.to(torch.int8)
    return LayerTrace(fired[0].name, torch.stack(counts, 1), residual[0].numel(), residual, kept)
