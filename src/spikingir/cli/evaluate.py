"""Commands that measure."""

import json as json_
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from spikingir.cli.console import complain, progress_bar, say
from spikingir.cli.tables import number, table
from spikingir.errors import UsageError
from spikingir.tasks import TASKS

if TYPE_CHECKING:
    from spikingir.data.testsets import TestPair
    from spikingir.evaluation.evaluate import Evaluation, Measures
    from spikingir.zoo.catalogue import Model

MAX_MEGAPIXELS = 400
"""Largest photograph that commands read unless told otherwise."""

_SMALLEST = 11  # the window of SSIM

DataRoot = Annotated[Path | None, Parameter(env_var="SPIKINGIR_DATA")]
Sigma = Annotated[float | None, Parameter(validator=Number(gte=0))]
Positive = Annotated[int | None, Parameter(validator=Number(gte=1))]
Crop = Annotated[int | None, Parameter(validator=Number(gte=_SMALLEST))]
MaxMegapixels = Annotated[int, Parameter(validator=Number(gte=1))]


def _sets() -> str:
    """The test sets of each task by name, as help has them."""
    sets = "; ".join(f"to {task.name} {', '.join(task.testsets)}" for task in TASKS.loaded.values() if task.testsets)
    return f"Name of a test set ({sets}), or a folder: clean images to denoise; to dehaze, folders hazy and gt in it."


def evaluate(
    model: str,
    /,
    *,
    data: Annotated[str, Parameter(help=_sets())],
    data_root: DataRoot = None,
    sigma: Sigma = None,
    schedule: Literal["clocked", "phased"] | int | None = None,
    time_steps: Positive = None,
    limit: Positive = None,
    crop: Crop = None,
    seed: Annotated[int, Parameter(validator=Number(gte=0))] = 0,
    max_megapixels: MaxMegapixels = MAX_MEGAPIXELS,
    json: bool = False,
    card: bool = False,
) -> None:
    """Measure a model on a test set: PSNR, SSIM, conversion rate, spikes, energy.

    The spiking network runs in its deployment form; its reference is the model's conventional network. PSNR and SSIM
    are those of images clipped to 0..1, per image and then averaged; energy is in mJ, counted as the paper does. Of
    photographs without a clean one Hautiere's descriptors are told: rate of new visible edges (e), how many times
    steeper visible edges became (r), share of pixels that became black or white (sigma).

    Args:
        model: Name of a model that ships, or a .safetensors file, or a folder with snn.safetensors.
        data: A test set by name, or a folder.
        data_root: Folder of the image collection; only names need it.
        sigma: Level of the noise, of 255; that of the model unless given.
        schedule: clocked, phased, or the number of inputs that a layer waits for; as the model was made unless given.
        time_steps: Time steps of the spiking network; as it was trained unless given.
        limit: Take at most so many images, spread evenly over the set.
        crop: Cut so many pixels square out of the middle of each.
        seed: Seed of the noise.
        max_megapixels: Largest image of a folder that is read.
        json: Print JSON.
        card: Also count the energy by all columns, and write the row into the model's folder: tests.json, and the table
            of its card. For test sets by name.
    """
    from spikingir.evaluation.evaluate import Assessment, assess
    from spikingir.evaluation.evaluate import evaluate as measure
    from spikingir.evaluation.testsets import open_photographs
    from spikingir.restoration.restorer import Restorer
    from spikingir.zoo.card import card_of, record_test
    from spikingir.zoo.catalogue import choose_variant
    from spikingir.zoo.pretrained import load_ann, open_model

    opened = open_model(model)
    known = TASKS[opened.task].testsets.get(data)
    sigma = noise_level(opened, sigma, data)
    if card:
        if known is None:
            raise UsageError(f"--card is for test sets by name; {data} is none that is to {opened.task}")
        card_of(opened)
    restorer = Restorer.from_pretrained(model, time_steps=time_steps, schedule=schedule)
    config, ann = restorer.network.config, load_ann(opened)
    found: Evaluation | Assessment
    if known is not None and not known.reference:
        photographs = open_photographs(data, data_root, task=opened.task, limit=limit, crop=crop)
        for note in restorer.notes:
            complain(f"note: {note}")
        with progress_bar("evaluating") as progress:
            found = assess(restorer, photographs, ann, columns=card, progress=progress)
    else:
        pairs = open_pairs(opened, data, data_root, sigma, seed, limit, crop, max_megapixels * 10**6)
        for note in restorer.notes:
            complain(f"note: {note}")
        with progress_bar("evaluating") as progress:
            found = measure(restorer, pairs, ann, task=opened.task, columns=card, progress=progress)
    if card:
        from spikingir.evaluation.record import row_of
        from spikingir.zoo.measured import TESTS_FILE

        network = choose_variant(opened, schedule, time_steps).variant.file
        row = row_of(
            found, data=data, network=network, clock=config.clock, sigma=sigma, seed=seed, limit=limit, crop=crop
        )
        record_test(opened, row)
        complain(f"note: the row is in {opened.folder / TESTS_FILE}, and in the card beside it")
    if json:
        head = {"model": model, "data": data, "schedule": config.schedule, "time_steps": config.time_steps}
        setting = {"sigma": sigma, "seed": seed, "limit": limit, "crop": crop, "notes": list(restorer.notes)}
        say(json_.dumps({**head, **setting, **found.as_dict()}, indent=2))
        return
    say(f"{model} ({config.clock}) on {data}: {setting_of(len(found.images), crop, sigma, seed)}")
    if isinstance(found, Assessment):
        every = [*((name, one.as_dict()) for name, one in found.images), ("mean", found.mean)]
        say(table([_ASSESSED, *([name, *_descriptors(values)] for name, values in every)]))
        return
    rows = [_HEADER, *(_row(name, measures) for name, measures in found.images), _row("mean", found.mean)]
    say(table(rows))
    if (interval := found.psnr_ci95) is not None:
        say(f"SNN's mean PSNR over other such images, 95 %: {interval[0]:.2f} to {interval[1]:.2f} dB")
    if (interval := found.psnr_loss_ci95) is not None:
        say(f"mean loss against the ANN, likewise: {interval[0]:.3f} to {interval[1]:.3f} dB")
    uncapped = found.mean.conversion_rate_uncapped
    if uncapped is not None and uncapped > 100:
        say(f"conversion rate before capping: {uncapped:.2f} %")


