"""Peak memory of each candidate, in a process of its own, as the operating system accounts for it.

``python -m benchmarks.memory '{"name": "ANN, float32", "threads": 1, "workload": {...}}'`` measures one.
"""

import json
import subprocess
import sys
from dataclasses import dataclass

from benchmarks.candidates import Workload
from benchmarks.resident import resident_peak


@dataclass(frozen=True)
class Peak:
    """Largest resident memory of a process in MB (10^6 bytes).

    Attributes:
        total: In all: the interpreter, torch, the network.
        added: What restoring the images added to what a first, tiny image had taken.
    """

    total: float
    added: float


def peak_memory(name: str, workload: Workload, threads: int) -> Peak:
    """Peak memory of a candidate that restores a batch once.

    Raises:
        SystemExit: The process failed.
    """
    order = json.dumps({"name": name, "threads": threads, "workload": workload.asdict()})
    done = subprocess.run([sys.executable, "-m", "benchmarks.memory", order], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"measuring the memory of {name} failed with exit code {done.returncode}; see above")
    return Peak(**json.loads(done.stdout.splitlines()[-1]))


def _measure(order: str) -> None:
    import torch

    from benchmarks.candidates import candidate

    asked = json.loads(order)
    torch.set_num_threads(asked["threads"])
    workload = Workload(**asked["workload"])
    restore, images = candidate(asked["name"], workload), workload.images()
    with torch.inference_mode():
        restore(images[:1, :, :16, :16])
        before = resident_peak()
        restore(images)
    total = resident_peak()
    print(json.dumps({"total": total, "added": total - before}))


if __name__ == "__main__":
    _measure(sys.argv[1])
