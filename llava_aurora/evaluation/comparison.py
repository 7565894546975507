"""Compares two models on the same questions, with intervals and a paired test."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from llava_aurora.errors import AuroraError
from llava_aurora.evaluation.measure import Judged
from llava_aurora.evaluation.run import judged_answers, read_results, right
from llava_aurora.evaluation.statistics import Interval, Paired, bootstrap_mean, compare_paired


@dataclass(frozen=True)
class Compared:
    """One benchmark, asked in one way; first and second are the two models' accuracies over all its questions."""

    title: str
    reasoning: str
    first: Interval
    second: Interval
    paired: Paired
    answered: bool  # whether both models stated some answers; else a test of their right ones says nothing


def compare_evaluations(first: Path, second: Path) -> list[Compared]:
    """Compares two folders of `llava-aurora eval` wherever both were asked the same in the same way.

    Raises AuroraError if a folder has no results, they have no benchmark in common, or the questions of one differ.
    """
    benchmarks = [read_results(folder)["benchmarks"] for folder in (first, second)]
    found = []
    for task in (task for task in benchmarks[0] if task in benchmarks[1]):
        entries = [each[task] for each in benchmarks]
        for reasoning in (name for name in entries[0]["reasonings"] if name in entries[1]["reasonings"]):
            answers = [judged_answers(entry, reasoning) for entry in entries]
            if list(_asked(answers[0])) != list(_asked(answers[1])):
                raise AuroraError(
                    f"{first} and {second}: were evaluated on different questions of {task}; use the same for both"
                )
            one, other = map(right, answers)
            means = bootstrap_mean(one), bootstrap_mean(other)
            answered = all(any(each.stated is not None for each in judged) for judged in answers)
            found.append(Compared(entries[0]["title"], reasoning, *means, compare_paired(one, other), answered))
    if not found:
        raise AuroraError(f"{first} and {second}: have no benchmark with the same reasoning in common")
    return found


def _asked(judged: list[Judged]) -> Iterator[tuple[str, str]]:
    return ((each.id, each.truth) for each in judged)
