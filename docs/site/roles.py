"""Cross-references of docstrings as plain code: ``:func:`~spikingir.fold``` becomes ``fold``."""

import re
from typing import Any

from griffe import Extension, Object

_ROLE = re.compile(r":(?:class|func|meth|attr|data|mod):`(~?)([\w.]+)`")


class Roles(Extension):
    """Rewrites the docstring of every object once it is read."""

    def on_object(self, *, obj: Object, **kwargs: Any) -> None:
        """Rewrite one."""
        if obj.docstring is not None:
            obj.docstring.value = _ROLE.sub(lambda role: f"`{_shown(*role.groups())}`", obj.docstring.value)


def _shown(short: str, name: str) -> str:
    return name.rpartition(".")[2] if short else name
