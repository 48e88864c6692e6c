"""Fitting a run to the time at hand."""

import tempfile
import time
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

from torch import nn
from torch.utils.data import Dataset

from spikingir.training.config import FitConfig
from spikingir.training.fit import Pair, fit
from spikingir.training.machine import launch

_FEW, _MORE = 1, 4


def fit_to_time(
    network: nn.Module, pairs: Dataset[Pair], config: FitConfig, seconds: float, teacher: nn.Module | None = None
) -> FitConfig:
    """The same run with as many steps as this machine does in ``seconds``, at least one, by some steps on a copy.

    The learning rate follows the share of steps that is done, so the whole schedule is run, only in other time.

    Args:
        network: What is to be trained; it stays as it is.
        pairs: What on.
        config: The run.
        seconds: Time for it.
        teacher: The run's teacher.
    """
    fabric = launch()
    trial = replace(config, validate_every=config.steps + 1)
    with tempfile.TemporaryDirectory() as folder:

        def spend(run: str, steps: int) -> float:
            start = time.perf_counter()
            run_of = replace(trial, steps=steps)
            fit(deepcopy(network), pairs, run_of, Path(folder) / run, teacher=teacher, progress=False)
            return time.perf_counter() - start

        spend("compiling", _FEW)
        # what both runs share, as starting workers, drops out
        few, more = spend("few", _FEW), spend("more", _MORE)
    each = (more - few) / (_MORE - _FEW) if more > few else more / _MORE
    steps: int = fabric.broadcast(max(1, int(seconds / each)))
    return replace(config, steps=steps)
