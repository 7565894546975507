"""Pixels by their colour: a place of the image to the colour that it has there (PAE-LaMM, arXiv 2408.03940).

A place is a cell of a grid over the frame that the model sees, and its colour the mean of that cell. With coordinate
and colour tokens the question names the pixel of the frame in the middle of the cell; in the paper's plain text the
cell itself, and the answer is three numbers. Source of the plain wording: the paper.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from llava_aurora.errors import AuroraError
from llava_aurora.tasks.annotated import AnnotatedImage, Drawing
from llava_aurora.tasks.forms import Coordinates as CoordinatesForm
from llava_aurora.tasks.forms import Form, Number, Span, sequence
from llava_aurora.tasks.registry import register_family
from llava_aurora.tasks.task import Coordinates, Record, Task, TaskFamily, wording
from llava_aurora.tokens.vocabulary import TokenFamily

_PLAIN = re.compile(r"\[\s*(\d+)\s*,\s*(\d+)\s*,\s*(\d+)\s*\]")

TASKS = (
    Task(
        name="pixel_value",
        kind="atomic",
        difficulty=1,
        wording=wording(("What colour is the pixel {point}?",), ("{color}",), question="point", answer="color"),
        span_in={"color": "answer"},
    ),
    Task(
        name="pixel_value_plain",
        kind="atomic",
        difficulty=1,
        wording=wording(("[reconstruct] loc: {cell} rgb:",), ("{levels}",), question="cell", answer="levels"),
    ),
)


@dataclass(frozen=True)
class PixelFacts:
    """Args: cell: column and row of the grid; side: of the grid; color: red, green, blue; frame: of coordinates."""

    cell: tuple[int, int]
    side: int
    color: tuple[int, int, int]
    frame: int

    @property
    def point(self) -> tuple[int, int]:
        """The pixel of the frame in the middle of the cell."""
        column, row = (int((place + 0.5) * self.frame / self.side) for place in self.cell)
        return column, row


def drawn_cell(colors: np.ndarray, rng: np.random.Generator, *, frame: int) -> PixelFacts | None:
    """A cell of the image at random; None if the frame shows nothing of the image. Args: colors: of `seen_colors`."""
    rows, columns = np.nonzero(colors[..., 0] >= 0)
    if not len(rows):
        return None
    chosen = int(rng.integers(len(rows)))
    return facts_of_cell(colors, (int(columns[chosen]), int(rows[chosen])), frame=frame)


def facts_of_cell(colors: np.ndarray, cell: tuple[int, int], *, frame: int) -> PixelFacts:
    red, green, blue = colors[cell[1], cell[0]].tolist()
    return PixelFacts(cell, len(colors), (red, green, blue), frame)


def stated_color(text: str) -> tuple[int, int, int] | None:
    """The colour that a plain answer states, `[r,g,b]`; None if it states none, or levels above 255."""
    found = _PLAIN.search(text)
    if found is None:
        return None
    red, green, blue = map(int, found.groups())
    return (red, green, blue) if max(red, green, blue) <= 255 else None


@register_family
class PixelFamily(TaskFamily):
    """Facts are `PixelFacts`."""

    name: ClassVar[str] = "pixels"
    order: ClassVar[int] = 50
    token_kinds: ClassVar[tuple[str, ...]] = ("color", "box")
    replaced_kind: ClassVar[str | None] = "color"
    tasks: ClassVar[tuple[Task, ...]] = TASKS
    fields: ClassVar[Mapping[str, Form]] = {
        "point": CoordinatesForm(2),
        "color": Span("color"),
        "cell": sequence("[", Number(999), ",", Number(999), "]"),
        "levels": sequence("[", Number(255), ",", Number(255), ",", Number(255), "]"),
    }

    def facts(self, task: Task, image: AnnotatedImage, drawing: Drawing, rng: np.random.Generator) -> PixelFacts | None:
        return drawn_cell(image.seen_colors(), rng, frame=drawing.frame) if image.seen_colors is not None else None

    def values(
        self, facts: PixelFacts, coordinates: Coordinates, families: Mapping[str, TokenFamily]
    ) -> dict[str, object]:
        return {
            "point": coordinates(facts.point),
            "cell": _listed(facts.cell),
            "levels": _listed(facts.color),
            "color": families["color"].text(facts.color) if "color" in families else "",
        }

    def truth(self, task: Task, facts: PixelFacts) -> dict[str, Any]:
        return {"cell": list(facts.cell), "side": facts.side, "color": list(facts.color), "frame": facts.frame}


def known_facts(record: Record) -> PixelFacts:
    """The facts that a record was written from. Raises AuroraError if it does not keep them."""
    about = record["aurora"]
    try:
        (column, row), (red, green, blue) = about["cell"], about["color"]
        return PixelFacts((column, row), int(about["side"]), (red, green, blue), int(about["frame"]))
    except (KeyError, TypeError, ValueError) as error:
        raise AuroraError(f"its cell, side, colour or frame is missing ({error}); write the records again") from error


def _listed(values: Sequence[int]) -> str:
    return f"[{','.join(map(str, values))}]"
