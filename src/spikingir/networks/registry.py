"""The networks that are known: built by name, described, recognised by their tensors."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from torch import Tensor

from spikingir.errors import InputError
from spikingir.networks.aodnet import AODNet, recognise_aodnet
from spikingir.networks.base import Recognised, RestorationNetwork
from spikingir.networks.dncnn import DnCNN, recognise_dncnn
from spikingir.networks.multiscale import MultiScaleNet, recognise_multiscale
from spikingir.plugins import Registry
from spikingir.schema import Range, SchemaError, check, nearest, shown


@dataclass(frozen=True)
class Architecture:
    """What is to know about a network without building it.

    Attributes:
        name: Key in :data:`ARCHITECTURES`, and in the header of saved weights.
        channels: Channel counts it can be built for.
        builder: The network's class.
        recognise: Reads the network out of a file's named tensors; None where they are another network's.
        paper: Where the network was published.
        licence: SPDX name of the licence of this implementation; published weights have their own.
        limits: Bounds of its options that are numbers, or lists of them.
    """

    name: str
    channels: tuple[int, ...]
    builder: Callable[..., RestorationNetwork]
    recognise: Callable[[Mapping[str, Tensor]], Recognised | None]
    paper: str
    licence: str = "Apache-2.0"
    limits: Mapping[str, Range] = field(default_factory=dict)


_WIDTH = Range(1, 4096)

ARCHITECTURES: Registry[Architecture] = Registry(
    "spikingir.networks",
    "network",
    Architecture,
    lambda name, builder, **options: Architecture(name=name, builder=builder, **options),
    {
        "dncnn": Architecture(
            name="dncnn",
            channels=(1, 3),
            builder=DnCNN,
            recognise=recognise_dncnn,
            paper="Zhang et al., Beyond a Gaussian Denoiser, IEEE TIP 26(7), 2017",
            limits=MappingProxyType({"layers": Range(3, 256), "width": _WIDTH}),
        ),
        "aodnet": Architecture(
            name="aodnet",
            channels=(3,),
            builder=AODNet,
            recognise=recognise_aodnet,
            paper="Li et al., AOD-Net: All-in-One Dehazing Network, ICCV 2017",
        ),
        "multiscale": Architecture(
            name="multiscale",
            channels=(1, 3),
            builder=MultiScaleNet,
            recognise=recognise_multiscale,
            paper="none; docs/method.md",
            limits=MappingProxyType({"width": _WIDTH, "blocks": Range(0, 64), "activation_bits": Range(1, 8)}),
        ),
    },
)
"""The networks by name. A package of one's own adds to them by a decorator or an entry point
(:mod:`spikingir.plugins`)."""


def build_network(name: str, **options: Any) -> RestorationNetwork:
    """Build a network by name, with torch's default initialisation.

    Args:
        name: A key of :data:`ARCHITECTURES`.
        **options: Arguments of the network's class; what is left out has its default.

    Raises:
        SchemaError: An unknown name or option, or a value of the wrong type or out of range.

    Example:
        >>> build_network("dncnn", channels=3, layers=20).options["width"]
        64
    """
    architecture = _architecture(name)
    parameters = inspect.signature(architecture.builder).parameters
    for key, value in options.items():
        if key not in parameters:
            raise SchemaError(f"{name} has no option {shown(key)}{nearest(key, parameters)}")
        options[key] = _option(architecture, key, value, type(parameters[key].default))
    if (channels := options.get("channels")) is not None and channels not in architecture.channels:
        known = " or ".join(map(str, architecture.channels))
        raise SchemaError(f"channels is {channels}; {name} is for images of {known}")
    try:
        return architecture.builder(**options)
    except InputError as error:  # what the network itself refuses: options that do not go together
        raise SchemaError(str(error)) from None


def _option(architecture: Architecture, key: str, value: Any, kind: type) -> Any:
    """An option's value, of the type of its default; a list of whole numbers where that is one."""
    found = check(tuple[int, ...] if kind is tuple else kind, value, f"option {key!r} of {architecture.name}")
    if (limit := architecture.limits.get(key)) is not None:
        for number in found if isinstance(found, tuple) else (found,):
            limit.require(number, f"option {key!r} of {architecture.name}")
    return found


def describe(network: RestorationNetwork) -> dict[str, Any]:
    """Name and options from which :func:`build_network` builds the same network.

    Returns:
        ``{"architecture": name, "options": {...}}``, plain values that JSON can hold.

    Raises:
        InputError: The network is of no known architecture.
    """
    for _, architecture in ARCHITECTURES.usable():
        if type(network) is architecture.builder:
            return {"architecture": architecture.name, "options": network.options}
    raise InputError(f"{type(network).__name__} is of no known architecture; known: {known_architectures()}")


def _architecture(name: str) -> Architecture:
    if name not in ARCHITECTURES:
        raise SchemaError(f"unknown architecture {shown(name)}{nearest(name, ARCHITECTURES)}")
    return ARCHITECTURES[name]


def known_architectures() -> str:
    """Names of the known networks."""
    return ", ".join(ARCHITECTURES)
