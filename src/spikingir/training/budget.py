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

_WARM_UP, _MEASURED = 2, 4


def fit_to_time(network: nn.Module, pairs: Dataset[Pair], config: FitConfig, seconds: float) -> FitConfig:
    """The same run with as many steps as this machine does in ``seconds``, at least one, by some steps on a copy.

    The learning rate follows the share of steps that is done, so the whole schedule is run, only in other time.

    Args:
        network: What is to be trained; it stays as it is.
        pairs: What on.
        config: The run.
        seconds: Time for it.
    """
    fabric = launch()
    trial = replace(config, validate_every=config.steps + 1)
    spent = {}
    with tempfile.TemporaryDirectory() as folder:
        for few in (_WARM_UP, _WARM_UP + _MEASURED):
            start = time.perf_counter()
            fit(deepcopy(network), pairs, replace(trial, steps=few), Path(folder) / str(few), progress=False)
            spent[few] = time.perf_counter() - start
    # what both runs share (compiling, starting workers) drops out
    each = max((spent[_WARM_UP + _MEASURED] - spent[_WARM_UP]) / _MEASURED, 1e-6)
    steps: int = fabric.broadcast(max(1, int(seconds / each)))
    return replace(config, steps=steps)
