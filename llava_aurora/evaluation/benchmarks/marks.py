"""Finds the marked points of HardBLINK images, whose places are not published.

All marks are drawn alike, pixel by pixel as `draw_points` draws them, so they are found by comparing pixels. Plates are
drawn over other marks: a mark counts as found if every pixel of it is as drawn or lies under another mark.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from llava_aurora.tasks.forms import LETTERS
from llava_aurora.tasks.marks import Point, draw_points

_CENTRE = 60
_PADDING = 40  # at least the reach of a mark from its point
_VISIBLE = 0.15  # least share of a circle's pixels that is not covered
_DIAMETER = 8  # of a circle: points are farther apart than this
_RED = (255, 0, 0)


@dataclass(frozen=True)
class _Drawn:
    """The pixels of a mark: offsets along y and x from its point, int64 (N,), and colours, int16 (N, 3)."""

    dy: np.ndarray
    dx: np.ndarray
    colors: np.ndarray


def find_marks(image: np.ndarray, *, count: int) -> dict[str, Point]:
    """Points of an image by their letters, (x, y) in its pixels.

    Args:
        image: uint8 (336, 336, 3), losslessly stored.
        count: how many points are marked, with the first letters of the alphabet.
    Returns: All of them, or nothing if a mark is missing or differs in a pixel, as in a resized image or a JPEG.
    """
    height, width = image.shape[:2]
    padded = np.pad(image.astype(np.int16), ((_PADDING, _PADDING), (_PADDING, _PADDING), (0, 0)), constant_values=-1)
    red = (padded == _RED).all(axis=-1)
    grey = (padded == padded[..., :1]).all(axis=-1)  # as plates, letters and what is outside of the image
    ring = _ring()
    visible, possible = np.zeros((height, width), int), np.ones((height, width), bool)
    for dy, dx in zip(ring.dy, ring.dx, strict=True):
        there = np.s_[_PADDING + dy : _PADDING + dy + height, _PADDING + dx : _PADDING + dx + width]
        visible += red[there]
        possible &= red[there] | grey[there]
    rows, columns = np.nonzero(possible & (visible >= _VISIBLE * len(ring.dy)))
    found: list[tuple[int, int, int, str, _Drawn]] = []
    for letter in LETTERS[:count]:
        for drawn in _marks(letter):
            pixels = padded[rows[:, None] + drawn.dy + _PADDING, columns[:, None] + drawn.dx + _PADDING]
            agreeing = (pixels == drawn.colors).all(axis=-1).sum(axis=1).tolist()
            found += zip(
                agreeing, columns.tolist(), rows.tolist(), [letter] * len(rows), [drawn] * len(rows), strict=True
            )
    marks: dict[str, tuple[Point, _Drawn]] = {}
    for _, x, y, letter, drawn in sorted(found, key=lambda each: -each[0]):
        near = any(max(abs(x - other), abs(y - below)) <= _DIAMETER for (other, below), _ in marks.values())
        if letter not in marks and not near:
            marks[letter] = ((x, y), drawn)
    if len(marks) < count or not _explained(padded, marks):
        return {}
    return {letter: point for letter, (point, _) in sorted(marks.items())}


def _explained(padded: np.ndarray, marks: Mapping[str, tuple[Point, _Drawn]]) -> bool:
    """Whether every pixel of each mark is as drawn, outside of the image, or as another mark has it there."""
    places = [(y + drawn.dy + _PADDING, x + drawn.dx + _PADDING, drawn.colors) for (x, y), drawn in marks.values()]
    right = np.zeros(padded.shape[:2], bool)
    for rows, columns, colors in places:
        right[rows, columns] |= (padded[rows, columns] == colors).all(axis=-1) | (padded[rows, columns] < 0).all(
            axis=-1
        )
    return all(right[rows, columns].all() for rows, columns, _ in places)


@lru_cache(maxsize=len(LETTERS))
def _marks(letter: str) -> tuple[_Drawn, _Drawn]:
    """A mark with its plate above the point, and with its plate below, as at the upper edge of an image."""
    return _drawn(letter, _CENTRE), _drawn(letter, 2 * _ring().dy.max())


@lru_cache(maxsize=1)
def _ring() -> _Drawn:
    """The red pixels of a mark."""
    mark = _drawn("A", _CENTRE)
    red = (mark.colors == _RED).all(axis=-1)
    return _Drawn(mark.dy[red], mark.dx[red], mark.colors[red])


def _drawn(letter: str, y: int) -> _Drawn:
    canvas = draw_points(np.full((336, 336, 3), (0, 255, 0), np.uint8), [(_CENTRE, y)], [letter]).astype(np.int16)
    rows, columns = np.nonzero((canvas != (0, 255, 0)).any(axis=-1))
    return _Drawn(rows - y, columns - _CENTRE, canvas[rows, columns])
