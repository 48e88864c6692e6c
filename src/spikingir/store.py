"""Every weights file: one format, one reader, one writer, for conventional and for spiking networks.

The format is specified in ``docs/format.md``: tensors by name, and in the header everything else as JSON. Weights of
others are read too (torch's files, safetensors): names and shapes of their tensors alone say which network they are.
Nothing in a file is ever run.
"""

import json
import pickle
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from spikingir.errors import InputError
from spikingir.files import write_atomically
from spikingir.graph.graph import Graph, Node
from spikingir.graph.node_schema import node_from_json, node_to_json, output_shape
from spikingir.networks.base import Recognised, RestorationNetwork
from spikingir.networks.registry import ARCHITECTURES, Architecture, build_network, describe, known_architectures
from spikingir.schema import Range, SchemaError, nearest, parse, shown
from spikingir.spiking.coding import levels
from spikingir.spiking.formation import form_image
from spikingir.spiking.kinds import NEURONS, kind_of
from spikingir.spiking.network import SpikingConfig, SpikingNetwork, require_spiking
from spikingir.spiking.neurons import IFNeuron
from spikingir.spiking.readout import PixelMapper

FORMAT, VERSION = "spikingir", 2
TORCH_SUFFIXES = (".pth", ".pt", ".ckpt")
SUFFIXES = (*TORCH_SUFFIXES, ".safetensors")
MAX_BYTES = 2 * 2**30
"""Most bytes that an archive of weights may unpack to, unless the caller allows more."""

_HEADER = "spikingir"
_MOST_NODES = 10_000
_GROWTH = 64  # a wire has at most so many times the rows and columns of the image
_SIDES = (64, 128, 256, 360, 96, 100, 32, 512, 5040)  # a network need not take every size, but one of these
# Moving averages come first: where a checkpoint has both, they are what its author evaluates.
_WRAPPERS = ("params_ema", "average", "params", "state_dict", "model_state_dict", "network", "model", "net")
_PREFIXES = re.compile(r"^(?:module\.|_orig_mod\.)+")  # DataParallel and moving averages; torch.compile
_CODE = re.compile(r"(?:GLOBAL|[Gg]lobal|class|function) ([A-Za-z_][\w]*(?:\.\w+)+)")


class StorageError(InputError):
    """A file of weights that cannot be used or written: its name, what was found, what was expected, what to do."""


WeightsError = StorageError

Head = TypeVar("Head", "_Conventional", "_Spiking")


@dataclass(frozen=True)
class _Conventional:
    """Header of a conventional network."""

    format: Literal["spikingir"]
    version: Literal[2]
    kind: Literal["conventional"]
    architecture: str
    options: Mapping[str, Any]


@dataclass(frozen=True)
class _Spiking:
    """Header of a spiking network."""

    format: Literal["spikingir"]
    version: Literal[2]
    kind: Literal["spiking"]
    config: SpikingConfig
    nodes: tuple[Mapping[str, Any], ...]
    neurons: Mapping[str, Any]
    mapper: bool
    origin: tuple[tuple[str, str, str], ...] = ()
    shares: Mapping[str, Annotated[float, Range(0, 1)]] = field(default_factory=dict)


def save_network(network: RestorationNetwork, path: str | Path, *, dtype: torch.dtype | None = None) -> None:
    """Write a conventional network; the file is complete or absent, whatever interrupts.

    Args:
        network: A network of a known architecture.
        path: Ends in ``.safetensors``; missing folders are made, a file that is there is replaced.
        dtype: Storage type of the kernels, which are nearly all of the file; the rest stays as it is. Reading gives
            float32 again.

    Raises:
        StorageError: Another suffix, weights that are not finite as stored, or what :func:`load_network` would refuse.
        ValueError: The network is of no known architecture.
        OSError: The file cannot be written.
    """
    header = {"format": FORMAT, "version": VERSION, "kind": "conventional", **describe(network)}
    tensors = {name: _stored(name, tensor, dtype) for name, tensor in network.state_dict().items()}
    path = Path(path)
    try:
        content = _content(path, tensors, header)
        _conventional(json.loads(json.dumps(header)), _float32(tensors))
    except SchemaError as error:
        raise StorageError(f"{path}: {error}") from None
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda file: file.write(content), overwrite=True)


