"""Restoration networks as a body (becomes spiking) and an image formation step (stays analog)."""

from spikingir.networks.aodnet import AODNet
from spikingir.networks.base import RestorationNetwork
from spikingir.networks.dncnn import DnCNN
from spikingir.networks.registry import (
    ARCHITECTURES,
    Architecture,
    build_network,
    describe,
)

__all__ = [
    "ARCHITECTURES",
    "AODNet",
    "Architecture",
    "DnCNN",
    "RestorationNetwork",
    "build_network",
    "describe",
]
