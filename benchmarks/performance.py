"""Time and memory of restoring images: the ANN, our engines, SpikingJelly and snnTorch, in one run.

    python -m benchmarks.performance --json performance.json      # make bench
    python -m benchmarks.performance --quick                      # make bench-quick

Everything but the last part (benchmarks/photographs.py) is of one model that ships and of one noisy photograph.
Candidates take turns; see benchmarks/timing.py for what the numbers mean and benchmarks/peers.py for what the peers are
given. Their results are compared first.

``--quick`` prints one line of JSON. Of one 160x160 crop: ``native_over_ann`` is our native engine's time over that of
the float32 ANN, ``phased_over_ann`` the same for the phased schedule, and ``spikingjelly_over_native`` the time of
SpikingJelly's faster mode over that of our native engine, both on the same clocked folded network. Of a 481x321 image,
our native engine's time of the multi-scale network: ``multiscale_native_over_ann`` over that of its own float32 ANN,
``multiscale_native_over_dncnn_ann`` over DnCNN's, ``multiscale_native_over_int8`` over that of its ANN in 8 bits by
onnxruntime (``missing`` without it; it uses the processor's best instructions whatever SPIKINGIR_ISA says), and
``multiscale_clocked_over_ann`` that of the clocked network at T = 10 over that of its own float32 ANN.
"""

import argparse
import json
import os
import platform
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from benchmarks import candidates, multiscale
from benchmarks.candidates import ANN, JELLY_M, JELLY_S, NATIVE, NATIVE_PHASED, Workload
from benchmarks.memory import peak_memory
from benchmarks.photographs import SIZES, photographs
from benchmarks.timing import Rounds, Spread, fastest, ratio, take_turns
from spikingir import __version__
from spikingir.deploy import engine
from spikingir.deploy.engine import ISA
from spikingir.spiking.network import Schedule

SECTIONS = ("image", "batch", "pixels", "steps", "density", "memory", "photographs")
TIMED = (ANN, NATIVE, NATIVE_PHASED)


