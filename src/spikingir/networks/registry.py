"""The networks that are known, and their weights: built by name, recognised in a file, saved.

Names and shapes of a file's tensors alone say which network they are, so that a user's own ``.pth`` loads.
"""

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import Tensor

from spikingir.errors import InputError, SpikingIRError
from spikingir.networks.aodnet import AODNet, recognise_aodnet
from spikingir.networks.base import Recognised, RestorationNetwork
from spikingir.networks.dncnn import DnCNN, recognise_dncnn
from spikingir.networks.multiscale import MultiScaleNet, recognise_multiscale
from spikingir.networks.weightfile import read_weights, write_weights

_VERSION = 1
_HEADER_KEYS = ("kind", "version", "architecture", "options")


class WeightsError(SpikingIRError, ValueError):
    """A file of weights that cannot be used: its name, what was found, what was expected, what to do."""


@dataclass(frozen=True)
class Architecture:
    """What is to know about a network without building it.

    Attributes:
        name: Key in :data:`ARCHITECTURES`, and in the header of saved weights.
        purpose: What the network does to an image.
        channels: Channel counts it can be built for.
        builder: The network's class.
        recognise: Reads the network out of a file's named tensors; None where they are another network's.
        paper: Where the network was published.
        licence: SPDX name of the licence of this implementation; published weights have their own.
        multiple: Height and width must be multiples of this.
        smallest: Least height and width, in pixels.
    """

    name: str
    purpose: Literal["denoise", "dehaze"]
    channels: tuple[int, ...]
    builder: Callable[..., RestorationNetwork]
    recognise: Callable[[Mapping[str, Tensor]], Recognised | None]
    paper: str
    licence: str = "Apache-2.0"
    multiple: int = 1
    smallest: int = 1


ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType(
    {
        "dncnn": Architecture(
            name="dncnn",
            purpose="denoise",
            channels=(1, 3),
            builder=DnCNN,
            recognise=recognise_dncnn,
            paper="Zhang et al., Beyond a Gaussian Denoiser, IEEE TIP 26(7), 2017",
        ),
        "aodnet": Architecture(
            name="aodnet",
            purpose="dehaze",
            channels=(3,),
            builder=AODNet,
            recognise=recognise_aodnet,
            paper="Li et al., AOD-Net: All-in-One Dehazing Network, ICCV 2017",
        ),
        "multiscale": Architecture(
            name="multiscale",
            purpose="denoise",
            channels=(1, 3),
            builder=MultiScaleNet,
            recognise=recognise_multiscale,
            paper="none; docs/method.md",
        ),
    }
)


def build_network(name: str, **options: Any) -> RestorationNetwork:
    """Build a network by name, with torch's default initialisation.

    Args:
        name: A key of :data:`ARCHITECTURES`.
        **options: Arguments of the network's class; what is left out has its default.

    Raises:
        ValueError: An unknown name or option, or a value of the wrong type or out of range.

    Example:
        >>> build_network("dncnn", channels=3, layers=20).options["width"]
        64
    """
    architecture = _architecture(name)
    parameters = inspect.signature(architecture.builder).parameters
    for key, value in options.items():
        if key not in parameters:
            raise InputError(f"{name} has no option {key!r}{_nearest(key, parameters)}")
        kind = type(parameters[key].default)
        if kind is tuple and isinstance(value, list):
            options[key] = value = tuple(value)
        if type(value) is not kind:
            raise InputError(f"{key} is {value!r}; {name} expects a value of type {kind.__name__}")
    if (channels := options.get("channels")) is not None and channels not in architecture.channels:
        known = " or ".join(map(str, architecture.channels))
        raise InputError(f"channels is {channels}; {name} is for images of {known}")
    return architecture.builder(**options)


def describe(network: RestorationNetwork) -> dict[str, Any]:
    """Name and options from which :func:`build_network` builds the same network.

    Returns:
        ``{"architecture": name, "options": {...}}``, plain values that JSON can hold.

    Raises:
        ValueError: The network is of no known architecture.
    """
    for architecture in ARCHITECTURES.values():
        if type(network) is architecture.builder:
            return {"architecture": architecture.name, "options": network.options}
    raise InputError(f"{type(network).__name__} is of no known architecture; known: {_known()}")


def save_network(network: RestorationNetwork, path: str | Path, *, dtype: torch.dtype | None = None) -> None:
    """Write weights, name and options as safetensors; the file is complete or absent, whatever interrupts.

    The header is ``{"kind": "network", "version": 1, "architecture": name, "options": {...}}``.

    Args:
        network: A network of a known architecture.
        path: Ends in ``.safetensors``; missing folders are made.
        dtype: Storage type of the kernels, which are nearly all of the file; the rest stays as it is. Reading gives
            float32 again.

    Raises:
        WeightsError: Another suffix, or weights that are not finite as stored.
        ValueError: The network is of no known architecture.
        OSError: The file cannot be written.
    """
    header = {"kind": "network", "version": _VERSION, **describe(network)}
    tensors = network.state_dict()
    if dtype is not None:
        tensors |= {name: tensor.to(dtype) for name, tensor in tensors.items() if tensor.dim() == 4}
    try:
        write_weights(Path(path), tensors, header)
    except ValueError as error:
        raise WeightsError(f"{path}: {error}") from None


