"""The wording of questions and answers, several variants a task; a JSON file can replace any of it.

Each task has `questions` and `answers`, templates in the manner of str.format. FIELDS says which fields a task offers;
an answer has to use all of those marked as required, so that no chain loses its map by a misspelt template.
"""

import string
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from llava_aurora.errors import AuroraError
from llava_aurora.files import read_json


@dataclass(frozen=True)
class Fields:
    """The fields that a task's templates may use. `answer_needs` and `question_needs` must appear."""

    question_needs: frozenset[str] = frozenset()
    answer_needs: frozenset[str] = frozenset()
    optional: frozenset[str] = frozenset()


def _fields(question: str = "", answer: str = "", optional: str = "") -> Fields:
    return Fields(frozenset(question.split()), frozenset(answer.split()), frozenset(optional.split()))


# What asks for a chain, and what a chain ends with.
STEP_BY_STEP = "Think step by step."
ANSWER_IS = "The answer is"

# Fields: map = the span of depth tokens; points = "A (x,y), B (x,y)"; values = "A (x,y) 07, B (x,y) 55", how close they
# are; letters = "A, B or C"; answer = the letter; thing, things = what is counted, singular and plural; boxes = one a
# line, numbered; count = how many.
FIELDS: Mapping[str, Fields] = {
    "depth_generation": _fields(answer="map"),
    "depth_reading": _fields(question="points", answer="map values"),
    "depth_chain": _fields(answer="points map answer", optional="letters"),
    "depth_chain_without_points": _fields(answer="map answer", optional="letters points"),
    "depth_direct": _fields(answer="answer", optional="letters"),
    "depth_chain_from_coordinates": _fields(question="points", answer="map answer", optional="letters points"),
    "depth_direct_from_coordinates": _fields(question="points", answer="answer", optional="letters points"),
    "depth_chain_from_map": _fields(question="points map", answer="points answer", optional="letters"),
    "depth_reading_from_map": _fields(question="points map", answer="values"),
    "point_location": _fields(answer="points", optional="letters"),
    "box_generation": _fields(question="things", answer="boxes", optional="thing"),
    "counting_chain": _fields(question="things", answer="boxes count", optional="thing"),
    "counting_direct": _fields(question="things", answer="count", optional="thing"),
    "box_generation_of_none": _fields(question="things", optional="thing"),
    "counting_chain_of_none": _fields(question="things", answer="count", optional="thing"),
}

TEMPLATES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "depth_generation": {
        "questions": (
            "Write down the depth map of this image.",
            "How far is each part of this image? Give its depth map.",
            "What does the depth map of the scene look like?",
        ),
        "answers": ("The depth map is {map}.",),
    },
    "depth_reading": {
        "questions": (
            "Write down the depth map of this image, and read the points {points} in it.",
            "Give the depth map of the scene and its values at the points {points}.",
        ),
        "answers": ("The depth map is {map}. The points are {values}.",),
    },
    "depth_chain": {
        "questions": (
            "Which of the marked points {letters} is closest to the camera? " + STEP_BY_STEP,
            "Some points are marked in the image: {letters}. Reason about the depth and say which is nearest.",
            "Find out step by step which marked point is the closest: {letters}?",
        ),
        "answers": (
            "The marked points are {points}. The depth map is {map}."
            " The value is highest at {answer}, so it is closest. " + ANSWER_IS + " ({answer}).",
        ),
    },
    "depth_chain_without_points": {
        "questions": (
            "Which of the marked points {letters} is closest to the camera? " + STEP_BY_STEP,
            "Some points are marked in the image: {letters}. Reason about the depth and say which is nearest.",
            "Find out step by step which marked point is the closest: {letters}?",
        ),
        "answers": (
            "The depth map is {map}. The value is highest at {answer}, so it is closest. " + ANSWER_IS + " ({answer}).",
        ),
    },
    "depth_direct": {
        "questions": (
            "Which of the marked points {letters} is closest to the camera?",
            "Some points are marked in the image: {letters}. Which of them is nearest?",
            "Name the marked point that is the closest: {letters}?",
        ),
        "answers": ("({answer})",),
    },
    "depth_chain_from_coordinates": {
        "questions": (
            "Which of the points {points} is closest to the camera? " + STEP_BY_STEP,
            "Here are some points of the image: {points}. Reason about the depth and say which is nearest.",
        ),
        "answers": (
            "The depth map is {map}. The points are {points}."
            " The value is highest at {answer}, so it is closest. " + ANSWER_IS + " ({answer}).",
        ),
    },
    "depth_direct_from_coordinates": {
        "questions": (
            "Which of the points {points} is closest to the camera?",
            "Here are some points of the image: {points}. Which of them is nearest?",
        ),
        "answers": ("({answer})",),
    },
    "depth_chain_from_map": {
        "questions": (
            "Which of the points {points} is closest to the camera? " + STEP_BY_STEP + " The depth map is {map}.",
            "An image has the depth map {map}. Reason about the depth and say which of its points {points} is nearest.",
        ),
        "answers": (
            "The points are {points}. The value is highest at {answer}, so it is closest. "
            + ANSWER_IS
            + " ({answer}).",
        ),
    },
    "depth_reading_from_map": {
        "questions": (
            "Read the points {points} in the depth map {map}.",
            "An image has the depth map {map}. Give its values at the points {points}.",
        ),
        "answers": ("The points are {values}.",),
    },
    "point_location": {
        "questions": (
            "Where are the marked points {letters}?",
            "Give the coordinates of the marked points {letters}.",
        ),
        "answers": ("The marked points are {points}.",),
    },
    "box_generation": {
        "questions": ("Draw a box around each of the {things}.", "Where are the {things}? Give a box for each."),
        "answers": ("{boxes}",),
    },
    "counting_chain": {
        "questions": (
            "How many {things} are in the image? " + STEP_BY_STEP,
            "Count the {things} one after the other. How many are there?",
        ),
        "answers": ("The {things} are at\n{boxes}\nSo there are {count}. " + ANSWER_IS + " {count}.",),
    },
    "counting_direct": {
        "questions": ("How many {things} are in the image?", "What is the number of {things} in the image?"),
        "answers": ("{count}",),
    },
    "box_generation_of_none": {
        "questions": ("Draw a box around each of the {things}.", "Where are the {things}? Give a box for each."),
        "answers": ("There are no {things} in the image.",),
    },
    "counting_chain_of_none": {
        "questions": (
            "How many {things} are in the image? " + STEP_BY_STEP,
            "Count the {things} one after the other. How many are there?",
        ),
        "answers": ("There are no {things} in the image. " + ANSWER_IS + " {count}.",),
    },
}


