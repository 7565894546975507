"""How many of a thing are in the image: answered from boxes that the chain writes first.

A chain lists the boxes, one a line and numbered from 1, then concludes the count; where there are none it says so
without a box. Facts are the thing and its boxes. Source: AURORA, sec. 3 and supplement.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from llava_aurora.tasks.annotated import AnnotatedImage, Drawing
from llava_aurora.tasks.box_measures import IOU, intersection_over_union, matched_boxes
from llava_aurora.tasks.forms import Coordinates as CoordinatesForm
from llava_aurora.tasks.forms import Form, Listed, Number, Words, sequence
from llava_aurora.tasks.outcome import Asked, Example, Measure, Measured, MeasureTable, Outcome
from llava_aurora.tasks.points import mentions
from llava_aurora.tasks.registry import register_family
from llava_aurora.tasks.task import ANSWER_IS, STEP_BY_STEP, Coordinates, Problem, Task, TaskFamily, Wording, wording
from llava_aurora.tasks.written import Written
from llava_aurora.tokens.box import BoxKind
from llava_aurora.tokens.vocabulary import TokenFamily

# More objects than any record has.
MOST_BOXES, MOST_COUNT = 99, 999

_BOXES = ("Draw a box around each of the {things}.", "Where are the {things}? Give a box for each.")
_CHAIN = (
    "How many {things} are in the image? " + STEP_BY_STEP,
    "Count the {things} one after the other. How many are there?",
)
_NONE = "There are no {things} in the image."


def counting_chain(name: str, questions: Sequence[str], listed: str, *, needs: str) -> Task:
    """A chain that counts what it lists first. Args: listed: how it does that; needs: the fields of that."""

    def worded(answer: str, needs: str) -> Wording:
        answers = (f"{answer} {ANSWER_IS} {{count}}.",)
        return wording(questions, answers, question="things", answer=needs, optional="thing")

    none = (f"{name}_of_none", worded(_NONE, "count"))
    return Task(name=name, kind="chain", difficulty=2, wording=worded(listed, needs), none=none, answer="number")


TASKS = (
    Task(
        name="box_generation",
        kind="atomic",
        difficulty=1,
        wording=wording(_BOXES, ("{boxes}",), question="things", answer="boxes", optional="thing"),
        none=("box_generation_of_none", wording(_BOXES, (_NONE,), question="things", optional="thing")),
    ),
    counting_chain(
        "counting_chain", _CHAIN, "The {things} are at\n{boxes}\nSo there are {count}.", needs="boxes count"
    ),
    Task(
        name="counting_direct",
        kind="direct",
        difficulty=2,
        wording=wording(
            ("How many {things} are in the image?", "What is the number of {things} in the image?"),
            ("{count}",),
            question="things",
            answer="count",
            optional="thing",
        ),
        answer="number",
    ),
)


@dataclass(frozen=True)
class CountFacts:
    """What a counting record is about."""

    # thing, things: what is counted, singular and plural
    thing: str
    things: str
    boxes: Sequence[Sequence[int]]  # (x1, y1, x2, y2) codes each, in the order in which they are listed


@register_family
class CountingFamily(TaskFamily):
    """A thing and its boxes."""

    name: ClassVar[str] = "counting"
    order: ClassVar[int] = 20
    token_kinds: ClassVar[tuple[str, ...]] = ("box",)
    tasks: ClassVar[tuple[Task, ...]] = TASKS
    measures: ClassVar[tuple[MeasureTable, ...]] = (
        MeasureTable(
            "Boxes and counts",
            (
                Measure("precision", "precision, %"),
                Measure("recall", "recall, %"),
                Measure("f1", "F1, %"),
                Measure("count_error", "count off by", 2, of_span=False),
                Measure("agreement", "answer is the number of its boxes, %"),
            ),
            f"Boxes match one to one at IoU {IOU}; those of all questions count alike.",
        ),
    )
    # thing, things: what is counted; boxes: one a line, numbered; count: how many.
    fields: ClassVar[Mapping[str, Form]] = {
        "thing": Words("thing"),
        "things": Words("things"),
        "boxes": Listed(sequence(Number(MOST_BOXES), ". ", CoordinatesForm(4)), "\n", example=15),
        "count": Number(MOST_COUNT),
    }

    def facts(self, task: Task, image: AnnotatedImage, drawing: Drawing, rng: np.random.Generator) -> CountFacts | None:
        thing = counted_thing(image, drawing, rng, even=task.answer is not None)
        return None if thing is None else count_facts(image, thing, frame=drawing.frame)

    def values(
        self, facts: CountFacts, coordinates: Coordinates, families: Mapping[str, TokenFamily]
    ) -> dict[str, object]:
        return {
            "thing": facts.thing,
            "things": facts.things,
            "boxes": "\n".join(f"{number}. {coordinates(box)}" for number, box in enumerate(facts.boxes, start=1)),
            "count": len(facts.boxes),
        }

    def truth(self, task: Task, facts: CountFacts) -> dict[str, Any]:
        return {
            "things": facts.things,
            "boxes": [list(box) for box in facts.boxes],
            "answer": str(len(facts.boxes)),
        }

    def is_none(self, facts: CountFacts) -> bool:
        return not facts.boxes

    def has_span(self, written: Written) -> bool:
        return bool(written.boxes)

    def measure(self, outcome: Outcome) -> dict[str, Measured]:
        question, written, stated = outcome.question, outcome.written, outcome.stated
        found: dict[str, Measured] = {}
        if question.boxes is not None:
            ours, true = len(written.boxes), len(question.boxes)
            matched = matched_boxes(written.boxes, question.boxes)
            found = {"precision": (matched, ours), "recall": (matched, true), "f1": (2 * matched, ours + true)}
        if stated is not None and stated.isdecimal() and question.answer.isdecimal():
            found["count_error"] = abs(int(stated) - int(question.answer))
        if written.boxes:
            found["agreement"] = stated == str(len(written.boxes))
        return found

    def panels(
        self, question: Asked, written: Written, annotation: Any, image: Image.Image
    ) -> list[tuple[str, Image.Image]]:
        """The true boxes and those that were written, numbered from 1."""
        kind, found = BoxKind(frame=question.frame), []
        if question.boxes is not None:
            found.append((f"true boxes: {len(question.boxes)}", kind.draw(question.boxes, image)))
        if written.boxes:
            # Corners in order: an unconstrained model may write them the other way round, which cannot be drawn.
            boxes = [(min(a, c), min(b, d), max(a, c), max(b, d)) for a, b, c, d in written.boxes]
            title = f"boxes it wrote: {len(boxes)}"
            if question.boxes:
                best = intersection_over_union(np.array(boxes, float), np.array(question.boxes, float)).max(axis=1)
                title += f", IoU {', '.join(f'{share:.2f}' for share in best)}"
            found.append((title, kind.draw(boxes, image)))
        return found

    def example(self, image: AnnotatedImage, rng: np.random.Generator) -> Example | None:
        if not image.objects:
            return None
        return Example(self.tasks[-1].wording.questions[0].format(things=image.objects[0].things))

    def problems(
        self, task: Task, record: Mapping[str, Any], *, frame: int, families: Mapping[str, TokenFamily]
    ) -> Iterator[Problem]:
        about, answer = record["aurora"], record["conversations"][-1]["value"]
        if "boxes" not in about:
            return
        true, numbers = len(about["boxes"]), {"answer": about.get("answer")}
        if task.kind != "direct":
            numbers["boxes listed"] = str(sum(len(mention.place) == 4 for mention in mentions(answer)))
        if task.answer:
            numbers["count in the text"] = task.stated(answer) or "none"
        if wrong := [f"{name}: {number}" for name, number in numbers.items() if number not in (None, str(true))]:
            yield Problem("counts", f"{true} boxes in the truth, but {', '.join(wrong)}")

    def answer_characters(self, text: str, *, behind: int) -> list[int]:
        """The digits behind the last box that are no point's value."""
        values = {mention.value_at + digit for mention in mentions(text) for digit in range(2)}
        digits = (behind + match.start() for match in re.finditer(r"\d", text[behind:]))
        return [place for place in digits if place not in values]


