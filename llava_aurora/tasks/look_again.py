"""Small things looked at twice: a point in the question, a box in the answer, and its crop in a second turn.

Source: region selection of Visual Perception Token (arXiv 2502.17425), with box tokens for its grid of cells. Facts are
a small thing and a point on it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from llava_aurora.tasks.annotated import AnnotatedImage, Drawing
from llava_aurora.tasks.forms import Coordinates as CoordinatesForm
from llava_aurora.tasks.forms import Form, Words
from llava_aurora.tasks.points import mentions
from llava_aurora.tasks.registry import register_family
from llava_aurora.tasks.task import ANSWER_IS, STEP_BY_STEP, Coordinates, Problem, Task, TaskFamily, wording
from llava_aurora.tokens.box import BoxKind
from llava_aurora.tokens.vocabulary import TokenFamily

SMALL = 0.02  # most of the image's area that the box of a small thing takes
_QUESTION = "What is the small thing at {point}?"
AGAIN = "This is that box, enlarged. What is the thing in it?"


@dataclass(frozen=True)
class LookAgainFacts:
    """A thing: its name, its box (x1, y1, x2, y2) and a point (x, y) on it in the frame, and what it could be."""

    thing: str
    box: Sequence[int]
    point: tuple[int, int]
    choices: Sequence[str]


@register_family
class LookAgainFamily(TaskFamily):
    """What a small thing is, by a second look or at once."""

    name: ClassVar[str] = "look_again"
    order: ClassVar[int] = 40
    token_kinds: ClassVar[tuple[str, ...]] = ("box",)
    fields: ClassVar[Mapping[str, Form]] = {
        "point": CoordinatesForm(2),
        "box": CoordinatesForm(4),
        "thing": Words("thing"),
    }
    tasks: ClassVar[tuple[Task, ...]] = (
        Task(
            name="look_again",
            kind="chain",
            difficulty=2,
            wording=wording(
                (f"{_QUESTION} {STEP_BY_STEP}",), ("It is in the box {box}.",), question="point", answer="box"
            ),
            answer="choice",
            again=(AGAIN, f"{ANSWER_IS} {{thing}}."),
        ),
        Task(
            name="look_again_direct",
            kind="direct",
            difficulty=2,
            wording=wording((_QUESTION,), ("It is the {thing}.",), question="point", answer="thing"),
            answer="choice",
        ),
    )

    def facts(
        self, task: Task, image: AnnotatedImage, drawing: Drawing, rng: np.random.Generator
    ) -> LookAgainFacts | None:
        """A thing whose box is small and whose middle shows it."""
        small = []
        for item in image.objects:
            x1, y1, x2, y2 = item.box
            x, y = int((x1 + x2) / 2), int((y1 + y2) / 2)
            is_small = (x2 - x1) * (y2 - y1) <= SMALL * image.size[0] * image.size[1]
            if is_small and item.mask is not None and item.mask[y, x]:
                small.append((item, (x, y)))
        if not small:
            return None
        item, middle = small[int(rng.integers(len(small)))]
        across, down = (drawing.frame / side for side in image.size)
        box = BoxKind(frame=drawing.frame).encode(
            [edge * scale for edge, scale in zip(item.box, (across, down) * 2, strict=True)]
        )
        point = (int((middle[0] + 0.5) * across), int((middle[1] + 0.5) * down))
        things = {each.thing for each in image.objects} | {thing for thing, _ in image.absent}
        return LookAgainFacts(item.thing, box, point, sorted(things))

    def values(
        self, facts: LookAgainFacts, coordinates: Coordinates, families: Mapping[str, TokenFamily]
    ) -> dict[str, object]:
        return {"point": coordinates(facts.point), "box": coordinates(facts.box), "thing": facts.thing}

    def truth(self, task: Task, facts: LookAgainFacts) -> dict[str, Any]:
        return {"boxes": [list(facts.box)], "answer": facts.thing, "choices": list(facts.choices)}

    def problems(
        self, task: Task, record: Mapping[str, Any], *, frame: int, families: Mapping[str, TokenFamily]
    ) -> Iterator[Problem]:
        """Another box than the true one, or another answer."""
        about, turns = record["aurora"], [turn["value"] for turn in record["conversations"]]
        written = [list(mention.place) for mention in mentions(turns[1]) if len(mention.place) == 4]
        if task.again is not None and written != about.get("boxes"):
            yield Problem("boxes", f"the text gives the boxes {written}, not {about.get('boxes')}")
        if str(about.get("answer")) not in turns[-1]:
            yield Problem("answers", f"the text does not say {about.get('answer')!r}, which is the answer")
