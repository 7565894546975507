"""Marked points are found in images, also where one mark's plate covers part of another's circle."""

import numpy as np
import pytest

from llava_aurora.evaluation.benchmarks.marks import find_marks
from llava_aurora.tasks.marks import draw_points


def layout(rng, count):
    """Points at least 20 pixels apart, most of them a little below another one, where their plate covers its circle."""
    points: list[tuple[int, int]] = []
    while len(points) < count:
        x, y = int(rng.integers(10, 326)), int(rng.integers(30, 320))
        if points and rng.random() < 0.7:
            x, y = points[-1][0] + int(rng.integers(-14, 10)), points[-1][1] + int(rng.integers(12, 32))
        if 10 <= x < 326 and 30 <= y < 320 and all(np.hypot(x - a, y - b) >= 20 for a, b in points):
            points.append((x, y))
        elif rng.random() < 0.05:
            points.clear()
    return points


def covered(image, point):
    """Share of a circle's pixels that are under another mark."""
    alone = draw_points(np.zeros((336, 336, 3), np.uint8), [point], ["A"])
    ring = (alone == (255, 0, 0)).all(axis=-1)
    return 1 - (image[ring] == (255, 0, 0)).all(axis=-1).mean()


@pytest.mark.parametrize("background", ["noise", "plain"])
def test_every_point_is_found_whatever_plate_covers_its_circle(background):
    rng = np.random.default_rng(7)
    shares = []
    for _ in range(30):
        count = int(rng.integers(3, 6))
        points, letters = layout(rng, count), "ABCDE"[:count]
        image = rng.integers(0, 256, (336, 336, 3) if background == "noise" else 3, dtype=np.uint8)
        image = np.ascontiguousarray(np.broadcast_to(image, (336, 336, 3)))
        for i in rng.permutation(count):  # one after another: later plates cover earlier circles
            image = draw_points(image, [points[i]], [letters[i]])
        most = max(covered(image, point) for point in points)
        if most <= 0.8:
            shares.append(most)
            assert find_marks(image, count=count) == dict(zip(letters, points, strict=True))
    assert sum(0.1 <= share <= 0.6 for share in shares) >= 5


def test_nothing_is_found_where_a_mark_is_missing_or_not_as_drawn():
    plain = np.full((336, 336, 3), 90, np.uint8)
    image = draw_points(plain, [(50, 100), (90, 100), (130, 5)], ["A", "B", "C"])
    assert find_marks(image, count=3) == {"A": (50, 100), "B": (90, 100), "C": (130, 5)}  # C's plate is below
    assert find_marks(image, count=4) == {}
    assert find_marks(plain, count=3) == {}
    image[100, 46] = 0
    assert find_marks(image, count=3) == {}