_HEADER = [
    "image",
    "input dB",
    "SNN dB",
    "SSIM",
    "ANN dB",
    "SSIM",
    "loss dB",
    "rate %",
    "spikes/neuron",
    "mJ",
    "ANN mJ",
]


_ASSESSED = ["image", "e", "r", "sigma %", "spikes/neuron", "mJ", "ANN mJ"]


def _descriptors(values: "Mapping[str, float | None]") -> list[str]:
    saturated = values["sigma"]
    return [
        number(values["e"], 2),
        number(values["r"], 2),
        number(None if saturated is None else 100 * saturated, 2),
        number(values["spikes_per_neuron"], 2),
        number(values["snn_mj"], 3),
        number(values["ann_mj"], 3),
    ]


def _row(name: str, measures: "Measures") -> list[str]:
    return [
        name,
        f"{measures.degraded_psnr:.2f}",
        f"{measures.psnr:.2f}",
        f"{measures.ssim:.4f}",
        number(measures.ann_psnr, 2),
        number(measures.ann_ssim, 4),
        number(measures.psnr_loss, 2),
        number(measures.conversion_rate, 2),
        f"{measures.spikes_per_neuron:.2f}",
        f"{measures.snn_mj:.3f}",
        f"{measures.ann_mj:.3f}",
    ]


def noise_level(model: "Model", wanted: float | None, data: str = "") -> float | None:
    """Level of the noise that is added; None where none is."""
    task = TASKS[model.task]
    if task.sigma_of is None:
        why = f"{model.name} removes {task.removes}, to which no noise is added"
    elif (known := task.testsets.get(data)) is not None and known.degraded:
        why = f"the images of {data} have noise of their own, and none is added"
    else:
        why = None
    if why is not None:
        if wanted is not None:
            raise UsageError(f"{why}; leave --sigma out")
        return None
    sigma = model.fixed_sigma if wanted is None else wanted
    if sigma is None:
        raise UsageError(f"{model.name} is not for one noise level alone; give the level with --sigma")
    return sigma


def open_pairs(
    model: "Model",
    data: str,
    data_root: Path | None,
    sigma: float | None,
    seed: int,
    limit: int | None,
    crop: int | None,
    max_pixels: int | None = None,
) -> "Sequence[TestPair]":
    """The test set of that name or folder, with the degradation that the model removes."""
    from spikingir.evaluation.testsets import open_testset

    return open_testset(
        data,
        data_root,
        task=model.task,
        channels=model.channels,
        sigma=sigma,
        seed=seed,
        limit=limit,
        crop=crop,
        max_pixels=max_pixels,
    )


def setting_of(count: int, crop: int | None, sigma: float | None, seed: int) -> str:
    """What was measured, in words: how many images, which part of each, and the noise."""
    images = f"{count} image{'s' * (count != 1)}"
    size = "" if crop is None else f", the middle {crop} x {crop}"
    noise = "" if sigma is None else f", noise of sigma {sigma:g}, seed {seed}"
    return images + size + noise