def load_network(path: str | Path, *, max_bytes: int = MAX_BYTES) -> RestorationNetwork:
    """Read a conventional network: one that :func:`save_network` wrote, or a published one.

    The architecture and its options come from our header, or else from the tensors' names and shapes. Known
    are the conventions listed at :func:`~spikingir.networks.dncnn.recognise_dncnn` and
    :func:`~spikingir.networks.aodnet.recognise_aodnet`, also inside the usual wrappers
    (``{"state_dict": ...}``, ``{"params": ...}``, ``module.``) and in our training checkpoints, whose moving
    average is taken. Only tensors and plain values are read, never code.

    Args:
        path: ``.pth``, ``.pt`` or ``.ckpt`` of torch, or ``.safetensors``.
        max_bytes: Most bytes that a torch archive, which may be compressed, may unpack to.

    Returns:
        The network in evaluation mode, on the CPU, in float32.

    Raises:
        StorageError: The file is missing, damaged, needs code to be read, unpacks to more than ``max_bytes``, holds
            another network's weights, or values that are not finite.
    """
    network = _load(Path(path), max_bytes)
    if isinstance(network, SpikingNetwork):
        raise StorageError(f"{path}: it holds a spiking network already, which spikingir.from_pretrained reads")
    return network


def save_pretrained(
    network: SpikingNetwork, path: str | Path, *, overwrite: bool = False, dtype: torch.dtype | None = None
) -> None:
    """Write a spiking network, complete or not at all.

    Args:
        network: The network.
        path: File to write, ``.safetensors``.
        overwrite: Whether an existing file is replaced.
        dtype: Storage type of the kernels, which are nearly all of the file; the rest stays as it is. Reading gives
            float32 again; float16 keeps 8 times the precision of bfloat16.

    Raises:
        StorageError: The network holds functions of its own on the raw image, neurons of a kind that is not kept in
            files, or anything else that :func:`from_pretrained` would refuse.
        FileExistsError: The file exists and ``overwrite`` is false.
        TypeError: It is no spiking network.
    """
    require_spiking(network)
    path = Path(path)
    try:
        header = _describe_spiking(network)
        # a network that shares its parameters (SpikingNetwork.at) may hold some that its own nodes do not name
        used = {f"{kind}.{name}" for name in network.weights for kind in ("weight", "bias")}
        tensors = {
            name: _stored(name, tensor, dtype if name.startswith("weight.") else None)
            for name, tensor in network.state_dict().items()
            if name in used or not name.startswith(("weight.", "bias."))
        }
        content = _content(path, tensors, header)
        _spiking(json.loads(json.dumps(header)), tensors)
    except SchemaError as error:
        raise StorageError(f"{path}: {error}") from None
    write_atomically(path, lambda file: file.write(content), overwrite=overwrite)


