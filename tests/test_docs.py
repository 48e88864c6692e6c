"""What the documentation names exists."""

import importlib
import re
from pathlib import Path

import pytest

import spikingir

ROOT = Path(__file__).parents[1]
METHOD = (ROOT / "docs/method.md").read_text(encoding="utf-8")
OLD = " ".join(["METHOD", "section"])
SECTIONS = set(re.findall(r"^## (\d+)\. ", METHOD, re.MULTILINE))


def _lines(kind: str) -> list[str]:
    lines = [line for line in METHOD.splitlines() if line.startswith(f"- {kind}: ")]
    return sorted({name for line in lines for name in re.findall(r"`([^`]+)`", line)})


@pytest.mark.parametrize("name", _lines("code"))
def test_code_that_the_method_names_exists(name: str) -> None:
    module, _, attribute = name.partition(":")
    assert hasattr(importlib.import_module(module), attribute)


@pytest.mark.parametrize("name", _lines("test"))
def test_tests_that_the_method_names_exist(name: str) -> None:
    file, _, test = name.partition("::")
    text = (ROOT / file).read_text(encoding="utf-8")
    assert not test or f"def {test}(" in text


def test_every_section_names_code_and_a_test() -> None:
    for section in re.split(r"^## ", METHOD, flags=re.MULTILINE)[1:]:
        assert "- code: " in section, section[:40]
        assert "- test: " in section, section[:40]


@pytest.mark.parametrize("folder", ["src", "native", "benchmarks", "tests"])
def test_sections_that_code_cites_exist(folder: str) -> None:
    for path in sorted((ROOT / folder).rglob("*")):
        if path.suffix not in (".py", ".cpp", ".hpp"):
            continue
        text = " ".join(path.read_text(encoding="utf-8").split())
        assert OLD not in text, f"{path} cites a page that is not in the repository"
        for first, last in re.findall(r"docs/method\.md, sections? (\d+)(?: to (\d+))?", text):
            assert {first, last or first} <= SECTIONS, f"{path} cites section {first} {last}"


API = re.findall(r"^::: (\S+)$", (ROOT / "docs/api.md").read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("name", API)
def test_what_the_api_page_names_exists(name: str) -> None:
    assert name in _modules() or _named(name) is not None


def test_the_api_page_has_every_public_name() -> None:
    shown = {id(_named(name)) for name in API if name not in _modules()}
    missing = [name for name in dir(spikingir) if id(getattr(spikingir, name)) not in shown]
    assert missing == ["__version__"]


def _modules() -> set[str]:
    source = ROOT / "src"
    return {".".join(path.relative_to(source).with_suffix("").parts) for path in source.rglob("*.py")}


def _named(name: str) -> object:
    module, _, attribute = name.rpartition(".")
    found: object = getattr(importlib.import_module(module), attribute)
    return found


def test_every_page_is_in_the_sites_menu() -> None:
    menu = re.findall(r"[\w-]+\.md", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    assert sorted(menu) == sorted(path.name for path in (ROOT / "docs").glob("*.md"))


def test_the_citation_has_the_version() -> None:
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {spikingir.__version__}\n" in citation
