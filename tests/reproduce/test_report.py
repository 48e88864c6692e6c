"""The report holds what was measured beside what the paper printed, and says what could not be measured."""

import json
import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import mean

import numpy as np
import pytest
import torch
from PIL import Image

from reproduce import Target
from reproduce.benchmark import Benchmark, Cell
from reproduce.contenders import UnavailableError, label, spiking_network
from reproduce.document import Block, Bullets, Figure, Heading, Paragraph, Table, as_markdown
from reproduce.paper import PRINTED, SIZES
from reproduce.profile import EDGES, profile
from reproduce.report import SECTIONS, reproduce
from reproduce.sections import conversions_table, interval, latency_table, quality_table, steps_table
from spikingir.conversion.convert import convert
from spikingir.data.noise import sample_generator
from spikingir.energy.paper import ann_energy
from spikingir.errors import UsageError
from spikingir.evaluation.evaluate import confidence_interval
from spikingir.networks import AODNet
from spikingir.networks.registry import build_network
from spikingir.store import save_network, save_pretrained
from tests.reproduce.conftest import SIDE


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory: pytest.TempPathFactory, models: Path, collection: Path) -> Benchmark:
    folder = tmp_path_factory.mktemp("reproduce")
    return Benchmark(folder / "cells", collection, models, folder / "weights", limit=2, crop=16)


def tables(blocks: list[Block]) -> list[Table]:
    return [block for block in blocks if isinstance(block, Table)]


def test_denoising(benchmark: Benchmark) -> None:
    blocks = reproduce(benchmark, "table2")
    assert "A quick look, not the full test" in as_markdown(blocks, "")
    first = tables(blocks)[0]
    row = next(
        dict(zip(first.header[:4], row, strict=False)) for row in first.rows if row[0].endswith("clocked, T = 10")
    )
    found = benchmark.measure(Cell("denoise-gray-15", "bsd68", "spikingir", 10))
    assert row["PSNR, dB"] == f"{found.mean('psnr'):.2f}"
    printed = next(row for row in first.rows if row[0].endswith("clocked, T = 10"))[-5:]
    assert printed[0] == "31.38"
    assert printed[1] == f"{found.mean('psnr') - 31.378:+.2f}"
    text = as_markdown(blocks, "")
    assert text.startswith("# Table 2: denoising\n\nMade by `python -m reproduce table2 ")
    assert "28.88?" in text  # garbled in print
    quoted = next(row for row in tables(blocks)[1].rows if row[0] == "DnSNN, T = 15 (quoted alone)")
    assert quoted[-5:] == ("29.02", "", "", "", "")
    assert "the losses beside it give 28.879" in text
    assert "Not measured: DnSNN, T = 15: there is no denoise-gray-25/dnsnn.safetensors" in text
    assert [block.name for block in blocks if isinstance(block, Figure)] == [
        f"psnr-denoise-gray-{sigma}.svg" for sigma in (15, 25, 50)
    ]


