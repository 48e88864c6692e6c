"""Rules of the house that no linter knows."""

import ast
import builtins
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import spikingir

SOURCE = Path(spikingir.__file__).parent
MODULES = sorted(SOURCE.rglob("*.py"))

# Imports point down or sideways, never up. What is not listed here is free.
LEVELS = {
    "errors": 0,
    "graph": 0,
    "files": 0,
    "data": 1,
    "tasks": 2,
    "spiking": 1,
    "networks": 2,
    "conversion": 2,
    "engine": 2,
    "training": 3,
    "evaluation": 3,
    "restoration": 3,
    "web": 4,
    "cli": 5,
}


def imports(path: Path) -> Iterator[str]:
    """Full names of all modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} is a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room(name: str) -> str | None:
    """`networks` of `spikingir.networks.dncnn`."""
    parts = name.split(".")
    return parts[1] if parts[0] == "spikingir" and len(parts) > 1 else None


@pytest.mark.parametrize("module", ["spikingir", "spikingir.restoration.images"])
def test_import_loads_no_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_version() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+|rc\d+)?", spikingir.__version__)


def test_public_names_are_there() -> None:
    for name in spikingir.__all__:
        assert getattr(spikingir, name) is not None


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports(path: Path) -> None:
    names = list(imports(path))
    assert not [name for name in names if name.endswith(".*")], "import * hides where a name comes from"
    assert not [name for name in names if name.split(".")[0] == "torchvision"], "its only build here is broken"

    here = path.relative_to(SOURCE).with_suffix("").parts[0]
    if here in LEVELS:
        above = [name for name in names if LEVELS.get(room(name) or "", 0) > LEVELS[here]]
        assert not above, f"{here} is below {above}"


def test_errors_have_one_base() -> None:
    """What is the user's to mend is told from a bug by its base alone."""
    bases = {
        node.name: {base.id for base in node.bases if isinstance(base, ast.Name)}
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), path))
        if isinstance(node, ast.ClassDef)
    }

    def is_error(name: str) -> bool:
        found = getattr(builtins, name, None)
        return (isinstance(found, type) and issubclass(found, BaseException)) or any(
            map(is_error, bases.get(name, set()))
        )

    errors = {name for name in bases if is_error(name)}
    assert len(errors) > 15
    ours = {name for name in errors if name == "SpikingIRError" or bases[name] & errors}
    # the signal within the engine that torch has to run a network; it becomes an EngineError or a note
    assert errors - ours == {"NotNativeError"}


def test_the_command_line_hides_no_bug() -> None:
    """A ValueError may be a bug anywhere below, and is never taken for something that the user can mend."""
    for path in (SOURCE / "cli").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), path)):
            if isinstance(node, ast.ExceptHandler) and node.type is not None:
                caught = {name.id for name in ast.walk(node.type) if isinstance(name, ast.Name)}
                assert not caught & {"ValueError", "TypeError", "RuntimeError", "KeyError"}, f"{path}:{node.lineno}"
