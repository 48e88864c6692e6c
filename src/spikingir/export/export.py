"""Write a network in a format of other tools, read it back, and measure what differs from the folded network."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from torch import Tensor

from spikingir.deploy.fold import fold
from spikingir.deploy.folded import FoldedNetwork
from spikingir.deploy.unfold import unfold
from spikingir.environment import install_command
from spikingir.export.drift import Drift, measure, sample_images, spikes_of
from spikingir.export.errors import ExportError
from spikingir.files import write_atomically
from spikingir.plugins import Registry
from spikingir.spiking.network import SpikingNetwork, check_input

Format = str
"""A key of :data:`FORMATS`."""

Written = tuple[bytes, Drift, tuple[str, ...]]
"""What is in a file, what differs when it is run, and what the format cannot say."""


@dataclass(frozen=True)
class FileFormat:
    """A format of other tools.

    Attributes:
        suffix: How the name of a file ends.
        write: Makes the content of a file from a folded network and a sample, and runs it on the sample.
        packages: Packages that it needs; the extra of the format's name has them.
        install: What installs them; that extra unless given.
        read: Makes a folded network of a file again, in the errors of :func:`spikingir.import_network`; None where
            the format says too little for that.
    """

    suffix: str
    write: Callable[[FoldedNetwork, Tensor], Written]
    packages: tuple[str, ...] = ()
    install: str = ""
    read: Callable[[Path], FoldedNetwork] | None = None


@dataclass(frozen=True)
class Export:
    """A file that was written.

    Attributes:
        path: Where it is.
        drift: What differs between the folded network and the file, run on a sample.
        notes: What the format cannot say, and what stands for it; sentences.
    """

    path: Path
    drift: Drift
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Import:
    """A network that was read.

    Attributes:
        network: The network, to save, restore with or train further.
        drift: What differs between the file and the network as it is deployed, run on a sample.
    """

    network: SpikingNetwork
    drift: Drift


def export_network(
    network: SpikingNetwork | FoldedNetwork,
    path: str | Path,
    to: Format,
    *,
    sample: Tensor | None = None,
    overwrite: bool = False,
) -> Export:
    """Write a folded network for another tool, and run what was written.

    ``npz``: arrays and the graph as JSON, read by :func:`spikingir.export.npz.load_npz`. ``onnx``: integers, run by
    onnxruntime; the phased schedule alone. ``torch``: a program of ``torch.export``. ``nir``: the spiking body at steps
    1..T, for the size of the sample; the clocked schedule alone. All but ``nir`` give the folded network's image.

    Args:
        network: A spiking network, which is folded, or a folded one.
        path: File to write; its folder must be there.
        to: The format.
        sample: Images on which the drift is measured; one of 64 x 64 random values unless given.
        overwrite: Whether an existing file is replaced.

    Shape:
        ``sample``: (B, C, H, W) in [0, 1], with the noise level as last channel where the network reads one.

    Raises:
        ExportError: The format cannot hold the network; an extra is not installed; no such format; another suffix.
        FoldError: The network has no deployment form.
        InputError: A sample that the network does not take.
        FileExistsError: The file exists and ``overwrite`` is false.
    """
    path = Path(path)
    if to not in FORMATS:
        raise ExportError(f"the format is {to!r}; expected {', '.join(FORMATS)}")
    format = FORMATS[to]
    if path.suffix.lower() != format.suffix:
        raise ExportError(f"{path} is no name for the format {to}; expected one that ends in {format.suffix}")
    for package in format.packages:
        try:
            import_module(package)
        except ModuleNotFoundError:
            raise _missing(to, package) from None
    folded = fold(network).eval() if isinstance(network, SpikingNetwork) else network
    if folded.theta.device.type != "cpu":
        folded = copy.deepcopy(folded).cpu()
    image = sample_images(folded) if sample is None else sample.detach().cpu().float().contiguous()
    check_input(folded.config, image.shape)
    content, drift, notes = format.write(folded, image)
    write_atomically(path, lambda file: file.write(content), overwrite=overwrite)
    return Export(path, drift, notes)


def import_network(path: str | Path, source: Format, *, sample: Tensor | None = None) -> Import:
    """Read a network that :func:`export_network` wrote, or another tool has changed since, as a spiking network.

    Spikes of steps 1..T are those of the file, images are but for their last bits. Those of the extended step are but
    for weights that depend on more bits of ``beta`` than a file has. A NIR file has no extended step.

    Args:
        path: The file.
        source: Its format: npz, nir, spikingjelly, or one of :data:`FORMATS` that can be read.
        sample: As for :func:`export_network`.

    Raises:
        ExportError: The file is damaged or holds something else; no such format, or one that cannot be read.
        FoldError: A neuron that no spiking network has.
        FileNotFoundError: There is no such file.
    """
    readable = [name for name, format in FORMATS.items() if format.read is not None]
    read = FORMATS[source].read if source in FORMATS else None
    if read is None:
        raise ExportError(f"the format is {source!r}; those that can be read are {', '.join(readable)}")
    try:
        folded = read(Path(path))
    except ModuleNotFoundError as error:
        if error.name not in FORMATS[source].packages:
            raise
        raise _missing(source, error.name) from None
    network = unfold(folded)
    image = sample_images(folded) if sample is None else sample.detach().cpu().float().contiguous()
    check_input(folded.config, image.shape)
    return Import(network, measure(spikes_of(folded, image), *spikes_of(fold(network), image)))


def _missing(format: Format, package: str) -> ExportError:
    install = FORMATS[format].install or install_command(f"spikingir[{format}]")
    return ExportError(f"the format {format} needs the package {package}; install it with: {install}")


def _npz(network: FoldedNetwork, image: Tensor) -> Written:
    from spikingir.export.npz import npz_content, read_npz

    content = npz_content(network)
    return content, measure(spikes_of(network, image), *spikes_of(read_npz(content), image)), ()


def _onnx(network: FoldedNetwork, image: Tensor) -> Written:
    from spikingir.export.onnx import onnx_content, run_onnx

    content = onnx_content(network)
    return content, measure(spikes_of(network, image), *run_onnx(content, image, list(network.clocks))), ()


def _torch(network: FoldedNetwork, image: Tensor) -> Written:
    from spikingir.export.program import program_content, run_program

    content = program_content(network, image)
    return content, measure(spikes_of(network, image), run_program(content, image), None), ()


def _spikingjelly(network: FoldedNetwork, image: Tensor) -> Written:
    from spikingir.export.spikingjelly import run_spikingjelly, spikingjelly_content

    content, notes = spikingjelly_content(network)
    restored, spikes = run_spikingjelly(content, image)
    return content, measure(spikes_of(network, image), None if notes else restored, spikes), notes


def _nir(network: FoldedNetwork, image: Tensor) -> Written:
    from spikingir.export.nir import nir_content, read_nir

    content, notes = nir_content(network, (image.shape[-2], image.shape[-1]))
    _, spikes = spikes_of(read_nir(content), image)
    return content, measure(spikes_of(network, image), None, spikes), notes


def _load_npz(path: Path) -> FoldedNetwork:
    from spikingir.export.npz import load_npz

    return load_npz(path)


def _load_nir(path: Path) -> FoldedNetwork:
    from spikingir.export.nir import load_nir

    return load_nir(path)


def _load_spikingjelly(path: Path) -> FoldedNetwork:
    from spikingir.export.spikingjelly import load_spikingjelly

    return load_spikingjelly(path)


FORMATS: Registry[FileFormat] = Registry(
    "spikingir.exports",
    "export format",
    FileFormat,
    lambda name, write, **options: FileFormat(write=write, **options),
    {
        "npz": FileFormat(".npz", _npz, read=_load_npz),
        "onnx": FileFormat(".onnx", _onnx, ("onnx", "onnxruntime")),
        "torch": FileFormat(".pt2", _torch),
        "nir": FileFormat(".nir", _nir, ("nir",), read=_load_nir),
        # it asks for torchvision, which it does without
        "spikingjelly": FileFormat(
            ".py",
            _spikingjelly,
            ("spikingjelly",),
            install=install_command("spikingjelly", alone=True),
            read=_load_spikingjelly,
        ),
    },
)
"""The formats by name. A package of one's own adds to them by a decorator or an entry point
(:mod:`spikingir.plugins`)."""
