"""What one operation costs: all constants of the energy columns, in one table, each with its source."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

_HOROWITZ = "Horowitz 2014, Computing's energy problem (and what we can do about it), ISSCC, Fig. 1.1.9; 45 nm, 0.9 V"
_LEMAIRE = "Lemaire et al. 2022, An analytical estimation of spiking neural networks energy efficiency, ICONIP"


@dataclass(frozen=True)
class Price:
    """Energy of one operation.

    Attributes:
        pj: Picojoules.
        what: The operation.
        source: Where the figure is from.
    """

    pj: float
    what: str
    source: str


PRICES: Mapping[str, Price] = MappingProxyType(
    {
        "mac_float32": Price(4.6, "32-bit floating-point multiplication (3.7) and addition (0.9)", _HOROWITZ),
        "accumulate_float32": Price(0.9, "32-bit floating-point addition", _HOROWITZ),
        "mac_int8": Price(0.23, "8-bit integer multiplication (0.2) and addition (0.03)", _HOROWITZ),
        "mac_int8_int32": Price(0.3, "8-bit integer multiplication (0.2) and 32-bit addition (0.1)", _HOROWITZ),
        "mac_int16": Price(
            0.9, "16-bit integer multiplication (assumed: four of 8 bits, 4 x 0.2) and 32-bit addition (0.1)", _HOROWITZ
        ),
        "accumulate_int8": Price(0.03, "8-bit integer addition", _HOROWITZ),
        "accumulate_int32": Price(0.1, "32-bit integer addition", _HOROWITZ),
        "mac_int32": Price(3.2, "32-bit integer multiplication (3.1) and addition (0.1)", _HOROWITZ),
        "sram_8k": Price(10.0, "access to a memory of 8 KiB", _HOROWITZ),
        "sram_32k": Price(20.0, "access to a memory of 32 KiB", _HOROWITZ),
        "sram_1m": Price(100.0, "access to a memory of 1 MiB", _HOROWITZ),
    }
)
"""The table of constants."""

WORD_BYTES = 4
"""Bytes of a number in memory."""

FIFO_WORDS = 1000
"""Spikes that the queue between two layers holds (Lemaire et al. 2022)."""

_CAPACITIES = (0.0, 8 * 2.0**10, 32 * 2.0**10, 2.0**20)


def access_pj(words: int) -> float:
    """Energy of one access to a memory that holds so many numbers, in pJ.

    Linear between Horowitz's sizes and down to nothing at size 0; a memory beyond 1 MiB is taken to be made of banks
    of 1 MiB.

    Source:
        The points: Horowitz 2014; interpolating them: Lemaire et al. 2022.

    Example:
        >>> access_pj(8 * 1024), access_pj(10**9)
        (20.0, 100.0)
    """
    levels = (0.0, *(PRICES[name].pj for name in ("sram_8k", "sram_32k", "sram_1m")))
    return float(np.interp(words * WORD_BYTES, _CAPACITIES, levels))


ASSUMPTIONS: tuple[str, ...] = (
    "One image; whatever is done once for many, such as loading the weights, is not charged. Static power, clock, "
    "control, network on chip and the interfaces of camera and display are not charged. Image formation (a "
    "subtraction, for AOD-Net also a product) runs in both networks and is charged to neither.",
    'Column A (the paper\'s), border rule "full": every pixel costs all weights, as if nothing were lost at the '
    "padding. ANN: 4.6 pJ x MACs, zeros included. SNN: 4.6 pJ x MACs of what reads the image, once; 0.9 pJ x hidden "
    "spikes x fan-out, extended step included; 4.6 pJ x MACs of what reads analog sums, at every step.",
    'Columns B to D, border rule "true": real synapses alone; ANN and SNN alike. A bias, a ReLU, a comparison with '
    "the threshold (each neuron and step at which it may fire), a reset (each spike) cost an accumulate each. SNN: "
    "what reads the image alone (the first layer, and convolutions that inject the image into later layers) is "
    "multiplied and accumulated anew at each of T steps where the schedule is clocked, as each bias is added; where "
    "it is phased, a layer collects its window before it fires, so that both are done once. Binary code: each "
    "membrane, and each sum of the mapper, doubles at each of T steps, an accumulate each; a layer of m bits compares "
    "at m steps; a spike is a bit of its count. A skip costs an accumulate for each of its spikes; the ANN's sums are "
    "free. The mapper accumulates its spikes, step by step, and adds its bias and the recycled membrane once. A "
    "convolution by Winograd's transforms would cost the ANN less, and is not considered.",
    "Column B (complete): 32-bit floating point, 4.6 and 0.9 pJ; the ANN skips multiplications by zero at no cost of "
    "its own. Without an image nothing is known of its zeros, and none are skipped.",
    "Column C (equal precision): the operations of B in integers. ANN: 8 bits, 0.23 pJ a MAC. SNN: accumulates of 8 "
    "bits (0.03 pJ; membranes hardly fit) and of 32 bits (0.1 pJ; the ANN stays at 0.23, though with a 32-bit "
    "accumulator it would pay 0.3). Where later layers read the image too, its convolutions are charged 16 bits, 0.9 "
    "pJ a MAC (assumed: four multiplications of 8 bits, 4 x 0.2, and an addition of 32, 0.1); elsewhere 8 bits. That "
    "either keeps its quality at 8 bits is assumed, not measured here.",
    "The int8 twin: the conventional network with weights and activations of 8 bits, 0.23 pJ a MAC, border rule "
    '"true". Multiplications by zero are skipped at no cost of their own; what an operation reads has 255 steps '
    "between its least and its largest value on this image, and what rounds to zero counts as zero. Biases, ReLUs, "
    "sums of skips and the search for zeros are not charged, in its favour.",
    "Column D (with memory), 32-bit integers, after "
    + _LEMAIRE
    + ". Every operand is read from memory and nothing is reused. ANN, zeros included: input and weight read for each "
    "MAC, bias read and output written once. SNN: a spike is written to a queue and read from it; a weight is read for "
    "each synaptic operation, and a membrane read and written for each of those, each comparison and each doubling; "
    "biases are read, and what reads the image is computed as in the ANN, as often as in B. Addresses: an addition for "
    "each synaptic operation and two MACs for each spike; in the ANN one addition for each input, output and output "
    "channel's kernel tap.",
    "Of Lemaire et al. we had the equations' text as their authors' own program cites it (qualia-plugin-snn, "
    "EnergyEstimationMetric), not the paper. Assumed otherwise: memory prices (that program extrapolates a straight "
    "line beyond 1 MiB; here a large memory is made of banks of 1 MiB at 100 pJ an access), 4 bytes a number, one "
    "access a number, queues of 1000 spikes, analog sums priced as dense layers at every step.",
)
"""The assumption sheet: what the figures take for granted."""
