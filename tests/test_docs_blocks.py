"""Code in README and docs runs: Python blocks by running them, commands by parsing them, links by following them."""

import contextlib
import dataclasses
import importlib.util
import io
import os
import re
import shlex
import sys
import textwrap
import tomllib
from collections.abc import Collection, Iterator
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
import torch
from cyclopts import App
from PIL import Image

import reproduce.commands
import spikingir
from spikingir.cli import program
from spikingir.cli.console import STREAM
from spikingir.conversion.convert import METHODS
from spikingir.export.export import FORMATS
from spikingir.networks import ARCHITECTURES, DnCNN
from spikingir.plugins import Registry
from spikingir.spiking.kinds import NEURONS
from spikingir.tasks import DENOISE, TASKS
from spikingir.training.recipe import load_recipe

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
ELSEWHERE = {"page.md", "architecture.md", "notebook.md"}  # tests/web, test_architecture.py, test_notebook.py run them
REGISTRIES: tuple[Registry[Any], ...] = (NEURONS, ARCHITECTURES, TASKS, METHODS, FORMATS)
_BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_PACKAGES = {"curl", "magick", "pipx", "ray", "srun", "torchrun", "uv"}  # programs of others


def blocks(page: Path, *languages: str) -> list[str]:
    """The code blocks of a page in some languages, in order."""
    found = _BLOCK.findall(page.read_text(encoding="utf-8"))
    return [textwrap.dedent(code) for _, language, code in found if language in languages]


def commands(text: str) -> list[list[str]]:
    """The commands of a block as words, without comments, settings before them and what they are piped to."""
    found = []
    for line in re.sub(r"(\\|\|)\n\s*", r"\1", text).replace("\\", "").splitlines():
        words = shlex.split(line, comments=True)
        while words and (re.fullmatch(r"\w+=.*", words[0]) or words[0] in ("taskset", "env")):
            words = words[3 if words[0] == "taskset" else 1 :]
        if words:
            found.append(words)
    return found


# Python


@contextlib.contextmanager
def open_registries() -> Iterator[None]:
    """Whatever is registered within is gone behind."""
    before = [dict(registry) for registry in REGISTRIES]
    try:
        yield
    finally:
        for registry, kept in zip(REGISTRIES, before, strict=True):
            registry.clear()
            registry.update(kept)


