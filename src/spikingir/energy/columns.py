"""The energy columns of docs/method.md, section 8, layer by layer: a spiking network beside its conventional one.

What the spikes cause is kept apart from what is done whether there are spikes or not: from the two follows how few
spikes would pay. The constants are in :mod:`spikingir.energy.prices`, and so is the assumption sheet.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import prod
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from spikingir.deploy.folded import FoldedNetwork
from spikingir.energy.costs import (
    ARITHMETIC,
    Cost,
    Firing,
    Site,
    arithmetic,
    dense_memory,
    in_mj,
    spike_memory,
    spiking_cost,
)
from spikingir.energy.operations import BorderRule, count_operations, macs_by_operation
from spikingir.energy.paper import PJ_TO_MJ, paper_energy
from spikingir.energy.prices import ASSUMPTIONS, PRICES, access_pj
from spikingir.energy.synapses import Active, count_active, count_arrivals, positions
from spikingir.energy.twin import Twin
from spikingir.graph.graph import Graph, Node
from spikingir.graph.operations import Conv2d
from spikingir.graph.trace import graph_of
from spikingir.spiking.network import LayerTrace, SpikingNetwork, Trace

COLUMNS: Mapping[str, str] = MappingProxyType(
    {
        "paper": "A, as the paper counts",
        "complete": "B, complete, floating point",
        "int8": "C, integers, accumulates of 8 bits",
        "int32": "C, integers, accumulates of 32 bits",
        "memory": "D, 32-bit integers, with memory",
    }
)
"""The columns by the name that they have in reports."""

_MAPPER = "pixel mapper"


def border_rule(column: str) -> BorderRule:
    """Border rule that a column counts by."""
    return "full" if column == "paper" else "true"


@dataclass(frozen=True)
class LayerEnergy:
    """Energy of a weighted operation and of the neurons that it feeds, by column, for one image in mJ.

    Attributes:
        name: The operation's name in the body.
        ann_mj: Energy of the conventional network.
        snn_mj: Energy of the spiking network; empty without one.
        synaptic_operations: Accumulates that spikes cause, border rule "true".
    """

    name: str
    ann_mj: Mapping[str, float]
    snn_mj: Mapping[str, Cost]
    synaptic_operations: float


@dataclass(frozen=True)
class EnergyColumns:
    """All columns for one image, mean over a batch.

    Attributes:
        layers: The same for each layer, in order.
        spikes_per_synapse: Spikes that a spike-driven synapse carries, by border rule; empty without spikes.
        int8_twin: The conventional network in 8 bits, which skips zeros; None without a network or an image to run.
    """

    layers: tuple[LayerEnergy, ...]
    spikes_per_synapse: Mapping[str, float]
    int8_twin: Twin | None = None

    @property
    def ann_mj(self) -> dict[str, float]:
        """Energy of the conventional network by column."""
        return {column: sum(layer.ann_mj.get(column, 0.0) for layer in self.layers) for column in COLUMNS}

    @property
    def snn_mj(self) -> dict[str, float]:
        """Energy of the spiking network by column; empty without one."""
        return {column: cost.total for column, cost in self._snn.items()}

    @property
    def break_even(self) -> dict[str, float]:
        """Spikes per synapse at which the spiking network would cost what the conventional one does, by column.

        What spikes cause is scaled with their number, all else left as it is; 0 where that alone costs more.
        """
        ann = self.ann_mj
        return {
            column: max(0.0, ann[column] - cost.fixed) / cost.driven * self.spikes_per_synapse[border_rule(column)]
            for column, cost in self._snn.items()
            if cost.driven
        }

    @property
    def over_twin(self) -> dict[str, float]:
        """Energy of the spiking network in column C over that of the int8 twin, by width of the accumulators."""
        if self.int8_twin is None:
            return {}
        return {column: self.snn_mj[column] / self.int8_twin.mj for column in ("int8", "int32") if self._snn}

    @property
    def synaptic_operations(self) -> float:
        """Accumulates that spikes cause, those of the mapper included, border rule "true"."""
        return sum(layer.synaptic_operations for layer in self.layers)

    def as_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold, with the constants and the assumptions that they rest on."""

        def keyed(values: Mapping[str, float]) -> dict[str, float]:
            return {f"{column}_mj": value for column, value in values.items()}

        found: dict[str, Any] = {"ann": keyed(self.ann_mj)}
        if self.spikes_per_synapse:
            found |= {
                "snn": keyed(self.snn_mj),
                "spikes_per_synapse": dict(self.spikes_per_synapse),
                "break_even_spikes_per_synapse": self.break_even,
                "synaptic_operations": self.synaptic_operations,
            }
        if self.int8_twin is not None:
            twin = self.int8_twin
            found["int8_twin"] = {"macs": twin.macs, "mj": twin.mj, "nj_per_pixel": twin.nj_per_pixel}
            found["int8_twin"] |= {"snn_over_twin": self.over_twin} if self.spikes_per_synapse else {}
        found["layers"] = [
            {
                "name": layer.name,
                "ann": keyed(layer.ann_mj),
                "snn": keyed({column: cost.total for column, cost in layer.snn_mj.items()}),
                "synaptic_operations": layer.synaptic_operations,
            }
            for layer in self.layers
        ]
        found["border"] = {column: border_rule(column) for column in COLUMNS}
        found["constants"] = {name: asdict(price) for name, price in PRICES.items()}
        found["assumptions"] = list(ASSUMPTIONS)
        return found

    @property
    def _snn(self) -> dict[str, Cost]:
        if not self.spikes_per_synapse:
            return {}
        found = {}
        for column in COLUMNS:
            costs = [layer.snn_mj[column] for layer in self.layers if column in layer.snn_mj]
            found[column] = Cost(sum(cost.fixed for cost in costs), sum(cost.driven for cost in costs))
        return found


