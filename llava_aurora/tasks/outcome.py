"""A question of a benchmark as task families see it, the answer of a model, and what is measured of that."""

import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

if TYPE_CHECKING:
    from llava_aurora.tasks.written import Written
    from llava_aurora.tokens.perception import PerceptionTokens

# What a measure is of one answer: a number; a pair, whose first numbers are added over the answers and divided by the
# sum of the second; what the measure pools; None where there is nothing to measure.
Measured = float | tuple[float, ...] | None


@dataclass(frozen=True)
class Measure:
    """What is measured of each answer beside its being right."""

    name: str  # unique in its family
    title: str  # of its column in a report
    digits: int | None = None  # of a number; None for a share, shown in percent
    of_span: bool = True  # left out for groups of answers none of which holds a span, such as direct answers
    # what is made of the values of many answers, a tuple each, in place of their mean or ratio
    pooled: Callable[[Sequence[Sequence[float]]], float] | None = None


@dataclass(frozen=True)
class MeasureTable:
    """Measures that a report shows together. Args: title; measures: its columns; note: how they are taken."""

    title: str
    measures: tuple[Measure, ...]
    note: str = ""


@dataclass(frozen=True)
class TrueMask:
    """A mask of an image, kept small.

    Args: phrase: of a description; "" where the question names it; size: width and height in pixels; packed: its bits.
    """

    phrase: str
    size: tuple[int, int]
    packed: bytes

    @classmethod
    def of(cls, mask: np.ndarray, phrase: str = "") -> "TrueMask":
        """Args: mask: bool (H, W), empty for what is not there."""
        return cls(phrase, mask.shape[::-1], zlib.compress(np.packbits(mask).tobytes()))

    @property
    def pixels(self) -> np.ndarray:
        """bool (H, W)."""
        bits = np.unpackbits(np.frombuffer(zlib.decompress(self.packed), np.uint8), count=math.prod(self.size))
        return bits.astype(bool).reshape(self.size[::-1])


class Asked(Protocol):
    """A question of a benchmark, as families see it (evaluation/benchmarks/question.py)."""

    @property
    def image(self) -> Any:
        """What tells its image from others."""

    @property
    def points(self) -> Mapping[str, tuple[int, int]]:
        """The marked points (x, y) in the frame, by letter; none if they are not known."""

    @property
    def boxes(self) -> Sequence[Sequence[int]] | None:
        """The true boxes (x1, y1, x2, y2) in the frame; None if they are not known."""

    @property
    def frame(self) -> int:
        """Side of the square frame that points and boxes refer to."""

    @property
    def answer(self) -> str:
        """The right answer."""

    @property
    def masks(self) -> "Sequence[TrueMask] | None":
        """The true masks; None if they are not known."""

    def in_image(self, mask: np.ndarray) -> np.ndarray:
        """A mask over the frame, bool (S, S), in pixels of the image, bool (H, W), if its true masks are known."""

    def true_depth(self) -> np.ndarray | None:
        """uint8 (H, W), higher = closer; None if it is not known."""


class Outcome(NamedTuple):
    """An answer of a model to a question of a benchmark."""

    question: Asked
    written: "Written"  # what the answer holds
    annotation: Any  # of the last whole span of `replaced_kind`; None if there is none
    stated: str | None  # the answer that the text states; None if it states none
    perception: "PerceptionTokens | None"  # of the model
    text: str = ""  # all that was written


class Example(NamedTuple):
    """A question to try. Args: question: "" for `question_about` the points; points: (x, y) in the image to mark."""

    question: str = ""
    points: Sequence[tuple[int, int]] = ()
