"""A recipe's runs become a model's folder."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from PIL import Image

from spikingir.data.errors import DataError
from spikingir.deploy.fold import fold
from spikingir.restoration.restorer import Restorer
from spikingir.spiking.network import SpikingNetwork
from spikingir.store import load_any
from spikingir.training import follow as following
from spikingir.training import publish as publishing
from spikingir.training.publish import publish, training_record
from spikingir.training.recipe import Recipe, RecipeError, load_recipe
from spikingir.zoo.card import record_test
from spikingir.zoo.measured import TestRow
from spikingir.zoo.pretrained import load_ann, load_spiking

RECIPE = """
name = "tiny"
architecture = "dncnn"
options = { channels = 1, layers = 3, width = 4, batch_norm = true }
noise = { folder = "clean", sigma = 30, held_back_every = 3 }
licence = "MIT"

[[stages]]
name = "conventional"
kind = "ann"
publish = "ann"
patch = 12
fit = { steps = 3, batch_size = 2, precision = "float32" }

[[stages]]
name = "on-the-way"
kind = "snn"
start = "conventional"
time_steps = 3
patch = 12
fit = { steps = 1, batch_size = 2, precision = "float32" }

[[stages]]
name = "clocked"
kind = "snn"
start = "on-the-way"
publish = "snn"
time_steps = 5
patch = 12
fit = { steps = 1, batch_size = 2, precision = "float32" }