def energy_columns(
    network: SpikingNetwork | FoldedNetwork, trace: Trace, image: Tensor, ann: nn.Module | None = None
) -> EnergyColumns:
    """Energy of a spiking network, as columns A to D count it, beside that of the conventional network.

    Args:
        network: The network that fired, in the form that is to be charged.
        trace: What it did for ``image``, with the spikes of each position (``trains`` or ``counts``).
        image: The image, for the zeros of the conventional network; with the noise level where the network takes one.
        ann: The conventional network; a spiking one is run with ReLUs in place of its neurons. Without it, ``network``
            itself is priced as a conventional network that skips no zeros.

    Shape:
        ``image``: (B, C, H, W).

    Raises:
        ValueError: The trace is of another network or has no spikes per position.

    Source:
        docs/method.md, section 8.

    Example:
        >>> folded = spikingir.fold(snn)  # doctest: +SKIP
        >>> restored, trace = folded.trace(image, trains=True)  # doctest: +SKIP
        >>> energy_columns(folded, trace, image, ann).snn_mj["memory"]  # doctest: +SKIP
        1234.5
    """
    size = trace.image_size
    conventional = graph_of(network if ann is None else ann, network.config.input_channels)
    active = None if ann is None else count_active(conventional, image)
    dense = _ann_layers(conventional, size, active)
    graph, paper = network.graph, paper_energy(network, trace)
    fired = {layer.name: _firing(network, layer) for layer in trace.layers}
    times = 1 if network.config.phased else trace.time_steps
    counts = {count.name: count for count in count_operations(network, trace, "true")}
    sites = _sites(graph, graph.shapes(size), {name: count.macs for name, count in counts.items()})
    prices = {operation.count.name: operation for operation in paper.operations}
    accumulate = PRICES["accumulate_float32"].pj
    injected = sum(count.image_macs > 0 for count in counts.values()) > 1
    costs: dict[str, dict[str, Cost]] = {}
    for name, site in sites.items():
        driven = accumulate * prices[name].count.synaptic_operations * PJ_TO_MJ
        fed = [fired[neuron] for neuron in site.neurons]
        firing = Firing(*(sum(numbers) for numbers in zip(*fed, strict=True))) if fed else Firing(0, 0.0, 0)
        costs[name] = {
            "paper": Cost(prices[name].snn_mj - driven, driven),
            **spiking_cost(site, counts[name], firing, trace.time_steps, times, injected),
        }
    operations = {name: count.synaptic_operations for name, count in counts.items()}
    costs[_MAPPER], operations[_MAPPER] = _mapper_cost(network, positions(trace.layers[-1]))
    synapses = sum(count.spiking_synapses for count in counts.values())
    hidden = sum(count.synaptic_operations for count in counts.values())
    return EnergyColumns(
        tuple(
            LayerEnergy(name, dense.get(name, {}), costs.get(name, {}), operations.get(name, 0.0))
            for name in dict.fromkeys([*dense, *costs])
        ),
        {"full": paper.spikes_per_synapse, "true": hidden / max(1, synapses)},
        None if active is None else Twin.of(active, image),
    )


def ann_columns(network: nn.Module, size: tuple[int, int], channels: int | None = None) -> EnergyColumns:
    """Energy of a conventional network as columns A to D count it, without an image: no zero is skipped.

    Args:
        network: A body or restoration network.
        size: Height and width of the image.
        channels: Channels of the image, where the network does not say.

    Raises:
        ValueError: The number of channels is not known.
        ConversionError: The body cannot be traced.

    Source:
        docs/method.md, section 8.

    Example:
        >>> from spikingir.networks import AODNet
        >>> round(ann_columns(AODNet(), (480, 640)).ann_mj["paper"], 3)
        2.467
    """
    layers = _ann_layers(graph_of(network, channels), size, None)
    return EnergyColumns(tuple(LayerEnergy(name, costs, {}, 0.0) for name, costs in layers.items()), {})


def _firing(network: SpikingNetwork | FoldedNetwork, layer: LayerTrace) -> Firing:
    """What a layer's neurons do: a comparison at each step that may fire, a doubling at each step of a binary code."""
    updates = len(layer.spikes)
    if network.config.coding == "binary":
        levels = network.levels[layer.name] if isinstance(network, FoldedNetwork) else network.levels(layer.name)
        updates = levels.bit_length() + network.config.time_steps
    spikes = layer.spikes.sum().item() / layer.spikes.shape[1]
    return Firing(layer.neurons, spikes, updates * layer.neurons)


