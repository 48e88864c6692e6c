"""One report in two forms."""

import html.parser
from pathlib import Path

import pytest

from reproduce.document import (
    Block,
    Bullets,
    Figure,
    Heading,
    Paragraph,
    Table,
    as_html,
    as_markdown,
    between_markers,
    write,
)

BLOCKS: list[Block] = [
    Heading("Results", 1),
    Paragraph("Made by `a < b` & **more**."),
    Bullets(("one", "two")),
    Table(("method", "dB"), (("ANN", "28.90"),), "table"),
    Figure("drawing.svg", b"<svg/>", "What is to be seen."),
]


def test_markdown() -> None:
    text = as_markdown(BLOCKS, "results")
    assert "# Results" in text
    assert "- one\n- two" in text
    assert "![What is to be seen.](results/drawing.svg)" in text
    assert between_markers(text, "table").strip() == "| method | dB |\n| --- | ---: |\n| ANN | 28.90 |"
    with pytest.raises(ValueError, match="there is no <!-- other -->"):
        between_markers(text, "other")


def test_the_page_needs_nothing_else() -> None:
    sources: list[str] = []

    class Reader(html.parser.HTMLParser):
        def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
            sources.extend(str(value) for key, value in attributes if key in ("src", "href"))

    page = as_html(BLOCKS, "Results")
    Reader().feed(page)
    assert len(sources) == 1
    assert sources[0].startswith("data:image/svg+xml;base64,")
    assert "<code>a &lt; b</code> &amp; <strong>more</strong>" in page
    assert "<td>28.90</td>" in page


def test_files(tmp_path: Path) -> None:
    write(BLOCKS, "Results", tmp_path / "out" / "page.html", tmp_path / "docs" / "text.md")
    assert (tmp_path / "docs" / "text" / "drawing.svg").read_bytes() == b"<svg/>"
    assert "(text/drawing.svg)" in (tmp_path / "docs" / "text.md").read_text(encoding="utf-8")
    assert (tmp_path / "out" / "page.html").stat().st_size
