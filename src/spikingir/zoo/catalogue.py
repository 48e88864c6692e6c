"""The models: what ships, what a model says of itself, and which of its networks serves a wish. Needs no torch.

A model is a folder: ``ann.safetensors``, the conventional network; one spiking network or several, each trained at a
clock of its own; ``config.json``, which lists them.
"""

import difflib
import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from spikingir.errors import SpikingIRError
from spikingir.schema import Range, SchemaError, parse
from spikingir.spiking.schedule import Coding, Schedule
from spikingir.tasks import TASKS, Task, TaskName, find_task

_LEVELS = Range(0, 255)
_Sigma = Annotated[int, _LEVELS] | Annotated[float, _LEVELS]

SHIPPED = Path(__file__).parent / "models"
"""Folder of the models that ship."""

CONFIG_FILE = "config.json"
ANN_FILE = "ann.safetensors"


class ModelError(SpikingIRError, ValueError):
    """There is no such model, or it does not fit the image or the time steps; the text says what does."""


@dataclass(frozen=True)
class Variant:
    """One spiking network of a model.

    Attributes:
        file: Name of its file.
        schedule: Schedule that it was trained on.
        time_steps: ``T`` that it was trained at.
        coding: ``unary``, or ``binary``: such a network runs at that ``T`` alone.
    """

    file: str
    schedule: Schedule
    time_steps: int
    coding: Coding = "unary"


@dataclass(frozen=True)
class Model:
    """What there is to know about a model without loading it.

    Attributes:
        folder: Where its files lie.
        name: Its name.
        task: What it removes, a key of :data:`spikingir.tasks.TASKS`.
        channels: Channels of its images.
        variants: Its spiking networks.
        default: File of the one that runs unless another is asked for.
        sigma: Noise level of a denoiser on the 0..255 scale, or the least and the greatest, where it is known.
        architecture: Name of the conventional network, where it is known.
        licence: SPDX name of the licence of the weights, where it is known.
        takes_level: Whether its networks are told the noise level of the image.
    """

    folder: Path
    name: str
    task: TaskName
    channels: int
    variants: tuple[Variant, ...]
    default: str
    sigma: _Sigma | tuple[_Sigma, _Sigma] | None = None
    architecture: str | None = None
    licence: str | None = None
    takes_level: bool = False

    def __post_init__(self) -> None:
        find_task(self.task)
        if isinstance(self.sigma, tuple) and self.sigma[0] > self.sigma[1]:
            raise SchemaError(f"sigma is {list(self.sigma)}; expected the least and the greatest noise level")

    @property
    def fixed_sigma(self) -> float | None:
        """The noise level that it is for, where it is for one alone."""
        return None if isinstance(self.sigma, tuple) else self.sigma

    @property
    def default_variant(self) -> Variant:
        """The spiking network that runs unless another is asked for."""
        return next(variant for variant in self.variants if variant.file == self.default)

    @property
    def purpose(self) -> str:
        """What the model is for, in a line."""
        kind = {1: "gray", 3: "colour"}.get(self.channels, f"{self.channels}-channel")
        task = find_task(self.task)
        if self.sigma is None:
            return f"{task.removes} in {kind} images"
        sigma = " to ".join(f"{one:g}" for one in (self.sigma if isinstance(self.sigma, tuple) else (self.sigma,)))
        return f"{task.sigma_of or task.removes} in {kind} images, sigma {sigma} of 255"


@dataclass(frozen=True)
class VariantChoice:
    """The spiking network that serves a wish, and how it is to be run.

    Attributes:
        variant: The network.
        schedule: Schedule to run it on.
        time_steps: ``T`` to run it at.
        notes: What the user should know: a sentence for each way in which it runs other than it was trained.
    """

    variant: Variant
    schedule: Schedule
    time_steps: int
    notes: tuple[str, ...]


def choose_variant(model: Model, schedule: Schedule | None = None, time_steps: int | None = None) -> VariantChoice:
    """The spiking network of a model that serves a wish best.

    A network trained at the ``T`` that is asked for, and no schedule, serves best; otherwise, what is not asked for is
    as in the model's default. Of the networks trained on the schedule, or of all where there
    is none, the one trained at the nearest ``T`` is taken, the larger of two that are as near. A clocked network
    serves any ``T``, a binary one its own alone, so that another one goes before it; everything else that runs as it
    was not trained is said in a note, because it costs quality.

    Args:
        model: The model.
        schedule: ``clocked``, ``phased`` or a delay.
        time_steps: ``T``.
    """
    default = model.default_variant
    wanted = default.time_steps if time_steps is None else time_steps
    able = [v for v in (default, *model.variants) if v.coding == "unary" or v.time_steps == wanted] or [default]
    if schedule is None:
        schedule = next((v for v in able if v.time_steps == wanted), able[0]).schedule
    trained = [v for v in able if v.schedule == schedule] or [v for v in model.variants if v.schedule == schedule]
    candidates = trained or able
    variant = min(candidates, key=lambda variant: (abs(variant.time_steps - wanted), -variant.time_steps))
    steps = variant.time_steps if time_steps is None else time_steps
    made = f"{_schedule(variant.schedule)} at T = {variant.time_steps}"
    notes: tuple[str, ...] = ()
    if not trained:
        notes = (
            f"{model.name} has no network trained {_schedule(schedule)}: the one trained {made} runs in its place, "
            "which may cost quality",
        )
    elif schedule != "clocked" and steps != variant.time_steps:
        notes = (f"{model.name} was trained {made}: at T = {steps} it restores less well than one trained for that",)
    return VariantChoice(variant, schedule, steps, notes)


