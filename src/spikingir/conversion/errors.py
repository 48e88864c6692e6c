"""The one error of conversion."""


class ConversionError(ValueError):
    """A network, its weights or the calibration images cannot be converted: which, where, and what to do."""
