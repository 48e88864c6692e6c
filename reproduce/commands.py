"""The commands of ``python -m reproduce``: the paper's tables and figures, a grid of one's own, one model's parts.

Nothing heavy is imported before a command needs it, so that ``--help`` answers at once.
"""

import json as json_
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from reproduce import RECIPES, WEIGHTS, Target
from spikingir import __version__
from spikingir.cli.console import CommandError, complain, progress_bar, require, say
from spikingir.cli.evaluate import (
    Crop,
    DataRoot,
    Positive,
    Sigma,
    noise_level,
    open_pairs,
    setting_of,
)
from spikingir.cli.parser import command_line
from spikingir.cli.tables import number, table
from spikingir.cli.train import Count
from spikingir.errors import UsageError

if TYPE_CHECKING:
    from spikingir.files import Identity

Words = Parameter(consume_multiple=True)

app = command_line("python -m reproduce")


@app.default
def reproduce(
    target: Target,
    /,
    *,
    data_root: DataRoot = None,
    limit: Positive = None,
    crop: Crop = None,
    models: Path | None = None,
    weights: Path = WEIGHTS,
    out: Annotated[Path, Parameter(name=["--out", "-o"])] = Path("runs/reproduce"),
    docs: Path | None = None,
) -> None:
    """Measure what a table or figure of the paper shows, and write it beside the paper's own numbers.

    Writes OUT/results.html, one page with all figures within, and OUT/results.md. What has been measured is kept in
    OUT/cells and not measured again while weights and settings are the same: an interrupted run goes on. What does not
    ship, or has not been trained, is named in the report.

    Args:
        target: summary (the models that ship beside their ANNs), table1 (dehazing), table2 (denoising), table3
            (energy), figure2 and figure3 (pictures), ablation, steps (T = 1 to 4), latency (in steps, beside spikes
            and energy), published (conversions of networks that others trained), or all.
        data_root: Folder of the image collection.
        limit: Take at most so many images of each set, spread evenly over it.
        crop: Cut so many pixels square out of the middle of each.
        models: Folder of models that go before those that ship.
        weights: Folder with the weights of baselines that were trained.
        out: Folder for the report and for what is kept.
        docs: File for the Markdown report in place of OUT/results.md, such as docs/results.md; figures go into a folder
            beside it.
    """
    require("matplotlib", "skimage")  # figures come last
    from reproduce.benchmark import Benchmark
    from reproduce.document import write
    from reproduce.report import reproduce as measure
    from spikingir.files import check_replaceable, locked

    if data_root is None:
        raise UsageError("the paper's test sets need the image collection; give its folder with --data-root")
    if docs is not None and not docs.suffix:
        raise UsageError(
            f"--docs is {docs}; expected a file such as {docs}.md, beside which its figures' folder is made"
        )
    _check(models)
    benchmark = Benchmark(out / "cells", data_root, models, weights, limit, crop, announce=complain)
    page, text = out / "results.html", docs or out / "results.md"
    for path in (page, text):
        check_replaceable(path, _inputs(models, weights))
    with locked(out / "cells"):
        blocks = measure(benchmark, target)
        write(blocks, "SpikingIR: results", page, text)
    say(f"{page}\n{text}")


@app.command
def benchmark(
    model: list[str],
    /,
    *,
    data: Annotated[list[str], Words],
    method: Annotated[list[str], Words],
    time_steps: Annotated[list[Count] | None, Words] = None,
    data_root: DataRoot = None,
    sigma: Sigma = None,
    limit: Positive = None,
    crop: Crop = None,
    models: Path | None = None,
    weights: Path = WEIGHTS,
    out: Annotated[Path, Parameter(name=["--out", "-o"])] = Path("runs/benchmark"),
) -> None:
    """Measure models x test sets x methods x time steps; what has been measured is kept.

    Writes OUT/results.json, with the scores of each image, and OUT/results.csv.

    Args:
        model: Names of models, which bring their task and noise level; or files of conventional networks' weights,
            which need not be ours.
        data: Names of test sets, or folders: clean images to denoise; to dehaze, folders hazy and gt in it.
        method: degraded, nlm, bm3d, dcp, ann, control, rueckauer, lan, qcfs-ann, qcfs, dnsnn, short, if, untrained,
            untrained-phased, untrained-binary, spikingir, phased.
        time_steps: Time steps of the spiking methods; those that a network was trained at unless given,
            10 where none was.
        data_root: Folder of the image collection; only names need it.
        sigma: Level of the noise, of 255, for models of many levels and for files.
        limit: Take at most so many images of each set, spread evenly over it.
        crop: Cut so many pixels square out of the middle of each.
        models: Folder of models that go before those that ship.
        weights: Folder with the weights of baselines that were trained.
        out: Folder for the results and for what is kept.
    """
    from reproduce.benchmark import Benchmark, as_csv, as_json, cells
    from spikingir.files import check_replaceable, locked, write_text

    _check(models)
    bench = Benchmark(out / "cells", data_root, models, weights, limit, crop, sigma=sigma, announce=complain)
    wanted = cells(model, data, method, time_steps or [None])
    files = {out / "results.json": as_json, out / "results.csv": as_csv}
    for path in files:
        check_replaceable(path, _inputs(models, weights))
    with locked(out / "cells"):
        results = bench.measure_all(wanted)
        for path, written in files.items():
            write_text(path, written(results))
    rows = [["model", "test set", "method", "PSNR dB", "SSIM", "spikes/neuron"]]
    for cell, found in results.items():
        means = [number(found.mean(name), digits) for name, digits in _MEASURES]
        rows.append([cell.subject, cell.data, found.label, *means])
    say(table(rows, words=3))
    absent = [found for found in results.values() if found.missing is not None]
    for found in absent:
        complain(f"not measured: {found.cell.label} for {found.cell.subject}: {found.missing}")
    if absent:
        raise CommandError(f"{len(absent)} of {len(results)} could not be measured")


