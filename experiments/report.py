"""What runs of an experiment came to: numbers of one evaluation, and the tables of all runs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llava_aurora.report.document import NONE, Section, Table, interval, percent, write_markdown

HOW = (
    "One row for each training. Intervals are 95 % bootstrap over questions; rows of two seeds show how much seeds"
    " differ. Chance is any point, or always the most frequent number; blind is the highest accuracy without the"
    " image."
)
MEASURES = {"accuracy": "right", "read_out": "computed from the map in its chain"}


def run_summary(results: Mapping[str, Any]) -> dict[str, Any]:
    """Of results.json of an evaluation, what the report needs.

    Returns:
        "benchmarks": by benchmark its title and, by reasoning and category ("all" is the mean over categories), numbers
        of questions and of those right, with shares and intervals of MEASURES, chance and, if known, blind;
        "replacement": by benchmark the verdict and, by what is put in the place of the map, accuracy and what is lost.
    """
    benchmarks = {
        name: {
            "title": entry["title"],
            **{
                reasoning: {
                    category: _numbers(summary)
                    for category, summary in {**asked["categories"], "all": asked["summary"]}.items()
                }
                for reasoning, asked in entry["reasonings"].items()
            },
        }
        for name, entry in results["benchmarks"].items()
    }
    replacement = {
        name: {
            "title": found["title"],
            "finding": found["verdict"]["finding"],
            "conditions": {
                condition: {each: measured[each] for each in ("put_in", "accuracy", "loss")}
                for condition, measured in found["conditions"].items()
            },
        }
        for name, found in results.get("replacement", {}).items()
    }
    return {"benchmarks": benchmarks, "replacement": replacement}


def _numbers(summary: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: summary[name] for name in (*MEASURES, "chance", "blind") if name in summary}
    counts = {"questions": summary["questions"], "right": round(summary["accuracy"]["value"] * summary["questions"])}
    return {**counts, **kept}


def write_report(path: Path, *, size: str, runs: Sequence[Mapping[str, Any]]) -> Path:
    """Writes the tables of all runs as Markdown. Returns the path."""
    names = dict.fromkeys(name for run in runs for name in run["benchmarks"])
    answers = [table for name in names for measure in MEASURES if (table := _answers(name, measure, runs)).rows]
    replaced = dict.fromkeys(name for run in runs for name in run["replacement"])
    sections = [
        Section("Answers", [HOW], answers),
        Section("With replaced maps", [], [_replacements(name, runs) for name in replaced]),
        Section("Runs", [], [_runs(runs)]),
    ]
    write_markdown(path, f"Experiments of size {size}", [section for section in sections if section.tables])
    return path


def _answers(name: str, measure: str, runs: Sequence[Mapping[str, Any]]) -> Table:
    """A row for each run and way of asking; in front what chance and the blind baseline get right."""
    asked = [
        (run, reasoning, run["benchmarks"][name][reasoning])
        for run in runs
        if name in run["benchmarks"]
        for reasoning in ("chain", "direct")
        if reasoning in run["benchmarks"][name]
    ]
    title = f"{asked[0][0]['benchmarks'][name]['title']}: {MEASURES[measure]}, % [95 %]"
    categories = list(asked[0][2])
    rows: list[tuple[str, ...]] = []
    for run, reasoning, groups in asked:
        if any(measure in group for group in groups.values()):
            cells = [interval(groups[category].get(measure)) for category in categories]
            rows.append((run["title"], str(run["seed"]), reasoning, *cells))
    if rows:
        groups = asked[0][2]
        for baseline in ("blind", "chance"):
            if any(groups[category].get(baseline) is not None for category in categories):
                shares = [percent(groups[category].get(baseline)) for category in categories]
                rows.insert(0, (baseline, "", "", *shares))
    return Table(title, ("variant", "seed", "reasoning", *categories), rows)


def _replacements(name: str, runs: Sequence[Mapping[str, Any]]) -> Table:
    tested = [(run, run["replacement"][name]) for run in runs if name in run["replacement"]]
    put_in = {key: each["put_in"] for _, found in tested for key, each in found["conditions"].items()}
    rows = [
        (
            run["title"],
            str(run["seed"]),
            *(interval(found["conditions"][key]["accuracy"]) if key in found["conditions"] else NONE for key in put_in),
            found["finding"],
        )
        for run, found in tested
    ]
    title = f"{tested[0][1]['title']}: right with each map, % [95 %]"
    return Table(title, ("variant", "seed", *put_in.values(), "its map"), rows)


def _runs(runs: Sequence[Mapping[str, Any]]) -> Table:
    rows = [
        (
            f"{run['variant']}-{run['seed']}",
            f"{run['seconds']['training']:.0f}{' (resumed)' if run['resumed'] else ''}",
            f"{sum(seconds for stage, seconds in run['seconds'].items() if stage != 'training'):.0f}",
            str(run["commit"]),
            f"`{run['commands']['training']}`",
        )
        for run in runs
    ]
    return Table("", ("run", "training, s", "evaluation, s", "commit", "training"), rows)
