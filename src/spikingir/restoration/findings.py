"""What a network found in a photograph: the size of what it removed, where that is strongest, and the words for it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikingir.photo.photo import unit_samples

LEAST = 0.5
"""Levels of 255 below which nothing was found: rounding to 8 bits alone moves values by as much."""

BANDS = ("shadows", "midtones", "highlights")
"""Thirds of the brightness, from the darkest."""

_ENOUGH = 0.01  # share of the pixels that a band needs to have a figure
_STRONGER = 1.25  # times that of any other band, to be named
_CHUNK = 2**20  # pixels that are looked at at a time


@dataclass(frozen=True)
class Finding:
    """What was removed from a photograph, on the 0..255 scale.

        rms = 255 sqrt(mean (y - x)^2)

    with the photograph y and the restored one x, both in [0, 1]; in a band, the mean is over its pixels alone.

    Attributes:
        what: What a network of this task removes, such as ``noise``.
        rms: Root of the mean square of what was removed.
        bands: The same in each of ``BANDS`` of the restored photograph, whose mean of the channels lies below 1/3,
            below 2/3, and above; None where fewer than 1 % of the pixels are.
        share: Which share of what was found is removed, in [0, 1]: the strength of a network that finds the noise
            level by itself.

    ``str(finding)`` says it in words: ``noise about 4 levels, strongest in the shadows``.
    """

    what: str
    rms: float
    bands: tuple[float | None, ...]
    share: float = 1.0

    @property
    def level(self) -> float | None:
        """RMS of what was found, of which ``rms`` is the share that was removed; None where no share was."""
        return self.rms / self.share if self.share else None

    @property
    def found(self) -> bool | None:
        """Whether there is anything: at least half a level of 255; None where it is not known."""
        return None if self.level is None else self.level >= LEAST

    @property
    def strongest(self) -> str | None:
        """The band in which clearly more was found than in the others; None where there is none."""
        known = sorted(
            ((rms, name) for name, rms in zip(BANDS, self.bands, strict=True) if rms is not None), reverse=True
        )
        return known[0][1] if len(known) > 1 and known[0][0] >= _STRONGER * known[1][0] else None

    @property
    def did(self) -> str:
        """What became of what was found."""
        return "removed" if self.share == 1 else f"{100 * self.share:.0f} % of it removed"

    @property
    def amount(self) -> str:
        """How much was found, and where, however little it is."""
        level = self.level or 0.0
        number = f"{level:.1f}" if level < 1.95 else f"{level:.0f}"
        number = number.removesuffix(".0")
        where = "" if self.strongest is None else f", strongest in the {self.strongest}"
        return f"{self.what} about {number} level{'s' * (number != '1')}{where}"

    def __str__(self) -> str:
        if self.found is None:
            return "nothing removed at strength 0"
        return self.amount if self.found else f"no {self.what} found"


def find(before: NDArray[Any], after: NDArray[np.floating], what: str, share: float = 1.0) -> Finding:
    """What was found in a photograph and removed from it, see :class:`Finding`.

    Args:
        before: The photograph: floating point in [0, 1], or whole numbers of 8 or 16 bits.
        after: The restored one; what lies outside of [0, 1] counts as it is written, clipped.
        what: What was to be removed.
        share: See :class:`Finding`.

    Shape:
        ``before``, ``after``: (H, W, C).
    """
    height, width, channels = before.shape
    sums, counts = np.zeros(len(BANDS)), np.zeros(len(BANDS))
    rows = max(1, _CHUNK // width)
    for top in range(0, height, rows):  # so that a large photograph is not in memory a third time
        part = slice(top, top + rows)
        values = after[part].clip(0, 1)
        brightness = values.sum(2) * (len(BANDS) / channels)
        band = np.minimum(brightness.astype(np.intp), len(BANDS) - 1).ravel()
        values -= unit_samples(before[part])
        squares = np.einsum("hwc,hwc->hw", values, values).ravel()
        sums += np.bincount(band, squares, len(BANDS))
        counts += np.bincount(band, None, len(BANDS))
    means = tuple(
        255 * float(np.sqrt(total / (channels * count))) if count >= _ENOUGH * height * width else None
        for total, count in zip(sums, counts, strict=True)
    )
    rms = 255 * float(np.sqrt(sums.sum() / before.size))
    return Finding(what, rms, means, share)
