"""Rules of the house that no linter knows."""

import ast
import builtins
import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import pytest

import reproduce
import spikingir

SOURCE = Path(spikingir.__file__).parent
REPRODUCE = Path(reproduce.__file__).parent
MODULES = sorted([*SOURCE.rglob("*.py"), *REPRODUCE.rglob("*.py")])

# Rooms from the lowest to the highest: each imports only from rooms before it. A room is a package or a module of
# spikingir, its __init__ (with all names that it offers), or the folder reproduce.
ROOMS = (
    "version",
    "errors",
    "plugins",
    "files",
    "environment",
    "provenance",
    "schema",
    "inputs",
    "data",
    "measures",
    "tasks",
    "graph",
    "spiking",
    "conversion",
    "deploy",
    "networks",
    "export",
    "store",
    "zoo",
    "energy",
    "photo",
    "restoration",
    "training",
    "evaluation",
    "__init__",
    "web",
    "cli",
    "reproduce",
)


def imports(path: Path) -> Iterator[str]:
    """Full names of all modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} is a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room(name: str) -> str | None:
    """`networks` of `spikingir.networks.dncnn`; `__init__` of `spikingir.convert`; None of what is not ours."""
    top, *rest = name.split(".")
    if top == "spikingir":
        return rest[0] if rest and rest[0] in ROOMS else "__init__"
    return top if top == "reproduce" else None


def upward(path: Path, here: str) -> set[str]:
    """Rooms above `here` that a file imports from."""
    above = ROOMS[ROOMS.index(here) + 1 :]
    return {found for found in map(room, imports(path)) if found in above}


def room_of(path: Path) -> str:
    """The room that a file is in."""
    if path.is_relative_to(REPRODUCE):
        return "reproduce"
    return path.relative_to(SOURCE).with_suffix("").parts[0]


def name_of(path: Path) -> str:
    return path.relative_to(REPRODUCE.parent if path.is_relative_to(REPRODUCE) else SOURCE).as_posix()


@pytest.mark.parametrize("module", ["spikingir", "spikingir.photo.images"])
def test_import_loads_no_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_version() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+|rc\d+)?", spikingir.__version__)


def test_public_names_are_there() -> None:
    for name in dir(spikingir):
        assert getattr(spikingir, name) is not None


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports(path: Path) -> None:
    names = list(imports(path))
    assert not [name for name in names if name.endswith(".*")], "import * hides where a name comes from"
    tops = {name.split(".")[0] for name in names}
    assert "torchvision" not in tops, "its only build here is broken"
    assert not tops & {"tests", "benchmarks"}, "they are above all rooms"


def test_every_room_has_one_level() -> None:
    assert len(set(ROOMS)) == len(ROOMS)
    assert {room_of(path) for path in MODULES} <= set(ROOMS), "say in ROOMS where a new room stands"


def test_imports_point_down() -> None:
    found = {(name_of(path), above) for path in MODULES for above in upward(path, room_of(path))}
    assert sorted(found) == [], "a room imports from one above it"


def test_an_arrow_up_is_seen_between_any_two_rooms(tmp_path: Path) -> None:
    names = {name: f"spikingir.{name}" for name in ROOMS} | {"__init__": "spikingir", "reproduce": "reproduce"}
    file = tmp_path / "module.py"
    for lower, higher in combinations(ROOMS, 2):
        for line in (f"import {names[higher]}.part", f"def late():\n    from {names[higher]} import part"):
            file.write_text(line, encoding="utf-8")
            assert upward(file, lower) == {higher}
            assert upward(file, higher) == set()
        file.write_text(f"from {names[lower]} import part", encoding="utf-8")
        assert upward(file, higher) == set()


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
    for path in (*(SOURCE / "cli").glob("*.py"), REPRODUCE / "commands.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), path)):
            if isinstance(node, ast.ExceptHandler) and node.type is not None:
                caught = {name.id for name in ast.walk(node.type) if isinstance(name, ast.Name)}
                assert not caught & {"ValueError", "TypeError", "RuntimeError", "KeyError"}, f"{path}:{node.lineno}"
