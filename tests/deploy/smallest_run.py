"""Every kind of layer once, on a few pixels, without torch: what `make valgrind` watches.

The paths of the processor are compared with each other; that they agree with torch is shown by test_engine.py.
"""

import sysconfig
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

SIZE, BORDER, STEPS, INPUTS = (5, 9), 3, 4, 3
WINDOW = (1, 4), (0, 9)


def main() -> None:
    native = load_extension(next(Path(sysconfig.get_path("purelib")).glob("spikingir/deploy/_native*")))
    found: dict[str, list[bytes]] = {}
    for path in native.paths():
        arrays = [
            array
            for kernel in (1, 3, 7)
            for largest in (90, 12_000, 20_000, 200_000)  # many rows in 16 bits, four, two, and 32 bits
            for outputs in (33, 4)  # more than a word, and steps side by side
            for array in run(native, path, kernel, largest, outputs)
        ]
        for factor, stride, channels in ((1, 2, 37), (2, 1, 33), (2, 3, 5)):  # more than a word of each pixel, and less
            arrays += run_trains(native, path, factor, stride, channels)
        for factor, largest, channels in ((1, 127, 17), (2, 127, 16), (2, 9_000, 3)):
            arrays += run_integers(native, path, factor, largest, channels)
        found[path] = [array.tobytes() for array in arrays]
    assert all(arrays == found["portable"] for arrays in found.values())
    print(f"these paths agree: {', '.join(found)}")  # noqa: T201


