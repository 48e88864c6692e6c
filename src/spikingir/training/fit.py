"""The training loop: one for ANN, quantised ANN and SNN.

A module from degraded to restored image, an indexed set of pairs, a configuration. Sample ``i`` of the set is a
function of ``i`` alone and the learning rate a function of the step, so that the whole state is: weights, their
moving average, the optimiser's moments and the step. What is interrupted resumes to the same result.
"""

import math
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, Dataset, Sampler
from torchmetrics.functional.image import peak_signal_noise_ratio

from spikingir.errors import SpikingIRError
from spikingir.networks.base import RestorationNetwork
from spikingir.networks.multiscale import MultiScaleNet
from spikingir.spiking.network import SpikingNetwork
from spikingir.training.checkpoints import CHECKPOINT, load_checkpoint, save_checkpoint
from spikingir.training.config import FitConfig, rate_at
from spikingir.training.energy import WithBitCost, WithSpikeCost
from spikingir.training.journal import Log, progress_bar, termination
from spikingir.training.machine import Fabric, choose_precision, describe, launch
from spikingir.training.muon import Muon, takes_muon

Pair = tuple[Tensor, Tensor]

_LEVEL_FLOOR = 5.0
_DEFAULTS = asdict(FitConfig(steps=1)) | {"processes": 1}


class TrainingError(SpikingIRError):
    """Training cannot begin like that; the text says why."""


class TrainingStopped(SpikingIRError):
    """Training ended before its last step; the last good checkpoint is kept."""


@dataclass(frozen=True)
class FitResult:
    """What a finished run leaves: steps done, seconds spent, last validation PSNR in dB (NaN without one)."""

    steps: int
    seconds: float
    psnr: float