[[stages]]
name = "phased"
kind = "snn"
start = "conventional"
publish = "snn-phased-t4"
time_steps = 4
schedule = "phased"
patch = 12
fit = { steps = 1, batch_size = 2, precision = "float32" }
"""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    monkeypatch.setattr(following, "can_compile", lambda: False)
    (tmp_path / "clean").mkdir()
    for i in range(4):
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (16, 20), np.uint8)).save(
            tmp_path / "clean" / f"{i}.png"
        )
    path = tmp_path / "tiny.toml"
    path.write_text(RECIPE)
    return load_recipe(path)


def test_a_model_is_published(recipe: Recipe, tmp_path: Path) -> None:
    done = following.follow(recipe, tmp_path, tmp_path / "run", progress=False)
    model = publish(recipe, done, tmp_path / "model", tmp_path)
    assert (model.name, model.task, model.channels, model.sigma, model.licence) == ("tiny", "denoise", 1, 30, "MIT")
    assert [(v.file, v.schedule, v.time_steps) for v in model.variants] == [
        ("snn.safetensors", "clocked", 5),
        ("snn-phased-t4.safetensors", "phased", 4),
    ]
    assert model.default == "snn.safetensors"
    assert {path.stem for path in model.folder.iterdir()} == {
        "ann",
        "snn",
        "snn-phased-t4",
        "config",
        "training",
        "README",
    }
    chosen = load_spiking(model.folder, schedule="phased")
    trained = following.load_any(done["phased"])
    for name, tensor in chosen.network.state_dict().items():
        assert torch.equal(tensor, trained.state_dict()[name])
    assert load_ann(model) is not None
    assert Restorer.from_pretrained(model.folder)(np.zeros((16, 16))).shape == (16, 16)
    card = (model.folder / "README.md").read_text()
    for said in (
        "Gaussian noise in gray images, sigma 30 of 255",
        "2 of 12x12",
        "T = 5, clocked",
        "One image in 3",
        "MIT",
    ):
        assert said in card
    assert "not run yet" not in card
    row = TestRow("bsd68", 68, "snn.safetensors", "T = 5", "abc", "2026-11-26", psnr=28)
    record_test(model, row)
    assert "| bsd68 |" in (model.folder / "README.md").read_text()
    publish(recipe, {name: path for name, path in done.items() if name != "phased"}, tmp_path / "model", tmp_path)
    card = (model.folder / "README.md").read_text()
    assert "| phased |  |  | not run yet" in card
    assert "bsd68" not in card  # it was measured of other weights
    assert not (model.folder / "tests.json").exists()


@pytest.mark.parametrize("kind", ["snn", "qann"])
def test_weights_are_rounded_in_what_is_published(kind: Literal["snn", "qann"], recipe: Recipe, tmp_path: Path) -> None:
    binary: dict[str, Any] = {"kind": kind, "coding": "binary", "weight_bits": 8}
    stages = tuple(replace(s, **binary) if s.name == "phased" else s for s in recipe.stages)
    recipe = replace(recipe, stages=stages)
    done = following.follow(recipe, tmp_path, tmp_path / "run", stages=["conventional", "phased"], progress=False)
    model = publish(recipe, done, tmp_path / "model", tmp_path)
    trained, published = load_any(done["phased"]), load_spiking(model.folder).network
    assert isinstance(trained, SpikingNetwork)
    image = torch.rand(1, 1, 16, 20)
    assert torch.equal(fold(published)(image), fold(published, weight_bits=8)(image))
    assert not torch.equal(fold(trained)(image), fold(trained, weight_bits=8)(image))
    assert "binary (4 bits), weights of 8 bits" in (model.folder / "README.md").read_text()
    other = replace(recipe, stages=tuple(replace(s, weight_bits=None) for s in stages))
    following.follow(other, tmp_path, tmp_path / "run", stages=["phased"], progress=False)  # the same training
    with pytest.raises(DataError):
        publish(recipe, done, tmp_path / "model", tmp_path / "elsewhere")


def test_a_model_for_a_range_of_noise_names_both_ends(recipe: Recipe, tmp_path: Path) -> None:
    done = following.follow(recipe, tmp_path, tmp_path / "run", stages=["conventional", "phased"], progress=False)
    assert recipe.noise is not None
    ranged = replace(recipe, noise=replace(recipe.noise, sigma=(10.0, 30.0)))
    model = publish(ranged, done, tmp_path / "model", tmp_path)
    assert (model.sigma, model.fixed_sigma, model.takes_level) == ((10, 30), None, False)
    assert json.loads((model.folder / "config.json").read_text())["sigma"] == [10, 30]
    card = (model.folder / "README.md").read_text()
    assert "Gaussian noise in gray images, sigma 10 to 30 of 255. " in card
    assert "sigma 10 to 30" in card


def test_training_goes_on_elsewhere_from_a_model_that_ships(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = following.follow(recipe, tmp_path, tmp_path / "run", progress=False)
    shipped = publish(recipe, done, tmp_path / "models" / "tiny", tmp_path)
    elsewhere = tmp_path / "elsewhere" / "conventional" / "model.safetensors"
    elsewhere.parent.mkdir(parents=True)
    elsewhere.write_bytes((shipped.folder / "ann.safetensors").read_bytes())
    with pytest.raises(RecipeError, match="stage conventional has weights, but no"):
        training_record(recipe, {"conventional": elsewhere})
    monkeypatch.setattr(publishing, "SHIPPED", tmp_path / "models")
    whole = training_record(recipe, done)
    assert training_record(recipe, {"conventional": elsewhere}) == {"conventional": whole["conventional"]}
    assert training_record(recipe, {"phased": done["phased"]}) == {
        name: whole[name] for name in ("conventional", "phased")
    }
    taught = [
        replace(s, start=None, teacher="conventional", fit=replace(s.fit, distillation=0.5))
        if s.name == "phased"
        else s
        for s in recipe.stages
    ]
    known = training_record(replace(recipe, stages=tuple(taught)), {"phased": done["phased"]})
    assert list(known) == ["conventional", "phased"]


def test_a_card_shows_how_training_rose(recipe: Recipe, tmp_path: Path) -> None:
    risen = [replace(s, fit=replace(s.fit, steps=3, validate_every=1)) if s.kind == "ann" else s for s in recipe.stages]
    recipe = replace(recipe, stages=tuple(risen))
    done = following.follow(recipe, tmp_path, tmp_path / "run", stages=["conventional", "phased"], progress=False)
    model = publish(recipe, done, tmp_path / "model", tmp_path)
    curve = json.loads((model.folder / "training.json").read_text())["conventional"]["curve"]
    assert [step for step, _ in curve] == [1, 2, 3]
    assert f"- conventional: {', '.join(f'{psnr:.2f} ({step})' for step, psnr in curve)}\n" in card_text(model.folder)
    assert "- phased" not in card_text(model.folder)  # one value is no curve


def card_text(folder: Path) -> str:
    return (folder / "README.md").read_text()


def test_without_a_spiking_network_there_is_no_model(recipe: Recipe, tmp_path: Path) -> None:
    done = following.follow(recipe, tmp_path, tmp_path / "run", stages=["conventional"], progress=False)
    with pytest.raises(RecipeError, match="no spiking network to publish"):
        publish(recipe, done, tmp_path / "model", tmp_path)
    assert not (tmp_path / "model").exists()