def _schedule(schedule: Schedule) -> str:
    return schedule if isinstance(schedule, str) else f"with a delay of {schedule}"


def model_names() -> list[str]:
    """Names of the models that ship: by task, the default first, those for one noise level last."""
    names = {path.parent.name for path in SHIPPED.glob(f"*/{CONFIG_FILE}")}
    defaults = [_default(task, names) for task in TASKS.loaded.values()]
    tasks = list(TASKS)

    def rank(name: str) -> tuple[int, bool, bool, str]:
        place = next((i for i, task in enumerate(tasks) if name.startswith(task)), len(tasks))
        return place, name not in defaults, name[-1].isdigit(), name

    return sorted(names, key=rank)


def default_model(task: Task) -> str:
    """Name of the model that restores unless another is asked for: the first of the task's that ships."""
    return _default(task, model_names())


def _default(task: Task, shipped: Collection[str]) -> str:
    return next((name for name in task.default_models if name in shipped), task.default_models[-1])


def model_files(model: str) -> list[Path]:
    """Files of a model by its name or path, whatever is in them.

    Raises:
        ModelError: There is no such model.
    """
    require_model(model)
    folder = SHIPPED / model if model in model_names() else Path(model)
    return sorted(folder.iterdir()) if folder.is_dir() else [folder]


def require_model(model: str) -> None:
    """Check that there is a model of a name or a path, whatever is in it.

    Raises:
        ModelError: There is none; the error says which there are, of a name that is nearly right all of the family.
    """
    known = model_names()
    if not model:  # as a path it would be the folder that one is in
        raise ModelError(f"the name of the model is empty; expected one of {', '.join(known)}, or a path")
    if model in known or Path(model).is_file() or Path(model).is_dir():
        return
    nearest = difflib.get_close_matches(model, known, 1) or [other for other in known if other.startswith(model)][:1]
    if nearest:
        family = [other for other in known if _family(other) == _family(nearest[0])]
        hint = f"did you mean {' or '.join(family)}?"
    else:
        hint = f"those that ship: {', '.join(known) or 'none'}"
    raise ModelError(f"there is no model {model!r}: neither one that ships, nor a file, nor a folder; {hint}")


def _family(name: str) -> str:
    """``denoise-gray`` of ``denoise-gray-25``."""
    return name.rstrip("0123456789").rstrip("-")


def read_shipped(name: str) -> Model:
    """A model that ships, see :func:`read_model`."""
    return read_model(SHIPPED / name)


def declared_task(model: str) -> TaskName | None:
    """The task that the configuration of a model names; None where there is no configuration.

    Args:
        model: Name of a model that ships, or a path.

    Raises:
        ModelError: Its configuration is wrong.
    """
    folder = SHIPPED / model if model in model_names() else Path(model)
    return read_model(folder).task if (folder / CONFIG_FILE).is_file() else None


def read_model(folder: Path) -> Model:
    """The model of a folder, from its ``config.json``.

    Raises:
        ModelError: The configuration is no JSON, has an unknown or a missing key or an unknown task, or names a
            spiking network that is not there.
    """
    path = folder / CONFIG_FILE
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        networks = table.pop("variants", None) if isinstance(table, dict) else None
        if not isinstance(networks, dict):
            raise SchemaError("it has no table of variants")
        variants = tuple(parse(Variant, entry, f"variants.{file}", file=file) for file, entry in networks.items())
        model = parse(Model, table, "", folder=folder, variants=variants)
    except SchemaError as error:
        raise ModelError(f"{path}: {error}") from None
    except ValueError as error:  # no text, or no JSON
        raise ModelError(f"{path} is no configuration of a model: {error}") from None
    files = [variant.file for variant in variants]
    if model.default not in files:
        raise ModelError(f"{path}: the default is {model.default!r}; expected one of the variants ({', '.join(files)})")
    for file in files:
        if not (folder / file).is_file():
            raise ModelError(f"{path} names {file}, which is not in the folder; add the file or leave it out")
    return model
