"""A folded network in the native engine: its layers in whole numbers, run one after the other on one image.

A number of output channel ``c`` is a multiple of ``2^-k_c``, so the engine computes with the multiples, in 32 bits.
Every sum is exact, as it is with torch. All layers are planned alike (:mod:`spikingir.deploy.integers`). They are of
three kinds: on the clocked schedule, trains of spikes, step after step; on the phased one, counts of one byte; and
counts of 16 bits with wider weights, for layers that keep the image's size.
"""

import hashlib
import math
import sys
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from spikingir.deploy import _native
from spikingir.deploy.folded import FoldedNetwork
from spikingir.deploy.grids import largest_numbers
from spikingir.deploy.integers import (
    MOST_COUNT,
    LayerPlan,
    NetworkPlan,
    NotNativeError,
    Size,
    fits_pixels,
    image_wires,
    plan_layers,
)
from spikingir.spiking.coding import spike_trains
from spikingir.spiking.formation import SEES_WHOLE, form_image
from spikingir.spiking.network import WHOLE, LayerTrace, Trace, Window

_MOST_SUM = 2**31 - 1
_MOST_IMAGE_WEIGHT = 2**22 - 1
_MOST_STEPS = 2**15 - 1
_MOST_DIGITS = 2  # with more, 16-bit weights are faster
_LARGEST_KERNEL = 7  # of layers that keep the image's size
_FORMED_PIXELS = 2**16  # at a time
_TRIAL_SIDE = 11_520  # a multiple of many strides

_CHECKOUT = Path(__file__).parents[3]


@cache
def require_current(checkout: Path = _CHECKOUT) -> None:
    """Refuse an extension that was built of other sources than those of the checkout that the package runs from.

    An installed package has no sources beside it: there the two came together.

    Args:
        checkout: Folder of the checkout.

    Raises:
        NotNativeError: It is stale; the text says how to rebuild it.
    """
    if not (checkout / "native/module.cpp").is_file():
        return
    files = [path for path in (checkout / "native").iterdir() if path.suffix in (".cpp", ".hpp")]
    lines = "".join(
        f"{hashlib.sha256(path.read_bytes()).hexdigest()} {path.name}\n"
        for path in (*sorted(files), checkout / "CMakeLists.txt")
    )
    # one that is older than this check has no such name
    if getattr(_native, "sources", None) != hashlib.sha256(lines.encode()).hexdigest():
        raise NotNativeError(
            f"its extension {_native.__file__} is stale, built from other sources than {checkout / 'native'}; "
            f"rebuild it by `{sys.executable} -m pip install --no-deps --editable {checkout}`"
        )


@dataclass(frozen=True)
class _Fired:
    """What a layer did with one image, on the engine's side: residual membranes are there where they were asked for."""

    plan: LayerPlan
    size: Size
    spikes: Any
    residual: Any

    @property
    def name(self) -> str:
        return self.plan.name

    def membranes(self) -> Tensor:
        """``v(end)`` in units of the threshold, (C, H, W)."""
        grid = self.plan.grid_by_channel
        whole = torch.from_numpy(self.residual.array(len(grid)))
        return _inside(whole / grid.double().view(-1, 1, 1), self.size)


