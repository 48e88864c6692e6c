"""The training loop: one for ANN, quantised ANN and SNN.

A module from degraded to restored image, an indexed set of pairs, a configuration. Sample ``i`` of the set is a
function of ``i`` alone and the learning rate a function of the step, so that the whole state is: weights, their
moving average, the optimiser's moments and the step. What is interrupted resumes to the same result.
"""

import json
import math
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, Dataset
from torchmetrics.functional.image import peak_signal_noise_ratio

from spikingir.training.checkpoints import load_checkpoint, save_checkpoint
from spikingir.training.muon import Muon, takes_muon

try:
    from lightning_fabric import Fabric
except ImportError:  # the same code, as the `lightning` bundle ships it
    from lightning.fabric import Fabric  # type: ignore[import-not-found,no-redef]

Pair = tuple[Tensor, Tensor]


class TrainingStopped(RuntimeError):
    """Training ended before its last step; the last good checkpoint is kept."""


@dataclass(frozen=True)
class FitConfig:
    """How one training run goes.

    Attributes:
        steps: Optimiser steps of the whole run.
        batch_size: Pairs per step.
        learning_rate: Peak rate of Adam for weights and biases.
        muon_rate: Peak rate of Muon for the kernels between hidden features; Adam has them too where it is 0.
        threshold_rate: Thresholds and betas learn this many times faster (METHOD section 4).
        warmup: Share of the steps over which the rate rises to its peak; it then falls along a cosine
            (0.02: plain cosine; 0.3: one-cycle).
        clip_norm: Bound on the norm of the whole gradient; 0 for none.
        ema: Decay of the moving average of the weights, which is what is validated and kept.
        precision: ``auto`` measures on this machine whether bfloat16 convolutions are the faster ones.
        seed: Seed of the weights' initialisation and of the data.
        checkpoint_minutes: Time between checkpoints.
        validate_every: Steps between validations.
        log_every: Steps between lines of the log.
    """

    steps: int
    batch_size: int = 16
    learning_rate: float = 1e-3
    muon_rate: float = 0.0
    threshold_rate: float = 5.0
    warmup: float = 0.02
    clip_norm: float = 0.5
    ema: float = 0.999
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    seed: int = 0
    checkpoint_minutes: float = 5.0
    validate_every: int = 500
    log_every: int = 50

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch_size < 1:
            raise ValueError(f"steps is {self.steps}, batch_size {self.batch_size}; both must be at least 1")


@dataclass(frozen=True)
class FitResult:
    """What a finished run leaves: steps done, seconds spent, last validation PSNR in dB (NaN without one)."""

    steps: int
    seconds: float
    psnr: float


def rate_at(config: FitConfig, step: int) -> float:
    """Share of the peak learning rate at ``step``: linear rise over the warm-up, cosine fall to 1 %."""
    rise = max(1, round(config.warmup * config.steps))
    if step < rise:
        return (step + 1) / rise
    progress = (step - rise) / max(1, config.steps - rise)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress))


