"""From the runs of a recipe to a model's folder: weights, configuration, card."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from spikingir.files import write_text
from spikingir.networks.registry import save_network
from spikingir.restoration.catalogue import CONFIG_FILE, Model, read_model
from spikingir.spiking.network import SpikingNetwork
from spikingir.spiking.storage import save_pretrained
from spikingir.training.follow import load_any
from spikingir.training.journal import LOG_FILE
from spikingir.training.recipe import Recipe, RecipeError

CARD_FILE = "README.md"

_NOT_FOR = {
    "denoise": "noise of another level or kind, which it was not trained on; colour noise that is correlated between "
    "channels.",
    "dehaze": "fog at night, rain or smoke, which it was not trained on; measuring distances through haze.",
}


def publish(recipe: Recipe, done: Mapping[str, Path], folder: Path) -> Model:
    """Write the folder of a model; what is there of an earlier one is replaced, and its results are gone.

    The conventional network's kernels are stored in float16, which it does not feel; spiking networks stay in float32,
    for a rounded weight moves membranes across thresholds, which costs more than the file's other half is worth.

    Args:
        recipe: The recipe that was followed.
        done: The model file of each stage that is done, as :func:`~spikingir.training.follow.follow` returns it.
        folder: Folder to write; made if need be.

    Returns:
        The model.

    Raises:
        RecipeError: No spiking network is done that the recipe publishes.
    """
    networks = {s.publish: load_any(done[s.name]) for s in recipe.stages if s.publish and s.name in done}
    clocks = {f"{name}.safetensors": n.config for name, n in networks.items() if isinstance(n, SpikingNetwork)}
    if not clocks:
        raise RecipeError(f"recipe {recipe.name} has no spiking network to publish yet; run its stages first")
    folder.mkdir(parents=True, exist_ok=True)
    for name, network in networks.items():
        path = folder / f"{name}.safetensors"
        if isinstance(network, SpikingNetwork):
            save_pretrained(network, path, overwrite=True)
        else:
            save_network(network, path, dtype=torch.float16)
    some = next(iter(clocks.values()))
    config = {
        "name": recipe.name,
        "task": "denoise" if recipe.haze is None else "dehaze",
        "channels": some.channels,
        **({} if recipe.noise is None else {"sigma": recipe.noise.sigma}),
        "architecture": recipe.architecture,
        "variants": {file: {"schedule": c.schedule, "time_steps": c.time_steps} for file, c in clocks.items()},
        "default": file if (file := f"{recipe.default}.safetensors") in clocks else next(iter(clocks)),
        "licence": recipe.licence,
    }
    write_text(folder / CONFIG_FILE, json.dumps(config, indent=2) + "\n")
    model = read_model(folder)
    write_text(folder / CARD_FILE, card(recipe, model, done))
    return model


def card(recipe: Recipe, model: Model, done: Mapping[str, Path]) -> str:
    """The model card, in Markdown.

    Args:
        recipe: The recipe that was followed.
        model: The model.
        done: The model file of each stage that is done, its log beside it.
    """
    runs = {stage.name: _summary(done[stage.name].parent / LOG_FILE) for stage in recipe.stages if stage.name in done}
    lines = [
        "| stage | made from | clock | steps | patches | hours | held-back images |",
        "|---|---|---|---|---|---|---|",
    ]
    for stage in recipe.stages:
        if stage.name not in runs:
            lines.append(f"| {stage.name} | | | not run yet | | | |")
            continue
        run = runs[stage.name]
        patches = f"{run['batch_size'] * run['accumulate'] * run['processes']} of {stage.patch}x{stage.patch}"
        clock = "" if stage.kind == "ann" else f"T = {stage.time_steps}, {stage.schedule}"
        psnr = "" if run["psnr"] is None else f"{run['psnr']:.2f} dB"
        start = stage.start or "random weights"
        hours = f"{run['seconds'] / 3600:.2f}"
        lines.append(f"| {stage.name} | {start} | {clock} | {run['steps']} | {patches} | {hours} | {psnr} |")
    machines = dict.fromkeys(
        f"{run['processor']} ({run['processes']} process{'es' * (run['processes'] > 1)}, {run['precision']}, "
        f"torch {run['torch']}, spikingir {run['version']} at commit {run['commit']})"
        for run in runs.values()
    )
    parts = [
        f"# {model.name}",
        f"{model.purpose[0].upper()}{model.purpose[1:]}. `ann.safetensors` is the conventional network "
        f"({recipe.architecture}); the others are spiking networks made of it: MPR neurons with a threshold for each "
        "channel, pixel mapper, membrane recycling.",
        "## Recipe",
        f"`spikingir train {recipe.name} --data-root DATA`, by recipe `{recipe.name}.toml`.",
        "\n".join(lines),
        f"On {'; '.join(machines)}.",
        "## Data",
        _data(recipe),
        "## Results",
        "On the held-back images: in the table above.",
        "## Licence",
        f"{recipe.licence}. The images that the weights were trained on are not distributed with them; their terms are "
        "for research.",
        "## Not for",
        f"Medical, forensic or scientific images in which invented or lost detail matters; {_NOT_FOR[model.task]}",
    ]
    return "\n\n".join(parts) + "\n"


def _data(recipe: Recipe) -> str:
    if recipe.noise is not None:
        noise = recipe.noise
        sigma = f"{noise.sigma:g}" if isinstance(noise.sigma, float) else "{:g} to {:g}".format(*noise.sigma)
        return (
            f"`{noise.folder}` of the image collection; Gaussian noise of sigma {sigma}, "
            f"{'clipped' if noise.clip else 'unclipped'}, drawn for each patch. One image in "
            f"{noise.held_back_every} was held back."
        )
    assert recipe.haze is not None
    low, high = recipe.haze.airlight
    return (
        f"`{recipe.haze.folder}` of the image collection; haze by the atmospheric scattering model, drawn for each "
        f"patch, atmospheric light of {low:g} to {high:g}, depth by its maximum in each image. "
        f"{100 * recipe.haze.held_back:g} % of the scenes, in runs of neighbours, were held back."
    )


def _summary(log: Path) -> dict[str, Any]:
    """Configuration, machine, steps, seconds and last PSNR of a run, from its log."""
    entries = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    start = [entry for entry in entries if entry.get("event") == "start"][-1]
    last = [entry for entry in entries if "loss" in entry][-1]
    psnr = [entry["psnr"] for entry in entries if "psnr" in entry]
    return {**start, "steps": last["step"], "seconds": last["seconds"], "psnr": psnr[-1] if psnr else None}
