"""Restoring an image tile by tile: bounded memory, and the same bits as the whole image at once.

A pixel of the output depends on the image within a radius that follows from the body's operations. A tile is run
with a margin of that radius (its halo) and the halo is thrown away, so that what padding does at a cut never shows.
Tiles start at multiples of the body's total stride, so that strided operations fall on the same pixels as in the
whole image. With a gridded network (:func:`spikingir.fold`), whose sums are exact in any order, nothing is left that
could differ.
"""

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, product

import torch
from torch import Tensor

from spikingir.deploy.engine import Engine, bytes_per_pixel
from spikingir.deploy.engine import count as run_counted
from spikingir.deploy.engine import restore as run
from spikingir.deploy.engine import trace as run_traced
from spikingir.deploy.folded import FoldedNetwork
from spikingir.graph.errors import TilingError
from spikingir.graph.graph import Graph
from spikingir.graph.reach import Reach
from spikingir.inputs import pad_to_multiple
from spikingir.restoration.planes import Planes
from spikingir.spiking.network import WHOLE, LayerTrace, SpikingNetwork, Trace, Window, check_input
from spikingir.zoo.catalogue import ModelError

Network = SpikingNetwork | FoldedNetwork
Progress = Callable[[int, int], None]

MEMORY = 2**28
"""Bytes that the default tile may need beside the image."""

_MEMORY_OF_COUNTS = 2**30  # counting keeps a number for each neuron: it is for measuring, where halos cost time

_SMALLEST_TILE = 32
_SIDE = 128


@dataclass(frozen=True)
class Wire:
    """A node's output: its channels, and its reach along rows and columns."""

    channels: int
    rows: Reach
    columns: Reach

    @property
    def density(self) -> float:
        """Values per pixel of the image."""
        return float(self.channels / (self.rows.stride * self.columns.stride))


@dataclass(frozen=True)
class Layout:
    """How a network can be tiled.

    Attributes:
        halo: Margin of a tile in pixels: the largest reach of any wire, rounded up to a multiple of ``stride``.
        stride: Tiles start and end at multiples of it.
        wires: Every wire of the body by name.
        output: The output, after the pixel mapper.
    """

    halo: int
    stride: int
    wires: Mapping[str, Wire]
    output: Wire


def layout(network: Network) -> Layout:
    """Receptive field and stride of a network, from its operations.

    Raises:
        TilingError: A function of the user's own on the image, an operation with a fixed size or a position
            counted from an end, circular padding.
    """
    graph = network.graph
    reaches, shapes = graph.reaches(), graph.shapes()
    wires = {name: Wire(shapes[name][0], *reach) for name, reach in reaches.items()}
    last = wires[graph.nodes[-1].name]
    margin = 0 if network.mapper is None else network.mapper.weight.shape[-1] // 2
    output = replace(last, rows=last.rows.then(1, -margin, margin), columns=last.columns.then(1, -margin, margin))
    every = [reach for wire in (*wires.values(), output) for reach in (wire.rows, wire.columns)]
    stride = graph.stride(reaches)
    _require_size(graph, stride)
    radius = max(max(-reach.low, reach.high) for reach in every)
    return Layout(math.ceil(radius / stride) * stride, stride, wires, output)


def _require_size(graph: Graph, stride: int) -> None:
    """Whether padding and cropping to a size do nothing to images of multiples of the stride.

    Raises:
        TilingError: They do something.
    """
    sized = [node for node in graph.nodes if node.operation.to_size]
    if not sized:
        return
    side = math.ceil(_SIDE / stride) * stride
    shapes = graph.shapes((side, side))
    for node in sized:
        if shapes[node.name] != shapes[node.inputs[0]]:
            raise TilingError(
                f"'{node.name}' pads or crops by the size of the whole image, even of {side} x {side} pixels; call the "
                "network on whole images"
            )


def default_tile(
    network: Network,
    size: tuple[int, int] | None = None,
    *,
    traced: bool = False,
    engine: Engine = "torch",
    memory: int = MEMORY,
) -> int:
    """Side of the largest tiles that need at most about ``memory`` bytes, halo included; no smaller than the halo.

    Args:
        network: The network.
        size: Height and width of the image, which may fit as a whole.
        traced: Whether the spikes are counted, for which torch keeps them.
        engine: What runs a folded network.
        memory: Bytes.
    """
    plan = layout(network)
    bytes_ = bytes_per_pixel(network, engine) if isinstance(network, FoldedNetwork) else None
    pixels = int(memory / (_bytes_per_pixel(network, plan.wires, traced) if bytes_ is None else bytes_))
    if size is not None and size[0] * size[1] <= pixels:
        return max(size)
    # where halos are wider than the memory, tiles as wide as a halo: smaller ones would compute little but halos
    tile = max(math.isqrt(pixels) - 2 * plan.halo, plan.halo, _SMALLEST_TILE)
    return math.ceil(tile / plan.stride) * plan.stride


