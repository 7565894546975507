"""Depth maps at marked points: which is the closest by a map, and what the map has there."""

from collections.abc import Mapping, Sequence

import numpy as np

from llava_aurora.tasks.marks import depth_at
from llava_aurora.tasks.outcome import Asked
from llava_aurora.tasks.points import hundredths


def closest_by(depth: np.ndarray, points: Mapping[str, Sequence[int]], *, frame: int) -> str:
    """Letter of the point with the highest value in a map of any size; of equals, the first letter. See `by_depth`."""
    return by_depth(depth, points, frame=frame)[0]


def by_depth(depth: np.ndarray, points: Mapping[str, Sequence[int]], *, frame: int) -> list[str]:
    """Letters of points, the one with the highest value in a map of any size first; equals in the order of letters.

    Args:
        depth: (H, W), higher = closer; it covers the frame.
        points: (x, y) in the frame by letter.
    """
    across, down = depth.shape[1] / frame, depth.shape[0] / frame
    values = {letter: depth_at(depth, (int(x * across), int(y * down))) for letter, (x, y) in sorted(points.items())}
    return sorted(values, key=lambda letter: -values[letter])


def places_of(question: Asked, size: tuple[int, int]) -> tuple[list[tuple[int, int]], list[str]]:
    """The marked points of a question in pixels of a picture of this size (width, height), and their letters."""
    scale = [side / question.frame for side in size]
    return [(int(x * scale[0]), int(y * scale[1])) for x, y in question.points.values()], list(question.points)


def values_at(depth: np.ndarray, question: Asked) -> str:
    """What a map has at the marked points, in hundredths: "A 24, B 75"."""
    places, letters = places_of(question, (depth.shape[1], depth.shape[0]))
    values = (hundredths(depth_at(depth, place)) for place in places)
    return ", ".join(map(" ".join, zip(letters, values, strict=True)))


def shrunk(depth: np.ndarray, side: int = 64) -> np.ndarray:
    """A map as int64 (side, side), by nearest neighbour."""
    rows, columns = (np.arange(side) * length // side for length in depth.shape)
    return depth[rows[:, None], columns].astype(np.int64)
