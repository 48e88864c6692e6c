"""Who restores: the model's own networks, and every baseline that is made of, or trained beside, them."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from reproduce.ablation import noisy_calibration_images
from reproduce.classical import bm3d, dark_channel_prior, non_local_means
from spikingir.conversion.convert import METHODS as CONVERSIONS
from spikingir.conversion.convert import convert
from spikingir.data.calibration import hazy_calibration_images
from spikingir.data.errors import DataError
from spikingir.energy.paper import Energy, ann_energy, paper_energy
from spikingir.errors import SpikingIRError, UsageError
from spikingir.inputs import LevelError, told
from spikingir.networks.base import RestorationNetwork
from spikingir.restoration.maps import restore_by_network
from spikingir.restoration.restorer import Restorer
from spikingir.restoration.tiling import padded, trace_tiled
from spikingir.spiking.kinds import NEURONS, kind_of
from spikingir.spiking.network import Schedule, SpikingNetwork, Trace
from spikingir.store import TORCH_SUFFIXES, from_pretrained, load_network
from spikingir.tasks import TaskName as Task
from spikingir.tasks import task_of
from spikingir.zoo.catalogue import ANN_FILE, Model, ModelError, choose_variant
from spikingir.zoo.pretrained import load_ann, open_model

_WEIGHTS = (*TORCH_SUFFIXES, ".safetensors")


class UnavailableError(SpikingIRError):
    """A contender that cannot run here, because its weights or a package are not there; the text says which."""


class Restored(NamedTuple):
    """What restoring one image gave.

    Attributes:
        image: The restored image, (C, H, W), not clipped.
        trace: Spikes, of a spiking network.
        energy: Energy of a spiking network, as the paper counts it.
        ann_mj: Energy of the conventional network, likewise.
    """

    image: Tensor
    trace: Trace | None = None
    energy: Energy | None = None
    ann_mj: float | None = None


Contender = Callable[[Tensor], Restored]


def place(folder: Path | None) -> str | None:
    """Where a folder is, as kept answers name it."""
    return None if folder is None else str(folder.resolve())


@dataclass(frozen=True)
class Subject:
    """A task, and the model under test that is for it.

    Attributes:
        name: Name of the model.
        task: What it does.
        channels: Channels of its images.
        sigma: Level of the noise, of 255; None where none is added.
        model: The model; None where it does not ship.
        weights: Folder with the weights of baselines that were trained.
        data_root: Folder of the image collection, for images to calibrate on.
        file: File of a conventional network that stands alone, such as one that others trained.
    """

    name: str
    task: Task
    channels: int
    sigma: float | None
    model: Model | None
    weights: Path
    data_root: Path | None
    file: Path | None = None

    @classmethod
    def open(
        cls, name: str, models: Path | None, weights: Path, data_root: Path | None, sigma: float | None = None
    ) -> "Subject":
        """The subject of a name: ``denoise-gray-SIGMA``, ``dehaze-aodnet``, any model's, or a file of weights.

        Args:
            name: Name of a model, or path of a conventional network's weights, which need not be ours.
            models: Folder with models that go before those that ship.
            weights: Folder with a folder of baselines' weights for each model.
            data_root: Folder of the image collection.
            sigma: Level of the noise, of 255, for what does not name its own: models of many levels, and files.

        Raises:
            ModelError: There is no such model, and its name does not say what it would be for.
            UsageError: A file's denoiser without ``sigma``.
            WeightsError: A file that holds no conventional network that is known.
        """
        if Path(name).suffix in _WEIGHTS and Path(name).is_file():
            return cls._of_file(Path(name), weights, data_root, sigma)
        path = None if models is None else models / name
        try:
            model: Model | None = open_model(path if path is not None and path.is_dir() else name)
        except ModelError:
            model = None
            if name != "dehaze-aodnet" and not re.fullmatch(r"denoise-gray-\d+(\.\d+)?", name):
                raise
        if model is not None:
            task, channels = model.task, model.channels
            sigma = sigma if isinstance(model.sigma, tuple) else model.sigma
        elif name == "dehaze-aodnet":
            task, channels, sigma = "dehaze", 3, None
        else:
            task, channels, sigma = "denoise", 1, float(name.rsplit("-", 1)[1])
        return cls(name, task, channels, sigma, model, weights / name, data_root)

    @classmethod
    def _of_file(cls, file: Path, weights: Path, data_root: Path | None, sigma: float | None) -> "Subject":
        network = load_network(file)
        task = task_of(network.formation)
        if task.sigma_of is None:
            sigma = None
        elif sigma is None:
            raise UsageError(f"{file.name} does not say which level of noise it is for; give it with --sigma")
        return cls(file.name, task.name, network.channels, sigma, None, weights / file.stem, data_root, file)

    def identity(self) -> dict[str, Any]:
        """What its contenders depend on, as plain values: the model, digests of all weights, the image collection."""
        folders = [self.weights] if self.model is None else [self.model.folder, self.weights]
        files = [path for folder in folders for path in sorted(folder.glob("*.safetensors"))]
        files += [self.file] if self.file is not None else []
        return {
            "subject": self.name,
            "sigma": self.sigma,
            "networks": [] if self.model is None else [str(variant) for variant in self.model.variants],
            "weights": [sha256(path.read_bytes()).hexdigest() for path in files],
            "data_root": place(self.data_root),
        }

    def ann(self) -> RestorationNetwork:
        """Its conventional network.

        Raises:
            UnavailableError: It has none.
        """
        if self.file is not None:
            return load_network(self.file)
        if self.model is None:
            raise UnavailableError(f"{self.name} does not ship")
        network = load_ann(self.model)
        if network is None:
            raise _absent(self.model.folder / ANN_FILE)
        return network

    def calibration(self) -> Tensor:
        """Degraded images that conversions are calibrated on.

        Raises:
            UnavailableError: There are none.
        """
        if self.sigma is not None:
            return noisy_calibration_images(self.data_root, self.channels, self.sigma)[0]
        if self.data_root is None:
            raise UnavailableError("hazy images to calibrate on need the image collection")
        try:
            return hazy_calibration_images(self.data_root)
        except DataError as error:
            raise UnavailableError(str(error)) from error


@dataclass(frozen=True)
class Method:
    """A contender by name.

    Attributes:
        label: What it is called in a report.
        make: Makes it for a subject at so many time steps.
        spiking: Whether it has time steps.
        made_of: Method whose loss it is measured against: the network that it was made of; None where there is none.
        task: The only task it is for.
    """

    label: str
    make: Callable[[Subject, int | None], Contender]
    spiking: bool = False
    task: Task | None = None
    made_of: str | None = None

    def fits(self, task: Task) -> bool:
        """Whether it is for that task."""
        return self.task in (None, task)


def spiking_network(subject: Subject, method: str, time_steps: int | None) -> SpikingNetwork:
    """The spiking network of a method, as it is before folding.

    Raises:
        UnavailableError: Its weights are not there.
    """
    if method in _OWN:
        return _own(subject, _OWN[method], time_steps)
    if method in _TRAINED:
        network = from_pretrained(_existing(subject.weights / f"{method}.safetensors"))
        return network.at(time_steps=time_steps, schedule="clocked")
    steps = 10 if time_steps is None else time_steps
    how = _UNTRAINED.get(method, {"method": method})
    own = NEURONS[CONVERSIONS[how["method"]].neuron].adapts or "coding" in how  # what is found is for these steps alone
    network = _converted(subject, json.dumps(subject.identity()), method, steps if own else 1)
    return network.at(time_steps=steps)


@lru_cache(maxsize=2)
def _converted(subject: Subject, identity: str, method: str, time_steps: int) -> SpikingNetwork:
    """The conversion of a subject's conventional network; kept, for it is the same at other time steps."""
    ann, how = subject.ann(), _UNTRAINED.get(method, {"method": method})
    images = seen(subject.calibration(), ann.takes_level, subject.sigma)
    if NEURONS[CONVERSIONS[how["method"]].neuron].adapts:
        # it holds all spikes of all images at once; quantiles of millions of membranes need no more
        images = images[::4]
    return convert(ann, images, time_steps=time_steps, **how)