@app.command
def ablate(
    model: str,
    /,
    *,
    data: str,
    data_root: DataRoot = None,
    sigma: Sigma = None,
    time_steps: Positive = None,
    limit: Positive = None,
    crop: Crop = None,
    seed: Annotated[int, Parameter(validator=Number(gte=0))] = 0,
    json: bool = False,
) -> None:
    """Measure what each part of the method brings to a denoiser, from the conversion alone to the fine-tuned network.

    The model's conventional network is converted anew for each row, with clip levels from training images of the
    collection, or else from sample photographs. The pixel mapper starts as the identity: its worth shows in the
    fine-tuning.

    Args:
        model: Name of a model that ships, or a folder with ann.safetensors and snn.safetensors.
        data: Name of a test set to which noise is added, such as bsd68, or a folder of clean images.
        data_root: Folder of the image collection; only names need it.
        sigma: Level of the noise, of 255; that of the model unless given.
        time_steps: Time steps of all spiking networks; as the model's was trained unless given.
        limit: Take at most so many images, spread evenly over the set.
        crop: Cut so many pixels square out of the middle of each.
        seed: Seed of the noise.
        json: Print JSON.
    """
    from reproduce.ablation import ablate as measure
    from reproduce.ablation import noisy_calibration_images
    from spikingir.zoo.pretrained import load_ann, load_spiking

    loaded = load_spiking(model, time_steps=time_steps)
    opened, config = loaded.model, loaded.network.config
    ann, sigma = load_ann(opened), noise_level(opened, sigma)
    if sigma is None:
        raise CommandError(f"{model} is no denoiser; the ablation needs one, such as denoise-gray-25")
    if ann is None:
        raise CommandError(f"{model} has no conventional network to convert; expected ann.safetensors in its folder")
    notes = list(loaded.notes)
    if config.phased:
        notes.append(
            "on the phased schedule there is no initial membrane and no extended step: the first rows are equal"
        )
    for note in notes:
        complain(f"note: {note}")
    pairs = open_pairs(opened, data, data_root, sigma, seed, limit, crop)
    images, source = noisy_calibration_images(data_root, opened.channels, sigma)
    with progress_bar("evaluating") as progress:
        found = measure(ann, loaded.network, images, pairs, progress=progress)
    if json:
        head = {"model": model, "data": data, "schedule": config.schedule, "time_steps": config.time_steps}
        setting = {"sigma": sigma, "seed": seed, "limit": limit, "crop": crop, "calibration": source, "notes": notes}
        rows = [{"name": row.name, **row.evaluation.as_dict()} for row in found]
        say(json_.dumps({**head, **setting, "rows": rows}, indent=2))
        return
    say(f"{model} ({config.clock}) on {data}: {setting_of(len(pairs), crop, sigma, seed)}; calibrated on {source}")
    reference = found[-1].evaluation.mean
    lines = [
        ["network", "PSNR dB", "SSIM", "loss dB", "spikes/neuron", "mJ"],
        ["noisy image", f"{reference.degraded_psnr:.2f}", f"{reference.degraded_ssim:.4f}", "", "", ""],
    ]
    for row in found:
        mean = row.evaluation.mean
        quality = [f"{mean.psnr:.2f}", f"{mean.ssim:.4f}", number(mean.psnr_loss, 2)]
        lines.append([row.name, *quality, f"{mean.spikes_per_neuron:.2f}", f"{mean.snn_mj:.3f}"])
    quality = [number(reference.ann_psnr, 2), number(reference.ann_ssim, 4), "", ""]
    lines.append(["conventional network", *quality, f"{reference.ann_mj:.3f}"])
    say(table(lines))


