"""Activations: quantised ReLUs, functions of straight pieces as sums of ReLUs, smooth ones that these replace."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor, nn

Terms = Sequence[tuple[float, Tensor | float]]
"""Knot and gain of ReLUs, by rising knot."""

_GRID = 8193


class QuantisedReLU(nn.Module):
    """An activation that was trained with a clip level and steps of its own, and becomes a neuron that has them.

    Attributes:
        levels: Number of steps.
    """

    levels: int

    @property
    def clip_level(self) -> Tensor:
        """``lambda``, (C,) or (1,)."""
        raise NotImplementedError


@dataclass(frozen=True)
class PiecewiseLinear:
    """``f(x) = start + sum_k g_k relu(x - t_k) + sum_k h_k relu(-x - u_k)``.

    Attributes:
        rising: ``(t_k, g_k)``; a gain is a number, or one for each channel, (C,).
        falling: ``(u_k, h_k)``.
        start: Its value where no ReLU is active.
    """

    rising: Terms = ()
    falling: Terms = ()
    start: float = 0.0

    def __call__(self, x: Tensor) -> Tensor:
        """Its values, of gains that are numbers."""
        total = torch.full_like(x, self.start)
        for knot, gain in self.rising:
            total = total + gain * torch.relu(x - knot)
        for knot, gain in self.falling:
            total = total + gain * torch.relu(-x - knot)
        return total

    @classmethod
    def clamp(cls, low: float, high: float) -> "PiecewiseLinear":
        """``min(max(x, low), high)``."""
        if low > 0:
            return cls(((low, 1.0), (high, -1.0)), (), low)
        if high < 0:
            return cls((), ((-high, -1.0), (-low, 1.0)), high)
        rising = ((0.0, 1.0), (high, -1.0)) if high else ()
        return cls(rising, ((0.0, -1.0), (-low, 1.0)) if low else ())

    @classmethod
    def fit(cls, function: Callable[[Tensor], Tensor], low: float, high: float, pieces: int) -> "PiecewiseLinear":
        """A smooth function by straight pieces that meet it at knots, each put where the pieces so far are worst.

        Zero is a knot where it lies between, so that zero becomes exactly what it was. Beyond the range the outer
        pieces go on.

        Args:
            function: The function, of float64.
            low: Least ``x``.
            high: Largest ``x``.
            pieces: How many at most.
        """
        x = torch.linspace(low, high, _GRID, dtype=torch.float64)
        y = function(x)
        knots = torch.tensor([low, *([0.0] if low < 0 < high else []), high], dtype=torch.float64)
        while True:
            values = function(knots)
            slopes = (values[1:] - values[:-1]) / (knots[1:] - knots[:-1])
            piece = torch.searchsorted(knots[1:-1], x)
            error = (values[piece] + slopes[piece] * (x - knots[piece]) - y).abs()
            if len(slopes) >= pieces or not error.max() > 1e-12:
                break
            knots = torch.cat([knots, x[error.argmax()][None]]).sort().values
        return cls._through(knots.tolist(), values.tolist(), slopes.tolist())

    @classmethod
    def _through(cls, knots: Sequence[float], values: Sequence[float], slopes: Sequence[float]) -> "PiecewiseLinear":
        """Straight pieces through points, in terms of ReLUs."""
        low, joints = knots[0], list(knots[1:-1])
        origin = joints.index(0.0) if 0.0 in joints else None
        if origin is None:  # all on one side of zero, from the least x on
            steps = [slopes[0], *(after - before for before, after in pairwise(slopes))]
            return cls(tuple(zip([low, *joints], steps, strict=True)), (), values[0])
        right, left = slopes[origin + 1 :], slopes[: origin + 1][::-1]
        rising = [(0.0, right[0])]
        rising += [(t, b - a) for t, a, b in zip(joints[origin + 1 :], right, right[1:], strict=False)]
        falling = [(0.0, -left[0])]
        falling += [(-t, a - b) for t, a, b in zip(joints[:origin][::-1], left, left[1:], strict=False)]
        return cls(tuple(rising), tuple(falling), values[origin + 1])

    def worst_error(self, function: Callable[[Tensor], Tensor], low: float, high: float) -> float:
        """Largest distance to a function over a range."""
        x = torch.linspace(low, high, _GRID, dtype=torch.float64)
        return (self(x) - function(x)).abs().max().item()


@dataclass
class Smooth:
    """How smooth activations are replaced by straight pieces.

    Attributes:
        pieces: Pieces of each.
        images: Batches that show over which range.
        replaced: Worst error of each that was replaced, by place.
        ranges: Least and largest value that each reads, in the order of the trace, once they are known.
    """

    pieces: int
    images: Sequence[Tensor]
    replaced: dict[str, float] = field(default_factory=dict)
    ranges: list[tuple[float, float]] | None = None
