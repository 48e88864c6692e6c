"""docs/architecture.md is true: its rooms are those of the house, and its walks go through the functions it names."""

import importlib
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from spikingir.cli import main
from spikingir.training import follow as following
from tests.test_house import ROOMS

PAGE = (Path(__file__).parents[1] / "docs/architecture.md").read_text(encoding="utf-8")
RECIPE = """
name = "tiny"
architecture = "dncnn"
options = { channels = 1, layers = 3, width = 2 }
noise = { folder = "clean", sigma = 30, held_back_every = 3 }

[[stages]]
name = "conventional"
kind = "ann"
publish = "ann"
patch = 12
fit = { steps = 1, batch_size = 2, precision = "float32" }

[[stages]]
name = "spiking"
kind = "snn"
start = "conventional"
publish = "snn"
time_steps = 2
patch = 12
fit = { steps = 1, batch_size = 2, precision = "float32" }
"""


def section(title: str) -> str:
    return PAGE.partition(f"\n## {title}")[2].partition("\n## ")[0]


def stops(walk: int) -> list[str]:
    return re.findall(r"^\d+\. `(spikingir[^`]+)`", section(f"Walk {walk}"), re.MULTILINE)


def resolved(name: str) -> Any:
    module, _, path = name.partition(":")
    found: Any = importlib.import_module(module)
    for part in path.split("."):
        found = getattr(found, part)
    return found


@contextmanager
def entered(names: list[str]) -> Iterator[list[str]]:
    """The functions of these names as they are entered within the block, each as often as it is."""
    codes: dict[CodeType, str] = {
        getattr(resolved(name), "__wrapped__", resolved(name)).__code__: name for name in names
    }
    order: list[str] = []

    def note(frame: FrameType, event: str, argument: object) -> None:
        name = codes.get(frame.f_code)
        if event == "call" and name is not None:
            order.append(name)

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        yield order
    finally:
        sys.setprofile(before)


def is_taken(walk: list[str], order: list[str]) -> bool:
    """Whether a walk is among what was entered, in its order."""
    calls = iter(order)
    return all(stop in calls for stop in walk)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    (tmp_path / "clean").mkdir()
    for i in range(4):
        pixels = np.random.default_rng(i).integers(0, 256, (16, 20), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "clean" / f"{i}.png")
    return tmp_path


def test_the_rooms_are_those_of_the_house_in_their_order() -> None:
    assert tuple(re.findall(r"^\d+\. `(\w+)`:", section("The rooms"), re.MULTILINE)) == ROOMS


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(spikingir[\w.]*:[\w.]+)`", PAGE))))
def test_a_name_on_the_page_exists(name: str) -> None:
    assert resolved(name) is not None


def test_the_walk_of_a_photograph(images: Path, tiny_model: Path) -> None:
    with entered(stops(1)) as order:
        photo = str(images / "clean/0.png")
        assert (
            main(["denoise", photo, "--model", str(tiny_model), "--engine", "torch", "-o", str(images / "a.png")]) == 0
        )
    assert is_taken(stops(1), order)


def test_the_walk_of_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code = re.search(r"```python\n(.*?)```", section("Walk 2"), re.DOTALL)
    assert code is not None
    with entered(stops(2)) as order:
        exec(compile(code[1], "docs/architecture.md", "exec"), {})
    assert is_taken(stops(2), order)


def test_the_walk_of_a_recipe(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "can_compile", lambda: False)
    (images / "tiny.toml").write_text(RECIPE)
    with entered(stops(3)) as order:
        arguments = ["--data-root", str(images), "--runs", str(images / "runs")]
        assert main(["train", str(images / "tiny.toml"), *arguments]) == 0
    assert is_taken(stops(3), order)


def test_a_walk_that_leaves_the_page_is_seen() -> None:
    name = "spikingir.tasks:find_task"
    find: Callable[[str], object] = resolved(name)
    with entered([name, "spikingir.zoo.catalogue:read_model"]) as order:
        find("denoise")
    assert order == [name]
    assert is_taken(["a", "c"], ["c", "a", "b", "c"])
    assert not is_taken(["a", "c"], ["c", "a", "b"])
