"""Tables of an evaluation's numbers: in the paper's form with its figures beside ours, and in full.

Made of results.json alone. A cell is text; what is not there is "–".
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from llava_aurora.evaluation import paper
from llava_aurora.evaluation.benchmarks.question import REASONINGS
from llava_aurora.evaluation.benchmarks.registry import BENCHMARKS
from llava_aurora.report.document import NONE, Table, interval, number, percent
from llava_aurora.tasks.outcome import Measure
from llava_aurora.tasks.registry import families

THEIRS, PUBLISHED = "AURORA's paper", "as published"
OURS = "this model"
BASELINES = {"chance": "chance", "blind": "blind baseline"}  # in the order of their columns; "blind" where known
_COSTS = (("seconds", 2), ("token_passes", 0))
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
    if "refcoco" in benchmarks:
        rows = _published(paper.REFERRING, source=PUBLISHED)
        rows += _mask_rows(benchmarks["refcoco"], [(name, "ciou") for name in paper.REFERRING_SETS])
        found.append(_table("Referring segmentation", ("from", "cIoU, %", *paper.REFERRING_SETS), rows))
    if "grounded" in benchmarks:
        rows = _published(paper.GROUNDED, source=PUBLISHED)
        rows += _mask_rows(benchmarks["grounded"], [(None, name) for name in paper.GROUNDED_MEASURES])
        found.append(_table("Grounded descriptions", ("from", "%", *paper.GROUNDED_MEASURES), rows))
    return found


def answer_table(entry: Mapping[str, Any]) -> Table:
    """Of one benchmark, by category: accuracy of all and of parsed answers, baselines, shares of unparsable ones.

    Each row links to its cases.
    """
    rows, links = [], []
    for reasoning, asked in entry["reasonings"].items():
        groups = asked["categories"] if len(asked["categories"]) > 1 else {}
        for name, summary in {**groups, "all": asked["summary"]}.items():
            cases = [case for case in asked.get("gallery", ()) if name == (case.get("category") if groups else "all")]
            links.append([(f"{'right' if case['right'] else 'wrong'} {case['id']}", case["picture"]) for case in cases])
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
    return Table(entry["title"], header, rows, links=links if any(links) else ())


def cost_table(benchmarks: Mapping[str, Any]) -> Table | None:
    """Seconds and tokens of an answer, by benchmark and way of asking; None where they are not known."""
    rows = [
        (f"{entry['title']}, {reasoning}", *(_cost(asked["costs"].get(name), digits) for name, digits in _COSTS))
        for entry in benchmarks.values()
        for reasoning, asked in entry["reasonings"].items()
        if "costs" in asked
    ]
    return Table("What an answer takes", ("", "seconds", "tokens read"), rows) if rows else None


def _cost(value: float | None, digits: int) -> str:
    return NONE if value is None else f"{value:,.{digits}f}"


def family_tables(benchmarks: Mapping[str, Any]) -> tuple[list[Table], list[str]]:
    """What answers hold on their way: for each task family its measures, and how they are taken."""
    tables, notes = [], []
    for family in families():
        asked = [each for each in _summaries(benchmarks) if each[2] == family.name]
        spans = [each for each in asked if each[3]["has_span"]]
        if spans and family.replaced_kind is not None:
            rows = [
                (
                    title,
                    *(percent(summary.get(name)) for name in ("has_span", *BASELINES)),
                    interval(summary["read_out"]),
                )
                for title, summary in ((f"{title}, {way}", summary) for title, way, _, summary in spans)
                if "read_out" in summary
            ]
            kind = family.replaced_kind
            header = (
                "",
                f"with a {kind} span, %",
                *BASELINES.values(),
                f"answer computed from the {kind} span, % [95 %]",
            )
            tables += [Table(f"Answers computed from {kind} spans", header, rows)] if rows else []
        for each in family.measures:
            shown = [one for one in each.measures if any(one.name in summary["measures"] for *_, summary in asked)]
            rows = [
                (label, *(_cell(one, measured.get(one.name)) for one in shown))
                for title, way, _, summary in asked
                for label, measured in (
                    (f"{title}, {way}", summary["measures"]),
                    (f"{title}, blind baseline", summary.get("blind_measures", {})),
                )
                if any(one.name in measured for one in shown)
            ]
            if rows:
                tables.append(Table(each.title, ("", *(one.title for one in shown)), rows))
                notes += [each.note] if each.note else []
    return tables, notes


def _cell(measure: Measure, value: Mapping[str, Any] | None) -> str:
    return interval(value) if measure.digits is None else number(value, digits=measure.digits)


def replacement_table(found: Mapping[str, Any]) -> Table:
    """What each replacement of the map costs, beside the baselines."""
    rows: list[tuple[str, ...]] = []
    for condition in found["conditions"].values():
        rows.append(
            (
                condition["put_in"],
                interval(condition["accuracy"]),
                *(percent(found.get(name)) for name in BASELINES),
                interval(condition["loss"]),
                f"{condition['p_value']:.2g}",
                percent(condition["changed"]),
                percent(condition["follows"]),
                percent(condition.get("predicted")),
            )
        )
    header = (
        *("in the place of its map", "right, % [95 %]", *BASELINES.values()),
        *("accuracy drop versus its own map, points [95 %]", "p", "changed, %", "follows what is put in, %"),
        "another answer, as predicted, %",
    )
    return Table(found["title"], header, rows)


def published_replacement_table() -> Table:
    """The test's published figures."""
    rows = [(name, f"{value:.1f}") for name, value in paper.REPLACED.items()]
    title = "As published: a LLaVA-13B on HardBLINK, mean of 3 to 5 points"
    return Table(title, ("in the place of its map", "right, %"), rows, frozenset(range(len(rows))))


