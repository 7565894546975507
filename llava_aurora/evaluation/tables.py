"""Tables of an evaluation's numbers: in the paper's form with its figures beside ours, and in full.

Made of results.json alone. A cell is text; what is not there is "–".
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llava_aurora.evaluation import paper
from llava_aurora.evaluation.benchmarks.question import REASONINGS
from llava_aurora.evaluation.benchmarks.registry import BENCHMARKS

NONE = "–"
THEIRS = "AURORA's paper"
OURS = "this model"
_DEPTH_HEADER = ("from", "relative depth, %", *paper.POINTS, "mean")


@dataclass(frozen=True)
class Table:
    """Args: title; header; rows: of as many cells; theirs: numbers of the rows that are not our measurements."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    theirs: frozenset[int] = field(default_factory=frozenset)


def paper_tables(results: Mapping[str, Any]) -> list[Table]:
    """Relative depth and counting as the paper tabulates them, of the benchmarks that were asked; percent."""
    found, benchmarks = [], results["benchmarks"]
    if {"hardblink", "blink_depth"} & set(benchmarks):
        groups = [benchmarks[name] for name in ("blink_depth", "hardblink") if name in benchmarks]
        rows = _theirs(paper.RELATIVE_DEPTH) + _depth_rows(groups)
        found.append(_table("Relative depth: BLINK (2 points) and HardBLINK", _DEPTH_HEADER, rows))
    if set(paper.COUNTING_BENCHMARKS) & set(benchmarks):
        rows = _theirs(paper.COUNTING)
        for reasoning in REASONINGS:
            cells = [_accuracy(benchmarks.get(name), reasoning) for name in paper.COUNTING_BENCHMARKS]
            if any(cell != NONE for cell in cells):
                rows.append((OURS, reasoning, *cells))
        header = ("from", "counting, %", "CV-Bench", "SEED-Bench", "BLINK")
        found.append(_table("Counting", header, rows))
    for name in benchmarks:
        if name in BENCHMARKS and name.startswith("scenes") and BENCHMARKS[name].domain == "depth":
            found.append(_table(benchmarks[name]["title"], _DEPTH_HEADER, _depth_rows([benchmarks[name]])))
    return found


def answer_table(entry: Mapping[str, Any]) -> Table:
    """Of one benchmark, by category: accuracy over all and over parsed answers, guessing, shares of unparsable ones."""
    rows = []
    for reasoning, asked in entry["reasonings"].items():
        groups = asked["categories"] if len(asked["categories"]) > 1 else {}
        for name, summary in {**groups, "all": asked["summary"]}.items():
            rows.append(
                (
                    reasoning,
                    name,
                    str(summary["questions"]),
                    interval(summary["accuracy"]),
                    interval(summary.get("accuracy_parsed")),
                    percent(summary["guessing"]),
                    percent(summary["unparsable"]),
                    percent(summary["unfinished"]),
                )
            )
    columns = ("questions", "right, % [95 %]", "right of the parsed, % [95 %]", "guessing", "unparsable", "cut off")
    header = ("reasoning", "", *columns)
    return Table(entry["title"], header, rows)


def map_table(benchmarks: Mapping[str, Any]) -> Table | None:
    """What the maps are worth: None if none was written."""
    rows = []
    for title, reasoning, summary in _summaries(benchmarks):
        if not summary["has_map"]:
            continue
        depth = summary.get("depth", {})
        rows.append(
            (
                f"{title}, {reasoning}",
                percent(summary["has_map"]),
                interval(summary.get("read_out")),
                interval(summary.get("agreement")),
                *(number(depth.get(name)) for name in ("mse", "aligned_mse", "abs_rel")),
                percent(depth["delta"]["value"]) if depth else NONE,
                number(depth.get("spearman")),
                number(summary.get("location_error"), digits=1),
            )
        )
    header = (
        *("", "with a map", "read out of it, % [95 %]", "answer agrees with it, %"),
        *("MSE", "MSE aligned", "AbsRel", "δ < 1.25", "Spearman", "points off, px"),
    )
    return Table("What the maps are worth", header, rows) if rows else None


def value_table(benchmarks: Mapping[str, Any]) -> Table | None:
    """Which step from map to values to answer holds: None if no values were stated."""
    rows = []
    for title, reasoning, summary in _summaries(benchmarks):
        if (values := summary.get("values")) is not None:
            steps = ("of_map_right", "are_maps", "of_map", "right", "followed")
            shares = (interval(values.get(step)) for step in steps)
            rows.append(
                (f"{title}, {reasoning}", percent(values["stated"]), interval(summary.get("read_out")), *shares)
            )
    header = (
        "",
        "with values",
        "closest by its map is right, % [95 %]",
        "highest of its map's values is right, %",
        "all values are its map's, %",
        "highest value is closest by its map, %",
        "highest value is right, %",
        "answer is the highest value, %",
    )
    return Table("From the map to the values, from the values to the answer", header, rows) if rows else None


