"""Parts of the report: one table or figure each, measured where it is not kept."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from reproduce.ablation import ablate
from reproduce.benchmark import Benchmark, Cell, Json, Result
from reproduce.contenders import METHODS, UnavailableError, label, spiking_network, trained_steps
from reproduce.document import Block, Bullets, Figure, Heading, Paragraph, Table
from reproduce.latency import latency
from reproduce.paper import PRINTED, SIZES, Printed
from reproduce.pictures import comparison, sample
from reproduce.plots import Bubble, bars, bubbles, curves, histograms
from reproduce.profile import EDGES, profile
from spikingir.energy.columns import COLUMNS
from spikingir.energy.paper import ann_energy
from spikingir.tasks import TaskName as Task
from spikingir.zoo.catalogue import ModelError

Contender = tuple[str, int | None]

PAPER_DATA: Mapping[Task, str] = {"dehaze": "testset-a-like", "denoise": "bsd68"}
"""The test set that the paper's figures are set beside, by task."""

_NOTHING = Printed()


def number(value: float | None, digits: int, sign: str = "") -> str:
    """A number with so many digits after the point; nothing where there is none."""
    return "" if value is None else f"{value:{sign}.{digits}f}"


def interval(bounds: tuple[float, float] | None, digits: int = 2) -> str:
    """A confidence interval; nothing where there is none."""
    return "" if bounds is None else f"{bounds[0]:.{digits}f} to {bounds[1]:.{digits}f}"


def measured(benchmark: Benchmark, subject: str, data: str, contenders: Sequence[Contender]) -> dict[Contender, Result]:
    """Results by contender, in order; of contenders for the other task none."""
    task = benchmark.subject(subject).task
    fitting = [contender for contender in contenders if METHODS[contender[0]].fits(task)]
    return {contender: benchmark.measure(Cell(subject, data, *contender)) for contender in fitting}


def _remarks(benchmark: Benchmark, subject: str, results: Mapping[Contender, Result]) -> list[Block]:
    """Which networks run at another T than they were trained at, and why some contenders are not in a table."""
    elsewhere: dict[int, list[Contender]] = {}
    reasons: dict[str, list[Contender]] = {}
    for (method, steps), result in results.items():
        if result.missing is not None:
            reasons.setdefault(result.missing, []).append((method, steps))
            continue
        trained = trained_steps(benchmark.subject(subject), method, steps)
        if trained not in (None, steps):
            elsewhere.setdefault(trained, []).append((method, steps))
    remarks = [f"Trained at T = {trained}: {_listed(those)}." for trained, those in elsewhere.items()]
    remarks += [f"Not measured: {_listed(those)}: {why}." for why, those in reasons.items()]
    return [Bullets(tuple(remarks))] if remarks else []


def _listed(contenders: Sequence[Contender]) -> str:
    """Contenders in words, each method once: ``SpikingIR, clocked, T = 4, 6; DnSNN, T = 15``."""
    steps: dict[str, list[str]] = {}
    for method, time_steps in contenders:
        steps.setdefault(method, []).extend([] if time_steps is None else [str(time_steps)])
    return "; ".join(label(method, None) + (f", T = {', '.join(at)}" if at else "") for method, at in steps.items())


def ann_mj(benchmark: Benchmark, subject: str) -> float | None:
    """Energy of a model's conventional network on an image of the paper's size; None where it has none."""
    opened = benchmark.subject(subject)
    try:
        return ann_energy(opened.ann(), SIZES[opened.task])
    except UnavailableError:
        return None


def scaled_mj(result: Result, of_ann: float | None) -> float | None:
    """Energy for an image of the paper's size: by border rule full it grows with the number of pixels."""
    if result.cell.method == "ann" and result.scores:
        return of_ann
    return None if result.energy_ratio is None or of_ann is None else result.energy_ratio * of_ann