def from_pretrained(path: str | Path) -> SpikingNetwork:
    """Read a spiking network written by :func:`save_pretrained`, in eval mode.

    Raises:
        FileNotFoundError: There is no such file.
        StorageError: The file is truncated, no safetensors file, or holds something else.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}; expected a spiking network saved by save_pretrained")
    try:
        tensors, header = _read_safetensors(path)
        if header is None:
            raise SchemaError("it holds weights of something else; expected a network saved by save_pretrained")
        if header.get("kind") == "conventional":
            raise SchemaError("it holds a conventional network; spikingir.convert makes a spiking one of it")
        return _spiking(header, tensors)
    except SchemaError as error:
        raise StorageError(f"{path}: {error}") from None


def load_any(path: str | Path) -> RestorationNetwork | SpikingNetwork:
    """Read a network of either kind, as :func:`load_network` and :func:`from_pretrained` do.

    Raises:
        StorageError: The file holds neither.
    """
    return _load(Path(path), MAX_BYTES)


def _load(path: Path, max_bytes: int) -> RestorationNetwork | SpikingNetwork:
    try:
        suffix = path.suffix.lower()
        if not path.is_file():
            raise SchemaError(f"there is no such file; expected weights ({', '.join(SUFFIXES)}), check the name")
        if suffix not in SUFFIXES:
            raise SchemaError(f"{suffix or 'a name without suffix'} is not known; expected {', '.join(SUFFIXES)}")
        if suffix in TORCH_SUFFIXES:
            return _conventional(None, _named_tensors(read_torch(path, max_bytes)))
        tensors, header = _read_safetensors(path)
        if header is not None and header.get("kind") == "spiking":
            return _spiking(header, tensors)
        return _conventional(header, _named_tensors(tensors))
    except SchemaError as error:
        raise StorageError(f"{path}: {error}") from None


# --- bytes ---


def _content(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> bytes:
    """A safetensors file.

    The header is one entry of the metadata, as JSON: safetensors writes several entries in random order, and the same
    weights must give the same file.
    """
    if path.suffix.lower() != ".safetensors":
        raise SchemaError("weights are saved as safetensors; expected a name that ends in .safetensors")
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise SchemaError(f"{name} has NaN or infinite values, expected finite ones; nothing is written")
    return save(dict(tensors), {_HEADER: json.dumps(header)})


def _stored(name: str, tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    """A tensor as it is stored; kernels alone take another type, the mapper's is small and every pixel meets it."""
    plain = tensor.detach().cpu().contiguous()
    return plain.to(dtype) if dtype is not None and plain.dim() == 4 else plain


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    """Tensors of a file and its header as of today's version; None in a file that is not ours."""
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(_HEADER)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError, ValueError, RuntimeError, TypeError, AttributeError) as error:
        # what it says of types that torch has not, and of files that are cut, is not of one class
        raise _unreadable("a safetensors file", _first_line(error)) from error
    return tensors, None if text is None else _current(_json(text))


def _json(text: str) -> dict[str, Any]:
    """A JSON object without NaN and infinity, whose keys are there once."""

    def refuse(constant: str) -> object:
        raise SchemaError(f"its {_HEADER} header holds {constant}; expected finite numbers")

    def table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [key for key, _ in pairs]
            twice = next(key for key in names if names.count(key) > 1)
            raise SchemaError(f"its {_HEADER} header has the key {shown(twice)} twice; keep one")
        return found

    try:
        header = json.loads(text, parse_constant=refuse, object_pairs_hook=table)
    except SchemaError:
        raise
    except (ValueError, RecursionError):  # a number of thousands of digits is a plain ValueError
        header = None
    if not isinstance(header, dict):
        raise SchemaError(f"its {_HEADER} header is {text[:60]!r}, expected a JSON object; save it again")
    return header


def _current(header: dict[str, Any]) -> dict[str, Any]:
    """A header of version 1, which had one form for each kind of network, in that of today; others as they are."""
    if header.get("format") == "spikingir.SpikingNetwork" and header.get("version") == 1:
        found = header | {"format": FORMAT, "version": VERSION, "kind": "spiking"}
        neurons = header.get("neurons")
        if isinstance(neurons, dict):
            found["neurons"] = {
                name: {"kind": "mprn" if "alpha" in settings else "if", **settings}
                if isinstance(settings, dict)
                else settings
                for name, settings in neurons.items()
            }
        return found
    if "format" not in header and header.get("kind") == "network" and header.get("version") == 1:
        return header | {"format": FORMAT, "version": VERSION, "kind": "conventional"}
    return header


def _parse_header(kind: type[Head], header: Mapping[str, Any]) -> Head:
    """A header by its schema, after what another program or version would have."""
    for key, wanted, advice in (("format", FORMAT, ""), ("version", VERSION, "; update spikingir")):
        if header.get(key) != wanted:
            raise SchemaError(f"its header has {key} {shown(header.get(key))}, expected {wanted!r}{advice}")
    try:
        return parse(kind, header, "")
    except SchemaError as error:
        raise SchemaError(f"its header is wrong: {error}") from None


