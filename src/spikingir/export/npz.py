"""A folded network as plain arrays and its graph as JSON (npz); the format is specified in ``docs/format.md``."""

import io
import json
import math
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.lib import format as npy
from numpy.typing import NDArray
from torch import Tensor

from spikingir.deploy.folded import FoldedNetwork, Kernel
from spikingir.errors import InputError
from spikingir.export.errors import ExportError
from spikingir.graph.graph import Node
from spikingir.graph.node_schema import node_from_json, node_to_json
from spikingir.schema import Range, SchemaError, parse, shown
from spikingir.spiking.firing import Clock
from spikingir.spiking.network import SpikingConfig
from spikingir.spiking.surrogate import Surrogate

FORMAT, VERSION = "spikingir.folded", 1

_HEADER = "header"
_PARTS = ("spike", "extended", "analog", "bias", "grid")
_DTYPES = {"float32": torch.float32, "float64": torch.float64}
_MOST_NODES = 20_000


@dataclass(frozen=True)
class _Clock:
    """What a layer does at its steps, as it stands in a file."""

    time_steps: Annotated[int, Range(1, 1024)]
    extended: bool
    alpha: Annotated[float, Range(0.5, 1)]
    v0: Annotated[float, Range(0, 1, open_most=True)]
    signed: bool
    delay: Annotated[int, Range(0, 1023)]
    surrogate: Surrogate


@dataclass(frozen=True)
class _Header:
    format: Literal["spikingir.folded"]
    version: Literal[1]
    config: SpikingConfig
    nodes: tuple[Mapping[str, Any], ...]
    clocks: Mapping[str, Any]
    levels: Mapping[str, Any]
    spiking: tuple[str, ...]
    scalings: tuple[str, ...]
    dtype: Literal["float32", "float64"]


def npz_content(network: FoldedNetwork) -> bytes:
    """A folded network as the bytes of an npz file; the same network gives the same bytes.

    Raises:
        ExportError: The network holds functions of its own on the image, or lies on no grid.
    """
    require_plain(network)
    dtype = torch.float64 if network.wide else network.dtype  # the format has one for all layers
    header = {
        "format": FORMAT,
        "version": VERSION,
        "config": asdict(network.config),
        "nodes": [node_to_json(node) for node in network.nodes],
        "clocks": {name: asdict(clock) for name, clock in network.clocks.items()},
        "levels": network.levels,
        "spiking": sorted(network.spiking),
        "scalings": sorted(network.scalings),
        "dtype": str(dtype).removeprefix("torch."),
    }
    arrays = {_HEADER: np.frombuffer(json.dumps(header).encode(), np.uint8), "theta": network.theta.numpy()}
    for name in network.clocks:
        arrays[f"beta.{name}"] = network.beta(name).numpy()
    arrays |= _parts("mapper", network.mapper, _PARTS)
    for node in network.nodes:
        if (kernel := network.kernel(node.name)) is not None:  # pooling and resizing have a grid and no weights
            arrays |= _parts(f"kernel.{node.name}", kernel, _PARTS if node.operation.weight_dimensions else _PARTS[-1:])
    single = torch.empty(0, dtype=dtype).numpy().dtype
    for name in [name for name in arrays if name.startswith("kernel.") and name.endswith((".spike", ".extended"))]:
        arrays[name] = arrays[name].astype(single)
    content = io.BytesIO()
    np.savez(content, **arrays)  # type: ignore[arg-type]  # the names are none of savez's own arguments
    return content.getvalue()


def load_npz(path: str | Path) -> FoldedNetwork:
    """Read a folded network that :func:`spikingir.export_network` wrote as npz, in eval mode.

    Raises:
        FileNotFoundError: There is no such file.
        ExportError: The file is damaged or holds something else.
    """
    path = Path(path)
    try:
        return read_npz(path.read_bytes())
    except (SchemaError, ExportError) as error:
        raise ExportError(f"{path}: {error}") from None


