"""The spiking body in NIR: read back, and run by a simulator that knows NIR's equations alone."""

import io
import itertools
import json
from collections.abc import Mapping
from pathlib import Path

import nir
import numpy as np
import pytest
import torch
from torch import Tensor

from spikingir.deploy.fold import fold
from spikingir.deploy.folded import FoldedNetwork
from spikingir.export.drift import measure, spikes_of
from spikingir.export.errors import ExportError
from spikingir.export.nir import image_currents, load_nir, nir_content, read_nir
from spikingir.networks.aodnet import AODNet
from spikingir.networks.dncnn import DnCNN
from spikingir.zoo.pretrained import load_spiking
from tests.export.test_export import Difference, plain

SIZE = (20, 24)


def made(name: str, method: str) -> FoldedNetwork:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network, channels = {
            "dncnn": lambda: (DnCNN(layers=4, width=6), 1),
            "aodnet": lambda: (AODNet(), 3),
            "difference": lambda: (Difference(), 1),
        }[name]()
        return fold(plain(network, channels, time_steps=6, method=method)).eval()


def image(network: FoldedNetwork) -> Tensor:
    return torch.rand(2, network.config.input_channels, *SIZE, generator=torch.Generator().manual_seed(4))


def simulate(graph: nir.NIRGraph, inputs: Mapping[str, Tensor], steps: int) -> dict[str, Tensor]:
    """Spikes of every Threshold at each step, (T, B, C, H, W): NIR's equations, a unit of time a step, in float32.

    A value goes through the whole graph within a step, but for a reset: an integrator reads what depends on itself as
    it was at the step before.
    """
    reads: Mapping[str, list[str]] = {name: [a for a, b in graph.edges if b == name] for name in graph.nodes}
    late = {(a, b) for a, b in graph.edges if isinstance(graph.nodes[b], nir.I) and _reaches(a, b, reads)}
    membranes: dict[str, Tensor] = {}
    trains: dict[str, list[Tensor]] = {name: [] for name, n in graph.nodes.items() if isinstance(n, nir.Threshold)}
    before: dict[str, Tensor] = {}

    def value(name: str, now: dict[str, Tensor], before: Mapping[str, Tensor]) -> Tensor:
        if name not in now:
            read = [
                before.get(source, torch.zeros(())) if (source, name) in late else value(source, now, before)
                for source in reads[name]
            ]
            now[name] = compute(name, sum(read, torch.zeros(())))
        return now[name]

    def compute(name: str, total: Tensor) -> Tensor:
        node = graph.nodes[name]
        if isinstance(node, nir.Input):
            return inputs[name].float()
        if isinstance(node, nir.Conv2d):
            weight, bias = (torch.from_numpy(np.asarray(array)).float() for array in (node.weight, node.bias))
            settings = [tuple(int(n) for n in values) for values in (node.stride, node.padding, node.dilation)]
            return torch.nn.functional.conv2d(total, weight, bias, *settings, int(node.groups))
        if isinstance(node, nir.Scale):
            return total * torch.from_numpy(node.scale)
        if isinstance(node, nir.I):
            membranes[name] = membranes.get(name, torch.zeros(())) + total * torch.from_numpy(node.r)
            return membranes[name]
        if isinstance(node, nir.Threshold):
            return (total > torch.from_numpy(node.threshold)).float()
        assert isinstance(node, nir.Output)
        return total

    for _ in range(steps):
        now: dict[str, Tensor] = {}
        for name in graph.nodes:
            value(name, now, before)
        for name, train in trains.items():
            train.append(now[name])
        before = now
    return {name: torch.stack(train) for name, train in trains.items()}


def _reaches(source: str, membrane: str, reads: Mapping[str, list[str]]) -> bool:
    """Whether what a membrane reads depends on the membrane itself: the reset."""
    waiting, seen = [source], set[str]()
    while waiting:
        name = waiting.pop()
        if name == membrane:
            return True
        if name not in seen:
            seen.add(name)
            waiting += reads[name]
    return False


def signed_spikes(network: FoldedNetwork, trains: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        name: trains[name] - trains[f"{name}_below"] if clock.signed else trains[name]
        for name, clock in network.clocks.items()
    }