class NativeNetwork:
    """The layers of a folded network, made for the native engine.

    Args:
        network: The network. It is not kept: the methods are given it again.
        path: Instructions to use, one of ``_native.paths()``; the best ones unless given.

    Attributes:
        path: The instructions that were asked for.
        bytes_per_pixel: Bytes that restoring an image takes beside it, at its most.

    Raises:
        NotNativeError: The native engine cannot run the network, or was built from other sources than those that
            are there.
    """

    def __init__(self, network: FoldedNetwork, path: str = "") -> None:
        require_current()
        self.path = path
        if network.gridded:
            _require_short(network)
        self._layers = _Layers(network, path)
        self.bytes_per_pixel = self._layers.bytes_per_pixel

    def takes(self, size: Size) -> bool:
        """Whether it runs on images of a height and width; torch runs on those that it does not."""
        return self._layers.takes(size)

    @torch.no_grad()
    def restore(self, network: FoldedNetwork, image: Tensor) -> Tensor:
        """What ``network(image)`` gives."""
        # the spikes of one layer at a time: a list would keep those of all
        runs = [deque(self._layers.run(network, one, every_residual=False), maxlen=1) for one in image[:, None]]
        return _restored(network, image, [run.pop() for run in runs])

    @torch.no_grad()
    def trace(self, network: FoldedNetwork, image: Tensor, *, trains: bool = False) -> tuple[Tensor, Trace]:
        """What ``network.trace(image, trains=trains)`` gives."""
        pictures = [list(self._layers.run(network, one, every_residual=True)) for one in image[:, None]]
        restored = _restored(network, image, [picture[-1] for picture in pictures])
        layers = tuple(_layer_trace(network, fired, trains) for fired in zip(*pictures, strict=True))
        return restored, _trace(network, image, layers)

    @torch.no_grad()
    def count(self, network: FoldedNetwork, image: Tensor, within: Mapping[str, Window]) -> tuple[Tensor, Trace]:
        """What ``network(image)`` gives, and the spikes in a window of each layer; nothing else of it is kept."""
        counts: dict[str, list[Tensor]] = {name: [] for name in self._layers.names}
        neurons: dict[str, int] = {}
        last = []
        for one in image[:, None]:
            for fired in self._layers.run(network, one, every_residual=False):
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


class _ImageCurrent:
    """The current that the image causes, rounded to the grid once, for sums that take it in some order.

    Args:
        plan: The layer.
        order: The sum, or -1 for none, that each of the engine's channels is for.
        after: Added to what is rounded, by sum, in whole numbers.
        path: Instructions to use.
    """

    def __init__(self, plan: LayerPlan, order: Sequence[int], after: Tensor, path: str) -> None:
        assert plan.image is not None
        self._plan, self._term = plan, plan.image
        self._order = torch.tensor(order).clamp_min(0)
        self._known = torch.tensor(order) >= 0
        self._after = after
        self._analog: Any = None
        side = self._term.weight.shape[-1]
        if self._term.stride == 1 and 2 * self._term.padding == side - 1 and side <= _LARGEST_KERNEL:
            weights = self._in_order(plan.whole(self._term.weight))
            shift = self._in_order(plan.whole(plan.image_bias))
            self._analog = _native.Analog(
                weights.contiguous().numpy(), shift.numpy(), _whole(self._in_order(after)), path
            )

    @property
    def bytes_per_sum(self) -> float:
        """Bytes that it takes for each pixel of sums."""
        return (4.0 if self._analog is not None else 20.0) * len(self._order)

    def run(self, wire: Tensor, size: Size, threads: int) -> Any:
        """The current of a wire of the image, (1, C, H, W), on the engine's side."""
        if self._analog is not None and wire.shape[-2:] == size:
            return self._analog.run(wire[0].contiguous().numpy(), threads)
        term = self._term
        height, width = ((side - 1) * term.stride + term.weight.shape[-1] for side in size)
        after = (height - term.padding - wire.shape[-2], width - term.padding - wire.shape[-1])
        reach = functional.pad(wire, (term.padding, after[1], term.padding, after[0]))
        sums = functional.conv2d(reach, term.weight, self._plan.image_bias, term.stride)[0]
        whole = self._plan.whole(sums).round() + self._after.view(-1, 1, 1)
        return _native.Current(_whole(self._in_order(whole)))

    def _in_order(self, of_sums: Tensor) -> Tensor:
        return of_sums[self._order] * self._known.view(-1, *(1 for _ in of_sums.shape[1:]))


class _Layer:
    """One layer on the engine's side.

    Attributes:
        plan: Its plan.
        border: Zeros around its spikes for those that read them.
        reads_pixels: Whether it can sum an image of 16 bits.
        current: The image's current in float64, if it reads the image.
        bytes_per_pixel: Bytes of its spikes for each of its pixels.
        bytes_of_sums: Bytes of its counts and residual membranes, where it is the last one.
    """

    plan: LayerPlan
    border: int
    reads_pixels: bool = False
    current: _ImageCurrent | None
    bytes_per_pixel: float
    _neurons: Any

    @property
    def bytes_of_sums(self) -> float:
        """See above."""
        return 6.0 * 32 * math.ceil(self.plan.channels / 32)

    def takes_pixels(self, pixels: Any) -> bool:
        """Whether it can sum an image of 16 bits."""
        return self.reads_pixels and bool(self._neurons.takes(pixels))

    def fire(
        self, spikes: Mapping[str, Any], pixels: Any, current: Any, size: Size, threads: int, residual: bool
    ) -> tuple[Any, Any]:
        """Spikes, and residual membranes if asked for, from those of others and the image."""
        raise NotImplementedError


