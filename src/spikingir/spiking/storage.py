"""A spiking network in one safetensors file: the tensors, and in the header everything else as JSON.

Nothing in a file is ever run: a graph is a list of operations of a closed set, and a neuron one of three kinds.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from spikingir.errors import SpikingIRError
from spikingir.files import write_atomically
from spikingir.spiking.graph import LINEAR, Node
from spikingir.spiking.network import SpikingConfig, SpikingNetwork, require_spiking
from spikingir.spiking.neurons import IFNeuron, MembranePotentialReuseNeuron
from spikingir.spiking.readout import PixelMapper

FORMAT, VERSION = "spikingir.SpikingNetwork", 1


class StorageError(SpikingIRError, ValueError):
    """A file that is not a spiking network, or one that cannot be kept; the text says which and what to do."""


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
        StorageError: The network holds functions of its own on the raw image, or neurons of a kind that is
            not kept.
        FileExistsError: The file exists and ``overwrite`` is false.
        TypeError: It is no spiking network.
    """
    require_spiking(network)
    if network.raw:
        raise StorageError(
            f"'{next(iter(network.raw))}' is a function of your own on the image, which a file cannot hold; "
            "apply it before the network"
        )
    # a network that shares its parameters (SpikingNetwork.at) may hold some that its own nodes do not name
    used = {f"{kind}.{name}" for name in network.weights for kind in ("weight", "bias")}
    tensors = {
        name: tensor.detach().contiguous()
        for name, tensor in network.state_dict().items()
        if name in used or not name.startswith(("weight.", "bias."))
    }
    if dtype is not None:
        tensors |= {name: tensor.to(dtype) for name, tensor in tensors.items() if _is_kernel(name, tensor)}
    write_atomically(path, lambda file: file.write(save(tensors, {"spikingir": _header(network)})), overwrite=overwrite)


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
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, OSError) as error:
        raise StorageError(f"{path} cannot be read as safetensors ({error}); it is damaged or another format") from None
    if "spikingir" not in metadata:
        raise StorageError(f"{path} holds weights of something else; expected a network saved by save_pretrained")
    try:
        header = json.loads(metadata["spikingir"])
        if header.get("kind") == "network":
            raise StorageError(f"{path} holds a conventional network; spikingir.convert makes a spiking one of it")
        if header["format"] != FORMAT or header["version"] != VERSION:
            raise StorageError(
                f"{path} holds {header['format']} version {header['version']}; expected {FORMAT} version {VERSION}"
            )
        network = _build(header, tensors)
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        if isinstance(error, StorageError):
            raise
        raise StorageError(f"{path} does not hold a spiking network ({type(error).__name__}: {error})") from None
    return network.eval()


def _is_kernel(name: str, tensor: Tensor) -> bool:
    """The mapper's is small, and every pixel passes through it."""
    return tensor.dim() == 4 and name.startswith("weight.")


def _header(network: SpikingNetwork) -> str:
    neurons = {}
    for name in network.layers:
        neuron = network.neuron(name)
        if type(neuron) not in (IFNeuron, MembranePotentialReuseNeuron):
            raise StorageError(f"neuron '{name}' is a {type(neuron).__name__}, which is not kept in files")
        settings: dict[str, Any] = {"v0": neuron.v0, "signed": neuron.signed, "surrogate": neuron.surrogate}
        if neuron.extended:
            settings["alpha"] = neuron.alpha
        if neuron.activation_bits is not None:
            settings["activation_bits"] = neuron.activation_bits
        neurons[name] = settings
    header = {
        "format": FORMAT,
        "version": VERSION,
        "config": asdict(network.config),
        "nodes": [asdict(node) for node in network.nodes],
        "neurons": neurons,
        "mapper": network.mapper is not None,
        "origin": network.origin,
    }
    return json.dumps(header)


def _build(header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> SpikingNetwork:
    nodes = [_node(entry) for entry in header["nodes"]]
    # stored in half precision, used in single
    state = {name: tensor.float() if tensor.dtype.itemsize == 2 else tensor for name, tensor in tensors.items()}
    neurons: dict[str, IFNeuron] = {}
    for name, settings in header["neurons"].items():
        theta = torch.ones(state[f"neurons.{name}.log_threshold"].shape)
        kind = MembranePotentialReuseNeuron if "alpha" in settings else IFNeuron
        bits = settings.pop("activation_bits", None)
        neurons[name] = kind(theta, **settings)
        neurons[name].activation_bits = bits
    # in the body's order, not a set's: it is that of the parameters, by which optimisers know their moments
    names = dict.fromkeys(node.weights for node in nodes if node.weights is not None)
    weights = {name: (state[f"weight.{name}"], state.get(f"bias.{name}")) for name in names}
    mapper = PixelMapper(state["mapper.weight"].shape[0]) if header["mapper"] else None
    config = SpikingConfig(**header["config"])
    origin = [(place, what, fate) for place, what, fate in header["origin"]]
    network = SpikingNetwork(nodes, weights, neurons, config, mapper, origin=origin)
    network.to(next(iter(state.values())).dtype)
    network.load_state_dict(state)
    return network


def _node(entry: Mapping[str, Any]) -> Node:
    """A node from JSON, whose lists were tuples."""
    if entry["op"] not in LINEAR and entry["op"] not in ("input", "neuron"):
        raise StorageError(f"unknown operation {entry['op']!r}; the file was written by a newer version")
    options = {key: tuple(value) if isinstance(value, list) else value for key, value in entry["options"].items()}
    return Node(entry["name"], entry["op"], tuple(entry["inputs"]), options, entry["weights"])
