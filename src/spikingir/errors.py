"""The base of all errors that are the user's to mend, and the two that belong to no room."""


class SpikingIRError(Exception):
    """Something that whoever runs this can mend: a file, a value, a request. Its text is one sentence that says what.

    Every error of this package that is no bug derives from it, so ``except SpikingIRError`` catches all of them and
    hides nothing else.
    """


class InputError(SpikingIRError, ValueError):
    """A value or an image that does not fit where it was given; the text says which, and what fits."""


class UsageError(SpikingIRError):
    """Arguments that do not go together; the text says which. The command line ends with exit code 2."""