def _bytes_per_pixel(network: Network, wires: Mapping[str, Wire], traced: bool) -> float:
    """Bytes alive in torch at the worst node for each pixel of a tile."""
    dtype = network.dtype if isinstance(network, FoldedNetwork) else next(network.parameters()).dtype
    width = 8 if isinstance(network, FoldedNetwork) and network.wide else dtype.itemsize
    steps = 1 if network.config.phased else network.config.time_steps + 1
    last_reader = {name: i for i, node in enumerate(network.nodes) for name in node.inputs}
    held: dict[str, float] = {}
    worst = 0.0
    spiking: set[str] = set()
    for i, node in enumerate(network.nodes):
        if node.role == "neuron" or spiking.intersection(node.inputs):
            spiking.add(node.name)
        # the constant part is in float64
        size = wires[node.name].density * (width * steps if node.name in spiking else 8)
        worst = max(worst, sum(held.values()) + 2 * size)  # the result, and a copy of it in another order
        held[node.name] = size
        held = {name: bytes_ for name, bytes_ in held.items() if last_reader.get(name, -1) > i}
    if traced:  # spikes of each step, a byte each, and membranes, of all layers at once; phased ones as well
        kept = network.config.time_steps + 1 + width
        worst += sum(wires[node.name].density * kept for node in network.nodes if node.role == "neuron")
    return worst


@dataclass(frozen=True)
class _Span:
    """A tile along one axis: its own pixels ``first .. last - 1``, with the halo ``start .. stop - 1``."""

    start: int
    first: int
    last: int
    stop: int
    ends: bool

    def own(self, reach: Reach) -> slice:
        """The tile's own pixels within a wire that was computed from ``start`` on."""
        first = (self.first - self.start) / reach.stride
        return slice(int(first), None if self.ends else int((self.last - self.start) / reach.stride))


def _spans(size: int, tile: int, halo: int, first: int = 0, last: int | None = None) -> list[_Span]:
    """Tiles of an axis of ``size`` pixels, or of its part ``first .. last - 1``."""
    last = size if last is None else last
    starts = range(first, last, tile)
    return [
        _Span(max(0, start - halo), start, stop, min(size, stop + halo), stop == size)
        for start, stop in zip(starts, [*starts[1:], last], strict=True)
    ]


def padded(network: Network, image: Tensor) -> Tensor:
    """The image with its last row and column repeated, up to sizes that the network's stride divides.

    Shape:
        (B, C, H, W).

    Raises:
        TilingError: The network cannot be tiled, see :func:`layout`.
    """
    return pad_to_multiple(image, layout(network).stride)


def restore_tiled(
    network: Network,
    image: Tensor | Planes,
    tile: int | None = None,
    halo: int | None = None,
    *,
    restore: Callable[[Tensor], Tensor] | None = None,
    engine: Engine = "auto",
    progress: Progress = lambda done, total: None,
) -> Tensor:
    """Restored image, computed tile by tile; not clipped.

    With a gridded folded network it equals ``network(image)`` bit for bit, whatever the tile (resizing by bilinear
    or bicubic interpolation: by factors that are powers of two). Zeros are padded at the borders of the image alone:
    at a cut, what padding does ends in the halo.

    Where memory runs out, the tile is halved, with a warning, and the work goes on. The network may be on another
    device than the image.

    Args:
        network: The network, folded or not.
        image: Degraded image, or what is read of it part by part.
        tile: Side of the tiles in pixels, rounded up to a multiple of the network's stride;
            :func:`default_tile` unless given.
        halo: Margin in pixels, rounded up likewise; the network's receptive field unless given.
        restore: What restores a tile in the network's stead: the conventional network that it was made of, whose
            receptive field is the same.
        engine: What runs a folded network, see :func:`spikingir.deploy.engine.restore`.
        progress: Told how many tiles are done, and of how many.

    Shape:
        ``image``: (B, C, H, W). Images of a batch go one after the other.

    Raises:
        TilingError: The network cannot be tiled, see :func:`layout`.
        ValueError: ``tile`` below 1 or ``halo`` below 0.
        EngineError: The engine that was asked for cannot run the network.
        ModelError: The image is too small for the network's reflecting padding.
        MemoryError: There is no memory even for the smallest tile.
    """
    if restore is not None:
        engine = "torch"
    else:
        restore = network if not isinstance(network, FoldedNetwork) else partial(run, network, engine=engine)
    return _run(network, image, tile, halo, progress, engine, lambda piece, windows: (restore(piece), None), None)


