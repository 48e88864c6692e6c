"""What one layer costs in columns B to D: its operations, priced."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

from spikingir.energy.operations import OperationCount
from spikingir.energy.paper import PJ_TO_MJ
from spikingir.energy.prices import FIFO_WORDS, PRICES, access_pj

ARITHMETIC: Mapping[str, tuple[tuple[str, str], tuple[str, str]]] = MappingProxyType(
    {
        "complete": (("mac_float32", "accumulate_float32"), ("mac_float32", "accumulate_float32")),
        "int8": (("mac_int8", "accumulate_int8"), ("mac_int8", "accumulate_int8")),
        "int32": (("mac_int8", "accumulate_int8"), ("mac_int8_int32", "accumulate_int32")),
    }
)
"""What a multiply-accumulate and an accumulate cost, of the ANN and of the SNN, in the columns without memory."""


class Cost(NamedTuple):
    """Energy for one image.

    Attributes:
        fixed: What is spent whether there are spikes or not.
        driven: What the spikes cause.
    """

    fixed: float
    driven: float

    @property
    def total(self) -> float:
        """Both."""
        return self.fixed + self.driven


@dataclass(frozen=True)
class Site:
    """A weighted operation and the neurons that it feeds, in numbers.

    Attributes:
        macs: Real synapses.
        inputs: Numbers that it reads.
        outputs: Numbers that it makes.
        channels: Channels of those.
        weights: Its weights.
        biases: Outputs that get a bias.
        taps: Output channels times positions of the kernel.
        neurons: Names of the neurons that it feeds.
    """

    macs: int
    inputs: int
    outputs: int
    channels: int
    weights: int
    biases: int
    taps: int
    neurons: tuple[str, ...]


def arithmetic(prices: tuple[str, str], macs: float, accumulates: float) -> float:
    """Energy of so many multiply-accumulates and accumulates at such prices, in pJ."""
    return PRICES[prices[0]].pj * macs + PRICES[prices[1]].pj * accumulates


def dense_memory(site: Site, macs: float, times: int) -> float:
    """A dense layer, computed so many times, in pJ: ``macs`` in all.

    Lemaire et al. 2022: Eq. 1.1 and 1.2 (operations), 3 (inputs read), 6.1 (weights and biases read), 11 (outputs
    written), and the additions that form addresses.
    """
    mac, accumulate = PRICES["mac_int32"].pj, PRICES["accumulate_int32"].pj
    return (
        macs * (mac + access_pj(site.inputs) + access_pj(site.weights))
        + times * site.biases * (accumulate + access_pj(site.channels))
        + times * site.outputs * access_pj(site.outputs)
        + times * accumulate * (site.inputs + site.outputs + site.taps)
    )


def spike_memory(arriving: float, operations: float, weights: int, membranes: int) -> float:
    """What arriving spikes cause, in pJ.

    Lemaire et al. 2022: Eq. 1.4 (first term), 5 (queue read), 7 (weights read), 9 and 14 (membranes read and
    written), 16 (addresses).
    """
    mac, accumulate = PRICES["mac_int32"].pj, PRICES["accumulate_int32"].pj
    return arriving * (access_pj(FIFO_WORDS) + 2 * mac) + operations * (
        2 * accumulate + access_pj(weights) + 2 * access_pj(membranes)
    )


class Firing(NamedTuple):
    """What the neurons of a layer do for one image.

    Attributes:
        neurons: Their number.
        spikes: Their spikes.
        updates: Comparisons with the threshold, and doublings of a membrane.
    """

    neurons: int
    spikes: float
    updates: int


def spiking_cost(
    site: Site, count: OperationCount, firing: Firing, steps: int, times: int, injected: bool
) -> dict[str, Cost]:
    """Energy of one layer of a spiking network by column, in mJ: columns B to D.

    Args:
        site: The layer.
        count: What it computes.
        firing: What the neurons that it feeds do.
        steps: ``T``.
        times: How often currents that are constant, of the image and of biases, are computed and added.
        injected: Whether the image's convolutions take 16 bits in column C.
    """
    image, fixed, driven = times * count.image_macs, times * site.biases + firing.updates, firing.spikes
    driven += count.synaptic_operations
    found = {}
    for column, (_, prices) in ARITHMETIC.items():
        on_image = "mac_int16" if injected and column != "complete" else prices[0]
        dense = PRICES[on_image].pj * image + arithmetic(prices, count.analog_macs, fixed)
        found[column] = Cost(dense, arithmetic(prices, 0, driven))
    accumulate, queue = PRICES["accumulate_int32"].pj, access_pj(FIFO_WORDS)
    # outputs of a dense layer go straight to the membranes, which are read and written at each update
    dense = (image + count.analog_macs) * (PRICES["mac_int32"].pj + access_pj(site.inputs) + access_pj(site.weights))
    computed = steps if count.analog_macs else times * (image > 0)
    dense += computed * accumulate * (site.inputs + site.outputs + site.taps)
    updates = firing.updates * (accumulate + 2 * access_pj(firing.neurons))
    biases = times * site.biases * (accumulate + access_pj(site.channels))
    found["memory"] = Cost(
        dense + updates + biases,
        spike_memory(count.arriving_spikes, count.synaptic_operations, site.weights, site.outputs)
        + firing.spikes * (accumulate + queue),
    )
    return {column: in_mj(cost) for column, cost in found.items()}


def in_mj(cost: Cost) -> Cost:
    """A cost in pJ, in mJ."""
    return Cost(cost.fixed * PJ_TO_MJ, cost.driven * PJ_TO_MJ)
