"""Every way to call the native module wrongly that a table can hold: run by test_misuse.py in a process of its own.

The module is the file that is named by the argument: another process may find another one.

Prints the name of each misuse before it tries it, and what came of it behind: the exception's name, or "accepted".
"""

import itertools
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from smallest_run import load_extension

_native = load_extension(Path(sys.argv[1]))
SIZE = (5, 6)
WINDOW = {"rows": (0, 5), "columns": (0, 6)}
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
    yield from phased_layers(_native.Phased(**good, path=""))
    counts, _ = first_layer(_native.Phased).fire([], current(), *SIZE, 3, 1, False)
    yield from replaced("Counts.histogram", counts.histogram, WINDOW, {"rows": spans(5), "columns": spans(6)})
    yield uninitialised(_native.Counts, "histogram", WINDOW)
    yield uninitialised(_native.Counts, "array", {})
    yield "Counts()", _native.Counts, {}


def clocked() -> Iterator[Call]:
    steps, weights = _native.Clock(4, 0, False, False), ints(8, 4, 3, 3)
    each = dict.fromkeys(("start", "threshold", "level", "amplitude"), ints(2))
    read, skip = (weights, weights, 1, 1), (ints(2), ints(2))
    good = {"channels": 2, "factor": 2, "sources": [read], "skips": [skip], "bias": ints(8), **each, "clock": steps}
    good |= {"path": ""}
    wrong: dict[str, Any] = {name: [*arrays(ints(2)), ("huge", ints(2) * (2**31 - 1))] for name in each}
    wrong |= {"channels": numbers(1, 2**16), "factor": numbers(1, 8), "clock": bad_clocks(), "path": paths()}
    wrong["bias"] = [*arrays(ints(8)), ("beyond 32 bits", ints(8) * (2**31 - 1))]
    reads = [(what, [(value, weights, 1, 1)]) for what, value in kernels(weights)]
    reads += [(f"{what}, extended", [(weights, value, 1, 1)]) for what, value in kernels(weights)]
    for place, most in ((2, 8), (3, 64)):
        least = 1 if place == 2 else 0
        reads += [(f"{what}, place {place}", [swapped(read, place, value)]) for what, value in numbers(least, most)]
    reads += [("no list", None), ("a None", [None]), ("too short", [read[:3]]), ("too long", [(*read, 1)])]
    largest = weights * (2**31 - 1)
    reads += [("the largest weights", [(largest, weights, 1, 1)]), ("the largest last", [(weights, largest, 1, 1)])]
    many = ints(8, 20_000, 6, 6)
    reads += [("more rows than there are places for", [(many, many, 1, 1)])]
    wrong["sources"] = reads
    skips = [("None", None), ("a number", 1), ("an object", [Odd()]), ("too long", [(ints(8), ints(2))])]
    skips += [
        ("too long at the last step", [(ints(2), ints(8))]),
        ("one", [ints(2)]),
        ("of floats", [(np.ones(2),) * 2]),
    ]
    wrong["skips"] = [*skips, ("a None", [None]), ("beyond 32 bits", [(ints(2) * (2**31 - 1), ints(2))])]
    yield from replaced("Clocked", _native.Clocked, good, wrong)
    yield from clocked_layers(good)


