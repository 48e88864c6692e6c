"""What the baselines are trained by and measured from is there and loads."""

from pathlib import Path

import pytest
import torch

from reproduce import WEIGHTS
from reproduce.benchmark import Benchmark
from reproduce.contenders import METHODS
from spikingir.training.recipe import load_recipe

RECIPES = sorted((WEIGHTS.parent / "recipes").glob("*.toml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipes_load(path: Path) -> None:
    assert load_recipe(path).name == path.stem


@pytest.mark.parametrize("path", sorted(WEIGHTS.glob("*/*.safetensors")), ids=lambda path: path.stem)
def test_weights_are_found_and_restore(path: Path, tmp_path: Path) -> None:
    subject = Benchmark(tmp_path).subject(path.parent.name)
    restored = METHODS[path.stem].make(subject, 2 if METHODS[path.stem].spiking else None)
    assert restored(torch.rand(subject.channels, 16, 16)).image.shape == (subject.channels, 16, 16)