def fit(
    network: nn.Module,
    pairs: Dataset[Pair],
    config: FitConfig,
    directory: Path,
    held_back: Sequence[Pair] = (),
    *,
    teacher: nn.Module | None = None,
    progress: bool = True,
    tensorboard: bool = False,
) -> FitResult:
    """Train ``network`` in place to map degraded images to clean ones; at the end it holds the averaged weights.

    The loss is the configuration's ``objective`` of the restored image, and with ``energy`` what its spikes cost. With
    a teacher the target is ``(1 - d) clean + d teacher(degraded)``, ``d`` the configuration's ``distillation``. What a
    network loses by spiking is a few per cent of the error that no network can avoid; the teacher's image leaves that
    error out of the gradient, where it is noise, and is nearest to the same optimum, the conditional mean.
    ``directory`` receives ``checkpoint.pt`` and ``log.jsonl``; where it holds a checkpoint of the same configuration,
    training goes on from it.

    Started by torchrun or SLURM, each process takes ``batch_size`` pairs of its own a micro-step: W processes train as
    one with W times the batch does (but for batch norm, whose statistics are each process's own).

    Args:
        network: Degraded image to restored image.
        pairs: Item ``i`` is a (degraded, clean) pair, a function of ``i`` alone.
        config: The run.
        directory: Folder of the run.
        held_back: (degraded, clean) pairs for validation, ``(C, H, W)`` each.
        teacher: Degraded image to restored image; it stays as it is.
        progress: Whether to show a progress bar.
        tensorboard: Whether to log for TensorBoard too.

    Shape:
        Items of ``pairs``: ``(C, H, W)``, one size.

    Raises:
        TrainingStopped: The loss is not finite, or SIGTERM or Ctrl-C arrived (after a checkpoint).
        TrainingError: ``directory`` holds a checkpoint of another configuration; a share of distillation without
            a teacher.
    """
    if config.distillation and teacher is None:
        raise TrainingError(f"distillation is {config.distillation}, but there is no teacher")
    directory.mkdir(parents=True, exist_ok=True)
    checkpoint = directory / CHECKPOINT
    fabric = launch()
    leads, processes = fabric.is_global_zero, fabric.world_size
    state = load_checkpoint(checkpoint) if checkpoint.exists() else None
    # measured once: what resumes, and every process, computes as the first one began
    precision = (state or {}).get("precision") or fabric.broadcast(choose_precision(config.precision, fabric.device))
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    trained = network
    if config.energy:
        if isinstance(network, SpikingNetwork):
            trained = WithSpikeCost(network)
        elif isinstance(network, RestorationNetwork) and network.activation_bits:
            trained = WithBitCost(network)
        else:
            raise TrainingError(f"energy is {config.energy}, but a {type(network).__name__} has no spikes to save")
    model, *optimizers = fabric.setup(trained, *_optimizers(network, config, precision))
    if teacher is not None:
        teacher = teacher.eval().to(fabric.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = AveragedModel(network, multi_avg_fn=_moving_average(config.ema), use_buffers=True)
    run = {**asdict(config), "processes": processes}
    first, spent, psnr = 0, 0.0, math.nan
    if state is not None:
        if differences := difference(state["run"], run, _DEFAULTS):
            raise TrainingError(
                f"{checkpoint} was written by another configuration ({differences}); use another folder or delete it"
            )
        network.load_state_dict(state["network"])
        average.load_state_dict(state["average"])
        for optimizer, moments in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(moments)
        first, spent, psnr = state["step"], state["seconds"], state["psnr"]
    batches = iter(_loader(pairs, config, first, fabric))
    log = Log(directory, tensorboard=tensorboard, enabled=leads)
    log.write(event="start", step=first, **{**run, "precision": precision}, **(describe(fabric) if leads else {}))
    started, saved = time.monotonic() - spent, time.monotonic()

    def save(step: int) -> None:
        state = {
            "run": run,
            "precision": precision,
            "step": step,
            "seconds": time.monotonic() - started,
            "psnr": psnr,
            "network": network.state_dict(),
            "average": average.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in optimizers],
        }
        if leads:
            save_checkpoint(state, checkpoint)

    if not config.steps:
        psnr = validate(network, held_back) if held_back else math.nan
        log.write(step=0, loss=math.nan, seconds=round(time.monotonic() - started, 1), rate=0.0, psnr=psnr)
        save(0)
    model.train()
    if config.frozen_norms:
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
    losses: list[Tensor] = []
    bar = progress_bar(progress and leads, config.steps, first)
    alone = fabric.device.type == "cuda" and processes == 1
    # of the networks here, the one that this was tried with
    records = alone and first < config.steps and isinstance(network, MultiScaleNet)
    recorded = _recorded(trained, pairs, config, precision, fabric.device) if records else nullcontext()
    with recorded, termination() as stop, bar as tell:
        for step in range(first, config.steps):
            factor = rate_at(config, step)
            for group in (group for optimizer in optimizers for group in optimizer.param_groups):
                group["lr"] = group["peak"] * factor
            loss = torch.zeros((), device=fabric.device)
            for micro in range(config.accumulate):
                degraded, clean = next(batches)
                with fabric.no_backward_sync(model, enabled=micro + 1 < config.accumulate):
                    # not Fabric's own bf16-mixed, which would round the image to 8 bits before the network sees it
                    with torch.autocast(fabric.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
                        degraded = degraded.contiguous(memory_format=torch.channels_last)
                        answer = model(degraded)
                        target = clean if teacher is None else _target(teacher, degraded, clean, config.distillation)
                    restored, cost = answer if config.energy else (answer, 0.0)
                    part = _loss(config, restored.float(), target, degraded)
                    fabric.backward((part + config.energy * cost) / config.accumulate)
                loss += part.detach() / config.accumulate
            # together, so that no process waits for one that left
            broken, stopped = _any(fabric, not torch.isfinite(loss), stop.is_set())
            if broken:
                log.write(event="not finite", step=step)
                raise TrainingStopped(f"the loss is {loss.item()} at step {step}; last good state: {checkpoint}")
            if config.clip_norm:
                fabric.clip_gradients(model, optimizers[0], max_norm=config.clip_norm, error_if_nonfinite=False)
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
            average.update_parameters(network)
            losses.append(loss)
            done = step + 1
            validates = bool(held_back) and (done % config.validate_every == 0 or done == config.steps)
            if validates or done % config.log_every == 0 or done == config.steps:
                seconds = time.monotonic() - started
                mean = _reduced(fabric, torch.stack(losses).mean(), "mean").item()
                losses.clear()
                line = {"step": done, "loss": mean, "seconds": round(seconds, 1), "rate": factor}
                if validates:
                    psnr = line["psnr"] = validate(average.module, held_back)
                log.write(**line)
                tell(done, mean, psnr, done * config.batch_size * config.accumulate * processes / seconds)
            if time.monotonic() - saved > 60 * config.checkpoint_minutes or done == config.steps or stopped:
                save(done)
                saved = time.monotonic()
            if stopped and done < config.steps:
                raise TrainingStopped(f"stopped at step {done} of {config.steps}; run again to go on from there")
    network.load_state_dict(average.module.state_dict())
    network.eval()
    fabric.barrier()
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


def _loss(config: FitConfig, restored: Tensor, target: Tensor, degraded: Tensor) -> Tensor:
    """What the configuration's ``objective`` names; the level is the last channel of the degraded image."""
    error = (restored - target).square()
    if config.objective == "charbonnier":
        return (255**2 * error + (config.epsilon or 1.0) ** 2).sqrt().mean()
    if config.objective == "level":
        error = error / (255 * degraded[:, -1:] + _LEVEL_FLOOR)
    return error.mean()


@torch.no_grad()
def _target(teacher: nn.Module, degraded: Tensor, clean: Tensor, share: float) -> Tensor:
    """The clean image with a share of the teacher's."""
    return clean.lerp(cast(Tensor, teacher(degraded)).float(), share)


@contextmanager
def _recorded(
    model: nn.Module, pairs: Dataset[Pair], config: FitConfig, precision: str, device: torch.device
) -> Iterator[None]:
    """Forward and backward pass as CUDA graphs: of a small network, a GPU waits for Python most of the time."""
    degraded = torch.stack([pairs[0][0]] * config.batch_size).to(device, memory_format=torch.channels_last)
    kept = {name: buffer.clone() for name, buffer in model.named_buffers()}
    # the graph must hold the casts of weights, so that each pass does them anew
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16", cache_enabled=False):
        torch.cuda.make_graphed_callables(model, (degraded,), allow_unused_input=True)
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            buffer.copy_(kept[name])  # recording ran the network, which moved what batch norms keep
    try:
        yield
    finally:
        del model.forward  # torch put it there; in a copy of the network it would run the original


class _Order(Sampler[int]):
    """Numbers of this process's samples: micro-step ``m`` of all takes ``m W B .. (m + 1) W B``, in W parts of B."""

    def __init__(self, config: FitConfig, first: int, fabric: Fabric) -> None:
        self._micro_steps = range(first * config.accumulate, config.steps * config.accumulate)
        self._batch, self._rank, self._processes = config.batch_size, fabric.global_rank, fabric.world_size

    def __len__(self) -> int:
        return len(self._micro_steps) * self._batch

    def __iter__(self) -> Iterator[int]:
        for step in self._micro_steps:
            start = (step * self._processes + self._rank) * self._batch
            yield from range(start, start + self._batch)


def _loader(pairs: Dataset[Pair], config: FitConfig, first: int, fabric: Fabric) -> Iterable[Pair]:
    """Batches from step ``first`` on; beside a GPU all cores prepare them."""
    gpu = fabric.device.type != "cpu"
    workers = max(1, len(os.sched_getaffinity(0)) // fabric.world_size) if gpu else 0
    loader = DataLoader(
        pairs, config.batch_size, sampler=_Order(config, first, fabric), num_workers=workers, pin_memory=gpu
    )
    return cast(Iterable[Pair], fabric.setup_dataloaders(loader, use_distributed_sampler=False))


def _any(fabric: Fabric, *flags: bool | Tensor) -> list[bool]:
    """Whether a flag is set in any process."""
    values = torch.stack([torch.as_tensor(flag, device=fabric.device).float() for flag in flags])
    return [bool(value) for value in _reduced(fabric, values, "sum") > 0]


def _reduced(fabric: Fabric, value: Tensor, how: str) -> Tensor:
    """A tensor's sum or mean over all processes."""
    return cast(Tensor, fabric.all_reduce(value, reduce_op=how))


def _optimizers(network: nn.Module, config: FitConfig, precision: str) -> list[torch.optim.Optimizer]:
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
        dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
        optimizers.append(Muon(groups((kernels, config.muon_rate)), lr=config.muon_rate, dtype=dtype))
    return optimizers


def _moving_average(decay: float) -> Any:
    """Exponential moving average whose decay starts low, so that the initial weights are soon forgotten."""

    def update(average: list[Tensor], current: list[Tensor], count: int | Tensor) -> None:
        weight = 1 - min(decay, (1 + int(count)) / (10 + int(count)))
        if average[0].is_floating_point():  # torch hands over tensors of one type at a time
            torch._foreach_lerp_(average, current, weight)
        else:
            torch._foreach_copy_(average, current)

    return update


def difference(old: Mapping[str, Any], new: Mapping[str, Any], defaults: Mapping[str, Any]) -> str:
    """In what two descriptions of a run differ; empty where they do not.

    ``defaults`` holds what an old one is at in settings that it does not know.
    """
    known = {**defaults, **old}
    return ", ".join(
        f"{k}: {known.get(k)} there, {new.get(k)} here" for k in {**old, **new} if known.get(k) != new.get(k)
    )