# --- rows -------------------------------------------------------------------------------------------------------------


def _table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    quoted = frozenset(place for place, row in enumerate(rows) if row[0] in (THEIRS, PUBLISHED))
    return Table(title, header, rows, quoted)


def _published(figures: Mapping[str, Sequence[float | None]], *, source: str = THEIRS) -> list[tuple[str, ...]]:
    return [
        (source, name, *(NONE if value is None else f"{value:.1f}" for value in values))
        for name, values in figures.items()
    ]


def _mask_rows(entry: Mapping[str, Any], columns: Sequence[tuple[str | None, str]]) -> list[tuple[str, ...]]:
    """Rows of each way of asking and of the blind baseline. Args: columns: category (None: all) and measure."""
    rows = []
    for reasoning, asked in entry["reasonings"].items():
        groups = [(asked["categories"].get(name, {}) if name else asked["summary"], one) for name, one in columns]
        for source, label, key in ((OURS, reasoning, "measures"), ("blind baseline", "", "blind_measures")):
            values = [group.get(key, {}).get(one, {}).get("value") for group, one in groups]
            rows.append((source, label, *map(percent, values)))
    return [row for row in dict.fromkeys(rows) if set(row[2:]) != {NONE}]


def _depth_rows(entries: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """Rows of the baselines, then for each way of asking of the answers and of what their maps imply."""
    by_reasoning: dict[str, dict[str, Any]] = {}
    for entry in entries:
        for reasoning, asked in entry["reasonings"].items():
            by_reasoning.setdefault(reasoning, {}).update(asked["categories"])
    either = {name: group for groups in by_reasoning.values() for name, group in groups.items()}
    rows = [_by_points(title, "", either, name) for name, title in BASELINES.items()]
    for reasoning in REASONINGS:
        groups = by_reasoning.get(reasoning, {})
        rows.append(_by_points(OURS, reasoning, groups, "accuracy"))
        rows.append(_by_points(OURS, f"{reasoning}, computed from its map", groups, "read_out"))
    return [row for row in rows if set(row[2:]) != {NONE}]


def _by_points(source: str, label: str, groups: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """A measure by number of points, and its mean where all numbers are there."""
    shares = [groups.get(points, {}).get(name) for points in paper.POINTS]
    values = [share["value"] if isinstance(share, Mapping) else share for share in shares]
    known = [value for value in values if value is not None]
    mean = sum(known) / len(known) if len(known) == len(values) else None
    return (source, label, *map(percent, values), percent(mean))


def _accuracy(entry: Mapping[str, Any] | None, name: str, reasoning: str | None = None) -> str:
    """A measure of one way of asking, or of the first that was asked."""
    asked = entry["reasonings"] if entry else {}
    reasoning = next(iter(asked), None) if reasoning is None else reasoning
    return percent(asked[reasoning]["summary"].get(name)) if reasoning in asked else NONE


def _summaries(benchmarks: Mapping[str, Any]) -> Iterable[tuple[str, str, str, Mapping[str, Any]]]:
    """Title, way of asking, name of the task family, summary."""
    for entry in benchmarks.values():
        for reasoning, asked in entry["reasonings"].items():
            yield entry["title"], reasoning, entry["family"], asked["summary"]