_TRAINED = ("qcfs", "dnsnn", "short")
_UNTRAINED: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "untrained": {"method": "spikingir"},
        "untrained-phased": {"method": "spikingir", "schedule": "phased"},
        "untrained-binary": {"method": "spikingir", "schedule": "phased", "coding": "binary"},
    }
)
"""Arguments of :func:`spikingir.convert` of what is ours, but not trained."""

_OWN: Mapping[str, Schedule] = MappingProxyType({"spikingir": "clocked", "phased": "phased"})


def _own(subject: Subject, schedule: Schedule, time_steps: int | None) -> SpikingNetwork:
    """A network of the model, of those trained on the schedule the one trained at the nearest T."""
    if subject.model is None:
        why = "does not ship" if subject.file is None else "is a conventional network alone"
        raise UnavailableError(f"{subject.name} {why}")
    choice = choose_variant(subject.model, schedule, time_steps)
    if choice.variant.schedule != schedule:
        raise UnavailableError(f"{subject.name} ships no network trained {schedule}")
    network = from_pretrained(subject.model.folder / choice.variant.file)
    own = choice.variant.time_steps
    if choice.variant.coding == "binary" and choice.time_steps != own:
        raise UnavailableError(f"{subject.name} has a binary network there, which runs at T = {own} alone")
    return network.at(time_steps=choice.time_steps, schedule=schedule)


