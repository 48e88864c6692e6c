"""The error of this room."""

from spikingir.errors import SpikingIRError


class ExportError(SpikingIRError):
    """A network that a format cannot hold, or a file that cannot be read; the text says why."""