def trace_tiled(
    network: Network,
    image: Tensor | Planes,
    tile: int | None = None,
    *,
    engine: Engine = "auto",
    counts: bool = False,
    progress: Progress = lambda done, total: None,
) -> tuple[Tensor, Trace]:
    """:func:`restore_tiled`, and what every layer did.

    Each spike is counted once, in the tile whose own pixel its neuron stands on, so that the counts are those of the
    whole image; what halos compute a second time is not in them. Residual membranes and spike trains are not kept;
    ``counts`` keeps how often each neuron fired (memory: four bytes a neuron), in default tiles of about 1 GiB.
    """
    counted: list[list[LayerTrace]] = [[] for _ in range(image.shape[0])]
    trace = network.trace if not isinstance(network, FoldedNetwork) else partial(run_traced, network, engine=engine)

    def compute(piece: Tensor, windows: Mapping[str, Window]) -> tuple[Tensor, Trace]:
        if isinstance(network, FoldedNetwork) and not counts:
            return run_counted(network, piece, windows, engine=engine)
        output, found = trace(piece, trains=counts or any(window != WHOLE for window in windows.values()))
        return output, found.within(windows)

    # each neuron's spikes are taken from all layers' spikes, which both engines then keep
    restored = _run(network, image, tile, None, progress, "torch" if counts else engine, compute, counted, counts)
    size = (image.shape[-2], image.shape[-1])
    layers = tuple(_concatenated(per_image) for per_image in zip(*counted, strict=True))
    return restored, Trace(network.config.time_steps, network.config.schedule, size, layers)


@torch.no_grad()
def _run(
    network: Network,
    image: Tensor | Planes,
    tile: int | None,
    halo: int | None,
    progress: Progress,
    engine: Engine,
    compute: Callable[[Tensor, Mapping[str, Window]], tuple[Tensor, Trace | None]],
    counted: list[list[LayerTrace]] | None,
    counts: bool = False,
) -> Tensor:
    """Tiles from last to first: the last one tells the size of the output."""
    check_input(network.config, image.shape)
    if 0 in image.shape:
        raise ValueError(f"the image is empty: its shape is {tuple(image.shape)}")
    planes = Planes(image) if isinstance(image, Tensor) else image
    plan = layout(network)
    images, _, height, width = planes.shape
    if tile is None:
        memory = _MEMORY_OF_COUNTS if counts else MEMORY
        tile = default_tile(network, (height, width), traced=counted is not None, engine=engine, memory=memory)
    halo = plan.halo if halo is None else halo
    if tile < 1 or halo < 0:
        raise ValueError(f"tile is {tile}, halo {halo}; expected at least 1 and 0 pixels")
    tile, halo = (math.ceil(n / plan.stride) * plan.stride for n in (tile, halo))
    # some maps are brought to another's size, or to a multiple
    if any(node.inputs != node.reads or node.operation.to_size for node in network.nodes) and (
        height % plan.stride or width % plan.stride
    ):
        raise TilingError(f"the image is {width} x {height}; expected multiples of {plan.stride}: pad it")
    tile = min(tile, math.ceil(max(height, width) / plan.stride) * plan.stride)
    # as many tiles, but equal ones: they take less memory, and halos are no larger
    even = [math.ceil(side / math.ceil(side / tile) / plan.stride) * plan.stride for side in (height, width)]
    whole = list(product(*(_spans(side, part, halo) for side, part in zip((height, width), even, strict=True))))
    todo = [(i, rows, columns) for i in reversed(range(images)) for rows, columns in whole]
    device = next(chain(network.parameters(), network.buffers())).device
    restored, done = torch.empty(0), 0
    while todo:
        i, rows, columns = todo[-1]
        piece = planes.part(i, slice(rows.start, rows.stop), slice(columns.start, columns.stop)).to(device)
        windows = {name: (rows.own(wire.rows), columns.own(wire.columns)) for name, wire in plan.wires.items()}
        try:
            # cuDNN, on GPUs, may choose TensorFloat-32 or Winograd's transforms, whose sums are not exact
            with torch.backends.cudnn.flags(enabled=False):
                output, traced = compute(piece, windows)
        except (MemoryError, RuntimeError) as error:
            if not _out_of_memory(error):
                if min(height, width) > plan.halo:
                    raise
                # a reflecting padding reaches farther than the image, which is within the halo
                raise ModelError(f"the image is {width} x {height}, too small for this network: {error}") from error
            tile = _halved(tile, plan.stride)
            todo = [
                (i, *box)
                for i, rows, columns in todo
                for box in product(
                    _spans(height, tile, halo, rows.first, rows.last),
                    _spans(width, tile, halo, columns.first, columns.last),
                )
            ]
            continue
        todo.pop()
        if counted is not None and traced is not None:
            counted[i] = list(_counted(traced, plan, rows, columns, counted[i], counts))
            del traced  # the spikes of one tile fill the memory meant for it
        own = output[..., rows.own(plan.output.rows), columns.own(plan.output.columns)]
        top, left = int(rows.first / plan.output.rows.stride), int(columns.first / plan.output.columns.stride)
        if not restored.numel():
            # in the image's order, in which it will be written
            last = planes.samples.is_contiguous(memory_format=torch.channels_last)
            restored = torch.empty(
                (images, *own.shape[1:2], top + own.shape[-2], left + own.shape[-1]),
                dtype=own.dtype,
                device=planes.samples.device,
                memory_format=torch.channels_last if last else torch.contiguous_format,
            )
        restored[i, :, top : top + own.shape[-2], left : left + own.shape[-1]] = own[0]
        done += 1
        progress(done, done + len(todo))
    return restored


