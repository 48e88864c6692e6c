"""Names of schedules and codings, for those who load no torch."""

from typing import Literal

Schedule = Literal["clocked", "phased"] | int
"""``clocked``, ``phased``, or the number of inputs that a layer waits for."""

Coding = Literal["unary", "binary"]
"""How the spikes of a phased window count, see :mod:`spikingir.spiking.coding`."""
