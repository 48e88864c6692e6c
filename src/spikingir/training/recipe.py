"""Recipes: a model's training as data, from the first random weight to the file that ships.

A recipe is a TOML file that maps one to one to the dataclasses below; an unknown key is an error. Its stages run in
order, each in a folder of its own, and each is left out where its result is there already.
"""

import difflib
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, TypeVar, cast, get_args, get_origin, get_type_hints

import torch
from torch import Tensor

from spikingir.conversion.convert import convert
from spikingir.conversion.qcfs import QCFS, quantise_activations
from spikingir.data.folders import list_images, read_gray
from spikingir.data.noise import NoisyPatches, add_gaussian_noise, sample_generator
from spikingir.networks.base import RestorationNetwork
from spikingir.networks.registry import build_network, load_network, save_network
from spikingir.spiking.network import Schedule, SpikingNetwork
from spikingir.spiking.storage import from_pretrained, save_pretrained
from spikingir.training.fit import FitConfig, FitResult, Pair, fit

Data = TypeVar("Data")

_CALIBRATION = 2**40  # sample numbers that no training run reaches


class RecipeError(ValueError):
    """A recipe that cannot be followed; the text names the key and what was expected."""


@dataclass(frozen=True)
class NoiseData:
    """Clean gray images with Gaussian noise.

    Attributes:
        folder: Folder of clean images below the data root.
        sigma: Noise level on the 0..255 scale.
        held_back_every: Every n-th image is kept for validation and never trained on.
    """

    folder: str
    sigma: float
    held_back_every: int = 50


@dataclass(frozen=True)
class Conversion:
    """Arguments of :func:`spikingir.convert` that a recipe sets."""

    method: str = "spikingir"
    percentile: float = 99.9
    v0: float = 0.5
    alpha: float = 1.0


@dataclass(frozen=True)
class Stage:
    """One training run.

    Attributes:
        name: Name, and folder of its files.
        kind: ``ann``; ``qann``, the ANN of ``start`` with QCFS activations of ``time_steps`` levels, saved as the
            phased SNN that it is; or ``snn``.
        patch: Side of the training patches in pixels.
        fit: The run itself.
        start: Stage whose result this one starts from; none for random weights.
        time_steps: ``T`` of an SNN.
        schedule: Its schedule.
    """

    name: str
    kind: Literal["ann", "qann", "snn"]
    patch: int
    fit: FitConfig
    start: str | None = None
    time_steps: int = 10
    schedule: str | int = "clocked"


@dataclass(frozen=True)
class Recipe:
    """A model's training.

    Attributes:
        name: Name of the model.
        architecture: Name in the registry of networks.
        data: What it is trained on.
        stages: Training runs in order.
        options: Options of the architecture.
        conversion: How the ANN becomes an SNN.
    """

    name: str
    architecture: str
    data: NoiseData
    stages: tuple[Stage, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    conversion: Conversion = field(default_factory=Conversion)


def recipe_names() -> list[str]:
    """Names of the recipes that ship."""
    folder = files("spikingir.training") / "recipes"
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def load_recipe(name: str | Path) -> Recipe:
    """Recipe by the name of a shipped one, or by path.

    Raises:
        RecipeError: There is none, it is not TOML, or it holds an unknown key or a value of the wrong type.
    """
    if str(name) in recipe_names():
        text = (files("spikingir.training") / "recipes" / f"{name}.toml").read_text(encoding="utf-8")
    elif Path(name).is_file():
        text = Path(name).read_text(encoding="utf-8")
    else:
        raise RecipeError(f"no recipe {str(name)!r}; shipped ones: {', '.join(recipe_names())}; or give a .toml file")
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"recipe {str(name)!r} is not TOML: {error}") from None
    return _parse(Recipe, table, str(name))


def follow(
    recipe: Recipe,
    data_root: Path,
    directory: Path,
    *,
    stages: Sequence[str] | None = None,
    progress: bool = True,
    announce: Callable[[str], None] = lambda text: None,
) -> dict[str, Path]:
    """Run a recipe's stages, skipping what is done; interrupted stages resume from their checkpoint.

    Args:
        recipe: The recipe.
        data_root: Folder that the recipe's data folders are in.
        directory: Folder of the run; stage ``s`` writes ``s/model.safetensors`` and its log and checkpoint.
        stages: Names of the stages to run; all unless given.
        progress: Whether to show a progress bar.
        announce: Told one line when a stage starts and ends.

    Returns:
        The model file of each stage that is done.

    Raises:
        RecipeError: A stage that does not exist, or one whose start has not been run.
        TrainingStopped: Training was interrupted or diverged.
    """
    known = [stage.name for stage in recipe.stages]
    for name in stages or ():
        if name not in known:
            raise RecipeError(f"recipe {recipe.name} has no stage {name!r}; it has {', '.join(known)}")
    done: dict[str, Path] = {}
    for stage in recipe.stages:
        model = directory / stage.name / "model.safetensors"
        if model.exists():
            done[stage.name] = model
            announce(f"{recipe.name}/{stage.name}: done before")
        elif stages is None or stage.name in stages:
            announce(f"{recipe.name}/{stage.name}: {stage.fit.steps} steps")
            result = _run(recipe, stage, data_root, directory)(progress)
            done[stage.name] = model
            announce(f"{recipe.name}/{stage.name}: {result.psnr:.2f} dB on held-back images, {result.seconds:.0f} s")
    return done