@app.command
def retrain(
    recipe: Path = RECIPES / "retrained-gray-25.toml",
    /,
    *,
    data: str = "bsd68",
    data_root: DataRoot = None,
    seeds: Annotated[int, Parameter(validator=Number(gte=1))] = 3,
    limit: Positive = None,
    crop: Crop = None,
    out: Annotated[Path, Parameter(name=["--out", "-o"])] = Path("runs/retrained"),
    docs: Path | None = None,
) -> None:
    """Train a network anew without each part of the method, all for the same number of steps, and measure them.

    Parts: v0 and alpha, beta, the pixel mapper, membrane recycling, the extended step, the quantised start. Beside
    them stand the whole method, the same spiking network trained directly from random weights, and the conventional
    network trained for as many steps. What is done is kept in OUT: an interrupted run goes on from its last checkpoint.
    Writes OUT/retrained.html and OUT/retrained.md.

    Args:
        recipe: Recipe with the stages ann, quantised, clocked and direct.
        data: Name of the test set, or a folder.
        data_root: Folder of the image collection.
        seeds: Each row is trained with so many seeds.
        limit: Take at most so many images of the test set, spread evenly over it.
        crop: Cut so many pixels square out of the middle of each.
        out: Folder for the runs, the report and what is kept.
        docs: File for the Markdown report in place of OUT/retrained.md.
    """
    from reproduce.benchmark import Benchmark
    from reproduce.document import write
    from reproduce.retrained import report
    from reproduce.retrained import retrain as measure
    from spikingir.files import check_replaceable, locked
    from spikingir.training.recipe import load_recipe

    if data_root is None:
        raise UsageError("training needs the image collection; give its folder with --data-root")
    loaded = load_recipe(recipe)
    benchmark = Benchmark(out / "cells", data_root, limit=limit, crop=crop, announce=complain)
    page, text = out / "retrained.html", docs or out / "retrained.md"
    for path in (page, text):
        check_replaceable(path)
    with locked(out / "cells"):
        rows = measure(benchmark, loaded, data, seeds)
        given = {"seeds": seeds if seeds != 3 else None, "limit": limit, "crop": crop}
        options = "".join(f" --{name} {value}" for name, value in given.items() if value is not None)
        command = f"python -m reproduce retrain --data {data}{options} --data-root DATA"
        write(report(rows, benchmark, loaded, data, command), "SpikingIR: retrained", page, text)
    say(f"{page}\n{text}")


@app.command
def harm(
    sets: Annotated[list[Literal["clean", "clean-jpeg", "polyu", "clear", "ordinary", "hazy"]] | None, Words] = None,
    /,
    *,
    data_root: DataRoot = None,
    docs: Path = Path("docs/harm.md"),
) -> None:
    """Measure whether the defaults of denoise and dehaze harm photographs that need no help, and write a page of it.

    Args:
        sets: What to look at: clean, clean-jpeg, polyu, clear, ordinary, hazy; all unless given.
        data_root: Folder of the image collection.
        docs: The page.
    """
    from reproduce.harm import SETS, measure
    from reproduce.harm import table as page
    from spikingir.files import write_text

    if data_root is None:
        raise UsageError("the photographs are those of the image collection; give its folder with --data-root")
    measured = {}
    for name in sets or SETS:
        measured[name] = measure(SETS[name], data_root, tell=complain)
    given = "".join(f" {name}" for name in sets or ())
    write_text(docs, page(measured, __version__, f"python -m reproduce harm{given} --data-root DATA"))
    say(str(docs))
    broken = [
        f"{one.name} ({bar.words} {bar.value(one):.3g})"
        for name, changes in measured.items()
        for bar in SETS[name].bars
        for one in changes
        if not bar.holds(one)
    ]
    if broken:
        more = ", ..." * (len(broken) > _NAMED)
        raise CommandError(f"{len(broken)} bounds are broken: {', '.join(broken[:_NAMED])}{more}; {docs} has the worst")


@app.command
def bits(
    model: str = "denoise-gray",
    /,
    *,
    data: str = "bsd68",
    data_root: DataRoot = None,
    limit: Positive = None,
    docs: Path = Path("docs/bits.md"),
) -> None:
    """Measure what activation bits cost and bring at each scale of a multi-scale denoiser, and write a page of it.

    Args:
        model: A model for Gaussian noise whose recipe ships.
        data: Name of the test set, or a folder.
        data_root: Folder of the image collection.
        limit: Take at most so many images of the test set, spread evenly over it.
        docs: The page.
    """
    from reproduce.bits import measure, page
    from spikingir.files import write_text

    if data_root is None:
        raise UsageError("networks are calibrated on the image collection; give its folder with --data-root")
    rows = measure(model, data, data_root, limit=limit, tell=complain)
    given = f" --limit {limit}" if limit else ""
    command = f"python -m reproduce bits {model} --data {data}{given} --data-root DATA"
    some = f"{data}, {limit} images" if limit else data
    write_text(docs, page(rows, model, some, command, __version__))
    say(str(docs))


def _check(models: Path | None) -> None:
    if models is not None and not models.is_dir():
        raise UsageError(f"--models is {models}, which is no folder; expected one with a folder for each model")


def _inputs(*folders: Path | None) -> "frozenset[Identity]":
    """All files of models that may be read."""
    from spikingir.files import identities
    from spikingir.zoo.catalogue import SHIPPED

    return identities(path for folder in (SHIPPED, *folders) if folder is not None for path in folder.rglob("*"))


_NAMED = 3  # of what is broken

_MEASURES = (("psnr", 2), ("ssim", 4), ("spikes_per_neuron", 2))
