"""Runs folded networks: natively, following the spikes, where that can be done, else with torch; the same bits."""

from spikingir.engine.choice import EngineError, native_available, restore, trace

__all__ = ["EngineError", "native_available", "restore", "trace"]
