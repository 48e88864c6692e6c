"""Times of rival computations, taken in turns.

A machine's speed drifts, and other work comes and goes. So every round runs each candidate once, in an order that is
reversed from round to round, and a ratio is formed within a round, where both times met the same machine; what is
quoted is the median over the rounds, with the least and the largest.
"""

import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True)
class Spread:
    """A number that was measured several times: median, least and largest."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Self:
        """The spread of one value or more.

        Raises:
            ValueError: There is no value.
        """
        values = list(values)
        if not values:
            raise ValueError("there is no value to take the median of; measure at least one round")
        return cls(statistics.median(values), min(values), max(values))

    def show(self, digits: int) -> str:
        """``2.41 (2.30 to 2.55)``."""
        return f"{self.median:.{digits}f} ({self.low:.{digits}f} to {self.high:.{digits}f})"


Rounds = dict[str, list[float]]
"""Seconds of each candidate, round by round."""


def take_turns(
    candidates: Mapping[str, Callable[[], object]],
    rounds: int,
    *,
    uncounted: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> Rounds:
    """Run each candidate ``rounds`` times, in turns, after a first round that does not count.

    Args:
        candidates: What to run, by name.
        rounds: Rounds that count; 1 or more.
        uncounted: Rounds before those, in which memory and kernels are made ready.
        clock: Time in seconds.

    Raises:
        ValueError: No round.
    """
    if rounds < 1:
        raise ValueError(f"rounds is {rounds}; expected at least 1")
    seconds: Rounds = {name: [] for name in candidates}
    for i in range(-uncounted, rounds):
        order = list(candidates) if i % 2 else list(reversed(candidates))
        for name in order:
            start = clock()
            candidates[name]()
            if i >= 0:
                seconds[name].append(clock() - start)
    return seconds


def ratio(seconds: Rounds, of: str, to: str) -> Spread:
    """How many times longer ``of`` takes than ``to``: the quotient within each round, then its spread."""
    return Spread.of(a / b for a, b in zip(seconds[of], seconds[to], strict=True))


def fastest(seconds: Rounds, names: Iterable[str]) -> str:
    """Of some candidates, the one with the least median."""
    return min(names, key=lambda name: Spread.of(seconds[name]).median)