def trained_steps(subject: Subject, method: str, time_steps: int | None) -> int | None:
    """``T`` that the network of a method was trained at by surrogate gradients; None of what was not."""
    if method in _OWN and subject.model is not None:
        return choose_variant(subject.model, _OWN[method], time_steps).variant.time_steps
    if method in ("dnsnn", "short"):
        return from_pretrained(_existing(subject.weights / f"{method}.safetensors")).config.time_steps
    return None


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise _absent(path)
    return path


def _absent(path: Path) -> UnavailableError:
    return UnavailableError(f"there is no {path.parent.name}/{path.name}; it has not been trained or does not ship")


def _spiking(method: str) -> Callable[[Subject, int | None], Contender]:
    def make(subject: Subject, time_steps: int | None) -> Contender:
        return run_spiking(spiking_network(subject, method, time_steps), subject.sigma)

    return make


def seen(images: Tensor, takes_level: bool, sigma: float | None) -> Tensor:
    """:func:`~spikingir.inputs.told`, but what is not known makes the contender unavailable."""
    try:
        return told(images, takes_level, sigma)
    except LevelError as error:
        raise UnavailableError(str(error)) from None


def run_spiking(network: SpikingNetwork, sigma: float | None = None) -> Contender:
    """A spiking network as a contender: in its deployment form where it has one (Lan's graded spikes have none).

    Args:
        network: The network.
        sigma: Level of the noise, of 255, for a network that is told it.
    """
    known = [kind_of(network.neuron(name)) for name in network.layers]
    takes_level = network.config.is_told_level
    if all(found is None or found[1].folds for found in known):
        restorer = Restorer(network)

        def restore_folded(image: Tensor) -> Restored:
            seen(image[None], takes_level, sigma)  # whether there is a level to tell
            restored, took = restorer.trace(image, sigma=sigma if takes_level else None)
            energy = paper_energy(restorer.network, took.trace)
            return Restored(restored, took.trace, energy, energy.ann_mj)

        return restore_folded

    def restore(image: Tensor) -> Restored:
        restored, trace = trace_tiled(network, padded(network, seen(image[None], takes_level, sigma)))
        energy = paper_energy(network, trace)
        return Restored(restored[0, :, : image.shape[1], : image.shape[2]], trace, energy, energy.ann_mj)

    return restore


