"""Every way to call the native module wrongly that a table can hold: run by test_misuse.py in a process of its own.

Prints the name of each misuse before it tries it, and what came of it behind: the exception's name, or "accepted".
"""

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from spikingir.engine import _native

SIZE = (5, 6)
Call = tuple[str, Callable[..., Any], Mapping[str, Any]]


class Odd:
    """What is neither a number nor an array."""


def ints(*shape: int) -> np.ndarray:
    return np.ones(shape, np.int32)


def arrays(good: np.ndarray) -> Iterator[tuple[str, Any]]:
    """What is not the array that is expected: other types, orders, ranks, sizes."""
    other = np.float32 if good.dtype == np.int32 else np.int32
    yield "None", None
    yield "a list", good.tolist()
    yield "a number", 3
    yield "a text", "weights"
    yield "an object", Odd()
    yield "another type", good.astype(other)
    yield "wider numbers", good.astype(np.complex128 if good.dtype == np.float64 else np.int64)
    yield "bytes", good.astype(np.uint8)
    yield "big-endian", good.astype(good.dtype.newbyteorder(">"))
    yield "objects", good.astype(object)
    yield "a rank more", good[None]
    yield "a rank less", good[0]
    yield "a scalar", np.array(1, good.dtype)
    yield "longer", np.concatenate([good, good])
    yield "empty", good[:0]
    yield "backwards", np.repeat(good, 2, 0)[::-1][:-1]
    wide = np.ones((*good.shape[:-1], 2 * good.shape[-1]), good.dtype)
    yield "every other", np.concatenate([wide, wide])[..., ::2]
    if good.ndim > 1:
        yield "columns first", np.asfortranarray(np.concatenate([good, good]))
        yield "broadcast", np.broadcast_to(good[:1], (2 * len(good), *good.shape[1:]))


def numbers(least: int, most: int) -> Iterator[tuple[str, Any]]:
    """What is no whole number of a range."""
    yield "below", least - 1
    yield "far below", -(2**31)
    yield "above", most + 1
    yield "2^31 - 1", 2**31 - 1
    yield "2^31", 2**31
    yield "2^64", 2**64
    yield "a fraction", least + 0.5
    yield "NaN", float("nan")
    yield "None", None
    yield "a text", "1"
    yield "an array", np.ones(3, np.int32)


def paths() -> Iterator[tuple[str, Any]]:
    yield "unknown", "mmx"
    yield "of a folder", "/"
    yield "with a zero", "avx2\0"
    yield "None", None
    yield "bytes", b"avx2"


def channels() -> Iterator[tuple[str, Any]]:
    yield from (
        ("too few", []),
        ("too many", [4, 4]),
        ("zero", [0, 4]),
        ("negative", [-4, 8]),
        ("huge", [2**31 - 1, 2**31 - 1]),
        ("beyond 32 bits", [2**40]),
        ("fractions", [4.0]),
        ("None", None),
        ("a None in it", [None]),
        ("a text", "4"),
    )


def spans(size: int) -> Iterator[tuple[str, Any]]:
    yield from (
        ("from below", (-1, size)),
        ("beyond", (0, size + 1)),
        ("far beyond", (2**31 - 2, 2**31 - 1)),
        ("ends far below", (0, -(2**31))),
        ("begins behind the end", (size + 1, size + 1)),
        ("one number", (0,)),
        ("three numbers", (0, 1, 2)),
        ("a number", 3),
        ("None", None),
        ("texts", ("0", "1")),
    )


def replaced(name: str, call: Callable[..., Any], good: Mapping[str, Any], wrong: Mapping[str, Any]) -> Iterator[Call]:
    """One argument after the other by each of its wrong values, and left out."""
    for argument, values in wrong.items():
        yield f"{name} without {argument}", call, {key: value for key, value in good.items() if key != argument}
        for what, value in values:
            yield f"{name}, {argument}: {what}", call, {**good, argument: value}
    yield f"{name} with one argument more", call, {**good, "more": 1}
    call(**good)  # what is not wrong is taken


def uninitialised(kind: type, method: str, arguments: Mapping[str, Any]) -> Call:
    return f"{kind.__name__}.{method} of an empty object", getattr(kind.__new__(kind), method), arguments


def clocks() -> Iterator[Call]:
    good = {"time_steps": 4, "delay": 0, "extended": False, "signed": False}
    # a clock is plain numbers; a layer says whether it can run by them
    wrong = {name: list(numbers(0, 9))[4:] for name in ("time_steps", "delay")}
    flags = {name: [("None", None), ("a text", "no"), ("an array", ints(2))] for name in ("extended", "signed")}
    yield from replaced("Clock", _native.Clock, good, {**wrong, **flags})


