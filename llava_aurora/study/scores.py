"""Numbers over seeds, from the results of runs: means over questions with intervals, and differences between two.

A question's score is its mean over the seeds; what is resampled are questions, each number of points on its own. So an
interval says how sure a number is over questions like these; how far seeds lie apart is shown beside it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from llava_aurora.evaluation.statistics import Interval, bootstrap_mean

Result = Mapping[str, Any]
Scores = dict[str, np.ndarray]  # by category: float64 (questions,), NaN where there is nothing to score


@dataclass(frozen=True)
class Score:
    """A mean over questions and seeds, and the same of each seed alone."""

    interval: Interval
    by_seed: Mapping[int, float]


def answers(task: str, reasoning: str, *, what: str = "right") -> Callable[[Result], Scores | None]:
    """Scores of a run's answers, 0 or 1; `what`, see `condensed_answers`. None if it was not asked so or has none."""

    def scores(result: Result) -> Scores | None:
        marks = result["benchmarks"].get(task, {}).get(reasoning, {}).get(what)
        return None if marks is None else _numbers(marks)

    return scores


def replaced(task: str, condition: str) -> Callable[[Result], Scores | None]:
    """What a replacement of the map costs each question: 1 lost, -1 won, 0 neither. None without such a test."""

    def scores(result: Result) -> Scores | None:
        conditions = result["replacement"].get(task, {}).get("conditions", {})
        if condition not in conditions:
            return None
        control, after = (_numbers(conditions[name]["right"]) for name in ("own", condition))
        return {category: control[category] - after[category] for category in control}

    return scores


def score(
    results: Sequence[Result], scores: Callable[[Result], Scores | None], *, categories: Sequence[str] | None = None
) -> Score | None:
    """The mean over the runs of one contestant.

    Args:
        results: of its seeds.
        scores: of a run.
        categories: that count, each alike; all if left out.

    Returns:
        None if no run has such scores, or none in one of these categories.
    """
    found = _found(results, scores)
    together = _together(list(found.values()), categories)
    if together is None:
        return None
    return Score(
        bootstrap_mean(*(values.tolist() for values in together)),
        {seed: _mean(each, categories) for seed, each in found.items()},
    )


def difference(
    first: Sequence[Result],
    second: Sequence[Result],
    scores: tuple[Callable[[Result], Scores | None], Callable[[Result], Scores | None]],
    *,
    categories: Sequence[str] | None = None,
) -> Score | None:
    """How much higher the second contestant scores on the same questions, over the seeds that both have.

    Raises:
        ValueError: if they were asked other questions.
    """
    one, other = _found(first, scores[0]), _found(second, scores[1])
    seeds = [seed for seed in one if seed in other]
    differences = {seed: {name: other[seed][name] - one[seed][name] for name in one[seed]} for seed in seeds}
    together = _together(list(differences.values()), categories)
    if together is None:
        return None
    by_seed = {seed: _mean(each, categories) for seed, each in differences.items()}
    return Score(bootstrap_mean(*(values.tolist() for values in together)), by_seed)


def _numbers(marks: Mapping[str, str]) -> Scores:
    values = {"1": 1.0, "0": 0.0, "-": np.nan}
    return {category: np.array([values[mark] for mark in found]) for category, found in marks.items()}


def _found(results: Sequence[Result], scores: Callable[[Result], Scores | None]) -> dict[int, Scores]:
    by_seed = {result["seed"]: scores(result) for result in results}
    return {seed: found for seed, found in by_seed.items() if found is not None}


def _together(found: Sequence[Scores], categories: Sequence[str] | None) -> list[np.ndarray] | None:
    """By category each question's mean over the seeds, questions without a score left out."""
    if not found:
        return None
    names = [name for name in found[0] if categories is None or name in categories]
    kept = []
    for name in names:
        stacked = np.stack([each[name] for each in found])
        scored = stacked[:, ~np.isnan(stacked).all(axis=0)]
        kept.append(np.nanmean(scored, axis=0))
    return kept if kept and all(map(len, kept)) and len(kept) == len(categories or names) else None


def _mean(scores: Scores, categories: Sequence[str] | None) -> float:
    """Over categories, each counted alike; NaN where one has no score."""
    chosen = [values[~np.isnan(values)] for name, values in scores.items() if categories is None or name in categories]
    return float(np.mean([values.mean() if len(values) else np.nan for values in chosen]))
