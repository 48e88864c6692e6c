"""What was measured of a model on test sets: rows of ``tests.json`` in its folder, which its card shows as a table."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from spikingir.files import write_text
from spikingir.schema import SchemaError, parse
from spikingir.zoo.catalogue import ModelError

TESTS_FILE = "tests.json"

ENERGY_COLUMNS: Mapping[str, str] = {
    "paper": "A",
    "complete": "B",
    "int8": "C, 8 bits",
    "int32": "C, 32 bits",
    "memory": "D",
}
"""Short names of the energy columns, see ``docs/energy.md``."""


@dataclass(frozen=True)
class TestRow:
    """One network of a model on one test set: means over its images. What was not measured is None.

    Attributes:
        data: Name of the test set.
        images: How many were measured.
        network: File of the spiking network.
        clock: Its time steps, schedule and code.
        commit: Commit of the checkout that measured.
        date: Day of the measurement.
        sigma: Level of the noise that was added, of 255.
        seed: Its seed.
        limit: Most images that were asked for; None for the whole set.
        crop: Side of the middle that was cut out of each; None for whole images.
        degraded_psnr: PSNR of the degraded images in dB.
        ann_psnr: PSNR of the conventional network.
        ann_ssim: Its SSIM.
        psnr: PSNR of the spiking network in its deployment form.
        ssim: Its SSIM.
        conversion_rate: What it keeps of the conventional network, in per cent, not capped.
        e: Rate of new visible edges, where there is no clean image, see :func:`spikingir.measures.visibility`.
        r: How many times steeper visible edges became.
        saturated: Share of pixels that became black or white.
        spikes_per_neuron: Mean number of spikes of a neuron.
        spikes_per_synapse: Spikes that a synapse carries.
        ann_mj: Energy of the conventional network by column, in mJ.
        snn_mj: Energy of the spiking network by column.
        int8_twin_mj: Energy of the conventional network in 8 bits that skips zeros.
    """

    __test__ = False  # pytest takes a class of this name for a test

    data: str
    images: int
    network: str
    clock: str
    commit: str
    date: str
    sigma: float | None = None
    seed: int = 0
    limit: int | None = None
    crop: int | None = None
    degraded_psnr: float | None = None
    ann_psnr: float | None = None
    ann_ssim: float | None = None
    psnr: float | None = None
    ssim: float | None = None
    conversion_rate: float | None = None
    e: float | None = None
    r: float | None = None
    saturated: float | None = None
    spikes_per_neuron: float | None = None
    spikes_per_synapse: float | None = None
    ann_mj: Mapping[str, float] = field(default_factory=dict)
    snn_mj: Mapping[str, float] = field(default_factory=dict)
    int8_twin_mj: float | None = None

    @property
    def question(self) -> tuple[Any, ...]:
        """What was measured: a later answer to it takes the place of this one."""
        return self.data, self.network, self.clock, self.sigma, self.seed, self.limit, self.crop

    @property
    def judged_alone(self) -> bool:
        """Whether there was no clean image to measure against."""
        return self.psnr is None


def read_tests(folder: Path) -> list[TestRow]:
    """Rows of a model's folder; none where nothing was measured.

    Raises:
        ModelError: The file is damaged.
    """
    path = folder / TESTS_FILE
    if not path.is_file():
        return []
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        return [parse(TestRow, row, f"rows[{i}]") for i, row in enumerate(table["rows"])]
    except (SchemaError, KeyError, TypeError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"{path} is no record of tests: {error}; delete it, and measure anew") from None


def add_test(folder: Path, row: TestRow) -> list[TestRow]:
    """Add a row to those of a model's folder, in the place of an earlier answer to the same question.

    Returns:
        All rows.

    Raises:
        ModelError: The file is damaged.
        OSError: It cannot be written.
    """
    rows = {other.question: other for other in read_tests(folder)}
    rows[row.question] = row
    table = [{key: value for key, value in asdict(one).items() if value not in (None, {})} for one in rows.values()]
    write_text(folder / TESTS_FILE, json.dumps({"rows": table}, indent=2) + "\n")
    return list(rows.values())


def table_of_tests(rows: Sequence[TestRow]) -> str:
    """What was measured, in Markdown: a table for sets with clean images, and one for those without."""
    compared = [row for row in rows if not row.judged_alone]
    alone = [row for row in rows if row.judged_alone]
    parts = []
    if compared:
        head = ["test set", "sigma", "network", "degraded, dB", "ANN, dB", "SNN, dB", "SSIM", "rate, %"]
        parts.append(markdown_table([*head, *_COST_HEAD], [[*_quality(row), *_cost(row)] for row in compared]))
    if alone:
        head = ["photographs", "network", "e", "r", "newly black or white, %"]
        cells = [[_name(row), row.clock, *_descriptors(row), *_cost(row)] for row in alone]
        parts.append(markdown_table([*head, *_COST_HEAD], cells))
    if rows:
        parts.append(
            "Means over images, by `spikingir evaluate MODEL --data SET --card`; the spiking networks in their "
            "deployment form, noise of seed 0 unless said. Energy in mJ an image, SNN (ANN), by the columns of "
            "`docs/energy.md`."
        )
    return "\n\n".join(parts)


_COST_HEAD = ["spikes a synapse", *ENERGY_COLUMNS.values(), "int8 twin", "commit"]


def _quality(row: TestRow) -> list[str]:
    sigma = "" if row.sigma is None else f"{row.sigma:g}" + f", seed {row.seed}" * (row.seed != 0)
    quality = [_number(row.degraded_psnr, 2), _number(row.ann_psnr, 2), _number(row.psnr, 2), _number(row.ssim, 4)]
    return [_name(row), sigma, row.clock, *quality, _number(row.conversion_rate, 1)]


def _descriptors(row: TestRow) -> list[str]:
    saturated = None if row.saturated is None else 100 * row.saturated
    return [_number(row.e, 2), _number(row.r, 2), _number(saturated, 2)]


def _cost(row: TestRow) -> list[str]:
    energies = []
    for column in ENERGY_COLUMNS:
        snn, ann = row.snn_mj.get(column), row.ann_mj.get(column)
        energies.append("" if snn is None else f"{_number(snn, 2)}" + ("" if ann is None else f" ({_number(ann, 2)})"))
    return [_number(row.spikes_per_synapse, 2), *energies, _number(row.int8_twin_mj, 2), row.commit]


def _name(row: TestRow) -> str:
    part = [f"{row.images} images"] if row.limit is not None else []
    part += [f"the middle {row.crop} x {row.crop}"] if row.crop is not None else []
    return row.data + f" ({', '.join(part)})" * bool(part)


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