def _sites(graph: Graph, shapes: Mapping[str, tuple[int, ...]], macs: Mapping[str, int]) -> dict[str, Site]:
    """The weighted operations of a body, by name; ``macs`` are the real synapses of each."""
    owners: dict[str, str] = {}  # the weighted operation that a value comes from
    fed: dict[str, list[str]] = {name: [] for name in macs}
    for node in graph.nodes:
        if node.name in macs:
            owners[node.name] = node.name
        elif (owner := next((owners[name] for name in node.inputs if name in owners), None)) is not None:
            if node.role == "neuron":
                fed[owner].append(node.name)
            elif node.role == "moves":
                owners[node.name] = owner
    return {
        node.name: _site(node, graph, shapes, macs[node.name], fed[node.name])
        for node in graph.nodes
        if node.name in macs
    }


def _site(node: Node, graph: Graph, shapes: Mapping[str, tuple[int, ...]], macs: int, neurons: list[str]) -> Site:
    weight, bias = (None, None) if node.weights is None else graph.weights[node.weights]
    outputs = prod(shapes[node.name])
    return Site(
        macs=macs,
        inputs=prod(shapes[node.inputs[0]]),
        outputs=outputs,
        channels=shapes[node.name][0],
        weights=0 if weight is None else weight.numel(),
        biases=0 if bias is None else outputs,
        taps=shapes[node.name][0] * (1 if weight is None else prod(weight.shape[2:])),
        neurons=tuple(neurons),
    )


def _ann_layers(
    graph: Graph, size: tuple[int, int], active: Mapping[str, Active] | None
) -> dict[str, dict[str, float]]:
    """Energy of each layer of a conventional network by column, in mJ."""
    shapes, full = graph.shapes(size), macs_by_operation(graph, size)
    real = {name: int(arrivals.macs.sum()) for name, arrivals in count_arrivals(graph, shapes, {}).items()}
    sites = _sites(graph, shapes, real)
    layers = {}
    for name, site in sites.items():
        share = graph.shares.get(name, 1.0)
        if share == 0 or (name in graph.scalings and not site.neurons):
            continue
        relus = sum(prod(shapes[neuron]) for neuron in site.neurons if neuron not in graph.signed)
        # what a mixture of channels has twice is active once: a number is above or below zero
        work = (share * site.macs if active is None else active[name].exact, site.biases + relus)
        found = {"paper": PRICES["mac_float32"].pj * full[name]}
        found |= {column: arithmetic(prices[0], *work) for column, prices in ARITHMETIC.items()}
        found["memory"] = dense_memory(site, share * site.macs, 1) + PRICES["accumulate_int32"].pj * relus
        layers[name] = {column: pj * PJ_TO_MJ for column, pj in found.items()}
    return layers


def _mapper_cost(network: SpikingNetwork | FoldedNetwork, spikes: Tensor) -> tuple[dict[str, Cost], float]:
    """Energy of mapper and recycling by column, in mJ, and the mapper's accumulates; column A leaves them out.

    Shape:
        ``spikes``: (B, C, H, W), of the output neuron over all steps.
    """
    channels, height, width = spikes.shape[1:]
    pixels = channels * height * width
    arriving = spikes.sum().item() / len(spikes)
    mapper = network.mapper
    kernel, bias = (None, None) if mapper is None else (mapper.weight, mapper.bias)
    operations, weights = arriving, 0
    # a folded network has the identity where there is no mapper: spikes are counted, not multiplied
    identity = torch.eye(channels, dtype=torch.float64).view(channels, channels, 1, 1)
    if kernel is not None and not torch.equal(kernel.detach().double().cpu(), identity):
        side = kernel.shape[-1] // 2
        options = {"stride": 1, "padding": side, "dilation": 1, "groups": 1}
        shape = (channels, height, width)
        node = Node(_MAPPER, Conv2d.name, (), options)
        fan = node.operation.fan_out(node, kernel, shape, shape)
        operations, weights = (spikes.float() * fan).sum().item() / len(spikes), kernel.numel()
    doublings = pixels * network.config.time_steps * (network.config.coding == "binary")
    fixed = pixels * ((bias is not None) + network.config.recycling) + doublings
    found = {
        column: Cost(arithmetic(prices, 0, fixed), arithmetic(prices, 0, operations))
        for column, (_, prices) in ARITHMETIC.items()
    }
    membranes = (pixels * network.config.recycling + 2 * doublings) * access_pj(pixels)
    biases = pixels * access_pj(channels) * (bias is not None)
    found["memory"] = Cost(
        fixed * PRICES["accumulate_int32"].pj + membranes + biases + pixels * access_pj(pixels),
        spike_memory(arriving, operations, weights, pixels),
    )
    return {"paper": Cost(0.0, 0.0), **{column: in_mj(cost) for column, cost in found.items()}}, operations
