"""What can be known to be wrong with a record from its text alone: format, paths, spans, and whether they agree.

A record of RecordWriter keeps the truth under "aurora"; text and truth are compared here. Records of LLaVA's own have
none, and of them only format, path and spans are looked at.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from llava_aurora.data.images.image_files import path_inside
from llava_aurora.data.store.record_file import record_problem
from llava_aurora.data.tasks import TASKS, task_name
from llava_aurora.errors import AuroraError
from llava_aurora.evaluation.scoring import stated_letter, stated_number
from llava_aurora.tokens.box import BoxKind
from llava_aurora.tokens.vocabulary import MalformedSpan, TokenFamily, depth_family, pixel_family

Report = Callable[[str, str], None]
ENDLESS = 10**9
_READ = ("depth_reading", "depth_reading_from_map")
_POINTS_IN_ANSWER = ("point_location", *_READ, "depth_chain", "depth_chain_from_map")
_COORDINATES = re.compile(r"(?:\b([A-Z]) )?\((\d+(?:, ?\d+)+)\)")


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
        self._foreign = [family for family in (depth_family(), pixel_family()) if family.name not in known]
        # The same families with any number for a code: what these read is well formed but for its codes.
        self._any_code = {family.name: replace(family, size=ENDLESS) for family in self.families}
        self._box = BoxKind(frame=frame)

    def run(self, record: Any, report: Report) -> bool:
        """Reports (kind, message) of all that is wrong; returns whether the record is one in LLaVA's format."""
        name = record.get("image") if isinstance(record, dict) else None
        if isinstance(name, str) and name:
            try:
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
            self._agreement(record, about, report)
        return True

    def true_boxes(self, record: Mapping[str, Any]) -> int | None:
        """How many boxes the truth of a record has; None for one that is not about boxes."""
        about = record.get("aurora")
        return len(about["boxes"]) if isinstance(about, Mapping) and isinstance(about.get("boxes"), list) else None

    # --- spans --------------------------------------------------------------------------------------------------------

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

    # --- text and truth -----------------------------------------------------------------------------------------------

    def _agreement(self, record: Mapping[str, Any], about: Mapping[str, Any], report: Report) -> None:
        turns = record["conversations"]
        question, answer = turns[0]["value"], turns[-1]["value"]
        task = TASKS.get(task_name(record))
        if task is None:
            return
        if task.domain == "depth":
            self._maps(task_name(record), question, answer, report)
        found = [self.coordinates(text) for text in (question, answer)]
        for _, values in found[0] + found[1]:
            self._valid(values, report)
        if task.domain == "box" and "boxes" in about:
            listed = sum(len(values) == 4 for _, values in found[1]) if task.kind != "direct" else None
            self._counts(task_name(record), about, answer, listed, report)
        if task.domain == "depth" and "points" in about:
            self._letters(task_name(record), about, answer, found, report)

    def _maps(self, task: str, question: str, answer: str, report: Report) -> None:
        family = next((family for family in self.families if family.name == depth_family().name), None)
        part = TASKS[task].map_in
        if family is None or part is None:
            return
        text = question if part == "question" else answer
        if (number := len(family.parse(text))) != 1:
            report("spans", f"{task} has {number} depth maps in its {part} instead of one")

    def coordinates(self, text: str) -> list[tuple[str, tuple[int, ...]]]:
        """Points and boxes in a text, as tokens or as plain numbers, each with the letter before it or ""."""
        plain = pixel_family().plain(text)
        return [(letter, tuple(map(int, values.split(",")))) for letter, values in _COORDINATES.findall(plain)]

    def _valid(self, values: tuple[int, ...], report: Report) -> None:
        try:
            self._box.encode(values)
        except AuroraError as error:
            report("coordinates", str(error))

    def _counts(self, task: str, about: Mapping[str, Any], answer: str, listed: int | None, report: Report) -> None:
        true = len(about["boxes"])
        stated = None if task == "box_generation" else stated_number(answer)
        numbers = {
            "answer": about.get("answer"),
            "boxes listed": None if listed is None else str(listed),
            "count in the text": None if task == "box_generation" else stated or "none",
        }
        if wrong := [f"{name}: {number}" for name, number in numbers.items() if number not in (None, str(true))]:
            report("counts", f"{true} boxes in the truth, but {', '.join(wrong)}")

    def _letters(
        self,
        task: str,
        about: Mapping[str, Any],
        answer: str,
        found: list[list[tuple[str, tuple[int, ...]]]],
        report: Report,
    ) -> None:
        points, depths, true = about["points"], about.get("depths"), about.get("answer")
        if depths is not None and set(depths) != set(points):
            report("letters", f"points {_letters(points)}, but depths of {_letters(depths)}")
        elif depths and task not in _READ:  # which ask for no closest point
            top = [letter for letter in sorted(depths) if depths[letter] == max(depths.values())]
            if len(top) > 1:
                report("closest", f"{_letters(top)} are equally close, so that the question has no answer")
            elif true not in top:
                report("closest", f"the answer is {true}, but {top[0]} is the closest of {dict(depths)}")
        if true not in points:
            report("letters", f"the answer is {true}, but the points are {_letters(points)}")
        answered = TASKS[task].kind != "atomic" or task == "depth_chain_from_map"
        if answered and (stated := stated_letter(answer)) != true:
            report("letters", f"the text answers {stated or 'nothing'}, but the truth is {true}")
        for part, pairs in zip(("question", "answer"), found, strict=True):
            named = {letter: list(values) for letter, values in pairs if letter and len(values) == 2}
            expected = {letter: list(place) for letter, place in points.items()}
            if named and named != expected:
                report("letters", f"points {expected}, but the {part} has {named}")
        if not any(letter for letter, _ in found[1]) and task in _POINTS_IN_ANSWER:
            report("letters", f"{task} gives no point's coordinates in its answer")


def truth_problem(about: Any) -> str | None:
    """What keeps the truth of a record from being read."""
    if about is None:
        return None
    if not isinstance(about, Mapping):
        return "'aurora' is no object"
    boxes, points, depths = (about.get(name, empty) for name, empty in (("boxes", []), ("points", {}), ("depths", {})))
    if not isinstance(boxes, list) or not all(_are_numbers(box, 4) for box in boxes):
        return "'aurora' has boxes that are not [[x1, y1, x2, y2], …]"
    if not isinstance(points, Mapping) or not all(_are_numbers(place, 2) for place in points.values()):
        return "'aurora' has points that are not {letter: [x, y]}"
    if not isinstance(depths, Mapping) or not all(isinstance(depth, int | float) for depth in depths.values()):
        return "'aurora' has depths that are not {letter: number}"
    return None


def _are_numbers(values: Any, number: int) -> bool:
    return isinstance(values, list) and len(values) == number and all(isinstance(each, int | float) for each in values)


def _letters(letters: Iterable[str]) -> str:
    return ", ".join(sorted(letters)) or "none"
