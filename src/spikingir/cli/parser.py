"""How command lines take their arguments and give help: what is not the parser's own."""

import re
from contextlib import suppress
from typing import Any, Literal, get_args, get_origin

from cyclopts import App, ArgumentCollection, CoercionError, Parameter

from spikingir import __version__


def command_line(name: str, **settings: Any) -> App:
    """A command line without commands, as ours are: what it takes for an answer, and how it gives help.

    Args:
        name: What starts it.
        **settings: Others of :class:`cyclopts.App`.
    """
    return App(
        name=name,
        version=__version__,
        config=_refuse_fractions,
        default_parameter=Parameter(negative=(), show_default=_default),
        help_format="plaintext",
        help_formatter=_Help(),
        **settings,
    )


def _refuse_fractions(app: App, chain: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Refuse 1.5 where a whole number is wanted; the parser, which calls this before it converts, would round it."""
    for argument in arguments:
        if not _takes(int, argument.hint) or _takes(float, argument.hint):
            continue
        for token in argument.tokens:
            with suppress(ValueError, OverflowError):  # other text is refused by the parser
                if "." in token.value and float(token.value) != int(float(token.value)):
                    raise CoercionError(argument=argument, token=token, target_type=argument.hint)


def _default(value: Any) -> str | None:
    """A default as help shows it: that nothing is given by itself goes without saying."""
    return None if value is None or value is False or value == () else str(value)


class _Help:
    """The parser's own help, in which a paragraph has the lines of the terminal, not those of the docstring."""

    def __call__(self, console: Any, options: Any, panel: Any) -> None:
        for entry in panel.entries:
            _flow(entry.description)
        self._own.__call__(console, options, panel)

    def render_usage(self, console: Any, options: Any, usage: Any) -> None:
        self._own.render_usage(console, options, usage)

    def render_description(self, console: Any, options: Any, description: Any) -> None:
        _flow(description)
        self._own.render_description(console, options, description)

    @property
    def _own(self) -> Any:
        from cyclopts.help import DefaultFormatter

        return DefaultFormatter()


def _flow(description: Any) -> None:
    text = getattr(description, "primary_renderable", None)
    if text is not None:
        text.plain = re.sub(r"(?<=\S) ?\n(?=\S)", " ", text.plain)


def _takes(kind: type, hint: Any) -> bool:
    """Whether values of a type fit a hint; those of a list do if its items are of that type."""
    return hint is kind or any(_takes(kind, part) for part in get_args(hint) if get_origin(hint) is not Literal)