def load_extension(file: Path) -> ModuleType:
    """The extension without the package around it, which imports torch."""
    spec = spec_from_file_location("_native", file)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(native: Any, path: str, kernel: int, largest: int, outputs: int) -> list[NDArray[Any]]:
    """A layer on the image and one on its spikes: clocked, with and without extended step, and phased."""
    random = np.random.default_rng(kernel)
    weights = random.random((outputs, INPUTS, kernel, kernel)) - 0.4
    analog = native.Analog(100 * weights, np.ones(outputs), full(outputs, 2), path)
    current = analog.run(random.random((INPUTS, *SIZE)), 2)
    none = np.zeros((outputs, 0, 1, 1), np.int32)  # of a phased layer
    read = random.integers(-largest, largest, (INPUTS, outputs, kernel, kernel), np.int32)
    found = [current.array(outputs)]
    for extended in (False, True):
        clock, signed = native.Clock(STEPS, 0, extended, False), native.Clock(STEPS, 1, extended, True)
        first = native.Clocked(outputs, 1, [], [], **clocked(outputs), clock=clock, path=path)
        reads = [(read, read, 1, kernel // 2)]
        last = native.Clocked(INPUTS, 1, reads, [], **clocked(INPUTS), clock=signed, path=path)
        hidden, _ = first.fire([], [], current, *SIZE, BORDER, 2, False)
        spikes, residual = last.fire([hidden], [], None, *SIZE, BORDER, 2, True)
        found += [hidden.array(), hidden.spikes(*WINDOW), spikes.array(), residual.array(INPUTS)]
    clock, signed = native.Clock(STEPS, STEPS - 1, False, False), native.Clock(STEPS, STEPS - 1, False, True)
    first = native.Phased(none, [], full(outputs, 0), full(outputs, 6), clock, path)
    last = native.Phased(read, [outputs], full(INPUTS, 3), full(INPUTS, 6), signed, path)
    hidden, _ = first.fire([], current, *SIZE, BORDER, 2, False)
    counts, residual = last.fire([hidden], None, *SIZE, BORDER, 2, True)
    return [*found, hidden.array(), hidden.histogram(*WINDOW), counts.array(), residual.array(INPUTS)]


def run_trains(native: Any, path: str, factor: int, stride: int, channels: int) -> list[NDArray[Any]]:
    """Clocked layers of any size: on an image's current, and on its spikes by a stride, shuffled, with a skip."""
    random = np.random.default_rng(factor)
    clock, sums = native.Clock(STEPS, 1, True, False), channels * factor**2

    def of_image(height: int, width: int) -> Any:
        first = native.Clocked(channels, 1, [], [], **clocked(channels), clock=clock, path=path)
        order = np.array(first.current_order)
        numbers = random.integers(-30, 90, (channels, height, width), np.int32)
        current = native.Current(np.where(order[:, None, None] < 0, 0, numbers[order]))
        return first.fire([], [], current, height, width, BORDER, 2, False)[0]

    small = [(side - 2) // stride + 1 for side in SIZE]
    weights = random.integers(-90, 90, (2, sums, channels, 2, 2), np.int32) << 3
    scales = full(channels, 30), full(channels, 20)
    then = native.Clocked(
        channels, factor, [(*weights, stride, 0)], [scales], **clocked(channels, factor), clock=clock, path=path
    )
    sources, skips = [of_image(*SIZE)], [of_image(*(factor * side for side in small))]
    spikes, residual = then.fire(sources, skips, None, *small, BORDER, 2, True)
    counts = spikes.counts((0, STEPS)), spikes.counts((STEPS, STEPS + 1))
    found = [sources[0].array(), spikes.array(), spikes.spikes((0, 1), (0, 2)), residual.array(channels)]
    return [*found, *(count.array() for count in counts)]


def run_integers(native: Any, path: str, factor: int, largest: int, channels: int) -> list[NDArray[Any]]:
    """Layers of counts of one byte: on the image, on its counts with a skip and the image, and the last one."""
    random = np.random.default_rng(factor)
    image = native.Pixels(np.round(random.random((INPUTS, *SIZE)) * 2.0**12) / 2.0**12, 12, BORDER)

    def weights(outputs: int, inputs: int, most: int, side: int = 3) -> NDArray[np.int32]:
        return random.integers(-most, most, (outputs, inputs, side, side), np.int32)

    sums, numbers = channels * factor**2, {"signed": False, "last": False, "path": path}
    of_image = (weights(channels, INPUTS, 2**20), 1, 1, full(channels, 5))  # in two parts
    first = native.Integer(
        channels=channels, factor=1, steps=7, sources=[], skips=[], image=of_image,
        bias=full(channels, 9), exponent=full(channels, 20), **numbers,
    )  # fmt: skip
    hidden, _ = first.fire([], [], image, None, *SIZE, BORDER, 2, False)
    source = (weights(sums, channels, largest, 2), factor, 0, 7)
    then = native.Integer(
        channels=channels, factor=factor, steps=31, sources=[source], skips=[full(channels, 3)], image=None,
        bias=full(sums, 9), exponent=full(sums, 6), **numbers,
    )  # fmt: skip
    small = [side // factor for side in SIZE]
    whole = first.fire([], [], image, None, *SIZE, BORDER, 1, True)
    cut = native.Pixels(np.ones((INPUTS, *(factor * side for side in small))), 12, BORDER)  # in one, of few bits
    skip, _ = first.fire([], [], cut, None, *(factor * side for side in small), BORDER, 1, False)
    again, residual = then.fire([hidden], [skip], None, None, *small, BORDER, 2, True)
    last = native.Integer(
        channels=1, factor=2, steps=31, sources=[(weights(4, channels, largest), 1, 1, 31)], skips=[], image=None,
        bias=full(4, 0), exponent=full(4, 5), **{**numbers, "signed": True, "last": True},
    )  # fmt: skip
    ones = np.ones((1, 1, 3, 3))
    counts, membranes = last.fire([again], [], None, None, *(factor * side for side in small), 0, 2, True)
    found = [hidden.array(), whole[0].array(), whole[1].array(channels), again.array(), residual.array(channels)]
    output = native.read_out(
        counts, None, ones, ones, None, membranes, np.full(1, 32.0), np.ones(1), 0.0, 31, 2, 2, True, 2
    )
    return [*found, again.histogram((0, 1), (0, 2)), counts.array(), membranes.array(1), output]


def full(count: int, value: int) -> NDArray[np.int32]:
    return np.full(count, value, np.int32)


def clocked(channels: int, factor: int = 1) -> dict[str, NDArray[np.int32]]:
    """Bias and thresholds of a clocked layer."""
    numbers = {"start": 0, "threshold": 64, "level": 40, "amplitude": 70}
    return {"bias": full(channels * factor**2, 3)} | {name: full(channels, value) for name, value in numbers.items()}


if __name__ == "__main__":
    main()
