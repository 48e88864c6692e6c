"""How a training run goes, as data."""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from spikingir.schema import Range, SchemaError, require_valid

_Rate = Annotated[float, Range(0, 10)]
_Count = Annotated[int, Range(1, 65536)]
_Steps = Annotated[int, Range(1, 10**9)]
_Share = Annotated[float, Range(0, 1)]


@dataclass(frozen=True)
class FitConfig:
    """How one training run goes.

    Attributes:
        steps: Optimiser steps of the whole run; 0 leaves the network as it starts.
        batch_size: Pairs per process and micro-step.
        learning_rate: Peak rate of Adam for weights and biases.
        muon_rate: Peak rate of Muon for the kernels between hidden features; Adam has them too where it is 0.
        threshold_rate: Thresholds and betas learn this many times faster (docs/method.md, section 4).
        accumulate: Micro-steps whose gradients make one step.
        warmup: Share of the steps over which the rate rises to its peak; it then falls along a cosine
            (0.02: plain cosine; 0.3: one-cycle).
        objective: ``mse``, or, for a network with a level input, ``level``: the squared error over
            ``255 sigma + 5``, so that high noise levels do not drown low ones; or ``charbonnier``:
            ``sqrt(e^2 + epsilon^2)`` of the error ``e``, both in levels of 255, which single large errors do not rule.
        epsilon: Error below which ``charbonnier`` is nearly quadratic, in levels of 255; 1 unless given.
        distillation: Share of the teacher's image in the target, beside the clean image; needs a teacher.
        energy: Weight in the loss of synaptic operations for each multiply-accumulate of the ANN; of an SNN, or of an
            ANN that is quantised for a binary one.
        clip_norm: Bound on the norm of the gradient of what Adam trains; 0 for none. Muon's steps need none.
        ema: Decay of the moving average of the weights, which is what is validated and kept.
        frozen_norms: Whether batch norms keep their statistics, so that the network is trained as it will run. For a
            last stage: the statistics of a batch add more noise then than there is left to learn.
        precision: ``auto`` measures on this machine whether bfloat16 convolutions are the faster ones.
        seed: Seed of the weights' initialisation and of the data.
        checkpoint_minutes: Time between checkpoints.
        validate_every: Steps between validations.
        log_every: Steps between lines of the log.
    """

    steps: Annotated[int, Range(0, 10**9)]
    batch_size: _Count = 16
    learning_rate: Annotated[float, Range(0, 10, open_least=True)] = 1e-3
    muon_rate: _Rate = 0.0
    threshold_rate: Annotated[float, Range(0, 1000)] = 5.0
    accumulate: _Count = 1
    warmup: _Share = 0.02
    objective: Literal["mse", "level", "charbonnier"] = "mse"
    epsilon: Annotated[float, Range(0, 255, open_least=True)] | None = None
    distillation: _Share = 0.0
    energy: Annotated[float, Range(0, 1000)] = 0.0
    clip_norm: Annotated[float, Range(0, 1e6)] = 0.5
    ema: _Share = 0.999
    frozen_norms: bool = False
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    seed: Annotated[int, Range(0, 2**62)] = 0
    checkpoint_minutes: Annotated[float, Range(0, 1e6)] = 5.0
    validate_every: _Steps = 500
    log_every: _Steps = 50

    def __post_init__(self) -> None:
        require_valid(self)
        if self.epsilon is not None and self.objective != "charbonnier":
            raise SchemaError(f"epsilon is {self.epsilon}; it goes with the objective charbonnier alone")


def rate_at(config: FitConfig, step: int) -> float:
    """Share of the peak learning rate at ``step``: linear rise over the warm-up, cosine fall to 1 %."""
    rise = max(1, round(config.warmup * config.steps))
    if step < rise:
        return (step + 1) / rise
    progress = (step - rise) / max(1, config.steps - rise)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress))
