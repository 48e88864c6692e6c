"""All commands, and what becomes of their errors.

Nothing heavy is imported before a command needs it, so that ``--help`` and ``--version`` answer at once.
"""

import os
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from cyclopts import App, CoercionError, CycloptsError, MissingArgumentError

from spikingir.cli.console import (
    BROKEN_PIPE,
    DONE,
    FAILED,
    STREAM,
    WRONG_USAGE,
    complain,
    is_expected,
    prepare_streams,
    sentence,
)
from spikingir.cli.energy import energy
from spikingir.cli.evaluate import evaluate
from spikingir.cli.export import export, import_
from spikingir.cli.models import models
from spikingir.cli.parser import command_line
from spikingir.cli.restore import demo, restoring_command
from spikingir.cli.serve import serve
from spikingir.cli.train import convert, finetune, recipes, train
from spikingir.errors import UsageError
from spikingir.plugins import PluginError
from spikingir.tasks import DEHAZE, DENOISE, TASKS

# Each command, in the order of what people come for, and what they type: the first line of its help
_COMMANDS: dict[Callable[..., None], str] = {
    serve: "serve --open",
    demo: f"demo --task {DEHAZE.name}",
    models: "models",
    evaluate: "evaluate denoise-gray-25 --data photos/",
    energy: "energy denoise-gray-25 --image photo.png --sigma 25",
    export: "export denoise-gray --to onnx -o denoise.onnx",
    import_: "import denoise.npz --from npz -o denoise.safetensors",
    convert: "convert dncnn_25.pth --data photos/ --sigma 25",
    finetune: "finetune denoise-gray-25 --data photos/",
    train: "train denoise-gray-25 --data-root DATA",
    recipes: "recipes",
}


def build(*loaded: str) -> App:
    """The command line, with a command for every task.

    Args:
        loaded: Tasks of other packages whose commands are wanted; of others there is the name alone, as their packages
            may take long to import.
    """
    app = command_line(
        "spikingir",
        help="Image restoration with spiking neural networks.",
        help_prologue=f"Example: spikingir {DENOISE.name} photo.jpg",
    )
    for place, name in enumerate(TASKS):
        if name in TASKS.added and name not in loaded:
            app.command(_not_loaded, name=name, help="Restore photographs, by another package.", sort_key=place)
        else:
            example = f"Example: spikingir {name} photo.jpg"
            app.command(restoring_command(TASKS[name]), help_prologue=example, sort_key=place)
    for place, (command, example) in enumerate(_COMMANDS.items(), len(TASKS)):
        name = example.split()[0]  # of one that Python has a keyword for, too
        app.command(command, name=name, help_prologue=f"Example: spikingir {example}", sort_key=place)
    app.register_install_completion_command(help="Install completion for this shell.")
    return app


def _not_loaded(*arguments: str) -> None:
    """What stands for the command of a task that is not loaded."""


app = build()

# For one release: who types what used to be a command here is told where it is.
_MOVED = {"reproduce": "", "benchmark": " benchmark", "ablation": " ablate"}


def run(arguments: Sequence[str], commands: App) -> int:
    """Run a command and return its exit code.

    Args:
        arguments: What follows the program's name.
        commands: What there is to run.

    Raises:
        KeyboardInterrupt: Ctrl-C, at any moment.
    """
    prepare_streams()
    if sys.stdout is None:
        complain("stdout is closed, so no result can be shown; send it to a file, or to /dev/null")
        return FAILED
    try:
        given = list(arguments)
        if commands is app and given and given[0] in _MOVED:
            moved = f"python -m reproduce{_MOVED[given[0]]}"
            complain(f"the command '{given[0]}' has moved; run {moved} in a checkout of the repository instead")
            return WRONG_USAGE
        if given and given[0] in TASKS:
            if commands is app and given[0] in TASKS.added:
                commands = build(given[0])
            given = [STREAM if argument == "-" else argument for argument in given]
        function, bound, _ = commands.parse_args(given, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        command = " ".join([commands.name[0], *(error.command_chain or ())])
        complain(f"{_dashed(_usage(error, commands), given)} ({command} --help lists what there is)")
        return WRONG_USAGE
    except PluginError as error:
        complain(sentence(error))
        return FAILED
    try:
        function(*bound.args, **bound.kwargs)
        sys.stdout.flush()
    except UsageError as error:
        complain(sentence(error))
        return WRONG_USAGE
    except BrokenPipeError:  # the reader has seen enough
        _drop_stdout()
        return BROKEN_PIPE
    except Exception as error:
        if not is_expected(error):
            raise
        complain(sentence(error))
        try:
            sys.stdout.flush()
        except OSError:
            _drop_stdout()
        return FAILED
    return DONE


_FILE = re.compile(r"-[^=]*\.[A-Za-z][A-Za-z0-9]*")  # no fraction, no option with its value


def _dashed(said: str, given: Sequence[str]) -> str:
    """What is wrong, with a hint where that may be a file whose name begins like an option."""
    names = [argument for argument in given if _FILE.fullmatch(argument)]
    return f"{said.rstrip('.')}; a file of the name {names[0]} is given as ./{names[0]}" if names else said


_NUMBERS: dict[type, str] = {float: "a number", int: "a whole number"}


def _usage(error: CycloptsError, commands: App) -> str:
    """What is wrong with the arguments, in the words of whoever types them, not in those of types."""
    argument, command = error.argument, " ".join(error.command_chain or ())
    if isinstance(error, MissingArgumentError) and argument is not None:
        if not argument.required:
            return f"{argument.name} needs a value"
        example = (commands[command].help_prologue or "") if command else ""
        shown = example.replace("Example:", ", as in:")
        return f"{command or commands.name[0]} needs {argument.name}{shown}"
    if isinstance(error, CoercionError) and error.token is not None and error.target_type is not None:
        wanted, name = _in_words(error.target_type), error.token.keyword or (argument and argument.name)
        if wanted is not None and name:
            return sentence(CycloptsError(msg=f'Invalid value "{error.token.value}" for {name}; expected {wanted}.'))
    return sentence(error)


def _in_words(kind: Any) -> str | None:
    """What values of a type are to whoever types them; None where the type says no more than its name."""
    if get_origin(kind) in (Union, UnionType):
        parts = [_in_words(part) for part in get_args(kind) if part is not NoneType]
        known = [part for part in parts if part is not None]
        # numbers last: typing forgets the order
        return " or ".join(sorted(known, key=lambda part: part in _NUMBERS.values())) if known == parts else None
    if get_origin(kind) is Literal:
        return ", ".join(map(str, get_args(kind)))
    if get_origin(kind) in (list, Annotated):
        return _in_words(get_args(kind)[0])
    return _NUMBERS.get(kind)


def _drop_stdout() -> None:
    """What stdout did not take goes nowhere: else the interpreter would try again at its end, and complain."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