class Prompts:
    """Args: templates: for each task its questions and answers; what is left out keeps the wording of TEMPLATES."""

    def __init__(self, templates: Mapping[str, Mapping[str, tuple[str, ...]]] | None = None) -> None:
        self.templates = {task: {**TEMPLATES[task], **(templates or {}).get(task, {})} for task in TEMPLATES}

    @classmethod
    def plain(cls) -> "Prompts":
        """One wording a task. Maps then stand at one distance from the image, which a small model learns fastest."""
        return cls({task: {kind: value[:1] for kind, value in kinds.items()} for task, kinds in TEMPLATES.items()})

    @classmethod
    def load(cls, path: str | Path) -> "Prompts":
        """Reads a JSON file {task: {"questions": [...], "answers": [...]}}.

        Raises:
            AuroraError: naming file, task and template, for an unknown task or field, or a field that is missing.
        """
        content = read_json(path, what="prompts")
        if not isinstance(content, dict):
            raise AuroraError(f"{path}: prompts are a JSON object of tasks: {', '.join(FIELDS)}")
        for task, kinds in content.items():
            if task not in FIELDS:
                raise AuroraError(f"{path}: unknown task {task!r}; there are: {', '.join(FIELDS)}")
            if not isinstance(kinds, dict) or not set(kinds) <= {"questions", "answers"}:
                raise AuroraError(f"{path}: task {task}: 'questions' and 'answers' are expected, nothing else")
            for kind, templates in kinds.items():
                if not isinstance(templates, list) or not templates or not all(isinstance(t, str) for t in templates):
                    raise AuroraError(f"{path}: task {task}: {kind} must be a list of texts, with at least one")
                for template in templates:
                    if problem := _problem(FIELDS[task], kind, template):
                        raise AuroraError(f"{path}: task {task}: {template!r} {problem}")
        return cls({task: {kind: tuple(value) for kind, value in kinds.items()} for task, kinds in content.items()})

    def fill(self, task: str, rng: np.random.Generator, **values: object) -> tuple[str, str]:
        """A question and its answer, from variants drawn at random. Raises KeyError for a task that is none."""
        question, answer = (
            templates[int(rng.integers(len(templates)))].format(**values)
            for templates in (self.templates[task]["questions"], self.templates[task]["answers"])
        )
        return question, answer


def _problem(fields: Fields, kind: str, template: str) -> str | None:
    try:
        used = {name for _, name, _, _ in string.Formatter().parse(template) if name is not None}
    except ValueError as error:
        return f"is no template: {error}"
    needed = fields.question_needs if kind == "questions" else fields.answer_needs
    allowed = fields.question_needs | fields.optional | (fields.answer_needs if kind == "answers" else frozenset())
    if missing := needed - used:
        return f"lacks {{{sorted(missing)[0]}}}"
    if unknown := used - allowed:
        return f"uses {{{sorted(unknown)[0]}}}; it may use {', '.join(sorted(allowed)) or 'no field'}"
    return None
