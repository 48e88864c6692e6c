"""The names that `import spikingir` offers."""

import ast
import pydoc
import subprocess
import sys
from pathlib import Path

import pytest

import spikingir


def test_lists_agree() -> None:
    """What is offered, what is found, and what type checkers see is the same."""
    tree = ast.parse(Path(spikingir.__file__).read_text(encoding="utf-8"))
    typed = {
        alias.name: node.module
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname == alias.name  # so it is offered, by the rules of type checkers
    }
    assert typed == spikingir._HOMES
    assert {*typed, "__version__"} == set(dir(spikingir))


def test_help_fits_a_screen() -> None:
    """It names what there is; ``help(spikingir.Restorer)`` and the like say more."""
    lines = pydoc.render_doc(spikingir, renderer=pydoc.plaintext).splitlines()
    assert len(lines) < 70
    assert any('Restorer.from_pretrained("denoise-color")' in line for line in lines)


def test_names_are_what_they_say() -> None:
    for name in spikingir._HOMES:
        assert getattr(spikingir, name).__name__ in (name, "MembranePotentialReuseNeuron", "StorageError")
    assert spikingir.MPRN is spikingir.MembranePotentialReuseNeuron
    assert spikingir.WeightsError is spikingir.StorageError


def test_unknown_names() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Dehazer'"):
        spikingir.Dehazer  # noqa: B018


def test_names_load_on_first_use() -> None:
    code = "import sys, spikingir; dir(spikingir); spikingir.ImageError; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
