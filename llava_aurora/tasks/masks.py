"""Things by their pixels: a phrase to its mask, a description with the mask of what it names, a region to its name.

A phrase names one thing of an image; what is not there has no mask but the words that there is none. A region of a
question is a point, a box, or a mask. Facts are the things that an answer is about. Sources: SEEDS of OMG-LLaVA
(arXiv 2406.19389) and PAE-LaMM (2408.03940).
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from PIL import Image, ImageFilter

from llava_aurora.errors import AuroraError
from llava_aurora.tasks.annotated import AnnotatedImage, AnnotatedObject, Drawing
from llava_aurora.tasks.counting import counted_thing, counting_chain
from llava_aurora.tasks.forms import Coordinates as CoordinatesForm
from llava_aurora.tasks.forms import Form, Listed, Number, Span, Words, sequence
from llava_aurora.tasks.mask_measures import (
    FOUND,
    GROUNDED,
    MISSED,
    REFERRING,
    answer_of_masks,
    constant_measures,
    measured_masks,
)
from llava_aurora.tasks.outcome import Asked, Example, Measured, MeasureTable, Outcome
from llava_aurora.tasks.points import mentions
from llava_aurora.tasks.registry import register_family
from llava_aurora.tasks.task import STEP_BY_STEP, Coordinates, Problem, Task, TaskFamily, wording
from llava_aurora.tasks.written import Written
from llava_aurora.tokens.box import BoxKind
from llava_aurora.tokens.mask import coco_rle, draw_masks, encode_mask
from llava_aurora.tokens.vocabulary import TokenFamily

MOST_MASKS = 99
NOTHING_THERE = 0.2  # share of the questions about a phrase that are about what is not in the image
PLACES = ("leftmost", "rightmost", "nearest", "farthest")
REGIONS = ("point", "box", "mask")
_SEGMENT = ("Please segment the {phrase} in this image.", "Where is the {phrase}? Give its mask.")
_NONE = "There is no {thing} in the image."


def _of_phrase(name: str, answers: Sequence[str], *, needs: str, questions: Sequence[str], chain: bool = False) -> Task:
    """A task that asks for the mask of a phrase."""
    return Task(
        name=name,
        kind="chain" if chain else "atomic",
        difficulty=2 if chain else 1,
        wording=wording(questions, answers, question="phrase", answer=needs, optional="phrase thing"),
        none=(f"{name}_of_none", wording(questions, (_NONE,), question="phrase", optional="phrase thing")),
    )


def _of_region(name: str, questions: Sequence[str], answers: Sequence[str], *, needs: str, number: bool) -> Task:
    """A task about the thing at a region."""
    about = wording(questions, answers, question="region", answer=needs, optional="things thing")
    return Task(name=name, kind="direct", difficulty=2, wording=about, answer="number" if number else "choice")


TASKS = (
    _of_phrase("segmentation", ("It is {mask}.",), needs="mask", questions=_SEGMENT),
    _of_phrase("segmentation_by_place", ("It is {mask}.",), needs="mask", questions=_SEGMENT),
    _of_phrase(
        "box_then_mask",
        ("It is in the box {box}. Its mask is {mask}.",),
        needs="box mask",
        questions=tuple(f"{question} {STEP_BY_STEP}" for question in _SEGMENT),
        chain=True,
    ),
    _of_phrase(
        "mask_then_box",
        ("Its mask is {mask}. So it is in the box {box}.",),
        needs="box mask",
        questions=("Segment the {phrase}, then give its box.", "Give the mask of the {phrase} and then its box."),
        chain=True,
    ),
    counting_chain(
        "mask_counting_chain",
        (f"Segment each of the {{things}}. How many are there? {STEP_BY_STEP}",),
        "The {things} are\n{masks}\nSo there are {count}.",
        needs="masks count",
    ),
    Task(
        name="grounded_description",
        kind="atomic",
        difficulty=2,
        wording=wording(
            ("Describe this image and segment each thing that you name.", "What is in this image? Give masks."),
            ("The image shows {described}.",),
            answer="described",
        ),
    ),
    _of_region(
        "region_naming", ("What is the thing at {region}?",), ("It is the {thing}.",), needs="thing", number=False
    ),
    _of_region(
        "region_color", ("What colour is the thing at {region}?",), ("It is {color}.",), needs="color", number=False
    ),
    _of_region(
        "region_counting",
        ("How many things like the one at {region} are in the image, itself included?",),
        ("{count}",),
        needs="count",
        number=True,
    ),
)


@dataclass(frozen=True)
class MaskFacts:
    """What a record about masks is about."""

    phrase: str  # that the question gives
    # thing, things: what that is, singular and plural
    thing: str
    things: str
    objects: Sequence[AnnotatedObject]  # what the answer is about, from left to right; none of what is not there
    boxes: Sequence[Sequence[int]]  # theirs, (x1, y1, x2, y2) in the frame
    region: str = ""  # what the question shows of the first object: one of REGIONS
    point: tuple[int, int] = (0, 0)  # (x, y) in the frame, on that object
    choices: Sequence[str] = ()  # what could be named
    color: str = ""


@register_family
class MaskFamily(TaskFamily):
    """Things and their masks."""

    name: ClassVar[str] = "masks"
    order: ClassVar[int] = 30
    token_kinds: ClassVar[tuple[str, ...]] = ("mask",)
    replaced_kind: ClassVar[str | None] = "mask"
    tasks: ClassVar[tuple[Task, ...]] = TASKS
    measures: ClassVar[Sequence[MeasureTable]] = (REFERRING, GROUNDED)
    fields: ClassVar[Mapping[str, Form]] = {
        "phrase": Words("leftmost thing"),
        "thing": Words("thing"),
        "things": Words("things"),
        "color": Words("red"),
        "mask": Span("mask"),
        "box": CoordinatesForm(4),
        "masks": Listed(sequence(Number(MOST_MASKS), ". ", Span("mask")), "\n", example=4),
        "described": Listed(sequence("<p>", Words("a thing"), "</p> ", Span("mask")), ", ", last=" and "),
        "region": CoordinatesForm(2),  # or a box, or a mask
        "count": Number(MOST_MASKS),
    }

    def facts(self, task: Task, image: AnnotatedImage, drawing: Drawing, rng: np.random.Generator) -> MaskFacts | None:
        """Of things whose masks are known; a phrase is of something that is not there one time in five."""
        known = sorted((item for item in image.objects if item.mask is not None), key=lambda item: item.box)
        if len(known) < len(image.objects):
            return None
        if task.name == "grounded_description":
            return _facts("", ("", ""), known, drawing, image) if known else None
        if task.answer is not None:
            thing = counted_thing(image, drawing, rng, even=task.answer == "number")
            alike = [item for item in known if (item.thing, item.things) == thing]
            if task.kind == "direct":
                return _region_facts(task, alike, drawing, image, rng) if alike else None
            return None if thing is None else _facts(thing[1], thing, alike, drawing, image)
        named = [(phrase, item) for item in known for phrase in _phrases(task, item)]
        if image.absent and (rng.random() < NOTHING_THERE or not known):
            thing = image.absent[int(rng.integers(len(image.absent)))]
            place = f"{rng.choice(PLACES)} " if task.name == "segmentation_by_place" else ""
            return _facts(place + thing[0], thing, (), drawing, image)
        if not named:
            return None
        phrase, item = named[int(rng.integers(len(named)))]
        return _facts(phrase, (item.thing, item.things), [item], drawing, image)

    def values(
        self, facts: MaskFacts, coordinates: Coordinates, families: Mapping[str, TokenFamily]
    ) -> dict[str, object]:
        if "mask" not in families:
            raise ValueError("records about masks hold mask spans, and this writer has no tokens for them")
        family = families["mask"]
        spans = [_span(item, family) for item in facts.objects]
        described = [f"<p>{_with_article(item.thing)}</p> {s}" for item, s in zip(facts.objects, spans, strict=True)]
        first = {"mask": spans[0], "box": coordinates(facts.boxes[0])} if spans else {}
        return {
            **first,
            "phrase": facts.phrase,
            "thing": facts.thing,
            "things": facts.things,
            "color": facts.color,
            "count": len(facts.objects),
            "masks": "\n".join(f"{number}. {span}" for number, span in enumerate(spans, start=1)),
            "described": " and ".join([", ".join(described[:-1]), described[-1]] if described[1:] else described),
            "region": coordinates(facts.point) if facts.region == "point" else first.get(facts.region, ""),
        }

    def truth(self, task: Task, facts: MaskFacts) -> dict[str, Any]:
        """Masks as run lengths of COCO, in the pixels of the annotated image; the answer of questions for one."""
        found: dict[str, Any] = {
            "phrase": facts.phrase,
            "thing": facts.thing,
            "phrases": [_with_article(item.thing) for item in facts.objects],
            "masks": [coco_rle(item.mask) for item in facts.objects if item.mask is not None],
            "boxes": [list(box) for box in facts.boxes],
        }
        if facts.region:
            found |= {"region": facts.region, "choices": list(facts.choices)}
        if task.answer is not None:
            stated = {"region_naming": facts.thing, "region_color": facts.color}
            found["answer"] = stated.get(task.name, str(len(facts.objects)))
        return found

    def is_none(self, facts: MaskFacts) -> bool:
        return not facts.objects

    def answered(self, outcome: Outcome) -> str | None:
        return outcome.stated if outcome.question.masks is None else answer_of_masks(outcome)

    def measure(self, outcome: Outcome) -> Mapping[str, Measured]:
        return measured_masks(outcome)

    def blind_answers(self, questions: Sequence[Asked]) -> Mapping[str, Sequence[str | None]]:
        """The best mask that is the same for all."""
        guesses = constant_measures(questions)
        rule = [FOUND if values["p50"][0] else MISSED for values in guesses]  # type: ignore[index]
        return {"one mask for all, the best": rule} if rule else {}

    def blind_measures(self, questions: Sequence[Asked]) -> Sequence[Mapping[str, Measured]]:
        return constant_measures(questions)

    def panels(
        self, question: Asked, written: Written, annotation: Any, image: Image.Image
    ) -> list[tuple[str, Image.Image]]:
        if question.masks is None:
            return [] if annotation is None else [("the last mask it wrote", draw_masks([annotation], image))]
        found = [("true masks", draw_masks([mask.pixels for mask in question.masks], image))]
        last = [] if annotation is None else [question.in_image(annotation)]
        return [*found, ("the last mask it wrote", draw_masks(last, image))]

    def example(self, image: AnnotatedImage, rng: np.random.Generator) -> Example | None:
        phrases = [phrase for item in image.objects for phrase in item.phrases]
        return Example(TASKS[0].wording.questions[0].format(phrase=phrases[0])) if phrases else None

    def problems(
        self, task: Task, record: Mapping[str, Any], *, frame: int, families: Mapping[str, TokenFamily]
    ) -> Iterator[Problem]:
        """Masks or boxes that are more or fewer than the truth has; another answer than the true one."""
        about, answer = record["aurora"], record["conversations"][-1]["value"]
        if task.kind != "direct" and isinstance(about.get("masks"), list) and "mask" in families:
            written, true = len(families["mask"].parse(answer)), len(about["masks"])
            if written != true:
                yield Problem("masks", f"{true} masks in the truth, but {written} in the answer")
            boxes = sum(len(mention.place) == 4 for mention in mentions(answer))
            if boxes not in (0, true):
                yield Problem("masks", f"{true} masks in the truth, but {boxes} boxes in the answer")
        if task.answer == "number" and task.stated(answer) != about.get("answer"):
            yield Problem("counts", f"the text answers {task.stated(answer)}, not {about.get('answer')}")
        if task.answer == "choice" and str(about.get("answer")) not in answer:
            yield Problem("answers", f"the text does not say {about.get('answer')!r}, which is the answer")


def _facts(
    phrase: str, thing: tuple[str, str], objects: Sequence[AnnotatedObject], drawing: Drawing, image: AnnotatedImage
) -> MaskFacts:
    kind, scale = BoxKind(frame=drawing.frame), [drawing.frame / side for side in image.size] * 2
    boxes = [kind.encode([edge * share for edge, share in zip(item.box, scale, strict=True)]) for item in objects]
    return MaskFacts(phrase, *thing, objects, boxes)


def _region_facts(
    task: Task, alike: Sequence[AnnotatedObject], drawing: Drawing, image: AnnotatedImage, rng: np.random.Generator
) -> MaskFacts | None:
    """About one of these objects at a region, and the others where they are counted."""
    first = int(rng.integers(len(alike)))
    item, number = alike[first], task.answer == "number"
    if task.name == "region_color" and not item.color:
        return None
    assert item.mask is not None
    inside = np.asarray(Image.fromarray(item.mask).convert("L").filter(ImageFilter.MinFilter(5))) > 0
    places = np.argwhere(inside if inside.any() else item.mask)
    row, column = places[int(rng.integers(len(places)))].tolist()
    across, down = (drawing.frame / side for side in image.size)
    shown = [item, *(alike[:first] if number else ()), *(alike[first + 1 :] if number else ())]
    things = {each.thing for each in image.objects} | {thing for thing, _ in image.absent}
    colors = {*image.colors, *(each.color for each in image.objects)}
    return replace(
        _facts(item.thing, (item.thing, item.things), shown, drawing, image),
        region=REGIONS[int(rng.integers(len(REGIONS)))],
        point=(int((column + 0.5) * across), int((row + 0.5) * down)),
        choices=() if number else sorted(colors if task.name == "region_color" else things),
        color=item.color,
    )


def _phrases(task: Task, item: AnnotatedObject) -> Sequence[str]:
    """The phrases of a thing that a task may ask by."""
    by_name, by_place = task.name != "segmentation_by_place", task.name != "segmentation"
    return [phrase for phrase in item.phrases if (by_name if phrase == item.thing else by_place)]


def _span(item: AnnotatedObject, family: TokenFamily) -> str:
    assert item.mask is not None
    try:
        return family.text(encode_mask(item.mask, math.isqrt(8 * (family.lengths[0] - 4))))
    except AuroraError as error:
        raise AuroraError(f"the mask of the {item.thing}: {error}") from error


def _with_article(thing: str) -> str:
    return f"{'an' if thing[:1] in 'aeiou' else 'a'} {thing}"
