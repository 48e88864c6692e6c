"""Following a recipe: stage after stage, each in a folder of its own, each left out where its result is there."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, asdict, fields, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.optim.swa_utils import update_bn
from torch.utils.data import DataLoader, Dataset, Subset

from spikingir.conversion.convert import METHODS, convert
from spikingir.conversion.qcfs import QCFS, quantise_activations, release_activations
from spikingir.data.camera import read_curves
from spikingir.data.errors import DataError
from spikingir.data.folders import list_images, read_gray, read_rgb, to_tensor
from spikingir.data.haze import HazyPatches
from spikingir.data.noise import NoisyPatches, noisy_pair, sample_generator
from spikingir.data.nyu import list_nyu
from spikingir.data.outdoor import list_outdoor
from spikingir.data.photographs import PhotographPatches
from spikingir.data.polyu import read_polyu
from spikingir.data.real_haze import RealHazePatches
from spikingir.data.scenes import SceneFiles, hold_back
from spikingir.files import write_text
from spikingir.networks.base import RestorationNetwork
from spikingir.networks.growth import grown, pointwise_inject
from spikingir.networks.multiscale import MultiScaleNet, without_level
from spikingir.networks.registry import build_network
from spikingir.schema import nearest
from spikingir.spiking.network import SpikingNetwork
from spikingir.store import load_any, save_network, save_pretrained
from spikingir.training.budget import fit_to_time
from spikingir.training.checkpoints import CHECKPOINT, load_checkpoint
from spikingir.training.config import FitConfig
from spikingir.training.fit import FitResult, Pair, difference, fit
from spikingir.training.machine import launch
from spikingir.training.recipe import Conversion, Haze, Noise, Photographs, RealHaze, Recipe, RecipeError, Stage
from spikingir.zoo.catalogue import SHIPPED

MODEL = "model.safetensors"
QUANTISED = "quantised.safetensors"
"""The quantised network behind a spiking one, batch norm and all, from which training can go on."""

STAGE = "stage.json"
"""What a stage was trained on and how, beside its checkpoint: another one does not go on from it."""

_WITHOUT_EFFECT = ("publish", "weight_bits", "fit.checkpoint_minutes", "fit.log_every", "fit.validate_every")

_CALIBRATION = 2**40  # sample numbers that no training run reaches
_BLIND_LEVEL = 10 / 255  # of a network with a level input that goes on as a blind one: a camera's noise
_SOTS_AIRLIGHT = (0.7, 1.0)


def follow(
    recipe: Recipe,
    data_root: Path,
    directory: Path,
    *,
    stages: Sequence[str] | None = None,
    minutes: float | None = None,
    progress: bool = True,
    tensorboard: bool = False,
    announce: Callable[[str], None] = lambda text: None,
) -> dict[str, Path]:
    """Run a recipe's stages, skipping what is done; interrupted stages resume from their checkpoint.

    Args:
        recipe: The recipe.
        data_root: Folder that the recipe's data folders are in.
        directory: Folder of the run; stage ``s`` writes ``s/model.safetensors`` and its log and checkpoint.
        stages: Names of the stages to run; all unless given.
        minutes: Time for all of them together, shared out as the recipe's steps are; their number is fitted to it.
        progress: Whether to show a progress bar.
        tensorboard: Whether to log for TensorBoard too.
        announce: Told one line when a stage starts and ends.

    Returns:
        The model file of each stage that is done.

    Raises:
        RecipeError: A stage that does not exist, or one whose start is not there or does not fit; what is there of
            one was trained otherwise.
        DataError: A data set is missing or damaged.
        TrainingStopped: Training was interrupted or diverged.
    """
    known = [stage.name for stage in recipe.stages]
    for name in stages or ():
        if name not in known:
            raise RecipeError(f"recipe {recipe.name} has no stage {name!r}{nearest(name, known)}")
    done = {s.name: path for s in recipe.stages if (path := directory / s.name / MODEL).exists()}
    ahead = [s for s in recipe.stages if s.name not in done and (stages is None or s.name in stages)]
    for stage in recipe.stages:
        _check_same(recipe, stage, directory)
    for name in done:
        announce(f"{recipe.name}/{name}: done before")
    costs = {stage.name: _cost(stage) for stage in ahead}
    for stage in ahead:
        seconds = (
            None if minutes is None or not stage.fit.steps else 60 * minutes * costs[stage.name] / sum(costs.values())
        )
        result = _run(recipe, stage, data_root, directory, seconds, progress, tensorboard, announce)
        done[stage.name] = directory / stage.name / MODEL
        announce(
            f"{recipe.name}/{stage.name}: {result.psnr:.2f} dB on held-back images, "
            f"{result.steps} steps in {result.seconds:.0f} s"
        )
    return {name: done[name] for name in known if name in done}


def _cost(stage: Stage) -> float:
    """Work of a stage, in passes over pixels: a clocked network makes one for each time step."""
    passes = stage.time_steps + 1 if stage.kind == "snn" and stage.schedule != "phased" else 1
    return stage.fit.steps * stage.fit.batch_size * stage.fit.accumulate * stage.patch**2 * passes


def _check_same(recipe: Recipe, stage: Stage, directory: Path) -> None:
    """What is there of a stage was trained as the recipe says.

    Raises:
        RecipeError: It was not.
    """
    file = directory / stage.name / STAGE
    if not file.exists():
        return
    there, here = json.loads(file.read_text(encoding="utf-8")), _description(recipe, stage)
    if differences := difference(there, here, _defaults()):
        raise RecipeError(f"{file.parent} was trained otherwise ({differences}); delete it, or give another --runs")


def _description(recipe: Recipe, stage: Stage) -> dict[str, Any]:
    """What a stage's result depends on, beside the images themselves: plain values by dotted names."""
    parts = asdict(recipe) | asdict(replace(stage, real_haze=recipe.haze_of(stage)))
    parts["conversion"] = asdict(recipe.conversion_of(stage))
    kept = {k: parts[k] for k in parts if k not in ("name", "stages", "default", "licence", "note")}
    return {k: v for k, v in _as_read(_flat(kept)).items() if k not in _WITHOUT_EFFECT}


