"""What the paper printed: its numbers by contender, and those of its cells that cannot be right.

Source: SpikingIR (Ouyang, Xu, Yu, Lin), Tables 1 to 3, as docs/method.md, section 8 lists them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Printed:
    """A row of the paper.

    Attributes:
        psnr: PSNR in dB.
        ssim: SSIM.
        mj: Energy in mJ, of an image of :data:`SIZES`.
        rate: Conversion rate in per cent.
        suspect: Why it is to be read with care.
        doubtful: Which of its numbers cannot be right.
    """

    psnr: float | None = None
    ssim: float | None = None
    mj: float | None = None
    rate: float | None = None
    suspect: str | None = None
    doubtful: tuple[str, ...] = ()


Key = tuple[str, str, int | None]
"""Model, method and time steps, as in a benchmark's cell."""

SIZES: Mapping[str, tuple[int, int]] = MappingProxyType({"dehaze": (480, 640), "denoise": (321, 481)})
"""Height and width of the images whose energy is printed, by task."""

_BOTH = ("psnr", "ssim")
_REPEATED = "repeats Rueckauer's at the same T"

PRINTED: Mapping[Key, Printed] = MappingProxyType(
    {
        ("dehaze-aodnet", "ann", None): Printed(19.53, 0.8165, 2.467),
        ("dehaze-aodnet", "rueckauer", 10): Printed(16.13, 0.6291, 1.819),
        ("dehaze-aodnet", "rueckauer", 20): Printed(18.42, 0.7252, 3.817),
        ("dehaze-aodnet", "rueckauer", 50): Printed(19.45, 0.7964, 9.864),
        ("dehaze-aodnet", "qcfs-ann", None): Printed(18.59, 0.6435),
        ("dehaze-aodnet", "qcfs", 5): Printed(16.69, 0.5926),
        ("dehaze-aodnet", "qcfs", 8): Printed(
            18.42,
            0.7252,
            suspect="repeats Rueckauer's at T = 20; the loss of 1.11 beside it does not fit its own ANN's 18.59",
            doubtful=_BOTH,
        ),
        ("dehaze-aodnet", "qcfs", 10): Printed(
            17.54, 0.6663, suspect="is printed as 1.54; the loss of 1.05 beside it gives 17.54", doubtful=("psnr",)
        ),
        ("dehaze-aodnet", "lan", 10): Printed(16.44, 0.6321),
        ("dehaze-aodnet", "lan", 20): Printed(18.42, 0.7252, suspect=_REPEATED, doubtful=_BOTH),
        ("dehaze-aodnet", "lan", 50): Printed(19.45, 0.7964, suspect=_REPEATED, doubtful=_BOTH),
        ("dehaze-aodnet", "spikingir", 5): Printed(19.63, 0.7884, 1.096, 98.5),
        ("dehaze-aodnet", "spikingir", 8): Printed(19.76, 0.7952, 1.898, 99.3),
        ("dehaze-aodnet", "spikingir", 10): Printed(
            19.95,
            0.8106,
            2.103,
            100.0,
            suspect="a rate of 100 is capped: its PSNR is above the ANN's, its SSIM below",
            doubtful=("rate",),
        ),
        ("denoise-gray-15", "ann", None): Printed(31.564, 0.8930, 393.555),
        ("denoise-gray-25", "ann", None): Printed(
            28.879, 0.8262, 393.555, suspect="is garbled in print; the losses beside it give 28.879", doubtful=("psnr",)
        ),
        ("denoise-gray-50", "ann", None): Printed(25.114, 0.6839, 393.555),
        ("denoise-gray-15", "spikingir", 10): Printed(31.378, 0.8853, 192.530, 99.4),
        ("denoise-gray-25", "spikingir", 10): Printed(28.658, 0.8108, 210.281, 99.2),
        ("denoise-gray-50", "spikingir", 10): Printed(25.007, 0.6649, 216.248, 99.6),
        ("denoise-gray-15", "spikingir", 15): Printed(31.467, 0.8891, 262.722, 99.7),
        ("denoise-gray-25", "spikingir", 15): Printed(28.721, 0.8176, 286.863, 99.5),
        ("denoise-gray-50", "spikingir", 15): Printed(25.041, 0.6725, 299.949, 99.7),
        ("denoise-gray-15", "dnsnn", 15): Printed(31.593),
        ("denoise-gray-25", "dnsnn", 15): Printed(29.025),
        ("denoise-gray-50", "dnsnn", 15): Printed(
            25.94, suspect="belongs, as all of DnSNN's, to an ANN of its own: 31.73, 29.23 and 26.23 dB"
        ),
    }
)
"""The rows, with what was garbled read as its neighbours imply."""
