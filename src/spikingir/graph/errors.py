"""What a body cannot hold."""

from spikingir.errors import SpikingIRError


class ConversionError(SpikingIRError, ValueError):
    """A network, its weights or the calibration images cannot be converted: which, where, and what to do."""


class NotLinear(ConversionError):
    """An operation that no body can hold; on the raw image, which is a constant, it may stay as it is."""


class TilingError(SpikingIRError):
    """A network that sees the whole image at once, or wherever it was not meant to; the text says which operation."""