@pytest.mark.parametrize("method", ["spikingir", "if"])
@pytest.mark.parametrize("name", ["dncnn", "aodnet", "difference"])
def test_read_back_and_run_by_a_simulator(tmp_path: Path, name: str, method: str) -> None:
    network = made(name, method)
    content, notes = nir_content(network, SIZE)
    assert any("extended" in note for note in notes) == (method == "spikingir")
    path = tmp_path / "a.nir"
    path.write_bytes(content)
    x = image(network)
    expected = spikes_of(network, x)
    read = load_nir(path)
    restored, spikes = spikes_of(read, x)
    drift = measure(expected, restored, spikes)
    assert drift.spikes > 100
    assert drift.different == 0
    if method == "if":  # no extended step, so the file says all of it
        assert drift.values_different == 0

    simulated = signed_spikes(network, simulate(nir.read(path), image_currents(read, x), 6))
    drift = measure(expected, None, simulated)
    assert drift.spikes > 100
    assert drift.different == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["denoise-gray-25", "dehaze-aodnet"])
def test_shipped_networks_run_in_a_simulator(name: str) -> None:
    network = fold(load_spiking(name, schedule="clocked").network).eval()
    x = torch.rand(1, network.config.channels, *SIZE, generator=torch.Generator().manual_seed(5))
    content = nir_content(network, SIZE)[0]
    graph, steps = nir.read(io.BytesIO(content)), network.config.time_steps
    simulated = signed_spikes(network, simulate(graph, image_currents(read_nir(content), x), steps))
    drift = measure(spikes_of(network, x), None, simulated)
    assert drift.spikes > 1000
    assert drift.different == 0


def test_files_that_are_not_ours(tmp_path: Path) -> None:
    ones = np.ones((1, 4, 4), np.float32)
    network = made("dncnn", "if")
    readout = {
        "spikingir": json.dumps({"channels": 1, "time_steps": 3}),
        "theta": np.ones(1),
        "mapper_weight": np.ones((1, 1, 1, 1)),
    }

    pair, one = np.array([1, 1]), np.ones(1)
    ours = {"weight": np.ones((1, 1, 1, 1)), "bias": one, "grid": 2 * one, "groups": 1}
    ours |= {"stride": pair, "padding": 0 * pair, "dilation": pair}

    def graph(
        *nodes: nir.NIRNode,
        metadata: Mapping[str, object] = readout,
        current: Mapping[str, object] = ours,
        loop: bool = False,
    ) -> nir.NIRGraph:
        given = {f"n{i}": node for i, node in enumerate(nodes)}
        names = ["input", *given, "output"]
        shape = np.array([1, 4, 4])
        every = {
            "input": nir.Input(input_type=shape, metadata=dict(current)),
            **given,
            "output": nir.Output(output_type=shape),
        }
        edges = list(itertools.pairwise(names))
        return nir.NIRGraph(every, edges + [("n0", "n0")] * loop, metadata=dict(metadata), type_check=False)

    path = tmp_path / "a.nir"
    convolution = nir.Conv2d((4, 4), np.ones((1, 1, 1, 1), np.float32), 1, 0, 1, 1, np.zeros(1, np.float32))
    for bad, words in (
        (graph(nir.IF(ones, ones)), "is a IF, which is no part"),
        (graph(nir.LIF(ones, ones, ones, ones)), "LIF"),
        (graph(nir.Threshold(ones), metadata={}), "no metadata of SpikingIR"),
        (graph(nir.I(ones), nir.Threshold(ones)), "no neuron of SpikingIR"),
        (graph(convolution), "no grid"),
        (graph(convolution, current={}), "no metadata that says what of the image"),
        (graph(convolution, loop=True), "loop"),
        (graph(nir.Scale(2 * ones), convolution), "scales by something else"),
    ):
        nir.write(path, bad)
        with pytest.raises(ExportError, match=words) as caught:
            load_nir(path)
        assert str(caught.value).startswith(str(path))
    for content in (b"", b"\x89HDF nothing", nir_content(network, SIZE)[0][:3000]):
        path.write_bytes(content)
        with pytest.raises(ExportError, match="no NIR file"):
            load_nir(path)