def clocked_layers(made: Mapping[str, Any]) -> Iterator[Call]:
    """Wrong calls of ``fire``."""
    layer = _native.Clocked(**made)

    def spikes(channels: int, height: int, width: int, border: int = 1, clock: Any = made["clock"]) -> Any:
        source = first_layer(_native.Clocked, clock, channels)
        return source.fire([], [], current(height, width, channels), height, width, border, 1, False)[0]

    good = {"sources": [spikes(4, 5, 6)], "skips": [spikes(2, 10, 12)], "current": None}
    good |= {"height": 5, "width": 6, "border": 1, "threads": 1, "residual": True}
    others = {
        "with more steps": _native.Clock(5, 0, False, False),
        "with an extended step": _native.Clock(4, 0, True, False),
        "with a sign": _native.Clock(4, 0, False, True),
    }
    of_any = [("None", None), ("a None", [None]), ("none", []), ("a number", [1]), ("a current", [current()])]
    of_any += [("an array", [ints(4, 5, 6)]), ("a layer", [layer]), ("without a list", spikes(4, 5, 6))]
    of_any += [("empty", [_native.Trains.__new__(_native.Trains)])]
    wrong: dict[str, Any] = {
        "sources": [
            *of_any,
            *((what, [spikes(4, 5, 6, clock=clock)]) for what, clock in others.items()),
            ("two", [spikes(4, 5, 6)] * 2),
            ("fewer channels", [spikes(3, 5, 6)]),
            ("more channels", [spikes(5, 5, 6)]),
            ("lower", [spikes(4, 3, 6)]),
            ("narrower", [spikes(4, 5, 4)]),
            ("no border", [spikes(4, 5, 6, border=0)]),
        ],
        "skips": [
            *of_any,
            *((what, [spikes(2, 10, 12, clock=clock)]) for what, clock in others.items()),
            ("two", [spikes(2, 10, 12)] * 2),
            ("other channels", [spikes(3, 10, 12)]),
            ("lower", [spikes(2, 9, 12)]),
            ("wider", [spikes(2, 10, 13)]),
            ("of the sums' size", [spikes(2, 5, 6)]),
        ],
        "current": [
            ("a number", 1),
            ("spikes", spikes(2, 5, 6)),
            ("empty", _native.Current.__new__(_native.Current)),
            ("few", _native.Current(ints(8, 5, 6))),
            ("lower", current(4, 6, 32)),
            ("wider", current(5, 7, 32)),
        ],
    }
    wrong |= {size: [*numbers(1, 2**24), ("another", 9)] for size in ("height", "width")}
    wrong |= {"border": numbers(0, 64), "threads": numbers(1, 1024), "residual": [("None", None), ("a text", "no")]}
    yield from replaced("Clocked.fire", layer.fire, good, wrong)
    nothing = {"sources": [], "skips": [], "current": None, "height": 2**24, "width": 2**24, "border": 0, "threads": 1}
    yield "Clocked.fire of nothing", first_layer(_native.Clocked).fire, {**nothing, "residual": False}
    many, one = ints(33, 900, 7, 7), dict.fromkeys(("bias", "start", "threshold", "level", "amplitude"), ints(33))
    long = _native.Clock(2**15 - 1, 0, False, False)
    deep = {"channels": 33, "factor": 1, "sources": [(many, many, 1, 3)], "skips": [], **one, "clock": long, "path": ""}
    yield "Clocked of many channels for long", _native.Clocked, deep
    yield uninitialised(_native.Clocked, "fire", good)
    trains = spikes(4, 5, 6)
    yield from replaced("Trains.spikes", trains.spikes, WINDOW, {"rows": spans(5), "columns": spans(6)})
    yield from replaced("Trains.counts", trains.counts, {"steps": (0, 4)}, {"steps": spans(4)})
    yield uninitialised(_native.Trains, "counts", {"steps": (0, 4)})
    yield uninitialised(_native.Trains, "spikes", WINDOW)
    yield uninitialised(_native.Trains, "array", {})
    yield "Trains()", _native.Trains, {}