def count_facts(image: AnnotatedImage, thing: tuple[str, str], *, frame: int) -> CountFacts:
    """How many of a thing an image shows. Args: thing: singular and plural; frame: side of the coordinate frame.

    Raises AuroraError for a box outside of the image.
    """
    kind = BoxKind(frame=frame)
    scale = [frame / side for side in image.size] * 2
    boxes = [
        kind.encode([edge * share for edge, share in zip(item.box, scale, strict=True)])
        for item in image.objects
        if (item.thing, item.things) == thing
    ]
    return CountFacts(*thing, boxes)


def counted_thing(
    image: AnnotatedImage, drawing: Drawing, rng: np.random.Generator, *, even: bool
) -> tuple[str, str] | None:
    """Mostly something that is there, one time in five any thing that is known to be there or absent.

    Args: even: for a count; where the drawing gives counts, anything of the count that is drawn.
    """
    things = [(item.thing, item.things) for item in image.objects]
    if drawing.counts is not None and even:
        found = Counter(things)
        wanted = rng.choice(list(drawing.counts), p=list(drawing.counts.values()))
        fitting = [thing for thing in found if found[thing] == wanted] or (list(image.absent) if wanted == 0 else [])
        return fitting[int(rng.integers(len(fitting)))] if fitting else None
    if not things or rng.random() >= 0.8:
        things = [*dict.fromkeys(things), *image.absent]
    return things[int(rng.integers(len(things)))] if things else None