def main() -> None:
    """Parse, measure, print."""
    given = _arguments()
    torch.set_num_threads(given.threads)
    if not engine.native_available():
        raise SystemExit("the native engine was not built when SpikingIR was installed; install it with a compiler")
    if given.quick:
        print(json.dumps(quick(Workload(given.model, 160, 160, 1, given.time_steps), given.rounds or 3)))
        return
    image = Workload(given.model, given.height, given.width, 1, given.time_steps)
    batch = Workload(given.model, given.height // 2, given.width // 2, given.batch, given.time_steps)
    crop = replace(image, height=min(160, given.height), width=min(160, given.width))
    rounds = given.rounds or 5
    measure: dict[str, Callable[[], dict[str, Any]]] = {
        "image": lambda: compare(image, rounds),
        "batch": lambda: compare(batch, rounds),
        "pixels": lambda: against_pixels(crop, rounds),
        "steps": lambda: against_steps(crop, rounds),
        "density": lambda: against_density(crop, rounds),
        "memory": lambda: memory(image, given.threads),
        "photographs": lambda: photographs(given.megapixels, given.threads),
    }
    report: dict[str, Any] = {"machine": machine(), "rounds": rounds}
    print(f"{_sentence(report['machine'])}; median of {rounds} rounds (least to most).")
    for name in given.only or SECTIONS:
        report[name] = measure[name]()
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def quick(workload: Workload, rounds: int) -> dict[str, Any]:
    """The ratios that say most, and what they are of."""
    modes = (JELLY_M, JELLY_S)
    # the round that does not count would cost a quarter of the time; the median leaves a slow first one out as well
    seconds = _time(workload, (*TIMED, *modes), rounds, uncounted=0)
    best = fastest(seconds, modes)
    several = multiscale.shipped(rounds, uncounted=0)
    spreads: dict[str, Spread | None] = {
        "native_over_ann": ratio(seconds, NATIVE, ANN),
        "phased_over_ann": ratio(seconds, NATIVE_PHASED, ANN),
        "spikingjelly_over_native": ratio(seconds, best, NATIVE),
        "multiscale_native_over_ann": ratio(several, multiscale.NATIVE, multiscale.OWN_ANN),
        "multiscale_native_over_dncnn_ann": ratio(several, multiscale.NATIVE, multiscale.DNCNN_ANN),
        "multiscale_native_over_int8": ratio(several, multiscale.NATIVE, multiscale.INT8)
        if multiscale.INT8 in several
        else None,
        "multiscale_clocked_over_ann": ratio(several, multiscale.CLOCKED, multiscale.OWN_ANN),
    }
    return {
        **{name: "missing" if spread is None else round(spread.median, 3) for name, spread in spreads.items()},
        "spread": {name: [round(s.low, 3), round(s.high, 3)] for name, s in spreads.items() if s is not None},
        "seconds": {name: round(Spread.of(times).median, 4) for name, times in (seconds | several).items()},
        "spikingjelly": best,
        "density": _densities(workload),
        "workload": workload.asdict(),
        "rounds": rounds,
        "machine": machine(),
    }


def compare(workload: Workload, rounds: int) -> dict[str, Any]:
    """All candidates on one batch."""
    seconds = _time(workload, candidates.NAMES, rounds)
    densities = _densities(workload)
    print(f"\n{workload}; spikes per neuron and step: ", end="")
    print(", ".join(f"{schedule} {value:.3f}" for schedule, value in densities.items()))
    print("\n| | seconds | times the ANN | times our native, clocked |\n|---|---|---|---|")
    rows = {}
    for name, times in seconds.items():
        took, over_ann, over_native = Spread.of(times), ratio(seconds, name, ANN), ratio(seconds, name, NATIVE)
        print(f"| {name} | {took.show(3)} | {over_ann.show(2)} | {over_native.show(2)} |")
        rows[name] = {"seconds": asdict(took), "over_ann": asdict(over_ann), "over_native": asdict(over_native)}
    return {"workload": workload.asdict(), "density": densities, "candidates": rows}


def against_pixels(workload: Workload, rounds: int) -> dict[str, Any]:
    """Cost of a pixel as images grow."""
    points = {side: replace(workload, height=side, width=side) for side in (32, 64, 128, 256)}
    return _curve("side of a square image, pixels", points, rounds)


def against_steps(workload: Workload, rounds: int) -> dict[str, Any]:
    """Cost against ``T``."""
    return _curve("T", {steps: replace(workload, time_steps=steps) for steps in (2, 4, 8, 16)}, rounds)


def against_density(workload: Workload, rounds: int) -> dict[str, Any]:
    """Cost of the clocked network as it fires more: what follows spikes takes time for each of them."""
    images, small = workload.images(), replace(workload, height=48, width=48).images()
    networks = {
        f"{wanted:.2f}": candidates.at_density(workload.spiking("clocked"), wanted, small)
        for wanted in (0.05, 0.1, 0.2, 0.4)
    }
    ann = workload.ann()
    runs = {name: candidates.restorer(network, "native") for name, network in networks.items()}
    with torch.inference_mode():
        seconds = take_turns({name: lambda run=run: run(images) for name, run in {ANN: ann, **runs}.items()}, rounds)
    fired = {name: candidates.density_of(network, images) for name, network in networks.items()}
    print(f"\n{workload}\n\n| spikes per neuron and step | {NATIVE}, times the ANN |\n|---|---|")
    for name in networks:
        print(f"| {fired[name]:.3f} | {ratio(seconds, name, ANN).show(2)} |")
    points = {name: {"density": fired[name], "over_ann": asdict(ratio(seconds, name, ANN))} for name in networks}
    return {"workload": workload.asdict(), "seconds": seconds, "points": points}


def memory(workload: Workload, threads: int) -> dict[str, Any]:
    """Peak memory of every candidate."""
    print(f"\n{workload}\n\n| | peak, MB | above that of a 16x16 image, MB |\n|---|---|---|")
    rows = {}
    for name in candidates.NAMES:
        peak = peak_memory(name, workload, threads)
        print(f"| {name} | {peak.total:.0f} | {peak.added:.0f} |")
        rows[name] = asdict(peak)
    return {"workload": workload.asdict(), "megabytes": rows}


def machine() -> dict[str, Any]:
    """What the numbers depend on besides the code."""
    from spikingir.deploy import _native

    available = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    return {
        "processor": _processor(),
        "instructions": os.environ.get(ISA) or _native.paths()[0],
        "threads": torch.get_num_threads(),
        "cores": sorted(available),
        "load": [round(load, 2) for load in os.getloadavg()] if hasattr(os, "getloadavg") else None,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"spikingir": __version__, "python": platform.python_version(), "torch": torch.__version__}
        | {name: version(name) for name in ("spikingjelly", "snntorch", "opencv-python-headless")},
    }


