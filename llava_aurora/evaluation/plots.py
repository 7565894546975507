"""Plots of an evaluation: accuracy with its intervals, and what each replacement of the map costs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from llava_aurora.evaluation.figures import save_figure

COLORS = {"chain": "#4477aa", "direct": "#ee9944"}
_CONTROL = "#555555"


def plot_accuracy(path: Path, entry: Mapping[str, Any]) -> None:
    """Bars of each category and reasoning with their 95 % intervals, and guessing as a line, as a PNG."""
    ways = list(entry["reasonings"])
    categories = list(entry["reasonings"][ways[0]]["categories"])
    axes = _axes(width=1.6 + 1.5 * len(categories))
    for place, reasoning in enumerate(ways):
        groups = entry["reasonings"][reasoning]["categories"]
        offset = (place - (len(ways) - 1) / 2) * 0.36
        _bars(axes, [groups[name]["accuracy"] for name in categories], offset, COLORS.get(reasoning, "gray"), reasoning)
    for place, name in enumerate(categories):
        guessing = entry["reasonings"][ways[0]]["categories"][name]["guessing"]
        if guessing is not None:
            label = "guessing" if place == 0 else ""
            axes.hlines(100 * guessing, place - 0.45, place + 0.45, colors="black", linestyles="--", label=label)
    axes.set_xticks(range(len(categories)), categories)
    axes.set_ylim(0, 100)
    axes.set_ylabel("right, %")
    axes.legend(fontsize=8)
    _finish(axes, path, entry["title"])


def plot_replacements(path: Path, found: Mapping[str, Any]) -> None:
    """Accuracy after each replacement of the map, beside the control's, as a PNG."""
    conditions = found["conditions"]
    axes = _axes(width=1.6 + 1.2 * len(conditions))
    _bars(axes, [each["accuracy"] for each in conditions.values()], 0, COLORS["chain"], None)
    control = next(iter(conditions.values()))["accuracy"]["value"]
    axes.axhline(100 * control, color=_CONTROL, linestyle=":", label="control")
    axes.set_xticks(range(len(conditions)), list(conditions))
    axes.set_ylim(0, 100)
    axes.set_ylabel("right, %")
    axes.legend(fontsize=8)
    _finish(axes, path, f"{found['title']}: {found['verdict']['finding']}")


def _axes(*, width: float) -> Axes:
    figure = Figure(figsize=(max(4.0, width), 3.4), dpi=100)
    FigureCanvasAgg(figure)
    return figure.add_subplot()


def _bars(axes: Axes, intervals: list[Mapping[str, Any]], offset: float, color: str, label: str | None) -> None:
    values = [100 * each["value"] for each in intervals]
    below = [100 * (each["value"] - each["low"]) for each in intervals]
    above = [100 * (each["high"] - each["value"]) for each in intervals]
    places = [place + offset for place in range(len(intervals))]
    axes.bar(places, values, width=0.34, color=color, label=label)
    axes.errorbar(places, values, yerr=[below, above], fmt="none", ecolor="black", capsize=3, linewidth=1)


def _finish(axes: Axes, path: Path, title: str) -> None:
    axes.set_title(title, fontsize=10)
    axes.grid(axis="y", alpha=0.3)
    figure = axes.get_figure()
    assert isinstance(figure, Figure)
    figure.tight_layout()
    save_figure(figure, path)