def _run(recipe: Recipe, stage: Stage, data_root: Path, directory: Path) -> Callable[[bool], FitResult]:
    """The training of one stage, ready to go, which writes the model at its end."""
    clean = [read_gray(path) for path in list_images(data_root / recipe.data.folder)]
    every = recipe.data.held_back_every
    train = [image for i, image in enumerate(clean) if i % every]
    held_back = list(_noisy(clean[::every], recipe.data.sigma))
    pairs = NoisyPatches(train, stage.patch, recipe.data.sigma, stage.fit.seed)
    folder = directory / stage.name
    network = _network(recipe, stage, directory, pairs)

    def run(progress: bool) -> FitResult:
        result = fit(network, pairs, stage.fit, folder, held_back, progress=progress)
        if stage.kind == "qann" and isinstance(network, RestorationNetwork):
            save_pretrained(_spiking(recipe, stage, network, pairs), folder / "model.safetensors")
        elif isinstance(network, SpikingNetwork):
            save_pretrained(network, folder / "model.safetensors")
        else:
            save_network(network, folder / "model.safetensors")
        return result

    return run


def _network(recipe: Recipe, stage: Stage, directory: Path, pairs: NoisyPatches) -> RestorationNetwork | SpikingNetwork:
    """What a stage trains: random weights, a conversion, or an SNN that goes on."""
    if stage.start is None:
        if stage.kind != "ann":
            raise RecipeError(f"stage {stage.name}: an SNN needs a stage to start from")
        fresh = build_network(recipe.architecture, **recipe.options)
        fresh.reset_parameters(torch.Generator().manual_seed(stage.fit.seed))
        return fresh
    origin = directory / stage.start / "model.safetensors"
    if not origin.exists():
        raise RecipeError(f"stage {stage.name} starts from {stage.start}, which has not been run: no {origin}")
    start = next(s for s in recipe.stages if s.name == stage.start)
    compiled = _can_compile()
    if stage.kind != "snn":
        if start.kind != "ann":
            raise RecipeError(f"stage {stage.name}: {stage.kind} starts from an ann, and {start.name} is {start.kind}")
        ann = load_network(origin)
        if stage.kind == "ann":
            return ann
        quantised = quantise_activations(ann, _calibration(pairs), stage.time_steps)
        assert isinstance(quantised, RestorationNetwork)
        for module in quantised.modules():
            if isinstance(module, QCFS):
                module.compiled = compiled
        return quantised
    if start.kind == "ann":
        network = _spiking(recipe, stage, load_network(origin), pairs)
    else:
        network = from_pretrained(origin).at(time_steps=stage.time_steps, schedule=_schedule(stage))
    network.compile_neurons(compiled)
    return network


def _calibration(pairs: NoisyPatches) -> Tensor:
    return torch.stack([pairs[_CALIBRATION + i][0] for i in range(64)])


def _schedule(stage: Stage) -> Schedule:
    return cast(Schedule, stage.schedule)  # SpikingConfig checks it


def _spiking(recipe: Recipe, stage: Stage, network: RestorationNetwork, pairs: NoisyPatches) -> SpikingNetwork:
    """A conversion as the recipe says."""
    how = recipe.conversion
    return convert(
        network,
        _calibration(pairs),
        how.method,
        time_steps=stage.time_steps,
        schedule=_schedule(stage),
        percentile=how.percentile,
        v0=how.v0,
        alpha=how.alpha,
    )


def _noisy(images: Sequence[Any], sigma: float) -> Iterator[Pair]:
    """Held-back images with the same noise at every validation."""
    for i, image in enumerate(images):
        clean: Tensor = torch.from_numpy(image)[None].float() / 255
        yield add_gaussian_noise(clean, sigma, sample_generator(1, i)), clean


def _can_compile() -> bool:
    """Whether torch.compile works here: it needs a C++ compiler, or Triton on a GPU."""
    try:
        return bool(torch.compile(lambda x: x + 1)(torch.zeros(1)) == 1)
    except Exception:  # whatever it is, the eager neurons give the same numbers
        return False


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
    if is_dataclass(kind):
        return _parse(kind, value, where)  # type: ignore[arg-type]
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is tuple:
        if not isinstance(value, list):
            raise RecipeError(f"{where}: expected a list, got {value!r}")
        return tuple(_value(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if origin is Literal:
        if value not in arguments:
            raise RecipeError(f"{where}: {value!r} is none of {', '.join(map(str, arguments))}")
        return value
    if origin is not None and isinstance(value, dict):  # Mapping
        return value
    allowed = arguments if origin is not None and arguments else (kind,)
    if float in allowed and type(value) is int:
        return float(value)
    if type(value) not in allowed:
        raise RecipeError(f"{where}: {value!r} is no {' or '.join(getattr(t, '__name__', str(t)) for t in allowed)}")
    return value
