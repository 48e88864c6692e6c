"""The paper's tables and figures measured anew, beside what it printed."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType

from reproduce import Target
from reproduce.benchmark import Benchmark
from reproduce.contenders import Subject
from reproduce.document import Block, Bullets, Heading, Paragraph, Table
from reproduce.sections import (
    Contender,
    ablation_table,
    ann_mj,
    columns_table,
    conversions_table,
    energy_table,
    latency_table,
    measured,
    number,
    pictures,
    psnr_against_steps,
    quality_table,
    rates_figure,
    scaled_mj,
    steps_table,
    suspects,
)
from spikingir import __version__
from spikingir.energy.prices import ASSUMPTIONS

DENOISERS = ("denoise-gray-15", "denoise-gray-25", "denoise-gray-50")
DEHAZER = "dehaze-aodnet"
CONTROLLED = (DEHAZER, "denoise-gray-25")
"""Models whose ANN was trained on, to see what it had left to gain."""

Contenders = tuple[Contender, ...]

_DEHAZING: Contenders = (
    ("degraded", None),
    ("dcp", None),
    ("ann", None),
    ("control", None),
    *(("rueckauer", t) for t in (10, 20, 50)),
    ("qcfs-ann", None),
    *(("qcfs", t) for t in (5, 8, 10, 32)),
    *(("lan", t) for t in (10, 20, 50)),
    *(("if", t) for t in (5, 8, 10)),
    *(("spikingir", t) for t in (5, 8, 10)),
)
_DENOISING: Contenders = (
    ("degraded", None),
    ("nlm", None),
    ("bm3d", None),
    ("ann", None),
    ("control", None),
    *(("rueckauer", t) for t in (10, 20, 50)),
    ("lan", 20),
    ("dnsnn", 15),
    *(("if", t) for t in (10, 20)),
    *(("spikingir", t) for t in (4, 6, 8, 10, 15)),
    *(("phased", t) for t in (4, 8)),
)
_BRIEF: Contenders = (("degraded", None), ("ann", None), ("spikingir", 10), ("spikingir", 15), ("phased", 8))
_DENOISED_SIDE, _DEHAZED_SIDE = 160, 320

_ELSEWHERE = "T = 1 to 4 are in `docs/few-steps.md`, networks that others trained in `docs/published.md`."

SUMMARY = "results"
"""Name of the summary's table, by which the README's is found."""

FEW_STEPS = (1, 2, 3, 4)

FIXED_LEVEL = 25.0
"""Level of the noise at which models of many levels are measured beside others."""

PUBLISHED: Contenders = (
    *(("rueckauer", t) for t in (10, 20)),
    ("lan", 10),
    *(("if", t) for t in (10, 20)),
    ("untrained", 10),
    ("untrained-phased", 8),
)
"""Conversions without training."""


def reproduce(benchmark: Benchmark, target: Target) -> list[Block]:
    """Measure what a table or figure of the paper shows, and set it beside what the paper printed.

    Args:
        benchmark: How, and where what is measured is kept.
        target: Which; ``summary`` is what the models that ship reach, and ``all`` all of them.

    Returns:
        The report.

    Raises:
        DataError: The image collection is missing, or a test set of it is damaged.
    """
    chosen = tuple(SECTIONS) if target == "all" else (target,)
    blocks = [block for name in chosen for block in SECTIONS[name](benchmark)]
    title, first = Heading("Results", 1), blocks[0]
    if target != "all" and isinstance(first, Heading):  # a page of its own
        title, blocks = replace(first, level=1), blocks[1:]
    return [title, Paragraph(_setting(benchmark, target)), *blocks]


def _images(benchmark: Benchmark) -> str:
    limit = "all images of each set" if benchmark.limit is None else f"at most {benchmark.limit} images of each set"
    return limit if benchmark.crop is None else f"{limit}, the middle {benchmark.crop} x {benchmark.crop} of each"


def _origin(benchmark: Benchmark) -> str:
    """Version, and the days and commits of all that is in the report, which may have been measured before."""
    days, commits = ({origin[i] for origin in benchmark.origins} for i in (0, 1))
    return f"version {__version__}, measured on {', '.join(sorted(days))} at {', '.join(sorted(commits))}"


def _setting(benchmark: Benchmark, target: Target) -> str:
    quick = "" if benchmark.limit is None and benchmark.crop is None else " **A quick look, not the full test.**"
    given = {"limit": benchmark.limit, "crop": benchmark.crop}
    options = "".join(f" --{name} {value}" for name, value in given.items() if value is not None)
    took = sum(benchmark.seconds.values()) / 60
    command = f"python -m reproduce {target}{options} --data-root DATA"
    return (
        f"Made by `{command}`, {_origin(benchmark)}, in {took:.0f} minutes by the clock: {_images(benchmark)}; noise "
        f"unclipped, seed {benchmark.seed}.{quick} PSNR and SSIM of images clipped to 0..1, each by itself, then "
        "averaged. Intervals are 95 % confidence intervals over images, those of a scene in different haze taken "
        "together; that of a loss is of the differences on the same images, far narrower. Spiking networks run in "
        "their deployment form, but for Lan's, whose graded spikes have none; all rows are clocked but those named "
        "phased and QCFS's quantised ANN. T is the paper's: energy includes the extended step, T + 1."
    )


def _summary(benchmark: Benchmark) -> list[Block]:
    rows = []
    for name in (*DENOISERS, DEHAZER):
        subject = benchmark.subject(name)
        task, own = subject.task, _shipped(subject)
        data = "sots-indoor" if name == DEHAZER else "bsd68"
        control = (("control", None),) * (name in CONTROLLED)
        results = measured(benchmark, name, data, (("degraded", None), ("ann", None), *control, *own))
        whole = ann_mj(benchmark, name)
        for contender, found in results.items():
            if found.missing is not None:
                rows.append((f"{name}, {data}", f"{found.cell.label}: {found.missing}", *[""] * 5))
                continue
            rate = found.rate(results["ann", None], task) if contender in (*control, *own) else None
            row = [f"{name}, {data}", found.cell.label, number(found.mean("psnr"), 2), number(found.mean("ssim"), 4)]
            row += [number(rate, 1), number(found.mean("spikes_per_neuron"), 2), number(scaled_mj(found, whole), 1)]
            rows.append(tuple(row))
    header = ("model, test set", "network", "PSNR, dB", "SSIM", "of the ANN, %", "spikes per neuron", "energy, mJ")
    note = (
        f"`python -m reproduce summary`, {_origin(benchmark)}: {_images(benchmark)}. Energy as the paper counts it, "
        "for an image of its size: 481 x 321 to denoise, 640 x 480 to dehaze. The rate is mean PSNR over that of the "
        "ANN, not capped; to dehaze, the mean of that and of SSIM's."
    )
    return [Heading("Summary"), Table(header, tuple(rows), SUMMARY, note)]


def _shipped(subject: Subject) -> Contenders:
    """The networks of a model, each at the schedule and the time steps that it was trained at."""
    if subject.model is None:
        return (("spikingir", None),)
    return tuple(
        ("phased" if variant.schedule == "phased" else "spikingir", variant.time_steps)
        for variant in sorted(subject.model.variants, key=lambda v: (v.schedule == "phased", v.time_steps))
    )


def _table1(benchmark: Benchmark) -> list[Block]:
    blocks: list[Block] = [
        Heading("Table 1: dehazing"),
        Paragraph(
            "AOD-Net. The paper's TestSet A is not public; ours, TestSet-A-like, is made of 60 scenes of NYU Depth V2 "
            "with 21 hazes each, by depth relative to the farthest. So absolute figures differ by the data; what "
            "compares is how far each method is from its ANN. QCFS has an ANN of its own. The control is the ANN, "
            f"trained on for as many steps as its spiking networks. {_ELSEWHERE}"
        ),
    ]
    for data in ("testset-a-like", "sots-indoor", "sots-outdoor", "middlebury"):
        blocks += quality_table(benchmark, DEHAZER, data, _DEHAZING)
    return [*blocks, *psnr_against_steps(benchmark, DEHAZER, _DEHAZING), *suspects("dehaze")]


def _table2(benchmark: Benchmark) -> list[Block]:
    blocks: list[Block] = [
        Heading("Table 2: denoising"),
        Paragraph(
            "DnCNN with 17 layers, gray images. DnSNN's figures in the paper are quoted from its own paper, of an ANN "
            "that restores better; ours is trained here, for sigma 25 alone, as is the control: 2000 steps more of the "
            "ANN's training. BM3D runs only where the user has it. "
            f"{_ELSEWHERE}"
        ),
    ]
    for name in DENOISERS:
        short = (("short", 15),) * (name == "denoise-gray-25")  # beside DnSNN, which is trained for this level alone
        blocks += quality_table(benchmark, name, "bsd68", (*_DENOISING, *short))
        blocks += psnr_against_steps(benchmark, name, _DENOISING)
    for name in DENOISERS:
        blocks += quality_table(benchmark, name, "set12", _BRIEF)
    return [*blocks, *suspects("denoise")]


def _table3(benchmark: Benchmark) -> list[Block]:
    blocks: list[Block] = [
        Heading("Table 3: energy"),
        Paragraph(
            "Column A, as the paper counts: 4.6 pJ a multiply-accumulate, 0.9 pJ a spike at a synapse, border rule "
            "full. By that rule energy grows with the number of pixels, so it is given for an image of the paper's "
            "size: 481 x 321 for DnCNN, 640 x 480 for AOD-Net."
        ),
    ]
    others = (*(("rueckauer", t) for t in (10, 20, 50)), *(("phased", t) for t in (4, 8)))
    for name, steps in ((DEHAZER, (5, 8, 10)), *((name, (10, 15)) for name in DENOISERS)):
        blocks += energy_table(benchmark, name, (*others, *(("spikingir", t) for t in steps)))
    own = [(name, one) for name in (*DENOISERS, DEHAZER) for one in _shipped(benchmark.subject(name))]
    blocks += columns_table(benchmark, own)
    blocks += rates_figure(benchmark, own)
    return [*blocks, Heading("What the energy columns assume", 3), Bullets(ASSUMPTIONS)]


def _figure2(benchmark: Benchmark) -> list[Block]:
    contenders = [("degraded", None), ("dcp", None), ("ann", None), ("rueckauer", 20), ("qcfs", 8), ("lan", 20)]
    contenders += [("if", 10), ("spikingir", 5), ("spikingir", 10)]
    about = "an astronaut's portrait (NASA, public domain), haze of beta 1.2 and airlight 0.9 by a depth made up for it"
    return [Heading("Figure 2: dehazing, to see"), *pictures(benchmark, DEHAZER, contenders, _DEHAZED_SIDE, about)]


def _figure3(benchmark: Benchmark) -> list[Block]:
    blocks: list[Block] = [Heading("Figure 3: denoising, to see")]
    for name in DENOISERS:
        contenders = [("degraded", None), ("nlm", None), ("ann", None), ("rueckauer", 20), ("lan", 20)]
        contenders += [*([("dnsnn", 15)] if name == "denoise-gray-25" else []), ("spikingir", 10), ("phased", 8)]
        about = f"the cameraman (scikit-image, CC0), noise of sigma {benchmark.subject(name).sigma:g}"
        blocks += pictures(benchmark, name, contenders, _DENOISED_SIDE, about)
    return blocks


def _ablation(benchmark: Benchmark) -> list[Block]:
    intro = "What each part of the method brings; the mapper is the identity until it is trained."
    blocks: list[Block] = [Heading("Ablation"), Paragraph(intro)]
    for name in (*DENOISERS, DEHAZER):
        blocks += ablation_table(benchmark, name, 5 if name == DEHAZER else 10)
    return blocks


def _steps(benchmark: Benchmark) -> list[Block]:
    blocks: list[Block] = [
        Heading("T = 1 to 4"),
        Paragraph(
            "Baselines and ours where there is little time. Ours were trained at another T, as is said below each "
            "table; with fewer steps they run as they are. A binary network runs at its own T alone, so that of "
            "binary ones what is measured is the conversion of its ANN without training."
        ),
    ]
    level = replace(benchmark, sigma=FIXED_LEVEL)
    clocked = ("rueckauer", "lan", "if", "untrained", "spikingir")
    phased = ("untrained-phased", "phased")
    denoising = (*clocked[:-1], "dnsnn", "short", "spikingir", *phased)
    blocks += steps_table(benchmark, "denoise-gray-25", "bsd68", denoising, FEW_STEPS)
    blocks += steps_table(level, "denoise-gray", "bsd68", (*clocked, *phased, "untrained-binary"), FEW_STEPS)
    dehazing = ("rueckauer", "lan", "qcfs", "if", "untrained", "spikingir", "untrained-phased")
    blocks += steps_table(benchmark, DEHAZER, "sots-indoor", dehazing, FEW_STEPS)
    return blocks


def _latency(benchmark: Benchmark) -> list[Block]:
    intro = (
        "A hop from layer to layer takes a step. A clocked network of D layers with the extended step then needs D + T "
        "steps for an image, a phased one D x T. Layers work on different images at once: the next image can follow "
        "after T + 1 steps clocked, after T phased (where a layer holds the counts that it fires from beside its "
        "membranes). D counts spiking layers on the longest way, the output's too. Energy: column A, for an image of "
        f"481 x 321 to denoise, 640 x 480 to dehaze. Models of many levels are measured at sigma {FIXED_LEVEL:g}."
    )
    level = replace(benchmark, sigma=FIXED_LEVEL)
    sets = {**dict.fromkeys((*DENOISERS, "denoise-gray"), "bsd68"), "denoise-color": "cbsd68", "denoise-photo": "polyu"}
    sets |= dict.fromkeys(("dehaze", DEHAZER), "sots-indoor")
    networks = [(name, data, one) for name, data in sets.items() for one in _shipped(level.subject(name))]
    return [Heading("Latency in steps, spikes and energy"), Paragraph(intro), *latency_table(level, networks)]


def _published(benchmark: Benchmark) -> list[Block]:
    intro = (
        "What conversions without training make of networks that others trained, beside what they make of ours: so a "
        "figure can be told to be the method's, or the network's. QCFS, DnSNN, the controls and our fine-tuned "
        "networks are not among them: they train, so that the weights would be the published ones no longer; tables 1 "
        "and 2 have them. All are calibrated on the same images. Clip levels are the 99.9th percentile, Rueckauer's "
        "and Lan's by layer, the others' by channel."
    )
    networks = [(benchmark, "denoise-gray-25", "bsd68", "ours"), (benchmark, DEHAZER, "sots-indoor", "ours")]
    root = benchmark.data_root
    assert root is not None
    for name, sigma, source in _OTHERS:
        data = "bsd68" if sigma is not None else "sots-indoor"
        networks.append((replace(benchmark, sigma=sigma), str(root / "weights" / name), data, source))
    return [Heading("Published networks"), Paragraph(intro), *conversions_table(networks, PUBLISHED)]


_OTHERS = (
    ("dncnn/kair_dncnn_25.pth", 25.0, "K. Zhang, KAIR"),
    ("dncnn/saoyan_DnCNN-S-25.pth", 25.0, "SaoYan"),
    ("dncnn/cszn_dncnn_15.pth", 15.0, "K. Zhang, converted"),
    ("dncnn/cszn_dncnn_50.pth", 50.0, "K. Zhang, converted"),
    ("aodnet/AOD_Net_from_caffe.pth", None, "Boyi Li, converted"),
)
"""Weights that others published: file in the image collection, level of the noise, who trained it."""

SECTIONS: Mapping[str, Callable[[Benchmark], list[Block]]] = MappingProxyType(
    {
        "summary": _summary,
        "table1": _table1,
        "table2": _table2,
        "table3": _table3,
        "figure2": _figure2,
        "figure3": _figure3,
        "ablation": _ablation,
        "steps": _steps,
        "latency": _latency,
        "published": _published,
    }
)
"""What can be reproduced, in the report's order."""