def fit(
    network: nn.Module,
    pairs: Dataset[Pair],
    config: FitConfig,
    directory: Path,
    held_back: Sequence[Pair] = (),
    *,
    progress: bool = True,
) -> FitResult:
    """Train ``network`` in place to map degraded images to clean ones; at the end it holds the averaged weights.

    The loss is the mean squared error of the restored image. ``directory`` receives ``checkpoint.pt`` and
    ``log.jsonl``; where it holds a checkpoint of the same configuration, training goes on from it.

    Args:
        network: Degraded image to restored image.
        pairs: Item ``i`` is a (degraded, clean) pair, a function of ``i`` alone.
        config: The run.
        directory: Folder of the run.
        held_back: (degraded, clean) pairs for validation, ``(C, H, W)`` each.
        progress: Whether to show a progress bar.

    Shape:
        Items of ``pairs``: ``(C, H, W)``, one size.

    Raises:
        TrainingStopped: The loss is not finite, or SIGTERM or Ctrl-C arrived (after a checkpoint).
        ValueError: ``directory`` holds a checkpoint of another configuration.
    """
    directory.mkdir(parents=True, exist_ok=True)
    checkpoint = directory / "checkpoint.pt"
    precision = _choose_precision(config.precision)
    fabric = Fabric(accelerator="auto", devices=1)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    model, *optimizers = fabric.setup(network, *_optimizers(network, config))
    average = AveragedModel(network, multi_avg_fn=_moving_average(config.ema), use_buffers=True)
    first, spent, psnr = 0, 0.0, math.nan
    if checkpoint.exists():
        state = load_checkpoint(checkpoint)
        if state["config"] != asdict(config):
            raise ValueError(
                f"{checkpoint} was written by another configuration ({_difference(state['config'], asdict(config))}); "
                "use another folder or delete it"
            )
        network.load_state_dict(state["network"])
        average.load_state_dict(state["average"])
        for optimizer, moments in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(moments)
        first, spent, psnr = state["step"], state["seconds"], state.get("psnr", math.nan)
    loader = fabric.setup_dataloaders(
        DataLoader(
            pairs,
            batch_size=config.batch_size,
            sampler=range(first * config.batch_size, config.steps * config.batch_size),
        )
    )
    log = _Log(directory / "log.jsonl")
    log.write(event="start", step=first, precision=precision, config=asdict(config))
    started, saved = time.monotonic() - spent, time.monotonic()

    def save(step: int) -> None:
        save_checkpoint(
            {
                "config": asdict(config),
                "step": step,
                "seconds": time.monotonic() - started,
                "psnr": psnr,
                "network": network.state_dict(),
                "average": average.state_dict(),
                "optimizers": [optimizer.state_dict() for optimizer in optimizers],
            },
            checkpoint,
        )

    model.train()
    losses: list[Tensor] = []
    with _termination() as stop, _bar(progress, config.steps, first) as tell:
        for step, (degraded, clean) in enumerate(loader, first):
            factor = rate_at(config, step)
            for group in (group for optimizer in optimizers for group in optimizer.param_groups):
                group["lr"] = group["peak"] * factor
            # not Fabric's own bf16-mixed, which would round the image to 8 bits before the network sees it
            with torch.autocast(fabric.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
                restored = model(degraded.contiguous(memory_format=torch.channels_last))
            loss = (restored.float() - clean).square().mean()
            fabric.backward(loss)
            if config.clip_norm:
                fabric.clip_gradients(model, optimizers[0], max_norm=config.clip_norm, error_if_nonfinite=False)
            if not torch.isfinite(loss):
                log.write(event="not finite", step=step)
                raise TrainingStopped(f"the loss is {loss.item()} at step {step}; last good state: {checkpoint}")
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
            average.update_parameters(network)
            losses.append(loss.detach())
            done = step + 1
            if done % config.log_every == 0 or done == config.steps:
                seconds = time.monotonic() - started
                mean = torch.stack(losses).mean().item()
                losses.clear()
                line = {"step": done, "loss": mean, "seconds": round(seconds, 1), "rate": factor}
                if held_back and (done % config.validate_every == 0 or done == config.steps):
                    psnr = line["psnr"] = validate(average.module, held_back)
                log.write(**line)
                tell(done, mean, psnr)
            if time.monotonic() - saved > 60 * config.checkpoint_minutes or done == config.steps or stop.is_set():
                save(done)
                saved = time.monotonic()
            if stop.is_set() and done < config.steps:
                raise TrainingStopped(f"stopped at step {done} of {config.steps}; run again to go on from there")
    network.load_state_dict(average.module.state_dict())
    network.eval()
    return FitResult(config.steps, time.monotonic() - started, psnr)


@torch.no_grad()
def validate(network: nn.Module, pairs: Sequence[Pair]) -> float:
    """Mean PSNR in dB over (degraded, clean) pairs, peak 1, per image, output clipped to [0, 1].

    Shape:
        Each of a pair: ``(C, H, W)``.
    """
    network.eval()
    device = next(network.parameters()).device
    total = 0.0
    for degraded, clean in pairs:
        restored = network(degraded[None].to(device)).clamp(0, 1)
        total += peak_signal_noise_ratio(restored, clean[None].to(device), data_range=1.0).item()
    return total / len(pairs)


def _optimizers(network: nn.Module, config: FitConfig) -> list[torch.optim.Optimizer]:
    """Adam, with ``log_threshold`` and ``log_beta`` in a faster group, and Muon where the configuration wants it."""
    weights: list[nn.Parameter] = []
    thresholds: list[nn.Parameter] = []
    kernels: list[nn.Parameter] = []
    for name, parameter in network.named_parameters():
        if name.rsplit(".", 1)[-1].startswith("log_"):
            thresholds.append(parameter)
        elif config.muon_rate and takes_muon(parameter):
            kernels.append(parameter)
        else:
            weights.append(parameter)

    def groups(*parts: tuple[list[nn.Parameter], float]) -> list[dict[str, Any]]:
        return [{"params": part, "lr": peak, "peak": peak} for part, peak in parts if part]

    rate = config.learning_rate
    adam = groups((weights, rate), (thresholds, rate * config.threshold_rate))
    optimizers: list[torch.optim.Optimizer] = [torch.optim.Adam(adam)] if adam else []
    if kernels:
        optimizers.append(Muon(groups((kernels, config.muon_rate)), lr=config.muon_rate))
    return optimizers


def _moving_average(decay: float) -> Any:
    """Exponential moving average whose decay starts low, so that the initial weights are soon forgotten."""

    def update(average: list[Tensor], current: list[Tensor], count: int | Tensor) -> None:
        weight = 1 - min(decay, (1 + int(count)) / (10 + int(count)))
        for old, new in zip(average, current, strict=True):
            if old.is_floating_point():
                old.lerp_(new, weight)
            else:
                old.copy_(new)

    return update


def _choose_precision(precision: str) -> str:
    """``auto``: bfloat16 where a channels-last convolution runs at least 1.3 times faster in it than in float32."""
    if precision != "auto":
        return precision
    device = Fabric(accelerator="auto", devices=1).device
    seconds = {torch.float32: math.inf, torch.bfloat16: math.inf}
    for _ in range(20):  # in turn, and the least of many: other work on the machine must not decide
        for dtype in seconds:
            x = torch.ones(4, 64, 48, 48, device=device, dtype=dtype).contiguous(memory_format=torch.channels_last)
            w = torch.ones(64, 64, 3, 3, device=device, dtype=dtype).contiguous(memory_format=torch.channels_last)
            start = time.perf_counter()
            nn.functional.conv2d(x, w, padding=1).sum().item()
            seconds[dtype] = min(seconds[dtype], time.perf_counter() - start)
    return "bfloat16" if seconds[torch.bfloat16] * 1.3 < seconds[torch.float32] else "float32"


def _difference(old: dict[str, Any], new: dict[str, Any]) -> str:
    return ", ".join(f"{k}: {old.get(k)} there, {new.get(k)} here" for k in {**old, **new} if old.get(k) != new.get(k))


class _Log:
    """JSON lines, one object a line, flushed at once."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, **entry: Any) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")


@contextmanager
def _termination() -> Iterator[threading.Event]:
    """An event that SIGTERM and Ctrl-C set, so that the loop can save and leave between two steps."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return

    def handle(number: int, frame: FrameType | None) -> None:
        event.set()

    previous = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield event
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def _bar(show: bool, steps: int, first: int) -> Iterator[Any]:
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
    with Progress(*columns, disable=not show) as bar:
        task = bar.add_task("", total=steps, completed=first)

        def tell(done: int, loss: float, psnr: float) -> None:
            quality = "" if math.isnan(psnr) else f", {psnr:.2f} dB"
            bar.update(task, completed=done, description=f"loss {loss:.2e}{quality}")

        yield tell
