"""The method's parts taken away one at a time: each network trained anew, all for the same number of steps.

:mod:`reproduce.ablation` compares conversions and one trained network; here every row is trained. The recipe has four
stages. ``ann``, ``quantised`` (phased) and ``clocked`` are the method, one after the other; ``direct`` trains the
spiking network from random weights by surrogate gradients, for as many steps as those three together.

A part is taken away from the first spiking stage on, so that what is left has learned without it. All rows of a seed
start from the same conventional network and see the same patches.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from statistics import fmean, stdev
from types import MappingProxyType
from typing import Any

import torch
from torch.utils.data import Dataset

from reproduce.benchmark import Benchmark, Json, Score, score
from reproduce.contenders import Contender, run_conventional, run_spiking
from reproduce.document import Block, Bullets, Heading, Paragraph, Table
from spikingir import __version__
from spikingir.conversion.convert import convert
from spikingir.evaluation.testsets import open_testset
from spikingir.networks.base import RestorationNetwork
from spikingir.networks.registry import build_network
from spikingir.spiking.network import SpikingNetwork
from spikingir.training.fit import Pair, fit
from spikingir.training.follow import calibration_of, can_compile, training_data
from spikingir.training.recipe import Recipe, RecipeError, Stage

METHOD = ("ann", "quantised", "clocked")
"""Stages of the method, in order."""

DIRECT = "direct"


@dataclass(frozen=True)
class Arm:
    """One row: the method without one of its parts, or what it is compared with.

    Attributes:
        stages: Stages that it trains in; the last has the steps of those of the method that it leaves out.
        how: Arguments of :func:`spikingir.convert` that differ from the method's.
        learns_beta: Whether the amplitude of the extended step is trained; 1 otherwise.
    """

    stages: tuple[str, ...] = METHOD
    how: Mapping[str, Any] = field(default_factory=dict)
    learns_beta: bool = True


WHOLE = "SpikingIR, whole: v0 = 1/2, alpha = 1"

ARMS: Mapping[str, Arm] = MappingProxyType(
    {
        WHOLE: Arm(),
        "v0 = 0, alpha = 1/2 + 1e-3, as in the paper": Arm(how={"v0": 0.0, "alpha": 0.501}),
        "without beta: 1, not trained": Arm(learns_beta=False),
        "without the pixel mapper": Arm(how={"mapper": False}),
        "without membrane recycling": Arm(how={"recycling": False}),
        "without the extended step: IF, v0 = 1/2": Arm(how={"method": "if", "mapper": True, "recycling": True}),
        "without the quantised start": Arm(("ann", "clocked")),
        "trained directly, from random weights": Arm((DIRECT,), {"method": "dnsnn"}),
        "ANN, trained for all the steps": Arm(("ann",)),
    }
)
"""The rows by name, in the order of the table."""


def steps_of(recipe: Recipe, arm: Arm) -> dict[str, int]:
    """Optimiser steps of an arm's stages: the same sum for all arms.

    Raises:
        RecipeError: The recipe lacks a stage, or its direct training has not as many steps as the method.
    """
    own = {stage.name: stage.fit.steps for stage in recipe.stages}
    if missing := [name for name in (*METHOD, DIRECT) if name not in own]:
        raise RecipeError(
            f"recipe {recipe.name} has no stage {missing[0]!r}; retraining takes {', '.join(METHOD)}, {DIRECT}"
        )
    total = sum(own[name] for name in METHOD)
    if own[DIRECT] != total:
        raise RecipeError(
            f"recipe {recipe.name}: {DIRECT} has {own[DIRECT]} steps, {', '.join(METHOD)} have {total} together; "
            "expected as many"
        )
    *first, last = arm.stages
    steps = {name: own[name] for name in first}
    return {**steps, last: total - sum(steps.values())}


@dataclass(frozen=True)
class Trained:
    """A network after training: conventional or spiking, and the seconds that all its stages took."""

    network: RestorationNetwork | SpikingNetwork
    seconds: float


def train(recipe: Recipe, arm: Arm, seed: int, data_root: Path, directory: Path) -> Trained:
    """Train one arm; what is interrupted goes on from its checkpoint.

    Args:
        recipe: A recipe with the stages of :data:`METHOD` and :data:`DIRECT`.
        arm: The arm.
        seed: Of weights, patches and noise.
        data_root: Folder that the recipe's data folders are in.
        directory: Folder of this arm and seed; what arms share lies beside it.

    Raises:
        RecipeError: See :func:`steps_of`.
        DataError: The training images are missing.
        TrainingStopped: Training was interrupted or diverged.
    """
    known = {stage.name: stage for stage in recipe.stages}
    steps = steps_of(recipe, arm)
    ann = build_network(recipe.architecture, **recipe.options)
    ann.reset_parameters(torch.Generator().manual_seed(seed))
    network: RestorationNetwork | SpikingNetwork = ann
    seconds = 0.0
    patches: dict[int, Dataset[Pair]] = {}
    for name in arm.stages:
        config = replace(known[name].fit, seed=seed, steps=steps[name])
        stage = replace(known[name], fit=config)
        if stage.patch not in patches:  # all stages have the seed in common, so that those of one size are the same
            patches[stage.patch] = training_data(recipe, stage, data_root)[0]
        pairs = patches[stage.patch]
        if stage.kind == "snn":
            network = _spiking(recipe, arm, stage, network, pairs)
        shared = name == "ann" and len(arm.stages) > 1  # the conventional network that all arms of a seed start from
        folder = (directory.parent if shared else directory) / name
        seconds += fit(network, pairs, config, folder, progress=False).seconds
    return Trained(network.eval(), seconds)


def _spiking(
    recipe: Recipe, arm: Arm, stage: Stage, network: RestorationNetwork | SpikingNetwork, pairs: Dataset[Pair]
) -> SpikingNetwork:
    """What a stage trains: a conversion without the arm's part, or the spiking network of the stage before."""
    if isinstance(network, SpikingNetwork):
        return network.at(time_steps=stage.time_steps, schedule=stage.schedule)
    how = {"method": recipe.conversion.method, "v0": recipe.conversion.v0, **arm.how}
    spiking = convert(
        network.eval(),
        calibration_of(pairs),
        time_steps=stage.time_steps,
        schedule=stage.schedule,
        percentile=recipe.conversion.percentile,
        **how,
    )
    if not arm.learns_beta:
        for name, parameter in spiking.named_parameters():
            parameter.requires_grad_(not name.endswith("log_beta"))
    spiking.compile_neurons(can_compile())
    return spiking


