"""The choice between the two ways to run a folded network, which give the same bits."""

import logging
import os
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from spikingir.deploy.folded import FoldedNetwork
from spikingir.deploy.integers import NotNativeError
from spikingir.errors import SpikingIRError
from spikingir.spiking.network import WHOLE, Trace, Window

if TYPE_CHECKING:
    from spikingir.deploy.native import NativeNetwork

Engine = Literal["auto", "native", "torch"]

ISA = "SPIKINGIR_ISA"
"""Variable of the environment that names the instructions for the native engine to use: avx512, avxvnni, avx2 or
portable. Without it they are the best that the processor has. The results are the same."""

_made: "WeakKeyDictionary[FoldedNetwork, NativeNetwork]" = WeakKeyDictionary()


class EngineError(SpikingIRError):
    """The engine that was asked for cannot do it; the text says why."""


def native_available() -> bool:
    """Whether the native engine was built when SpikingIR was installed."""
    return find_spec("spikingir.deploy._native") is not None


def restore(network: FoldedNetwork, image: Tensor, *, engine: Engine = "auto") -> Tensor:
    """Restored image, not clipped: what ``network(image)`` gives, bit for bit, whatever the engine.

    Args:
        network: A folded network. The engine prepares its weights once: do not change them afterwards.
        image: Degraded image.
        engine: ``native`` follows the spikes on the CPU, ``torch`` simulates all of them; ``auto`` is native where
            that can be done, and says once why where it cannot.

    Shape:
        (B, C, H, W) to the same.

    Raises:
        EngineError: ``native`` was asked for and is not there, or cannot run the network; no such engine.
        ValueError: An image that the network does not take.
    """
    native = _native(network, image, engine)
    return network(image) if native is None else native.restore(network, image)


def trace(
    network: FoldedNetwork, image: Tensor, *, engine: Engine = "auto", trains: bool = False
) -> tuple[Tensor, Trace]:
    """Restored image and what every layer did: ``network.trace(image, trains=trains)``, bit for bit.

    Args:
        network: See :func:`restore`, as the other arguments and errors.
        image: Degraded image.
        engine: Engine.
        trains: Whether to keep the spikes themselves (memory: one byte per neuron and step).
    """
    native = _native(network, image, engine)
    return network.trace(image, trains=trains) if native is None else native.trace(network, image, trains=trains)


def count(
    network: FoldedNetwork, image: Tensor, within: Mapping[str, Window], *, engine: Engine = "auto"
) -> tuple[Tensor, Trace]:
    """Restored image, and the spikes in a window of each layer: :func:`trace` at the cost of :func:`restore`.

    The native engine counts spikes where they are and keeps no residual membranes, (B, 0) in the trace. Torch keeps
    the spikes of all layers while it runs, unless each window is the whole layer.

    Args:
        network: See :func:`restore`, as the other arguments and errors.
        image: Degraded image.
        within: Rows and columns of each layer.
        engine: Engine.
    """
    native = _native(network, image, engine)
    if native is not None:
        return native.count(network, image, within)
    restored, trace = network.trace(image, trains=any(window != WHOLE for window in within.values()))
    return restored, trace.within(within)


def bytes_per_pixel(network: FoldedNetwork, engine: Engine = "auto") -> float | None:
    """Memory that :func:`restore` and :func:`count` take beside the image, natively; None where torch will run it."""
    native = _native(network, network.theta, engine)
    return None if native is None else native.bytes_per_pixel


def _native(network: FoldedNetwork, image: Tensor, engine: Engine) -> "NativeNetwork | None":
    if engine == "torch":
        return None
    if engine not in ("auto", "native"):
        raise EngineError(f"engine is {engine!r}; expected auto, native or torch")
    try:
        native = _prepared(network, image.device)
        if image.dim() == 4 and not native.takes((image.shape[-2], image.shape[-1])):
            raise NotNativeError(f"an image of {image.shape[-2]} x {image.shape[-1]} makes it pad or crop spikes")
        return native
    except NotNativeError as error:
        if engine == "native":
            raise EngineError(f"the native engine cannot run this: {error}; torch can") from None
        _say(str(error))
        return None


def _prepared(network: FoldedNetwork, device: torch.device) -> "NativeNetwork":
    if not native_available():
        raise NotNativeError("it was not built when SpikingIR was installed, which takes a C++20 compiler")
    if device.type != "cpu" or network.theta.device.type != "cpu":
        raise NotNativeError(f"the image is on {device}, the network on {network.theta.device}")
    from spikingir.deploy import _native
    from spikingir.deploy.native import NativeNetwork, require_current

    require_current()
    path, known = os.environ.get(ISA, ""), _native.paths()
    if path not in ("", *known):
        raise EngineError(f"{ISA} is {path!r}; this processor has {', '.join(known)}")
    if network not in _made or _made[network].path != path:
        _made[network] = NativeNetwork(network, path)
    return _made[network]


@cache
def _say(reason: str) -> None:
    # a command line tells its user once, and not at every run
    more = {"once": True}
    logging.getLogger(__name__).warning(
        "restoring with torch, not with the faster native engine: %s", reason, extra=more
    )
