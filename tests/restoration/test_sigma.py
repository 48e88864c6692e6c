"""The noise of photographs is estimated, and the model for it found."""

from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from spikingir.restoration import sigma as module
from spikingir.restoration.sigma import estimate_sigma, has_colours, model_for
from spikingir.tasks import DENOISE, TASKS
from spikingir.zoo.catalogue import Model, ModelError


def noise(level: float, channels: int = 1, size: int = 128) -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(0, level / 255, (size, size, channels)).astype(np.float32)


def in_file(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """What 8 bits leave of it."""
    return (np.rint(pixels.clip(0, 1) * 255) / 255).astype(np.float32)


@pytest.mark.parametrize("level", [2, 5, 15, 25, 50])
@pytest.mark.parametrize("channels", [1, 3])
def test_white_noise_is_measured(level: float, channels: int) -> None:
    assert estimate_sigma(0.5 + noise(level, channels)) == pytest.approx(level, rel=0.03)


@pytest.mark.parametrize("level", [15, 25, 50])
@pytest.mark.parametrize("name", ["astronaut", "camera", "chelsea", "coffee", "rocket"])
def test_photographs(name: str, level: float) -> None:
    picture = getattr(import_module("skimage.data"), name)()[100:228, 100:228]
    pixels = (picture.reshape(128, 128, -1) / 255).astype(np.float32)
    estimate = estimate_sigma(in_file(pixels + noise(level, pixels.shape[2])))
    assert estimate == pytest.approx(level, abs=4)


@pytest.mark.parametrize(
    "change",
    [
        lambda pixels: pixels + np.linspace(-0.2, 0.2, 128, dtype=np.float32)[:, None, None],
        lambda pixels: pixels[::-1],
        lambda pixels: pixels.swapaxes(0, 1),
        lambda pixels: 1 - pixels,
    ],
)
def test_what_is_no_noise_does_not_count(change: Callable[[NDArray[np.float32]], NDArray[np.float32]]) -> None:
    pixels = 0.5 + noise(20)
    assert estimate_sigma(change(pixels)) == pytest.approx(estimate_sigma(pixels), rel=1e-3)


def test_noise_that_black_clips_does_not_count() -> None:
    pixels = 0.5 + noise(20)
    pixels[:100] -= 0.5
    assert estimate_sigma(in_file(pixels)) == pytest.approx(20, rel=0.1)


@pytest.mark.parametrize("shape", [(1, 1, 3), (2, 50, 1)])
def test_nothing_can_be_told_of_a_few_pixels(shape: tuple[int, ...]) -> None:
    assert estimate_sigma(np.ones(shape, np.float32)) == 0


SIX = ("dehaze", "c20", "g50", "g15", "g25", "photo")
LEVELS: dict[str, tuple[int, tuple[float, float]]] = {"color": (3, (0, 75)), "gray": (1, (0, 75)), "toy": (3, (0, 9))}


def shipped(name: str) -> Model:
    """Models by name: of three tasks; for one level, for a range of levels, and for none."""
    channels, sigma = LEVELS.get(name) or (1 if name[0] == "g" else 3, float(name[1:]) if name[1:].isdigit() else None)
    task = {"dehaze": "dehaze", "toy": "toy"}.get(name, "denoise")
    return Model(Path(), name, task, channels, (), "", sigma=sigma, takes_level=name in LEVELS)


@pytest.mark.parametrize(
    ("names", "level", "colour", "found"),
    [
        (SIX, 0, False, "g15"),
        (SIX, 19, True, "g15"),  # c20 is not told the level, and gray networks restore colours too
        (SIX, 21, False, "g25"),
        (SIX, 90, True, "g50"),
        ((*SIX, "color", "gray"), 25, True, "color"),
        ((*SIX, "color", "gray"), 25, False, "gray"),
        ((*SIX, "color", "toy"), 25, False, "g25"),
        ((*SIX, "gray"), 25, True, "gray"),
    ],
)
def test_the_model_for_a_level(
    names: tuple[str, ...], level: float, colour: bool, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TASKS, "toy", replace(DENOISE, name="toy"))
    monkeypatch.setattr(module, "read_shipped", shipped)
    monkeypatch.setattr(module, "model_names", lambda: sorted(names))
    assert model_for(level, colour=colour).name == found
    monkeypatch.setattr(module, "model_names", lambda: ["color", "toy"])
    assert model_for(level, "toy", colour=True).name == "toy"
    monkeypatch.setattr(module, "model_names", lambda: ["dehaze", "photo"])
    with pytest.raises(ModelError, match="no model ships to denoise at a noise level"):
        model_for(level)


def test_three_equal_channels_are_gray() -> None:
    gray = np.broadcast_to(noise(20), (128, 128, 3))
    colour = gray.copy()
    colour[5, 7, 2] += 0.1
    assert [has_colours(pixels) for pixels in (noise(20), gray, colour)] == [False, False, True]
