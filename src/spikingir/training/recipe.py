"""Recipes: a model's training as data, from the first random weight to the file that ships.

A recipe is a TOML file that maps one to one to the dataclasses below, which are its schema: types, ranges and names.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch

from spikingir.conversion.convert import METHODS
from spikingir.data.sets import TESTED_CAMERAS, TESTED_SCENES
from spikingir.networks.registry import build_network
from spikingir.schema import Name, Range, SchemaError, nearest, parse, require_valid
from spikingir.tasks import DEHAZE, DENOISE, TaskName
from spikingir.training.config import FitConfig

_Sigma = Annotated[float, Range(0, 255)]
_Airlight = Annotated[float, Range(0, 2)]
_Share = Annotated[float, Range(0, 1)]
_FileName = Annotated[str, Name()]

_LONGEST = 2**20

SHIPPED = Path(__file__).parent / "recipes"
"""Folder of the recipes that ship."""


class RecipeError(SchemaError):
    """A recipe that cannot be followed; the text names the key and what was expected."""


def _require_rising(key: str, pair: tuple[float, float]) -> None:
    if pair[0] > pair[1]:
        raise SchemaError(f"{key} is {list(pair)}; expected the lower one first")


@dataclass(frozen=True)
class Noise:
    """Clean images with additive Gaussian noise, gray or in colour as the network is.

    Attributes:
        folder: Folder of clean images below the data root, or several.
        sigma: Noise level on the 0..255 scale; of two, a level between them is drawn for each patch.
        clip: Whether noisy images are clipped to [0, 1].
        held_back_every: Every n-th image is kept for validation and never trained on.
        held_back_sigma: Levels of the noise on those; the mean of ``sigma`` unless given.
        held_back_side: Side of the square in their middle that is validated on; whole images unless given.
    """

    folder: str | tuple[str, ...]
    sigma: _Sigma | tuple[_Sigma, _Sigma]
    clip: bool = False
    held_back_every: Annotated[int, Range(2, 10**6)] = 50
    held_back_sigma: tuple[_Sigma, ...] = ()
    held_back_side: Annotated[int, Range(1, 65536)] | None = None

    task: ClassVar[TaskName] = DENOISE.name
    not_for: ClassVar[str] = (
        "noise of another level or kind, which it was not trained on; colour noise that is correlated between channels."
    )

    def __post_init__(self) -> None:
        require_valid(self)
        if isinstance(self.sigma, tuple):
            _require_rising("sigma", self.sigma)


@dataclass(frozen=True)
class Haze:
    """Scenes with depth, and haze by the atmospheric scattering model.

    Attributes:
        folder: Folder of scenes below the data root, as :func:`spikingir.data.nyu.list_nyu` reads them.
        held_back: Share of the scenes that is kept for validation and never trained on.
        airlight: Least and greatest atmospheric light; AOD-Net's unless given.
    """

    folder: str
    held_back: Annotated[float, Range(0, 1, open_least=True, open_most=True)] = 0.05
    airlight: tuple[_Airlight, _Airlight] = (0.6, 1.0)

    task: ClassVar[TaskName] = DEHAZE.name
    not_for: ClassVar[str] = (
        "fog at night, rain or smoke, which it was not trained on; measuring distances through haze. Trained on "
        "synthetic haze in rooms, it darkens outdoor photographs and speckles smooth skies."
    )

    def __post_init__(self) -> None:
        require_valid(self)
        _require_rising("airlight", self.airlight)


@dataclass(frozen=True)
class Photographs:
    """Photographs with the noise of cameras, made on clean images and real.

    Attributes:
        folder: Folder of clean images below the data root, or several.
        curves: Folder of camera response functions, as :func:`spikingir.data.camera.read_curves` reads them.
        pairs: Folder of real noisy and clean photographs, as :func:`spikingir.data.polyu.read_polyu` reads them.
        real: Share of the patches that is cut from those.
        sensor: Share of the patches with made noise whose noise is a sensor's; the others have a camera's.
        left_out: Cameras of ``pairs`` that are tested on: never trained on, and not validated on.
        validated: Cameras of ``pairs`` that are validated on and never trained on.
        held_back_every: Every n-th clean image is kept for validation, without noise, and never trained on.
        held_back_side: Side of the square in the middle of each photograph that is validated on.
    """

    folder: str | tuple[str, ...]
    curves: str = "denoise/camera_curves"
    pairs: str = "denoise/polyu"
    real: _Share = 6 / 16
    sensor: _Share = 0.3
    left_out: tuple[str, ...] = TESTED_CAMERAS
    validated: tuple[str, ...] = ("Canon80D",)
    held_back_every: Annotated[int, Range(2, 10**6)] = 50
    held_back_side: Annotated[int, Range(1, 65536)] = 256

    task: ClassVar[TaskName] = DENOISE.name
    not_for: ClassVar[str] = (
        "noise of film, banding, single bright pixels and strong Gaussian noise, which it was not trained on."
    )

    def __post_init__(self) -> None:
        require_valid(self)


@dataclass(frozen=True)
class RealHaze:
    """Indoor and outdoor scenes with haze as photographs have it.

    Attributes:
        indoor: Folder of scenes below the data root, as :func:`spikingir.data.nyu.list_nyu` reads them.
        outdoor: Folder of scenes, as :func:`spikingir.data.outdoor.list_outdoor` reads them.
        left_out: The last so many outdoor scenes by name are tested on: never trained on, and not validated on.
        held_back: Share of the other scenes that is kept for validation and never trained on.
        beta: Greatest scattering coefficient.
        airlight: Least and greatest atmospheric light.
        reside: Share of the indoor patches with haze that have it as RESIDE makes it.
    """

    indoor: str = "dehaze/nyu/train"
    outdoor: str = "dehaze/outdoor"
    left_out: Annotated[int, Range(0, 10**6)] = TESTED_SCENES
    held_back: Annotated[float, Range(0, 1, open_least=True, open_most=True)] = 0.03
    beta: Annotated[float, Range(0, 100, open_least=True)] = 3.0
    airlight: tuple[_Airlight, _Airlight] = (0.25, 1.0)
    reside: _Share = 0.0

    task: ClassVar[TaskName] = DEHAZE.name
    not_for: ClassVar[str] = (
        "fog at night, rain or smoke, which it was not trained on; measuring distances through haze."
    )

    def __post_init__(self) -> None:
        require_valid(self)
        _require_rising("airlight", self.airlight)


@dataclass(frozen=True)
class Conversion:
    """Arguments of :func:`spikingir.convert` that a recipe sets."""

    method: str = "spikingir"
    percentile: Annotated[float, Range(0, 100, open_least=True)] = 99.9
    v0: Annotated[float, Range(0, 1, open_most=True)] = 0.5

    def __post_init__(self) -> None:
        require_valid(self)
        if self.method not in METHODS:
            raise SchemaError(f"unknown method {self.method!r}{nearest(self.method, METHODS)}")


@dataclass(frozen=True)
class Stage:
    """One training run.

    Attributes:
        name: Name, and folder of its files.
        kind: ``ann``, where ``start`` is a ``qann`` without its quantisers; ``qann``, the ANN of ``start`` with QCFS
            activations of ``time_steps`` levels, saved as the phased SNN that it is; or ``snn``.
        patch: Side of the training patches in pixels.
        fit: The run itself.
        start: What this one starts from: a stage, a stage of another recipe that was run in the same folder
            (``denoise-color/ann``), a network of a model that ships (``denoise-gray-25/ann``), or a file; none for
            random weights, of an SNN by conversion (DnSNN), which a ``qann`` cannot do. Where a blind network is
            wanted of one with a level input, the level is fixed at 10 / 255.
        blocks: Blocks at each scale of a multi-scale network that is deeper than the one it starts from, see
            :func:`spikingir.networks.growth.grown`.
        pointwise_inject: Whether the blocks of a multi-scale network read the image by kernels of 1x1 from here on, see
            :func:`spikingir.networks.growth.pointwise_inject`.
        averaged_with: Another network, named like ``start``: training starts from the mean of both's weights. A network
            and what it became by more training often restore images of another kind less well than their mean does.
        averaged_share: The share of that other network in the mean.
        norm_batches: Batches of training patches that batch norms take mean and variance of anew before training:
            those of a mean of two networks are not the mean of theirs. 0 leaves them.
        teacher: Network whose restored images are part of the target, as ``fit.distillation`` says; named like
            ``start``.
        time_steps: ``T`` of an SNN.
        schedule: Its schedule.
        coding: ``unary``, or ``binary``: T steps carry 2^T - 1 levels.
        activation_bits: Of a binary network, bits of its layers by scale, finest first; T of each unless given. A
            spiking network that training goes on with keeps its own.
        weight_bits: Bits that the weights of a phased network are rounded to when it is published, see
            :func:`spikingir.round_weights`; not rounded unless given.
        publish: File of the model folder that the result becomes, without its suffix: ``ann``, ``snn``,
            ``snn-phased-t8``; none for a step on the way.
        real_haze: What a dehazer of photographs is trained on in this stage: a whole table in place of the recipe's.
        conversion: How this stage converts an ANN: a whole table in place of the recipe's.
    """

    name: _FileName
    kind: Literal["ann", "qann", "snn"]
    patch: Annotated[int, Range(1, 4096)]
    fit: FitConfig
    start: str | None = None
    blocks: tuple[Annotated[int, Range(0, 64)], ...] = ()
    pointwise_inject: bool = False
    averaged_with: str | None = None
    averaged_share: Annotated[float, Range(0, 1, open_least=True, open_most=True)] = 0.5
    norm_batches: Annotated[int, Range(0, 65536)] = 0
    teacher: str | None = None
    time_steps: Annotated[int, Range(1, 1024)] = 10
    schedule: Literal["clocked", "phased"] | Annotated[int, Range(0, 1023)] = "clocked"
    coding: Literal["unary", "binary"] = "unary"
    activation_bits: tuple[Annotated[int, Range(1, 8)], ...] = ()
    weight_bits: Annotated[int, Range(2, 16)] | None = None
    publish: _FileName | None = None
    real_haze: RealHaze | None = None
    conversion: Conversion | None = None

    def __post_init__(self) -> None:
        require_valid(self)
        if (self.teacher is not None) != (self.fit.distillation > 0):
            raise SchemaError("a teacher and fit.distillation above 0 go together; it has one without the other")
        if self.averaged_with is not None and self.start is None:
            raise SchemaError(f"averaged_with is {self.averaged_with!r}, and start is missing; name two networks")
        if self.blocks and self.start is None:
            raise SchemaError(f"blocks is {list(self.blocks)}, and start is missing; name the network that is to grow")
        if self.pointwise_inject and self.start is None:
            raise SchemaError("pointwise_inject is given, and start is missing; name the network that is to change")
        if not self.fit.steps and self.averaged_with is None and not self.blocks:
            raise SchemaError(
                "fit.steps is 0; only a stage that takes a mean of two networks or deepens one trains nothing"
            )
        if isinstance(self.schedule, int) and self.schedule >= self.time_steps:
            raise SchemaError(f"schedule is {self.schedule}; a delay is below time_steps, here {self.time_steps}")
        if self.conversion is not None and self.kind == "ann":
            raise SchemaError("conversion is given, and a stage of kind ann converts nothing; leave it out")
        if self.weight_bits is not None and (self.kind == "ann" or (self.kind == "snn" and self.schedule != "phased")):
            raise SchemaError("weight_bits is for a phased spiking network; leave it out, or set schedule = 'phased'")

    @property
    def sources(self) -> dict[str, str]:
        """Names of the networks that it is made from or taught by, by the key that gives each."""
        given = {"start": self.start, "averaged_with": self.averaged_with, "teacher": self.teacher}
        return {key: name for key, name in given.items() if name is not None}


@dataclass(frozen=True)
class Recipe:
    """A model's training.

    Attributes:
        name: Name of the model.
        architecture: Name in the registry of networks.
        noise: What a denoiser is trained on.
        haze: What a dehazer is trained on.
        photographs: What a denoiser of photographs is trained on.
        real_haze: What a dehazer of photographs is trained on; a recipe has one of the four.
        stages: Training runs in order.
        options: Options of the architecture.
        conversion: How the ANN becomes an SNN.
        default: What the model runs unless another network is asked for, as in :attr:`Stage.publish`.
        licence: SPDX name of the licence of the weights.
        note: What the model card says of its results.
    """

    name: _FileName
    architecture: str
    stages: tuple[Stage, ...]
    noise: Noise | None = None
    haze: Haze | None = None
    photographs: Photographs | None = None
    real_haze: RealHaze | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    conversion: Conversion = field(default_factory=Conversion)
    default: _FileName = "snn"
    licence: str = "Apache-2.0"
    note: str = ""

    def __post_init__(self) -> None:
        require_valid(self)
        if len(self._given()) != 1:
            raise SchemaError("it has several of noise, haze, photographs and real_haze, or none; expected one of them")
        if not self.stages:
            raise SchemaError("stages is empty; expected one at least")
        names = [stage.name for stage in self.stages]
        for i, stage in enumerate(self.stages):
            if stage.name in names[:i]:
                raise SchemaError(f"stages[{i}].name is {stage.name!r}, as an earlier one is; expected another")
            if stage.real_haze is not None and self.real_haze is None:
                raise SchemaError(
                    f"stages[{i}].real_haze is given, and the recipe has no real_haze to stand in place of"
                )
            if stage.name == "model":
                raise SchemaError(f"stages[{i}].name is 'model', the folder of what is published; expected another")
            for key, other in stage.sources.items():
                if other in names[i:]:
                    raise SchemaError(
                        f"stages[{i}].{key} is {other!r}, a stage that comes no earlier: a cycle, or a wrong order"
                    )

    def _given(self) -> list[Noise | Haze | Photographs | RealHaze]:
        return [one for one in (self.noise, self.haze, self.photographs, self.real_haze) if one is not None]

    @property
    def data(self) -> Noise | Haze | Photographs | RealHaze:
        """What the model is trained on."""
        return self._given()[0]

    def haze_of(self, stage: Stage) -> RealHaze | None:
        """What a dehazer of photographs is trained on in a stage."""
        return stage.real_haze or self.real_haze

    def conversion_of(self, stage: Stage) -> Conversion:
        """How a stage converts an ANN."""
        return stage.conversion or self.conversion

    @property
    def task(self) -> TaskName:
        """What the model removes."""
        return self.data.task


def recipe_names() -> list[str]:
    """Names of the recipes that ship."""
    return sorted(path.stem for path in SHIPPED.glob("*.toml"))


def load_recipe(name: str | Path) -> Recipe:
    """Recipe by the name of a shipped one, or by path.

    Raises:
        RecipeError: There is none, it is not TOML, or it does not fit the schema: an unknown or missing key, a value of
            the wrong type, out of range or not finite, a stage that starts from a later one, options that the
            architecture refuses.
    """
    path = SHIPPED / f"{name}.toml" if str(name) in recipe_names() else Path(name)
    if not path.is_file():
        raise RecipeError(f"no recipe and no .toml file {str(name)!r}{nearest(name, recipe_names())}")
    try:
        with path.open("rb") as file:
            content = file.read(_LONGEST + 1)
        if len(content) > _LONGEST:
            raise RecipeError(f"recipe {str(name)!r} is longer than 1 MiB; expected a recipe")
        table = tomllib.loads(content.decode())
    except RecipeError:
        raise
    except UnicodeDecodeError as error:
        raise RecipeError(f"recipe {str(name)!r} is no text in UTF-8: byte {error.start} is none of it") from None
    except RecursionError:
        raise RecipeError(f"recipe {str(name)!r} is not TOML that can be read: it is nested too deeply") from None
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"recipe {str(name)!r} is not TOML: {error}") from None
    except ValueError:  # Python's own refusal, whose text is for programmers
        raise RecipeError(
            f"recipe {str(name)!r} is not TOML that can be read: a number has thousands of digits"
        ) from None
    try:
        recipe = parse(Recipe, table, str(name))
    except SchemaError as error:
        raise RecipeError(str(error)) from None
    try:
        with torch.device("meta"):  # checked without memory
            build_network(recipe.architecture, **recipe.options)
    except SchemaError as error:
        raise RecipeError(f"{name}: {error}") from None
    return recipe
