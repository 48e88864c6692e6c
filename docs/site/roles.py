"""Docstrings as the site's generator reads them: cross-references as plain code, examples as code."""

import re
from typing import Any

from griffe import Extension, Object

_ROLE = re.compile(r":(?:class|func|meth|attr|data|mod):`(~?)([\w.]+)`")
_EXAMPLE = re.compile(r"^( *)Example:$", re.MULTILINE)


class Roles(Extension):
    """Rewrites the docstring of every object once it is read."""

    def on_object(self, *, obj: Object, **kwargs: Any) -> None:
        """Rewrite one."""
        if obj.docstring is not None:
            text = _ROLE.sub(lambda role: f"`{_shown(*role.groups())}`", obj.docstring.value)
            obj.docstring.value = _EXAMPLE.sub(r"\1Examples:", text)


def _shown(short: str, name: str) -> str:
    return name.rpartition(".")[2] if short else name
