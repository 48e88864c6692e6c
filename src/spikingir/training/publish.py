"""From the runs of a recipe to a model's folder: weights, configuration, record of the training, card."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from spikingir.deploy.rounding import round_weights
from spikingir.files import write_text
from spikingir.spiking.network import SpikingNetwork
from spikingir.store import load_any, load_network, save_network, save_pretrained
from spikingir.training.follow import QUANTISED, calibration_patches
from spikingir.training.journal import LOG_FILE
from spikingir.training.recipe import Recipe, RecipeError
from spikingir.zoo.card import CARD_FILE, card
from spikingir.zoo.catalogue import CONFIG_FILE, SHIPPED, Model, read_model
from spikingir.zoo.measured import TESTS_FILE

RECORD_FILE = "training.json"
"""How each stage was trained, by its name."""

_RECORDED = ("batch_size", "accumulate", "processes", "precision", "processor", "version", "torch", "commit")

_ROUNDED_ON = 2**20
"""Pixels that weights are rounded on: 256 patches of 64x64."""


def publish(recipe: Recipe, done: Mapping[str, Path], folder: Path, data_root: Path) -> Model:
    """Write the folder of a model; what is there of an earlier one is replaced, and its results are gone.

    The conventional network's kernels are stored in float16, which it does not feel; spiking networks stay in float32,
    for a weight that is stored in fewer bits moves membranes across thresholds, which costs more than the file's other
    half is worth. Where a stage has ``weight_bits``, its weights are rounded to them here, on patches like those it was
    trained on; the stage's own file keeps them as they were trained.

    Args:
        recipe: The recipe that was followed.
        done: The model file of each stage that is done, as :func:`~spikingir.training.follow.follow` returns it.
        folder: Folder to write; made if need be.
        data_root: Folder that the recipe's data folders are in; read where weights are rounded.

    Returns:
        The model.

    Raises:
        RecipeError: No spiking network is done that the recipe publishes.
        DataError: A data set that weights are rounded on is missing or damaged.
    """
    published = {stage.publish: stage for stage in recipe.stages if stage.publish and stage.name in done}
    networks = {name: load_any(done[stage.name]) for name, stage in published.items()}
    clocks = {f"{name}.safetensors": n.config for name, n in networks.items() if isinstance(n, SpikingNetwork)}
    if not clocks:
        raise RecipeError(f"recipe {recipe.name} has no spiking network to publish yet; run its stages first")
    folder.mkdir(parents=True, exist_ok=True)
    for name, network in networks.items():
        path = folder / f"{name}.safetensors"
        if isinstance(network, SpikingNetwork):
            stage = published[name]
            if stage.weight_bits is not None:
                count = max(8, _ROUNDED_ON // stage.patch**2)
                patches = calibration_patches(recipe, stage, data_root, count)
                network = round_weights(network, patches, weight_bits=stage.weight_bits)
            save_pretrained(network, path, overwrite=True)
        else:
            save_network(network, path, dtype=torch.float16)
    for stage in recipe.stages:
        if stage.publish and stage.name in done and (path := done[stage.name].with_name(QUANTISED)).exists():
            save_network(load_network(path), folder / QUANTISED, dtype=torch.float16)
    some = next(iter(clocks.values()))
    config = {
        "name": recipe.name,
        "task": recipe.task,
        "channels": some.channels,
        **({"sigma": recipe.noise.sigma} if recipe.noise else {}),
        **({"takes_level": True} if some.is_told_level else {}),
        "architecture": recipe.architecture,
        "variants": {
            file: {"schedule": c.schedule, "time_steps": c.time_steps, "coding": c.coding} for file, c in clocks.items()
        },
        "default": file if (file := f"{recipe.default}.safetensors") in clocks else next(iter(clocks)),
        "licence": recipe.licence,
    }
    write_text(folder / CONFIG_FILE, json.dumps(config, indent=2) + "\n")
    model = read_model(folder)
    runs = training_record(recipe, done)
    write_text(folder / RECORD_FILE, json.dumps(runs, indent=2) + "\n")
    (folder / TESTS_FILE).unlink(missing_ok=True)  # of other weights
    write_text(folder / CARD_FILE, _card(recipe, model, runs))
    return model


def training_record(recipe: Recipe, done: Mapping[str, Path]) -> dict[str, dict[str, Any]]:
    """How each stage that is done was trained: by its log, or, without one, by the record of the model that ships.

    So training can go on elsewhere from weights that ship, put where a stage looks for them. Of a stage that one of
    these was made from or taught by, and that is not at hand, the record that ships is kept.

    Args:
        recipe: The recipe that was followed.
        done: The model file of each stage that is done, its log beside it.

    Raises:
        RecipeError: A stage has neither.
    """
    shipped = SHIPPED / recipe.name / RECORD_FILE
    known = json.loads(shipped.read_text(encoding="utf-8")) if shipped.exists() else {}
    runs: dict[str, dict[str, Any]] = {}
    wanted = set(done)
    for stage in reversed(recipe.stages):  # a stage is made from an earlier one
        if stage.name not in wanted:
            continue
        wanted.update(stage.sources.values())
        log = done[stage.name].parent / LOG_FILE if stage.name in done else None
        if log is not None and log.exists():
            runs[stage.name] = _summary(log)
        elif stage.name in known:
            runs[stage.name] = known[stage.name]
        elif log is not None:
            raise RecipeError(f"stage {stage.name} has weights, but no {log} that says how they were trained")
    return {stage.name: runs[stage.name] for stage in recipe.stages if stage.name in runs}


def _card(recipe: Recipe, model: Model, runs: Mapping[str, Mapping[str, Any]]) -> str:
    """The model card, of a recipe and of how each stage was trained, as :func:`training_record` tells."""
    stages = []
    for stage in recipe.stages:
        if stage.name not in runs:
            stages.append([stage.name, "", "", "not run yet", "", "", ""])
            continue
        run = runs[stage.name]
        patches = f"{run['batch_size'] * run['accumulate'] * run['processes']} of {stage.patch}x{stage.patch}"
        clock = "" if stage.kind == "ann" else f"T = {stage.time_steps}, {stage.schedule}"
        if stage.coding == "binary":
            clock += f", binary ({', '.join(map(str, stage.activation_bits or (stage.time_steps,)))} bits)"
        if stage.weight_bits is not None:
            clock += f", weights of {stage.weight_bits} bits"
        psnr = "" if run["psnr"] is None else f"{run['psnr']:.2f} dB"
        start = stage.start or "random weights"
        if stage.averaged_with is not None:
            share = "" if stage.averaged_share == 0.5 else f" ({stage.averaged_share:.0%})"
            start = f"mean of {start} and {stage.averaged_with}{share}"
        if stage.blocks:
            start += f", deepened to {', '.join(map(str, stage.blocks))} blocks"
        if stage.pointwise_inject:
            start += ", image read by 1x1"
        if stage.teacher is not None:
            start += f", taught by {stage.teacher}"
        stages.append([stage.name, start, clock, str(run["steps"]), patches, f"{run['seconds'] / 3600:.2f}", psnr])
    machines = dict.fromkeys(
        f"{run['processor']} ({run['processes']} process{'es' * (run['processes'] > 1)}, {run['precision']}, "
        f"torch {run['torch']}, spikingir {run['version']} at commit {run['commit']})"
        for run in runs.values()
    )
    return card(
        model,
        recipe=recipe.name,
        stages=stages,
        machines=tuple(machines),
        data=_data(recipe),
        not_for=recipe.data.not_for,
        note=recipe.note,
        curves={name: run["curve"] for name, run in runs.items() if run.get("curve")},
    )


def _folders(folder: str | tuple[str, ...]) -> str:
    return " and ".join(f"`{one}`" for one in ((folder,) if isinstance(folder, str) else folder))


def _data(recipe: Recipe) -> str:
    if recipe.noise is not None:
        noise = recipe.noise
        sigma = f"{noise.sigma:g}" if isinstance(noise.sigma, float) else "{:g} to {:g}".format(*noise.sigma)
        return (
            f"{_folders(noise.folder)} of the image collection; Gaussian noise of sigma {sigma}, "
            f"{'clipped' if noise.clip else 'unclipped'}, drawn for each patch. One image in "
            f"{noise.held_back_every} was held back."
        )
    if recipe.photographs is not None:
        photographs = recipe.photographs
        return (
            f"{_folders(photographs.folder)} of the image collection, with noise of cameras and JPEG, drawn for each "
            f"patch; {100 * photographs.real:g} % of the patches are cut from the real pairs of `{photographs.pairs}`. "
            f"Never trained on: the cameras {', '.join(photographs.left_out)} (tested on) and "
            f"{', '.join(photographs.validated)} (validated on), and one clean image in {photographs.held_back_every}."
        )
    if recipe.real_haze is not None:
        real = recipe.real_haze
        low, high = real.airlight
        stages: dict[float, list[str]] = {}
        for stage in recipe.stages:
            if stage.real_haze is not None:
                stages.setdefault(stage.real_haze.reside, []).append(stage.name)
        own = "".join(
            f" {share:.0%} of the indoor haze is RESIDE's own in {', '.join(of)}." for share, of in stages.items()
        )
        return (
            f"`{real.indoor}` and `{real.outdoor}` of the image collection; haze by the atmospheric scattering model, "
            f"drawn for each patch, beta to {real.beta:g}, atmospheric light of {low:g} to {high:g}, with noise and "
            f"JPEG. The last {real.left_out} outdoor scenes by name were left out for tests, and "
            f"{100 * real.held_back:g} % of the others, in runs of neighbours, were held back.{own}"
        )
    assert recipe.haze is not None
    low, high = recipe.haze.airlight
    return (
        f"`{recipe.haze.folder}` of the image collection; haze by the atmospheric scattering model, drawn for each "
        f"patch, atmospheric light of {low:g} to {high:g}, depth by its maximum in each image. "
        f"{100 * recipe.haze.held_back:g} % of the scenes, in runs of neighbours, were held back."
    )


def _summary(log: Path) -> dict[str, Any]:
    """Configuration, machine, steps, seconds, last PSNR of a run and how it came to it, from its log."""
    entries = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    start = [entry for entry in entries if entry.get("event") == "start"][-1]
    last = [entry for entry in entries if "loss" in entry][-1]
    curve = {entry["step"]: round(entry["psnr"], 3) for entry in entries if math.isfinite(entry.get("psnr", math.nan))}
    psnr = [entry["psnr"] for entry in entries if "psnr" in entry]
    said = {key: start[key] for key in _RECORDED}
    risen = {"curve": [list(point) for point in curve.items()]} if len(curve) > 1 else {}
    return {"steps": last["step"], "seconds": last["seconds"], "psnr": psnr[-1] if psnr else None, **said, **risen}
