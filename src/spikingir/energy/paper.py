"""Energy of an inference: the counts of :mod:`spikingir.energy.operations`, priced.

Here is column A of docs/method.md, section 8, the paper's. It leaves out mapper, biases, neuron updates and memory,
and charges the image's current once though it is added at every step; :mod:`spikingir.energy.columns` has what
they cost.
"""

import math
from dataclasses import dataclass

from torch import nn

from spikingir.deploy.folded import FoldedNetwork
from spikingir.energy.operations import BorderRule, OperationCount, count_macs, count_operations
from spikingir.energy.prices import PRICES
from spikingir.spiking.network import SpikingNetwork, Trace

PJ_TO_MJ = 1e-9


@dataclass(frozen=True)
class OperationEnergy:
    """Energy of one weighted operation for one image, in mJ.

    Attributes:
        count: The operation and how often it computes.
        ann_mj: Its energy in the ANN.
        snn_mj: Its energy in the spiking network.
    """

    count: OperationCount
    ann_mj: float
    snn_mj: float


@dataclass(frozen=True)
class Energy:
    """Energy of one image in mJ, mean over a batch.

    Attributes:
        border: Border rule that both networks were counted by.
        steps: Steps charged, the extended one included.
        ann_mj: Energy of the ANN.
        snn_mj: Energy of the spiking network.
        operations: The same for each weighted operation, in order.
    """

    border: BorderRule
    steps: int
    ann_mj: float
    snn_mj: float
    operations: tuple[OperationEnergy, ...]

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the ANN."""
        return sum(operation.count.macs for operation in self.operations)

    @property
    def analog_macs(self) -> int:
        """Multiply-accumulates on analog sums, over all steps; 0 for a network driven by spikes alone."""
        return sum(operation.count.analog_macs for operation in self.operations)

    @property
    def synaptic_operations(self) -> float:
        """Accumulates: hidden spikes, each times its fan-out."""
        return sum(operation.count.synaptic_operations for operation in self.operations)

    @property
    def spikes_per_synapse(self) -> float:
        """Spikes that a spike-driven synapse carries for one image, on average; 0 without such synapses."""
        return self.synaptic_operations / max(1, sum(operation.count.spiking_synapses for operation in self.operations))


def paper_energy(network: SpikingNetwork | FoldedNetwork, trace: Trace) -> Energy:
    """Energy as the paper counts it (column A).

    ANN: 4.6 pJ x MACs. SNN: 4.6 pJ x MACs of what reads the image, once, + 0.9 pJ x sum of hidden spikes (extended
    step included) x fan-out, + 4.6 pJ x MACs of what reads analog sums, at every step. The spikes of the output
    neuron reach only the mapper and are not charged; nor are mapper, biases, neurons and memory.

    Args:
        network: The network that fired.
        trace: What it did for a batch of images, from its ``trace``.

    Raises:
        ValueError: The trace is of another network.

    Source:
        SpikingIR, energy estimate; docs/method.md, section 8.

    Example:
        >>> restored, trace = snn.trace(image)  # doctest: +SKIP
        >>> energy = paper_energy(snn, trace)  # doctest: +SKIP
        >>> f"{energy.snn_mj:.3f} of {energy.ann_mj:.3f} mJ"  # doctest: +SKIP
        '1.096 of 2.467 mJ'
    """
    mac, accumulate = PRICES["mac_float32"].pj, PRICES["accumulate_float32"].pj
    operations = []
    for count in count_operations(network, trace):
        spent = mac * (count.image_macs + count.analog_macs) + accumulate * count.synaptic_operations
        operations.append(OperationEnergy(count, mac * count.macs * PJ_TO_MJ, spent * PJ_TO_MJ))
    return Energy(
        "full",
        len(trace.layers[0].spikes),
        sum(operation.ann_mj for operation in operations),
        sum(operation.snn_mj for operation in operations),
        tuple(operations),
    )


def ann_energy(network: nn.Module, size: tuple[int, int], channels: int | None = None) -> float:
    """Energy of a conventional network for one image in mJ: 4.6 pJ x MACs, border rule "full" (column A).

    Args:
        network: A body or restoration network; or a spiking or folded one, whose ANN is meant.
        size: Height and width of the image, rounded up to what the network pads it to.
        channels: Channels of the image, where the network does not say.

    Raises:
        ValueError: The number of channels is not known.
        ConversionError: The body cannot be traced.

    Example:
        >>> from spikingir.networks import AODNet
        >>> round(ann_energy(AODNet(), (480, 640)), 3)
        2.467
    """
    return PRICES["mac_float32"].pj * count_macs(network, size, channels) * PJ_TO_MJ


def in_words(energy: float) -> str:
    """An energy in mJ, with three digits that count, none of them lost before the point.

    Example:
        >>> in_words(0.012345), in_words(12345.6)
        ('0.0123 mJ', '12,346 mJ')
    """
    digits = 2 - math.floor(math.log10(energy)) if energy > 0 else 0
    return f"{energy:,.{max(0, digits)}f} mJ"
