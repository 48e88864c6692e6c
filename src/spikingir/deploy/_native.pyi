"""The extension module made of ``native/``."""

import numpy as np
from numpy.typing import NDArray

sources: str

def paths() -> list[str]: ...
def read_out(
    counts: Counts,
    extended: Counts | None,
    weights: NDArray[np.float64],
    extended_weights: NDArray[np.float64],
    bias: NDArray[np.float64] | None,
    residual: Current | None,
    grid: NDArray[np.float64],
    theta: NDArray[np.float64],
    start: float,
    most: int,
    height: int,
    width: int,
    signed: bool,
    threads: int,
) -> NDArray[np.float64]: ...

class Current:
    def __init__(self, numbers: NDArray[np.int32]) -> None: ...
    def array(self, channels: int) -> NDArray[np.int32]: ...

class Counts:
    def array(self) -> NDArray[np.int16]: ...
    def histogram(self, rows: tuple[int, int], columns: tuple[int, int]) -> NDArray[np.int64]: ...

class Levels:
    def array(self) -> NDArray[np.uint8]: ...
    def histogram(self, rows: tuple[int, int], columns: tuple[int, int]) -> NDArray[np.int64]: ...

class Pixels:
    def __init__(self, numbers: NDArray[np.float64], bits: int, border: int) -> None: ...

class Trains:
    def array(self) -> NDArray[np.int8]: ...
    def counts(self, steps: tuple[int, int]) -> Counts: ...
    def spikes(self, rows: tuple[int, int], columns: tuple[int, int]) -> NDArray[np.int64]: ...

class Clock:
    def __init__(self, time_steps: int, delay: int, extended: bool, signed: bool) -> None: ...

class Analog:
    def __init__(
        self, weights: NDArray[np.float64], bias: NDArray[np.float64], after: NDArray[np.int32], path: str
    ) -> None: ...
    def run(self, image: NDArray[np.float64], threads: int) -> Current: ...

class Phased:
    def __init__(
        self,
        weights: NDArray[np.int32],
        channels: list[int],
        bias: NDArray[np.int32],
        exponent: NDArray[np.int32],
        clock: Clock,
        path: str,
    ) -> None: ...
    def fire(
        self,
        sources: list[Counts],
        current: Current | None,
        height: int,
        width: int,
        border: int,
        threads: int,
        residual: bool,
    ) -> tuple[Counts, Current | None]: ...

class Integer:
    current_order: list[int]
    def __init__(
        self,
        channels: int,
        factor: int,
        steps: int,
        signed: bool,
        last: bool,
        sources: list[tuple[NDArray[np.int32], int, int, int]],
        skips: list[NDArray[np.int32]],
        image: tuple[NDArray[np.int32], int, int, NDArray[np.int32]] | None,
        bias: NDArray[np.int32],
        exponent: NDArray[np.int32],
        path: str,
    ) -> None: ...
    def takes(self, image: Pixels) -> bool: ...
    def fire(
        self,
        sources: list[Levels],
        skips: list[Levels],
        image: Pixels | None,
        current: Current | None,
        height: int,
        width: int,
        border: int,
        threads: int,
        residual: bool,
    ) -> tuple[Levels | Counts, Current | None]: ...

class Clocked:
    current_order: list[int]
    by_columns: bool
    def __init__(
        self,
        channels: int,
        factor: int,
        sources: list[tuple[NDArray[np.int32], NDArray[np.int32], int, int]],
        skips: list[tuple[NDArray[np.int32], NDArray[np.int32]]],
        bias: NDArray[np.int32],
        start: NDArray[np.int32],
        threshold: NDArray[np.int32],
        level: NDArray[np.int32],
        amplitude: NDArray[np.int32],
        clock: Clock,
        path: str,
    ) -> None: ...
    def fire(
        self,
        sources: list[Trains],
        skips: list[Trains],
        current: Current | None,
        height: int,
        width: int,
        border: int,
        threads: int,
        residual: bool,
    ) -> tuple[Trains, Current | None]: ...
