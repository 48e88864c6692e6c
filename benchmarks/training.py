"""Time of a training step of the multi-scale network as a spiking one, beside that of its conventional network.

    python -m benchmarks.training                         # --side, --batch, --rounds, --threads
    python -m benchmarks.training --compile               # neurons compiled, as recipes train where there is a compiler

A step is forward, loss, backward and AdamW, of the networks that ship as ``denoise-gray``: on the phased schedule, and
on the clocked one of T steps and the extended one. Candidates take turns; times are of the processor, over all threads.
A figure is the least time of all rounds, and its ratio to that of the conventional network.
"""

import argparse
import json
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.multiscale import LEVEL, MODEL
from benchmarks.timing import take_turns
from spikingir.inputs import with_level
from spikingir.zoo.pretrained import load_ann, load_spiking, open_model

ANN = "ANN"


def main() -> None:
    """Parse, measure, print."""
    given = _arguments()
    torch.set_num_threads(given.threads)
    generator = torch.Generator().manual_seed(0)
    clean = torch.rand(given.batch, 1, given.side, given.side, generator=generator)
    noisy = with_level(clean + LEVEL * torch.randn(clean.shape, generator=generator), LEVEL)
    ann, phased = load_ann(open_model(MODEL)), load_spiking(MODEL, schedule="phased").network
    clocked = load_spiking(MODEL, schedule="clocked").network
    assert ann is not None
    if given.compile:
        phased.compile_neurons()
        clocked.compile_neurons()
    names = {
        ANN: ann,
        f"phased, T = {phased.config.time_steps}": phased,
        f"clocked, T = {clocked.config.time_steps}": clocked,
    }
    steps = {name: _step(network, noisy, clean) for name, network in names.items()}
    least = {name: min(times) for name, times in take_turns(steps, given.rounds, clock=time.process_time).items()}
    print(f"{given.batch} patches of {given.side}x{given.side}, {given.threads} threads")
    for name, value in least.items():
        print(f"{name:20} {1e3 * value:8.0f} ms   {value / least[ANN]:.2f} of the ANN's")
    print(json.dumps({name: round(value / least[ANN], 3) for name, value in least.items()}))


def _step(network: nn.Module, degraded: Tensor, clean: Tensor) -> Callable[[], None]:
    network.train().requires_grad_(True)
    optimizer = torch.optim.AdamW(network.parameters(), 1e-6)

    def step() -> None:
        optimizer.zero_grad()
        functional.mse_loss(network(degraded), clean).backward()
        optimizer.step()

    return step


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=64, help="of a patch")
    parser.add_argument("--batch", type=int, default=4, help="patches of a step")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--compile", action="store_true", help="compile the neurons' time loop")
    parser.add_argument("--rounds", type=int, default=5)
    return parser.parse_args()


if __name__ == "__main__":
    main()
