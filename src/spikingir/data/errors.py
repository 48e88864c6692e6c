"""The one error of data sets."""

from spikingir.errors import SpikingIRError


class DataError(SpikingIRError):
    """A set of images is missing, half copied or damaged: which folder, what was expected there, what is missing."""
