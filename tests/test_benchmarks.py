"""The arithmetic of benchmarks/timing.py, memory, and candidates; what is timed is checked before it is timed, too."""

import itertools
import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.timing import Spread, fastest, ratio, take_turns
from benchmarks.told import best
from spikingir.data.testsets import TestPair


def test_spread() -> None:
    assert Spread.of([3.0, 1.0, 2.0]) == Spread(2, 1, 3)
    assert Spread.of(iter([1.0, 4.0])) == Spread(2.5, 1, 4)
    assert Spread(2, 1, 3).show(1) == "2.0 (1.0 to 3.0)"
    with pytest.raises(ValueError, match="one round"):
        Spread.of([])


def test_candidates_take_turns_and_the_first_round_does_not_count() -> None:
    ran: list[str] = []
    ticks = itertools.count()
    runs = {name: lambda name=name: ran.append(name) for name in "abc"}
    seconds = take_turns(runs, 3, clock=lambda: next(ticks))
    assert "".join(ran) == "abc" + "cba" + "abc" + "cba"
    assert seconds == {name: [1, 1, 1] for name in "abc"}
    assert list(take_turns(runs, 1, uncounted=0, clock=lambda: next(ticks)).values()) == [[1]] * 3
    with pytest.raises(ValueError, match="at least 1"):
        take_turns(runs, 0)


def test_ratios_are_of_one_round_each() -> None:
    seconds = {"slow": [2.0, 40.0, 8.0], "fast": [1.0, 20.0, 2.0]}  # the machine was busy in the second round
    assert ratio(seconds, "slow", "fast") == Spread(2, 2, 4)
    assert ratio(seconds, "fast", "fast") == Spread(1, 1, 1)
    assert fastest(seconds, ["slow", "fast"]) == "fast"
    with pytest.raises(ValueError, match="shorter"):
        ratio({"a": [1.0], "b": [1.0, 2.0]}, "b", "a")


@pytest.mark.parametrize(
    ("blocks", "top_residual", "batch_norm"), [((1, 2), True, False), ((0, 1, 1), False, True), ((1, 1), False, True)]
)
def test_onnxruntime_runs_the_same_network_in_float_and_nearly_the_same_in_8_bits(
    blocks: tuple[int, ...], top_residual: bool, batch_norm: bool
) -> None:
    pytest.importorskip("onnxruntime")
    from benchmarks.int8 import float_twin, int8_twin
    from spikingir.inputs import with_level
    from spikingir.networks.multiscale import MultiScaleNet

    generator = torch.Generator().manual_seed(0)
    network = MultiScaleNet(1, 6, blocks, "level", top_residual, batch_norm).eval()
    network.reset_parameters(generator)
    for parameter in network.parameters():
        parameter.data.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    image = with_level(torch.rand(1, 1, 24, 32, generator=generator), 0.1)
    with torch.inference_mode():
        expected = network(image)
        removed = (expected - image[:, :1]).abs().max()
        assert (float_twin(network, 1)(image) - expected).abs().max() < 1e-5 * max(1, removed)
        difference = (int8_twin(network, [image], 1)(image) - expected).abs().max()
    assert 0 < difference < 0.1 * removed


def test_memory_is_that_of_the_process_alone() -> None:
    """A child of a large process is not large, as it would be by the operating system's other account."""
    from benchmarks.resident import resident_peak

    large = bytearray(300_000_000)
    large[::4096] = bytes(len(large[::4096])).replace(b"\0", b"x")
    assert resident_peak() > 300
    code = "from benchmarks.resident import resident_peak; print(resident_peak())"
    root = Path(__file__).resolve().parents[1]
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert 1 < float(child.stdout) < 250


def test_whole_photographs_are_restored_by_each_candidate(tmp_path: Path) -> None:
    from benchmarks import photographs

    picture = photographs.photograph(0.012)
    assert picture.shape == (95, 127, 3)
    assert len(np.unique(picture)) > 100
    path = tmp_path / "photograph.npy"
    np.save(path, picture)
    for name in photographs.CANDIDATES:
        if name == photographs.MEANS and find_spec("cv2") is None:
            continue
        took = photographs._measure(json.dumps({"name": name, "photograph": str(path), "threads": 1}))
        assert took.seconds > 0
        assert took.total >= took.added >= 0


def test_the_level_that_a_network_is_told_is_the_best_of_those_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    def told(image: torch.Tensor, sigma: float = 4) -> torch.Tensor:
        return image - sigma / 255

    monkeypatch.setattr("benchmarks.told.LEVELS", (1, 3, 8))
    clean = torch.full((3, 16, 16), 0.5)
    blind_psnr, told_psnr, level = best(told, told, TestPair("one", clean + 2.9 / 255, clean))  # type: ignore[arg-type]
    assert level == 3
    assert told_psnr > blind_psnr
