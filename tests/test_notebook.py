"""The notebook runs, prints what stands in it, and is the page of the site."""

import importlib.util
import json
import re
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

DOCS = Path(__file__).parents[1] / "docs"
NOTEBOOK = json.loads((DOCS / "notebook.ipynb").read_text(encoding="utf-8"))
_NUMBER = re.compile(r"\d+(?:\.\d+)?")


@pytest.fixture(scope="module")
def program() -> ModuleType:
    """What runs the notebook and writes its page."""
    spec = importlib.util.spec_from_file_location("notebook_page", DOCS / "site" / "notebook.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def printed(cell: dict[str, Any]) -> str:
    return "".join("".join(it["text"]) for it in cell["outputs"] if it["output_type"] == "stream")


def drawn(cell: dict[str, Any]) -> int:
    return sum(it["output_type"] == "display_data" for it in cell["outputs"])


def assert_alike(found: str, wanted: str) -> None:
    """The same words, and numbers as near as training on another machine leaves them."""
    assert _NUMBER.sub("0", found) == _NUMBER.sub("0", wanted)
    for one, other in zip(_NUMBER.findall(found), _NUMBER.findall(wanted), strict=True):
        assert abs(float(one) - float(other)) <= max(1.0, 0.15 * float(other)), (found, wanted)


def test_it_runs_and_prints_what_it_says(program: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    start = time.process_time()
    cells = program.run(NOTEBOOK)
    assert time.process_time() - start < 120, "two minutes of one core"
    assert len(cells) == len(NOTEBOOK["cells"])
    code = [(cell, kept) for cell, kept in zip(cells, NOTEBOOK["cells"], strict=True) if cell["cell_type"] == "code"]
    for number, (cell, kept) in enumerate(code, 1):
        assert_alike(printed(cell), printed(kept))
        assert drawn(cell) == drawn(kept)
        assert kept["execution_count"] == number, "it was run from its first cell to its last"
    assert sum(drawn(cell) for cell, _ in code) >= 2
    assert not list(tmp_path.iterdir())


def test_the_page_is_the_notebook(program: ModuleType) -> None:
    text, pictures = program.page(NOTEBOOK, "notebook")
    assert (DOCS / "notebook.md").read_text(encoding="utf-8") == text
    for file, content in pictures.items():
        assert content.startswith(b"\x89PNG")
        assert (DOCS / "images" / file).read_bytes() == content


def test_a_difference_is_seen(program: ModuleType) -> None:
    cell = {"cell_type": "code", "id": "a", "source": ["print('spikes', 3)"], "outputs": [], "execution_count": None}
    (found,) = program.run({"cells": [cell]})
    assert printed(found) == "spikes 3\n"
    for wanted in ("spikes 30\n", "spike 3\n"):
        with pytest.raises(AssertionError):
            assert_alike(printed(found), wanted)
    with pytest.raises(NameError):
        program.run({"cells": [{**cell, "source": ["nothing"]}]})