def integers() -> Iterator[Call]:
    weights, each = ints(8, 4, 3, 3), ints(8)
    read, image = (weights, 1, 1, 7), (ints(8, 2, 3, 3), 1, 1, each)
    good = {"channels": 2, "factor": 2, "steps": 7, "signed": False, "last": False, "sources": [read]}
    good |= {"skips": [ints(2)], "image": image, "bias": each, "exponent": each, "path": ""}
    exponents = [*arrays(each), ("negative", -each), ("31", 31 * each), ("least", each * -(2**31))]
    wrong: dict[str, Any] = {"channels": numbers(1, 2**16), "factor": numbers(1, 8), "steps": numbers(1, 255)}
    wrong |= {"signed": [("None", None), ("before the last", True)], "last": [("None", None), ("a text", "no")]}
    wrong |= {"bias": [*arrays(each), ("beyond 32 bits", each * (2**31 - 1))], "exponent": exponents, "path": paths()}
    wrong["skips"] = [("None", None), ("a number", 1), ("an object", [Odd()]), ("too long", [ints(8)])]
    wrong["skips"] += [("beyond 32 bits", [ints(2) * (2**31 - 1)]), ("of floats", [np.ones(2)]), ("a None", [None])]
    reads = [(what, [(value, *read[1:])]) for what, value in kernels(weights) if what not in MORE]
    for place, most in ((1, 8), (2, 64), (3, 255)):
        least = 0 if place == 2 else 1
        reads += [(f"{what}, place {place}", [swapped(read, place, value)]) for what, value in numbers(least, most)]
    reads += [("no list", None), ("a None", [None]), ("too short", [read[:3]]), ("too long", [(*read, 1)])]
    reads += [("the largest weights", [(weights * (2**31 - 1), *read[1:])]), ("two of four", [list(read)[:2]])]
    wrong["sources"] = reads
    images = [(what, (value, *image[1:])) for what, value in kernels(image[0]) if what not in MORE]
    for place, most in ((1, 8), (2, 64)):
        least = (0, 1, 0)[place]
        images += [(f"{what}, place {place}", swapped(image, place, value)) for what, value in numbers(least, most)]
    images += [(f"{what}, bias", swapped(image, 3, value)) for what, value in arrays(each)]
    images += [("too short", image[:3]), ("one number", 1), ("the largest", (image[0] * (2**31 - 1), *image[1:]))]
    wrong["image"] = images
    yield from replaced("Integer", _native.Integer, good, wrong)
    yield from pixels()
    yield from integer_layers(good)


MORE = ("more inputs", *(f"a kernel of {side} x {side}" for side in (2, 8, 9)))
"""What is wrong with other kernels alone: a reading says how many inputs it has, and how large it is."""


def swapped(values: tuple[Any, ...], place: int, value: Any) -> tuple[Any, ...]:
    return (*values[:place], value, *values[place + 1 :])


def pixels() -> Iterator[Call]:
    numbers_ = np.ones((2, *SIZE))
    some = [("of three dimensions too many", numbers_[None, None]), ("no rows", numbers_[:, :0])]
    some += [(what, value) for what, value in arrays(numbers_) if what != "longer"]
    good = {"numbers": numbers_, "bits": 12, "border": 1}
    wrong = {"numbers": some, "bits": numbers(8, 20), "border": numbers(0, 64)}
    yield from replaced("Pixels", _native.Pixels, good, wrong)
    others = [(what, value) for what, value in arrays(numbers_.astype(np.int32)) if what != "longer"]
    yield from replaced("Current", _native.Current, {"numbers": numbers_.astype(np.int32)}, {"numbers": others})


