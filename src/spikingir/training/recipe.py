"""Recipes: a model's training as data, from the first random weight to the file that ships.

A recipe is a TOML file that maps one to one to the dataclasses below; an unknown key is an error.
"""

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from spikingir.errors import SpikingIRError
from spikingir.training.config import FitConfig

Data = TypeVar("Data")

SHIPPED = Path(__file__).parent / "recipes"
"""Folder of the recipes that ship."""


class RecipeError(SpikingIRError):
    """A recipe that cannot be followed; the text names the key and what was expected."""


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
    sigma: float | tuple[float, float]
    clip: bool = False
    held_back_every: int = 50
    held_back_sigma: tuple[float, ...] = ()
    held_back_side: int | None = None


@dataclass(frozen=True)
class Haze:
    """Scenes with depth, and haze by the atmospheric scattering model.

    Attributes:
        folder: Folder of scenes below the data root, as :func:`spikingir.data.nyu.list_nyu` reads them.
        held_back: Share of the scenes that is kept for validation and never trained on.
        airlight: Least and greatest atmospheric light; AOD-Net's unless given.
    """

    folder: str
    held_back: float = 0.05
    airlight: tuple[float, float] = (0.6, 1.0)


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
    real: float = 6 / 16
    sensor: float = 0.3
    left_out: tuple[str, ...] = ("Sony", "Canon600D")
    validated: tuple[str, ...] = ("Canon80D",)
    held_back_every: int = 50
    held_back_side: int = 256


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
    """

    indoor: str = "dehaze/nyu/train"
    outdoor: str = "dehaze/outdoor"
    left_out: int = 40
    held_back: float = 0.03
    beta: float = 3.0
    airlight: tuple[float, float] = (0.25, 1.0)


@dataclass(frozen=True)
class Conversion:
    """Arguments of :func:`spikingir.convert` that a recipe sets."""

    method: str = "spikingir"
    percentile: float = 99.9
    v0: float = 0.5


@dataclass(frozen=True)
class Stage:
    """One training run.

    Attributes:
        name: Name, and folder of its files.
        kind: ``ann``; ``qann``, the ANN of ``start`` with QCFS activations of ``time_steps`` levels, saved as the
            phased SNN that it is; or ``snn``.
        patch: Side of the training patches in pixels.
        fit: The run itself.
        start: What this one starts from: a stage, a stage of another recipe that was run in the same folder
            (``denoise-color/ann``), a network of a model that ships (``denoise-gray-25/ann``), or a file; none for
            random weights, of an SNN by conversion (DnSNN), which a ``qann`` cannot do. Where a blind network is
            wanted of one with a level input, the level is fixed at 10 / 255.
        teacher: Network whose restored images are part of the target, as ``fit.distillation`` says; named like
            ``start``.
        time_steps: ``T`` of an SNN.
        schedule: Its schedule.
        coding: ``unary``, or ``binary``: T steps carry 2^T - 1 levels.
        activation_bits: Of a binary network, bits of its layers by scale, finest first; T of each unless given.
        publish: File of the model folder that the result becomes, without its suffix: ``ann``, ``snn``,
            ``snn-phased-t8``; none for a step on the way.
    """

    name: str
    kind: Literal["ann", "qann", "snn"]
    patch: int
    fit: FitConfig
    start: str | None = None
    teacher: str | None = None
    time_steps: int = 10
    schedule: str | int = "clocked"
    coding: Literal["unary", "binary"] = "unary"
    activation_bits: tuple[int, ...] = ()
    publish: str | None = None

    def __post_init__(self) -> None:
        if (self.teacher is not None) != (self.fit.distillation > 0):
            raise ValueError("a teacher and fit.distillation above 0 go together; it has one without the other")


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
    """

    name: str
    architecture: str
    stages: tuple[Stage, ...]
    noise: Noise | None = None
    haze: Haze | None = None
    photographs: Photographs | None = None
    real_haze: RealHaze | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    conversion: Conversion = field(default_factory=Conversion)
    default: str = "snn"
    licence: str = "Apache-2.0"

    def __post_init__(self) -> None:
        data = [self.noise, self.haze, self.photographs, self.real_haze]
        if sum(one is not None for one in data) != 1:
            raise ValueError("it has several of noise, haze, photographs and real_haze, or none; expected one of them")

    @property
    def task(self) -> Literal["denoise", "dehaze"]:
        """What the model removes."""
        return "denoise" if self.haze is None and self.real_haze is None else "dehaze"


def recipe_names() -> list[str]:
    """Names of the recipes that ship."""
    return sorted(path.stem for path in SHIPPED.glob("*.toml"))


def load_recipe(name: str | Path) -> Recipe:
    """Recipe by the name of a shipped one, or by path.

    Raises:
        RecipeError: There is none, it is not TOML, or it holds an unknown key or a value of the wrong type.
    """
    if str(name) in recipe_names():
        text = (SHIPPED / f"{name}.toml").read_text(encoding="utf-8")
    elif Path(name).is_file():
        text = Path(name).read_text(encoding="utf-8")
    else:
        raise RecipeError(f"no recipe {str(name)!r}; shipped ones: {', '.join(recipe_names())}; or give a .toml file")
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"recipe {str(name)!r} is not TOML: {error}") from None
    return _parse(Recipe, table, str(name))


def _parse(kind: type[Data], table: Any, where: str) -> Data:
    """A dataclass from a TOML table."""
    if not isinstance(table, dict):
        raise RecipeError(f"{where}: expected a table, got {table!r}")
    hints = get_type_hints(kind)
    names = [f.name for f in fields(kind)]  # type: ignore[arg-type]
    for key in table:
        if key not in names:
            near = difflib.get_close_matches(key, names, 1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known keys: {', '.join(names)}"
            raise RecipeError(f"{where}: unknown key {key!r}{hint}")
    values = {key: _value(hints[key], value, f"{where}.{key}") for key, value in table.items()}
    try:
        return kind(**values)
    except (TypeError, ValueError) as error:
        raise RecipeError(f"{where}: {error}") from None


def _value(kind: Any, value: Any, where: str) -> Any:
    """A value of the type that the field says."""
    kinds = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    for one in kinds:
        if is_dataclass(one) and isinstance(value, dict):
            return _parse(one, value, where)  # type: ignore[arg-type]
        origin, arguments = get_origin(one), get_args(one)
        if origin is tuple and isinstance(value, list):
            if Ellipsis not in arguments and len(value) != len(arguments):
                raise RecipeError(f"{where}: expected {len(arguments)} values, got {value!r}")
            return tuple(_value(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(value))
        if origin is Literal:
            if value not in arguments:
                raise RecipeError(f"{where}: {value!r} is none of {', '.join(map(str, arguments))}")
            return value
        if origin is Mapping and isinstance(value, dict):
            return value
        if one is float and type(value) is int:
            return float(value)
        if type(value) is one:
            return value
    raise RecipeError(
        f"{where}: {value!r} is no {' or '.join(_in_toml(one) for one in kinds if one is not type(None))}"
    )


def _in_toml(kind: Any) -> str:
    """What a type is called in a recipe."""
    if is_dataclass(kind) or get_origin(kind) is Mapping:
        return "table"
    return "list" if get_origin(kind) is tuple else str(kind.__name__)
