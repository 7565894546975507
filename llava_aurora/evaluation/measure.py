"""From answers to numbers: what each question came to, and the tables of all.

A `Judged` holds all that is known of one answer and is plain JSON, so that reports and comparisons need neither the
model nor the images again.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from llava_aurora.evaluation.benchmarks.question import Question
from llava_aurora.evaluation.box_quality import BoxMatch, match_boxes
from llava_aurora.evaluation.map_quality import map_quality
from llava_aurora.evaluation.statistics import Interval, bootstrap_mean
from llava_aurora.evaluation.written import Written, read_written, values_of_map
from llava_aurora.generation.result import Answer
from llava_aurora.tasks.answers import stated
from llava_aurora.tasks.registry import family_named
from llava_aurora.tokens.perception import PerceptionTokens

_SAMPLES, _SAMPLE_LENGTH = 5, 300  # of texts that state no answer


@dataclass(frozen=True)
class Judged:
    """One answer against the truth; None where a thing was not asked, not known or not written.

    Attributes:
        id, category, kind, chance: of the question.
        truth, stated: the right answer and the one that the text states; None if it states none.
        finished: False if the answer was cut off.
        has_map: whether a whole map was written.
        read_out: letter of the closest of the marked points by the map that was written.
        points_known: whether the true places of the marked points are known.
        location_error: mean distance in frame pixels of the stated points from the true ones.
        depth: measures of `MapQuality` by name.
        boxes: numbers of matched, written and true boxes, where the true ones are known.
        boxes_written: how many boxes were written.
        highest: letters of the points whose stated value is the highest; none if no values are stated.
        highest_of_map: letters of the stated points whose value is the highest as the model was taught to read it in
            its map; none if it was not taught to, or wrote no map.
        values_are_maps: whether all values are stated so; None if it was not taught to, or states none.
        unparsable: the end of a text that states no answer.
    """

    id: str
    category: str
    kind: str
    chance: float | None
    truth: str
    stated: str | None
    finished: bool
    has_map: bool
    read_out: str | None
    points_known: bool
    location_error: float | None
    depth: dict[str, float] | None
    boxes: tuple[int, int, int] | None
    boxes_written: int
    highest: list[str] = field(default_factory=list)
    highest_of_map: list[str] = field(default_factory=list)
    values_are_maps: bool | None = None
    unparsable: str | None = None

    @property
    def correct(self) -> bool:
        return self.stated == self.truth

    @property
    def agrees(self) -> bool | None:
        """Whether the answer is what the answer's own map or boxes say; None where neither was written."""
        if self.read_out is not None:
            return self.stated == self.read_out
        if self.kind == "number" and self.boxes_written:
            return self.stated == str(self.boxes_written)
        return None

    @property
    def highest_is_right(self) -> bool:
        """Whether the point with the highest stated value would be the right answer; of equals, the first."""
        return bool(self.highest) and min(self.highest) == self.truth

    @property
    def highest_of_map_is_right(self) -> bool:
        """The same of the values that its map holds: what the values can be worth, if they are read without fault."""
        return bool(self.highest_of_map) and min(self.highest_of_map) == self.truth

    @property
    def count_error(self) -> float | None:
        """How far the stated number is off; None where none is stated."""
        return abs(int(self.stated) - int(self.truth)) if self.kind == "number" and self.stated is not None else None


def judge(question: Question, line: Answer, perception: PerceptionTokens | None) -> Judged:
    """Judges one answer. Raises AuroraError if the true depth map cannot be read."""
    family = family_named(question.family)
    kind = family.replaced_kind
    written = read_written(line.text, line.ids, perception, kind=kind)
    annotation = decode(written, perception, kind=kind)
    true = question.true_depth() if kind == "depth" and annotation is not None else None
    quality = asdict(map_quality(annotation, true)) if annotation is not None and true is not None else None
    matched = match_boxes(written.boxes, question.boxes) if question.boxes is not None else None
    by_map = replace(written, values=values_of_map(written, perception))
    answer = stated(line.text, kind=question.kind, choices=question.choices)
    return Judged(
        id=question.id,
        category=question.category,
        kind=question.kind,
        chance=question.chance,
        truth=question.answer,
        stated=answer,
        finished=line.finished,
        has_map=annotation is not None,
        read_out=family.answer_by(question, annotation) if annotation is not None else None,
        points_known=bool(question.points),
        location_error=_location_error(question, written),
        depth=quality,
        boxes=(matched.matched, matched.written, matched.true) if matched is not None else None,
        boxes_written=len(written.boxes),
        highest=list(written.highest),
        highest_of_map=list(by_map.highest),
        values_are_maps=written.values == by_map.values if written.values and by_map.values else None,
        unparsable=line.text[-_SAMPLE_LENGTH:] if answer is None else None,
    )


