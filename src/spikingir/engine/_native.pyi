"""The extension module made of ``native/``."""

import numpy as np
from numpy.typing import NDArray

def paths() -> list[str]: ...

class Current:
    def array(self, channels: int) -> NDArray[np.int32]: ...

class Counts:
    def array(self) -> NDArray[np.int16]: ...
    def spikes(self, time_steps: int, rows: tuple[int, int], columns: tuple[int, int]) -> NDArray[np.int64]: ...

class Trains:
    def array(self) -> NDArray[np.int8]: ...
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

class Clocked:
    def __init__(
        self,
        weights: NDArray[np.int32],
        extended: NDArray[np.int32],
        channels: list[int],
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
        current: Current | None,
        height: int,
        width: int,
        border: int,
        threads: int,
        residual: bool,
    ) -> tuple[Trains, Current | None]: ...
