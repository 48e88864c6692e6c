"""Commands that make models: training by recipe, fine-tuning, conversion."""

import os
import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from spikingir.cli.console import CommandError, say
from spikingir.errors import UsageError

DataRoot = Annotated[Path, Parameter(env_var="SPIKINGIR_DATA")]
Count = Annotated[int, Parameter(validator=Number(gte=1))]
Minutes = Annotated[float | None, Parameter(validator=Number(gt=0))]
Sigma = Annotated[float | None, Parameter(validator=Number(gte=0))]


def train(
    recipe: str,
    /,
    *,
    data_root: DataRoot,
    runs: Path = Path("runs"),
    stage: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    minutes: Minutes = None,
    tensorboard: bool = False,
) -> None:
    """Train a model by a recipe; what is done is skipped, what was interrupted goes on. At the end there is a model.

    Several devices or machines: torchrun --nproc-per-node N -m spikingir.cli train RECIPE.

    Args:
        recipe: Name of a recipe that ships (see: spikingir recipes), or a .toml file.
        data_root: Folder of the image collection.
        runs: Folder for the results; the recipe gets a folder in it.
        stage: Stages to run; all unless given.
        minutes: Time at hand; the recipe's steps are made more or fewer so that they fill it.
        tensorboard: Log for TensorBoard too.
    """
    from spikingir.training.follow import follow
    from spikingir.training.publish import publish
    from spikingir.training.recipe import load_recipe

    loaded = load_recipe(recipe)
    done = follow(
        loaded,
        data_root,
        runs / loaded.name,
        stages=stage,
        minutes=minutes,
        progress=sys.stderr.isatty(),
        tensorboard=tensorboard,
        announce=say,
    )
    for name, path in done.items():
        say(f"{name}: {path}")
    if any(stage.publish and stage.kind != "ann" and stage.name in done for stage in loaded.stages):
        model = publish(loaded, done, runs / loaded.name / "model", data_root)
        say(f"model: {model.folder}, to be given to spikingir {model.task} with --model")


def finetune(
    model: str,
    /,
    *,
    data: Path,
    sigma: Sigma = None,
    time_steps: Count | None = None,
    schedule: Literal["clocked", "phased"] | None = None,
    steps: Count = 1000,
    minutes: Minutes = None,
    learning_rate: Annotated[float, Parameter(validator=Number(gt=0))] = 1e-4,
    batch_size: Count = 16,
    patch: Count = 40,
    runs: Path = Path("runs"),
) -> None:
    """Fine-tune a spiking network on images of your own; what was interrupted goes on.

    Args:
        model: Name of a model that ships, or a .safetensors file, or a folder with one.
        data: Folder of clean images for a denoiser, of rgb and depth for a dehazer.
        sigma: Noise level of a denoiser, 0 to 255; that of the model unless given.
        time_steps: Time steps of the network; as it was made unless given.
        schedule: Its schedule, likewise.
        steps: Training steps.
        minutes: Time at hand, instead of steps.
        learning_rate: Peak rate.
        batch_size: Patches per step.
        patch: Side of the patches in pixels.
        runs: Folder for the result; the model gets a folder in it.
    """
    from spikingir.training.finetune import finetuning
    from spikingir.training.follow import follow
    from spikingir.zoo.catalogue import choose_variant
    from spikingir.zoo.pretrained import open_model

    opened = open_model(model)
    choice = choose_variant(opened, schedule, time_steps)
    recipe = finetuning(
        opened,
        choice,
        data,
        sigma=sigma,
        steps=steps,
        learning_rate=learning_rate,
        batch_size=batch_size,
        patch=patch,
    )
    done = follow(recipe, Path(), runs / recipe.name, minutes=minutes, progress=sys.stderr.isatty(), announce=say)
    say(f"{done['snn']}: to be given to spikingir {opened.task} with --model")


def _known_method(kind: object, value: str) -> None:
    from spikingir.conversion.convert import METHODS

    known = ("spikingir", "if", "rueckauer", *METHODS.added)
    if value not in known:
        raise ValueError(f"Must be one of {', '.join(known)}.")


def convert(
    weights: Path,
    /,
    *,
    data: Path,
    out: Annotated[Path | None, Parameter(name=["--out", "-o"])] = None,
    sigma: Sigma = None,
    method: Annotated[str, Parameter(validator=_known_method)] = "spikingir",
    time_steps: Count = 10,
    schedule: Literal["clocked", "phased"] = "clocked",
    percentile: Annotated[float | None, Parameter(validator=Number(gt=0, lte=100))] = None,
    v0: float | None = None,
    max_gib: Annotated[float, Parameter(validator=Number(gt=0))] = 2,
    overwrite: bool = False,
) -> None:
    """Convert weights of a known architecture to a spiking network, and say what became of each operation.

    Args:
        weights: File of weights: .safetensors, .pth, .pt or .ckpt.
        data: Folder of images to calibrate thresholds on: like those that will be restored, or clean ones with sigma.
        out: File to write; WEIGHTS_snn.safetensors beside it unless given.
        sigma: Noise to add to the images, 0 to 255; none unless given.
        method: spikingir, if or rueckauer, or one that a package of yours adds; others from Python alone.
        time_steps: Time steps.
        schedule: clocked or phased.
        percentile: Of the activations, for the thresholds; that of the method unless given.
        v0: Initial membrane in thresholds; that of the method unless given.
        max_gib: Most GiB that the file of weights, which may be compressed, may unpack to.
        overwrite: Replace the file to write if it exists.
    """
    from spikingir.conversion.convert import convert as convert_network
    from spikingir.conversion.report import report
    from spikingir.data.calibration import calibration_images
    from spikingir.files import check_replaceable, identities
    from spikingir.inputs import told
    from spikingir.store import load_network, save_pretrained
    from spikingir.zoo.catalogue import SHIPPED

    target = weights.with_name(f"{weights.stem}_snn.safetensors") if out is None else out
    check_replaceable(target, identities([weights, *SHIPPED.glob("*/*")]))
    if os.path.lexists(target) and not overwrite:
        raise CommandError(f"{target} exists already; --overwrite replaces it")
    network = load_network(weights, max_bytes=int(max_gib * 2**30))
    images = calibration_images(data, network.channels, sigma=sigma)
    if network.takes_level and sigma is None:
        raise UsageError(f"the network of {weights} is told the noise level; give that of its images with --sigma")
    spiking = convert_network(
        network,
        told(images, network.takes_level, sigma),
        method,
        time_steps=time_steps,
        schedule=schedule,
        percentile=percentile,
        v0=v0,
    )
    save_pretrained(spiking, target, overwrite=overwrite)
    say(str(report(spiking)))
    say(f"{target}: {spiking.config.clock}")


def recipes() -> None:
    """List the recipes that ship."""
    from spikingir.training.recipe import load_recipe, recipe_names

    for name in recipe_names():
        recipe = load_recipe(name)
        stages = ", ".join(f"{stage.name} ({stage.fit.steps} steps)" for stage in recipe.stages)
        say(f"{name}: {recipe.architecture}; {stages}")