def decode(written: Written, perception: PerceptionTokens | None, *, kind: str | None = "depth") -> Any:
    """The annotation that was written, such as a depth map, uint8 (H, W); None if there is none."""
    if written.codes is None or perception is None or kind is None:
        return None
    return perception.kinds[kind].decode(written.codes)


def _location_error(question: Question, written: Written) -> float | None:
    both = [letter for letter in question.points if letter in written.points]
    if not both:
        return None
    distances = [np.hypot(*np.subtract(question.points[letter], written.points[letter])) for letter in both]
    return float(np.mean(distances))


# --- tables -----------------------------------------------------------------------------------------------------------


def summarize(judged: Sequence[Judged]) -> dict[str, Any]:
    """Numbers of a group of answers, as JSON takes them: shares and means with their intervals, and their counts."""
    summary: dict[str, Any] = {
        "questions": len(judged),
        "accuracy": accuracy(judged).to_json(),
        "accuracy_parsed": accuracy(each for each in judged if each.stated is not None).to_json(),
        "unparsable": _share(judged, lambda each: each.stated is None),
        "unfinished": _share(judged, lambda each: not each.finished),
        "unparsable_samples": [each.unparsable for each in judged if each.unparsable is not None][:_SAMPLES],
        "guessing": guessing(judged),
        "has_map": _share(judged, lambda each: each.has_map),
    }
    known = [each for each in judged if each.points_known or each.read_out is not None]
    if any(each.has_map for each in known):
        summary["read_out"] = bootstrap_mean([each.read_out == each.truth for each in known]).to_json()
    measured: dict[str, Sequence[float | None]] = {
        "agreement": [each.agrees for each in judged],
        "location_error": [each.location_error for each in judged],
        "count_error": [each.count_error for each in judged],
    }
    for name, values in measured.items():
        there = [float(value) for value in values if value is not None]
        if there:
            summary[name] = bootstrap_mean(there).to_json()
    if valued := [each for each in judged if each.highest]:
        summary["values"] = _values(judged, valued)
    maps = [each.depth for each in judged if each.depth is not None]
    if maps:
        summary["depth"] = {name: bootstrap_mean([each[name] for each in maps]).to_json() for name in maps[0]}
    boxes = [BoxMatch(*each.boxes) for each in judged if each.boxes is not None]
    if any(each.written for each in boxes):
        together = BoxMatch.together(boxes)
        summary["boxes"] = {name: getattr(together, name) for name in ("precision", "recall", "f1")} | asdict(together)
    return summary


def _values(judged: Sequence[Judged], valued: Sequence[Judged]) -> dict[str, Any]:
    """How far the steps from map to values to answer are followed, of the answers that state values."""
    known = any(each.highest_of_map for each in judged)
    steps = {
        "of_map_right": [each.highest_of_map_is_right for each in judged] if known else [],
        "are_maps": [each.values_are_maps for each in valued if each.values_are_maps is not None],
        "of_map": [each.read_out in each.highest for each in valued if each.read_out is not None],
        "right": [each.highest_is_right for each in judged],
        "followed": [each.stated in each.highest for each in valued],
    }
    shares = {name: bootstrap_mean(held).to_json() for name, held in steps.items() if held}
    return {"stated": len(valued) / len(judged), **shares}


def by_category(judged: Iterable[Judged]) -> dict[str, list[Judged]]:
    """The answers of each category, in the order of their names."""
    found: dict[str, list[Judged]] = {}
    for each in judged:
        found.setdefault(each.category, []).append(each)
    return dict(sorted(found.items()))


def accuracy(judged: Iterable[Judged]) -> Interval:
    """The mean over categories, each counted alike, of the share that is right; unparsable is wrong."""
    groups = by_category(judged).values()
    return bootstrap_mean(*([each.correct for each in group] for group in groups))


def guessing(judged: Sequence[Judged]) -> float | None:
    """What guessing gets right: of letters and names one of those there are, of numbers the most frequent one."""
    if judged and all(each.chance is not None for each in judged):
        groups = by_category(judged).values()
        return float(np.mean([np.mean([each.chance for each in group]) for group in groups]))
    truths = [each.truth for each in judged if each.kind == "number"]
    return max(map(truths.count, set(truths))) / len(truths) if truths else None


def _share(judged: Sequence[Judged], holds: Callable[[Judged], bool]) -> float:
    return sum(map(holds, judged)) / len(judged) if judged else 0.0
