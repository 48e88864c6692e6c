"""The arithmetic of benchmarks/timing.py; what is timed is checked by the benchmark itself before it is timed."""

import itertools

import pytest

from benchmarks.timing import Spread, fastest, ratio, take_turns


def test_spread() -> None:
    assert Spread.of([3.0, 1.0, 2.0]) == Spread(2, 1, 3)
    assert Spread.of(iter([1.0, 4.0])) == Spread(2.5, 1, 4)
    assert Spread(2, 1, 3).show(1) == "2.0 (1.0 to 3.0)"
    with pytest.raises(ValueError, match="one round"):
        Spread.of([])


def test_candidates_take_turns_and_the_first_round_does_not_count() -> None:
    ran: list[str] = []
    ticks = itertools.count()
    runs = {name: lambda name=name: ran.append(name) for name in "abc"}
    seconds = take_turns(runs, 3, clock=lambda: next(ticks))
    assert "".join(ran) == "abc" + "cba" + "abc" + "cba"
    assert seconds == {name: [1, 1, 1] for name in "abc"}
    assert list(take_turns(runs, 1, uncounted=0, clock=lambda: next(ticks)).values()) == [[1]] * 3
    with pytest.raises(ValueError, match="at least 1"):
        take_turns(runs, 0)


def test_ratios_are_of_one_round_each() -> None:
    seconds = {"slow": [2.0, 40.0, 8.0], "fast": [1.0, 20.0, 2.0]}  # the machine was busy in the second round
    assert ratio(seconds, "slow", "fast") == Spread(2, 2, 4)
    assert ratio(seconds, "fast", "fast") == Spread(1, 1, 1)
    assert fastest(seconds, ["slow", "fast"]) == "fast"
    with pytest.raises(ValueError, match="shorter"):
        ratio({"a": [1.0], "b": [1.0, 2.0]}, "b", "a")