def run(code: str, names: dict[str, Any], page: str) -> str:
    """Run a block. Returns what it prints."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, page, "exec"), names)
    return printed.getvalue()


def given() -> dict[str, Any]:
    """What the examples of README and docs take for granted, photographs in the folder that one is in too."""
    Path("photos").mkdir()
    for name in ("photo.jpg", "photos/photo.jpg"):
        Image.effect_noise((32, 24), 60).convert("RGB").save(name)
    torch.manual_seed(0)
    network = DnCNN(layers=3, width=4).eval()
    images = torch.rand(2, 1, 16, 16)
    snn = spikingir.convert(network, images, time_steps=3)
    return {
        "noisy": torch.rand(3, 16, 16),
        "network": network,
        "ann": network,
        "calibration_images": images,
        "images": images,
        "image": images[:1],
        "folded": spikingir.fold(snn),
    }


@pytest.mark.parametrize("page", [page for page in PAGES if page.name not in ELSEWHERE], ids=lambda page: page.name)
def test_python_runs_and_prints_what_the_page_says(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = blocks(page, "python", "text")
    if not blocks(page, "python"):
        pytest.skip("it has no Python")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", os.path.dirname(sys.executable), prepend=os.pathsep)  # where the command is installed
    names, printed = {} if page.name in ("tour.md", "extending.md") else given(), ""
    languages = [language for _, language, _ in _BLOCK.findall(page.read_text(encoding="utf-8"))]
    with open_registries():
        for language, block in zip([one for one in languages if one in ("python", "text")], code, strict=True):
            if language == "text":
                assert printed == block
            else:
                printed = run(block, names, page.name)


def test_a_block_that_fails_is_seen(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("1. So:\n\n    ```python\n    print(1)\n    ```\n\n```\nspikingir\n```\n")
    assert blocks(page, "python") == ["print(1)\n"]
    assert run("print(1)", {}, "page") == "1\n"
    with pytest.raises(NameError):
        run("nothing", {}, "page")
    with open_registries():
        TASKS["mine"] = dataclasses.replace(DENOISE, name="mine")
        assert "mine" in TASKS
    assert "mine" not in TASKS


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "toml")], ids=lambda page: page.name)
def test_recipes_are_read(page: Path, tmp_path: Path) -> None:
    for text in blocks(page, "toml"):
        path = tmp_path / f"{tomllib.loads(text)['name']}.toml"
        path.write_text(text)
        assert load_recipe(path).stages


# Commands


def check(words: list[str]) -> None:
    """A command is one that there is, with options that it has."""
    program_, *rest = words
    if program_ == "python" and rest[0] == "-c":
        compile(rest[1], "-c", "exec")
    elif program_ == "python":
        assert rest[0] == "-m"
        module, *arguments = rest[1:]
        assert importlib.util.find_spec(module) is not None, f"there is no module {module}"
        apps: dict[str, App] = {"reproduce": reproduce.commands.app, "spikingir.cli": program.app}
        if module in apps:
            apps[module].parse_args(arguments, exit_on_error=False, print_error=False)
    elif program_ == "spikingir":
        rest = [STREAM if word == "-" else word for word in takewhile(lambda word: word not in ("|", "<", ">"), rest)]
        program.app.parse_args(rest, exit_on_error=False, print_error=False)
    elif program_ == "make":
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        assert re.search(rf"^{re.escape(rest[0])}:", makefile, re.MULTILINE), f"there is no target {rest[0]}"
    elif program_ == "pip":
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        extras = set(re.findall(r"[\w-]+", "".join(re.findall(r"\[(.*)\]", " ".join(rest)))))
        assert extras <= set(project["optional-dependencies"]), f"there is no extra {extras}"
    else:
        assert program_ in _PACKAGES, f"who knows {program_}?"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_in_blocks_parse(page: Path) -> None:
    for text in blocks(page, "", "sh"):
        for words in commands(text) if not text.startswith(("#!", "url=")) else []:
            check(words)


def check_names(words: list[str], examples: Collection[str]) -> None:
    """A piece of a command names a command and options that there are."""
    app: App = program.app
    if words[:3] == ["python", "-m", "reproduce"]:
        app, words = reproduce.commands.app, words[2:]
    if len(words) < 2 or words[1] in examples or not re.fullmatch("[a-z]+", words[1]):
        return
    if words[1] in {*app}:
        app = app[words[1]]
    else:
        assert app is not program.app, f"there is no command {words[1]}"
    known = {name for argument in app.assemble_argument_collection() for name in argument.names}
    known |= {"--help", "--version"}
    options = {word for word in words if word.startswith("-") and len(word) > 1}
    assert options <= known, f"there is no option {options - known}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_in_sentences_name_what_there_is(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    examples = re.findall(r"^TASKS\[\"(\w+)", textwrap.dedent("".join(blocks(page, "python"))), re.MULTILINE)
    for code in re.findall(r"`([^`]+)`", _BLOCK.sub("", text)):
        command = " ".join(code.split())
        if command.startswith(("make ", "pip install")):
            check(shlex.split(command))
        elif command.startswith(("spikingir ", "python -m reproduce ")):
            check_names(shlex.split(command), examples)


@pytest.mark.parametrize(
    "text",
    [
        "spikingir denoise a.png --sigmah 3",
        "spikingir denose a.png",
        "make nothing",
        "pip install '.[nothing]'",
        "python -m reproduce all --data-rot DATA",
        "python -m reproduce.nothing",
        "conda install spikingir",
    ],
)
def test_a_command_that_is_none_is_seen(text: str) -> None:
    (words,) = commands(text)
    with pytest.raises(Exception, match=r"Unknown|there is no|who knows|nothing|denose"):
        check(words)


@pytest.mark.parametrize(
    "text", ["spikingir denose", "spikingir denoise --sigmah", "python -m reproduce ablate --sigmah", "spikingir all"]
)
def test_a_name_that_is_none_is_seen(text: str) -> None:
    check_names(["spikingir", "brighten", "--dark"], ["brighten"])
    check_names(["spikingir", "denoise", "--model"], [])
    check_names(["python", "-m", "reproduce", "all", "--limit"], [])
    with pytest.raises(AssertionError, match="there is no"):
        check_names(text.split(), [])


# Links


def anchors(page: Path) -> set[str]:
    """Names of the headings of a page, as its links have them."""
    headings = re.findall(r"^#+ (.*)$", _BLOCK.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = _BLOCK.sub("", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("https://"):
            continue
        file, _, anchor = target.partition("#")
        path = page.parent / file if file else page
        assert path.exists(), f"{page.name} links to {target}"
        assert not anchor or anchor in anchors(path), f"{page.name} links to {target}"
