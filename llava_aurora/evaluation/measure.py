"""Judges the answers of an evaluation, and computes its numbers.

A `Judged` holds all that is known of one answer and is plain JSON, so that reports and comparisons need neither the
model nor the images again.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from llava_aurora.evaluation.benchmarks.question import Question
from llava_aurora.evaluation.statistics import Interval, bootstrap_mean, bootstrap_pooled, bootstrap_ratio
from llava_aurora.generation.result import Answer
from llava_aurora.tasks.answers import stated
from llava_aurora.tasks.outcome import Measured, Outcome
from llava_aurora.tasks.registry import family_named
from llava_aurora.tasks.written import Written, read_written
from llava_aurora.tokens.perception import PerceptionTokens

_SAMPLES, _SAMPLE_LENGTH = 5, 300  # of texts that state no answer


@dataclass(frozen=True)
class Judged:
    """One answer against the truth."""

    # id, category, family, kind, chance: of the question
    id: str
    category: str
    family: str
    kind: str
    chance: float | None
    # truth, stated: the right answer and the one that the text states; None if it states none
    truth: str
    stated: str | None
    finished: bool  # False if the answer was cut off
    has_span: bool  # whether it holds what the answers of a chain follow from, such as a whole map
    read_out: str | None  # the answer that the span implies, whatever the text says; None if that is not known
    # values of the family's measures by name; what was not asked, known or written is left out
    measures: Mapping[str, Measured]
    unparsable: str | None = None  # the end of a text that states no answer
    image_id: str | None = None  # of the question

    @property
    def correct(self) -> bool:
        return self.stated == self.truth


def judge(question: Question, line: Answer, perception: PerceptionTokens | None) -> Judged:
    """Judges one answer. Raises AuroraError if the true depth map cannot be read."""
    family = family_named(question.family)
    written, annotation = written_of(question, line, perception)
    answer = stated(line.text, kind=question.kind, choices=question.choices)
    outcome = Outcome(question, written, annotation, answer, perception, line.text)
    answer, measured = family.answered(outcome), family.measure(outcome)
    return Judged(
        id=question.id,
        category=question.category,
        family=question.family,
        kind=question.kind,
        chance=question.chance,
        truth=question.answer,
        stated=answer,
        finished=line.finished,
        has_span=family.has_span(written),
        read_out=family.answer_by(question, annotation) if annotation is not None else None,
        measures={name: value for name, value in measured.items() if value is not None},
        unparsable=line.text[-_SAMPLE_LENGTH:] if answer is None else None,
        image_id=question.image_id,
    )


def written_of(question: Question, line: Answer, perception: PerceptionTokens | None) -> tuple[Written, Any]:
    """What an answer holds, and the annotation (such as a depth map, uint8 (H, W)) of the span it is answered from."""
    kind = family_named(question.family).replaced_kind
    written = read_written(line.text, line.ids, perception, kind=kind)
    if written.codes is None or perception is None or kind is None:
        return written, None
    return written, perception.kinds[kind].decode(written.codes)


# --- groups of answers ------------------------------------------------------------------------------------------------


def summarize(judged: Sequence[Judged]) -> dict[str, Any]:
    """Numbers of a group of answers, as JSON takes them: shares and means with their intervals, and their counts.

    `read_out` is the share of answers whose span implies the right answer; no span counts as wrong.
    """
    summary: dict[str, Any] = {
        "questions": len(judged),
        "accuracy": accuracy(judged).to_json(),
        "accuracy_parsed": accuracy(each for each in judged if each.stated is not None).to_json(),
        "unparsable": _share(judged, lambda each: each.stated is None),
        "unfinished": _share(judged, lambda each: not each.finished),
        "unparsable_samples": [each.unparsable for each in judged if each.unparsable is not None][:_SAMPLES],
        "chance": chance(judged),
        "has_span": _share(judged, lambda each: each.has_span),
        "measures": measures_of(judged),
    }
    if any(each.read_out is not None for each in judged):
        known = [each for each in judged if each.read_out is not None or not each.has_span]
        summary["read_out"] = bootstrap_mean([each.read_out == each.truth for each in known]).to_json()
    return summary


def measures_of(judged: Sequence[Judged]) -> dict[str, Any]:
    """Of each measure that some answer has, its mean or ratio over those answers."""
    spans, found = any(each.has_span for each in judged), {}
    for family in dict.fromkeys(each.family for each in judged):
        for measure in (measure for table in family_named(family).measures for measure in table.measures):
            values = [each.measures[measure.name] for each in judged if measure.name in each.measures]
            if not values or (measure.of_span and not spans):
                continue
            if measure.pooled is not None:
                taken = bootstrap_pooled(values, measure.pooled)  # type: ignore[arg-type]
            elif isinstance(values[0], Sequence):
                taken = bootstrap_ratio(_by_image(judged, measure.name))
            else:
                taken = bootstrap_mean(values)  # type: ignore[arg-type]
            found[measure.name] = taken.to_json()
    return found


def _by_image(judged: Sequence[Judged], name: str) -> list[tuple[float, float]]:
    """The pairs of a measure, those of one image added: questions about one image are not independent."""
    sums: dict[str, tuple[float, float]] = {}
    for each in judged:
        if name in each.measures:
            key, (one, other) = each.image_id or each.id, each.measures[name]  # type: ignore[misc]
            above, below = sums.get(key, (0.0, 0.0))
            sums[key] = above + one, below + other
    return list(sums.values())


def by_category(judged: Iterable[Judged]) -> dict[str, list[Judged]]:
    """The answers of each category, in the order of their names."""
    found: dict[str, list[Judged]] = {}
    for each in judged:
        found.setdefault(each.category, []).append(each)
    return dict(sorted(found.items()))


def accuracy(judged: Iterable[Judged]) -> Interval:
    """The mean over categories, each counted alike, of the share that is right; unparsable is wrong."""
    groups = by_category(judged).values()
    units = [[each.image_id or each.id for each in group] for group in groups]
    return bootstrap_mean(*([each.correct for each in group] for group in groups), units=units)


def chance(judged: Sequence[Judged]) -> float | None:
    """What chance gets right: of letters and names one of those there are, of numbers the most frequent one."""
    if judged and all(each.chance is not None for each in judged):
        groups = by_category(judged).values()
        return float(np.mean([np.mean([each.chance for each in group]) for group in groups]))
    truths = [each.truth for each in judged if each.kind == "number"]
    return max(map(truths.count, set(truths))) / len(truths) if truths else None


def _share(judged: Sequence[Judged], holds: Callable[[Judged], bool]) -> float:
    return sum(map(holds, judged)) / len(judged) if judged else 0.0