def read_torch(path: Path, max_bytes: int) -> object:
    """What a file of torch's holds: tensors and plain values, never code.

    Raises:
        SchemaError: It is damaged, needs code to be read, or unpacks to more than ``max_bytes``.
    """
    expected = "what torch.save writes"
    entries: list[zipfile.ZipInfo] | None = None
    try:
        if zipfile.is_zipfile(path):  # in Python 3.11 this may raise, too
            with zipfile.ZipFile(path) as archive:
                entries = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise _unreadable(expected, _first_line(error)) from error
    if entries is not None:
        if any(Path(entry.filename).name == "constants.pkl" for entry in entries):
            raise SchemaError(
                "it is a TorchScript program, which is refused; save network.state_dict() of the network that it was "
                "made from"
            )
        if (size := sum(entry.file_size for entry in entries)) > max_bytes:
            raise SchemaError(
                f"it unpacks to {size / 2**30:.2f} GiB, more than the limit of {max_bytes / 2**30:g} GiB; where you "
                "trust it, raise the limit (max_bytes of load_network, --max-gib of spikingir convert)"
            )
    try:
        with path.open("rb") as file:
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes make the reader raise almost anything
        if not isinstance(error, pickle.UnpicklingError):
            raise _unreadable(expected, _first_line(error)) from error
        # Torch's own text advises weights_only=False, which runs what is in the file: it is not passed on.
        if code := _CODE.search(str(error)):
            raise SchemaError(
                f"it can only be read by running code ({code[1]}), which is refused; expected tensors alone: "
                "where you trust the file, open it with the program that wrote it and save network.state_dict()"
            ) from None
        raise _unreadable(expected, "its pickle is not one of tensors") from None


def _first_line(error: Exception) -> str:
    line = str(error).split("\n", 1)[0]
    return type(error).__name__ if not line or "weights_only" in line else line


def _unreadable(expected: str, reason: str) -> SchemaError:
    return SchemaError(
        f"it cannot be read ({reason}); expected {expected}, but it is truncated, damaged or something else; "
        "fetch or export it again"
    )


# --- tensors ---


def _named_tensors(content: object) -> dict[str, Tensor]:
    """Tensors by name in float32 (but whole numbers that count batches), freed from wrappers and their prefixes."""
    for _ in range(3):  # bounded, because a file may hold a mapping that contains itself
        if not isinstance(content, Mapping):
            break
        content = next((content[key] for key in _WRAPPERS if isinstance(content.get(key), Mapping)), content)
    if not isinstance(content, Mapping) or not content:
        kind = "an empty mapping" if isinstance(content, Mapping) else f"a {type(content).__name__}"
        raise SchemaError(f"it holds {kind}, expected tensors by name; save network.state_dict()")
    tensors: dict[str, Tensor] = {}
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            found = f"an entry {key!r} of type {type(value).__name__}"
            raise SchemaError(f"it has {found}, expected tensors by name alone; save network.state_dict()")
        name = _PREFIXES.sub("", key)
        if name == "n_averaged":  # the counter of torch's AveragedModel
            continue
        if name in tensors:
            raise SchemaError(f"{name!r} is there twice, with and without a wrapper's prefix; keep one")
        tensors[name] = value
    return _float32(tensors)


def _float32(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: _plain(name, tensor) for name, tensor in tensors.items()}


def _plain(name: str, tensor: Tensor) -> Tensor:
    if tensor.layout is not torch.strided or tensor.is_meta or tensor.is_nested:
        raise SchemaError(f"{name!r} is a tensor without plain values ({tensor.layout}); expected a dense one")
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        # A small file can claim a tensor larger than the memory, by strides of zero.
        raise SchemaError(f"{name!r} of shape {tuple(tensor.shape)} has fewer values than that in the file")
    if name.endswith("num_batches_tracked"):
        return tensor.detach()
    return _finite(name, _finite(name, tensor).detach().float())  # a double may exceed what float32 holds


