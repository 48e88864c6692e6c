"""SpikingIR: image restoration with spiking neural networks.

To restore a photograph::

    restored = spikingir.Restorer.from_pretrained("denoise-color")("photo.jpg", sigma=20)

To make a spiking network of a network of your own, and to run it as it is deployed, with spikes of 0 and 1::

    snn = spikingir.convert(network, images, time_steps=10)
    spikingir.save_pretrained(snn, "mine.safetensors")
    restored = spikingir.Restorer(snn)("photo.jpg")

``report``, ``evaluate`` and ``paper_energy`` say what was converted, how well it restores, and what it costs; ``fold``
and ``export_network`` take it to other tools. ``help(spikingir.Restorer)`` says more; ``spikingir --help``
lists the commands. Public names are imported on first use, so that ``import spikingir`` loads no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from spikingir.version import __version__

if TYPE_CHECKING:
    from spikingir.conversion.convert import convert, correct_biases
    from spikingir.conversion.qcfs import QCFS
    from spikingir.conversion.report import report
    from spikingir.deploy.fold import FoldError, fold
    from spikingir.deploy.folded import FoldedNetwork
    from spikingir.deploy.rounding import round_weights
    from spikingir.energy.paper import paper_energy
    from spikingir.errors import SpikingIRError
    from spikingir.evaluation.evaluate import evaluate
    from spikingir.export.errors import ExportError
    from spikingir.export.export import export_network, import_network
    from spikingir.graph.errors import ConversionError
    from spikingir.networks.aodnet import AODNet
    from spikingir.networks.dncnn import DnCNN
    from spikingir.photo.images import ImageError
    from spikingir.restoration.restorer import Restoration, Restorer
    from spikingir.spiking.network import SpikingNetwork
    from spikingir.spiking.neurons import MPRN, IFNeuron, MembranePotentialReuseNeuron
    from spikingir.spiking.readout import PixelMapper
    from spikingir.store import StorageError, WeightsError, from_pretrained, load_network, save_network, save_pretrained
    from spikingir.zoo.catalogue import ModelError

_HOMES = {
    "AODNet": "spikingir.networks.aodnet",
    "ConversionError": "spikingir.graph.errors",
    "DnCNN": "spikingir.networks.dncnn",
    "ExportError": "spikingir.export.errors",
    "FoldError": "spikingir.deploy.fold",
    "FoldedNetwork": "spikingir.deploy.folded",
    "IFNeuron": "spikingir.spiking.neurons",
    "ImageError": "spikingir.photo.images",
    "MPRN": "spikingir.spiking.neurons",
    "MembranePotentialReuseNeuron": "spikingir.spiking.neurons",
    "ModelError": "spikingir.zoo.catalogue",
    "PixelMapper": "spikingir.spiking.readout",
    "QCFS": "spikingir.conversion.qcfs",
    "Restoration": "spikingir.restoration.restorer",
    "Restorer": "spikingir.restoration.restorer",
    "SpikingIRError": "spikingir.errors",
    "SpikingNetwork": "spikingir.spiking.network",
    "StorageError": "spikingir.store",
    "WeightsError": "spikingir.store",
    "convert": "spikingir.conversion.convert",
    "correct_biases": "spikingir.conversion.convert",
    "evaluate": "spikingir.evaluation.evaluate",
    "export_network": "spikingir.export.export",
    "fold": "spikingir.deploy.fold",
    "from_pretrained": "spikingir.store",
    "import_network": "spikingir.export.export",
    "load_network": "spikingir.store",
    "paper_energy": "spikingir.energy.paper",
    "report": "spikingir.conversion.report",
    "round_weights": "spikingir.deploy.rounding",
    "save_network": "spikingir.store",
    "save_pretrained": "spikingir.store",
}

__all__ = [
    "MPRN",
    "QCFS",
    "AODNet",
    "ConversionError",
    "DnCNN",
    "ExportError",
    "FoldError",
    "FoldedNetwork",
    "IFNeuron",
    "ImageError",
    "MembranePotentialReuseNeuron",
    "ModelError",
    "PixelMapper",
    "Restoration",
    "Restorer",
    "SpikingIRError",
    "SpikingNetwork",
    "StorageError",
    "WeightsError",
    "__version__",
    "convert",
    "correct_biases",
    "evaluate",
    "export_network",
    "fold",
    "from_pretrained",
    "import_network",
    "load_network",
    "paper_energy",
    "report",
    "round_weights",
    "save_network",
    "save_pretrained",
]


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
