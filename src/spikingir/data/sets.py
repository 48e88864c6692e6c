"""The test sets by name: where each lies, and how its images are degraded. Needs no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar


@dataclass(frozen=True)
class TestSet:
    """What a name stands for.

    Attributes:
        folder: Where it is, below the data root.
        about: What it holds, in a few words.
        degraded: Whether its images come degraded, as photographs are: no noise is added to them.
        reference: Whether the clean image is known, to measure against.
    """

    __test__: ClassVar[bool] = False  # pytest takes a class of this name for a test

    folder: str
    about: str
    degraded: bool = False
    reference: bool = True


TESTED_CAMERAS = ("Sony", "Canon600D")
"""Cameras of PolyU that are tested on: never trained on, and not validated on."""

TESTED_SCENES = 40
"""The last so many outdoor scenes by name are tested on: likewise."""

NOISE_SETS: Mapping[str, TestSet] = MappingProxyType(
    {
        "bsd68": TestSet("denoise/bsd68", "68 gray photographs"),
        "set12": TestSet("denoise/set12", "12 gray images"),
        "cbsd68": TestSet("denoise/cbsd68", "68 colour photographs"),
        "polyu": TestSet("denoise/polyu", "noise of two cameras, a Sony and a Canon 600D", degraded=True),
    }
)
"""Test sets to denoise."""

HAZE_SETS: Mapping[str, TestSet] = MappingProxyType(
    {
        "sots-indoor": TestSet("dehaze/sots_indoor", "25 rooms in ten hazes each"),
        "sots-indoor-published": TestSet("dehaze/sots_indoor", "rooms in haze as published", degraded=True),
        "sots-outdoor": TestSet("dehaze/sots_outdoor", "outdoor scenes in haze as published", degraded=True),
        "outdoor-40": TestSet("dehaze/outdoor", "40 outdoor scenes, each in one haze"),
        "testset-a-like": TestSet("dehaze/nyu/test_a", "60 rooms in 21 hazes each"),
        "middlebury": TestSet("dehaze/middlebury", "10 scenes in 21 hazes each"),
        "dehaze-real": TestSet("dehaze/real", "hazy photographs, without clean ones", degraded=True, reference=False),
    }
)
"""Test sets to dehaze."""
