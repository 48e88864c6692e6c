"""The noise of photographs is estimated, and the denoiser for it found."""

from collections.abc import Callable
from importlib import import_module
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray

from spikingir.restoration import sigma as module
from spikingir.restoration.catalogue import ModelError
from spikingir.restoration.sigma import estimate_sigma, nearest_denoiser


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


@pytest.mark.parametrize(("level", "name"), [(0, "g15"), (19, "g15"), (21, "g25"), (90, "g50")])
def test_nearest_denoiser(level: float, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def model(name: str) -> SimpleNamespace:
        task, channels = ("dehaze", 3) if name == "dehaze" else ("denoise", 3 if name[0] == "c" else 1)
        return SimpleNamespace(name=name, task=task, channels=channels, sigma=float(name[1:]) if channels == 1 else 20)

    monkeypatch.setattr(module, "read_shipped", model)
    monkeypatch.setattr(module, "model_names", lambda: ["dehaze", "c20", "g50", "g15", "g25"])
    assert nearest_denoiser(level) == name
    monkeypatch.setattr(module, "model_names", lambda: ["dehaze"])
    with pytest.raises(ModelError, match="no denoiser ships"):
        nearest_denoiser(level)
