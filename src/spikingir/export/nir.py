"""The spiking body of a clocked network in NIR, the Neuromorphic Intermediate Representation, and back.

NIR's own IF neuron fires above its threshold and is then set to a fixed value. A neuron that fires at its threshold and
subtracts it is written with NIR's simpler parts, whose equations say exactly that::

    membrane (I)  ->  NAME (Threshold)  ->  NAME_reset (Scale by -1)  ->  membrane, at the next step

The initial membrane v0 is taken off the threshold, and half a step of the grid as well, since a Threshold fires above
it and not at it: ``v >= 1`` is ``v - v0 > 1 - v0 - 2^-(k+1)`` for numbers on a grid of ``2^-k``. A signed neuron has a
second Threshold that reads ``-v``. So spikes are the folded network's at steps 1..T.

Source:
    Pedersen et al. 2024, "Neuromorphic intermediate representation".
"""

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import nir
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spikingir.deploy.folded import FoldedNetwork, Kernel
from spikingir.export.errors import ExportError
from spikingir.export.npz import require_clocked, require_plain, require_runs
from spikingir.graph.graph import Node, Wave
from spikingir.graph.node_schema import output_shape
from spikingir.schema import SchemaError, parse, shown
from spikingir.spiking.firing import Clock
from spikingir.spiking.network import SpikingConfig

Array = NDArray[Any]

_IMAGE = "image"

_ANALOG = (
    "NIR has no rounding: each convolution of the image is an Input of the graph, to be fed at every step what "
    "image_currents gives; the readout and the image formation stand in the graph's metadata, for load_nir alone"
)
_EXTENDED = (
    "NIR has no extended step: the file holds steps 1..T, and what the extended step adds to the image is left out"
)


@dataclass(frozen=True)
class _Sources:
    """Channels of a wire, and the NIR nodes whose sum it is: of spikes, of weighted sums; or the image."""

    channels: int
    spikes: tuple[str, ...] = ()
    image: bool = False
    currents: tuple[str, ...] = ()
    grid: Array | None = None


_Wire = tuple[_Sources, ...]
"""A concatenation by channels."""


def nir_content(network: FoldedNetwork, size: tuple[int, int]) -> tuple[bytes, tuple[str, ...]]:
    """The spiking body of a clocked network as the bytes of a NIR file, and what the file cannot say.

    Args:
        network: The network.
        size: Rows and columns of the image; NIR gives every neuron.

    Raises:
        ExportError: Another schedule, or an operation that NIR has no primitive for.
    """
    require_plain(network)
    require_clocked(network, "NIR has one time step for all layers")
    content = io.BytesIO()
    nir.write(content, _Writer(network, size).graph())
    extended = any(clock.extended for clock in network.clocks.values())
    return content.getvalue(), (_EXTENDED, _ANALOG) if extended else (_ANALOG,)


def image_currents(network: FoldedNetwork, image: Tensor) -> dict[str, Tensor]:
    """What the Inputs of a NIR file are fed, at every step: the currents that an image causes, by the Input's name.

    Args:
        network: The network of the file, from :func:`load_nir`.
        image: The image.

    Shape:
        (B, C, H, W) to the same, with a layer's channels, rows and columns; float64.
    """
    exact, (first, *rest) = network.on_image_grid(image), network.nodes
    currents = {}
    for node in rest:
        kernel = network.kernel(node.name)
        if node.inputs == (first.name,) and kernel is not None:
            constant = Wave(None, exact)
            currents[node.name] = network.linear(node, (constant,)).constant
    return {name: current for name, current in currents.items() if current is not None}