def box_table(benchmarks: Mapping[str, Any]) -> Table | None:
    """What the boxes are worth: None if none was written."""
    rows = []
    for title, reasoning, summary in _summaries(benchmarks):
        boxes = summary.get("boxes")
        if boxes is None and "count_error" not in summary:
            continue
        shares = [percent(boxes[name]) if boxes else NONE for name in ("precision", "recall", "f1")]
        counts = f"{boxes['matched']} / {boxes['written']} / {boxes['true']}" if boxes else NONE
        error, agreement = number(summary.get("count_error"), digits=2), interval(summary.get("agreement"))
        rows.append((f"{title}, {reasoning}", *shares, counts, error, agreement))
    header = (
        "",
        "precision",
        "recall",
        "F1",
        "matched / written / true",
        "count off by",
        "answer agrees with boxes, %",
    )
    return Table("Boxes at IoU 0.5, and counts", header, rows) if rows else None


def replacement_table(found: Mapping[str, Any]) -> Table:
    """What each replacement of the map costs."""
    rows: list[tuple[str, ...]] = []
    for condition in found["conditions"].values():
        rows.append(
            (
                condition["put_in"],
                interval(condition["accuracy"]),
                interval(condition["loss"]),
                f"{condition['p_value']:.2g}",
                percent(condition["changed"]["value"]),
                percent(condition["follows"]["value"]) if condition["follows"] else NONE,
            )
        )
    header = (
        "in the place of its map",
        "right, % [95 %]",
        "lost, points [95 %]",
        "p",
        "changed",
        "follows what is put in",
    )
    return Table(found["title"], header, rows)


def published_replacement_table() -> Table:
    """The test's published figures."""
    rows = [(name, f"{value:.1f}") for name, value in paper.REPLACED.items()]
    title = "As published: a LLaVA-13B on HardBLINK, mean of 3 to 5 points"
    return Table(title, ("in the place of its map", "right, %"), rows, frozenset(range(len(rows))))


# --- cells ------------------------------------------------------------------------------------------------------------


def percent(share: float | None) -> str:
    """A share in percent with one digit."""
    return NONE if share is None else f"{100 * share:.1f}"


def interval(value: Mapping[str, Any] | None) -> str:
    """A share and its interval in percent."""
    if value is None or value["value"] is None:
        return NONE
    return f"{100 * value['value']:.1f} [{100 * value['low']:.1f}, {100 * value['high']:.1f}]"


def number(value: Mapping[str, Any] | None, *, digits: int = 3) -> str:
    """A mean without its interval."""
    return NONE if value is None or value["value"] is None else f"{value['value']:.{digits}f}"


def _table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    return Table(title, header, rows, frozenset(place for place, row in enumerate(rows) if row[0] == THEIRS))


def _theirs(figures: Mapping[str, Sequence[float | None]]) -> list[tuple[str, ...]]:
    return [
        (THEIRS, name, *(NONE if value is None else f"{value:.1f}" for value in values))
        for name, values in figures.items()
    ]


def _depth_rows(entries: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """A row for each way of asking and for what is read out of the maps; the mean where all four are there."""
    rows = []
    for reasoning in REASONINGS:
        groups: dict[str, Any] = {}
        for entry in entries:
            groups |= entry["reasonings"].get(reasoning, {}).get("categories", {})
        for label, name in ((reasoning, "accuracy"), (f"{reasoning}, read out of its map", "read_out")):
            values = [groups.get(points, {}).get(name, {}).get("value") for points in paper.POINTS]
            if any(value is not None for value in values):
                there = [value for value in values if value is not None]
                mean = sum(there) / len(there) if len(there) == len(values) else None
                rows.append((OURS, label, *map(percent, values), percent(mean)))
    return rows


def _accuracy(entry: Mapping[str, Any] | None, reasoning: str) -> str:
    asked = entry["reasonings"].get(reasoning) if entry else None
    return percent(asked["summary"]["accuracy"]["value"]) if asked else NONE


def _summaries(benchmarks: Mapping[str, Any]) -> Iterable[tuple[str, str, Mapping[str, Any]]]:
    for entry in benchmarks.values():
        for reasoning, asked in entry["reasonings"].items():
            yield entry["title"], reasoning, asked["summary"]
