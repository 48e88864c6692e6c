"""From a photograph in any form to the restored one in the same form."""

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar, overload

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from spikingir.deploy.engine import Engine
from spikingir.deploy.fold import fold
from spikingir.energy.paper import paper_energy
from spikingir.errors import InputError
from spikingir.inputs import unit
from spikingir.networks.base import RestorationNetwork
from spikingir.photo.forms import open_image
from spikingir.photo.photo import Photo
from spikingir.restoration.findings import Finding, find
from spikingir.restoration.maps import form_with_maps, reduced
from spikingir.restoration.planes import Planes
from spikingir.restoration.scaling import as_large, output_of, upscaled
from spikingir.restoration.tiling import Progress, layout, memory_errors, restore_tiled, trace_tiled
from spikingir.spiking.formation import ESTIMATES_MAPS
from spikingir.spiking.network import Schedule, SpikingNetwork, Trace
from spikingir.tasks import task_of
from spikingir.zoo.catalogue import ModelError
from spikingir.zoo.pretrained import load_spiking

_STRIP = 2**20  # pixels at a time

Kind = TypeVar("Kind", bytes, Image.Image, NDArray[Any], Tensor, Photo)
ImagePath = str | os.PathLike[str]


@dataclass(frozen=True)
class Restoration:
    """What restoring one photograph took.

    Attributes:
        seconds: Time spent in the network.
        spikes: Spikes of all neurons; those of a colour photograph restored channel by channel together.
        spikes_per_neuron: Mean number of spikes of a neuron, over all layers.
        synaptic_operations: Accumulates of spikes at hidden synapses.
        ann_mj: Energy of the conventional network in mJ, as the paper counts it (docs/method.md, section 8, column A).
        snn_mj: Energy of the spiking network in mJ, likewise.
        finding: What was found and removed: its size, where it is strongest, and, as ``str``, the words for it.
        trace: Spikes of every layer, one entry in the batch per picture that the network saw.
    """

    seconds: float
    spikes: int
    spikes_per_neuron: float
    synaptic_operations: float
    ann_mj: float
    snn_mj: float
    finding: Finding
    trace: Trace = field(repr=False)


