"""Tables of a study in the paper's form, the paper's figures beside. What was not run says so; "–" was not measured."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from llava_aurora.evaluation import paper
from llava_aurora.evaluation.replacement import CONTROL, REPLACEMENTS
from llava_aurora.evaluation.tables import NONE, THEIRS, Table, interval, percent
from llava_aurora.study.contestants import CONTESTANTS
from llava_aurora.study.expectations import HARD, Results
from llava_aurora.study.scores import Result, Scores, answers, replaced, score
from llava_aurora.study.sizes import BY_COORDINATES, COUNTING, MARKED, Size

NOT_RUN = "not run"
OURS = "here"
# Mean squared error of maps on BLINK and on Visual Genome. Source: arXiv 2412.03548v2, supplement.
RECONSTRUCTION = {"AURORA": (0.087, 0.076), "AURORA with reconstruction loss": (0.092, 0.074)}
_COLUMNS: Sequence[tuple[str, Sequence[str]]] = (
    *((name, (name,)) for name in paper.POINTS),
    ("3 to 5 points", HARD),
    ("mean", paper.POINTS),
)
_DEPTH_HEADER = ("from", "right, %", *(name for name, _ in _COLUMNS), "mean by seed")
_THEIR_DEPTH = ("LLaVA-1.5-13B", "fine-tuned on direct answers", "AURORA", "AURORA, read out of its map")
_TITLES = {MARKED: "marked points", BY_COORDINATES: "points by coordinates"}
_OURS = tuple(name for name, contestant in CONTESTANTS.items() if contestant.group == "values")
_ORDER = ("direct", "chain", "constant", "full", *_OURS)
# The steps from a map to an answer, by what a result keeps of each.
_STEPS = {
    "read_out": "closest by its map is right",
    "highest_of_map": "highest of its map's values is right",
    "are_maps": "all values are its map's",
    "highest": "highest value is right",
    "followed": "answer is the highest value",
    "right": "answer is right",
}
Limits = Mapping[str, Mapping[str, float]]
Measure = Callable[[Result], Scores | None]


def paper_tables(results: Results, limits: Limits, *, size: Size) -> list[Table]:
    """The paper's tables in kind.

    Args:
        results: of the runs that are done, by contestant.
        limits: what reading points out of maps gives without a model, by what is read and number of points.
        size: of the study.
    """
    first, *others = size.depth_benchmarks
    return [
        _depth_table(first, results, limits),
        *(_depth_table(task, results, {}) for task in others),
        _counting_table(results),
        *([_coordinate_table(results)] if size.marked else []),
        _plain_text_table(results),
        _reconstruction_table(results, first),
        _order_table(results, size),
    ]


def replacement_tables(results: Results, *, size: Size) -> list[Table]:
    """What replacing the map costs every contestant that writes one."""
    names = [name for name in REPLACEMENTS if name != CONTROL]
    found = []
    for task in size.depth_benchmarks:
        rows = []
        for contestant in CONTESTANTS.values():
            if "chain" in contestant.kinds:
                runs = results.get(contestant.name, ())
                right = [_cell(runs, answers(task, "chain", what=what), HARD) for what in ("right", "read_out")]
                cells = [_cell(runs, replaced(task, name), HARD) for name in names]
                rows.append((contestant.title, *right, *cells, _location_errors(runs, task), _verdicts(runs, task)))
        replaced_by = (REPLACEMENTS[name] for name in names)
        header = ("", "right, %", "read out of it, %", *replaced_by, "points off, pixels, by seed", "verdict by seed")
        found.append(Table(_TITLES[task], header, rows))
    return found


def step_tables(results: Results, *, size: Size) -> list[Table]:
    """Which step from map to values to answer fails, of every contestant whose chains state values."""
    found = []
    for task in size.depth_benchmarks:
        rows = []
        for name, contestant in CONTESTANTS.items():
            if "value_step" in contestant.flags:
                marks = (answers(task, "chain", what=what) for what in _STEPS)
                runs = results.get(name, ())
                cells = ((_cell(runs, each, HARD), _seeds(runs, each, HARD)) for each in marks)
                rows.append((contestant.title, *(cell for pair in cells for cell in pair)))
        header = ("", *(name for step in _STEPS.values() for name in (f"{step}, %", "by seed")))
        found.append(Table(_TITLES[task], header, rows))
    return found


def _depth_table(task: str, results: Results, limits: Limits) -> Table:
    rows = _theirs_by_points(*_THEIR_DEPTH)
    rows.append(
        (OURS, "guessing", *(_share({name: 1 / int(name[0]) for name in paper.POINTS}, c) for _, c in _COLUMNS), "")
    )
    for name, shares in limits.items():
        rows.append((OURS, f"read out of {name}, without a model", *(_share(shares, c) for _, c in _COLUMNS), ""))
    for name in ("direct", "chain", "full", *_OURS):
        for reasoning in CONTESTANTS[name].reasonings:
            label = f"{CONTESTANTS[name].title}, asked for {_asked(reasoning)}"
            rows.append(_by_points(results, name, label, answers(task, reasoning)))
    for name in ("full", *(name for name in _OURS if "chain" in CONTESTANTS[name].kinds)):
        label = f"{CONTESTANTS[name].title}, read out of its map"
        rows.append(_by_points(results, name, label, answers(task, "chain", what="read_out")))
    return _table(f"Relative depth: {_TITLES[task]}", _DEPTH_HEADER, rows)


def _coordinate_table(results: Results) -> Table:
    rows = _theirs_by_points("AURORA", "chain without the coordinate step")
    for name in ("full", "no_coordinates"):
        rows.append(_by_points(results, name, CONTESTANTS[name].title, answers(MARKED, "chain")))
    return _table("The coordinate step, marked points", _DEPTH_HEADER, rows)


def _counting_table(results: Results) -> Table:
    rows = _theirs_counting("LLaVA-1.5-13B", "fine-tuned", "AURORA")
    for name in ("direct", "chain", "full"):
        for reasoning in CONTESTANTS[name].reasonings:
            label = f"{CONTESTANTS[name].title}, asked for {_asked(reasoning)}"
            rows.append(_counted(results, name, label, reasoning))
    guessing = [
        each["benchmarks"][COUNTING][reasoning]["summary"]["guessing"]
        for runs in results.values()
        for each in runs
        for reasoning in CONTESTANTS[each["contestant"]["name"]].reasonings
    ]
    rows.append((OURS, "the most frequent count", *[NONE] * 3, percent(guessing[0]) if guessing else NOT_RUN, "", ""))
    return _table("Counting", _COUNTING_HEADER, rows)


_COUNTING_HEADER = ("from", "right, %", "CV-Bench", "SEED-Bench", "BLINK", "scenes", "by seed", "F1 of boxes")


def _plain_text_table(results: Results) -> Table:
    rows = _theirs_counting("AURORA", "AURORA with plain-text coordinates")
    for name in ("full", "plain_text"):
        rows.append(_counted(results, name, CONTESTANTS[name].title, "chain"))
    return _table("Perception tokens against plain text, counting", _COUNTING_HEADER, rows)


def _reconstruction_table(results: Results, task: str) -> Table:
    rows: list[tuple[str, ...]] = []
    for name, (blink, genome) in RECONSTRUCTION.items():
        rows.append((THEIRS, name, f"{blink:.3f}", f"{genome:.3f}", *[NONE] * 4))
    for name in ("full", "reconstruction"):
        runs = results.get(name, ())
        measures = [_depth_measure(runs, task, "mse", digits=4), _depth_measure(runs, task, "spearman", digits=3)]
        cells = [_cell(runs, answers(task, "chain", what=what), HARD) for what in ("read_out", "right")]
        rows.append((OURS, CONTESTANTS[name].title, NONE, NONE, *measures, *cells))
    header = (
        "from",
        "",
        "MSE, BLINK",
        "MSE, Visual Genome",
        "MSE, scenes",
        "Spearman",
        "read out, 3 to 5",
        "right, 3 to 5",
    )
    return _table("Reconstruction loss", header, rows)


def _order_table(results: Results, size: Size) -> Table:
    rows = []
    for name in _ORDER:
        reasoning, runs = CONTESTANTS[name].reasonings[0], results.get(name, ())
        cells = [_cell(runs, answers(task, reasoning), HARD) for task in size.depth_benchmarks]
        cells.append(_cell(runs, answers(COUNTING, reasoning)))
        rows.append((CONTESTANTS[name].title, _asked(reasoning), *cells))
    header = ("", "asked for", *(f"{_TITLES[task]}, 3 to 5" for task in size.depth_benchmarks), "counting")
    return Table("What is learned, and in which order, %", header, rows)


# --- rows and cells ---------------------------------------------------------------------------------------------------


def _by_points(results: Results, name: str, label: str, scores: Measure) -> tuple[str, ...]:
    runs = results.get(name, ())
    return (OURS, label, *(_cell(runs, scores, categories) for _, categories in _COLUMNS), _seeds(runs, scores))


def _counted(results: Results, name: str, label: str, reasoning: str) -> tuple[str, ...]:
    runs, scores = results.get(name, ()), answers(COUNTING, reasoning)
    boxes = [each["benchmarks"].get(COUNTING, {}).get(reasoning, {}).get("summary", {}).get("boxes") for each in runs]
    f1 = [each["f1"] for each in boxes if each]
    quality = percent(float(np.mean(f1))) if f1 else NONE
    return (OURS, label, *[NONE] * 3, _cell(runs, scores), _seeds(runs, scores), quality)


def _theirs_by_points(*names: str) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for name in names:
        *points, mean = paper.RELATIVE_DEPTH[name]
        hard = [value for value in points[1:] if value is not None]
        values = [*points, sum(hard) / len(hard), mean]
        rows.append((THEIRS, name, *(NONE if value is None else f"{value:.1f}" for value in values), ""))
    return rows


def _theirs_counting(*names: str) -> list[tuple[str, ...]]:
    return [
        (THEIRS, name, *(NONE if value is None else f"{value:.1f}" for value in paper.COUNTING[name]), NONE, "", NONE)
        for name in names
    ]


def _table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    return Table(title, header, rows, frozenset(place for place, row in enumerate(rows) if row[0] == THEIRS))


def _cell(runs: Sequence[Result], scores: Measure, categories: Sequence[str] | None = None) -> str:
    """A mean over the runs with its interval; runs without one were not asked so, or wrote nothing to measure."""
    if not runs:
        return NOT_RUN
    found = score(runs, scores, categories=categories)
    return NONE if found is None else interval(found.interval.to_json())


def _seeds(runs: Sequence[Result], scores: Measure, categories: Sequence[str] | None = None) -> str:
    """The mean over some categories, or over all, seed by seed."""
    found = score(runs, scores, categories=categories)
    return "" if found is None else ", ".join(percent(value) for _, value in sorted(found.by_seed.items()))


def _share(shares: Mapping[str, float], categories: Sequence[str]) -> str:
    there = [shares[name] for name in categories if name in shares]
    return percent(float(np.mean(there))) if len(there) == len(categories) else NONE


def _asked(reasoning: str) -> str:
    return "a chain" if reasoning == "chain" else "the answer"


def _depth_measure(runs: Sequence[Result], task: str, name: str, *, digits: int) -> str:
    """Mean over the runs of a measure of the maps in chains."""
    if not runs:
        return NOT_RUN
    found = [each["benchmarks"].get(task, {}).get("chain", {}).get("summary", {}).get("depth") for each in runs]
    values = [each[name]["value"] for each in found if each]
    return f"{np.mean(values):.{digits}f}" if values else NONE


def _location_errors(runs: Sequence[Result], task: str) -> str:
    """How far the points that chains name lie from those that they mean, in pixels of the frame, on average."""
    if not runs:
        return NOT_RUN
    found = [
        each["benchmarks"].get(task, {}).get("chain", {}).get("summary", {}).get("location_error") for each in runs
    ]
    return ", ".join(f"{each['value']:.1f}" for each in found if each) or NONE


def _verdicts(runs: Sequence[Result], task: str) -> str:
    """What the replacement test finds, in the order of the seeds; once if all agree."""
    if not runs:
        return NOT_RUN
    said = [
        each["replacement"][task]["verdict"]["finding"] if task in each["replacement"] else "no chain holds a map"
        for each in runs
    ]
    return said[0] if len(set(said)) == 1 else "; ".join(said)
