"""The one error of conversion."""

from spikingir.errors import SpikingIRError


class ConversionError(SpikingIRError, ValueError):
    """A network, its weights or the calibration images cannot be converted: which, where, and what to do."""
