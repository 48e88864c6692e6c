"""Time of a folded network with the native engine and with torch, beside its float32 ANN.

    python benchmarks/engine.py --height 321 --width 481 --densities 0.05 0.1 0.15 0.25

Three questions: how long does the shipped network take as it ships; with the clocked schedule; and how does the
clocked time grow with the density (spikes per neuron and step), for which the thresholds of its hidden layers are
raised until the network fires that much. Candidates take turns, so that a busy machine is equally busy for all, and
the shortest of each one's times counts. The native engine's image is compared with torch's, bit for bit.
"""

import argparse
import copy
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from spikingir import engine
from spikingir.data.noise import add_gaussian_noise, sample_generator
from spikingir.networks.registry import load_network
from spikingir.restoration.pretrained import load_spiking
from spikingir.spiking.fold import GRID_BITS, fold
from spikingir.spiking.folded import FoldedNetwork
from spikingir.spiking.network import SpikingNetwork


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("src/spikingir/models/denoise-gray-25"))
    parser.add_argument("--height", type=int, default=321)
    parser.add_argument("--width", type=int, default=481)
    parser.add_argument("--time-steps", type=int, default=8)
    parser.add_argument("--bits", type=int, default=GRID_BITS, help="the grid is 2^-bits at the finest")
    parser.add_argument("--densities", type=float, nargs="*", default=[0.05, 0.1, 0.15, 0.25])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--torch", action="store_true", help="also time the torch engine, which is slow")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    ann = load_network(arguments.model / "ann.safetensors").to(memory_format=torch.channels_last)
    shipped = load_spiking(arguments.model, time_steps=arguments.time_steps).network
    image = _image(arguments.height, arguments.width)
    clocked = shipped.at(schedule="clocked")
    networks = {"shipped": shipped, "clocked": clocked}
    for density in arguments.densities:
        networks[f"clocked, {density:.2f}"] = _at_density(clocked, density)

    candidates: dict[str, Callable[[], Tensor]] = {"ANN, float32": lambda: ann(image)}
    densities = {}
    for name, network in networks.items():
        folded = fold(network, bits=arguments.bits)
        densities[f"{name}, native"] = densities[f"{name}, torch"] = _density(folded)
        candidates[f"{name}, native"] = lambda folded=folded: engine.restore(folded, image, engine="native")
        if arguments.torch:
            candidates[f"{name}, torch"] = lambda folded=folded: engine.restore(folded, image, engine="torch")
        if not torch.equal(engine.restore(folded, image[..., :48, :64], engine="native"), folded(image[..., :48, :64])):
            raise SystemExit(f"{name}: the engines differ")

    seconds = dict.fromkeys(candidates, float("inf"))
    with torch.inference_mode():
        for _ in range(arguments.repeats):
            for name, restore in candidates.items():
                start = time.perf_counter()
                restore()
                seconds[name] = min(seconds[name], time.perf_counter() - start)
    print(f"{arguments.width} x {arguments.height}, T = {arguments.time_steps}, k <= {arguments.bits}, ", end="")
    print(f"{arguments.threads} threads, best of {arguments.repeats}\n")
    print("| network | spikes per neuron and step | time, s | times the ANN's |\n|---|---|---|---|")
    for name, value in seconds.items():
        density = f"{densities[name]:.3f}" if name in densities else ""
        print(f"| {name} | {density} | {value:.3f} | {value / seconds['ANN, float32']:.2f} |")


def _image(height: int, width: int) -> Tensor:
    """A smooth picture under noise, channels last."""
    coarse = torch.rand(1, 1, height // 16 + 2, width // 16 + 2, generator=torch.Generator().manual_seed(0))
    clean = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bicubic").clamp(0, 1)
    return add_gaussian_noise(clean, 25, sample_generator(0, 0)).contiguous(memory_format=torch.channels_last)


def _density(folded: FoldedNetwork) -> float:
    _, trace = engine.trace(folded, _image(64, 64))
    return trace.spikes_per_neuron / max(len(layer.spikes) for layer in trace.layers)


def _at_density(network: SpikingNetwork, density: float) -> SpikingNetwork:
    """The network with its hidden layers' thresholds multiplied, one factor a layer, until each fires at a density."""
    network = copy.deepcopy(network)
    for layer, name in enumerate(network.layers[:-1]):
        low, high = -5.0, 5.0
        threshold = network.neuron(name).log_threshold
        start = threshold.detach().clone()
        for _ in range(8):
            middle = (low + high) / 2
            threshold.data.copy_(start + middle)
            spikes = network.trace(_image(32, 32))[1].layers[layer]
            rate = spikes.spikes_per_neuron / len(spikes.spikes)
            low, high = (middle, high) if rate > density else (low, middle)
    return network


if __name__ == "__main__":
    main()
