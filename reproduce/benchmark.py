"""Test sets x methods x time steps x noise levels: each cell measured once, kept, and found again.

A cell is kept as a file whose name is a digest of what its result depends on: the question, the model, all weights, and
where the image collection is, but not the images in it. What is interrupted goes on where it was: beside the cells lie
the scores, image by image, of the one that was being measured.
"""

import csv
import io
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import date
from hashlib import sha256
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from reproduce import WEIGHTS
from reproduce.contenders import METHODS, Contender, Subject, UnavailableError, label, place
from spikingir import __version__
from spikingir.data.testsets import TestPair
from spikingir.errors import UsageError
from spikingir.evaluation.evaluate import confidence_interval, conversion_rate, finite, quality
from spikingir.evaluation.testsets import open_testset, testset_names
from spikingir.files import write_text
from spikingir.provenance import commit
from spikingir.tasks import TaskName as Task

_FORMAT = 2  # another one makes all cells be measured anew

Json = dict[str, Any]
Announce = Callable[[str], None]


@dataclass(frozen=True, order=True)
class Cell:
    """One measurement.

    Attributes:
        subject: Name of the model under test, which tells task and noise level.
        data: Name of a test set, or a folder.
        method: Key of :data:`~reproduce.contenders.METHODS`.
        time_steps: ``T`` of a spiking method; None for what has none, and for a network's own.
    """

    subject: str
    data: str
    method: str
    time_steps: int | None = None

    @property
    def label(self) -> str:
        """Name in reports."""
        return label(self.method, self.time_steps)


@dataclass(frozen=True)
class Score:
    """What one contender made of one image; what it has none of is None.

    Attributes:
        name: The image.
        scene: Its scene, where others show it too.
        psnr: PSNR in dB, of the image clipped to [0, 1].
        ssim: SSIM, likewise.
        snn_mj: Energy of the spiking network, as the paper counts it (column A).
        ann_mj: Energy of the conventional network, likewise.
        spikes_per_neuron: Mean number of spikes of a neuron.
        spikes_per_synapse: Spikes that a synapse carries.
        time_steps: ``T`` that the spiking network ran at.
    """

    name: str
    scene: str
    psnr: float
    ssim: float
    snn_mj: float | None = None
    ann_mj: float | None = None
    spikes_per_neuron: float | None = None
    spikes_per_synapse: float | None = None
    time_steps: int | None = None


@dataclass(frozen=True)
class Result:
    """The scores of a cell, in the order of the test set.

    Attributes:
        cell: What was measured.
        scores: One for each image; empty where it could not be measured.
        missing: Why not.
        made: Commit, day and seconds of the measurement; of one that was cut off, those of the run that ended it.
    """

    cell: Cell
    scores: tuple[Score, ...]
    missing: str | None = None
    made: Mapping[str, Any] = field(default_factory=dict)

    def mean(self, measure: str) -> float | None:
        """Mean of one of :class:`Score`'s measures over images; None where it has none."""
        values = [getattr(score, measure) for score in self.scores]
        return fmean(values) if values and None not in values else None

    @property
    def time_steps(self) -> int | None:
        """``T`` that it was measured at, also where the cell leaves it to the network."""
        return self.cell.time_steps or (self.scores[0].time_steps if self.scores else None)

    @property
    def label(self) -> str:
        """The cell's name in reports, with ``T``."""
        return label(self.cell.method, self.time_steps if METHODS[self.cell.method].spiking else None)

    @property
    def psnr_ci95(self) -> tuple[float, float] | None:
        """95 % confidence interval of the mean PSNR over images."""
        return confidence_interval([score.psnr for score in self.scores], self._scenes)

    @property
    def _scenes(self) -> list[str]:
        return [score.scene for score in self.scores]

    @property
    def energy_ratio(self) -> float | None:
        """Energy of the spiking network over that of the conventional one, column A: the same for any image size."""
        snn, ann = self.mean("snn_mj"), self.mean("ann_mj")
        return None if snn is None or not ann else snn / ann

    def loss(self, reference: "Result") -> tuple[float, tuple[float, float] | None] | None:
        """PSNR that it loses against a reference on the same images: the mean, and its 95 % confidence interval.

        The interval is that of the differences, which images share: far narrower than that of a mean PSNR.
        """
        if not self.scores or len(self.scores) != len(reference.scores):
            return None
        losses = [theirs.psnr - ours.psnr for ours, theirs in zip(self.scores, reference.scores, strict=True)]
        return fmean(losses), confidence_interval(losses, self._scenes)

    def rate(self, reference: "Result", task: Task) -> float | None:
        """Conversion rate in per cent, not capped: of the means over images, as the paper's are."""
        if not self.scores or len(self.scores) != len(reference.scores):
            return None
        psnr, ssim = (
            fmean(getattr(one, name) for one in self.scores) / fmean(getattr(one, name) for one in reference.scores)
            for name in ("psnr", "ssim")
        )
        return conversion_rate(psnr, ssim, task)


