"""Recipes: data that says exactly what it does, and refuses what it does not know."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from spikingir.data.errors import DataError
from spikingir.restoration.catalogue import Model, Variant, choose_variant
from spikingir.store import from_pretrained, load_network
from spikingir.training import follow as following
from spikingir.training.config import FitConfig
from spikingir.training.finetune import finetuning
from spikingir.training.follow import follow
from spikingir.training.recipe import Haze, Noise, Recipe, RecipeError, load_recipe, recipe_names

BENCHMARKS = Path(__file__).parents[2] / "benchmarks" / "recipes"

TINY = """
name = "tiny"
architecture = "dncnn"
options = { channels = 1, layers = 3, width = 4, batch_norm = true }
noise = { folder = "clean", sigma = 25, held_back_every = 3 }

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
teacher = "ann"
time_steps = 5
patch = 12
fit = { steps = 3, batch_size = 2, distillation = 0.5, precision = "float32" }
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(text)
    return path


def folder_of_images(tmp_path: Path) -> Path:
    (tmp_path / "clean").mkdir()
    for i in range(4):
        pixels = np.random.default_rng(i).integers(0, 256, (16, 20), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "clean" / f"{i}.png")
    return tmp_path / "clean"


@pytest.mark.parametrize("name", recipe_names())
def test_shipped_recipes_load(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.stages


def test_a_recipe_is_followed_stage_by_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "can_compile", lambda: False)  # compiling three tiny networks would take minutes
    folder_of_images(tmp_path)
    recipe = load_recipe(write(tmp_path, TINY))
    said: list[str] = []
    with pytest.raises(RecipeError, match="needs qann, which has not been run"):
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
    other = load_recipe(write(tmp_path, TINY.replace("sigma = 25", "sigma = 50")))
    with pytest.raises(RecipeError, match=r"trained otherwise \(noise\.sigma: 25\.0 there, 50\.0 here\)"):
        follow(other, tmp_path, tmp_path / "run")


def test_a_quantised_network_is_saved_phased_whatever_its_stage_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "can_compile", lambda: False)
    folder_of_images(tmp_path)
    recipe = load_recipe(write(tmp_path, TINY))
    stages = tuple(replace(stage, schedule="clocked") for stage in recipe.stages)
    done = follow(replace(recipe, stages=stages), tmp_path, tmp_path / "run", stages=["ann", "qann"], progress=False)
    assert from_pretrained(done["qann"]).config.phased


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("sigma = 25", "sgima = 25", r"tiny\.toml\.noise: unknown key 'sgima'; did you mean 'sigma'"),
        ('kind = "ann"', 'kind = "cnn"', r"stages\[0\]\.kind: 'cnn' is none of ann, qann, snn"),
        ("patch = 12", 'patch = "12"', r"stages\[0\]\.patch: '12' is no int"),
        ("steps = 3", "steps = 0", r"stages\[0\]\.fit: steps is 0"),
        ('name = "tiny"', "name = ", "is not TOML"),
        ('architecture = "dncnn"', "", "architecture"),
        ("distillation = 0.5", "distillation = 2.0", r"distillation is 2\.0; expected a share"),
        ("distillation = 0.5", "distillation = 0.0", "a teacher and fit.distillation above 0 go together"),
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


