"""Training by several processes: the same curve as one process with their batches together."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import sys
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset

from spikingir.networks.dncnn import DnCNN
from spikingir.training.config import FitConfig
from spikingir.training.fit import TrainingStopped, fit


class Pairs(Dataset[tuple[Tensor, Tensor]]):
    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(index)
        clean = torch.rand(1, 1, 1, generator=generator).expand(1, 12, 12).clone()
        noisy = clean + 0.1 * torch.randn(1, 12, 12, generator=generator)
        return noisy * (float("nan") if index == poison else 1), clean


directory, batch, accumulate, poison = Path(sys.argv[1]), *map(int, sys.argv[2:])
torch.manual_seed(0)
network = DnCNN(layers=4, width=8)
config = FitConfig(
    steps=12, batch_size=batch, accumulate=accumulate, learning_rate=3e-3, muon_rate=0.01, precision="float32",
    log_every=1, validate_every=6,
)
try:
    fit(network, Pairs(), config, directory, [Pairs()[9999]], progress=False)
except TrainingStopped as error:
    sys.exit(f"stopped: {error}")
"""


def run(directory: Path, *, processes: int = 1, batch: int, accumulate: int = 1, poison: int = -1) -> str:
    script = directory.parent / "script.py"
    script.write_text(SCRIPT)
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"] if processes > 1 else []
    done = subprocess.run(
        [sys.executable, *launcher, script, directory, str(batch), str(accumulate), str(poison)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    return done.stderr


def curve(directory: Path) -> list[list[float]]:
    entries = [json.loads(line) for line in (directory / "log.jsonl").read_text().splitlines()]
    return [[entry["loss"], entry.get("psnr", 0.0)] for entry in entries if "loss" in entry]


@pytest.mark.parametrize(("processes", "accumulate"), [(2, 1), (1, 2)])
def test_batches_may_be_parted(tmp_path: Path, processes: int, accumulate: int) -> None:
    run(tmp_path / "whole", batch=4)
    run(tmp_path / "parts", processes=processes, accumulate=accumulate, batch=2)
    whole, parts = curve(tmp_path / "whole"), curve(tmp_path / "parts")
    assert len(whole) == 12
    for one, other in zip(whole, parts, strict=True):
        assert other == pytest.approx(one, rel=1e-4)
    assert whole[-1][0] < whole[0][0]


def test_all_processes_stop_at_one_that_is_not_finite(tmp_path: Path) -> None:
    said = run(tmp_path / "run", processes=2, batch=2, poison=11)  # the second process's, in the third step
    assert said.count("stopped: the loss is") == 2
    assert len(curve(tmp_path / "run")) == 2