@dataclass(frozen=True)
class Row:
    """An arm that was trained with several seeds.

    Attributes:
        steps: Optimiser steps by stage.
        psnr: Mean PSNR over images, for each seed.
        ssim: SSIM, likewise.
        spikes: Spikes per neuron, likewise; empty for the conventional network.
        seconds: Training time of each seed.
    """

    steps: Mapping[str, int]
    psnr: tuple[float, ...]
    ssim: tuple[float, ...]
    spikes: tuple[float, ...]
    seconds: tuple[float, ...]


def retrain(
    benchmark: Benchmark, recipe: Recipe, data: str, seeds: int, arms: Sequence[str] = tuple(ARMS)
) -> dict[str, Row]:
    """Train and measure arms; each arm and seed is kept, see :meth:`~reproduce.benchmark.Benchmark.keep`.

    Args:
        benchmark: Where images are, and where what is measured is kept.
        recipe: See :func:`train`.
        data: Name of the test set, or a folder.
        seeds: How many: 0 to ``seeds - 1``.
        arms: Which of :data:`ARMS`.

    Raises:
        RecipeError: See :func:`steps_of`.
        DataError: The images are missing.
    """
    assert benchmark.data_root is not None
    root = benchmark.data_root
    described = json.loads(json.dumps(asdict(recipe)))
    runs = benchmark.folder.parent / "retrained" / sha256(json.dumps(described).encode()).hexdigest()[:8]
    found: dict[tuple[str, int], Json] = {}
    for seed in range(seeds):
        for name in arms:
            arm = ARMS[name]
            asked = {"arm": asdict(arm), "recipe": described, "train_seed": seed, "data": data}
            setting = {"limit": benchmark.limit, "crop": benchmark.crop, "seed": benchmark.seed}

            def answer(_: Path, arm: Arm = arm, seed: int = seed, name: str = name) -> Json:
                folder = runs / f"seed-{seed}" / re.sub(r"\W+", "-", name.lower())
                trained = train(recipe, arm, seed, root, folder)
                return {"scores": _scores(benchmark, recipe, data, trained.network), "seconds": trained.seconds}

            found[name, seed] = benchmark.keep(None, {"retrained": asked, **setting}, f"{name}, seed {seed}", answer)
    return {name: _row(recipe, ARMS[name], [found[name, seed] for seed in range(seeds)]) for name in arms}


