"""A row is the method without the part that its name says, trained for as many steps as all others."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev

import numpy as np
import pytest
import torch
from PIL import Image

from reproduce import RECIPES
from reproduce.benchmark import Benchmark
from reproduce.document import Table
from reproduce.retrained import ARMS, METHOD, WHOLE, Row, report, retrain, spread, steps_of, train
from spikingir.cli import main
from spikingir.spiking.network import SpikingNetwork
from spikingir.training.fit import TrainingStopped
from spikingir.training.recipe import Recipe, RecipeError, load_recipe

STEPS = {"ann": 3, "quantised": 2, "clocked": 2, "direct": 7}
PART = {name.split(":")[0].split(",")[0]: name for name in ARMS}


@pytest.fixture(autouse=True)
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiling takes longer than all the training here."""
    monkeypatch.setattr("reproduce.retrained.can_compile", lambda: False)


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    whole = load_recipe(RECIPES / "retrained-gray-25.toml")
    stages = [
        replace(one, patch=12, time_steps=2, fit=replace(one.fit, steps=STEPS[one.name], batch_size=2))
        for one in whole.stages
    ]
    return replace(whole, stages=tuple(stages), options={"layers": 3, "width": 4, "batch_norm": True})


@pytest.fixture(scope="module")
def root(collection: Path) -> Path:
    folder = collection / "denoise" / "train400"
    folder.mkdir()
    rng = np.random.default_rng(1)
    for i in range(3):
        Image.fromarray(rng.integers(0, 255, (20, 18)).astype(np.uint8)).save(folder / f"{i}.png")
    return collection


def test_all_rows_have_as_many_steps(recipe: Recipe) -> None:
    for one in (recipe, load_recipe(RECIPES / "retrained-gray-25.toml")):
        total = sum(stage.fit.steps for stage in one.stages if stage.name in METHOD)
        assert {sum(steps_of(one, arm).values()) for arm in ARMS.values()} == {total}
    assert steps_of(recipe, ARMS["without the quantised start"]) == {"ann": 3, "clocked": 4}
    with pytest.raises(RecipeError, match="has no stage 'quantised'"):
        steps_of(replace(recipe, stages=recipe.stages[:1]), ARMS[WHOLE])
    longer = replace(recipe.stages[-1], fit=replace(recipe.stages[-1].fit, steps=8))
    with pytest.raises(RecipeError, match="direct has 8 steps, ann, quantised, clocked have 7 together"):
        steps_of(replace(recipe, stages=(*recipe.stages[:-1], longer)), ARMS[WHOLE])


def test_each_row_is_the_network_that_its_name_says(recipe: Recipe, root: Path, tmp_path: Path) -> None:
    trained = {
        name: train(recipe, arm, 0, root, tmp_path / str(i)).network for i, (name, arm) in enumerate(ARMS.items())
    }
    assert not isinstance(trained["ANN, trained for all the steps"], SpikingNetwork)
    networks = {name: network for name, network in trained.items() if isinstance(network, SpikingNetwork)}
    assert len(networks) == len(ARMS) - 1
    hidden = {name: network.neuron(network.layers[0]) for name, network in networks.items()}
    for name, network in networks.items():
        assert network.config.schedule == "clocked"
        assert network.config.time_steps == 2
        neuron, direct = hidden[name], ARMS[name].how.get("method") == "dnsnn"
        assert (network.mapper is None) == (name == PART["without the pixel mapper"] or direct)
        assert network.config.recycling == (name != PART["without membrane recycling"])
        assert neuron.extended == (name != PART["without the extended step"] and not direct)
        paper = name == PART["v0 = 0"]
        assert neuron.v0 == (0.0 if paper else 0.5)
        if neuron.extended:
            assert neuron.alpha == (0.501 if paper else 1.0)
            assert torch.all(neuron.beta == 1) == (name == PART["without beta"])
    first = [path.parent.name for path in tmp_path.glob("*/checkpoint.pt")]
    assert first == ["ann"]  # one conventional network for all rows