@dataclass(frozen=True)
class Benchmark:
    """How cells are measured, and where they are kept.

    Attributes:
        folder: Folder of the kept cells.
        data_root: Folder of the image collection.
        models: Folder of models that go before those that ship.
        weights: Folder of baselines' weights, one folder for each model.
        limit: Images of a set, at most, spread evenly.
        crop: Side of the middle of each that is used.
        seed: Seed of the noise.
        sigma: Level of the noise, of 255, for what does not name its own, see :meth:`Subject.open`.
        announce: Told one line for each cell that is measured.
    """

    folder: Path
    data_root: Path | None = None
    models: Path | None = None
    weights: Path = WEIGHTS
    limit: int | None = None
    crop: int | None = None
    seed: int = 0
    sigma: float | None = None
    announce: Announce = lambda text: None
    origins: set[tuple[str, str]] = field(default_factory=set, compare=False)
    """Day and commit of each answer that was given, whenever it was measured."""
    seconds: dict[str, float] = field(default_factory=dict, compare=False)
    """What measuring took, by the name of each answer's file."""

    def subject(self, name: str) -> Subject:
        """The model under test of that name."""
        return Subject.open(name, self.models, self.weights, self.data_root, self.sigma)

    def pairs(self, cell: Cell) -> Sequence[TestPair]:
        """The images of a cell."""
        subject = self.subject(cell.subject)
        return open_testset(
            cell.data,
            self.data_root,
            task=subject.task,
            channels=subject.channels,
            sigma=subject.sigma,
            seed=self.seed,
            limit=self.limit,
            crop=self.crop,
        )

    def measure(self, cell: Cell) -> Result:
        """The scores of a cell, measured now or before.

        A contender that is not available gives a result without scores that says why, and is not kept.

        Raises:
            DataError: The test set is missing.
            ModelError: There is no such model.
        """
        setting = {"limit": self.limit, "crop": self.crop, "seed": self.seed}
        try:
            # another folder may have the same name from another place
            data = cell.data if cell.data in testset_names() else str(Path(cell.data).resolve())
            question = {"cell": {**asdict(cell), "data": data}, **setting}
            kept = self.keep(cell.subject, question, cell.label, lambda unfinished: self._scores(cell, unfinished))
        except UnavailableError as error:
            return Result(cell, (), str(error))
        return Result(cell, tuple(Score(**score) for score in kept["scores"]), None, kept["made"])

    def measure_all(self, cells: Iterable[Cell]) -> dict[Cell, Result]:
        """The results of many cells, each once."""
        return {cell: self.measure(cell) for cell in dict.fromkeys(cells)}

    def keep(self, subject: str | None, question: Json, title: str, answer: Callable[[Path], Json]) -> Json:
        """The answer to a question about a subject's weights, from the folder if it was asked before.

        Args:
            subject: Name of the model, whose weights the answer depends on; None where it depends on no model's.
            question: All else that it depends on; plain values.
            title: What is announced when it has to be worked out.
            answer: Works it out; plain values. It is given a file of its own, where it may keep what is done so far.
        """
        known = {"data_root": place(self.data_root)} if subject is None else self.subject(subject).identity()
        asked = {"format": _FORMAT, "version": __version__, **known, **question}
        path = self.folder / f"{sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:24]}.json"
        kept = _kept(path)
        if kept is not None:
            found = kept
        else:
            unfinished = path.with_suffix(".unfinished")
            start = time.monotonic()
            found = answer(unfinished)
            seconds = round(time.monotonic() - start, 1)
            commit_of_code = commit(Path(__file__).parent)
            found["made"] = {"commit": commit_of_code, "date": date.today().isoformat(), "seconds": seconds}
            self.folder.mkdir(parents=True, exist_ok=True)
            write_text(path, json.dumps({"question": asked, "answer": found}, indent=1))
            unfinished.unlink(missing_ok=True)
            self.announce(f"{title} ({seconds} s)" if subject is None else f"{subject}: {title} ({seconds} s)")
        self.origins.add((found["made"]["date"], found["made"]["commit"]))
        self.seconds[path.name] = found["made"]["seconds"]
        return found

    def _scores(self, cell: Cell, unfinished: Path) -> Json:
        subject, method = self.subject(cell.subject), METHODS[cell.method]
        if not method.fits(subject.task):
            raise UnavailableError(f"it is to {method.task}")
        contender, pairs, scores = method.make(subject, cell.time_steps), self.pairs(cell), _resumed(unfinished)
        self.folder.mkdir(parents=True, exist_ok=True)
        for i in range(len(scores), len(pairs)):
            scores.append(asdict(score(contender, pairs[i])))
            with unfinished.open("a", encoding="utf-8") as file:
                file.write(json.dumps(scores[-1]) + "\n")
        return {"scores": scores}