class _Writer:
    """One pass over a network that collects NIR nodes and edges."""

    def __init__(self, network: FoldedNetwork, size: tuple[int, int]) -> None:
        self.network, self.size = network, size
        self.nodes: dict[str, Any] = {}
        self.edges: list[tuple[str, str]] = []
        self.shapes: dict[str, tuple[int, int, int]] = {}

    def graph(self) -> Any:
        """The whole graph."""
        network, wires = self.network, dict[str, _Wire]()
        for node in network.nodes:
            kernel = network.kernel(node.name)
            shape = () if kernel is None else tuple(kernel.spike.shape)
            read = [wires[name] for name in node.inputs]
            if node.op == "input":
                self.shapes[node.name] = (network.config.input_channels, *self.size)
                wires[node.name] = (_Sources(network.config.input_channels, image=True),)
                continue
            self.shapes[node.name] = output_shape(node, [self.shapes[name] for name in node.inputs], shape)
            match node.op:
                case "neuron":
                    wires[node.name] = self._neuron(node, read[0])
                case "conv2d" | "affine":
                    assert kernel is not None
                    wires[node.name] = self._convolution(node, read[0], kernel)
                case "concat":
                    wires[node.name] = tuple(part for wire in read for part in wire)
                case "add" | "sub":
                    wires[node.name] = self._sum(node, read[0], read[1])
                case _:
                    raise ExportError(f"NIR has no primitive for '{node.name}' ({node.op}); export to npz or torch")
        last = network.nodes[-1].name
        self._put("output_spikes", nir.Output(output_type=np.array(self.shapes[last])), wires[last][0].spikes)
        return nir.NIRGraph(self.nodes, self.edges, metadata=self._readout())

    def _readout(self) -> dict[str, Any]:
        """What turns the output's spikes into an image: for :func:`load_nir`."""
        network, mapper = self.network, self.network.mapper
        metadata = {
            "spikingir": json.dumps(asdict(network.config)),
            "theta": network.theta.numpy(),
            "mapper_weight": mapper.spike.numpy(),
        }
        return metadata if mapper.bias is None else {**metadata, "mapper_bias": mapper.bias.numpy()}

    def _put(self, name: str, node: Any, sources: Sequence[str]) -> str:
        if name in self.nodes:
            raise ExportError(f"two nodes of the network would be named '{name}' in NIR; rename one")
        self.nodes[name] = node
        self.edges += [(source, name) for source in sources]
        return name

    def _flip(self, name: str, shape: Sequence[int], sources: Sequence[str]) -> str:
        """A node that changes the sign."""
        return self._put(name, nir.Scale(scale=np.full(shape, -1, np.float32)), sources)

    def _neuron(self, node: Node, wire: _Wire) -> _Wire:
        name, clock, shape = node.name, self.network.clocks[node.name], self.shapes[node.name]
        (current,) = wire
        if current.spikes or current.image or current.grid is None:
            raise ExportError(f"'{name}' reads what has no weights, which NIR cannot scale; export to npz or torch")
        half = (0.5 / current.grid).reshape(-1, 1, 1)
        settings = {"v0": clock.v0, "surrogate": clock.surrogate}
        membrane = nir.I(r=np.ones(shape, np.float32), metadata=settings)
        self._put(f"{name}_membrane", membrane, current.currents)
        self._put(name, _threshold(1 - clock.v0 - half, shape), (f"{name}_membrane",))
        spikes: tuple[str, ...] = (name,)
        if clock.signed:
            self._flip(f"{name}_flipped", shape, (f"{name}_membrane",))
            self._put(f"{name}_below", _threshold(1 + clock.v0 - half, shape), (f"{name}_flipped",))
            spikes = (name, self._flip(f"{name}_negative", shape, (f"{name}_below",)))
        self.edges.append((self._flip(f"{name}_reset", shape, spikes), f"{name}_membrane"))
        return (_Sources(shape[0], spikes=spikes),)

    def _convolution(self, node: Node, wire: _Wire, kernel: Kernel) -> _Wire:
        """Convolutions of the parts of a concatenation, each with its weights, whose sum is the convolution."""
        assert kernel.grid is not None
        o = node.options or {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": len(kernel.grid)}
        if len(wire) > 1 and o["groups"] > 1:
            raise ExportError(f"'{node.name}' has groups and reads a concatenation; export to npz or torch")
        if any(part.currents for part in wire):
            raise ExportError(f"'{node.name}' reads weighted sums, not spikes; export to npz, onnx or torch")
        # the bias goes where the image is, whose current is rounded with it
        biased = next((i for i, part in enumerate(wire) if part.image), 0)
        names: list[str] = []
        first = 0
        for i, part in enumerate(wire):
            weight = kernel.analog if part.image else kernel.spike
            if node.op == "affine":
                weight = weight[:, None, None, None]
            weight = weight if len(wire) == 1 else weight[:, first : first + part.channels]
            first += part.channels
            bias = kernel.bias if kernel.bias is not None and i == biased else torch.zeros_like(kernel.grid)
            settings = {
                "weight": _single(weight.numpy()),
                **{key: np.array(o[key]) for key in ("stride", "padding", "dilation")},
                "groups": o["groups"],
                "bias": _single(bias.numpy()),
            }
            grid = {"grid": kernel.grid.numpy()}
            name = f"{node.name}_{i}" if i else node.name
            if part.image:
                own = nir.Input(input_type=np.array(self.shapes[node.name]), metadata={**settings, **grid})
            else:
                own = nir.Conv2d(input_shape=self.shapes[node.inputs[0]][1:], **settings, metadata=grid)
            names.append(self._put(name, own, part.spikes))
        return (_Sources(len(kernel.grid), currents=tuple(names), grid=kernel.grid.numpy()),)

    def _sum(self, node: Node, first: _Wire, second: _Wire) -> _Wire:
        if len(first) > 1 or len(second) > 1 or first[0].channels != second[0].channels:
            raise ExportError(f"'{node.name}' adds concatenations or channels to many; export to npz or torch")
        (a,), (b,) = first, second
        if a.image or b.image:
            raise ExportError(f"'{node.name}' adds the image itself to something; export to npz, onnx or torch")
        if node.op == "sub":
            shape = self.shapes[node.inputs[1]]
            spikes, currents = (
                (self._flip(f"{node.name}_minus_{kind}", shape, sources),) if sources else ()
                for kind, sources in (("spikes", b.spikes), ("currents", b.currents))
            )
            b = replace(b, spikes=spikes, currents=currents)
        grids = [part.grid for part in (a, b) if part.grid is not None]
        grid = np.maximum.reduce(grids) if grids else None
        return (_Sources(a.channels, a.spikes + b.spikes, False, a.currents + b.currents, grid),)


def _threshold(values: Array, shape: Sequence[int]) -> Any:
    return nir.Threshold(threshold=_single(np.broadcast_to(values, shape)))


def _single(values: Array) -> Array:
    """Values in single precision, which nearly all tools compute in, where that holds them exactly."""
    single = values.astype(np.float32)
    return single if (single == values).all() else values


def load_nir(path: str | Path) -> FoldedNetwork:
    """Read a network that :func:`spikingir.export_network` wrote as NIR: its steps 1..T, in eval mode.

    Raises:
        FileNotFoundError: There is no such file.
        ExportError: The file is damaged, of another program, or holds a primitive that has no place here.
    """
    path = Path(path)
    try:
        return read_nir(path.read_bytes())
    except (ExportError, SchemaError) as error:
        raise ExportError(f"{path}: {error}") from None


def read_nir(content: bytes) -> FoldedNetwork:
    """A network of the bytes of a NIR file.

    Raises:
        ExportError: They are damaged or hold something else.
        SchemaError: A configuration of another form.
    """
    try:
        graph = nir.read(io.BytesIO(content))
    except (OSError, KeyError, ValueError, AssertionError, TypeError) as error:  # what h5py and nir raise
        reason = str(error).split("\n")[0] or type(error).__name__
        raise ExportError(f"it is no NIR file that can be read: {reason}") from None
    try:
        network = _Reader(graph).network()
    except RecursionError:
        raise ExportError("its graph is deeper than any network that this package writes") from None
    require_runs(network)
    return network


class _Reader:
    """Nodes of a NIR graph as nodes of a folded network."""

    def __init__(self, graph: Any) -> None:
        self.nodes: Mapping[str, Any] = graph.nodes
        self.metadata: Mapping[str, Any] = graph.metadata
        self.sources: dict[str, list[str]] = {name: [] for name in self.nodes}
        self.readers: dict[str, list[str]] = {name: [] for name in self.nodes}
        for source, reader in graph.edges:
            self.sources[reader].append(source)
            self.readers[source].append(reader)
        self.found = [Node(_IMAGE, "input")]
        self.kernels: dict[str, Kernel] = {}
        self.clocks: dict[str, Clock] = {}
        self.signs: dict[str, int] = {}
        self.places: dict[str, str] = {}
        self.open: set[str] = set()

    def network(self) -> FoldedNetwork:
        """The network."""
        for name, node in self.nodes.items():
            if not isinstance(node, nir.Input | nir.Output | nir.Conv2d | nir.I | nir.Threshold | nir.Scale):
                raise ExportError(f"'{name}' is a {type(node).__name__}, which is no part of a network of SpikingIR")
        if not {"spikingir", "theta", "mapper_weight"} <= set(self.metadata):
            raise ExportError("its graph has no metadata of SpikingIR, so nothing says how its spikes make an image")
        self.config = parse(SpikingConfig, json.loads(self.metadata["spikingir"]), "metadata.spikingir")
        outputs = [name for name, node in self.nodes.items() if isinstance(node, nir.Output)]
        if len(outputs) != 1 or len(self.sources[outputs[0]]) not in (1, 2):
            raise ExportError("it has another number of outputs than one")
        last = self._value(self.sources[outputs[0]][0])
        if last not in self.clocks:
            raise ExportError("its output reads something else than spikes")
        weight = _tensor(self.metadata["mapper_weight"]).double()
        bias = self.metadata.get("mapper_bias")
        mapper = Kernel(weight, weight, weight, None if bias is None else _tensor(bias).double(), None)
        theta = _tensor(self.metadata["theta"]).double()
        betas = {name: torch.ones(1, dtype=torch.float64) for name in self.clocks}
        return FoldedNetwork(
            self.config,
            self.found,
            self.kernels,
            betas,
            self.clocks,
            self._spiking(),
            mapper,
            theta,
            {},
            True,
            torch.float64,
        ).eval()

    def _spiking(self) -> frozenset[str]:
        """Neurons, and sums of neurons alone."""
        spiking = set(self.clocks)
        for node in self.found:
            if node.op in ("add", "sub") and spiking.issuperset(node.inputs):
                spiking.add(node.name)
        return frozenset(spiking)

    def _value(self, name: str) -> str:
        """Name of the folded node that gives a NIR node's output; those that it reads come before it."""
        if name in self.places:
            return self.places[name]
        if name in self.open:
            raise ExportError(f"'{name}' is in a loop that is no neuron's reset")
        self.open.add(name)
        node = self.nodes[name]
        if isinstance(node, nir.Input):
            if not {"weight", "bias", "groups", "stride", "padding", "dilation"} <= set(node.metadata):
                raise ExportError(f"the input '{name}' has no metadata that says what of the image it is")
            self._convolution(name, _IMAGE, node.metadata, node.metadata)
        elif isinstance(node, nir.Conv2d):
            self._convolution(name, self._sum(self.sources[name], name), vars(node), node.metadata)
        elif isinstance(node, nir.Threshold) and isinstance(self.nodes[self._only(name)], nir.I):
            self._neuron(name, self._only(name))
        else:
            raise ExportError(f"'{name}' ({type(node).__name__}) stands where a network of SpikingIR has none")
        self.places[name] = name
        return name

    def _only(self, name: str) -> str:
        if len(self.sources[name]) != 1:
            raise ExportError(f"'{name}' reads {len(self.sources[name])} nodes; expected one")
        return self.sources[name][0]

    def _sum(self, sources: Sequence[str], name: str) -> str:
        """The sum of what a node reads, as one folded node."""
        terms: list[tuple[str, int]] = []
        for source in sources:
            node = self.nodes[source]
            if not isinstance(node, nir.Scale):
                terms.append((self._value(source), 1))
                continue
            if not (node.scale == -1).all():
                raise ExportError(f"'{source}' scales by something else than -1")
            inner = self.sources[source]
            if self._is_negative_half(source):  # the other sign of a neuron that is read whole
                continue
            terms += [(self._value(each), -1) for each in inner if not self._is_negative_half(each)]
        if not terms or terms[0][1] < 0:
            raise ExportError(f"'{name}' reads nothing, or a difference without a first term")
        total = terms[0][0]
        for i, (term, sign) in enumerate(terms[1:]):
            summed = f"{name}_sum{i}"
            self.found.append(Node(summed, "add" if sign > 0 else "sub", (total, term)))
            total = summed
        return total

    def _is_negative_half(self, name: str) -> bool:
        """Whether a node is the part of a signed neuron that fires -1."""
        sources = self.sources[name]
        return (
            isinstance(self.nodes[name], nir.Scale)
            and len(sources) == 1
            and isinstance(self.nodes[sources[0]], nir.Threshold)
            and isinstance(self.nodes[self._only(sources[0])], nir.Scale)
        )

    def _convolution(self, name: str, source: str, settings: Mapping[str, Any], metadata: Mapping[str, Any]) -> None:
        if "grid" not in metadata:
            raise ExportError(f"'{name}' has no grid in its metadata")
        weight, bias, grid = (_tensor(values) for values in (settings["weight"], settings["bias"], metadata["grid"]))
        weight = weight.double()  # holds every sum, which a file of single precision need not say
        self.kernels[name] = Kernel(weight, weight, weight, bias.double(), grid.double())
        options = {key: tuple(int(n) for n in settings[key]) for key in ("stride", "padding", "dilation")}
        self.found.append(Node(name, "conv2d", (source,), {**options, "groups": int(settings["groups"])}, name))

    def _neuron(self, name: str, membrane: str) -> None:
        node = self.nodes[membrane]
        resets = [s for s in self.sources[membrane] if isinstance(self.nodes[s], nir.Scale) and name in self.sources[s]]
        if len(resets) != 1 or not (node.r == 1).all() or not {"v0", "surrogate"} <= set(node.metadata):
            raise ExportError(f"'{membrane}' is no neuron of SpikingIR, which subtracts its threshold once it fires")
        currents = [source for source in self.sources[membrane] if source not in resets]
        source = self._sum(currents, membrane)
        signed = any(isinstance(self.nodes[reader], nir.Scale) for reader in self.readers[membrane])
        v0, surrogate = float(node.metadata["v0"]), str(_text(node.metadata["surrogate"]))
        if not 0 <= v0 < 1:
            raise ExportError(f"'{membrane}' has the initial membrane {shown(v0)}; expected 0 to below 1")
        self.clocks[name] = Clock(self.config.time_steps, False, 1.0, v0, signed, 0, surrogate)
        self.found.append(Node(name, "neuron", (source,)))


def _text(value: object) -> object:
    return value.decode() if isinstance(value, bytes) else value


def _tensor(values: Array) -> Tensor:
    return torch.from_numpy(np.array(values))
