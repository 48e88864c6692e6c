"""The one error of data sets."""


class DataError(ValueError):
    """A set of images is missing, half copied or damaged: which folder, what was expected there, what is missing."""
