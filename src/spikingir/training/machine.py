"""What training runs on: how many processes and devices, and in which precision."""

import math
import os
import platform
import time
from pathlib import Path

import torch
from torch import nn

from spikingir.provenance import commit
from spikingir.version import __version__

try:
    from lightning_fabric import Fabric
    from lightning_fabric.strategies.ddp import DDPStrategy
except ImportError:  # the same code, as the `lightning` bundle ships it
    from lightning.fabric import Fabric  # type: ignore[import-not-found,no-redef]
    from lightning.fabric.strategies.ddp import DDPStrategy  # type: ignore[import-not-found,no-redef]

__all__ = ["Fabric", "choose_precision", "describe", "launch"]


def launch() -> Fabric:
    """Fabric for this process: alone, or one of those that torchrun or SLURM started.

    Each process takes one GPU where the machine has some, else the CPU.
    """
    environment = os.environ
    if "TORCHELASTIC_RUN_ID" in environment or "LOCAL_WORLD_SIZE" in environment:
        here, all_processes = int(environment["LOCAL_WORLD_SIZE"]), int(environment["WORLD_SIZE"])
    elif "SLURM_NTASKS" in environment and environment.get("SLURM_JOB_NAME") not in ("bash", "interactive"):
        all_processes = int(environment["SLURM_NTASKS"])
        here = all_processes // int(environment.get("SLURM_NNODES", "1"))
    else:
        return Fabric(accelerator="auto", devices=1)
    # a phased network has betas that no image depends on
    strategy = DDPStrategy(find_unused_parameters=True)
    fabric = Fabric(accelerator="auto", devices=here, num_nodes=all_processes // here, strategy=strategy)
    fabric.launch()
    return fabric


def describe(fabric: Fabric) -> dict[str, str]:
    """What a result depends on besides its recipe: processor or GPU, versions, the commit where there is one."""
    if fabric.device.type == "cuda":
        processor = torch.cuda.get_device_name(fabric.device)
    else:
        processor = f"{_processor()}, {torch.get_num_threads()} threads"
    versions = {"version": __version__, "torch": str(torch.__version__)}
    return {"processor": processor, **versions, "commit": commit()}


def _processor() -> str:
    """Name of the CPU, and the instructions that decide how fast it trains."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    values = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = values.get("flags", "").split()
    fastest = next((flag for flag in ("amx_bf16", "avx512_bf16", "avx512f", "avx2") if flag in flags), "")
    return " ".join(filter(None, (values.get("model name", platform.machine()), fastest)))


def choose_precision(precision: str, device: torch.device) -> str:
    """``auto``: bfloat16 on a GPU that has it, and where a convolution on the CPU runs 1.3 times faster in it."""
    if precision != "auto":
        return precision
    if device.type == "cuda":  # a trial of a size that trains would take longer than it is worth
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    seconds = {torch.float32: math.inf, torch.bfloat16: math.inf}
    for _ in range(20):  # in turn, and the least of many: other work on the machine must not decide
        for dtype in seconds:
            x = torch.ones(4, 64, 48, 48, dtype=dtype).contiguous(memory_format=torch.channels_last)
            w = torch.ones(64, 64, 3, 3, dtype=dtype).contiguous(memory_format=torch.channels_last)
            start = time.perf_counter()
            nn.functional.conv2d(x, w, padding=1).sum().item()
            seconds[dtype] = min(seconds[dtype], time.perf_counter() - start)
    return "bfloat16" if seconds[torch.bfloat16] * 1.3 < seconds[torch.float32] else "float32"
