"""SpikingIR: image restoration with spiking neural networks.

To restore a photograph::

    restored = spikingir.Restorer.from_pretrained("denoise-color")("photo.jpg", sigma=20)

To make a spiking network of a network of your own, and to run it as it is deployed, with spikes of 0 and 1::

    snn = spikingir.convert(network, images, time_steps=10)
    spikingir.save_pretrained(snn, "mine.safetensors")
    restored = spikingir.Restorer(snn)("photo.jpg")

``report``, ``evaluate`` and ``paper_energy`` say what was converted, how well it restores, and what it costs; ``fold``
and ``export_network`` take it to other tools. ``dir(spikingir)`` lists all names, ``help(spikingir.Restorer)`` says
more of one, and ``spikingir --help`` lists the commands.
"""

# Names are imported on first use, so that `import spikingir` loads no torch. There is no __all__: help() would print
# every class in it whole, thousands of lines; "as" says to type checkers which names are offered.

from importlib import import_module
from typing import TYPE_CHECKING

from spikingir.version import __version__ as __version__

if TYPE_CHECKING:
    from spikingir.conversion.convert import convert as convert
    from spikingir.conversion.convert import correct_biases as correct_biases
    from spikingir.conversion.qcfs import QCFS as QCFS
    from spikingir.conversion.report import report as report
    from spikingir.deploy.fold import FoldError as FoldError
    from spikingir.deploy.fold import fold as fold
    from spikingir.deploy.folded import FoldedNetwork as FoldedNetwork
    from spikingir.deploy.rounding import round_weights as round_weights
    from spikingir.energy.paper import paper_energy as paper_energy
    from spikingir.errors import SpikingIRError as SpikingIRError
    from spikingir.evaluation.evaluate import evaluate as evaluate
    from spikingir.export.errors import ExportError as ExportError
    from spikingir.export.export import export_network as export_network
    from spikingir.export.export import import_network as import_network
    from spikingir.graph.errors import ConversionError as ConversionError
    from spikingir.networks.aodnet import AODNet as AODNet
    from spikingir.networks.dncnn import DnCNN as DnCNN
    from spikingir.photo.images import ImageError as ImageError
    from spikingir.restoration.restorer import Restoration as Restoration
    from spikingir.restoration.restorer import Restorer as Restorer
    from spikingir.spiking.network import SpikingNetwork as SpikingNetwork
    from spikingir.spiking.neurons import MPRN as MPRN
    from spikingir.spiking.neurons import IFNeuron as IFNeuron
    from spikingir.spiking.neurons import MembranePotentialReuseNeuron as MembranePotentialReuseNeuron
    from spikingir.spiking.readout import PixelMapper as PixelMapper
    from spikingir.store import StorageError as StorageError
    from spikingir.store import WeightsError as WeightsError
    from spikingir.store import from_pretrained as from_pretrained
    from spikingir.store import load_network as load_network
    from spikingir.store import save_network as save_network
    from spikingir.store import save_pretrained as save_pretrained
    from spikingir.zoo.catalogue import ModelError as ModelError

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


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*_HOMES, "__version__"])
