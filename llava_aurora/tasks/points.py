"""Marked points, and the form in which texts name them: `A (x,y)`, or `A (x,y) 57` with how close the point is.

Coordinates are pixels of the square coordinate frame, x to the right, y down.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from llava_aurora.tasks.forms import LETTERS, Coordinates, Digits, Letter, Listed, sequence
from llava_aurora.tokens.box import COORDINATES, coordinate_values

_POINT = sequence(Letter(), " ", Coordinates(2))
POINTS = Listed(_POINT, ", ")
VALUED_POINTS = Listed(sequence(*_POINT.parts, " ", Digits(2)), ", ")
LISTED_LETTERS = Listed(Letter(), ", ", last=" or ", example=3)
# A letter, coordinates and a value of two digits; letter and value may be missing. AURORA's own files write a point as
# "(x = 12 y = 34)", some words behind its letter.
_NAMED = r"\(\s*x\s*=\s*\d+\s*,?\s*y\s*=\s*\d+\s*\)"
_MENTION = re.compile(
    rf"(?:\b(?P<letter>[A-Z])(?:\s*|(?:\s+[a-z]+){{1,4}}\s*(?={_NAMED})))?(?P<place>{COORDINATES}|{_NAMED})"
    r"(?:\s*(?P<value>\d\d)\b)?"
)


@dataclass(frozen=True)
class MarkedPoint:
    """A point that a question is about. Args: letter; x, y: in the frame; depth: 0 … 255, higher = closer."""

    letter: str
    x: int
    y: int
    depth: int


@dataclass(frozen=True)
class Mention:
    """A point or box as a text names it."""

    letter: str  # in front of it, "" if there is none
    place: tuple[int, ...]  # (x, y) or (x1, y1, x2, y2)
    value: int | None  # two digits behind it that say how close it is, in hundredths; None if there are none
    # start, end: the characters that it fills, letter and value included
    start: int
    end: int
    places: tuple[int, ...]  # the character at which each coordinate begins
    value_at: int  # the character at which the value begins, -1 if there is none


def mentions(text: str) -> list[Mention]:
    """Every point and box that a text names, with coordinates as tokens or as plain numbers."""
    found = []
    for match in _MENTION.finditer(text):
        values = coordinate_values(match["place"])
        found.append(
            Mention(
                letter=match["letter"] or "",
                place=tuple(value for _, value in values),
                value=int(match["value"]) if match["value"] else None,
                start=match.start(),
                end=match.end(),
                places=tuple(match.start("place") + offset for offset, _ in values),
                value_at=match.start("value"),
            )
        )
    return found


def point_mentions(text: str) -> list[Mention]:
    """The mentions of points that have a letter."""
    return [mention for mention in mentions(text) if mention.letter and len(mention.place) == 2]


def with_values(text: str, values: Callable[[str], str]) -> str:
    """A text in which each point with a letter is followed by a value, in the place of one that it has.

    Args: values: from a point's letter to the two digits to be written.
    """
    parts, end = [], 0
    for mention in point_mentions(text):
        place_ends = mention.end if mention.value is None else text.rindex(")", mention.start, mention.value_at) + 1
        parts += [text[end:place_ends], f" {values(mention.letter)}"]
        end = mention.end
    return "".join([*parts, text[end:]])


def write_points(points: Sequence[MarkedPoint], *, coordinates: Callable[[Sequence[int]], str], values: bool) -> str:
    """The points as `mentions` reads them. Args: coordinates: writes a place; values: say how close each point is."""
    written = []
    for point in points:
        value = f" {hundredths(point.depth)}" if values else ""
        written.append(f"{point.letter} {coordinates((point.x, point.y))}{value}")
    return ", ".join(written)


def list_letters(letters: Sequence[str]) -> str:
    """ "A, B or C"."""
    return f"{', '.join(letters[:-1])} or {letters[-1]}" if len(letters) > 1 else letters[0]


def closest(points: Sequence[MarkedPoint]) -> MarkedPoint:
    """The point of the highest relative depth; of equals, the first. Raises ValueError if there is none."""
    return max(points, key=lambda point: point.depth)


def hundredths(depth: int) -> str:
    """A relative depth of 0 … 255 in two digits: 00 farthest, 99 closest. It never changes the order of two depths."""
    return f"{depth * 100 // 256:02d}"


def letter_points(
    positions: Sequence[tuple[int, int]], depths: Sequence[int], rng: np.random.Generator
) -> list[MarkedPoint]:
    """Gives points their letters at random, so that neither order nor place gives the answer away; sorted by letter."""
    letters = rng.permutation(len(positions))
    points = [
        MarkedPoint(letter=LETTERS[letter], x=int(x), y=int(y), depth=int(depth))
        for letter, (x, y), depth in zip(letters, positions, depths, strict=True)
    ]
    return sorted(points, key=lambda point: point.letter)