class Restorer:
    """Restores photographs with a spiking network, in its deployment form, tile by tile.

    The network is folded (:func:`spikingir.fold`): spikes are 0 or 1, numbers lie on a grid, and the same photograph
    gives the same result bit for bit, whatever the tile, the machine or the number of threads.

    Args:
        network: A spiking network of IF or MPR neurons.
        tile: Side of the tiles in pixels; by default the largest that need about 256 MiB.
        engine: ``native`` follows the spikes on the CPU, ``torch`` simulates all of them, with the same bits; ``auto``
            is native where that can be done.

    Attributes:
        network: The folded network.
        notes: What the user should know about how a pretrained network runs; sentences.
        scale: How many times larger, along each side, the restored image is.
        channels: Its channels.

    Raises:
        FoldError: The network has no deployment form.
        TilingError: It cannot be run in tiles.
        ModelError: Its output is smaller than the image, or larger by no whole factor.
        TypeError: It is no spiking network.
        InputError: ``tile`` is no whole number of pixels.
        EngineError: When it restores: the engine that was asked for cannot run the network.

    Example:
        >>> restorer = Restorer.from_pretrained("denoise-gray-25")  # doctest: +SKIP
        >>> restorer("photo.png").save("clean.png")  # doctest: +SKIP
    """

    def __init__(self, network: SpikingNetwork, *, tile: int | None = None, engine: Engine = "auto") -> None:
        if tile is not None and (type(tile) is not int or tile < 1):
            raise InputError(f"tile is {tile}; expected a whole number of pixels from 1 up, or None")
        self.network = fold(network).eval()
        self.tile = tile
        self.engine: Engine = engine
        self.notes: tuple[str, ...] = ()
        self._maps = network.config.formation in ESTIMATES_MAPS
        self._run = self.network.without_formation() if self._maps else self.network
        layout(self.network)  # whether it can be run in tiles
        self.scale, self.channels = output_of(network)

    @classmethod
    def from_pretrained(
        cls,
        model: ImagePath,
        *,
        time_steps: int | None = None,
        schedule: Schedule | None = None,
        tile: int | None = None,
        engine: Engine = "auto",
    ) -> "Restorer":
        """Restorer with a model that ships, or one of your own.

        Args:
            model: Name of a model that ships (``spikingir models`` lists them), a ``.safetensors`` file written by
                :func:`spikingir.save_pretrained`, or a folder that holds one as ``snn.safetensors``.
            time_steps: ``T``; as the network was trained unless given. Fewer are faster and cheaper, and restore less
                well.
            schedule: ``clocked``, ``phased`` or a delay; as the model's default unless given. Of the model's networks
                the one that fits best runs; what it was not trained for is said in :attr:`notes`.
            tile: See :class:`Restorer`.
            engine: Likewise.

        Raises:
            ModelError: There is no such model, or it cannot run like that.
            StorageError: The file does not hold a spiking network.
            FoldError: The network has no deployment form.
        """
        loaded = load_spiking(model, time_steps=time_steps, schedule=schedule)
        restorer = cls(loaded.network, tile=tile, engine=engine)
        restorer.notes = loaded.notes
        return restorer

    def __repr__(self) -> str:
        config = self.network.config
        kind = {1: "gray", 3: "colour"}.get(config.channels, f"{config.channels} channels")
        level = ", takes a noise level" if self.takes_level else ""
        return f"Restorer({config.clock}, {kind}{level}, engine={self.engine!r})"

    @property
    def takes_level(self) -> bool:
        """Whether the network wants to know the noise level (``sigma``)."""
        return self.network.config.is_told_level

    def share(self, strength: float) -> float:
        """Share of what the network finds that is removed at a strength; all where the strength goes with the level."""
        return 1.0 if self.takes_level and strength else strength

    @overload
    def __call__(
        self, image: ImagePath, *, sigma: float | Tensor | None = ..., strength: float = ..., progress: Progress = ...
    ) -> Image.Image: ...
    @overload
    def __call__(
        self, image: Kind, *, sigma: float | Tensor | None = ..., strength: float = ..., progress: Progress = ...
    ) -> Kind: ...
    def __call__(
        self,
        image: Any,
        *,
        sigma: float | Tensor | None = None,
        strength: float = 1.0,
        progress: Progress = lambda done, total: None,
    ) -> Any:
        """The restored photograph, in the form that it came in.

        Gray networks restore colour channel by channel; a colour network sees a gray photograph as three equal
        channels and gives their mean. An alpha channel goes around the network; where that makes the photograph larger,
        alpha is enlarged by bicubic interpolation. What estimates maps, as networks to dehaze do, sees a photograph of
        about a megapixel at most (:mod:`spikingir.restoration.maps`); where the maps show no veil, the photograph comes
        back as it is, bit for bit.

        Args:
            image: A path (gives a Pillow image), the bytes of an image file (give those of a PNG), a Pillow
                image, a NumPy array, a tensor, or a :class:`~spikingir.photo.photo.Photo`. Values lie in
                [0, 255] for 8-bit and [0, 65535] for 16-bit integers, else in [0, 1]; results in floating point are
                not clipped.
            sigma: Noise level on the 0..255 scale, a number or a map, where the network takes one.
            strength: Share of what the network removes that is removed, in [0, 1]; of a network that takes the noise
                level a factor on that, which may be above 1.
            progress: Told how many tiles are done, and of how many.

        Shape:
            Arrays (H, W) or (H, W, C), tensors (C, H, W) or (B, C, H, W), with C = 1 (gray), 2 (gray, alpha),
            3 (RGB) or 4 (RGB, alpha). ``sigma``, where it is a map: (H, W).

        Raises:
            ImageError: A file cannot be read.
            ModelError: The network is for images of other channels, or larger ones; it takes a noise level and none
                is given, or the other way round.
            TypeError: An image of no known kind.
            ValueError: Shapes or values other than these.
            MemoryError: There is not enough memory, even for small tiles.
        """
        return self._restore(image, sigma, strength, progress)

    def by_ann(self, ann: RestorationNetwork, image: Any, *, sigma: float | Tensor | None = None) -> Any:
        """What the conventional network makes of a photograph, on the same way: tiles, maps, what is left as it is.

        Args:
            ann: The conventional network that the spiking one was made of.
            image: As for calling the restorer.
            sigma: Likewise.
        """
        return self._restore(image, sigma, 1.0, restore=ann.body if self._maps else ann)

    def _restore(
        self,
        image: Any,
        sigma: float | Tensor | None,
        strength: float,
        progress: Progress = lambda done, total: None,
        restore: Callable[[Tensor], Tensor] | None = None,
    ) -> Any:
        with memory_errors():
            values, close = open_image(image)
            pixels, alpha = self._split(values)
            given = self._input(pixels, sigma, strength)
            self._require_form(image)
            output = restore_tiled(self._run, given, self.tile, restore=restore, engine=self.engine, progress=progress)
            restored = self._formed(output, given, pixels)
            return close(_join(self._pixels(restored, pixels, strength), alpha))

    def seen(self, image: Any, sigma: float | Tensor | None = None) -> Tensor:
        """What the network sees of a photograph, as energy is counted for it.

        Args:
            image: As for calling the restorer.
            sigma: Likewise.

        Shape:
            (B', C', H', W'): planes, with the noise level behind them where the network takes one, padded.
        """
        return self._input(self._split(open_image(image)[0])[0], sigma, 1.0).whole()

    @overload
    def trace(
        self,
        image: ImagePath,
        *,
        sigma: float | Tensor | None = ...,
        strength: float = ...,
        progress: Progress = ...,
        counts: bool = ...,
    ) -> tuple[Image.Image, Restoration]: ...
    @overload
    def trace(
        self,
        image: Kind,
        *,
        sigma: float | Tensor | None = ...,
        strength: float = ...,
        progress: Progress = ...,
        counts: bool = ...,
    ) -> tuple[Kind, Restoration]: ...
    def trace(
        self,
        image: Any,
        *,
        sigma: float | Tensor | None = None,
        strength: float = 1.0,
        progress: Progress = lambda done, total: None,
        counts: bool = False,
    ) -> tuple[Any, Restoration]:
        """The restored photograph, and what it took: time, spikes, energy.

        Spikes and energy are those of the whole image: of a tile's spikes only those of its own pixels count, so
        that what the halos of tiles compute a second time is in the seconds but not in the counts.

        Args:
            image: As for calling the restorer.
            sigma: Likewise.
            strength: Likewise.
            progress: Likewise.
            counts: Whether the trace is to say how often each neuron fired, see
                :func:`~spikingir.restoration.tiling.trace_tiled`.
        """
        with memory_errors():
            values, close = open_image(image)
            pixels, alpha = self._split(values)
            planes = self._input(pixels, sigma, strength)
            self._require_form(image)
            start = time.perf_counter()
            output, trace = trace_tiled(
                self._run, planes, self.tile, engine=self.engine, counts=counts, progress=progress
            )
            restored = self._formed(output, planes, pixels)
            seconds = time.perf_counter() - start
            restored = self._pixels(restored, pixels, strength)
            what = task_of(self.network.config.formation).removes
            finding = find(_rows(as_large(pixels, restored)), _rows(restored), what, self.share(strength))
            answer = close(_join(restored, alpha))
        energy = paper_energy(self.network, trace)
        result = Restoration(
            seconds=seconds,
            spikes=sum(int(layer.spikes.sum()) for layer in trace.layers),
            spikes_per_neuron=trace.spikes_per_neuron,
            synaptic_operations=energy.synaptic_operations * planes.shape[0],
            ann_mj=energy.ann_mj * planes.shape[0],
            snn_mj=energy.snn_mj * planes.shape[0],
            finding=finding,
            trace=trace,
        )
        return answer, result

    def _split(self, values: Tensor) -> tuple[Tensor, Tensor | None]:
        """Pixels and alpha."""
        channels = values.shape[1]
        if channels == self.network.config.channels or channels in (1, 3):
            return values, None
        if channels in (2, 4):
            return values[:, :-1], values[:, -1:]
        raise ValueError(f"the image has {channels} channels; expected 1 (gray) or 3 (RGB), and perhaps alpha")

    def _input(self, pixels: Tensor, sigma: float | Tensor | None, strength: float) -> Planes:
        """What the body reads: planes, with the level behind them where it takes one, padded.

        Raises:
            ModelError: A level that the network does not take, or none where it does.
            ValueError: ``strength`` or ``sigma`` out of range.
        """
        most = math.inf if self.takes_level else 1.0
        if not 0 <= strength <= most or not math.isfinite(strength):
            wanted = "0 or more" if self.takes_level else "0 to 1: this network finds the noise level by itself"
            raise InputError(f"strength is {strength:g}; expected {wanted}")
        if (
            strength != 1
            and not self.takes_level
            and self.channels not in (self.network.config.channels, pixels.shape[1])
        ):
            raise InputError(f"strength is {strength:g}; expected 1, as the network makes {self.channels} channels")
        planes, stride = self._planes(pixels), layout(self.network).stride
        if not self.takes_level:
            if sigma is not None:
                raise ModelError("the network takes no noise level; leave sigma out")
            return Planes.of(reduced(planes) if self._maps else planes, multiple=stride)
        if sigma is None:
            raise ModelError("the network needs the noise level of the photograph; give sigma, 0 to 255")
        level = torch.as_tensor(sigma, dtype=torch.float64) * (strength / 255)
        if level.dim() == 2:
            level = level.expand(len(planes), 1, *level.shape)
        return Planes.of(planes, level, stride)

    def _planes(self, pixels: Tensor) -> Tensor:
        """What the network sees, (B', C', H, W) with C' as the network has it."""
        have, wanted = pixels.shape[1], self.network.config.channels
        if wanted not in (1, have) and have != 1:
            raise ModelError(f"the network is for images of {wanted} channels; this one has {have}")
        if have != 1 == wanted != self.channels:
            raise ModelError(
                f"the network makes {self.channels} channels of a gray image; this one has {have} channels"
            )
        return pixels.reshape(-1, 1, *pixels.shape[2:]) if wanted == 1 else pixels.expand(-1, wanted, -1, -1)

    def _formed(self, output: Tensor, given: Planes, pixels: Tensor) -> Tensor:
        """Restored planes, of what was run; those that have no veil as they came, bit for bit."""
        if not self._maps:
            return output
        return form_with_maps(self.network.config.formation, self._planes(pixels), given.whole(), output)

    def _pixels(self, restored: Tensor, pixels: Tensor, strength: float) -> Tensor:
        """The other way from :meth:`_planes` and from padding, with the share of the removed that is wanted."""
        height, width = (self.scale * side for side in pixels.shape[-2:])
        restored = restored[..., :height, :width]
        if self.channels == self.network.config.channels == 1:
            restored = restored.reshape(*pixels.shape[:2], height, width)
        elif self.channels == self.network.config.channels != pixels.shape[1]:
            restored = restored.mean(1, keepdim=True)
        if self.takes_level or strength == 1:
            return restored
        before = upscaled(unit(pixels), self.scale) if self.scale > 1 else pixels
        rows = max(1, _STRIP // width)
        for top in range(0, height, rows):  # for the memory
            part = restored[..., top : top + rows, :]
            was = unit(before[..., top : top + rows, :]).to(part)
            # not lerp, which rounds once or twice by the place of a value in memory
            part.sub_(was).mul_(strength).add_(was)
        return restored

    def _require_form(self, image: object) -> None:
        """Refuse a photograph whose restored form no photograph has.

        Raises:
            ModelError: Neither gray nor colour.
        """
        if self.channels not in (1, 3) and not isinstance(image, Tensor | np.ndarray):
            raise ModelError(
                f"the network makes {self.channels} channels, and a photograph has 1 or 3; give an array or a tensor"
            )


def _rows(images: Tensor) -> NDArray[Any]:
    """Images of a batch below each other.

    Shape:
        (B, C, H, W) to (B H, W, C).
    """
    rows: NDArray[Any] = images.movedim(1, -1).flatten(0, 1).cpu().numpy()
    return rows


def _join(pixels: Tensor, alpha: Tensor | None) -> Tensor:
    if alpha is None:
        return pixels
    alpha = unit(alpha)
    factor = pixels.shape[-1] // alpha.shape[-1]
    return torch.cat([pixels, alpha if factor == 1 else upscaled(alpha, factor).clamp(0, 1)], 1)