class _ByteLayer(_Layer):
    """A layer on the phased schedule whose counts take one byte."""

    def __init__(self, network: FoldedNetwork, plan: NetworkPlan, at: int, border: int, path: str) -> None:
        layer = plan.layers[at]
        self.plan, self.border = layer, border
        clock, last = network.clocks[layer.name], at == len(plan.layers) - 1
        if clock.signed and not last:
            raise NotNativeError(f"'{layer.name}' fires -1 before the last layer")
        if layer.levels > (_MOST_STEPS if last else MOST_COUNT):
            raise NotNativeError(f"'{layer.name}' has {layer.levels} levels, more than {MOST_COUNT}")
        levels = {before.name: before.levels for before in plan.layers}
        sources = [
            (_whole(layer.whole(term.weight)), term.stride, term.padding, levels[term.source]) for term in layer.terms
        ]
        image: Any = None
        if layer.image is not None and fits_pixels(plan, layer):
            weights, shift = layer.whole(layer.image.weight), layer.whole(layer.image_bias)
            self.reads_pixels = bool(weights.abs().max() <= _MOST_IMAGE_WEIGHT)
            if self.reads_pixels:
                image = (_whole(weights), layer.image.stride, layer.image.padding, _whole(shift))
        self._neurons = _make(
            _native.Integer,
            layer.name,
            channels=layer.channels,
            factor=layer.factor,
            steps=layer.levels,
            signed=clock.signed,
            last=last,
            sources=sources,
            skips=[_whole(scale * layer.grid_by_channel) for _, scale in layer.skips],
            image=image,
            bias=_whole(layer.whole(layer.bias)),
            exponent=_whole(layer.grid.log2()),
            path=path,
        )
        order = self._neurons.current_order
        none = torch.zeros_like(layer.grid)  # the bias is the neurons' own
        self.current = None if layer.image is None else _ImageCurrent(layer, order, none, path)
        self.bytes_per_pixel = 0.0 if last else 16.0 * math.ceil(layer.channels / 16)

    @property
    def bytes_of_sums(self) -> float:
        """See above: it does not fill them up to whole vectors."""
        return 6.0 * self.plan.channels

    def fire(
        self, spikes: Mapping[str, Any], pixels: Any, current: Any, size: Size, threads: int, residual: bool
    ) -> tuple[Any, Any]:
        sources, skips = _read(self.plan, spikes)
        fired: tuple[Any, Any] = self._neurons.fire(
            sources, skips, pixels, current, *size, self.border, threads, residual
        )
        return fired


class _WideLayer(_Layer):
    """A layer on the phased schedule that keeps the image's size, with counts of 16 bits and wider weights."""

    def __init__(self, network: FoldedNetwork, plan: NetworkPlan, at: int, border: int, path: str) -> None:
        layer = plan.layers[at]
        self.plan, self.border = layer, border
        if layer.levels > _MOST_STEPS:
            raise NotNativeError(f"'{layer.name}' has {layer.levels} levels, more than {_MOST_STEPS}")
        terms = layer.without_skips().terms
        side = max((term.weight.shape[-1] for term in terms), default=1)
        if layer.cropped or layer.factor > 1 or side > _LARGEST_KERNEL or not all(term.keeps_size for term in terms):
            raise NotNativeError(f"'{layer.name}' does not keep the image's size")
        kernels: dict[str, Tensor] = {}
        for term in terms:
            around = (side - term.weight.shape[-1]) // 2
            weight = functional.pad(layer.whole(term.weight), (around,) * 4)
            kernels[term.source] = kernels.get(term.source, 0) + weight
        self._sources = tuple(kernels)
        joined = torch.cat(list(kernels.values()), 1) if kernels else torch.zeros(layer.channels, 0, 1, 1)
        bias, clock = layer.whole(layer.bias), network.clocks[layer.name]
        self._neurons = _make(
            _native.Phased,
            layer.name,
            weights=_whole(joined),
            channels=[weight.shape[1] for weight in kernels.values()],
            bias=_whole(bias),
            exponent=_whole(layer.grid.log2()),
            clock=_native.Clock(layer.levels, layer.levels - 1, False, clock.signed),
            path=path,
        )
        filled_up = 32 * math.ceil(layer.channels / 32)
        order = [*range(layer.channels), *[-1] * (filled_up - layer.channels)]
        self.current = None if layer.image is None else _ImageCurrent(layer, order, bias, path)
        self.bytes_per_pixel = 2.0 * filled_up

    def fire(
        self, spikes: Mapping[str, Any], pixels: Any, current: Any, size: Size, threads: int, residual: bool
    ) -> tuple[Any, Any]:
        sources = [spikes[name] for name in self._sources]
        fired: tuple[Any, Any] = self._neurons.fire(sources, current, *size, self.border, threads, residual)
        return fired


