"""The model card: what a model is for, how it was trained, and the table of its tests."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from spikingir.files import write_text
from spikingir.zoo.catalogue import Model, ModelError
from spikingir.zoo.measured import TestRow, add_test, markdown_table, table_of_tests

CARD_FILE = "README.md"

_START, _END = "<!-- tests -->", "<!-- end tests -->"
_RESULTS = "## Results\n"


def card(
    model: Model,
    *,
    recipe: str,
    stages: Sequence[Sequence[str]],
    machines: Sequence[str],
    data: str,
    not_for: str,
    note: str = "",
    curves: Mapping[str, Sequence[tuple[int, float]]] = MappingProxyType({}),
    tests: Sequence[TestRow] = (),
) -> str:
    """The model card, in Markdown.

    Args:
        model: The model.
        recipe: Name of the recipe that it was trained by.
        stages: A row for each stage of it: name, what it is made from, clock, steps, patches, hours, PSNR.
        machines: What it was trained on, in words.
        data: What it was trained with, a sentence or several.
        not_for: What it is not for, beside what no model is for.
        note: What else is to say of its results.
        curves: Of stages by name, steps that were done and the PSNR in dB on the held-back images then.
        tests: What was measured of it.
    """
    head = ["stage", "made from", "clock", "steps", "patches", "hours", "held-back images"]
    parts = [
        f"# {model.name}",
        f"{model.purpose[0].upper()}{model.purpose[1:]}. `ann.safetensors` is the conventional network "
        f"({model.architecture}); the others are spiking networks made of it: MPR neurons with a threshold for each "
        "channel, pixel mapper, membrane recycling.",
        "## Recipe",
        f"`spikingir train {recipe} --data-root DATA`, by recipe `{recipe}.toml`.",
        markdown_table(head, stages),
        f"On {'; '.join(machines)}.",
        *_curves(curves),
        "## Data",
        data,
        "## Results",
        _tests(tests),
        " ".join(["On the held-back images: in the table above.", *([note] if note else [])]),
        "## Licence",
        f"{model.licence}. The images that the weights were trained on are not distributed with them; their terms are "
        "for research.",
        "## Not for",
        f"Medical, forensic or scientific images in which invented or lost detail matters; {not_for}",
    ]
    return "\n\n".join(parts) + "\n"


def record_test(model: Model, row: TestRow) -> None:
    """Write what was measured of a model into its folder: its record, and the table of its card.

    Raises:
        ModelError: The model has no card with a heading "Results", or its record is damaged.
        OSError: A file cannot be written.
    """
    path = card_of(model)
    text = path.read_text(encoding="utf-8")
    before, start, rest = text.partition(_START)
    if start:
        _, end, after = rest.partition(_END)
        if not end:
            raise ModelError(f"{path} has a mark {_START} and no {_END} after it; put it in")
    else:
        before, heading, after = text.partition(_RESULTS)
        before, after = f"{before}{heading}\n", f"\n\n{after.lstrip()}"
    rows = add_test(model.folder, row)
    write_text(path, before + _tests(rows) + after)


def card_of(model: Model) -> Path:
    """The card of a model, which has a place for its tests.

    Raises:
        ModelError: It has none.
    """
    path = model.folder / CARD_FILE
    if not path.is_file() or not {_START, _RESULTS.strip()} & set(path.read_text(encoding="utf-8").splitlines()):
        raise ModelError(f"{model.name} has no card: write {path}, with a heading '{_RESULTS.strip()}'")
    return path


def _curves(curves: Mapping[str, Sequence[tuple[int, float]]]) -> list[str]:
    lines = [
        f"- {stage}: {', '.join(f'{psnr:.2f} ({step})' for step, psnr in curve)}" for stage, curve in curves.items()
    ]
    return (
        ["How training rose, in dB on the held-back images (after so many steps):", "\n".join(lines)] if lines else []
    )


def _tests(rows: Sequence[TestRow]) -> str:
    table = table_of_tests(rows)
    return f"{_START}\n{table}{chr(10) * bool(table)}{_END}"
