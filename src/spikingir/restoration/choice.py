"""Which restorer a photograph gets."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from spikingir.errors import SpikingIRError
from spikingir.restoration.catalogue import read_shipped
from spikingir.restoration.codecs import MAX_PIXELS
from spikingir.restoration.photo import Photo
from spikingir.restoration.sigma import estimate_sigma, nearest_denoiser

if TYPE_CHECKING:
    from spikingir.engine import Engine
    from spikingir.restoration.restorer import Restorer
    from spikingir.spiking.network import Schedule

Device = Literal["auto", "cpu", "cuda"]

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
        sigma: Noise level that it was chosen for, on the 0..255 scale, where it was.
        notes: What the user should know of the model.
        photo_notes: What was found out of the photograph.
    """

    restorer: "Restorer"
    model: str
    sigma: float | None
    notes: tuple[str, ...]
    photo_notes: tuple[str, ...]


@dataclass(frozen=True)
class Wishes:
    """What the restorer is to be.

    Attributes:
        model: Name or path of the model; with ``sigma``, the denoiser that ships for that level.
        sigma: Noise level on the 0..255 scale, ``auto`` to estimate it for each photograph, or None.
        time_steps: ``T``; as the model was trained unless given.
        schedule: ``clocked``, ``phased`` or a delay; likewise.
        tile: Side of the tiles in pixels; by the memory unless given.
        device: Where the network runs; ``auto`` is a CUDA device where there is one.
        engine: What runs it on the CPU, see :class:`~spikingir.restoration.restorer.Restorer`.
    """

    model: str
    sigma: float | Literal["auto"] | None = None
    time_steps: int | None = None
    schedule: "Schedule | None" = None
    tile: int | None = None
    device: Device = "auto"
    engine: "Engine" = "auto"


class Chooser:
    """The restorer for each photograph; every model is loaded once, when the first photograph needs it.

    Raises, when called:
        ValueError: There is no such model or device.
    """

    def __init__(self, wishes: Wishes) -> None:
        self.wishes = wishes
        self._loaded: dict[str, Restorer] = {}

    def __call__(self, photo: Photo) -> Choice:
        """The restorer for a photograph."""
        model, sigma = self.wishes.model, self.wishes.sigma
        notes: list[str] = []
        photo_notes: list[str] = []
        if sigma == "auto":
            sigma = estimate_sigma(photo.pixels)
            model = nearest_denoiser(sigma)
            photo_notes.append(f"the noise is estimated at sigma {sigma:.1f}; the nearest model is {model}")
        elif sigma is not None:
            model = nearest_denoiser(sigma)
            if read_shipped(model).sigma != sigma:
                notes.append(f"no model ships for sigma {sigma:g}; the nearest is {model}")
        restorer = self.restorer(model)
        return Choice(restorer, model, sigma, (*notes, *restorer.notes), tuple(photo_notes))

    def restorer(self, model: str) -> "Restorer":
        """The restorer with a model, by name or path."""
        if model not in self._loaded:
            from spikingir.restoration.restorer import Restorer

            wishes = self.wishes
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
