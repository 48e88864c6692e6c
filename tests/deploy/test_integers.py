"""Layers in small numbers, on every path of the processor, against the same sums in NumPy's 64 bits."""

import itertools
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from spikingir.deploy import engine

pytestmark = pytest.mark.skipif(not engine.native_available(), reason="SpikingIR was installed without a compiler")

if engine.native_available():
    from spikingir.deploy import _native

Ints = NDArray[np.int64]


@dataclass
class Layer:
    """What an integer layer is made of, and what it reads."""

    channels: int
    factor: int
    steps: int
    size: tuple[int, int]
    last: bool
    signed: bool
    reads: list[tuple[Ints, int, int, int, Ints]] = field(
        default_factory=list
    )  # weights, stride, padding, most, counts
    skips: list[tuple[Ints, Ints]] = field(default_factory=list)  # scale, counts
    image: tuple[Ints, int, int, int, Ints, Ints] | None = None  # weights, stride, padding, bits, bias, numbers
    bias: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    exponent: Ints = field(default_factory=lambda: np.zeros(0, np.int64))


def convolved(x: Ints, weights: Ints, stride: int, padding: int, size: tuple[int, int]) -> Ints:
    kernel = weights.shape[-1]
    reach = [stride * (n - 1) + kernel for n in size]
    wide = np.zeros((len(x), *(max(r, n + 2 * padding) for r, n in zip(reach, x.shape[1:], strict=True))), np.int64)
    wide[:, padding : padding + x.shape[1], padding : padding + x.shape[2]] = x
    total = np.zeros((len(weights), *size), np.int64)
    for dy, dx in itertools.product(range(kernel), range(kernel)):
        rows, columns = (slice(d, d + stride * (n - 1) + 1, stride) for d, n in zip((dy, dx), size, strict=True))
        total += np.einsum("oi,ihw->ohw", weights[:, :, dy, dx], wide[:, rows, columns])
    return total


def shuffled(x: Ints, factor: int) -> Ints:
    channels, (height, width) = len(x) // factor**2, x.shape[1:]
    split = x.reshape(channels, factor, factor, height, width)
    return split.transpose(0, 3, 1, 4, 2).reshape(channels, height * factor, width * factor)


def on_grid(sums: Ints, bits: int, bias: Ints) -> Ints:
    return np.rint(sums / 2**bits + bias[:, None, None]).astype(np.int64)  # half to even, and exact: it fits a double