def _defaults() -> dict[str, Any]:
    """What a stage described by an earlier version is at in settings that it did not know."""
    tables = {"": Stage, "fit.": FitConfig, "noise.": Noise, "haze.": Haze, "photographs.": Photographs}
    tables |= {"real_haze.": RealHaze, "conversion.": Conversion}
    known = {prefix + f.name: f.default for prefix, table in tables.items() for f in fields(table)}
    return _as_read({k: v for k, v in known.items() if v is not MISSING})


def _as_read(flat: Mapping[str, Any]) -> dict[str, Any]:
    """As a file gives it back, where tuples are lists."""
    return cast(dict[str, Any], json.loads(json.dumps(flat)))


def _flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in table.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


def _run(
    recipe: Recipe,
    stage: Stage,
    data_root: Path,
    directory: Path,
    seconds: float | None,
    progress: bool,
    tensorboard: bool,
    announce: Callable[[str], None],
) -> FitResult:
    """Train one stage and write its model."""
    pairs, held_back = training_data(recipe, stage, data_root)
    folder = directory / stage.name
    network = _network(recipe, stage, directory, pairs)
    teacher = None if stage.teacher is None else _named(recipe, stage, stage.teacher, directory)
    config = stage.fit
    if seconds is not None:
        begun = folder / CHECKPOINT  # a run that was fitted to some time goes on as it began
        fitted = load_checkpoint(begun)["run"]["steps"] if begun.exists() else None
        config = replace(config, steps=fitted) if fitted else fit_to_time(network, pairs, config, seconds, teacher)
    announce(f"{recipe.name}/{stage.name}: {config.steps} steps")
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / STAGE, json.dumps(_description(recipe, stage), indent=1) + "\n")
    result = fit(network, pairs, config, folder, held_back, teacher=teacher, progress=progress, tensorboard=tensorboard)
    fabric = launch()
    if fabric.is_global_zero:
        if stage.kind == "qann":
            if isinstance(network, MultiScaleNet) and network.activation_bits:  # other files know no quantisers
                save_network(network.cpu(), folder / QUANTISED)
            network = _spiking(recipe, replace(stage, schedule="phased"), cast(RestorationNetwork, network), pairs)
        network.cpu()
        if isinstance(network, SpikingNetwork):
            save_pretrained(network, folder / MODEL)
        else:
            save_network(network, folder / MODEL)
    fabric.barrier()
    return result