def bad_clocks() -> list[tuple[str, Any]]:
    steps = [(0, 0), (-1, 0), (2**15, 0), (2**31 - 1, 0), (4, 4), (4, -1), (4, 2**31 - 1)]
    found: list[tuple[str, Any]] = [(f"T = {t}, delay {d}", _native.Clock(t, d, False, False)) for t, d in steps]
    return [*found, ("empty", _native.Clock.__new__(_native.Clock)), ("None", None), ("a number", 4)]


def kernels(good: np.ndarray) -> Iterator[tuple[str, Any]]:
    yield from arrays(good)
    outputs, inputs = good.shape[:2]
    for rows, columns in ((3, 1), (1, 3), (2, 2), (9, 9), (0, 0), (8, 8)):
        yield f"a kernel of {rows} x {columns}", np.ones((outputs, inputs, rows, columns), good.dtype)
    yield "more inputs", np.ones((outputs, inputs + 1, 3, 3), good.dtype)


def analog() -> Iterator[Call]:
    weights, bias = np.ones((4, 2, 3, 3)), np.ones(4)
    good = {"weights": weights, "bias": bias, "after": ints(4), "path": ""}
    first = [("not finite", np.full_like(weights, np.nan)), ("infinite", np.full_like(weights, np.inf))]
    sizes = [(what, value) for what, value in kernels(weights) if what != "more inputs"]  # the image says how many
    wrong = {"weights": [*sizes, *first], "bias": arrays(bias), "after": arrays(ints(4)), "path": paths()}
    yield from replaced("Analog", _native.Analog, good, wrong)
    layer, image = _native.Analog(**good), np.ones((2, *SIZE))
    images = [*arrays(image), ("of three channels", np.ones((3, *SIZE))), ("no rows", np.ones((2, 0, 6)))]
    images += [("no columns", np.ones((2, 5, 0))), ("not finite", image * np.nan)]
    run = {"image": image, "threads": 1}
    yield from replaced("Analog.run", layer.run, run, {"image": images, "threads": numbers(1, 1024)})
    current = layer.run(**run)
    yield from replaced("Current.array", current.array, {"channels": 4}, {"channels": numbers(1, 32)})
    yield uninitialised(_native.Analog, "run", run)
    yield uninitialised(_native.Current, "array", {"channels": 4})
    yield "Current()", _native.Current, {}
    yield "Analog again", layer.__init__, {**good, "path": "mmx"}


def phased() -> Iterator[Call]:
    steps = _native.Clock(4, 3, False, False)
    good = {"weights": ints(4, 4, 3, 3), "channels": [4], "bias": ints(4), "exponent": ints(4), "clock": steps}
    exponents = [*arrays(ints(4)), ("negative", -ints(4)), ("31", 31 * ints(4)), ("least", ints(4) * -(2**31))]
    wrong = {"weights": kernels(good["weights"]), "channels": channels(), "bias": arrays(ints(4))}
    wrong |= {"exponent": exponents, "clock": bad_clocks(), "path": paths()}
    yield from replaced("Phased", _native.Phased, {**good, "path": ""}, wrong)
    yield from layers("Phased", lambda **other: _native.Phased(**{**good, "path": "", **other}))
    counts, _ = first_layer(_native.Phased).fire([], current(), *SIZE, 3, 1, False)
    window = {"time_steps": 4, "rows": (0, 5), "columns": (0, 6)}
    spikes = {"time_steps": numbers(4, 2**15 - 1), "rows": spans(5), "columns": spans(6)}
    yield from replaced("Counts.spikes", counts.spikes, window, spikes)
    yield uninitialised(_native.Counts, "spikes", window)
    yield uninitialised(_native.Counts, "array", {})
    yield "Counts()", _native.Counts, {}


def clocked() -> Iterator[Call]:
    steps, weights = _native.Clock(4, 0, False, False), ints(4, 4, 3, 3)
    each = dict.fromkeys(("bias", "start", "threshold", "level", "amplitude"), ints(4))
    good = {"weights": weights, "extended": weights, "channels": [4], **each, "clock": steps, "path": ""}
    wrong: dict[str, Any] = {name: list(arrays(ints(4))) for name in each}
    wrong |= {"weights": kernels(weights), "extended": kernels(weights), "channels": channels()}
    wrong |= {"clock": bad_clocks(), "path": paths()}
    yield from replaced("Clocked", _native.Clocked, good, wrong)
    many = {"weights": ints(33, 66_000, 1, 1), "extended": ints(33, 66_000, 1, 1), "channels": [66_000]}
    yield "Clocked that reads 66,000 channels", _native.Clocked, {**good, **many, **dict.fromkeys(each, ints(33))}
    many = {"weights": ints(33, 900, 7, 7), "extended": ints(33, 900, 7, 7), "channels": [900]}
    long = {"clock": _native.Clock(2**15 - 1, 0, False, False), **dict.fromkeys(each, ints(33))}
    yield "Clocked that reads many channels for long", _native.Clocked, {**good, **many, **long}
    yield from layers("Clocked", lambda **other: _native.Clocked(**{**good, **other}))
    trains, _ = first_layer(_native.Clocked).fire([], current(), *SIZE, 3, 1, False)
    window = {"rows": (0, 5), "columns": (0, 6)}
    yield from replaced("Trains.spikes", trains.spikes, window, {"rows": spans(5), "columns": spans(6)})
    layer = _native.Clocked(**good)
    fire = {"current": None, "height": 5, "width": 6, "border": 1, "threads": 1, "residual": False}
    for name, clock in (("steps", _native.Clock(5, 0, False, False)), ("signs", _native.Clock(4, 0, False, True))):
        others, _ = first_layer(_native.Clocked, clock).fire([], current(), *SIZE, 3, 1, False)
        yield f"Clocked.fire of a source with other {name}", layer.fire, {**fire, "sources": [others]}
    yield uninitialised(_native.Trains, "spikes", window)
    yield uninitialised(_native.Trains, "array", {})
    yield "Trains()", _native.Trains, {}


