"""Run a notebook's cells and write what they print and draw: into the notebook, and as a page of the site.

``python docs/site/notebook.py docs/notebook.ipynb`` needs matplotlib and no Jupyter. The page has the notebook's name
and ends in ``.md``; pictures go into ``images`` beside it.
"""

import base64
import contextlib
import io
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot

Cell = dict[str, Any]
_PICTURE = "image/png"


def run(notebook: Mapping[str, Any]) -> list[Cell]:
    """The cells, run one after the other in one set of names, with what each prints and draws as its outputs."""
    names: dict[str, Any] = {"__name__": "__main__"}
    cells: list[Cell] = []
    for cell in notebook["cells"]:
        if cell["cell_type"] != "code":
            cells.append(dict(cell))
            continue
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile("".join(cell["source"]), cell["id"], "exec"), names)
        outputs: list[Cell] = []
        if printed.getvalue():
            outputs.append({"output_type": "stream", "name": "stdout", "text": _lines(printed.getvalue())})
        outputs += [{"output_type": "display_data", "metadata": {}, "data": {_PICTURE: it}} for it in _pictures()]
        count = 1 + sum(before["cell_type"] == "code" for before in cells)
        cells.append({**cell, "execution_count": count, "outputs": outputs})
    return cells


def page(notebook: Mapping[str, Any], name: str) -> tuple[str, dict[str, bytes]]:
    """The page of a notebook that was run, and its pictures by file name."""
    parts, pictures = [], dict[str, bytes]()
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] != "code":
            parts.append(source)
            continue
        parts.append(f"```python\n{source}\n```")
        for output in cell["outputs"]:
            if output["output_type"] == "stream":
                parts.append(f"```text\n{''.join(output['text'])}```")
            else:
                file = f"{name}-{len(pictures) + 1}.png"
                pictures[file] = base64.b64decode(output["data"][_PICTURE])
                parts.append(f"![What the code above draws](images/{file})")
    return "\n\n".join(parts) + "\n", pictures


def write(path: Path) -> None:
    """Run a notebook, and write it, its page and its pictures."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    notebook["cells"] = run(notebook)
    path.write_text(json.dumps(notebook, indent=1) + "\n", encoding="utf-8")
    text, pictures = page(notebook, path.stem)
    path.with_suffix(".md").write_text(text, encoding="utf-8")
    for file, content in pictures.items():
        (path.parent / "images" / file).write_bytes(content)


def _lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


def _pictures() -> list[str]:
    """The figures that are open, which are then closed, as PNG in base64."""
    found = []
    for number in pyplot.get_fignums():
        content = io.BytesIO()
        pyplot.figure(number).savefig(content, format="png", dpi=80, bbox_inches="tight", metadata={"Software": None})
        found.append(base64.b64encode(content.getvalue()).decode())
    pyplot.close("all")
    return found


if __name__ == "__main__":
    write(Path(sys.argv[1]))