def load_network(path: str | Path) -> RestorationNetwork:
    """Read a network from a file of weights: one that :func:`save_network` wrote, or a published one.

    The architecture and its options come from our header, or else from the tensors' names and shapes. Known
    are the conventions listed at :func:`~spikingir.networks.dncnn.recognise_dncnn` and
    :func:`~spikingir.networks.aodnet.recognise_aodnet`, also inside the usual wrappers
    (``{"state_dict": ...}``, ``{"params": ...}``, ``module.``) and in our training checkpoints, whose moving
    average is taken. Only tensors and plain values are read, never code.

    Args:
        path: ``.pth``, ``.pt`` or ``.ckpt`` of torch, or ``.safetensors``.

    Returns:
        The network in evaluation mode, on the CPU, in float32.

    Raises:
        WeightsError: The file is missing, damaged, needs code to be read, holds another network's weights, or
            values that are not finite.
    """
    try:
        tensors, header = read_weights(Path(path))
        architecture, recognised = _recognise(tensors, header)
        return _fill(architecture, recognised)
    except ValueError as error:
        raise WeightsError(f"{path}: {error}") from error.__cause__


def _check_header(header: Mapping[str, Any]) -> None:
    """Every key there, none besides, of this version, of a known architecture."""
    if "neurons" in header:
        raise ValueError("it holds a spiking network already, which spikingir.from_pretrained reads")
    if header.get("kind") != "network":
        raise ValueError(f"it holds a {header.get('kind')!r}, expected a 'network'")
    if header.get("version") != _VERSION:
        raise ValueError(f"its header has version {header.get('version')!r}, expected {_VERSION}; update spikingir")
    for key in header:
        if key not in _HEADER_KEYS:
            raise ValueError(f"its header has an unknown key {key!r}{_nearest(key, _HEADER_KEYS)}")
    _architecture(header.get("architecture"))
    if not isinstance(header.get("options"), dict):
        raise ValueError(f"its header has options {header.get('options')!r}, expected a mapping; save it again")


def _recognise(tensors: Mapping[str, Tensor], header: Mapping[str, Any] | None) -> tuple[Architecture, Recognised]:
    if header is not None:
        _check_header(header)
    candidates = ARCHITECTURES.values() if header is None else [ARCHITECTURES[header["architecture"]]]
    for architecture in candidates:
        if (found := architecture.recognise(tensors)) is None:
            continue
        if header is None:
            return architecture, found
        asked = {key: tuple(v) if isinstance(v, list) else v for key, v in header["options"].items()}
        # The tensors bound what the header can ask for, so that a forged one cannot have a giant built.
        if not found.options.items() <= asked.items():
            raise ValueError(f"its header says {header['options']}, but its tensors are those of {found.options}")
        return architecture, found._replace(options=asked)
    some = ", ".join(list(tensors)[:4]) + (", ..." if len(tensors) > 4 else "")
    claim = f"its header says {header['architecture']}, but " if header else ""
    raise ValueError(
        f"{claim}its {len(tensors)} tensors ({some}) are not those of a known network; "
        f"expected weights of one of {_known()}"
    )


def _fill(architecture: Architecture, recognised: Recognised) -> RestorationNetwork:
    """The network with its weights, after every name and shape has been compared."""
    # On the meta device nothing is allocated before the comparison, and the global generator is not advanced.
    with torch.device("meta"):
        network = build_network(architecture.name, **recognised.options)
    expected, state, source = network.state_dict(), recognised.state, recognised.source
    intro = f"it looks like {architecture.name} {recognised.options or ''}".rstrip()
    for name, tensor in expected.items():
        if name not in state:
            raise ValueError(f"{intro}, but {source.get(name, name)} is missing; fetch or export it again")
        if state[name].shape != tensor.shape:
            found, wanted = tuple(state[name].shape), tuple(tensor.shape)
            raise ValueError(
                f"{intro}, but {source.get(name, name)} has shape {found}, expected {wanted}; "
                f"give weights of one of {_known()}"
            )
    for name in state:
        if name not in expected:
            raise ValueError(f"{intro}, but {source.get(name, name)} has no place there; give weights of {_known()}")
    network.to_empty(device="cpu")
    network.load_state_dict(state, strict=True)
    return network.eval()


def _architecture(name: object) -> Architecture:
    if not isinstance(name, str) or name not in ARCHITECTURES:
        raise InputError(f"unknown architecture {name!r}; known: {_known()}")
    return ARCHITECTURES[name]


def _known() -> str:
    return ", ".join(f"{name} ({architecture.purpose})" for name, architecture in ARCHITECTURES.items())


def _nearest(word: str, known: Iterable[str]) -> str:
    known = list(known)
    near = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known) or 'none'}"
