"""The command line: parses, calls, prints.

Exit codes: 0 all done, 1 something failed (one sentence on stderr says what), 2 wrong usage, 130 stopped by Ctrl-C.
Nothing heavy is imported before a command needs it, so that ``--help`` and ``--version`` answer at once.
"""

import io
import os
import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError

from spikingir import __version__
from spikingir.cli.console import (
    BROKEN_PIPE,
    DONE,
    FAILED,
    STOPPED,
    STREAM,
    WRONG_USAGE,
    UsageError,
    complain,
    is_expected,
    sentence,
)
from spikingir.cli.energy import energy
from spikingir.cli.evaluate import ablation, evaluate
from spikingir.cli.models import models
from spikingir.cli.reproduce import benchmark, reproduce
from spikingir.cli.restore import dehaze, demo, denoise
from spikingir.cli.serve import serve
from spikingir.cli.train import convert, finetune, recipes, train

app = App(
    name="spikingir",
    help="Image restoration with spiking neural networks.",
    version=__version__,
    help_format="plaintext",
)
_COMMANDS = (denoise, dehaze, demo, train, finetune, convert, recipes, models)
_MEASURING = (evaluate, ablation, energy, benchmark, reproduce)
for command in (*_COMMANDS, *_MEASURING, serve):
    app.command(command)
app.register_install_completion_command(help="Install completion for this shell.")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        arguments: What follows the program's name; those of the process unless given.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")  # file names need not be text
    try:
        given = sys.argv[1:] if arguments is None else list(arguments)
        if given[:1] in (["denoise"], ["dehaze"]):
            given = [STREAM if argument == "-" else argument for argument in given]
        function, bound, _ = app.parse_args(given, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        complain(f"{sentence(error)} (spikingir --help lists what there is)")
        return WRONG_USAGE
    try:
        function(*bound.args, **bound.kwargs)
        sys.stdout.flush()
    except UsageError as error:
        complain(sentence(error))
        return WRONG_USAGE
    except KeyboardInterrupt:
        complain("stopped")
        return STOPPED
    except BrokenPipeError:  # the reader has seen enough; the interpreter's own flush must not complain either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except Exception as error:
        if not is_expected(error):
            raise
        complain(sentence(error))
        return FAILED
    return DONE