def quality_table(benchmark: Benchmark, subject: str, data: str, contenders: Sequence[Contender]) -> list[Block]:
    """PSNR and SSIM by contender, beside the paper's where the test set is the paper's, or made like it."""
    task = benchmark.subject(subject).task
    results = measured(benchmark, subject, data, contenders)
    ann, beside = results["ann", None], data == PAPER_DATA[task]
    rows: list[tuple[str, ...]] = []
    for (method, steps), found in results.items():
        printed = PRINTED.get((subject, method, steps), _NOTHING)
        if found.missing is not None:
            if beside and printed != _NOTHING:
                rows.append((f"{found.cell.label} (quoted alone)", *[""] * 6, *_beside(printed, found)))
            continue
        made_of = METHODS[method].made_of
        reference = ann if made_of is None else results.get((made_of, None), ann)
        loss = None if made_of is None else found.loss(reference)
        rate = found.rate(reference, task) if METHODS[method].spiking else None
        row = [found.cell.label, number(found.mean("psnr"), 2), interval(found.psnr_ci95)]
        row += [
            number(found.mean("ssim"), 4),
            *(("", "") if loss is None else (number(loss[0], 3), interval(loss[1], 3))),
        ]
        row.append(number(rate, 2))
        if beside:
            row += _beside(printed, found)
        rows.append(tuple(row))
    header: tuple[str, ...] = ("method", "PSNR, dB", "95 %", "SSIM", "loss, dB", "95 %", "rate, % (uncapped)")
    if beside:
        header += ("paper: PSNR", "ours - paper", "paper: SSIM", "ours - paper", "paper: rate (capped)")
    count = max(len(result.scores) for result in results.values())
    heading = Heading(f"{subject}, {data}, {count} images", 3)
    return [heading, Table(header, tuple(rows)), *_remarks(benchmark, subject, results)]


def _beside(printed: Printed, found: Result) -> list[str]:
    cells = []
    for measure, wanted, digits in (("psnr", printed.psnr, 2), ("ssim", printed.ssim, 4)):
        value = found.mean(measure)
        difference = None if wanted is None or value is None else value - wanted
        cells += [number(wanted, digits) + "?" * (measure in printed.doubtful), number(difference, digits, "+")]
    return [*cells, number(printed.rate, 1) + "?" * ("rate" in printed.doubtful)]


def steps_table(
    benchmark: Benchmark, subject: str, data: str, methods: Sequence[str], steps: Sequence[int]
) -> list[Block]:
    """PSNR and spikes of each method at few time steps."""
    results = measured(
        benchmark, subject, data, [("degraded", None), ("ann", None), *((one, t) for one in methods for t in steps)]
    )
    whole = results["ann", None]
    rows = []
    for method in methods:
        found = [results[method, t] for t in steps if (method, t) in results]
        if not any(one.scores for one in found):
            continue
        quality = [number(one.mean("psnr"), 2) for one in found]
        loss = found[-1].loss(whole)
        row = [METHODS[method].label, *quality, number(None if loss is None else loss[0], 2)]
        row += [number(found[-1].mean("ssim"), 4), *(number(one.mean("spikes_per_neuron"), 2) for one in found)]
        rows.append(tuple(row))
    header = ("method", *(f"T = {t}, dB" for t in steps), f"lost to the ANN at T = {steps[-1]}", "SSIM there")
    header += tuple(f"spikes per neuron, T = {t}" for t in steps)
    before, best = (number(results[one, None].mean("psnr"), 2) for one in ("degraded", "ann"))
    return [
        Heading(f"{_title(benchmark, subject)}, {data}, {_images(whole)}", 3),
        Paragraph(f"Degraded image: {before} dB. ANN: {best} dB, SSIM {number(whole.mean('ssim'), 4)}."),
        Table(header, tuple(rows)),
        *_remarks(benchmark, subject, results),
    ]


def _images(result: Result) -> str:
    count = len(result.scores)
    return f"{count} image{'s' * (count != 1)}"


def _title(benchmark: Benchmark, subject: str) -> str:
    """Name of a subject, with the level of the noise where the name does not say it."""
    opened = benchmark.subject(subject)
    named = opened.model is not None and not isinstance(opened.model.sigma, tuple)
    return opened.name if opened.sigma is None or named else f"{opened.name}, sigma {opened.sigma:g}"


def latency_table(benchmark: Benchmark, contenders: Sequence[tuple[str, str, Contender]]) -> list[Block]:
    """Latency in steps, spikes and energy of each network, in a table and in one figure.

    Args:
        benchmark: Where images are, and where what is measured is kept.
        contenders: Model, test set and network of each.
    """
    rows, points, absent = [], [], []
    for subject, data, (method, steps) in contenders:
        found = benchmark.measure(Cell(subject, data, method, steps))
        ann = benchmark.measure(Cell(subject, data, "ann"))
        if found.missing is not None:
            absent.append(f"Not measured: {subject}, {found.cell.label}: {found.missing}.")
            continue
        opened = benchmark.subject(subject)
        network = spiking_network(opened, method, steps)
        own = ann_energy(network, SIZES[opened.task])  # the model's ANN may have more layers
        took, energy = latency(network), scaled_mj(found, own)
        spikes = found.mean("spikes_per_synapse")
        if energy is None or spikes is None or found.energy_ratio is None:
            continue
        row = [_title(benchmark, subject), network.config.clock, *map(str, (took.depth, took.steps, took.interval))]
        row += [number(found.mean("spikes_per_neuron"), 2), number(spikes, 2), number(energy, 1)]
        row += [number(100 * found.energy_ratio, 1), number(found.mean("psnr"), 2), number(ann.mean("psnr"), 2)]
        rows.append(tuple(row))
        points.append(Bubble(subject, f"T = {steps}", took.steps, energy, spikes, network.config.phased))
    header: tuple[str, ...] = (
        "network",
        "clock",
        "depth",
        "latency, steps",
        "an image every, steps",
        "spikes per neuron",
    )
    header += ("spikes per synapse", "energy, mJ", "of the ANN, %", "PSNR, dB", "ANN, dB")
    blocks: list[Block] = [Table(header, tuple(rows))]
    if points:
        drawn = bubbles(points, "latency of one image, steps", "energy, mJ (column A)")
        caption = "Energy against latency; the area is spikes per synapse, round: clocked, square: phased."
        blocks.append(Figure("latency.svg", drawn, caption))
    return [*blocks, *([Bullets(tuple(absent))] if absent else [])]


