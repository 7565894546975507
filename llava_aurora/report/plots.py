"""Plots and panels of images as PNG files, each written whole."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

from llava_aurora.files import atomic_file

DPI = 110
Panel = tuple[str, Image.Image]


def new_axes(*, width: float, height: float = 3.8) -> Axes:
    """Axes of a figure of its own, without a window; sizes in inches."""
    axes = Figure(figsize=(width, height), dpi=DPI, layout="constrained").add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def save_axes(axes: Axes, path: str | Path, *, title: str = "", **settings: Any) -> None:
    """Writes the figure of some axes as a PNG.

    Args:
        axes: of `new_axes`.
        path: of the file.
        title: above it.
        settings: as `Axes.set` takes them, such as xlabel.

    Raises:
        AuroraError: if it cannot be written.
    """
    axes.set_title(title, fontsize=10, loc="left")
    axes.set(**settings)
    if axes.get_legend_handles_labels()[0] and axes.get_legend() is None:
        axes.legend(fontsize=8, frameon=False)
    figure = axes.get_figure()
    assert isinstance(figure, Figure)
    save_figure(figure, path)


def save_figure(figure: Figure, path: str | Path) -> None:
    """Writes a figure as a PNG. Raises AuroraError if it cannot be written."""
    with atomic_file(path) as temporary:
        figure.savefig(temporary, format="png")


def bars(axes: Axes, intervals: Sequence[Mapping[str, Any]], *, offset: float = 0, **settings: Any) -> None:
    """Bars of mean shares in percent with their 95 % intervals, at 0, 1, 2 … + offset; settings as for `Axes.bar`."""
    values, lows, highs = (np.array([100 * each[name] for each in intervals]) for name in ("value", "low", "high"))
    places = np.arange(len(values)) + offset
    axes.bar(places, values, width=0.34, **settings)
    axes.errorbar(places, values, yerr=[values - lows, highs - values], fmt="none", ecolor="black", capsize=3, lw=1)


def whole_numbers(axes: Axes) -> None:
    """Ticks of the x-axis at whole numbers alone."""
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def histogram(
    path: Path, counts: Mapping[int, int], *, label: str, limit: int | None = None, bars: int | None = None
) -> None:
    """A PNG of how many records have which value.

    Args:
        path: of the file.
        counts: number of records by value.
        label: of the x-axis.
        limit: a line at the maximum length.
        bars: from 0 to the limit or beyond; one for each value if left out.
    """
    axes = new_axes(width=7, height=3.6)
    values = sorted(counts)
    if values:
        top = max(values[-1], limit or 0) + 0.5
        edges = (np.linspace(-0.5, top, bars + 1) if bars else np.arange(-0.5, top + 1)).tolist()
        axes.hist(values, bins=edges, weights=[counts[value] for value in values], color="#4477aa", rwidth=0.9)
    else:
        axes.text(0.5, 0.5, "none", transform=axes.transAxes, ha="center")
    if limit is not None:
        axes.axvline(limit, color="#cc3311", label=f"maximum length {limit:,}")
    whole_numbers(axes)
    save_axes(axes, path, xlabel=label, ylabel="records")


def loss_curves(path: Path, history: Sequence[Mapping[str, Any]]) -> None:
    """A PNG of the whole loss and its parts from a trainer's log history."""
    axes = new_axes(width=7, height=4)
    logged = [entry for entry in history if "loss" in entry]
    for name in ("loss", *sorted({key for entry in logged for key in entry if key.startswith("loss_")})):
        points = [(entry["step"], entry[name]) for entry in logged if name in entry]
        width = 2.5 if name == "loss" else 1
        axes.plot(*zip(*points, strict=True), label=name.replace("loss_", ""), linewidth=width)
    axes.grid(alpha=0.3)
    save_axes(axes, path, xlabel="step", ylabel="cross-entropy (nats a token)")


def save_panels(path: Path, panels: Sequence[Panel], *, question: str, answer: str, truth: str) -> None:
    """Writes images in a row, each under its title, with question, answer and truth below, as a PNG."""
    figure = Figure(figsize=(3.2 * len(panels), 4.6), dpi=100)
    for place, (title, picture) in enumerate(panels, start=1):
        axes = figure.add_subplot(1, len(panels), place)
        axes.imshow(picture, interpolation="nearest")
        axes.set_title(title, fontsize=11)
        axes.set_axis_off()
    lines = [f"Q: {question}", f"A: {answer}", f"true: {truth}"]
    text = "\n".join(textwrap.fill(line, 26 * len(panels), subsequent_indent="   ") for line in lines)
    figure.subplots_adjust(left=0.01, right=0.99, top=0.93, bottom=0.3, wspace=0.03)
    figure.text(0.02, 0.27, text, fontsize=10, va="top", family="monospace", parse_math=False)
    save_figure(figure, path)