def _time(workload: Workload, names: tuple[str, ...], rounds: int, uncounted: int = 1) -> Rounds:
    candidates.check(workload, names)
    images = workload.images()
    runs = {name: candidates.candidate(name, workload) for name in names}
    with torch.inference_mode():
        turns = {name: lambda run=run: run(images) for name, run in runs.items()}
        return take_turns(turns, rounds, uncounted=uncounted)


def _curve(axis: str, points: dict[int, Workload], rounds: int) -> dict[str, Any]:
    """Cost of a pixel at several workloads, in microseconds and as multiples of the ANN's."""
    print(f"\n{axis}; microseconds a pixel, and times the ANN\n\n| {axis} | {' | '.join(TIMED)} |")
    print("|---" * (1 + len(TIMED)) + "|")
    rows = {}
    for value, workload in points.items():
        seconds = _time(workload, TIMED, rounds)
        pixel = 1e6 / (workload.height * workload.width * workload.batch)
        cost = {name: Spread.of(time * pixel for time in seconds[name]) for name in TIMED}
        over = {name: ratio(seconds, name, ANN) for name in TIMED}
        cells = [f"{cost[name].median:.2f}, {over[name].show(2)}x" for name in TIMED]
        print(f"| {value} | {' | '.join(cells)} |")
        rows[value] = {
            name: {"microseconds_a_pixel": asdict(cost[name]), "over_ann": asdict(over[name])} for name in TIMED
        } | {"workload": workload.asdict(), "density": _densities(workload)}
    return {"axis": axis, "points": rows}


def _densities(workload: Workload) -> dict[str, float]:
    images = replace(workload, batch=1).images()
    schedules: tuple[Schedule, ...] = ("clocked", "phased")
    return {name: round(candidates.density_of(workload.folded(name), images), 4) for name in schedules}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    named = {key.strip(): value.strip() for key, value in fields.items()}
    family = ", ".join(f"{key} {named[key]}" for key in ("cpu family", "model") if key in named)
    return f"{named.get('model name', platform.machine())} ({family})"


def _sentence(facts: dict[str, Any]) -> str:
    cores = ",".join(str(core) for core in facts["cores"])
    versions = ", ".join(f"{name} {number}" for name, number in facts["versions"].items())
    return (
        f"{facts['processor']}, {facts['instructions']}, {facts['threads']} threads on cores {cores}, "
        f"load {facts['load']}; {versions}; {facts['time']}"
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.performance",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="one line of JSON, within a minute")
    parser.add_argument("--model", default="denoise-gray-25", help="name or folder of a denoiser")
    parser.add_argument("--height", type=int, default=321)
    parser.add_argument("--width", type=int, default=481)
    parser.add_argument("--batch", type=int, default=4, help="images of half the height and width, at a time")
    parser.add_argument("--time-steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, help="5 unless given, 3 if quick")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--megapixels", type=float, nargs="+", default=SIZES, help="sizes of the photographs")
    parser.add_argument("--only", choices=SECTIONS, nargs="+", help="parts to measure")
    parser.add_argument("--json", type=Path, help="file for all figures")
    return parser.parse_args()


if __name__ == "__main__":
    main()