def conversions_table(
    benchmarks: Sequence[tuple[Benchmark, str, str, str]], contenders: Sequence[Contender]
) -> list[Block]:
    """What conversions without training make of networks of several authors: PSNR by network and by method.

    Args:
        benchmarks: For each network where it is measured, its name or file, the test set, and who trained it.
        contenders: The conversions.
    """
    rows, absent = [], []
    for benchmark, subject, data, source in benchmarks:
        try:
            results = measured(benchmark, subject, data, [("degraded", None), ("ann", None), *contenders])
        except ModelError:
            absent.append(f"Not measured: {Path(subject).name} is not in the image collection.")
            continue
        psnr = [number(found.mean("psnr"), 2) for found in results.values()]
        rows.append((f"{_title(benchmark, subject)} ({source}), {data}", *psnr))
    header = ("network", *(label(*one) for one in (("degraded", None), ("ann", None), *contenders)))
    return [Table(header, tuple(rows)), *([Bullets(tuple(absent))] if absent else [])]


def energy_table(benchmark: Benchmark, subject: str, contenders: Sequence[Contender]) -> list[Block]:
    """Spikes and energy by contender, beside the paper's."""
    task = benchmark.subject(subject).task
    data = PAPER_DATA[task]
    results, whole = measured(benchmark, subject, data, [("ann", None), *contenders]), ann_mj(benchmark, subject)
    rows = []
    for (method, steps), found in results.items():
        energy = scaled_mj(found, whole)
        if energy is None or whole is None:
            continue
        printed = PRINTED.get((subject, method, steps), _NOTHING).mj
        spikes = [number(found.mean(name), 3) for name in ("spikes_per_neuron", "spikes_per_synapse")]
        share, wanted = number(100 * energy / whole, 1), number(printed, 3)
        difference = number(None if printed is None else energy - printed, 3, "+")
        rows.append((found.cell.label, *spikes, number(energy, 3), share, wanted, difference))
    header = ("method", "spikes per neuron", "spikes per synapse", "mJ", "of the ANN, %", "paper: mJ", "ours - paper")
    return [Heading(f"{subject}, {data}", 3), Table(header, tuple(rows)), *_remarks(benchmark, subject, results)]


def columns_table(benchmark: Benchmark, contenders: Sequence[tuple[str, Contender]]) -> list[Block]:
    """Energy of spiking networks over that of their ANN by all four columns."""
    rows, absent = [], []
    for subject, (method, steps) in contenders:
        cell = Cell(subject, PAPER_DATA[benchmark.subject(subject).task], method, steps)
        try:
            energy = profile(benchmark, cell)["energy"]
        except UnavailableError as error:
            absent.append(f"Not measured: {subject}, {cell.label}: {error}.")
            continue
        shares = (number(energy["snn"][column] / energy["ann"][column], 2) for column in COLUMNS)
        rows.append((f"{subject}, {cell.label}", number(energy["spikes_per_synapse"]["true"], 2), *shares))
    header = ("network", "spikes per synapse", *COLUMNS.values())
    intro = "Energy of the SNN over that of the ANN, on the middle of a test set's first image, at most 128 x 128."
    return [
        Heading("All four columns", 3),
        Paragraph(f"{intro} Below 1 the spiking network pays; `docs/energy.md` says what each column counts."),
        Table(header, tuple(rows)),
        *([Bullets(tuple(absent))] if absent else []),
    ]