def read_npz(content: bytes) -> FoldedNetwork:
    """A folded network of the bytes of an npz file.

    Raises:
        ExportError: They are damaged or something else.
        SchemaError: A header of another form.
    """
    arrays = _arrays(content)
    try:
        entries = json.loads(arrays.pop(_HEADER).tobytes())
    except (KeyError, UnicodeDecodeError, json.JSONDecodeError, RecursionError):
        raise ExportError(
            f"it has no header in JSON; expected a file of spikingir export --to npz of {FORMAT}"
        ) from None
    header = parse(_Header, entries, "header")
    nodes = _nodes(header)
    layers = {node.name for node in nodes if node.op == "neuron"}
    for key, table, wanted in (
        ("clocks", header.clocks, layers),
        ("levels", header.levels, layers if header.config.phased else set()),
    ):
        if set(table) != wanted:
            raise ExportError(f"header.{key} must have one entry for each of {', '.join(sorted(wanted)) or 'no layer'}")
    clocks = {name: Clock(**asdict(parse(_Clock, table, f"clocks.{name}"))) for name, table in header.clocks.items()}
    for name, most in header.levels.items():
        if type(most) is not int or not 1 <= most <= 1024:
            raise ExportError(f"header.levels.{name} is {shown(most)}; expected a whole number from 1 to 1024")
    dtype = _DTYPES[header.dtype]
    tensors = {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
    kernels = {
        node.name: _kernel(tensors, f"kernel.{node.name}", node.operation.weight_dimensions, dtype)
        for node in nodes
        if node.operation.weight_dimensions or _is_rounded(node)
    }
    mapper = _kernel(tensors, "mapper", 4, torch.float64)
    betas = {name: _take(tensors, f"beta.{name}", 1) for name in layers}
    theta = _take(tensors, "theta", 1)
    if tensors:
        raise ExportError(f"the array {shown(next(iter(tensors)))} has no place in it")
    network = FoldedNetwork(
        header.config,
        nodes,
        kernels,
        betas,
        clocks,
        frozenset(header.spiking),
        mapper,
        theta,
        header.levels,
        True,
        dtype,
        frozenset(header.scalings),
    ).eval()
    require_runs(network)
    return network


def require_plain(network: FoldedNetwork) -> None:
    """Refuse what no format holds.

    Raises:
        ExportError: Functions of the user's own on the image, numbers on no grid.
    """
    if network.raw:
        raise ExportError(
            f"'{next(iter(network.raw))}' is a function of your own on the image, which no file holds; apply it before "
            "the network"
        )
    if not network.gridded:
        raise ExportError("the folded network lies on no grid, so its sums are not exact; fold it with one")


def require_clocked(network: FoldedNetwork, why: str) -> None:
    """Refuse a network whose layers do not all take each step at once, for a format that holds no other.

    Args:
        network: The network.
        why: What the format lacks.

    Raises:
        ExportError: It is phased or delayed.
    """
    if network.config.phased or network.config.delay:
        clocked = "" if network.config.coding == "binary" else "with --schedule clocked, or "
        raise ExportError(f"the network runs {network.config.clock}, and {why}; export {clocked}to npz, onnx or torch")


def _parts(name: str, kernel: Kernel, parts: Sequence[str]) -> dict[str, NDArray[Any]]:
    tensors = ((part, getattr(kernel, part)) for part in parts)
    return {f"{name}.{part}": tensor.contiguous().numpy() for part, tensor in tensors if tensor is not None}


def _nodes(header: _Header) -> list[Node]:
    if not 2 <= len(header.nodes) <= _MOST_NODES:
        raise ExportError(f"header.nodes has {len(header.nodes)}; expected 2 to {_MOST_NODES}")
    nodes = [node_from_json(entry, f"nodes[{i}]") for i, entry in enumerate(header.nodes)]
    seen: set[str] = set()
    for i, node in enumerate(nodes):
        if node.name in seen or (node.op == "input") != (i == 0) or not seen.issuperset(node.inputs):
            raise ExportError(f"nodes[{i}] reads later nodes, has the name of another, or is a second input")
        if node.weights not in (None, node.name):
            raise ExportError(f"nodes[{i}].weights is {shown(node.weights)}; expected {node.name!r}")
        seen.add(node.name)
    if nodes[-1].op != "neuron":
        raise ExportError(f"nodes ends with {nodes[-1].op!r}; expected the output neuron")
    return nodes


def _is_rounded(node: Node) -> bool:
    """Whether an operation without weights puts its sums on a grid."""
    return node.operation.fixed and node.role == "weighs"


def _kernel(tensors: dict[str, Tensor], name: str, weight: int | None, dtype: torch.dtype) -> Kernel:
    """A kernel with weights of so many dimensions; without them there is its grid alone."""
    grid = _take(tensors, f"{name}.grid", 1) if f"{name}.grid" in tensors else None
    if grid is not None and not ((grid >= 1) & (grid.log2() % 1 == 0)).all():
        raise ExportError(f"{name}.grid is no power of two")
    if (grid is None) != (name == "mapper"):
        raise ExportError(f"{name}.grid is {'missing' if grid is None else 'one too many'}")
    if not weight:
        assert grid is not None
        one = torch.ones_like(grid)
        return Kernel(one, one, one, None, grid)
    spike, extended, analog = (_take(tensors, f"{name}.{part}", weight) for part in _PARTS[:3])
    if not spike.shape == extended.shape == analog.shape:
        raise ExportError(f"the arrays of {name} are of different shapes")
    bias = _take(tensors, f"{name}.bias", 1) if f"{name}.bias" in tensors else None
    return Kernel(spike.to(dtype), extended.to(dtype), analog, bias, grid)


def _take(tensors: dict[str, Tensor], name: str, dimensions: int) -> Tensor:
    if name not in tensors:
        raise ExportError(f"the array {name} is missing")
    tensor = tensors.pop(name)
    if tensor.dim() != dimensions:
        raise ExportError(f"{name} has shape {tuple(tensor.shape)}; expected {dimensions} dimensions")
    return tensor


def require_runs(network: FoldedNetwork) -> None:
    """Run one blank image, of a side that the network's strides like.

    Raises:
        ExportError: The network does not run.
    """
    refused = ""
    for side in (64, 128, 360):
        try:
            network(torch.zeros(1, network.config.input_channels, side, side))
            return
        except (RuntimeError, InputError) as error:  # torch's word for shapes that do not fit
            refused = str(error).split("\n")[0]
    raise ExportError(f"its arrays do not fit together: {refused}")


def _arrays(content: bytes) -> dict[str, NDArray[Any]]:
    """The arrays of an npz file; none is larger than the bytes that are there for it."""
    arrays: dict[str, NDArray[Any]] = {}
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as file:
            for member in file.infolist():
                if member.compress_type != zipfile.ZIP_STORED or not member.filename.endswith(".npy"):
                    raise ExportError(f"{shown(member.filename)} is no array that is stored as it is")
                name = member.filename.removesuffix(".npy")
                arrays[name] = _array(name, io.BytesIO(file.read(member)))
    except zipfile.BadZipFile as error:
        raise ExportError(f"it is no npz file, or a damaged one ({error}); fetch or export it again") from None
    return arrays


def _array(name: str, file: io.BytesIO) -> NDArray[Any]:
    readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    try:
        shape, fortran, dtype = readers[npy.read_magic(file)](file)
    except (ValueError, KeyError):  # what numpy documents for another header
        raise ExportError(f"{shown(name)} is no array") from None
    values = file.read()
    plain = dtype in (np.dtype("<f4"), np.dtype("<f8")) or (name == _HEADER and dtype == np.uint8)
    if fortran or not plain or math.prod(shape) * dtype.itemsize != len(values):
        raise ExportError(f"{shown(name)} is of type {dtype} and shape {shape}; expected float32 or float64 in C order")
    array = np.frombuffer(values, dtype).reshape(shape)
    if not np.isfinite(array).all():
        raise ExportError(f"{shown(name)} has NaN or infinite values, expected finite ones")
    return array
