"""Tables as plain text, which a terminal of any width and a file alike can hold."""

from collections.abc import Sequence

from spikingir.cli.console import printable


def table(rows: Sequence[Sequence[str]], words: int = 1) -> str:
    """Rows with their columns aligned: the first ``words`` of them to the left, numbers to the right.

    Example:
        >>> print(table([["image", "dB"], ["a", "30.12"]]))
        image     dB
        a      30.12
    """
    rows = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if i < words else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def number(value: float | None, digits: int) -> str:
    """A number with so many digits after the point; a dash where there is none."""
    return "-" if value is None else f"{value:.{digits}f}"
