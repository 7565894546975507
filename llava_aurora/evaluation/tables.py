"""Tables of an evaluation's numbers: in the paper's form with its figures beside ours, and in full.

Made of results.json alone. A cell is text; what is not there is "–".
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from llava_aurora.evaluation import paper
from llava_aurora.evaluation.benchmarks.question import REASONINGS
from llava_aurora.evaluation.benchmarks.registry import BENCHMARKS
from llava_aurora.report.document import NONE, Table, interval, number, percent

THEIRS = "AURORA's paper"
OURS = "this model"
BASELINES = {"guessing": "guessing", "blind": "blind baseline"}  # in the order of their columns; "blind" where known
_DEPTH_HEADER = ("from", "relative depth, %", *paper.POINTS, "mean")


def paper_tables(results: Mapping[str, Any]) -> list[Table]:
    """Relative depth and counting as the paper tabulates them, of the benchmarks that were asked; percent."""
    found, benchmarks = [], results["benchmarks"]
    if {"hardblink", "blink_depth"} & set(benchmarks):
        groups = [benchmarks[name] for name in ("blink_depth", "hardblink") if name in benchmarks]
        rows = _published(paper.RELATIVE_DEPTH) + _depth_rows(groups)
        found.append(_table("Relative depth: BLINK (2 points) and HardBLINK", _DEPTH_HEADER, rows))
    if set(paper.COUNTING_BENCHMARKS) & set(benchmarks):
        rows = _published(paper.COUNTING)
        for name, title in BASELINES.items():
            cells = [_accuracy(benchmarks.get(task), name) for task in paper.COUNTING_BENCHMARKS]
            if any(cell != NONE for cell in cells):
                rows.append((title, "", *cells))
        for reasoning in REASONINGS:
            cells = [_accuracy(benchmarks.get(task), "accuracy", reasoning) for task in paper.COUNTING_BENCHMARKS]
            if any(cell != NONE for cell in cells):
                rows.append((OURS, reasoning, *cells))
        header = ("from", "counting, %", "CV-Bench", "SEED-Bench", "BLINK")
        found.append(_table("Counting", header, rows))
    for name in benchmarks:
        if name in BENCHMARKS and name.startswith("scenes") and BENCHMARKS[name].family == "depth":
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
                    *(percent(summary.get(name)) for name in BASELINES),
                    percent(summary["unparsable"]),
                    percent(summary["unfinished"]),
                )
            )
    columns = ("questions", "right, % [95 %]", "right of the parsed, % [95 %]", *BASELINES, "unparsable", "cut off")
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
                percent(summary["guessing"]),
                interval(summary.get("agreement")),
                *(number(depth.get(name)) for name in ("mse", "aligned_mse", "abs_rel")),
                percent(depth.get("delta")),
                number(depth.get("spearman")),
                number(summary.get("location_error"), digits=1),
            )
        )
    header = (
        *("", "with a map", "read out of it, % [95 %]", "guessing", "answer agrees with it, %"),
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


def replacement_table(found: Mapping[str, Any], *, guessing: float | None) -> Table:
    """What each replacement of the map costs, beside what guessing gets right."""
    rows: list[tuple[str, ...]] = []
    for condition in found["conditions"].values():
        rows.append(
            (
                condition["put_in"],
                interval(condition["accuracy"]),
                percent(guessing),
                interval(condition["loss"]),
                f"{condition['p_value']:.2g}",
                percent(condition["changed"]),
                percent(condition["follows"]),
            )
        )
    header = (
        *("in the place of its map", "right, % [95 %]", "guessing", "lost, points [95 %]", "p", "changed"),
        "follows what is put in",
    )
    return Table(found["title"], header, rows)


def published_replacement_table() -> Table:
    """The test's published figures."""
    rows = [(name, f"{value:.1f}") for name, value in paper.REPLACED.items()]
    title = "As published: a LLaVA-13B on HardBLINK, mean of 3 to 5 points"
    return Table(title, ("in the place of its map", "right, %"), rows, frozenset(range(len(rows))))


# --- rows -------------------------------------------------------------------------------------------------------------


def _table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    return Table(title, header, rows, frozenset(place for place, row in enumerate(rows) if row[0] == THEIRS))


def _published(figures: Mapping[str, Sequence[float | None]]) -> list[tuple[str, ...]]:
    return [
        (THEIRS, name, *(NONE if value is None else f"{value:.1f}" for value in values))
        for name, values in figures.items()
    ]


def _depth_rows(entries: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """Rows of the baselines, then for each way of asking of the answers and of what is read out of the maps."""
    by_reasoning: dict[str, dict[str, Any]] = {}
    for entry in entries:
        for reasoning, asked in entry["reasonings"].items():
            by_reasoning.setdefault(reasoning, {}).update(asked["categories"])
    either = {name: group for groups in by_reasoning.values() for name, group in groups.items()}
    rows = [_by_points(title, "", either, name) for name, title in BASELINES.items()]
    for reasoning in REASONINGS:
        groups = by_reasoning.get(reasoning, {})
        rows.append(_by_points(OURS, reasoning, groups, "accuracy"))
        rows.append(_by_points(OURS, f"{reasoning}, read out of its map", groups, "read_out"))
    return [row for row in rows if set(row[2:]) != {NONE}]


def _by_points(source: str, label: str, groups: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """A measure by number of points, and its mean where all numbers are there."""
    values = [_mean(groups.get(points, {}).get(name)) for points in paper.POINTS]
    known = [value for value in values if value is not None]
    mean = sum(known) / len(known) if len(known) == len(values) else None
    return (source, label, *map(percent, values), percent(mean))


def _accuracy(entry: Mapping[str, Any] | None, name: str, reasoning: str | None = None) -> str:
    """A measure of one way of asking, or of the first that was asked."""
    asked = entry["reasonings"] if entry else {}
    reasoning = next(iter(asked), None) if reasoning is None else reasoning
    return percent(asked[reasoning]["summary"].get(name)) if reasoning in asked else NONE


def _mean(share: float | Mapping[str, Any] | None) -> float | None:
    return share["value"] if isinstance(share, Mapping) else share


def _summaries(benchmarks: Mapping[str, Any]) -> Iterable[tuple[str, str, Mapping[str, Any]]]:
    for entry in benchmarks.values():
        for reasoning, asked in entry["reasonings"].items():
            yield entry["title"], reasoning, asked["summary"]