def test_energy_and_a_model_that_does_not_ship(benchmark: Benchmark, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reproduce.report.DEHAZER", "denoise-gray-99")
    blocks = reproduce(benchmark, "table3")
    found = benchmark.measure(Cell("denoise-gray-25", "bsd68", "spikingir", 10))
    assert found.energy_ratio is not None
    rows = {row[0]: row for table in tables(blocks) for row in table.rows}
    text = as_markdown(blocks, "")
    whole = ann_energy(benchmark.subject("denoise-gray-25").ann(), (321, 481))  # smaller than the paper's network
    assert f"{found.energy_ratio * whole:.3f}" in text
    assert f"{whole:.3f}" in text
    assert "denoise-gray-99 does not ship" in text
    assert rows["ANN"][-2] == "393.555"
    assert any("Lemaire" in item for block in blocks if isinstance(block, Bullets) for item in block.items)


@pytest.mark.parametrize("target", ["figure3", "ablation"])
def test_pictures_and_ablation(target: Target, benchmark: Benchmark, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reproduce.report.DENOISERS", ("denoise-gray-25",))
    monkeypatch.setattr("reproduce.report.DEHAZER", "denoise-gray-99")
    blocks = reproduce(benchmark, target)
    figures = [block for block in blocks if isinstance(block, Figure)]
    assert len(figures) == 1
    assert figures[0].content.startswith(b"\xff\xd8" if target == "figure3" else b"<?xml")
    if target == "ablation":
        assert len(tables(blocks)[0].rows) == 6
        assert any("does not ship" in block.text for block in blocks if isinstance(block, Paragraph))


def test_membranes_before_and_after_the_extended_step(benchmark: Benchmark) -> None:
    clocked = profile(benchmark, Cell("denoise-gray-25", "bsd68", "spikingir", 4))
    assert clocked["before"] != clocked["after"]
    middle = [0.5 * (low + high) for low, high in pairwise(EDGES)]
    for shares in (clocked["before"], clocked["after"]):
        assert sum(shares) == pytest.approx(1, abs=1e-3)
    # the extended step takes a threshold from what is above one half
    before, after = (
        sum(share for share, at in zip(clocked[key], middle, strict=True) if at > 0.5) for key in ("before", "after")
    )
    assert after < before
    phased = profile(benchmark, Cell("denoise-gray-25", "bsd68", "phased"))
    assert phased["before"] == phased["after"]
    assert len(phased["rates"]) == 3


@pytest.mark.parametrize(("task", "architecture"), [("denoise", "dncnn"), ("dehaze", "aodnet")])
def test_the_papers_energy_is_ours(task: str, architecture: str) -> None:
    printed = PRINTED["dehaze-aodnet" if task == "dehaze" else "denoise-gray-25", "ann", None].mj
    assert ann_energy(build_network(architecture), SIZES[task]) == pytest.approx(printed, abs=5e-4)


def test_suspect_cells_are_noted() -> None:
    suspects = [key for key, printed in PRINTED.items() if printed.suspect]
    assert {
        ("dehaze-aodnet", "qcfs", 8),
        ("dehaze-aodnet", "qcfs", 10),
        ("dehaze-aodnet", "lan", 20),
        ("dehaze-aodnet", "lan", 50),
    } <= set(suspects)
    paper = {"summary", "table1", "table2", "table3", "figure2", "figure3", "ablation"}
    assert set(SECTIONS) == {*paper, "steps", "latency", "published"}


def test_dehazing(tmp_path: Path) -> None:
    """QCFS is set against its own ANN; rates are of means and weigh SSIM; images of one scene are one draw."""
    ann, images = AODNet().eval(), torch.rand(1, 3, 16, 16, generator=sample_generator(0, 0))
    ann.reset_parameters(sample_generator(0, 1))
    for folder in ("dehaze-aodnet", "weights/dehaze-aodnet", "data/hazy", "data/gt"):
        (tmp_path / folder).mkdir(parents=True)
    save_network(ann, tmp_path / "dehaze-aodnet" / "ann.safetensors")
    save_pretrained(convert(ann, images, time_steps=4), tmp_path / "dehaze-aodnet" / "snn.safetensors")
    save_pretrained(
        convert(ann, images, "if", time_steps=3), tmp_path / "weights" / "dehaze-aodnet" / "qcfs.safetensors"
    )
    variants = {"snn.safetensors": {"schedule": "clocked", "time_steps": 4}}
    config = {
        "name": "dehaze-aodnet",
        "task": "dehaze",
        "channels": 3,
        "variants": variants,
        "default": "snn.safetensors",
    }
    (tmp_path / "dehaze-aodnet" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    rng = np.random.default_rng(0)
    for scene, hazes in (("0", 2), ("1", 1), ("2", 1)):
        clean = rng.integers(0, 200, (SIDE, SIDE, 3))
        Image.fromarray(clean.astype(np.uint8)).save(tmp_path / "data" / "gt" / f"{scene}.png")
        for haze in range(1, hazes + 1):
            hazy = (clean / (1 + haze) + 20 * haze).astype(np.uint8)
            Image.fromarray(hazy).save(tmp_path / "data" / "hazy" / f"{scene}_{haze}.png")

    benchmark, data = Benchmark(tmp_path / "cells", None, tmp_path, tmp_path / "weights"), str(tmp_path / "data")
    contenders = (("ann", None), ("control", None), ("qcfs-ann", None), ("qcfs", 3), ("spikingir", 4), ("spikingir", 2))
    heading, table, remarks = quality_table(benchmark, "dehaze-aodnet", data, contenders)
    assert heading == Heading(f"dehaze-aodnet, {data}, 4 images", 3)
    assert isinstance(table, Table)
    assert isinstance(remarks, Bullets)
    assert remarks.items[0] == "Trained at T = 4: SpikingIR, clocked, T = 2."
    assert "no dehaze-aodnet/control.safetensors" in remarks.items[1]
    results = {one: benchmark.measure(Cell("dehaze-aodnet", data, *one)) for one in contenders}
    rows = {row[0]: row for row in table.rows}
    for one, reference in ((("qcfs", 3), ("qcfs-ann", None)), (("spikingir", 4), ("ann", None))):
        found, against = results[one], results[reference]
        kept = [mean(s.psnr for s in found.scores) / mean(s.psnr for s in against.scores)]
        kept.append(mean(s.ssim for s in found.scores) / mean(s.ssim for s in against.scores))
        losses = [theirs.psnr - ours.psnr for ours, theirs in zip(found.scores, against.scores, strict=True)]
        bounds = confidence_interval(losses, ["0", "0", "1", "2"])
        assert rows[found.label][4:] == (f"{mean(losses):.3f}", interval(bounds, 3), f"{100 * mean(kept):.2f}")


def test_few_steps(benchmark: Benchmark) -> None:
    heading, around, table, remarks = steps_table(
        benchmark, "denoise-gray-25", "bsd68", ("if", "spikingir", "phased", "dnsnn"), (1, 2)
    )
    assert heading == Heading("denoise-gray-25, bsd68, 2 images", 3)
    assert isinstance(around, Paragraph)
    assert isinstance(table, Table)
    assert isinstance(remarks, Bullets)
    names = ["IF, v0 = 1/2", "SpikingIR, clocked", "SpikingIR, phased"]  # DnSNN has no weights here
    assert [row[0] for row in table.rows] == names
    ann = benchmark.measure(Cell("denoise-gray-25", "bsd68", "ann"))
    assert f"ANN: {ann.mean('psnr'):.2f} dB" in around.text
    for row, method in zip(table.rows, ("if", "spikingir", "phased"), strict=True):
        found = [benchmark.measure(Cell("denoise-gray-25", "bsd68", method, t)) for t in (1, 2)]
        loss = found[1].loss(ann)
        assert loss is not None
        assert row[1:4] == (*(f"{one.mean('psnr'):.2f}" for one in found), f"{loss[0]:.2f}")
        assert row[5:] == tuple(f"{one.mean('spikes_per_neuron'):.2f}" for one in found)
    assert "Trained at T = 4: SpikingIR, clocked, T = 1, 2." in remarks.items
    assert [one for one in remarks.items if "DnSNN, T = 1, 2: there is no" in one]


def test_latency_of_networks(benchmark: Benchmark) -> None:
    networks = [("denoise-gray-25", "bsd68", one) for one in (("spikingir", 4), ("phased", 3))]
    absent = ("denoise-gray-99", "bsd68", ("spikingir", 4))
    table, figure, missing = latency_table(benchmark, [*networks, absent])
    assert isinstance(table, Table)
    assert isinstance(figure, Figure)
    assert isinstance(missing, Bullets)
    assert figure.content.startswith(b"<?xml")
    assert "denoise-gray-99 does not ship" in missing.items[0]
    assert [row[1:5] for row in table.rows] == [("T = 4, clocked", "3", "7", "5"), ("T = 3, phased", "3", "9", "3")]
    whole = ann_energy(benchmark.subject("denoise-gray-25").ann(), SIZES["denoise"])
    for row, (subject, data, one) in zip(table.rows, networks, strict=True):
        found = benchmark.measure(Cell(subject, data, *one))
        assert found.energy_ratio is not None
        assert row[6:9] == (
            f"{found.mean('spikes_per_synapse'):.2f}",
            f"{found.energy_ratio * whole:.1f}",
            f"{100 * found.energy_ratio:.1f}",
        )


def test_energy_is_that_of_the_network_beside_a_deeper_ann(benchmark: Benchmark, models: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(models, tmp_path / "models")
    network = build_network("dncnn", channels=1, layers=9, width=4)
    save_network(network, folder / "denoise-gray-25" / "ann.safetensors")
    deeper = Benchmark(tmp_path / "cells", benchmark.data_root, folder, tmp_path / "weights", limit=2, crop=16)
    given = [("denoise-gray-25", "bsd68", ("phased", 3))]
    before, after = (latency_table(one, given)[0] for one in (benchmark, deeper))
    assert isinstance(before, Table)
    assert isinstance(after, Table)
    assert before.rows[0][:9] == after.rows[0][:9]
    assert before.rows[0][10] != after.rows[0][10]  # the ANN's PSNR


def test_conversions_of_networks_that_others_trained(benchmark: Benchmark, models: Path, tmp_path: Path) -> None:
    """The same weights in a file alone give what they give in a model's folder."""
    file = tmp_path / "others.safetensors"
    file.write_bytes((models / "denoise-gray-25" / "ann.safetensors").read_bytes())
    others = replace(benchmark, sigma=25.0)
    contenders = (("if", 2), ("untrained", 2), ("untrained-phased", 2), ("lan", 2))
    given = [(benchmark, "denoise-gray-25", "bsd68", "ours"), (others, str(file), "bsd68", "theirs")]
    absent = (others, str(tmp_path / "none.pth"), "bsd68", "theirs")
    table, missing = conversions_table([*given, absent], contenders)
    assert isinstance(table, Table)
    assert missing == Bullets(("Not measured: none.pth is not in the image collection.",))
    assert table.header[3:] == tuple(label(*one) for one in contenders)
    ours, theirs = table.rows
    assert (ours[0], theirs[0]) == ("denoise-gray-25 (ours), bsd68", "others.safetensors, sigma 25 (theirs), bsd68")
    assert ours[1:] == theirs[1:]
    assert len(set(ours[1:])) > 4
    phased = spiking_network(others.subject(str(file)), "untrained-phased", 3).config
    binary = spiking_network(others.subject(str(file)), "untrained-binary", 3).config
    assert (phased.clock, binary.clock) == ("T = 3, phased", "T = 3, phased, binary")
    with pytest.raises(UnavailableError, match="is a conventional network alone"):
        spiking_network(others.subject(str(file)), "spikingir", 3)
    with pytest.raises(UsageError, match="does not say which level"):
        benchmark.subject(str(file))


def test_models_of_many_levels(benchmark: Benchmark) -> None:
    level = replace(benchmark, sigma=25.0)
    assert level.subject("denoise-gray").sigma == 25
    assert level.subject("denoise-gray-25").sigma == 25
    assert level.subject("denoise-photo").sigma is None  # blind
    assert level.subject("denoise-gray-15").sigma == 15
    with pytest.raises(UnavailableError, match="a binary network there, which runs at T = 6 alone"):
        spiking_network(level.subject("denoise-gray"), "phased", 3)


def test_reports_say_their_command_and_all_sections_can_be_made(
    benchmark: Benchmark, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reproduce.report.DENOISERS", ("denoise-gray-25",))
    monkeypatch.setattr("reproduce.report.FEW_STEPS", (1,))
    monkeypatch.setattr("reproduce.report.PUBLISHED", (("if", 1),))
    few: list[tuple[str, str]] = []
    monkeypatch.setattr("reproduce.report.steps_table", lambda *given: few.append(given[1:3]) or [])
    monkeypatch.setattr(
        "reproduce.report.latency_table", lambda benchmark, networks: [Bullets(tuple(map(str, networks)))]
    )
    monkeypatch.setattr(
        "reproduce.report.conversions_table", lambda networks, contenders: [Bullets(tuple(one[1] for one in networks))]
    )
    reproduce(benchmark, "steps")
    assert few == [("denoise-gray-25", "bsd68"), ("denoise-gray", "bsd68"), ("dehaze-aodnet", "sots-indoor")]
    benchmark.measure(Cell("denoise-gray-25", "bsd68", "ann"))
    text = as_markdown(reproduce(benchmark, "latency"), "")
    assert "Made by `python -m reproduce latency --limit 2 --crop 16 --data-root DATA`" in text
    for name in ("denoise-gray-25", "denoise-gray", "denoise-color", "denoise-photo", "dehaze", "dehaze-aodnet"):
        assert f"('{name}', " in text
    assert "kair_dncnn_25.pth" in as_markdown(reproduce(benchmark, "published"), "")
