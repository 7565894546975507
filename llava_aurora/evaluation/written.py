"""What a model wrote beside its answer: the map, the boxes, the points, however far it came."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from llava_aurora.data.points import depth_at
from llava_aurora.perception import Perception
from llava_aurora.vocabulary import MalformedSpan, pixel_family

_COORDINATES = re.compile(r"(?:\b([A-Z])\s*)?\(\s*(\d+(?:\s*,\s*\d+)+)\s*\)")


@dataclass(frozen=True)
class Written:
    """What stands in an answer; what was cut off counts as not written.

    Attributes:
        codes: of the last whole depth map; None if there is none.
        map_end: how many of the answer's ids end with that map.
        boxes: (x1, y1, x2, y2) each, in the coordinate frame, as tokens or as plain numbers.
        points: (x, y) by the letter in front of them.
    """

    codes: tuple[int, ...] | None = None
    map_end: int = 0
    boxes: tuple[tuple[int, ...], ...] = ()
    points: Mapping[str, tuple[int, int]] = field(default_factory=dict)


def read_written(text: str, ids: Sequence[int], perception: Perception | None) -> Written:
    """Reads an answer. Args: text and ids of what the model wrote; perception: of the model."""
    boxes, points = _coordinates(text)
    if perception is None or "depth" not in perception.modalities:
        return Written(boxes=boxes, points=points)
    family = perception.modalities["depth"].family
    end_id = perception.ids.end_id(family)
    whole = len(ids) - list(ids)[::-1].index(end_id) if end_id in ids else 0
    try:
        spans = perception.ids.spans(family, ids[:whole])
    except MalformedSpan:
        spans = []
    if not spans:
        return Written(boxes=boxes, points=points)
    return Written(codes=spans[-1].codes, map_end=spans[-1].end, boxes=boxes, points=points)


def closest_by(depth: np.ndarray, points: Mapping[str, Sequence[int]], *, frame: int) -> str:
    """Letter of the point with the highest value in a map of any size; of equals, the first letter.

    Args:
        depth: (H, W), higher = closer; it covers the frame.
        points: (x, y) in the frame by letter.
        frame: side of the frame.
    """
    across, down = depth.shape[1] / frame, depth.shape[0] / frame
    values = {letter: depth_at(depth, (int(x * across), int(y * down))) for letter, (x, y) in sorted(points.items())}
    return max(values, key=lambda letter: values[letter])


def _coordinates(text: str) -> tuple[tuple[tuple[int, ...], ...], dict[str, tuple[int, int]]]:
    boxes, points = [], {}
    for letter, numbers in _COORDINATES.findall(pixel_family().plain(text)):
        values = tuple(map(int, numbers.split(",")))
        if len(values) == 4:
            boxes.append(values)
        elif len(values) == 2 and letter:
            points[letter] = (values[0], values[1])
    return tuple(boxes), points