def training_data(recipe: Recipe, stage: Stage, root: Path) -> tuple[Dataset[Pair], list[Pair]]:
    """Training patches of a stage, and held-back images.

    Args:
        recipe: The recipe.
        stage: The stage, whose seed and patch side they have.
        root: Folder that the recipe's data folders are in.

    Raises:
        DataError: A data set is missing or damaged.
    """
    if recipe.noise is not None:
        noise = recipe.noise
        folders = (noise.folder,) if isinstance(noise.folder, str) else noise.folder
        channels, takes_level = 1, False
        if recipe.architecture:  # fine-tuning knows none
            network = build_network(recipe.architecture, **recipe.options)
            channels, takes_level = network.channels, network.takes_level
        read = read_gray if channels == 1 else read_rgb
        clean = [read(path) for folder in folders for path in list_images(root / folder)]
        train = [image for i, image in enumerate(clean) if i % noise.held_back_every]
        if not train:
            raise DataError(f"{root / folders[0]} holds one image, which is held back; training takes two or more")
        levels = noise.sigma if isinstance(noise.sigma, tuple) else (noise.sigma, noise.sigma)
        sigma = noise.sigma if isinstance(noise.sigma, float) else levels
        patches = NoisyPatches(train, stage.patch, sigma, stage.fit.seed, noise.clip, takes_level)
        return patches, list(_noisy(clean[:: noise.held_back_every], noise, sum(levels) / 2, takes_level))
    if recipe.photographs is not None:
        return _photographs(recipe.photographs, stage, root)
    if (real := recipe.haze_of(stage)) is not None:
        return _real_haze(real, stage, root)
    assert recipe.haze is not None
    kept, apart = hold_back(list_nyu(root / recipe.haze.folder), recipe.haze.held_back)
    held_back = _hazy(apart, recipe.haze.airlight)
    scenes = [scene.read() for scene in kept]
    return HazyPatches(scenes, stage.patch, stage.fit.seed, airlight=recipe.haze.airlight), held_back


def _hazy(scenes: Sequence[SceneFiles], airlight: tuple[float, float]) -> list[Pair]:
    """Large squares of held-back scenes, hazy in the same way at every validation."""
    whole = [scene.read() for scene in scenes]
    side = min(min(scene.depth_map.shape) for scene in whole)
    squares = HazyPatches(whole, side, seed=1, airlight=airlight)
    return [squares[i] for i in range(len(whole))]


def _photographs(data: Photographs, stage: Stage, root: Path) -> tuple[Dataset[Pair], list[Pair]]:
    """Patches with noise of cameras; held back are the photographs of some cameras, and clean images to themselves."""
    folders = (data.folder,) if isinstance(data.folder, str) else data.folder
    clean = [read_rgb(path) for folder in folders for path in list_images(root / folder)]
    train = [image for i, image in enumerate(clean) if i % data.held_back_every]
    if not train:
        raise DataError(f"{root / folders[0]} holds one image, which is held back; training takes two or more")
    pairs = read_polyu(root / data.pairs, without={*data.left_out, *data.validated}) if data.real else []
    patches = PhotographPatches(
        train,
        read_curves(root / data.curves),
        stage.patch,
        stage.fit.seed,
        pairs,
        real=data.real,
        sensor=data.sensor,
    )
    held_back = read_polyu(root / data.pairs, cameras=data.validated) if data.validated else []
    held_back += [(image, image) for image in clean[:: data.held_back_every]]
    return patches, [
        (_middle(to_tensor(noisy), data.held_back_side), _middle(to_tensor(clean), data.held_back_side))
        for noisy, clean in held_back
    ]


def _real_haze(data: RealHaze, stage: Stage, root: Path) -> tuple[Dataset[Pair], list[Pair]]:
    """Patches of hazy scenes; held back are indoor scenes as RESIDE makes them hazy, and outdoor ones."""
    outdoor = list_outdoor(root / data.outdoor)
    if data.left_out >= len(outdoor):
        raise DataError(f"{root / data.outdoor} has {len(outdoor)} scenes, of which {data.left_out} are left out")
    inside, inside_apart = hold_back(list_nyu(root / data.indoor), data.held_back)
    outside, outside_apart = hold_back(outdoor[: len(outdoor) - data.left_out], data.held_back)
    patches = RealHazePatches(
        [scene.read() for scene in inside],
        [scene.read() for scene in outside],
        stage.patch,
        stage.fit.seed,
        data.beta,
        data.airlight,
        data.reside,
    )
    return patches, _hazy(inside_apart, _SOTS_AIRLIGHT) + _hazy(outside_apart, _SOTS_AIRLIGHT)