def run_conventional(network: RestorationNetwork, sigma: float | None = None) -> Contender:
    """A conventional network as a contender.

    Args:
        network: The network.
        sigma: Level of the noise, of 255, for a network that is told it.
    """

    @torch.inference_mode()
    def restore(image: Tensor) -> Restored:
        size = (image.shape[-2], image.shape[-1])
        restored = restore_by_network(network, seen(image[None], network.takes_level, sigma))
        return Restored(restored[0], ann_mj=ann_energy(network, size))

    return restore


def _conventional(load: Callable[[Subject], RestorationNetwork]) -> Callable[[Subject, int | None], Contender]:
    return lambda subject, _: run_conventional(load(subject), subject.sigma)


def _quantised(subject: Subject, time_steps: int | None) -> Contender:
    """QCFS's own network: its spiking one on the phased schedule, at as many steps as it has levels."""
    network = from_pretrained(_existing(subject.weights / "qcfs.safetensors"))
    return run_spiking(network.at(schedule="phased"), subject.sigma)


def _classical(restore: Callable[[Tensor, float], Tensor], package: str) -> Callable[[Subject, int | None], Contender]:
    def make(subject: Subject, time_steps: int | None) -> Contender:
        sigma = subject.sigma or 0.0

        def run(image: Tensor) -> Restored:
            try:
                return Restored(restore(image, sigma))
            except ModuleNotFoundError as error:
                raise UnavailableError(f"{package} is not installed") from error

        return run

    return make


METHODS: Mapping[str, Method] = MappingProxyType(
    {
        "degraded": Method("degraded image", lambda subject, _: Restored),
        "nlm": Method("non-local means", _classical(non_local_means, "scikit-image"), task="denoise"),
        "bm3d": Method("BM3D", _classical(bm3d, "bm3d"), task="denoise"),
        "dcp": Method("dark channel prior", _classical(lambda image, _: dark_channel_prior(image), ""), task="dehaze"),
        "ann": Method("ANN", _conventional(Subject.ann)),
        "control": Method(
            "ANN, trained on (control)",
            _conventional(lambda subject: load_network(_existing(subject.weights / "control.safetensors"))),
            made_of="ann",
        ),
        "rueckauer": Method("Rueckauer", _spiking("rueckauer"), spiking=True, made_of="ann"),
        "lan": Method("Lan (reconstruction)", _spiking("lan"), spiking=True, made_of="ann"),
        "qcfs-ann": Method("QCFS, its own quantised ANN", _quantised),
        "qcfs": Method("QCFS (Bu)", _spiking("qcfs"), spiking=True, made_of="qcfs-ann"),
        "dnsnn": Method("DnSNN", _spiking("dnsnn"), spiking=True, made_of="ann"),
        "short": Method(
            "SpikingIR, clocked, with DnSNN's steps (control)", _spiking("short"), spiking=True, made_of="ann"
        ),
        "if": Method("IF, v0 = 1/2", _spiking("if"), spiking=True, made_of="ann"),
        "untrained": Method("SpikingIR, clocked, not trained", _spiking("untrained"), spiking=True, made_of="ann"),
        "untrained-phased": Method(
            "SpikingIR, phased, not trained", _spiking("untrained-phased"), spiking=True, made_of="ann"
        ),
        "untrained-binary": Method(
            "SpikingIR, phased and binary, not trained", _spiking("untrained-binary"), spiking=True, made_of="ann"
        ),
        "spikingir": Method("SpikingIR, clocked", _spiking("spikingir"), spiking=True, made_of="ann"),
        "phased": Method("SpikingIR, phased", _spiking("phased"), spiking=True, made_of="ann"),
    }
)
"""The methods by name, in the order of reports."""


def label(method: str, time_steps: int | None) -> str:
    """Name of a contender in reports: ``SpikingIR, clocked, T = 10``."""
    return METHODS[method].label + ("" if time_steps is None else f", T = {time_steps}")
