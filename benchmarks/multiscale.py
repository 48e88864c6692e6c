"""Time of the multi-scale network on the native engine beside conventional networks, in one run.

    python -m benchmarks.multiscale                       # by each of the processor's instructions
    python -m benchmarks.multiscale --shipped             # the networks that ship, clocked and int8 too
    ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 SPIKINGIR_ISA=avx2 python -m benchmarks.multiscale   # all by AVX2

The network is untrained: its weights are random, with batch norm's disturbances folded in, and it is calibrated, so
that its spikes are as dense as those of trained ones. Candidates take turns. A figure is the least time of all rounds,
and its ratio to the least time of the float32 ANN of the same architecture; times are of the processor, over all
threads, unless ``--wall``. DnCNN (``--dncnn``), which ships, is run on both schedules, by weights of 8 bits and on its
own grid, on a noisy photograph. SPIKINGIR_ISA leaves one path of the engine.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from importlib.util import find_spec

import torch
from torch import Tensor

from benchmarks.candidates import Workload, restorer
from benchmarks.timing import Rounds, take_turns
from spikingir import convert
from spikingir.deploy import _native, engine
from spikingir.deploy.fold import WEIGHT_BITS, fold
from spikingir.deploy.folded import FoldedNetwork
from spikingir.deploy.native import NativeNetwork
from spikingir.inputs import pad_to_multiple, with_level
from spikingir.networks.multiscale import MultiScaleNet
from spikingir.spiking.network import Schedule
from spikingir.zoo.pretrained import load_ann, load_spiking, open_model

LEVEL = 25 / 255
SCHEDULES: tuple[Schedule, ...] = ("phased", "clocked")
MODEL, DNCNN = "denoise-gray", "denoise-gray-25"
OWN_ANN, DNCNN_ANN, INT8 = "multi-scale ANN, float32", "DnCNN, float32", "multi-scale ANN, int8, onnxruntime"
NATIVE, CLOCKED = "multi-scale, native, phased", "multi-scale, native, clocked, T = 10"


def shipped(
    rounds: int,
    height: int = 321,
    width: int = 481,
    uncounted: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> Rounds:
    """Seconds of the multi-scale network that ships, in both schedules, and of those that it is measured by.

    Of int8 there is nothing where onnxruntime is not installed.

    Raises:
        SystemExit: A candidate's result is not what it should be.
    """
    ann, dncnn = load_ann(open_model(MODEL)), load_ann(open_model(DNCNN))
    assert isinstance(ann, MultiScaleNet)
    assert dncnn is not None
    ann.eval()
    dncnn.eval()
    noisy = Workload(DNCNN, height, width).images()
    image = pad_to_multiple(with_level(noisy, LEVEL), ann.multiple).contiguous(memory_format=torch.channels_last)
    few = image[..., : 16 * ann.multiple, : 16 * ann.multiple]
    networks: dict[str, FoldedNetwork] = {
        NATIVE: fold(load_spiking(MODEL).network),
        CLOCKED: fold(load_spiking(MODEL, schedule="clocked").network),
    }
    runs: dict[str, Callable[[Tensor], Tensor]] = {OWN_ANN: ann, DNCNN_ANN: dncnn}
    with torch.inference_mode():
        for name, network in networks.items():
            runs[name] = restorer(network, "native")
            if not torch.equal(runs[name](few), network(few)):
                raise SystemExit(f"{name} differs from torch; nothing was timed")
        if find_spec("onnxruntime") is not None:
            from benchmarks.int8 import int8_twin

            runs[INT8] = int8_twin(ann, [few], torch.get_num_threads())
            difference = (runs[INT8](few) - ann(few)).abs().max().item()
            if not difference <= 0.05:
                raise SystemExit(f"{INT8} differs by {difference:.3g} from float32; nothing was timed")
        given = dict.fromkeys(runs, image) | {DNCNN_ANN: noisy}
        turns = {name: lambda name=name, run=run: run(given[name]) for name, run in runs.items()}
        return take_turns(turns, rounds, uncounted=uncounted, clock=clock)


def main() -> None:
    """Parse, measure, print."""
    given = _arguments()
    torch.set_num_threads(given.threads)
    clock = time.perf_counter if given.wall else time.process_time
    if given.shipped:
        of_rounds = shipped(given.rounds, given.height, given.width, clock=clock)
        fastest = {name: min(times) for name, times in of_rounds.items()}
        for name, value in fastest.items():
            print(f"{name:45} {1e3 * value:8.1f} ms   {value / fastest[OWN_ANN]:.3f} of its own ANN's")
        print(json.dumps({name: round(value / fastest[OWN_ANN], 4) for name, value in fastest.items()}))
        return
    channels = 3 if given.color else 1
    generator = torch.Generator().manual_seed(0)
    random = MultiScaleNet(channels, batch_norm=True).eval()
    random.reset_parameters(generator)
    for parameter in random.parameters():
        parameter.data.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    few = with_level(torch.rand(2, channels, 64, 64, generator=generator), LEVEL)
    spiking = convert(random, few, time_steps=5, schedule="phased", coding="binary", activation_bits=(5, 4, 3))
    network = fold(spiking, weight_bits=given.weight_bits)
    whole = torch.rand(1, channels, given.height, given.width, generator=generator)
    image = pad_to_multiple(with_level(whole, LEVEL), random.multiple)
    ann = MultiScaleNet(channels).eval().to(memory_format=torch.channels_last)
    candidates: dict[str, Callable[[], object]] = {"ANN": lambda: ann(image.to(memory_format=torch.channels_last))}
    asked = os.environ.get(engine.ISA)
    paths = [asked] if asked else [path for path in _native.paths() if path != "portable"]
    for path in paths:
        candidates[f"native, {path}"] = _native_run(network, path, image)
    if given.dncnn:
        load = Workload(height=given.height, width=given.width)
        dncnn, gray = load.ann(), load.images()
        candidates["DnCNN, ANN"] = lambda: dncnn(gray)
        for schedule in SCHEDULES:
            for bits in (8, None):
                folded = fold(load.spiking(schedule), weight_bits=bits)
                for path in paths:
                    name = f"DnCNN {schedule} T = {load.time_steps}, {bits or 'no'} weight bits, {path}"
                    candidates[name] = _native_run(folded, path, gray)
    with torch.inference_mode():
        seconds = take_turns(candidates, given.rounds, clock=clock)
    least = {name: min(times) for name, times in seconds.items()}
    windows = {name: (slice(None), slice(None)) for name in network.levels}
    density = engine.count(network, image, windows)[1].spikes_per_neuron
    print(f"{given.width}x{given.height}, {channels} channels, {given.threads} threads, {density:.2f} spikes a neuron")
    for name, value in least.items():
        of = "DnCNN, ANN" if name.startswith("DnCNN") else "ANN"
        print(f"{name:45} {1e3 * value:8.1f} ms   {value / least[of]:.3f} of the {of}'s")
    print(json.dumps({name: round(value / least["ANN"], 4) for name, value in least.items()}))


def _native_run(network: torch.nn.Module, path: str, image: torch.Tensor) -> Callable[[], object]:
    native = NativeNetwork(network, path)
    return lambda: native.restore(network, image)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--height", type=int, default=321)
    parser.add_argument("--width", type=int, default=481)
    parser.add_argument(
        "--shipped", action="store_true", help="the networks that ship, by SPIKINGIR_ISA's instructions"
    )
    parser.add_argument("--color", action="store_true", help="three channels")
    parser.add_argument("--weight-bits", type=int, default=WEIGHT_BITS, help="of the multi-scale network")
    parser.add_argument("--dncnn", action="store_true", help="DnCNN too")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--wall", action="store_true", help="time by the clock on the wall")
    return parser.parse_args()


if __name__ == "__main__":
    main()