class _TrainLayer(_Layer):
    """A layer on the clocked schedule."""

    def __init__(
        self, network: FoldedNetwork, plan: NetworkPlan, extended: NetworkPlan, at: int, border: int, path: str
    ) -> None:
        layer, at_last = plan.layers[at], extended.layers[at]
        self.plan, self.border = layer, border
        clock = network.clocks[layer.name]
        if clock.time_steps > _MOST_STEPS:
            raise NotNativeError(f"{clock.time_steps} time steps are more than {_MOST_STEPS}")
        if clock.signed and at < len(plan.layers) - 1:
            raise NotNativeError(f"'{layer.name}' fires -1 before the last layer")
        grid, bias = layer.grid_by_channel, layer.whole(layer.bias)
        sources = [
            (_whole(layer.whole(term.weight)), _whole(layer.whole(last.weight)), term.stride, term.padding)
            for term, last in zip(layer.terms, at_last.terms, strict=True)
        ]
        skips = [
            (_whole(scale * grid), _whole(last * grid))
            for (_, scale), (_, last) in zip(layer.skips, at_last.skips, strict=True)
        ]
        self._neurons = _make(
            _native.Clocked,
            layer.name,
            channels=layer.channels,
            factor=layer.factor,
            sources=sources,
            skips=skips,
            bias=_whole(bias),
            start=_whole(clock.v0 * grid),
            threshold=_whole(grid),
            level=_whole((clock.alpha * grid).ceil()),
            amplitude=_whole(network.beta(layer.name) * grid),
            clock=_native.Clock(clock.time_steps, clock.delay, clock.extended, clock.signed),
            path=path,
        )
        order = self._neurons.current_order
        self.current = None if layer.image is None else _ImageCurrent(layer, order, bias, path)
        self.bytes_per_pixel = 4.0 * math.ceil(layer.channels / 32) * clock.steps * (1 + clock.signed)

    def fire(
        self, spikes: Mapping[str, Any], pixels: Any, current: Any, size: Size, threads: int, residual: bool
    ) -> tuple[Any, Any]:
        sources, skips = _read(self.plan, spikes)
        fired: tuple[Any, Any] = self._neurons.fire(sources, skips, current, *size, self.border, threads, residual)
        return fired


def _make(kind: Any, name: str, **arguments: Any) -> Any:
    """A layer on the engine's side, or a sentence on why it has no room for its numbers."""
    try:
        return kind(**arguments)
    except ValueError as error:
        raise NotNativeError(f"'{name}': {error}") from None


def _read(plan: LayerPlan, spikes: Mapping[str, Any]) -> tuple[list[Any], list[Any]]:
    return [spikes[term.source] for term in plan.terms], [spikes[name] for name, _ in plan.skips]


