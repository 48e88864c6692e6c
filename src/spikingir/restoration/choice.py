"""Which restorer a photograph gets."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from spikingir.errors import SpikingIRError, UsageError
from spikingir.photo.codecs import MAX_PIXELS
from spikingir.photo.photo import Photo
from spikingir.restoration.sigma import estimate_sigma, has_colours, model_for
from spikingir.tasks import DENOISE, Task, TaskName, find_task
from spikingir.zoo.catalogue import declared_task, default_model

if TYPE_CHECKING:
    from spikingir.deploy.engine import Engine
    from spikingir.restoration.restorer import Restorer
    from spikingir.spiking.network import Schedule

Device = Literal["auto", "cpu", "cuda"]

AUTO = "auto"
"""Stands for the model that ships for the noise level, or for the task where there is no level."""

WHOLE = MAX_PIXELS
"""Side of a tile that holds any image."""


class DeviceError(SpikingIRError):
    """There is no such device here."""


@dataclass(frozen=True)
class Choice:
    """A restorer for a photograph.

    Attributes:
        restorer: The restorer.
        model: Name of its model.
        sigma: Noise level of the photograph on the 0..255 scale, given or estimated, where the model needs it or it was
            asked for.
        notes: What the user should know of the model.
        photo_notes: What was found out of the photograph.
        level: The ``sigma`` that the restorer is called with: None where its network is not told the level.
        strength: The ``strength`` that it is called with.
        task: What is to be removed.
        told: Whether the user says how noisy the photograph is, so that the network's own finding decides nothing.
    """

    restorer: "Restorer"
    model: str
    sigma: float | None
    notes: tuple[str, ...]
    photo_notes: tuple[str, ...]
    level: float | None = None
    strength: float = 1.0
    task: Task = DENOISE
    told: bool = False


@dataclass(frozen=True)
class Wishes:
    """What the user asks of the restorer.

    Attributes:
        model: Name or path of the model; ``auto`` is the one that ships for ``sigma``, or without it for the task.
        sigma: Noise level on the 0..255 scale, ``auto`` to estimate it for each photograph, or None. A network that is
            told the level gets it, estimated where it is None.
        time_steps: ``T``; as the model was trained unless given.
        schedule: ``clocked``, ``phased`` or a delay; likewise.
        tile: Side of the tiles in pixels; by the memory unless given.
        device: Where the network runs; ``auto`` is a CUDA device where there is one.
        engine: What runs it on the CPU, see :class:`~spikingir.restoration.restorer.Restorer`.
        task: What is to be removed, where the model is ``auto``.
        strength: How much of what the network removes is removed, see the restorer.
    """

    model: str
    sigma: float | Literal["auto"] | None = None
    time_steps: int | None = None
    schedule: "Schedule | None" = None
    tile: int | None = None
    device: Device = "auto"
    engine: "Engine" = "auto"
    task: TaskName = DENOISE.name
    strength: float = 1.0


class Chooser:
    """The restorer for each photograph; every model is loaded once, when the first photograph needs it.

    Raises:
        UsageError: The model is for another task.

    Raises, when called:
        ModelError: There is no such model.
        DeviceError: There is no such device.
        UsageError: The model does not take the ``sigma`` or the ``strength`` that was asked for.
    """

    def __init__(self, wishes: Wishes) -> None:
        if wishes.model != AUTO and (task := declared_task(wishes.model)) not in (None, wishes.task):
            raise UsageError(f"{wishes.model} removes {find_task(task).removes}; run spikingir {task} with it")
        self.wishes = wishes
        self._loaded: dict[str, Restorer] = {}

    def __call__(self, photo: Photo) -> Choice:
        """The restorer for a photograph."""
        wishes = self.wishes
        model, sigma = wishes.model, wishes.sigma
        notes: list[str] = []
        photo_notes: list[str] = []
        if model == AUTO and sigma is None:
            model = default_model(find_task(wishes.task))
        if model != AUTO:
            takes_level = self.restorer(model).takes_level
            if sigma is None and takes_level:
                sigma = "auto"
            elif sigma is not None and not takes_level:
                raise UsageError(f"{model} is not told the noise level; leave --sigma out, or --model")
        told = isinstance(sigma, int | float)
        if sigma == "auto":
            sigma = estimate_sigma(photo.pixels)
            if wishes.sigma == "auto":  # asked for: so it is told
                photo_notes.append(f"the noise is estimated at sigma {sigma:.1f}")
        if model == AUTO and sigma is not None:
            found = model_for(sigma, wishes.task, colour=has_colours(photo.samples))
            model = found.name
            if isinstance(found.sigma, tuple) and not found.sigma[0] <= sigma <= found.sigma[1]:
                notes.append("{} was trained for sigma {:g} to {:g}".format(model, *found.sigma))
            if not found.takes_level and not told:
                photo_notes[-1] += f"; the nearest model is {model}"
            elif not found.takes_level and found.sigma != sigma:
                notes.append(f"no model ships for sigma {sigma:g}; the nearest is {model}")
        restorer = self.restorer(model)
        if wishes.strength > 1 and not restorer.takes_level:
            by_level = wishes.model == AUTO and sigma is None and find_task(wishes.task).sigma_of is not None
            raise UsageError(
                f"strength is {wishes.strength:g}; expected 0 to 1: {model} is not told the noise level, by which more "
                f"could be removed{'; give the level with --sigma' if by_level else ''}"
            )
        level = sigma if restorer.takes_level else None
        return Choice(
            restorer,
            model,
            sigma,
            (*notes, *restorer.notes),
            tuple(photo_notes),
            level,
            wishes.strength,
            find_task(wishes.task),
            told,
        )

    def restorer(self, model: str) -> "Restorer":
        """The restorer with a model, by name or path."""
        if model not in self._loaded:
            wishes = self.wishes
            from spikingir.restoration.restorer import Restorer

            restorer = Restorer.from_pretrained(
                model,
                time_steps=wishes.time_steps,
                schedule=wishes.schedule,
                tile=wishes.tile,
                engine=wishes.engine,
            )
            restorer.network.to(_device(wishes.device))
            self._loaded[model] = restorer
        return self._loaded[model]


def _device(wish: Device) -> str:
    import torch

    if wish == "cuda" and not torch.cuda.is_available():
        raise DeviceError("there is no CUDA device that torch can use here; expected one for --device cuda")
    return wish if wish != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
