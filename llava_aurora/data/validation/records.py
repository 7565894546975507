"""Checks of a record without its image: format, paths, spans, and whether its text agrees with its truth.

A record that was written from a task (tasks/) keeps the truth under "aurora"; text and truth are compared here. Of
LLaVA's own records, which have none, only format, path and spans are looked at.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from llava_aurora.data.images.image_files import path_inside
from llava_aurora.data.store.record_file import images_of, record_problem
from llava_aurora.errors import AuroraError
from llava_aurora.tasks.points import mentions
from llava_aurora.tasks.registry import family_of, task_of
from llava_aurora.tokens.box import BoxKind
from llava_aurora.tokens.vocabulary import (
    MalformedSpan,
    TokenFamily,
    any_mask_family,
    by_kind,
    depth_family,
    pixel_family,
)

Report = Callable[[str, str], None]
ENDLESS = 10**9


def record_name(index: int, record: Any) -> str:
    """How a record is named in a report: its place in the file, and its id."""
    return f"record {index} (id {record['id']})" if isinstance(record, dict) and "id" in record else f"record {index}"


class TextChecks:
    """Args:
    families: the token families of the model.
    frame: side of the frame that coordinates refer to.
    image_folder: that images must not lead out of; a folder of any name if left out.
    """

    def __init__(
        self, *, families: Iterable[TokenFamily], frame: int = 336, image_folder: str | Path | None = None
    ) -> None:
        self.image_folder = image_folder or "images"
        self.families = tuple(families)
        self.frame = frame
        known = {family.name for family in self.families}
        self._foreign = [
            family for family in (depth_family(), pixel_family(), any_mask_family()) if family.name not in known
        ]
        # The same families with any number for a code: what these read is well formed but for its codes.
        self._any_code = {family.name: replace(family, size=ENDLESS) for family in self.families}
        self._box = BoxKind(frame=frame)

    def run(self, record: Any, report: Report) -> bool:
        """Reports (kind, message) of all that is wrong; returns whether the record is one in LLaVA's format."""
        for name in images_of(record) if isinstance(record, dict) else ():
            try:
                if isinstance(name, str) and name:
                    path_inside(self.image_folder, name)
            except AuroraError as error:
                report("path", str(error))
                return False
        if problem := record_problem(record, ()):
            report("format", problem)
            return False
        well_formed = True
        for number, turn in enumerate(record["conversations"]):
            well_formed &= self._spans(number, turn["value"], report)
        for family in self._foreign:
            if number := sum(family.count(turn["value"]) for turn in record["conversations"]):
                report("foreign", f"{number} {family.name} tokens, which would be read as letters and digits")
        about = record.get("aurora")
        if problem := truth_problem(about):
            report("format", problem)
        elif well_formed and about is not None:
            self._agreement(record, report)
        return True

    def true_boxes(self, record: Mapping[str, Any]) -> int | None:
        """How many boxes the truth of a record has; None for one that is not about boxes."""
        about = record.get("aurora")
        return len(about["boxes"]) if isinstance(about, Mapping) and isinstance(about.get("boxes"), list) else None

    def _spans(self, number: int, text: str, report: Report) -> bool:
        """Whether all spans of a turn are as their family prescribes."""
        for family in self.families:
            try:
                family.check(text)
            except MalformedSpan as error:
                report(self._fault(family, text), f"turn {number}: {error}")
                return False
        return True

    def _fault(self, family: TokenFamily, text: str) -> str:
        try:
            self._any_code[family.name].parse(text)
        except MalformedSpan:
            return "spans"
        return "codes"

    def _agreement(self, record: Mapping[str, Any], report: Report) -> None:
        """What the record's task finds wrong with it."""
        task = task_of(record)
        if task is None:
            return
        question, answer = record["conversations"][0]["value"], record["conversations"][-1]["value"]
        known = by_kind(self.families)
        for kind, part in task.span_in.items():
            text = question if part == "question" else answer
            if kind in known and (number := len(known[kind].parse(text))) != 1:
                report("spans", f"{task.name} has {number} {kind} spans in its {part} instead of one")
        for mention in mentions(question) + mentions(answer):
            try:
                self._box.encode(mention.place)
            except AuroraError as error:
                report("coordinates", str(error))
        for problem in family_of(task).problems(task, record, frame=self.frame, families=known):
            report(*problem)


def truth_problem(about: Any) -> str | None:
    """What keeps the truth of a record from being read."""
    if about is None:
        return None
    if not isinstance(about, Mapping):
        return "'aurora' is not an object"
    boxes, points, depths = (about.get(name, empty) for name, empty in (("boxes", []), ("points", {}), ("depths", {})))
    if not isinstance(boxes, list) or not all(_are_numbers(box, 4) for box in boxes):
        return "'aurora' has boxes that are not [[x1, y1, x2, y2], …]"
    if not isinstance(points, Mapping) or not all(_are_numbers(place, 2) for place in points.values()):
        return "'aurora' has points that are not {letter: [x, y]}"
    if not isinstance(depths, Mapping) or not all(map(_is_number, depths.values())):
        return "'aurora' has depths that are not {letter: number}"
    texts = ("answer", "thing", "things", "depth", "unmarked")
    if wrong := next((name for name in texts if isinstance(about.get(name), Mapping | list)), None):
        return f"'aurora' has no text under {wrong!r}"
    return None


def _are_numbers(values: Any, number: int) -> bool:
    return isinstance(values, list) and len(values) == number and all(map(_is_number, values))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -1e9 < value < 1e9  # nor NaN