@contextmanager
def memory_errors() -> Iterator[None]:
    """What torch says where memory runs out, as Python says it.

    Raises:
        MemoryError: Memory ran out.
    """
    try:
        yield
    except RuntimeError as error:
        if not _out_of_memory(error):
            raise
        raise MemoryError("there is not enough memory for this image; close other programs") from error


def _out_of_memory(error: Exception) -> bool:
    # torch has an error of its own for accelerators alone
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _halved(tile: int, stride: int) -> int:
    """Half the side, told to the user.

    Raises:
        MemoryError: It is the smallest already.
    """
    half = math.ceil(max(tile // 2, _SMALLEST_TILE) / stride) * stride
    if half >= tile:
        raise MemoryError(f"there is no memory even for tiles of {tile} pixels; close other programs")
    warnings.warn(f"memory ran out; the work goes on with tiles of {half} pixels", RuntimeWarning, stacklevel=2)
    return half


def _counted(
    trace: Trace, plan: Layout, rows: _Span, columns: _Span, before: Sequence[LayerTrace], counts: bool
) -> Iterator[LayerTrace]:
    """Spikes of each layer, which are those within a tile's own pixels, added to those of the tiles before."""
    for i, layer in enumerate(trace.layers):
        spikes, neurons, positions = layer.spikes.cpu(), layer.neurons, None
        if counts:
            assert layer.trains is not None
            wire, own = plan.wires[layer.name], layer.trains.abs().sum(0, dtype=torch.int32).cpu()
            positions = before[i].counts if before else None
            top, left = int(rows.first / wire.rows.stride), int(columns.first / wire.columns.stride)
            if positions is None:  # the first tile to come is the last of the image, and tells its size
                positions = own.new_zeros(*own.shape[:2], top + own.shape[-2], left + own.shape[-1])
            positions[..., top : top + own.shape[-2], left : left + own.shape[-1]] = own
        if before:
            spikes, neurons = spikes + before[i].spikes, neurons + before[i].neurons
        yield LayerTrace(layer.name, spikes, neurons, layer.residual_membrane.new_empty(1, 0).cpu(), None, positions)


def _concatenated(layers: Sequence[LayerTrace]) -> LayerTrace:
    """One layer's traces of several images as that of the batch."""
    counts = [layer.counts for layer in layers]
    return replace(
        layers[0],
        spikes=torch.cat([layer.spikes for layer in layers], 1),
        residual_membrane=torch.cat([layer.residual_membrane for layer in layers]),
        counts=None if counts[0] is None else torch.cat([count for count in counts if count is not None]),
    )
