"""Where the marked points of a HardBLINK image are. The benchmark does not publish them, but its marks are exact.

Every mark of it is drawn alike, pixel by pixel as `draw_points` draws it: so it is found by comparing pixels.
"""

from functools import lru_cache

import numpy as np

from llava_aurora.tasks.forms import LETTERS
from llava_aurora.tasks.marks import Point, draw_points

_CENTRE = 60
_RING_SHARE = 0.9  # of the red pixels of a circle: a plate may cover some
_PLATE_ERROR = 24.0  # mean difference of a plate's pixels, of 255


def find_marks(image: np.ndarray, *, count: int) -> dict[str, Point]:
    """Points of an image by their letters, (x, y) in its pixels.

    Args:
        image: uint8 (336, 336, 3), losslessly stored.
        count: how many points are marked, with the first letters of the alphabet.

    Returns:
        All of them; nothing if not exactly these are found, as in an image that was resized or stored as JPEG.
    """
    reach = _CENTRE
    padded = np.pad(image.astype(np.int16), ((reach, reach), (reach, reach), (0, 0)), constant_values=-1)
    offsets = _ring()
    red = (padded == (255, 0, 0)).all(axis=-1)
    height, width = image.shape[:2]
    hits = sum(red[reach + dy : reach + dy + height, reach + dx : reach + dx + width].astype(int) for dx, dy in offsets)
    rows, columns = np.nonzero(hits >= _RING_SHARE * len(offsets))
    marks: dict[str, Point] = {}
    for x, y in zip(columns.tolist(), rows.tolist(), strict=True):
        errors = {letter: _plate_error(padded, x + reach, y + reach, letter) for letter in LETTERS[:count]}
        letter = min(errors, key=lambda each: errors[each])
        if errors[letter] > _PLATE_ERROR or letter in marks:
            return {}
        marks[letter] = (x, y)
    return dict(sorted(marks.items())) if len(marks) == count else {}


def _plate_error(padded: np.ndarray, x: int, y: int, letter: str) -> float:
    dx, dy, colors = _plate(letter)
    return float(np.abs(padded[y + dy, x + dx] - colors).mean())


@lru_cache(maxsize=len(LETTERS))
def _drawn(letter: str) -> np.ndarray:
    """A mark on green, int16 (H, W, 3)."""
    canvas = np.full((336, 336, 3), (0, 255, 0), np.uint8)
    return draw_points(canvas, [(_CENTRE, _CENTRE)], [letter]).astype(np.int16)


def _ring() -> list[Point]:
    """Offsets (x, y) of the circle's red pixels from its centre."""
    rows, columns = np.nonzero((_drawn("A") == (255, 0, 0)).all(axis=-1))
    return [(int(x) - _CENTRE, int(y) - _CENTRE) for x, y in zip(columns, rows, strict=True)]


@lru_cache(maxsize=len(LETTERS))
def _plate(letter: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Offsets along x and y of a plate's pixels from the centre of its circle, and their colours."""
    drawn = _drawn(letter)
    rows, columns = np.nonzero((drawn[..., 0] == drawn[..., 1]) & (drawn[..., 1] == drawn[..., 2]))
    return columns - _CENTRE, rows - _CENTRE, drawn[rows, columns]
