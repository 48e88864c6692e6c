"""Fine-tuning a model on images of one's own, as a recipe of one stage."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from spikingir.tasks import TaskName
from spikingir.training.config import FitConfig
from spikingir.training.recipe import Haze, Noise, Recipe, RecipeError, Stage
from spikingir.zoo.catalogue import Model, VariantChoice


def finetuning(
    model: Model,
    choice: VariantChoice,
    data: Path,
    *,
    sigma: float | None,
    steps: int,
    learning_rate: float,
    batch_size: int,
    patch: int,
) -> Recipe:
    """Recipe that fine-tunes one network of a model.

    Args:
        model: The model.
        choice: The network, and the time steps and schedule to train it at.
        data: Folder of clean images for a denoiser, of scenes with depth for a dehazer.
        sigma: Noise level on the 0..255 scale; the model's unless given.
        steps: Training steps.
        learning_rate: Peak rate.
        batch_size: Patches per step.
        patch: Side of the patches in pixels.

    Raises:
        RecipeError: A denoiser without a noise level, or one for colour; a task that no recipe trains for.
    """
    folder = str(data.resolve())
    if model.task not in _DATA:
        raise RecipeError(f"{model.name} is to {model.task}; models to {' or '.join(_DATA)} alone are fine-tuned")
    training = _DATA[model.task](model, folder, sigma)
    fit = FitConfig(steps, batch_size, learning_rate, threshold_rate=20, warmup=0.1, ema=0.98)
    start = str(model.folder / choice.variant.file)
    stage = Stage("snn", "snn", patch, fit, start, time_steps=choice.time_steps, schedule=choice.schedule)
    return Recipe(f"{Path(model.name).stem}-finetuned", model.architecture or "", (stage,), **training)


def _noise(model: Model, folder: str, sigma: float | None) -> dict[str, Any]:
    if model.channels != 1:
        raise RecipeError(f"{model.name} is for images of {model.channels} channels; gray ones alone are trained")
    level = model.sigma if sigma is None else sigma
    if level is None:
        raise RecipeError(f"{model.name} does not say for which noise level it is; give --sigma")
    return {"noise": Noise(folder, level)}


def _haze(model: Model, folder: str, sigma: float | None) -> dict[str, Any]:
    return {"haze": Haze(folder)}


_DATA: Mapping[TaskName, Callable[[Model, str, float | None], dict[str, Any]]] = {Noise.task: _noise, Haze.task: _haze}
"""What of a recipe trains on images of one's own, by the task of the model."""
