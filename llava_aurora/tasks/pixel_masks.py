"""Masks by pixels: a phrase and a place of the image to whether it is part of the thing (PAE-LaMM, arXiv 2408.03940).

Half of the places are on the thing, most of the others beside it in its box. With coordinate tokens a place is a pixel
of the frame; in the paper's plain text it is a cell of its grid, and the answer 0 or 1. Wording: the paper's.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from llava_aurora.errors import AuroraError
from llava_aurora.tasks.annotated import AnnotatedImage, Drawing
from llava_aurora.tasks.forms import Coordinates as CoordinatesForm
from llava_aurora.tasks.forms import Form, Number, Words, sequence
from llava_aurora.tasks.mask_measures import filled_box, stretched
from llava_aurora.tasks.registry import register_family
from llava_aurora.tasks.task import Coordinates, Problem, Record, Task, TaskFamily, wording
from llava_aurora.tokens.mask import coco_rle
from llava_aurora.tokens.vocabulary import TokenFamily

SIDE = 64  # of the grid of plain text
INSIDE, NEAR = 0.5, 0.4  # shares of the places: on the thing, and beside it in its box; the others are anywhere else
SAID, BITS = ("No", "Yes"), ("0", "1")

TASKS = (
    Task(
        name="pixel_segmentation",
        kind="atomic",
        difficulty=1,
        wording=wording(
            ("Is the pixel at {point} part of the {phrase}?",), ("{said}",), question="point phrase", answer="said"
        ),
        answer="choice",
    ),
    Task(
        name="pixel_segmentation_plain",
        kind="atomic",
        difficulty=1,
        wording=wording(
            ("[segmentation] {phrase} loc: {cell} mask:",), ("{bit}",), question="cell phrase", answer="bit"
        ),
        answer="choice",
    ),
)


@dataclass(frozen=True)
class PlaceFacts:
    """What a record asks.

    Args: phrase; cell: column and row of a grid over the frame; side: of that grid; inside: whether the middle of the
    cell is part of the thing; frame: of coordinates; mask: of the thing, bool (H, W) over the frame.
    """

    phrase: str
    cell: tuple[int, int]
    side: int
    inside: bool
    frame: int
    mask: np.ndarray | None = field(default=None, compare=False)

    @property
    def point(self) -> tuple[int, int]:
        """The pixel of the frame in the middle of the cell."""
        column, row = (int((place + 0.5) * self.frame / self.side) for place in self.cell)
        return column, row


def drawn_place(mask: np.ndarray, phrase: str, rng: np.random.Generator, *, side: int, frame: int) -> PlaceFacts | None:
    """A place on a thing or beside it; None if no middle of a cell is on it. Args: see `PlaceFacts`."""
    seen, draw = stretched(mask, (side, side)), rng.random()
    if not seen.any():
        return None
    beside = filled_box(seen) & ~seen if draw < INSIDE + NEAR else ~seen
    wanted = next(each for each in (seen if draw < INSIDE else beside, ~seen, seen) if each.any())
    places = np.argwhere(wanted)
    row, column = places[int(rng.integers(len(places)))].tolist()
    return PlaceFacts(phrase, (column, row), side, bool(seen[row, column]), frame, mask)


@register_family
class PixelMaskFamily(TaskFamily):
    """Facts are `PlaceFacts`."""

    name: ClassVar[str] = "pixel_masks"
    order: ClassVar[int] = 60
    token_kinds: ClassVar[tuple[str, ...]] = ("box",)
    tasks: ClassVar[tuple[Task, ...]] = TASKS
    fields: ClassVar[Mapping[str, Form]] = {
        "point": CoordinatesForm(2),
        "cell": sequence("[", Number(999), ",", Number(999), "]"),
        "phrase": Words("red thing"),
        "said": Words(SAID[1]),
        "bit": Number(1),
    }

    def facts(self, task: Task, image: AnnotatedImage, drawing: Drawing, rng: np.random.Generator) -> PlaceFacts | None:
        """Of things whose masks are known and that a phrase names."""
        named = [(phrase, item.mask) for item in image.objects for phrase in item.phrases if item.mask is not None]
        if not named:
            return None
        phrase, mask = named[int(rng.integers(len(named)))]
        side = drawing.frame if task is TASKS[0] else SIDE
        return drawn_place(mask, phrase, rng, side=side, frame=drawing.frame)

    def values(
        self, facts: PlaceFacts, coordinates: Coordinates, families: Mapping[str, TokenFamily]
    ) -> dict[str, object]:
        return {
            "point": coordinates(facts.point),
            "cell": f"[{facts.cell[0]},{facts.cell[1]}]",
            "said": SAID[facts.inside],
            "bit": BITS[facts.inside],
            "phrase": facts.phrase,
        }

    def truth(self, task: Task, facts: PlaceFacts) -> dict[str, Any]:
        """The mask as run lengths of COCO, so that another place can be drawn."""
        words = SAID if task is TASKS[0] else BITS
        return {
            "phrase": facts.phrase,
            "cell": list(facts.cell),
            "side": facts.side,
            "answer": words[facts.inside],
            "choices": list(words),
            "frame": facts.frame,
            **({} if facts.mask is None else {"masks": [coco_rle(facts.mask)]}),
        }

    def problems(
        self, task: Task, record: Mapping[str, Any], *, frame: int, families: Mapping[str, TokenFamily]
    ) -> Iterator[Problem]:
        """Another answer than the true one."""
        about, answer = record["aurora"], record["conversations"][-1]["value"]
        if str(about.get("answer")) not in answer:
            yield Problem("answers", f"the text does not say {about.get('answer')!r}, which is the answer")


def known_place(record: Record) -> PlaceFacts:
    """The facts that a record was written from, without the mask. Raises AuroraError if it does not keep them."""
    about = record["aurora"]
    try:
        (column, row), inside = about["cell"], about["choices"].index(about["answer"]) == 1
        return PlaceFacts(str(about["phrase"]), (column, row), int(about["side"]), inside, int(about["frame"]))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise AuroraError(f"its phrase, cell, answer or frame is missing ({error}); write the records again") from error