def _kept(path: Path) -> Json | None:
    """A kept answer; None where there is none, or where the disk lost a part of it."""
    if not path.is_file():
        return None
    try:
        answer: Json = json.loads(path.read_bytes())["answer"]
    except (ValueError, KeyError, TypeError):  # ValueError: of bytes that are no text, and of text that is no JSON
        return None
    return answer if isinstance(answer, dict) and {"date", "commit"} <= answer.get("made", {}).keys() else None


def _resumed(unfinished: Path) -> list[Json]:
    """Scores of a measurement that was cut off, a line each, up to the first that is not whole."""
    if not unfinished.is_file():
        return []
    scores: list[Json] = []
    for line in unfinished.read_bytes().splitlines(keepends=True):
        try:
            found = json.loads(line)
        except ValueError:
            break
        if not line.endswith(b"\n") or not isinstance(found, dict):
            break
        scores.append(found)
    write_text(unfinished, "".join(json.dumps(found) + "\n" for found in scores))
    return scores


def cells(
    subjects: Sequence[str], data: Sequence[str], methods: Sequence[str], time_steps: Sequence[int | None]
) -> list[Cell]:
    """The grid of all these; a method without time steps is there once.

    Raises:
        UsageError: An unknown method.
    """
    for method in methods:
        if method not in METHODS:
            raise UsageError(f"unknown method {method!r}; known ones: {', '.join(METHODS)}")
    return [
        Cell(subject, one, method, steps)
        for subject, one, method in product(subjects, data, methods)
        for steps in (time_steps if METHODS[method].spiking else (None,))
    ]


@torch.inference_mode()
def score(contender: Contender, pair: TestPair) -> Score:
    """Restore one image and measure.

    Raises:
        UnavailableError: The contender needs a package that is not there.
        ValueError: The image is smaller than SSIM's window.
    """
    restored = contender(pair.degraded)
    found = Score(pair.name, pair.scene, *quality(restored.image, pair), ann_mj=restored.ann_mj)
    if restored.trace is None or restored.energy is None:
        return found
    return replace(
        found,
        snn_mj=restored.energy.snn_mj,
        spikes_per_neuron=restored.trace.spikes_per_neuron,
        spikes_per_synapse=restored.energy.spikes_per_synapse,
        time_steps=restored.trace.time_steps,
    )


def as_json(results: Mapping[Cell, Result]) -> str:
    """Results with the scores of each image."""
    return json.dumps([finite(asdict(result)) for result in results.values()], indent=1) + "\n"


def as_csv(results: Mapping[Cell, Result]) -> str:
    """Results, a line a cell: means over images."""
    measures = [name for name in Score.__dataclass_fields__ if name not in ("name", "scene", "time_steps")]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["model", "data", "method", "time_steps", "images", *measures, "psnr_low", "psnr_high", "missing"])
    for cell, result in results.items():
        means = ["" if (value := result.mean(name)) is None else f"{value:.6g}" for name in measures]
        interval = [f"{bound:.4f}" for bound in result.psnr_ci95 or ()] or ["", ""]
        row = [cell.subject, cell.data, cell.method, result.time_steps or "", len(result.scores), *means, *interval]
        writer.writerow([*row, result.missing or ""])
    return file.getvalue()