def current(height: int = 5, width: int = 6, channels: int = 4) -> Any:
    layer = _native.Analog(np.ones((channels, 2, 3, 3)), np.ones(channels), ints(channels), "")
    return layer.run(np.ones((2, height, width)), 1)


def first_layer(kind: Any, clock: Any = None, channels: int = 4) -> Any:
    """A layer that reads the image's current alone."""
    none, each = np.zeros((channels, 0, 1, 1), np.int32), ints(channels)
    if kind is _native.Phased:
        return kind(none, [], each, each, clock or _native.Clock(4, 3, False, False), "")
    return kind(none, none, [], each, each, each, each, each, clock or _native.Clock(4, 0, False, False), "")


def layers(name: str, make: Callable[..., Any]) -> Iterator[Call]:
    """Wrong calls of ``fire``."""
    kind, layer = getattr(_native, name), make()
    other = _native.Clocked if kind is _native.Phased else _native.Phased

    def spikes(kind: Any = kind, height: int = 5, width: int = 6, border: int = 3, channels: int = 4) -> Any:
        fired, _ = first_layer(kind, None, channels).fire(
            [], current(height, width, channels), height, width, border, 1, False
        )
        return fired

    good = {"sources": [spikes()], "current": None, "height": 5, "width": 6, "border": 1, "threads": 1}
    sources = [
        ("none", []),
        ("two", [spikes(), spikes()]),
        ("None", None),
        ("a None", [None]),
        ("a number", [1]),
        ("an array", [ints(4, 5, 6)]),
        ("without a list", spikes()),
        ("of the other kind", [spikes(other)]),
        ("a current", [current()]),
        ("a layer", [layer]),
        ("empty", [type(spikes()).__new__(type(spikes()))]),
        ("higher", [spikes(height=6)]),
        ("lower", [spikes(height=4)]),
        ("wider", [spikes(width=7)]),
        ("narrower", [spikes(width=1)]),
        ("no border", [spikes(border=0)]),
        ("more channels", [spikes(channels=5)]),
        ("fewer channels", [spikes(channels=3)]),
    ]
    currents = [
        ("a number", 1),
        ("an array", ints(4, 5, 6)),
        ("spikes", spikes()),
        ("empty", _native.Current.__new__(_native.Current)),
        ("higher", current(height=6)),
        ("lower", current(height=4)),
        ("wider", current(width=7)),
        ("narrower", current(width=5)),
    ]
    wrong: dict[str, Any] = {"sources": sources, "current": currents}
    wrong |= {size: [*numbers(1, 2**24), ("another", 9)] for size in ("height", "width")}
    wrong |= {"border": numbers(0, 64), "threads": numbers(1, 1024), "residual": [("None", None), ("a text", "no")]}
    yield from replaced(f"{name}.fire", layer.fire, {**good, "residual": True}, wrong)
    nothing = {"sources": [], "current": None, "height": 2**24, "width": 2**24, "border": 0, "threads": 1}
    yield f"{name}.fire of nothing", first_layer(kind).fire, {**nothing, "residual": False}
    yield uninitialised(kind, "fire", {**good, "residual": True})
    wide = first_layer(kind, None, 40)
    yield f"{name}.fire with few channels of current", wide.fire, {**nothing, "current": current(), "residual": False}


def main() -> None:
    tried: set[str] = set()
    for name, call, arguments in itertools.chain(clocks(), analog(), phased(), clocked()):
        assert name not in tried, name
        tried.add(name)
        print(name, end=" -> ", flush=True)  # noqa: T201
        try:
            call(**arguments)
            outcome = "accepted"
        except Exception as error:
            outcome = type(error).__name__
        print(outcome, flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