def _finite(name: str, tensor: Tensor) -> Tensor:
    if not tensor.is_floating_point():
        raise SchemaError(f"{name!r} is of type {tensor.dtype}, expected floating point")
    if not torch.isfinite(tensor).all():
        raise SchemaError(f"{name!r} has NaN or infinite values, expected finite ones; fetch or train it again")
    return tensor


def _compare(
    expected: Mapping[str, Tensor], found: Mapping[str, Tensor], source: Mapping[str, str], intro: str, advice: str
) -> None:
    """Every tensor of a network is there, of its shape, and none besides."""
    for name, tensor in expected.items():
        if name not in found:
            raise SchemaError(f"{intro}, but {source.get(name, name)} is missing; fetch or export it again")
        if found[name].shape != tensor.shape:
            shapes = f"{tuple(found[name].shape)}, expected {tuple(tensor.shape)}"
            raise SchemaError(f"{intro}, but {source.get(name, name)} has shape {shapes}; {advice}")
    for name in found:
        if name not in expected:
            raise SchemaError(f"{intro}, but {source.get(name, name)} has no place there; {advice}")


# --- conventional networks ---


def _conventional(header: Mapping[str, Any] | None, tensors: Mapping[str, Tensor]) -> RestorationNetwork:
    """A network of its tensors, after every name and shape has been compared."""
    architecture, recognised = _recognise(tensors, None if header is None else _parse_header(_Conventional, header))
    # On the meta device nothing is allocated before the comparison, and the global generator is not advanced.
    with torch.device("meta"):
        network = build_network(architecture.name, **recognised.options)
    intro = f"it looks like {architecture.name} {recognised.options or ''}".rstrip()
    advice = f"give weights of one of {known_architectures()}"
    _compare(network.state_dict(), recognised.state, recognised.source, intro, advice)
    network.to_empty(device="cpu")
    network.load_state_dict(recognised.state, strict=True)
    return network.eval()


def _recognise(tensors: Mapping[str, Tensor], header: _Conventional | None) -> tuple[Architecture, Recognised]:
    if header is not None and header.architecture not in ARCHITECTURES:
        name = shown(header.architecture)
        raise SchemaError(
            f"its header has the unknown architecture {name}{nearest(header.architecture, ARCHITECTURES)}"
        )
    candidates = [found for _, found in ARCHITECTURES.usable()]
    if header is not None:
        candidates = [ARCHITECTURES[header.architecture]]
    for architecture in candidates:
        if (found := architecture.recognise(tensors)) is None:
            continue
        if header is None:
            return architecture, found._replace(options={**found.guessed, **found.options})
        asked = {key: tuple(v) if isinstance(v, list) else v for key, v in header.options.items()}
        # The tensors bound what the header can ask for, so that a forged one cannot have a giant built.
        if not found.options.items() <= asked.items():
            raise SchemaError(f"its header says {shown(header.options)}, but its tensors are those of {found.options}")
        return architecture, found._replace(options=asked)
    some = ", ".join(list(tensors)[:4]) + (", ..." if len(tensors) > 4 else "")
    claim = f"its header says {header.architecture}, but " if header else ""
    raise SchemaError(
        f"{claim}its {len(tensors)} tensors ({some}) are not those of a known network; "
        f"expected weights of one of {known_architectures()}"
    )


# --- spiking networks ---


def _describe_spiking(network: SpikingNetwork) -> dict[str, Any]:
    """Header of a spiking network."""
    if network.raw:
        raise SchemaError(
            f"'{next(iter(network.raw))}' is a function of your own on the image, which a file cannot hold; "
            "apply it before the network"
        )
    neurons: dict[str, Any] = {}
    for name in network.layers:
        neuron = network.neuron(name)
        known = kind_of(neuron)
        if known is None or known[1].settings is None:
            raise SchemaError(f"neuron '{name}' is of class {type(neuron).__name__}, which is not kept in files")
        neurons[name] = {"kind": known[0], **known[1].to_json(neuron)}
    config = {
        field.name: value
        for field in fields(SpikingConfig)
        # a key that came later is written only where it says something, so that older programs read the rest
        if (value := getattr(network.config, field.name)) != field.default or field.name in _CONFIG
    }
    return {
        "format": FORMAT,
        "version": VERSION,
        "kind": "spiking",
        "config": config,
        "nodes": [node_to_json(node) for node in network.nodes],
        "neurons": neurons,
        "mapper": network.mapper is not None,
        "origin": network.origin,
        **({"shares": network.shares} if network.shares else {}),
    }