def _middle(image: Tensor, side: int) -> Tensor:
    """The square in the middle of an image; its corner lies on a block of the JPEG that the image was."""
    top, left = (max(0, size - side) // 16 * 8 for size in image.shape[1:])
    return image[:, top : top + side, left : left + side]


def _noisy(images: Sequence[Any], noise: Noise, mean: float, level: bool) -> Iterator[Pair]:
    """Held-back images with the same noise at every validation."""
    for i, image in enumerate(images):
        clean = to_tensor(image)
        if (side := noise.held_back_side) is not None:
            top, left = ((size - side) // 2 for size in clean.shape[1:])
            clean = clean[:, top : top + side, left : left + side]
        for sigma in noise.held_back_sigma or (mean,):
            yield noisy_pair(clean, sigma, sample_generator(1, i), noise.clip, level)


def _network(
    recipe: Recipe, stage: Stage, directory: Path, pairs: Dataset[Pair]
) -> RestorationNetwork | SpikingNetwork:
    """What a stage trains: random weights, a conversion, or a network that goes on."""
    start: RestorationNetwork | SpikingNetwork
    if stage.start is not None:
        start = _named(recipe, stage, stage.start, directory)
        if stage.averaged_with is not None:
            start = _mean(stage, start, _named(recipe, stage, stage.averaged_with, directory))
        if stage.norm_batches:
            size = stage.fit.batch_size
            update_bn(DataLoader(Subset(pairs, range(size * stage.norm_batches)), size), start)
        if isinstance(start, MultiScaleNet) and start.form == "level" and recipe.options.get("form") == "residual":
            start = without_level(start, _BLIND_LEVEL)
        if stage.blocks or stage.pointwise_inject:
            if not isinstance(start, MultiScaleNet):
                key = "blocks" if stage.blocks else "pointwise_inject"
                raise RecipeError(f"stage {stage.name}: {key} is for a multi-scale network; {stage.start} is none")
            images = calibration_of(pairs)
            if stage.pointwise_inject:
                start = pointwise_inject(start, images)
            if stage.blocks:
                start = grown(start, stage.blocks, images, torch.Generator().manual_seed(stage.fit.seed))
    elif stage.kind == "qann":
        raise RecipeError(f"stage {stage.name}: a network of kind {stage.kind} starts from another one; name it")
    else:
        start = build_network(recipe.architecture, **recipe.options)
        start.reset_parameters(torch.Generator().manual_seed(stage.fit.seed))
    if stage.kind == "ann":
        network = _conventional(stage, start)
        if network.activation_bits:
            network = cast(RestorationNetwork, release_activations(network))
            network.activation_bits = ()
        return network
    compiled = can_compile()
    if stage.kind == "qann":
        how = recipe.conversion_of(stage)
        network = _conventional(stage, start)
        bits = _bits(stage, network)
        if not any(isinstance(module, QCFS) for module in network.modules()):
            quantised = quantise_activations(
                network,
                calibration_of(pairs),
                stage.time_steps,
                how.percentile,
                per_channel=METHODS[how.method].per_channel,
                bits=bits,
            )
            network = cast(RestorationNetwork, quantised)
            network.activation_bits = bits
        elif isinstance(network, MultiScaleNet) and bits and network.activation_bits != bits:
            # other steps between the same clip levels
            finer = MultiScaleNet(**{**network.options, "activation_bits": bits})  # type: ignore[arg-type]
            finer.load_state_dict(network.state_dict())
            network = finer.train(network.training)
        for module in network.modules():
            if isinstance(module, QCFS):
                module.compiled = compiled
        return network
    if isinstance(start, SpikingNetwork):
        _require_unchanged(stage, start)
        spiking = start.at(time_steps=stage.time_steps, schedule=stage.schedule, coding=stage.coding)
    else:
        spiking = _spiking(recipe, stage, start, pairs)
    spiking.compile_neurons(compiled)
    return spiking


def _named(recipe: Recipe, stage: Stage, name: str, directory: Path) -> RestorationNetwork | SpikingNetwork:
    """The network that a stage starts from or learns from."""
    if any(other.name == name for other in recipe.stages):
        path = directory / name / MODEL
        if stage.kind != "snn" and (quantised := path.with_name(QUANTISED)).exists():
            path = quantised
        if not path.exists():
            raise RecipeError(f"stage {stage.name} needs {name}, which has not been run: no {path}")
    elif not (path := directory.parent / name / MODEL).is_file() and not (path := Path(name)).is_file():
        path = SHIPPED / f"{name}.safetensors"
        if not path.is_file():
            raise RecipeError(
                f"stage {stage.name} needs {name!r}, which is no stage of {recipe.name}, no file, and no network "
                "of a model that ships (such as denoise-gray-25/ann)"
            )
    return load_any(path)


def _mean(
    stage: Stage, network: RestorationNetwork | SpikingNetwork, other: RestorationNetwork | SpikingNetwork
) -> RestorationNetwork | SpikingNetwork:
    """A mean of two networks that differ in their numbers alone (Wortsman et al. 2022, "Robust fine-tuning")."""
    ours, theirs = network.state_dict(), other.state_dict()
    shapes, others = ({key: value.shape for key, value in state.items()} for state in (ours, theirs))
    if shapes != others:
        raise RecipeError(f"stage {stage.name}: {stage.start} and {stage.averaged_with} are not the same network")
    for key, value in ours.items():
        if value.is_floating_point():
            value.lerp_(theirs[key].to(value.dtype), stage.averaged_share)
    return network


def _bits(stage: Stage, network: RestorationNetwork) -> tuple[int, ...]:
    """Bits of the activations at each scale of a multi-scale network, the last given for all that are coarser."""
    if stage.coding != "binary":
        return ()
    bits = stage.activation_bits or (stage.time_steps,)
    if isinstance(network, MultiScaleNet):
        scales = len(network.blocks)
        if len(bits) > scales:
            raise RecipeError(
                f"stage {stage.name}: activation_bits is {list(bits)}, and the network has {scales} scales"
            )
        bits += bits[-1:] * (scales - len(bits))
    return bits


def _require_unchanged(stage: Stage, network: SpikingNetwork) -> None:
    """Refuse a stage that would have a network that spikes converted in another way.

    Raises:
        RecipeError: The stage has a conversion of its own, or other bits than the network.
    """
    if stage.conversion is not None:
        raise RecipeError(f"stage {stage.name}: conversion is given, and {stage.start} spikes already; leave it out")
    neurons = [network.neuron(name) for name in network.layers]
    there = {neuron.activation_bits or stage.time_steps for neuron in neurons if not neuron.signed}
    if stage.activation_bits and set(stage.activation_bits) != there:
        raise RecipeError(
            f"stage {stage.name}: activation_bits is {list(stage.activation_bits)}, and layers of {stage.start} have "
            f"{', '.join(map(str, sorted(there, reverse=True)))} bits; a network that spikes keeps its own"
        )


def _conventional(stage: Stage, network: RestorationNetwork | SpikingNetwork) -> RestorationNetwork:
    if isinstance(network, SpikingNetwork):
        raise RecipeError(f"stage {stage.name}: {stage.kind} starts from a conventional network; {stage.start} spikes")
    return network


def calibration_patches(recipe: Recipe, stage: Stage, data_root: Path, count: int) -> Tensor:
    """Degraded patches like those that a stage is trained on, none of which any run reaches.

    Shape:
        (count, C, patch, patch), C as the network reads.

    Raises:
        DataError: A data set is missing or damaged.
    """
    return calibration_of(training_data(recipe, stage, data_root)[0], count)


def calibration_of(pairs: Dataset[Pair], count: int = 64) -> Tensor:
    """Degraded patches of a training set, none of which any run reaches.

    Shape:
        (count, C, patch, patch), C as the network reads.
    """
    return torch.stack([pairs[_CALIBRATION + i][0] for i in range(count)])


def _spiking(recipe: Recipe, stage: Stage, network: RestorationNetwork, pairs: Dataset[Pair]) -> SpikingNetwork:
    """A conversion as the recipe says."""
    how = recipe.conversion_of(stage)
    return convert(
        network.eval(),
        calibration_of(pairs),
        how.method,
        time_steps=stage.time_steps,
        schedule=stage.schedule,
        coding=stage.coding,
        activation_bits=stage.activation_bits,
        percentile=how.percentile,
        v0=how.v0,
    )


def can_compile() -> bool:
    """Whether torch.compile works here: it needs a C++ compiler, or Triton on a GPU."""
    try:
        return bool(torch.compile(lambda x: x + 1)(torch.zeros(1, device=launch().device)) == 1)
    except Exception:  # whatever it is, the eager neurons give the same numbers
        return False
