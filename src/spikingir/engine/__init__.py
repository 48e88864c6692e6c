"""Runs folded networks: natively, following the spikes, where that can be done, else with torch; the same bits."""

from spikingir.engine.choice import Engine, EngineError, bytes_per_pixel, count, native_available, restore, trace

__all__ = ["Engine", "EngineError", "bytes_per_pixel", "count", "native_available", "restore", "trace"]