def test_a_spiking_network_starts_from_random_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DnSNN: no conventional network before it."""
    monkeypatch.setattr(following, "can_compile", lambda: False)
    folder_of_images(tmp_path)
    head, _, _, snn = TINY.split("[[stages]]")
    alone = f'{head}[conversion]\nmethod = "dnsnn"\n[[stages]]{snn}'
    for given in ('start = "qann"\n', 'teacher = "ann"\n', ", distillation = 0.5"):
        alone = alone.replace(given, "")
    done = follow(load_recipe(write(tmp_path, alone)), tmp_path, tmp_path / "run", progress=False)
    network = from_pretrained(done["snn"])
    assert network.config.method == "dnsnn"
    assert network.config.recycling  # reads the output's membrane
    assert network.mapper is None
    quantised = alone.replace('kind = "snn"', 'kind = "qann"')
    with pytest.raises(RecipeError, match="a network of kind qann starts from another one; name it"):
        follow(load_recipe(write(tmp_path, quantised)), tmp_path, tmp_path / "none", progress=False)


@pytest.mark.parametrize("path", sorted(BENCHMARKS.glob("*.toml")), ids=lambda path: path.stem)
def test_the_baselines_recipes_load(path: Path) -> None:
    assert load_recipe(path).name == path.stem


def test_a_stage_starts_from_a_file_or_a_model_that_ships(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "can_compile", lambda: False)
    folder_of_images(tmp_path)
    ann = "\n".join(TINY.split("\n")[: TINY.split("\n").index('name = "qann"') - 1])
    follow(load_recipe(write(tmp_path, ann)), tmp_path, tmp_path / "run", progress=False)
    file = tmp_path / "run" / "ann" / "model.safetensors"
    again = ann.replace('kind = "ann"', f'kind = "ann"\nstart = "{file}"').replace("steps = 3", "steps = 1")
    done = follow(load_recipe(write(tmp_path, again)), tmp_path, tmp_path / "again", progress=False)
    before, after = load_network(file), load_network(done["ann"])
    assert all(torch.allclose(a, b, atol=0.1) for a, b in zip(before.parameters(), after.parameters(), strict=True))
    network = following.load_any(file)
    assert torch.equal(network(torch.ones(1, 1, 8, 8)), before(torch.ones(1, 1, 8, 8)))
    nothing = ann.replace('kind = "ann"', 'kind = "ann"\nstart = "denoise-gray-25/nothing"')
    with pytest.raises(RecipeError, match="needs 'denoise-gray-25/nothing', which is no stage"):
        follow(load_recipe(write(tmp_path, nothing)), tmp_path, tmp_path / "none", progress=False)


def test_minutes_fit_the_steps_and_a_resumed_run_keeps_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "can_compile", lambda: False)
    seconds: list[float] = []

    def fit_to_time(network: object, pairs: object, config: FitConfig, time: float, teacher: object) -> FitConfig:
        seconds.append(time)
        return replace(config, steps=2)

    monkeypatch.setattr(following, "fit_to_time", fit_to_time)
    folder_of_images(tmp_path)
    recipe = load_recipe(write(tmp_path, TINY))
    said: list[str] = []
    follow(recipe, tmp_path, tmp_path / "run", minutes=1, progress=False, announce=said.append)
    assert sum(seconds) == pytest.approx(60)
    assert seconds[2] == pytest.approx(6 * seconds[1])  # a clocked network of five steps and one makes six passes
    assert said[0] == "tiny/ann: 2 steps"
    (tmp_path / "run" / "ann" / "model.safetensors").unlink()
    follow(recipe, tmp_path, tmp_path / "run", stages=["ann"], minutes=9, progress=False)
    assert len(seconds) == 3


def test_fine_tuning_is_a_recipe_of_one_stage(tmp_path: Path) -> None:
    variant = Variant("snn.safetensors", "clocked", 10)
    model = Model(tmp_path, "mine", "denoise", 1, (variant,), variant.file, sigma=15)
    chosen = choose_variant(model, time_steps=6)

    def recipe(model: Model, sigma: float | None = None) -> Recipe:
        return finetuning(model, chosen, tmp_path, sigma=sigma, steps=9, learning_rate=1e-4, batch_size=2, patch=12)

    made = recipe(model)
    assert made.name == "mine-finetuned"
    assert made.noise == Noise(str(tmp_path), 15)
    assert (made.stages[0].start, made.stages[0].time_steps) == (str(tmp_path / "snn.safetensors"), 6)
    assert recipe(model, 30).noise == Noise(str(tmp_path), 30)
    assert recipe(replace(model, task="dehaze", channels=3)).haze == Haze(str(tmp_path))
    with pytest.raises(RecipeError, match="give --sigma"):
        recipe(replace(model, sigma=None))
    with pytest.raises(RecipeError, match="gray ones alone"):
        recipe(replace(model, channels=3))
