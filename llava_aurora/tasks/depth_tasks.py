"""The tasks about points and a depth map, and their wording; depth.py has what they do."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llava_aurora.errors import AuroraError
from llava_aurora.tasks.points import point_mentions, with_values
from llava_aurora.tasks.task import ANSWER_IS, STEP_BY_STEP, Task, Wording, wording

_MARKED_CHAIN = (
    "Which of the marked points {letters} is closest to the camera? " + STEP_BY_STEP,
    "Some points are marked in the image: {letters}. Reason about the depth and say which is nearest.",
    "Find out step by step which marked point is the closest: {letters}?",
)
_CONCLUSION = "The value is highest at {answer}, so it is closest. " + ANSWER_IS + " ({answer})."


@dataclass(frozen=True, kw_only=True)
class DepthTask(Task):
    """A task about points and a depth map."""

    # what its records name: "compared" points, of which one is closest; points to be "read" in the map, anywhere; None:
    # a map alone
    points: str | None = "compared"
    states_points: bool = False  # its answer names the points, so that it can state a value for each
    states_values: bool = False  # its answer states values in every record, not only where a transform puts them in

    def taught_answer(self, template: str, *, values: bool) -> str:
        if not (values and self.can_state_values) or "{values}" in template:
            return template
        before, span, behind = template.rpartition("{map}")
        if "{points}" not in behind:
            behind = name_again(behind, "{points}")
        return before + span + behind.replace("{points}", "{values}")

    @property
    def can_state_values(self) -> bool:
        """Whether its answer can state, behind or about a map, how close each point is."""
        return "depth" in self.span_in and self.states_points


def _task(name: str, kind: Any, wording: Wording, **more: Any) -> DepthTask:
    difficulty = 1 if kind == "atomic" else 2
    return DepthTask(name=name, kind=kind, difficulty=difficulty, wording=wording, **more)


_IN_ANSWER: Mapping[str, Any] = {"span_in": {"depth": "answer"}}
_IN_QUESTION: Mapping[str, Any] = {"span_in": {"depth": "question"}}

TASKS = (
    _task(
        "depth_generation",
        "atomic",
        wording(
            (
                "Write down the depth map of this image.",
                "How far is each part of this image? Give its depth map.",
                "What does the depth map of the scene look like?",
            ),
            ("The depth map is {map}.",),
            answer="map",
        ),
        points=None,
        **_IN_ANSWER,
    ),
    _task(
        "point_location",
        "atomic",
        wording(
            ("Where are the marked points {letters}?", "Give the coordinates of the marked points {letters}."),
            ("The marked points are {points}.",),
            answer="points",
            optional="letters",
        ),
        marked=True,
        states_points=True,
    ),
    _task(
        "depth_chain",
        "chain",
        wording(
            _MARKED_CHAIN,
            ("The marked points are {points}. The depth map is {map}. " + _CONCLUSION,),
            answer="points map answer",
            optional="letters",
        ),
        marked=True,
        states_points=True,
        answer="letter",
        **_IN_ANSWER,
    ),
    _task(
        "depth_chain_without_points",
        "chain",
        wording(
            _MARKED_CHAIN,
            ("The depth map is {map}. " + _CONCLUSION,),
            answer="map answer",
            optional="letters points",
        ),
        marked=True,
        answer="letter",
        **_IN_ANSWER,
    ),
    _task(
        "depth_chain_from_coordinates",
        "chain",
        wording(
            (
                "Which of the points {points} is closest to the camera? " + STEP_BY_STEP,
                "Here are some points of the image: {points}. Reason about the depth and say which is nearest.",
            ),
            ("The depth map is {map}. The points are {points}. " + _CONCLUSION,),
            question="points",
            answer="map answer",
            optional="letters points",
        ),
        states_points=True,
        answer="letter",
        **_IN_ANSWER,
    ),
    _task(
        "depth_direct",
        "direct",
        wording(
            (
                "Which of the marked points {letters} is closest to the camera?",
                "Some points are marked in the image: {letters}. Which of them is nearest?",
                "Name the marked point that is the closest: {letters}?",
            ),
            ("({answer})",),
            answer="answer",
            optional="letters",
        ),
        marked=True,
        answer="letter",
    ),
    _task(
        "depth_direct_from_coordinates",
        "direct",
        wording(
            (
                "Which of the points {points} is closest to the camera?",
                "Here are some points of the image: {points}. Which of them is nearest?",
            ),
            ("({answer})",),
            question="points",
            answer="answer",
            optional="letters points",
        ),
        answer="letter",
    ),
    _task(
        "depth_reading",
        "atomic",
        wording(
            (
                "Write down the depth map of this image, and read the points {points} in it.",
                "Give the depth map of the scene and its values at the points {points}.",
            ),
            ("The depth map is {map}. The points are {values}.",),
            question="points",
            answer="map values",
        ),
        points="read",
        states_points=True,
        states_values=True,
        **_IN_ANSWER,
    ),
    _task(
        "depth_chain_from_map",
        "atomic",
        wording(
            (
                "Which of the points {points} is closest to the camera? " + STEP_BY_STEP + " The depth map is {map}.",
                "An image has the depth map {map}. Reason about the depth and say which of its points {points} is"
                " nearest.",
            ),
            ("The points are {points}. " + _CONCLUSION,),
            question="points map",
            answer="points answer",
            optional="letters",
        ),
        shows_image=False,
        states_points=True,
        answer="letter",
        **_IN_QUESTION,
    ),
    _task(
        "depth_reading_from_map",
        "atomic",
        wording(
            (
                "Read the points {points} in the depth map {map}.",
                "An image has the depth map {map}. Give its values at the points {points}.",
            ),
            ("The points are {values}.",),
            question="points map",
            answer="values",
        ),
        shows_image=False,
        points="read",
        states_points=True,
        states_values=True,
        **_IN_QUESTION,
    ),
)


def name_again(behind_map: str, points: str) -> str:
    """What stands behind a map, with a sentence that names its points put before it."""
    return f"{behind_map[:1]} The values are {points}.{behind_map[1:]}"


def state_values(answer: str, values: Mapping[str, str], *, end: str) -> str:
    """An answer in which each point behind the map is followed by its value; the points are named there if need be.

    Args:
        answer: of a record whose task can state values.
    Raises AuroraError if the answer does not name just these points.
    """
    before, span_end, behind = answer.rpartition(end)
    if not point_mentions(behind):
        named = ", ".join(before[mention.start : mention.end] for mention in point_mentions(before))
        behind = name_again(behind, named)
    if sorted(mention.letter for mention in point_mentions(behind)) != sorted(values):
        raise AuroraError("its answer does not give each point's letter and coordinates, which --value_step needs")
    return before + span_end + with_values(behind, lambda letter: values[letter])