def _make_layers(network: FoldedNetwork, plan: NetworkPlan, borders: Mapping[str, int], path: str) -> list[_Layer]:
    """The layers, of the kind that runs them, or runs them faster."""
    every = [(at, borders.get(layer.name, 0)) for at, layer in enumerate(plan.layers)]
    if not network.config.phased:
        if len({clock.extended for clock in network.clocks.values()}) > 1:
            raise NotNativeError("only some of its layers have an extended step")
        extended = plan_layers(network, extended=True)
        return [_TrainLayer(network, plan, extended, at, border, path) for at, border in every]

    def wide() -> list[_Layer]:
        # a layer's kernels all have the side of its largest
        sides = [term.weight.shape[-1] for layer in plan.layers for term in layer.terms]
        return [_WideLayer(network, plan, at, max(sides, default=1) // 2, path) for at, _ in every]

    if max(layer.digits for layer in plan.layers) > _MOST_DIGITS:
        try:
            return wide()
        except NotNativeError:
            pass
    try:
        return [_ByteLayer(network, plan, at, border, path) for at, border in every]
    except NotNativeError as error:
        try:
            return wide()
        except NotNativeError:
            raise error from None


class _Layers:
    """The layers of a network.

    Attributes:
        names: Their names, in order.
        bytes_per_pixel: Bytes that an image takes on its way through them, at its most.
    """

    def __init__(self, network: FoldedNetwork, path: str) -> None:
        self._plan = plan = plan_layers(network)
        borders: dict[str, int] = {}
        for layer in plan.layers:
            for term in (*layer.terms, *([] if layer.image is None else [layer.image])):
                borders[term.source] = max(borders.get(term.source, 0), term.border)
        self._borders = borders
        self.layers = _make_layers(network, plan, borders, path)
        self.names = tuple(layer.name for layer in plan.layers)
        self._last_reader = {name: i for i, layer in enumerate(plan.layers) for name in layer.reads}
        self.bytes_per_pixel = self._bytes_alive(network)

    def run(self, network: FoldedNetwork, image: Tensor, *, every_residual: bool) -> Iterator[_Fired]:
        """The layers' spikes on one image, layer after layer; those that nobody reads any more are dropped."""
        threads = torch.get_num_threads()
        size = (image.shape[-2], image.shape[-1])
        images, pixels = self._of_image(network, image)
        alive: dict[str, Any] = {}
        for i, layer in enumerate(self.layers):
            plan = layer.plan
            height, width = (-(-side // plan.factor) for side in plan.size(size))
            seen = current = None
            if layer.current is not None and plan.image is not None:
                seen = pixels.get(plan.image.source)
                if not layer.takes_pixels(seen):
                    seen, current = None, layer.current.run(images[plan.image.source], (height, width), threads)
            wanted = every_residual or i == len(self.layers) - 1
            spikes, residual = layer.fire(alive, seen, current, (height, width), threads, wanted)
            alive[plan.name] = spikes
            alive = {name: value for name, value in alive.items() if self._last_reader.get(name, -1) > i}
            del current
            yield _Fired(plan, plan.size(size), spikes, residual)

    def _of_image(self, network: FoldedNetwork, image: Tensor) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The wires of an image in float64, without those that are needed in 16 bits alone, and these."""
        images = image_wires(network, self._plan, network.on_image_grid(image))
        readers = [(layer, layer.plan.image.source) for layer in self.layers if layer.plan.image is not None]
        short = {name for layer, name in readers if layer.reads_pixels}
        pixels = {name: self._in_pixels(name, images[name][0]) for name in short}
        needed = {name for layer, name in readers if not layer.takes_pixels(pixels.get(name))}
        return {name: wire for name, wire in images.items() if name in needed}, pixels

    def takes(self, size: Size) -> bool:
        """Whether they run on images of a size: where padding and cropping of spikes change nothing."""
        return self._plan.takes(size)

    def _in_pixels(self, name: str, wire: Tensor) -> Any:
        """A wire of the image in 16 bits."""
        return _native.Pixels(wire.contiguous().numpy(), self._plan.image_bits[name], self._borders[name])

    def _bytes_alive(self, network: FoldedNetwork) -> float:
        """Bytes for each pixel of the image, at the layer that takes most."""
        whole = _TRIAL_SIDE**2
        shapes = network.graph.shapes((_TRIAL_SIDE, _TRIAL_SIDE))
        wires = {node.name: 8.0 * math.prod(shapes[node.name]) / whole for node in self._plan.image_nodes}
        read = sum(wires[name] for name in {layer.plan.image.source for layer in self.layers if layer.plan.image})
        # in float64: the image, those that layers read, and one that is being made of another
        most = of_image = 8.0 * network.config.input_channels + read + 2 * max(wires.values(), default=0.0)
        if all(layer.current is None or layer.reads_pixels for layer in self.layers):
            of_image = read  # in 16 bits, filled up to whole vectors; the float64 ones are gone
        alive: dict[str, float] = {}
        for i, layer in enumerate(self.layers):
            plan = layer.plan
            height, width = plan.size((_TRIAL_SIDE, _TRIAL_SIDE))
            share = height * width / whole
            alive[plan.name] = share * layer.bytes_per_pixel
            current = 0.0
            if layer.current is not None and not layer.reads_pixels:
                current = share / plan.factor**2 * layer.current.bytes_per_sum
            if i == len(self.layers) - 1:  # counts and membranes, which are read out in float64 and formed in float32
                current += share * (layer.bytes_of_sums + 20 * plan.channels)
            most = max(most, of_image + sum(alive.values()) + current)
            alive = {name: size for name, size in alive.items() if self._last_reader.get(name, -1) > i}
        return most


def _whole(x: Tensor) -> NDArray[np.int32]:
    return x.to(torch.int32).contiguous().numpy()


def _spikes(network: FoldedNetwork, fired: _Fired) -> Tensor:
    """Spikes as a trace has them, (S, C, H, W)."""
    spikes = _inside(torch.from_numpy(fired.spikes.array()), fired.size)
    return spikes[None] if network.config.phased else spikes


def _inside(pixels: Tensor, size: Size) -> Tensor:
    """Pixels of a layer without those that only fill its last windows."""
    return pixels[..., : size[0], : size[1]]


def _restored(network: FoldedNetwork, image: Tensor, last: list[_Fired]) -> Tensor:
    """The image that the last layer's spikes make; formed in float64, a few rows at a time where that can be done."""
    config, height = network.config, image.shape[-2]
    given, restored = config.formed_from(image), image.new_empty(0)
    for i, fired in enumerate(last):
        output = _read_out(network, fired)[None]
        in_rows = config.formation not in SEES_WHOLE and output.shape[-2:] == image.shape[-2:]
        rows = math.ceil(_FORMED_PIXELS / image.shape[-1]) if in_rows else height
        for top in range(0, height, rows):
            part = slice(top, top + rows) if in_rows else slice(None)
            formed = form_image(config.formation, given[i : i + 1, :, part].double(), output[:, :, part])
            if not restored.numel():
                restored = image.new_empty(len(last), formed.shape[1], *output.shape[-2:])
            restored[i, :, part] = formed[0]
    return restored


def _read_out(network: FoldedNetwork, last: _Fired) -> Tensor:
    """What ``network.read`` gives of one image's spikes and membranes, (C, H, W)."""
    config, kernel, clock = network.config, network.mapper, network.clocks[last.name]
    counts, extended, steps = last.spikes, None, config.time_steps
    if not config.phased:
        counts = last.spikes.counts((0, steps))
        extended = last.spikes.counts((steps, steps + 1)) if clock.extended else None
    output = _native.read_out(
        counts=counts,
        extended=extended,
        weights=_double(kernel.spike),
        extended_weights=_double(kernel.extended),
        bias=None if kernel.bias is None else _double(kernel.bias),
        residual=last.residual if config.recycling else None,
        grid=_double(last.plan.grid_by_channel),
        theta=_double(network.theta),
        start=0.0 if config.phased else clock.v0,
        most=network.levels.get(last.name, steps),
        height=last.size[0],
        width=last.size[1],
        signed=clock.signed,
        threads=torch.get_num_threads(),
    )
    return torch.from_numpy(output)


def _double(x: Tensor) -> NDArray[np.float64]:
    return x.double().contiguous().numpy()


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
    residual = torch.stack([one.membranes() for one in fired]).to(network.dtype_of(fired[0].name))
    counts = [_counts(network, one, WHOLE) for one in fired]
    kept = torch.stack([_spikes(network, one) for one in fired], 1) if trains else None
    if config.phased and kept is not None:
        kept = spike_trains(kept[0].to(torch.int16), config.coding, config.time_steps)
    kept = None if kept is None else kept.to(torch.int8)
    return LayerTrace(fired[0].name, torch.stack(counts, 1), residual[0].numel(), residual, kept)
