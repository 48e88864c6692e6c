"""Recipes: data that says exactly what it does, and refuses what it does not know."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from spikingir.data.errors import DataError
from spikingir.networks.registry import load_network
from spikingir.spiking.storage import from_pretrained
from spikingir.training import recipe as recipes
from spikingir.training.recipe import RecipeError, follow, load_recipe, recipe_names

TINY = """
name = "tiny"
architecture = "dncnn"
options = { channels = 1, layers = 3, width = 4, batch_norm = true }
data = { folder = "clean", sigma = 25, held_back_every = 3 }

[[stages]]
name = "ann"
kind = "ann"
patch = 12
fit = { steps = 3, batch_size = 2, precision = "float32" }

[[stages]]
name = "qann"
kind = "qann"
start = "ann"
time_steps = 4
schedule = "phased"
patch = 12
fit = { steps = 3, batch_size = 2, precision = "float32" }

[[stages]]
name = "snn"
kind = "snn"
start = "qann"
time_steps = 5
patch = 12
fit = { steps = 3, batch_size = 2, precision = "float32" }
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", recipe_names())
def test_shipped_recipes_load(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.stages


def test_a_recipe_is_followed_stage_by_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipes, "_can_compile", lambda: False)  # compiling three tiny networks would take minutes
    (tmp_path / "clean").mkdir()
    for i in range(4):
        pixels = np.random.default_rng(i).integers(0, 256, (16, 20), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "clean" / f"{i}.png")
    recipe = load_recipe(write(tmp_path, TINY))
    said: list[str] = []
    with pytest.raises(RecipeError, match="starts from qann, which has not been run"):
        follow(recipe, tmp_path, tmp_path / "run", stages=["snn"], progress=False)
    done = follow(recipe, tmp_path, tmp_path / "run", progress=False, announce=said.append)
    assert list(done) == ["ann", "qann", "snn"]
    assert len(said) == 6
    snn = from_pretrained(done["snn"])
    assert (snn.config.time_steps, snn.config.schedule) == (5, "clocked")
    assert from_pretrained(done["qann"]).config.phased
    assert load_network(done["ann"])(torch.rand(1, 1, 8, 8)).shape == (1, 1, 8, 8)
    before = done["snn"].read_bytes()
    assert follow(recipe, tmp_path, tmp_path / "run", progress=False) == done
    assert done["snn"].read_bytes() == before
    with pytest.raises(RecipeError, match="no stage 'sn'"):
        follow(recipe, tmp_path, tmp_path / "run", stages=["sn"])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("sigma = 25", "sgima = 25", r"tiny\.toml\.data: unknown key 'sgima'; did you mean 'sigma'"),
        ('kind = "ann"', 'kind = "cnn"', r"stages\[0\]\.kind: 'cnn' is none of ann, qann, snn"),
        ("patch = 12", 'patch = "12"', r"stages\[0\]\.patch: '12' is no int"),
        ("steps = 3", "steps = 0", r"stages\[0\]\.fit: steps is 0"),
        ('name = "tiny"', "name = ", "is not TOML"),
        ('architecture = "dncnn"', "", "architecture"),
        ("sigma = 25", "zzz = 25", "known keys: folder, sigma"),
    ],
)
def test_what_it_does_not_know_is_refused(old: str, new: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe(write(tmp_path, TINY.replace(old, new)))


def test_missing_recipe_and_data(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"no recipe 'nothing'.*denoise-gray-25"):
        load_recipe("nothing")
    recipe = load_recipe(write(tmp_path, TINY))
    with pytest.raises(DataError, match="clean"):
        follow(recipe, tmp_path, tmp_path / "run")