def suspects(task: Task) -> list[Block]:
    """The paper's cells that cannot be right, marked with ? in the tables."""
    notes = []
    for (subject, method, steps), printed in PRINTED.items():
        if printed.suspect is not None and subject.startswith(f"{task}-"):
            notes.append(f"{subject}, {Cell(subject, '', method, steps).label}: {printed.suspect}.")
    return [
        Heading("Cells of the paper to read with care (what cannot be right is marked ?)", 3),
        Bullets(tuple(notes)),
    ]


def psnr_against_steps(benchmark: Benchmark, subject: str, contenders: Sequence[Contender]) -> list[Block]:
    """PSNR against T and against energy, on the paper's test set."""
    task = benchmark.subject(subject).task
    results = measured(benchmark, subject, PAPER_DATA[task], [*contenders, ("ann", None)])
    whole = ann_mj(benchmark, subject)
    steps: dict[str, list[tuple[float, float]]] = {}
    energies: dict[str, list[tuple[float, float]]] = {}
    for (method, time_steps), found in results.items():
        psnr, energy = found.mean("psnr"), scaled_mj(found, whole)
        if time_steps is None or psnr is None or energy is None:
            continue
        steps.setdefault(METHODS[method].label, []).append((time_steps, psnr))
        energies.setdefault(METHODS[method].label, []).append((energy, psnr))
    if not steps:
        return []
    ann = results["ann", None].mean("psnr")
    level = None if ann is None else ("ANN", ann)
    drawn = curves({"time steps T": steps, "energy, mJ (column A)": energies}, level, "PSNR, dB")
    return [Figure(f"psnr-{subject}.svg", drawn, f"{subject}: PSNR against T and against energy.")]


def rates_figure(benchmark: Benchmark, contenders: Sequence[tuple[str, Contender]]) -> list[Block]:
    """Firing rate by layer, one figure for each architecture."""
    figures: dict[Task, dict[str, dict[str, float]]] = {}
    for subject, (method, steps) in contenders:
        task = benchmark.subject(subject).task
        cell = Cell(subject, PAPER_DATA[task], method, steps)
        try:
            figures.setdefault(task, {})[f"{subject}, {cell.label}"] = profile(benchmark, cell)["rates"]
        except UnavailableError:
            continue
    return [
        Figure(f"rates-{task}.svg", bars(groups, "spikes per neuron and step"), f"Firing rate by layer, to {task}.")
        for task, groups in figures.items()
        if groups
    ]


def ablation_table(benchmark: Benchmark, subject: str, steps: int) -> list[Block]:
    """The method's parts one by one, and what the extended step does to the membranes."""
    cell = Cell(subject, PAPER_DATA[benchmark.subject(subject).task], "spikingir", steps)
    heading = Heading(f"{subject}, {cell.data}, T = {steps}", 3)
    question = {"ablation": asdict(cell), "crop": benchmark.crop, "seed": benchmark.seed, "limit": benchmark.limit}
    try:
        kept = benchmark.keep(subject, question, f"ablation at T = {steps}", lambda _: _stages(benchmark, cell))
        found = profile(benchmark, cell)
    except UnavailableError as error:
        return [heading, Paragraph(f"Not measured: {error}.")]
    rows = tuple(
        (name, number(mean["psnr"], 2), number(mean["ssim"], 4), number(mean["spikes_per_neuron"], 2))
        for name, mean in kept["stages"]
    )
    shares = {"end of step T": found["before"], "end of step T + 1": found["after"]}
    drawn = histograms({cell.label: shares}, EDGES, "residual membrane, thresholds")
    caption = f"{subject}: residual membranes of the hidden neurons before and after the extended step, T = {steps}."
    table = Table(("network", "PSNR, dB", "SSIM", "spikes per neuron"), rows)
    return [heading, table, Figure(f"membranes-{subject}.svg", drawn, caption)]


def _stages(benchmark: Benchmark, cell: Cell) -> Json:
    subject = benchmark.subject(cell.subject)
    tuned = spiking_network(subject, cell.method, cell.time_steps)
    found = ablate(subject.ann(), tuned, subject.calibration(), benchmark.pairs(cell), task=subject.task)
    return {"stages": [(row.name, asdict(row.evaluation.mean)) for row in found]}


def pictures(benchmark: Benchmark, subject: str, contenders: Sequence[Contender], side: int, about: str) -> list[Block]:
    """What contenders make of a freely licensed photograph, with the same part of each enlarged."""
    opened = benchmark.subject(subject)
    drawn, absent = comparison(opened, contenders, sample(opened, side, benchmark.seed))
    figure = Figure(f"pictures-{subject}.jpg", drawn, f"{subject}: {about}; the marked part enlarged.")
    return [figure, *([Bullets(tuple(f"Not shown: {why}." for why in absent))] if absent else [])]