def integer_layers(made: Mapping[str, Any]) -> Iterator[Call]:
    """Wrong calls of ``fire``."""
    layer = _native.Integer(**made)

    def levels(channels: int, height: int, width: int, steps: int = 7, border: int = 2) -> Any:
        none = ints(channels)
        source = _native.Integer(channels, 1, steps, False, False, [], [], None, none, none, "")
        return source.fire(
            [], [], None, currents(16 * -(-channels // 16), height, width), height, width, border, 1, False
        )[0]

    def currents(channels: int, height: int = 5, width: int = 6) -> Any:
        return _native.Current(ints(channels, height, width))

    def image(channels: int = 2, height: int = 5, width: int = 6, border: int = 1, largest: int = 1) -> Any:
        return _native.Pixels(np.full((channels, height, width), largest / 256), 8, border)

    good = {"sources": [levels(4, 5, 6)], "skips": [levels(2, 10, 12)], "image": image(), "current": None}
    good |= {"height": 5, "width": 6, "border": 1, "threads": 1, "residual": True}
    of_any = [("None", None), ("a None", [None]), ("none", []), ("a number", [1]), ("a current", [currents(16)])]
    of_any += [("an array", [ints(4, 5, 6)]), ("a layer", [layer]), ("an image", [image()])]
    of_any += [("empty", [_native.Levels.__new__(_native.Levels)])]
    wrong: dict[str, Any] = {
        "sources": [
            *of_any,
            ("two", [levels(4, 5, 6)] * 2),
            ("fewer channels", [levels(3, 5, 6)]),
            ("more channels", [levels(5, 5, 6)]),
            ("lower", [levels(4, 3, 6)]),
            ("narrower", [levels(4, 5, 4)]),
            ("no border", [levels(4, 5, 6, border=0)]),
            ("larger counts", [levels(4, 5, 6, steps=8)]),
        ],
        "skips": [
            *of_any,
            ("two", [levels(2, 10, 12)] * 2),
            ("other channels", [levels(3, 10, 12)]),
            ("lower", [levels(2, 9, 12)]),
            ("wider", [levels(2, 10, 13)]),
            ("of the sums' size", [levels(2, 5, 6)]),
        ],
        "image": [
            ("None", None),
            ("counts", levels(2, 5, 6)),
            ("a current", currents(16)),
            ("empty", _native.Pixels.__new__(_native.Pixels)),
            ("other channels", image(3)),
            ("lower", image(height=3)),
            ("narrower", image(width=4)),
            ("no border", image(border=0)),
        ],
        "current": [
            ("beside the image", currents(16)),
            ("a number", 1),
            ("counts", levels(2, 5, 6)),
            ("empty", _native.Current.__new__(_native.Current)),
        ],
    }
    wrong |= {size: [*numbers(1, 2**24), ("another", 9)] for size in ("height", "width")}
    wrong |= {"border": numbers(0, 64), "threads": numbers(1, 1024), "residual": [("None", None), ("a text", "no")]}
    yield from replaced("Integer.fire", layer.fire, good, wrong)
    by_current = {**good, "image": None}
    for name, value in (("few", currents(4)), ("lower", currents(16, 4)), ("wider", currents(16, 5, 7))):
        yield f"Integer.fire by a current: {name}", layer.fire, {**by_current, "current": value}
    blind = _native.Integer(**{**made, "image": None})
    yield "Integer.fire with an image that it does not read", blind.fire, good
    bright = _native.Integer(**{**made, "image": (ints(8, 2, 3, 3) * (2**22 - 1), 1, 1, ints(8))})
    yield "Integer.fire with an image beyond 32 bits", bright.fire, {**good, "image": image(largest=2**15 - 1)}
    nothing = {"sources": [], "skips": [], "image": None, "current": None, "height": 2**24, "width": 2**24}
    empty = _native.Integer(2, 1, 7, False, False, [], [], None, ints(2), ints(2), "")
    yield "Integer.fire of nothing", empty.fire, {**nothing, "border": 0, "threads": 1, "residual": False}
    yield from replaced("Integer.takes", layer.takes, {"image": image()}, {"image": of_any[3:]})
    yield uninitialised(_native.Integer, "fire", good)
    yield uninitialised(_native.Integer, "takes", {"image": image()})
    yield from replaced("Levels.histogram", levels(4, 5, 6).histogram, WINDOW, {"rows": spans(5), "columns": spans(6)})
    yield uninitialised(_native.Levels, "histogram", WINDOW)
    yield uninitialised(_native.Levels, "array", {})
    yield "Levels()", _native.Levels, {}


def readouts() -> Iterator[Call]:
    trains = first_layer(_native.Clocked).fire([], [], current(), *SIZE, 3, 1, False)[0]
    counts, weights, each = trains.counts((0, 4)), np.ones((2, 4, 3, 3)), np.ones(2)
    good = {"counts": counts, "extended": counts, "weights": weights, "extended_weights": weights, "bias": each}
    good |= {"residual": current(), "grid": each, "theta": each, "start": 0.0, "most": 4, "height": 5, "width": 6}
    good |= {"signed": True, "threads": 1}
    spikes = [
        ("None", None),
        ("a number", 1),
        ("an array", ints(4, 5, 6)),
        ("trains", trains),
        ("membranes", current()),
    ]
    spikes += [("empty", _native.Counts.__new__(_native.Counts))]
    spikes += [
        (
            "fewer channels",
            first_layer(_native.Clocked, None, 3).fire([], [], current(5, 6, 3), *SIZE, 3, 1, False)[0].counts((0, 4)),
        )
    ]
    of_weights = [(what, value) for what, value in kernels(weights) if what not in MORE[1:]]
    wrong: dict[str, Any] = {"counts": spikes, "extended": spikes[1:]}
    wrong |= {"weights": of_weights, "extended_weights": of_weights}
    wrong |= {"bias": list(arrays(each))[1:], "grid": arrays(each), "theta": arrays(each)}
    wrong["residual"] = [("a number", 1), ("counts", counts), ("lower", current(4)), ("narrower", current(5, 5))]
    wrong |= {"start": [("None", None), ("a text", "0")], "most": numbers(1, 2**15 - 1)}
    wrong |= {"height": numbers(1, 5), "width": numbers(1, 6), "threads": numbers(1, 1024)}
    wrong["signed"] = [("None", None), ("a text", "no")]
    yield from replaced("read_out", _native.read_out, good, wrong)


def current(height: int = 5, width: int = 6, channels: int = 4) -> Any:
    layer = _native.Analog(np.ones((channels, 2, 3, 3)), np.ones(channels), ints(channels), "")
    return layer.run(np.ones((2, height, width)), 1)


def first_layer(kind: Any, clock: Any = None, channels: int = 4) -> Any:
    """A layer that reads the image's current alone."""
    none, each = np.zeros((channels, 0, 1, 1), np.int32), ints(channels)
    if kind is _native.Phased:
        return kind(none, [], each, each, clock or _native.Clock(4, 3, False, False), "")
    return kind(channels, 1, [], [], each, each, each, each, each, clock or _native.Clock(4, 0, False, False), "")


def phased_layers(layer: Any) -> Iterator[Call]:
    """Wrong calls of ``fire``."""
    trains = first_layer(_native.Clocked).fire([], [], current(), *SIZE, 3, 1, False)[0]

    def spikes(height: int = 5, width: int = 6, border: int = 3, channels: int = 4) -> Any:
        first, of_image = first_layer(_native.Phased, None, channels), current(height, width, channels)
        return first.fire([], of_image, height, width, border, 1, False)[0]

    good = {"sources": [spikes()], "current": None, "height": 5, "width": 6, "border": 1, "threads": 1}
    sources = [
        ("none", []),
        ("two", [spikes(), spikes()]),
        ("None", None),
        ("a None", [None]),
        ("a number", [1]),
        ("an array", [ints(4, 5, 6)]),
        ("without a list", spikes()),
        ("of the other kind", [trains]),
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
    yield from replaced("Phased.fire", layer.fire, {**good, "residual": True}, wrong)
    nothing = {"sources": [], "current": None, "height": 2**24, "width": 2**24, "border": 0, "threads": 1}
    yield "Phased.fire of nothing", first_layer(_native.Phased).fire, {**nothing, "residual": False}
    yield uninitialised(_native.Phased, "fire", {**good, "residual": True})
    wide = first_layer(_native.Phased, None, 40)
    yield "Phased.fire with few channels of current", wide.fire, {**nothing, "current": current(), "residual": False}


def main() -> None:
    tried: set[str] = set()
    for name, call, arguments in itertools.chain(clocks(), analog(), phased(), clocked(), integers(), readouts()):
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
