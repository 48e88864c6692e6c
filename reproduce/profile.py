"""What happens inside a spiking network on one image: firing rates, membranes before and after the extended step."""

import copy
from dataclasses import asdict
from typing import Any

import torch

from reproduce.benchmark import Benchmark, Cell
from reproduce.contenders import seen, spiking_network
from spikingir.deploy.fold import fold
from spikingir.energy.columns import energy_columns
from spikingir.restoration.tiling import padded, trace_tiled
from spikingir.spiking.network import SpikingNetwork, Trace

EDGES = tuple(i / 20 for i in range(-30, 41))
"""Edges of the histograms of membranes, in thresholds."""

_SIDE = 128
_COLUMNS = 2  # goes up when what a column counts changes, so that kept answers are asked anew


def profile(benchmark: Benchmark, cell: Cell) -> dict[str, Any]:
    """Rates, membranes and energy on the middle of a test set's first image, at most 128 x 128 pixels.

    Returns:
        ``rates``: spikes per neuron and step, by layer. ``before`` and ``after``: shares of the hidden neurons whose
        membrane lies between :data:`EDGES` (beyond them: in the outermost), at the end of step T and at the end of
        all; they are the same without an extended step. ``energy``: mJ by column, of ``snn`` and ``ann``.

    Raises:
        UnavailableError: The weights are not there.
    """
    question = {
        "profile": asdict(cell),
        "columns": _COLUMNS,
        "crop": benchmark.crop,
        "seed": benchmark.seed,
        "limit": benchmark.limit,
    }
    return benchmark.keep(cell.subject, question, f"profile of {cell.label}", lambda _: _profile(benchmark, cell))


@torch.no_grad()
def _profile(benchmark: Benchmark, cell: Cell) -> dict[str, Any]:
    subject = benchmark.subject(cell.subject)
    network = spiking_network(subject, cell.method, cell.time_steps)
    image = benchmark.pairs(cell)[0].degraded
    top, left = (max(0, size - _SIDE) // 2 for size in image.shape[-2:])
    image = image[None, :, top : top + _SIDE, left : left + _SIDE]
    folded = fold(network).eval()
    image = padded(folded, seen(image, network.config.is_told_level, subject.sigma))
    _, trace = network.trace(image)
    _, counted = trace_tiled(folded, image, counts=True)
    columns = energy_columns(folded, counted, image, subject.ann())
    return {
        "rates": trace.firing_rates(),
        "before": _shares(_without_extended_step(network).trace(image)[1]),
        "after": _shares(trace),
        "energy": {
            "snn": columns.snn_mj,
            "ann": columns.ann_mj,
            "spikes_per_synapse": dict(columns.spikes_per_synapse),
        },
    }


def _without_extended_step(network: SpikingNetwork) -> SpikingNetwork:
    """The same network as it stands at the end of step T: what comes after changes nothing before."""
    stopped = copy.deepcopy(network)
    for name in stopped.layers:
        stopped.neuron(name).extended = False
    return stopped


def _shares(trace: Trace) -> list[float]:
    """Histogram of the hidden layers' residual membranes."""
    membranes = torch.cat([layer.residual_membrane.flatten() for layer in trace.layers[:-1]]).float()
    inside = membranes.clamp(EDGES[0], EDGES[-1])
    counts = torch.histogram(inside.cpu(), torch.tensor(EDGES)).hist
    return [float(share) for share in counts / len(membranes)]
