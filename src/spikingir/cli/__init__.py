"""The command line: parses, calls, prints.

Exit codes: 0 all done, 1 something failed (one sentence on stderr says what), 2 wrong usage, 130 stopped by Ctrl-C.
This module imports nothing, so that Ctrl-C is answered in one sentence while all the others are still being imported.
"""

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None, commands: str = "spikingir.cli.program") -> int:
    """Run the command line and return its exit code.

    Args:
        arguments: What follows the program's name; those of the process unless given.
        commands: The module whose ``app`` holds the commands.
    """
    try:
        from importlib import import_module

        from spikingir.cli.program import run

        return run(sys.argv[1:] if arguments is None else list(arguments), import_module(commands).app)
    except KeyboardInterrupt:
        if sys.stderr is not None:
            sys.stderr.write("spikingir: stopped\n")
        return 130
