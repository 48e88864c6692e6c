"""A report as a list of blocks, written as one HTML file that needs nothing else, or as Markdown with its figures."""

import html
import re
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from spikingir.files import write_bytes, write_text


@dataclass(frozen=True)
class Heading:
    """A heading of level 1 to 3."""

    text: str
    level: int = 2


@dataclass(frozen=True)
class Paragraph:
    """Text in one paragraph; `backquotes` mark code and two asterisks what is strong."""

    text: str


@dataclass(frozen=True)
class Bullets:
    """A list of sentences."""

    items: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """Rows of cells under a header; the first column is text, the others are numbers.

    Attributes:
        header: Names of the columns.
        rows: Cells as text.
        name: Mark around it and its note in Markdown, by which a script finds them.
        note: What is said below it.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    name: str | None = None
    note: str | None = None


@dataclass(frozen=True)
class Figure:
    """A picture.

    Attributes:
        name: Its file's name, with the suffix that says what it is: svg, png, jpg or webp.
        content: The file's bytes.
        caption: What is to be seen.
    """

    name: str
    content: bytes
    caption: str


Block = Heading | Paragraph | Bullets | Table | Figure

_TYPES = {"svg": "svg+xml", "png": "png", "jpg": "jpeg", "webp": "webp"}

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; margin: 1rem 0; font-size: 14px; display: block; overflow-x: auto; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid #ddd; text-align: right; }
th:first-child, td:first-child { text-align: left; }
img { max-width: 100%; }
figcaption { font-size: 14px; color: #555; }
"""


def as_markdown(blocks: Sequence[Block], figures: str) -> str:
    """The document as Markdown.

    Args:
        blocks: Its blocks.
        figures: Folder of the figures, as links name it.
    """
    return "\n\n".join(_markdown(block, figures) for block in blocks) + "\n"


def _markdown(block: Block, figures: str) -> str:
    if isinstance(block, Heading):
        return f"{'#' * block.level} {block.text}"
    if isinstance(block, Paragraph):
        return block.text
    if isinstance(block, Bullets):
        return "\n".join(f"- {item}" for item in block.items)
    if isinstance(block, Figure):
        return f"![{block.caption}]({figures}/{block.name})\n\n*{block.caption}*"
    rule = tuple("---" if i == 0 else "---:" for i in range(len(block.header)))
    lines = "\n".join(f"| {' | '.join(row)} |" for row in (block.header, rule, *block.rows))
    parts = [lines] if block.note is None else [lines, block.note]
    if block.name is not None:
        parts = [marker(block.name), *parts, marker(f"end {block.name}")]
    return "\n\n".join(parts)


def marker(name: str) -> str:
    """The comment that marks a table in Markdown."""
    return f"<!-- {name} -->"


def between_markers(text: str, name: str) -> str:
    """What stands between a table's marks.

    Raises:
        ValueError: They are not there.
    """
    found = re.search(f"{re.escape(marker(name))}(.*?){re.escape(marker('end ' + name))}", text, re.DOTALL)
    if found is None:
        raise ValueError(f"there is no {marker(name)} with {marker('end ' + name)} after it; put both in")
    return found[1]


def as_html(blocks: Sequence[Block], title: str) -> str:
    """The document as one HTML page, its figures within."""
    body = "\n".join(_html(block) for block in blocks)
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{_STYLE}</style>'
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head>\n<body>\n{body}\n</body></html>\n'


def _html(block: Block) -> str:
    if isinstance(block, Heading):
        return f"<h{block.level}>{_inline(block.text)}</h{block.level}>"
    if isinstance(block, Paragraph):
        return f"<p>{_inline(block.text)}</p>"
    if isinstance(block, Bullets):
        return f"<ul>{''.join(f'<li>{_inline(item)}</li>' for item in block.items)}</ul>"
    if isinstance(block, Figure):
        source = f"data:image/{_TYPES[block.name.rsplit('.', 1)[1]]};base64,{b64encode(block.content).decode()}"
        caption = _inline(block.caption)
        return f'<figure><img alt="{caption}" src="{source}"><figcaption>{caption}</figcaption></figure>'
    rows = [_row(block.header, "th"), *(_row(row, "td") for row in block.rows)]
    note = "" if block.note is None else f"<p>{_inline(block.note)}</p>"
    return f"<table>{''.join(rows)}</table>{note}"


def _row(cells: Sequence[str], tag: str) -> str:
    return f"<tr>{''.join(f'<{tag}>{_inline(cell)}</{tag}>' for cell in cells)}</tr>"


def _inline(text: str) -> str:
    text = re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text))
    return re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", text)


def write(blocks: Sequence[Block], title: str, page: Path, text: Path) -> None:
    """Write both: ``page`` as HTML; ``text`` as Markdown, its figures in the folder beside it that is named like it."""
    figures = text.with_suffix("")
    for path in (page.parent, text.parent):
        path.mkdir(parents=True, exist_ok=True)
    for block in blocks:
        if isinstance(block, Figure):
            figures.mkdir(exist_ok=True)
            write_bytes(figures / block.name, block.content)
    write_text(page, as_html(blocks, title))
    write_text(text, as_markdown(blocks, figures.name))
