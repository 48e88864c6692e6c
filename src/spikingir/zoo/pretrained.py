"""Loading the networks of a model: one that ships, a folder or a file of one's own."""

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from spikingir.errors import InputError
from spikingir.networks.base import RestorationNetwork
from spikingir.spiking.network import Schedule, SpikingNetwork
from spikingir.store import from_pretrained, load_network
from spikingir.tasks import RENAMED, task_of
from spikingir.zoo import catalogue
from spikingir.zoo.catalogue import (
    ANN_FILE,
    CONFIG_FILE,
    Model,
    ModelError,
    Variant,
    choose_variant,
    model_names,
    read_model,
    read_shipped,
    require_model,
)

_DEFAULT_FILE = "snn.safetensors"


@dataclass(frozen=True)
class Pretrained:
    """A spiking network ready to run.

    Attributes:
        model: The model that it belongs to.
        network: The network, at the schedule and the time steps that were asked for.
        notes: What the user should know, see :func:`~spikingir.zoo.catalogue.choose_variant`.
    """

    model: Model
    network: SpikingNetwork
    notes: tuple[str, ...]


def open_model(model: str | os.PathLike[str]) -> Model:
    """The model of a name or a path.

    Args:
        model: Name of a model that ships, a folder with ``config.json`` or with files ``snn*.safetensors``, or a
            ``.safetensors`` file written by :func:`spikingir.save_pretrained`.

    Raises:
        ModelError: There is no such model, or its configuration is wrong.
        StorageError: A file does not hold a spiking network.
    """
    name, path = os.fspath(model), Path(model)
    require_model(name)
    if name in model_names():
        return read_shipped(name)
    if (path / CONFIG_FILE).is_file():
        return read_model(path)
    if path.is_dir():
        networks = sorted(path.glob("snn*.safetensors"))
        if not networks:
            raise ModelError(f"the folder {name} holds no {_DEFAULT_FILE}; expected one, or name the file itself")
        return _without_configuration(path, path.resolve().name, networks)
    return _without_configuration(path.parent, path.name, [path])


def load_spiking(
    model: str | os.PathLike[str], *, time_steps: int | None = None, schedule: Schedule | None = None
) -> Pretrained:
    """The spiking network of a model that serves a wish best.

    Args:
        model: See :func:`open_model`.
        time_steps: ``T``; as the network was trained unless given.
        schedule: ``clocked``, ``phased`` or a delay; as the model's default unless given.

    Raises:
        ModelError: There is no such model, or it cannot run like that.
        StorageError: The file does not hold a spiking network.
    """
    opened = open_model(model)
    choice = choose_variant(opened, schedule, time_steps)
    network = from_pretrained(opened.folder / choice.variant.file)
    try:
        network = network.at(time_steps=choice.time_steps, schedule=choice.schedule)
    except InputError as error:
        raise ModelError(f"{os.fspath(model)} cannot run like that: {error}") from None
    renamed = (
        (RENAMED[opened.name],) if opened.name in RENAMED and opened.folder == catalogue.SHIPPED / opened.name else ()
    )
    return Pretrained(opened, network, (*renamed, *choice.notes))


def load_ann(model: Model) -> RestorationNetwork | None:
    """The conventional network of a model, channels last, the fastest order on a CPU; None where it has none.

    Raises:
        WeightsError: The file does not hold a conventional network.
    """
    path = model.folder / ANN_FILE
    if not path.is_file():
        return None
    network: RestorationNetwork = load_network(path).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


def _without_configuration(folder: Path, name: str, paths: list[Path]) -> Model:
    """What the networks themselves tell of their model."""
    configs = {path.name: from_pretrained(path).config for path in paths}
    variants = tuple(Variant(file, c.schedule, c.time_steps, c.coding) for file, c in configs.items())
    default = _DEFAULT_FILE if _DEFAULT_FILE in configs else variants[0].file
    config = configs[default]
    return Model(
        folder,
        name,
        task_of(config.formation).name,
        config.channels,
        variants,
        default,
        takes_level=config.is_told_level,
    )
