"""The report's figures, as the bytes of a file. Needs matplotlib, of the ``plot`` extra."""

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import matplotlib.patches
import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

_SETTINGS: Any = {
    "svg.hashsalt": "spikingir",
    "svg.fonttype": "none",
    "font.size": 9.0,
}  # the same figure, the same file

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Picture:
    """An image and what stands below it; (C, H, W)."""

    title: str
    image: Tensor


@dataclass(frozen=True)
class Bubble:
    """A point whose area is ``size``, of a network's ``name``; ``label`` stands beside it."""

    name: str
    label: str
    x: float
    y: float
    size: float
    phased: bool


def curves(panels: Mapping[str, Mapping[str, Points]], level: tuple[str, float] | None, unit: str) -> bytes:
    """PSNR against something, one panel for each: lines through points, and one level for comparison.

    Args:
        panels: By the name of the horizontal axis, by the name of the line: its points.
        level: Name and height of a dashed line.
        unit: Name of the vertical axis.

    Returns:
        An SVG file.
    """
    with matplotlib.rc_context(_SETTINGS):
        figure = Figure((4.4 * len(panels), 3.4), layout="constrained")
        for i, ((name, lines), axes) in enumerate(zip(panels.items(), _row(figure, len(panels)), strict=True)):
            for label, points in lines.items():
                axes.plot(*zip(*sorted(points), strict=True), marker="o", markersize=3, label=label)
            if level is not None:
                axes.axhline(level[1], linestyle="--", color="gray", label=level[0])
            axes.set(xlabel=name, ylabel=unit)
            axes.grid(alpha=0.3)
            if i == 0:
                axes.legend(fontsize=7)
        return _saved(figure, "svg")


def bubbles(points: Sequence[Bubble], across: str, up: str) -> bytes:
    """Points whose area is a third number, on logarithmic axes: round ones clocked, square ones phased.

    Args:
        points: What to show; those of one name have one colour.
        across: Name of the horizontal axis.
        up: Name of the vertical axis.

    Returns:
        An SVG file.
    """
    names = list(dict.fromkeys(point.name for point in points))
    with matplotlib.rc_context(_SETTINGS):
        figure = Figure((7.4, 4.2), layout="constrained")
        (axes,) = _row(figure, 1)
        labelled: set[tuple[str, int, int]] = set()
        for point in points:
            colour, marker = f"C{names.index(point.name)}", "s" if point.phased else "o"
            axes.scatter([point.x], [point.y], s=90 * point.size, marker=marker, facecolors="none", edgecolors=colour)
            place = point.label, round(4 * math.log10(point.x)), round(math.log10(point.y))
            if place not in labelled:  # points that nearly coincide share a label
                axes.annotate(point.label, (point.x, point.y), (9, 7), textcoords="offset points", fontsize=7)
                labelled.add(place)
        shown = [
            axes.scatter([], [], s=40, facecolors="none", edgecolors=f"C{i}", label=name)
            for i, name in enumerate(names)
        ]
        axes.margins(0.12)
        axes.set(xlabel=across, ylabel=up, xscale="log", yscale="log")
        axes.grid(alpha=0.3, which="both")
        axes.legend(handles=shown, fontsize=7)
        return _saved(figure, "svg")


def bars(groups: Mapping[str, Mapping[str, float]], unit: str) -> bytes:
    """Bars by layer, those of several networks beside each other.

    Args:
        groups: By network, by layer.
        unit: Name of the vertical axis.

    Returns:
        An SVG file.
    """
    with matplotlib.rc_context(_SETTINGS):
        figure = Figure((8.8, 3.0), layout="constrained")
        (axes,) = _row(figure, 1)
        width = 0.8 / len(groups)
        for i, (name, values) in enumerate(groups.items()):
            axes.bar(np.arange(len(values)) + i * width, list(values.values()), width, label=name)
        layers = list(next(iter(groups.values())))
        axes.set_xticks(np.arange(len(layers)) + 0.4 - width / 2, layers, rotation=60, fontsize=7)
        axes.set(ylabel=unit)
        axes.legend(fontsize=7)
        return _saved(figure, "svg")


def histograms(panels: Mapping[str, Mapping[str, Sequence[float]]], edges: Sequence[float], unit: str) -> bytes:
    """Shares of values between edges, one panel for each network, before and after in one.

    Args:
        panels: By network, by name of the histogram: its shares.
        edges: Edges of the bins.
        unit: Name of the horizontal axis.

    Returns:
        An SVG file.
    """
    with matplotlib.rc_context(_SETTINGS):
        figure = Figure((4.4 * len(panels), 3.0), layout="constrained")
        for (name, shares), axes in zip(panels.items(), _row(figure, len(panels)), strict=True):
            for label, heights in shares.items():
                axes.stairs(heights, edges, fill=True, alpha=0.5, label=label)
            axes.set(title=name, xlabel=unit, ylabel="share of neurons")
            axes.legend(fontsize=7)
        return _saved(figure, "svg")


def grid(pictures: Sequence[Picture], inset: tuple[int, int, int], columns: int = 4) -> bytes:
    """Pictures side by side, each with the same part of it enlarged in its corner.

    Args:
        pictures: What to show.
        inset: Top, left and side of that part.
        columns: Pictures in a row.

    Returns:
        A JPEG file.
    """
    top, left, side = inset
    rows = -(-len(pictures) // columns)
    height, width = pictures[0].image.shape[-2:]
    with matplotlib.rc_context(_SETTINGS):
        figure = Figure((2.4 * columns, 2.4 * rows * height / width + 0.35 * rows), layout="constrained")
        for i, picture in enumerate(pictures):
            axes: Any = figure.add_subplot(rows, columns, i + 1)
            values = picture.image.clamp(0, 1).movedim(0, -1).squeeze(-1).numpy()
            show = {"cmap": "gray", "vmin": 0, "vmax": 1, "interpolation": "nearest"}
            axes.imshow(values, **show)
            axes.set_title(picture.title, fontsize=7)
            axes.add_patch(matplotlib.patches.Rectangle((left, top), side, side, fill=False, color="red", lw=0.7))
            magnified = axes.inset_axes((0.52, 0.0, 0.48, 0.48 * width / height))
            magnified.imshow(values[top : top + side, left : left + side], **show)
            for spine in magnified.spines.values():
                spine.set_color("red")
            for shown in (axes, magnified):
                shown.set(xticks=[], yticks=[])
        return _saved(figure, "jpg")


def _row(figure: Figure, count: int) -> list[Any]:
    return list(np.atleast_1d(figure.subplots(1, count)))


def _saved(figure: Figure, kind: str) -> bytes:
    file = io.BytesIO()
    if kind == "jpg":
        figure.savefig(file, format=kind, dpi=160, pil_kwargs={"quality": 85})
    else:
        figure.savefig(file, format=kind, metadata={"Date": None})
    return file.getvalue()
