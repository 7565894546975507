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
ROWS = 8  # of a question or an answer under panels
Panel = tuple[str, Image.Image]


def new_axes(*, width: float, height: float = 3.8) -> Axes:
    """Axes of a figure of its own, without a window; sizes in inches."""
    axes = Figure(figsize=(width, height), dpi=DPI, layout="constrained").add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def save_axes(axes: Axes, path: str | Path, *, title: str = "", **settings: Any) -> None:
    """Writes the figure of some axes as a PNG.

    Args: axes: of `new_axes`; settings: as `Axes.set` takes them, such as xlabel.
    Raises AuroraError if it cannot be written.
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
    axes.bar(places, values, **{"width": 0.34, **settings})
    axes.errorbar(places, values, yerr=[values - lows, highs - values], fmt="none", ecolor="black", capsize=3, lw=1)


def whole_numbers(axes: Axes) -> None:
    """Ticks of the x-axis at whole numbers alone."""
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def histogram(
    path: Path, counts: Mapping[int, int], *, label: str, limit: int | None = None, bars: int | None = None
) -> None:
    """A PNG of how many records have which value.

    Args: bars: from 0 to the limit or beyond; one for each value if left out.
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


def save_panels(
    path: Path, panels: Sequence[Panel], *, question: str, answer: str, truth: str, right: bool | None = None
) -> None:
    """Writes images in a row, each under its title, with truth, question and answer below, as a PNG.

    Args:
        panels: at least one.
        question, answer, truth: in words; long ones are cut in the middle, so that each can be seen.
        right: shown as a badge; None for none.
    """
    across = 26 * len(panels)
    badge = {True: "RIGHT   ", False: "WRONG   ", None: ""}[right]
    lines = [f"{badge}true: {truth}", f"Q: {question}", f"A: {answer}"]
    rows = [row for line in lines for row in _filled(line, across)]
    below = 0.25 + 0.17 * len(rows)
    figure = Figure(figsize=(3.2 * len(panels), 3.6 + below), dpi=100)
    share = below / (3.6 + below)
    for place, (title, picture) in enumerate(panels, start=1):
        axes = figure.add_subplot(1, len(panels), place)
        axes.imshow(picture, interpolation="nearest")
        axes.set_title("\n".join(_filled(title, 34)), fontsize=9)
        axes.set_axis_off()
    figure.subplots_adjust(left=0.01, right=0.99, top=0.9, bottom=share, wspace=0.03)
    color = {True: "#117733", False: "#bb2222", None: "black"}[right]
    style: dict[str, Any] = {"fontsize": 10, "va": "top", "family": "monospace", "parse_math": False}
    figure.text(0.02, share - 0.02, rows[0], color=color, weight="bold", **style)
    figure.text(0.02, share - 0.02, "\n".join(["", *rows[1:]]), **style)
    save_figure(figure, path)


def _filled(text: str, width: int) -> list[str]:
    """A text in rows, at most ROWS: what is too long is cut in the middle."""
    shown = "".join(letter if letter.isprintable() else "·" for letter in text.replace("\n", " / "))
    rows = textwrap.wrap(shown, width, subsequent_indent="   ") or [""]
    return rows if len(rows) <= ROWS else [*rows[: ROWS // 2], "   […]", *rows[-(ROWS // 2) :]]