_CONFIG = ("time_steps", "schedule", "formation", "channels", "recycling", "method")


def _spiking(header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> SpikingNetwork:
    """A network of a header and tensors, after all of it has been checked: settings, order, names, shapes, channels."""
    head = _parse_header(_Spiking, header)
    try:
        nodes = _nodes(head.nodes)
        state = _spiking_state(tensors)
        network = _assemble(head, nodes, state)
        _require_channels(network)
    except SchemaError as error:
        raise SchemaError(f"it is no spiking network that can run: {error}") from None
    return network.eval()


def _nodes(entries: Sequence[Mapping[str, Any]]) -> list[Node]:
    """Operations in an order in which each reads earlier ones; the first is the image and the last a neuron."""
    if not 2 <= len(entries) <= _MOST_NODES:
        raise SchemaError(f"nodes has {len(entries)}; expected 2 to {_MOST_NODES}")
    nodes = [node_from_json(entry, f"nodes[{i}]") for i, entry in enumerate(entries)]
    all_names = [node.name for node in nodes]
    seen: set[str] = set()
    for i, node in enumerate(nodes):
        if node.name in seen:
            raise SchemaError(f"nodes[{i}].name is {node.name!r}, as an earlier one is; expected another")
        if (node.op == "input") != (i == 0):
            raise SchemaError(f"nodes[{i}].op is {node.op!r}; expected the input first, and nowhere else")
        for name in node.inputs:
            if name not in seen:
                why = "which comes no earlier: a cycle, or a wrong order" if name in all_names else "which is no node"
                raise SchemaError(f"nodes[{i}].inputs: {node.name!r} reads {shown(name)}, {why}")
        seen.add(node.name)
    if nodes[-1].op != "neuron":
        raise SchemaError(f"nodes ends with {nodes[-1].op!r}; expected the output neuron")
    return nodes


def _spiking_state(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors as they run: stored in half precision, used in single; all of one type."""
    state = {
        name: tensor.float() if tensor.dtype.itemsize == 2 else tensor
        for name, tensor in ((name, _finite(name, tensor)) for name, tensor in tensors.items())
    }
    types = {tensor.dtype for tensor in state.values()}
    if len(types) != 1 or not types <= {torch.float32, torch.float64}:
        raise SchemaError(f"its tensors are of types {sorted(map(str, types))}; expected float32 or float64 alone")
    return state


def _assemble(head: _Spiking, nodes: Sequence[Node], state: Mapping[str, Tensor]) -> SpikingNetwork:
    """The network, its tensors compared by name and shape."""

    def tensor(name: str, dimensions: int) -> Tensor:
        if name not in state:
            raise SchemaError(f"the tensor {name} is missing")
        if state[name].dim() != dimensions or not state[name].numel():
            raise SchemaError(f"{name} has shape {tuple(state[name].shape)}; expected {dimensions} dimensions")
        return state[name]

    layers = [node.name for node in nodes if node.op == "neuron"]
    if set(layers) != set(head.neurons):
        odd = min(set(layers) ^ set(head.neurons))
        raise SchemaError(f"neurons: {odd!r} is {'missing' if odd in layers else 'no neuron of the nodes'}")
    neurons = {
        name: _neuron(settings, tensor(f"neurons.{name}.log_threshold", 1), f"neurons.{name}")
        for name, settings in head.neurons.items()
    }
    # in the body's order, not a set's: it is that of the parameters, by which optimisers know their moments
    weights: dict[str, tuple[Tensor, Tensor | None]] = {}
    for node in nodes:
        if node.weights is not None:
            bias = f"bias.{node.weights}"
            weight = tensor(f"weight.{node.weights}", node.operation.weight_dimensions)
            weights[node.weights] = (weight, tensor(bias, 1) if bias in state else None)
    for name, neuron in neurons.items():
        try:
            levels(head.config.coding, head.config.time_steps, neuron.activation_bits)
        except InputError as error:
            raise SchemaError(f"neurons.{name}: {error}") from None
    mapper = None
    if head.mapper:
        kernel = tensor("mapper.weight", 4)
        if kernel.shape != (len(kernel), len(kernel), 3, 3):
            raise SchemaError(f"mapper.weight has shape {tuple(kernel.shape)}; expected (C, C, 3, 3)")
        mapper = PixelMapper(len(kernel))
    network = SpikingNetwork(
        Graph(tuple(nodes), weights, origin=head.origin, shares=head.shares), neurons, head.config, mapper
    )
    network.to(next(iter(state.values())).dtype)
    _compare(network.state_dict(), state, {}, "by its header", "save it again")
    network.load_state_dict(dict(state))
    return network


def _neuron(settings: object, log_threshold: Tensor, where: str) -> IFNeuron:
    """A neuron of a registered kind; its tensors are loaded later."""
    if not isinstance(settings, Mapping):
        raise SchemaError(f"{where} is {shown(settings)}; expected a table")
    name = settings.get("kind")
    known = {key for key, kind in NEURONS.usable() if kind.settings is not None}
    if not isinstance(name, str) or name not in known:
        raise SchemaError(f"{where}.kind is {shown(name)}{nearest(name, sorted(known))}")
    rest = {key: value for key, value in settings.items() if key != "kind"}
    return NEURONS[name].from_json(torch.ones(log_threshold.shape), rest, where)


def _require_channels(network: SpikingNetwork) -> None:
    """The operations fit together for an image of some size, and thresholds, biases, mapper and formation fit them."""
    refused: list[SchemaError] = []
    for side in _SIDES:
        try:
            return _require_fit(network, side)
        except SchemaError as error:  # strides and shuffles want certain multiples
            refused.append(error)
    raise refused[0]


def _require_fit(network: SpikingNetwork, side: int) -> None:
    shapes = {network.nodes[0].name: (network.config.input_channels, side, side)}
    for node in network.nodes[1:]:
        weight, bias = (None, None) if node.weights is None else network.weights[node.weights]
        kernel = () if weight is None else tuple(weight.shape)
        shapes[node.name] = output_shape(node, [shapes[name] for name in node.inputs], kernel)
        channels, height, width = shapes[node.name]
        if max(height, width) > _GROWTH * side or channels > 65536:
            raise SchemaError(
                f"{node.name!r} makes {channels} channels of {height} x {width} of an image of {side} pixels a side; "
                f"expected at most 65536 channels of {_GROWTH} times the side"
            )
        if bias is not None and bias.numel() not in ((1, channels) if node.op == "affine" else (channels,)):
            raise SchemaError(f"bias.{node.weights} has {bias.numel()} values for {channels} channels")
        if node.op == "neuron" and (found := network.neuron(node.name).log_threshold.numel()) not in (1, channels):
            raise SchemaError(f"neurons.{node.name} has {found} thresholds for {channels} channels; expected one each")
    channels, height, width = shapes[network.nodes[-1].name]
    if network.mapper is not None and network.mapper.in_channels != channels:
        raise SchemaError(f"the mapper is for {network.mapper.in_channels} channels; the output has {channels}")
    formation = network.config.formation
    try:
        blank = network.config.formed_from(torch.zeros(1, network.config.input_channels, 1, 1))
        form_image(formation, blank, torch.zeros(1, channels, 1, 1))
        fits = formation == "identity" or height == width == side
    except (InputError, RuntimeError):  # what torch says of shapes that do not go together
        fits = False
    if not fits:
        raise SchemaError(
            f"an output of {channels} channels of {height} x {width} does not fit the formation {formation!r} for "
            f"images of {network.config.input_channels} channels of {side} x {side}"
        )