def _scores(
    benchmark: Benchmark, recipe: Recipe, data: str, network: RestorationNetwork | SpikingNetwork
) -> list[Json]:
    sigma = recipe.noise.sigma if recipe.noise is not None else None
    sigma = fmean(sigma) if isinstance(sigma, tuple) else sigma
    channels = network.config.channels if isinstance(network, SpikingNetwork) else network.channels
    pairs = open_testset(
        data,
        benchmark.data_root,
        task=recipe.task,
        channels=channels,
        sigma=sigma,
        seed=benchmark.seed,
        limit=benchmark.limit,
        crop=benchmark.crop,
    )
    contender: Contender = (
        run_spiking(network, sigma) if isinstance(network, SpikingNetwork) else run_conventional(network, sigma)
    )
    return [asdict(score(contender, pair)) for pair in pairs]


def _row(recipe: Recipe, arm: Arm, kept: Sequence[Json]) -> Row:
    scores = [[Score(**one) for one in answer["scores"]] for answer in kept]
    spikes = [[one.spikes_per_neuron for one in seed if one.spikes_per_neuron is not None] for seed in scores]
    return Row(
        steps_of(recipe, arm),
        tuple(fmean(one.psnr for one in seed) for seed in scores),
        tuple(fmean(one.ssim for one in seed) for seed in scores),
        tuple(fmean(seed) for seed in spikes if seed),
        tuple(answer["seconds"] for answer in kept),
    )


def spread(values: Sequence[float], digits: int, sign: str = "") -> str:
    """Mean and standard deviation over seeds: ``27.31 ± 0.04``; of one seed the value alone."""
    mean = f"{fmean(values):{sign}.{digits}f}"
    return mean if len(values) < 2 else f"{mean} ± {stdev(values):.{digits}f}"


def report(rows: Mapping[str, Row], benchmark: Benchmark, recipe: Recipe, data: str, command: str) -> list[Block]:
    """The table, with all that it was measured on."""
    whole = rows[WHOLE]
    seeds, total = len(whole.psnr), sum(whole.steps.values())
    stage = next(stage for stage in recipe.stages if stage.name == METHOD[-1])
    lines = []
    for name, row in rows.items():
        stages = " + ".join(f"{steps} {stage}" for stage, steps in row.steps.items())
        lost = [ours - theirs for ours, theirs in zip(whole.psnr, row.psnr, strict=True)]
        line = [name, stages, spread(row.psnr, 2), ", ".join(f"{one:.2f}" for one in row.psnr)]
        line += ["" if name == WHOLE else spread(lost, 2, "+"), spread(row.ssim, 4)]
        line += [spread(row.spikes, 2) if row.spikes else "", f"{min(row.seconds):.0f}"]
        lines.append(tuple(line))
    header = ("network", "steps", "PSNR, dB", "by seed", "lost to the whole, dB", "SSIM", "spikes per neuron", "s")
    days, commits = ({origin[i] for origin in benchmark.origins} for i in (0, 1))
    images = f"at most {benchmark.limit} images" if benchmark.limit else "all images"
    crop = f", the middle {benchmark.crop} x {benchmark.crop} of each" if benchmark.crop else ""
    options = ", ".join(f"{key} {value}" for key, value in recipe.options.items())
    made = f"version {__version__}, on {', '.join(sorted(days))} at {', '.join(sorted(commits))}"
    return [
        Heading("The method's parts, each network trained anew", 1),
        Paragraph(
            f"Made by `{command}`, {made}. Every row is trained from random weights for {total} steps in all, with "
            f"{seeds} seeds; a figure is their mean ± the standard deviation. A seed sets weights, patches and noise, "
            "and is the same for all rows; so the loss is paired: the whole method's PSNR less the row's, seed by seed."
        ),
        Bullets(
            (
                f"Network: {recipe.architecture} ({options}), clocked at T = {stage.time_steps}; recipe "
                f"`{recipe.name}`, {stage.fit.batch_size} patches of {stage.patch} x {stage.patch} a step. **Small and "
                "briefly trained, to tell the parts apart; no measure of what ships.**",
                f"Test: {data}, {images}{crop}, noise seed {benchmark.seed}; spiking networks run folded.",
                "The last column is seconds of training, by the clock, of the seed that took least, on one thread. The "
                "conventional network, which rows share, counts in each.",
            )
        ),
        Table(header, tuple(lines), "retrained"),
    ]