def expected(layer: Layer) -> tuple[Ints, Ints]:
    """Counts and residual membranes."""
    v = np.tile((layer.bias * layer.steps)[:, None, None], (1, *layer.size))
    for weights, stride, padding, _, counts in layer.reads:
        v = v + convolved(counts, weights, stride, padding, layer.size)
    if layer.image is not None:
        weights, stride, padding, bits, bias, numbers = layer.image
        v = v + on_grid(convolved(numbers, weights, stride, padding, layer.size), bits, bias) * layer.steps
    v = shuffled(v, layer.factor)
    for scale, counts in layer.skips:
        v = v + scale[:, None, None] * counts
    exponent = layer.exponent.reshape(layer.channels, -1)[:, 0]  # the same for all pixels of a channel
    unit = np.left_shift(1, exponent)[:, None, None]
    n = np.clip((v + unit // 2) // unit, -layer.steps if layer.signed else 0, layer.steps)
    return n, v - n * unit


def as_levels(counts: Ints, most: int, border: int, path: str) -> Any:
    """Counts as a layer gives them: one that adds up their bits, which others make of images of them."""
    channels, (height, width) = len(counts), counts.shape[1:]
    identity = np.eye(channels, dtype=np.int32)[:, :, None, None]
    none = np.zeros(channels, np.int32)
    image = (identity, 1, 0, none)
    bits = [(counts >> b) & 1 for b in range(8)]
    readers = [
        _native.Integer(channels, 1, 1, False, False, [], [], image, none, none, path).fire(
            [], [], _native.Pixels(bit.astype(np.float64), 8, 0), None, height, width, 0, 1, False
        )[0]
        for bit in bits
    ]
    skips = [np.full(channels, 1 << b, np.int32) for b in range(8)]
    maker = _native.Integer(channels, 1, most, False, False, [], skips, None, none, none, path)
    found, _ = maker.fire([], readers, None, None, height, width, border, 1, False)
    return found


def run(layer: Layer, path: str, border: int, threads: int, *, by_current: bool) -> tuple[Any, Any, Any]:
    reads = [(w.astype(np.int32), stride, padding, most) for w, stride, padding, most, _ in layer.reads]
    skips = [scale.astype(np.int32) for scale, _ in layer.skips]
    image: Any = None
    pixels = current = None
    if layer.image is not None and not by_current:
        weights, stride, padding, bits, bias, numbers = layer.image
        image = (weights.astype(np.int32), stride, padding, bias.astype(np.int32))
        pixels = _native.Pixels(numbers / 2.0**bits, bits, border)
    bias, exponent = layer.bias.astype(np.int32), layer.exponent.astype(np.int32)
    made = _native.Integer(
        layer.channels, layer.factor, layer.steps, layer.signed, layer.last, reads, skips, image, bias, exponent, path
    )
    if layer.image is not None and by_current:
        weights, stride, padding, bits, shift, numbers = layer.image
        sums = on_grid(convolved(numbers, weights, stride, padding, layer.size), bits, shift)
        order = np.array(made.current_order)
        current = _native.Current(np.where((order >= 0)[:, None, None], sums[order], 7).astype(np.int32))
    assume(pixels is None or made.takes(pixels))  # torch sums an image that is too large for 32 bits
    sources = [as_levels(counts, most, border, path) for _, _, _, most, counts in layer.reads]
    added = [as_levels(counts, 255, border, path) for _, counts in layer.skips]
    spikes, residual = made.fire(sources, added, pixels, current, *layer.size, border, threads, True)
    return spikes, residual, made


@st.composite
def layers(draw: st.DrawFn) -> Layer:
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    last = draw(st.booleans())
    channels, factor = draw(st.sampled_from([1, 2, 3, 5, 16, 17, 32, 33, 48])), draw(st.sampled_from([1, 1, 2, 3]))
    size = (draw(st.integers(1, 9)), draw(st.integers(1, 29)))
    steps = draw(st.sampled_from([1, 3, 7, 15, 31, 63, 255] + ([1000] if last else [])))
    layer = Layer(channels, factor, steps, size, last, last and draw(st.booleans()))
    outputs = channels * factor**2
    largest = draw(st.sampled_from([1, 50, 128, 129, 3000, 60_000]))
    for _ in range(draw(st.integers(0, 2))):
        inputs, kernel, stride = draw(st.integers(1, 40)), draw(st.integers(1, 4)), draw(st.integers(1, 3))
        padding, most = draw(st.integers(0, 3)), draw(st.sampled_from([1, 3, 7, 15, 31, 63, 127, 255]))
        weights = random.integers(-largest, largest, (outputs, inputs, kernel, kernel))
        if draw(st.booleans()):  # as far from zero as can be, where 16 bits would not hold
            weights = np.where(weights < 0, -largest, largest - 1)
        weights = weights << random.integers(0, draw(st.integers(1, 7)), (outputs, 1, 1, 1))
        before = [max(1, stride * (n - 1) + kernel - 2 * padding + draw(st.integers(0, 2))) for n in size]
        counts = random.integers(0, most + 1, (inputs, *before)) * (random.random((inputs, *before)) < 0.7)
        if draw(st.booleans()):
            counts[:] = most
        layer.reads.append((weights, stride, padding, most, counts))
    for _ in range(draw(st.integers(0, 2))):
        whole = (channels, size[0] * factor, size[1] * factor)
        layer.skips.append((random.integers(-1000, 1000, channels), random.integers(0, 256, whole)))
    if not (layer.reads or layer.skips) or draw(st.booleans()):
        inputs, kernel, stride, padding = (draw(st.integers(1, 4)) for _ in range(4))
        padding -= 1
        before = [max(1, stride * (n - 1) + kernel - 2 * padding) for n in size]
        high = draw(st.sampled_from([200, 4000, 2**22 - 1]))
        weights = random.integers(-high, high, (outputs, inputs, kernel, kernel))
        numbers = random.integers(-4096, 4097, (inputs, *before))
        bits = draw(st.integers(8, 16))
        if draw(st.booleans()):  # ties
            weights, numbers = weights >> 4 << 4, numbers >> (bits - 5) << (bits - 5)
        layer.image = (weights, stride, padding, bits, random.integers(-100, 100, outputs), numbers)
    layer.bias = random.integers(-3000, 3000, outputs)
    spread = draw(st.integers(0, 14))
    layer.exponent = np.repeat(random.integers(spread, spread + 6, channels), factor**2)
    return layer


@settings(max_examples=60, deadline=None)
@given(layer=layers(), threads=st.integers(1, 3), by_current=st.booleans())
def test_any_layer(layer: Layer, threads: int, by_current: bool) -> None:
    reach = np.abs(layer.bias) * layer.steps + np.left_shift(1, layer.exponent)
    reach += sum(most * np.abs(weights).sum((1, 2, 3)) for weights, _, _, most, _ in layer.reads)
    reach += sum(255 * np.abs(scale).repeat(layer.factor**2) for scale, _ in layer.skips)
    if reach.max() > 2**31 - 1:
        with pytest.raises(ValueError, match="do not fit 32 bits"):
            run(layer, "", 12, threads, by_current=by_current)
        return
    if layer.image is not None:
        weights, _, _, bits, bias, _ = layer.image
        reach += ((np.abs(weights).sum((1, 2, 3)) * 4096 >> bits) + np.abs(bias) + 1) * layer.steps
        assume(reach.max() < 2**31)  # such a layer is no network's: folding bounds its membranes
    counts, residual = expected(layer)
    for path in _native.paths():
        spikes, membranes, _ = run(layer, path, 12, threads, by_current=by_current)
        assert np.array_equal(spikes.array(), counts), path
        assert np.array_equal(membranes.array(layer.channels), residual), path
        rows, columns = (0, counts.shape[1]), (1, counts.shape[2])
        histogram = spikes.histogram(rows, columns)
        assert histogram.sum() == counts[:, :, 1:].size
        assert (histogram * np.arange(len(histogram))[:, None]).sum() == np.abs(counts[:, :, 1:]).sum()