def rows_of(
    recipe: Recipe, root: Path, out: Path, told: Callable[[str], None], arms: tuple[str, ...]
) -> dict[str, Row]:
    return retrain(Benchmark(out / "cells", root, limit=2, crop=16, announce=told), recipe, "bsd68", 2, arms)


def test_what_is_done_is_kept_and_what_was_cut_off_goes_on(
    recipe: Recipe, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arms = (WHOLE, PART["without beta"])
    told: list[str] = []
    rows = rows_of(recipe, root, tmp_path / "whole", told.append, arms)
    assert len(told) == 4
    assert rows_of(recipe, root, tmp_path / "whole", told.append, arms) == rows
    assert len(told) == 4
    assert rows[WHOLE].psnr[0] != rows[WHOLE].psnr[1]  # seeds differ

    def cut(*arguments: object) -> None:
        raise TrainingStopped("stopped")

    with monkeypatch.context() as patch:
        patch.setattr("reproduce.retrained._scores", cut)
        with pytest.raises(TrainingStopped):
            rows_of(recipe, root, tmp_path / "cut", told.append, arms)
    with monkeypatch.context() as patch:  # the training of the first row is done, and not done again
        patch.setattr("torch.optim.Adam.step", cut)
        with pytest.raises(TrainingStopped):
            rows_of(recipe, root, tmp_path / "cut", told.append, arms)
    assert told[-1].startswith(WHOLE)
    again = rows_of(recipe, root, tmp_path / "cut", told.append, arms)
    assert [again[name].psnr for name in arms] == [rows[name].psnr for name in arms]


def test_mean_and_spread_are_over_seeds_and_the_loss_is_paired(recipe: Recipe, tmp_path: Path) -> None:
    whole = Row(steps_of(recipe, ARMS[WHOLE]), (27.0, 28.0, 29.0), (0.7, 0.8, 0.9), (1.0, 2.0, 3.0), (10.0, 20.0, 30.0))
    other = replace(whole, psnr=(26.9, 27.8, 28.9), spikes=())
    blocks = report({WHOLE: whole, "without": other}, Benchmark(tmp_path, limit=3), recipe, "bsd68", "command")
    (table,) = (block for block in blocks if isinstance(block, Table))
    first, second = (dict(zip(table.header, row, strict=True)) for row in table.rows)
    assert first["PSNR, dB"] == f"{fmean(whole.psnr):.2f} ± {stdev(whole.psnr):.2f}" == "28.00 ± 1.00"
    assert (first["by seed"], first["lost to the whole, dB"], first["s"]) == ("27.00, 28.00, 29.00", "", "10")
    assert first["steps"] == "3 ann + 2 quantised + 2 clocked"
    assert (second["lost to the whole, dB"], second["spikes per neuron"]) == ("+0.13 ± 0.06", "")
    assert spread((1.0,), 1) == "1.0"


def test_the_command(
    recipe: Recipe, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("SPIKINGIR_DATA", raising=False)
    monkeypatch.setattr("spikingir.training.recipe.load_recipe", lambda path: recipe)
    monkeypatch.setattr("reproduce.retrained.ARMS", {name: ARMS[name] for name in (WHOLE, list(ARMS)[-1])})
    monkeypatch.setattr("reproduce.retrained.retrain.__defaults__", ((WHOLE, list(ARMS)[-1]),))
    docs = tmp_path / "docs" / "retrained.md"
    docs.parent.mkdir()
    setting = ["--data-root", str(root), "--seeds", "1", "--limit", "2", "--crop", "16", "--out", str(tmp_path)]
    assert main(["retrain", *setting, "--docs", str(docs)], "reproduce.commands") == 0
    text = docs.read_text(encoding="utf-8")
    assert "`python -m reproduce retrain --data bsd68 --seeds 1 --limit 2 --crop 16 --data-root DATA`" in text
    assert "bsd68, at most 2 images, the middle 16 x 16 of each" in text
    capsys.readouterr()
    assert main(["retrain", "--out", str(tmp_path)], "reproduce.commands") == 2
    assert capsys.readouterr().err.count("\n") == 1
