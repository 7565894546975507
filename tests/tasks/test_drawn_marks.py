from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from llava_aurora.tasks.marks import any_points, depth_at, depth_radius, draw_points, mark_radius, sample_points

# The first images of the published benchmark, where somebody has laid them beside the repository.
HARDBLINK = Path(__file__).resolve().parents[3] / "shared" / "data" / "hardblink_sample"


def slope(side: int) -> np.ndarray:
    """Depth that rises evenly from top (1) to bottom (255)."""
    column = np.linspace(1, 255, side).round().astype(np.uint8)
    return np.repeat(column[:, None], side, axis=1)


@settings(max_examples=60)
@given(
    side=st.sampled_from([112, 168, 336]),
    count=st.integers(1, 5),
    gap=st.integers(10, 30),
    distance=st.floats(0, 60),
    seed=st.integers(0, 2**32),
)
def test_sampled_points_keep_every_rule(side, count, gap, distance, seed):
    rng = np.random.default_rng(seed)
    depth = np.clip(slope(side).astype(int) + rng.integers(-1, 2, (side, side)), 0, 255).astype(np.uint8)
    depth[:, : side // 4] = 0
    points = sample_points(
        relative_depth=depth, count=count, rng=rng, min_distance=distance, min_depth_gap=gap, margin=9
    )
    if points is None:
        return
    assert len(points) == count
    radius = depth_radius(side, side)
    for x, y in points:
        assert 9 <= x < side - 9
        assert 9 <= y < side - 9
        patch = depth[y - radius : y + radius + 1, x - radius : x + radius + 1].astype(int)
        assert patch.min() > 0
        assert 2 * (patch.max() - patch.min()) < gap
    for i, (x, y) in enumerate(points):
        for other_x, other_y in points[:i]:
            assert np.hypot(x - other_x, y - other_y) >= distance * side / 336
            assert abs(depth_at(depth, (x, y)) - depth_at(depth, (other_x, other_y))) >= gap


@pytest.mark.parametrize("side", [112, 336])
def test_five_points_are_found_on_a_slope(side):
    rng = np.random.default_rng(0)
    assert all(sample_points(relative_depth=slope(side), count=5, rng=rng) is not None for _ in range(50))


def test_same_seed_gives_the_same_points():
    first, second = (sample_points(relative_depth=slope(112), count=4, rng=np.random.default_rng(3)) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("value", [0, 128])
def test_flat_map_has_no_two_points(value):
    depth = np.full((112, 112), value, np.uint8)
    assert sample_points(relative_depth=depth, count=2, rng=np.random.default_rng(0)) is None


def test_map_smaller_than_a_mark_has_no_point():
    assert sample_points(relative_depth=np.ones((4, 4), np.uint8), count=1, rng=np.random.default_rng(0)) is None


def test_wrong_arguments_raise():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="uint8"):
        sample_points(relative_depth=np.ones((8, 8), np.float32), count=1, rng=rng)
    with pytest.raises(ValueError, match="at least 1"):
        sample_points(relative_depth=np.ones((8, 8), np.uint8), count=0, rng=rng)
    with pytest.raises(ValueError, match="outside"):
        depth_at(np.ones((8, 8), np.uint8), (8, 0))
    with pytest.raises(ValueError, match="letters"):
        draw_points(np.zeros((8, 8, 3), np.uint8), [(1, 1)], [])


def test_depth_at_is_the_median_and_ignores_one_odd_pixel():
    depth = np.full((112, 112), 90, np.uint8)
    depth[50, 60] = 255
    assert depth_at(depth, (60, 50)) == 90
    assert depth_at(depth, (0, 0)) == 90


@pytest.mark.parametrize("side", [112, 336])
@pytest.mark.parametrize("place", ["middle", "top left", "bottom right"])
def test_a_mark_is_a_red_circle_and_a_white_letter_on_black(side, place):
    x, y = {"middle": (side // 2, side // 2), "top left": (4, 4), "bottom right": (side - 5, side - 5)}[place]
    image = np.full((side, side, 3), 120, np.uint8)
    drawn = draw_points(image, [(x, y)], ["A"])
    assert (image == 120).all()
    assert tuple(drawn[y, x + mark_radius(side, side)]) == (255, 0, 0)
    assert tuple(drawn[y, x]) == (120, 120, 120)
    assert (drawn == 0).all(-1).sum() > 40
    assert (drawn > 150).all(-1).sum() > 5
    changed_rows = np.flatnonzero((drawn != 120).any((1, 2)))
    assert (changed_rows.min() < y - mark_radius(side, side)) == (place != "top left")


def test_a_plate_leaves_the_circle_above_it_free():
    points = [(100, 100), (100, 79)]
    drawn = draw_points(np.full((336, 336, 3), 120, np.uint8), points, ["A", "B"])
    for x, y in points:
        assert tuple(drawn[y, x]) == (120, 120, 120)


def test_two_plates_do_not_cover_each_other():
    """The first plate has to go below, for a circle is in its way; there it would meet the second point's plate."""
    points = [(100, 100), (100, 82), (101, 136)]
    drawn = draw_points(np.full((336, 336, 3), 120, np.uint8), points, ["A", "B", "C"])
    black = (drawn == 0).all(-1)
    assert black[112:127, 99].all()
    assert (drawn[148:163, 100:109] != 120).all()


def circles_of(image: np.ndarray) -> list[tuple[int, int]]:
    """Centres of the red circles of radius 4, each found by its own forty pixels."""
    red = (image == (255, 0, 0)).all(-1)
    blank = np.zeros((9, 9, 3), np.uint8)
    pattern = (draw_points(np.zeros((336, 336, 3), np.uint8), [(50, 50)], ["A"])[46:55, 46:55] != blank).any(-1)
    windows = np.lib.stride_tricks.sliding_window_view(red, (9, 9))
    rows, columns = np.nonzero((windows == pattern).all((2, 3)))
    return [(int(x) + 4, int(y) + 4) for x, y in zip(columns, rows, strict=True)]


@pytest.mark.skipif(not HARDBLINK.is_dir(), reason="the sample of HardBLINK is not here")
@pytest.mark.parametrize("count", [3, 4, 5])
@pytest.mark.parametrize("number", range(8))
def test_marks_are_those_of_the_published_benchmark(count, number):
    with Image.open(HARDBLINK / "images" / f"blink{count}pointscenter" / f"{number}.png") as picture:
        published = np.asarray(picture.convert("RGB"))
    found = []
    for point in circles_of(published):
        # A mark drawn over itself changes nothing, so the right letter leaves the image as it is.
        found += [letter for letter in "ABCDE" if (draw_points(published, [point], [letter]) == published).all()]
    assert sorted(found) == list("ABCDE"[:count])


def test_points_to_be_read_are_different_pixels_of_known_depth():
    depth = np.zeros((6, 9), np.uint8)
    depth[1:3, 4:8] = 50
    rng = np.random.default_rng(0)
    for _ in range(20):
        points = any_points(depth, 5, rng)
        assert len(set(points)) == 5
        assert all(depth[y, x] for x, y in points)
    assert len(set(any_points(depth, 8, rng))) == 8
    assert any_points(depth, 9, rng) is None


@pytest.mark.parametrize("side", [80, 336])
def test_at_one_height_the_lowest_point_says_nothing(side):
    """Depth rises from left to right alone, and points differ in it, but hardly in height."""
    rng = np.random.default_rng(0)
    lowest = []
    for _ in range(60):
        points = sample_points(relative_depth=slope(side).T, count=3, rng=rng, one_height=True)
        heights = [y for _, y in points]
        assert max(heights) - min(heights) <= 0.1 * side + 2
        lowest.append(int(np.argmax(heights)) == int(np.argmax([x for x, _ in points])))
    assert 0.15 < np.mean(lowest) < 0.55
    assert sample_points(relative_depth=slope(side), count=3, rng=rng, one_height=True) is None


@pytest.mark.parametrize("count", [2, 3, 4])
def test_neither_the_mean_map_nor_the_lowest_point_gives_the_answer_away(count):
    """Depth rises towards the bottom, with bumps; the mean map has none."""
    rng = np.random.default_rng(count)
    mean = slope(112).astype(float)
    by_mean, by_height, asked = [], [], 0
    for _ in range(300):
        bumps = np.zeros((112, 112))
        for x, y in rng.integers(0, 112, size=(12, 2)):
            bumps[max(0, y - 12) : y + 12, max(0, x - 12) : x + 12] = rng.integers(-200, 200)
        depth = np.clip(mean + bumps, 1, 255).astype(np.uint8)
        points = sample_points(relative_depth=depth, count=count, rng=rng, mean_depth=mean)
        if points is None:
            continue
        asked += 1
        answer = max(points, key=lambda point: depth_at(depth, point))
        by_mean.append(max(points, key=lambda point: mean[point[1], point[0]]) == answer)
        by_height.append(max(points, key=lambda point: point[1]) == answer)
    assert asked > 280
    error = 4 * (1 / count * (1 - 1 / count) / asked) ** 0.5
    assert abs(np.mean(by_mean) - 1 / count) < error, "the mean map is worth as much as a guess"
    assert abs(np.mean(by_height) - 1 / count) < error, "and so is the lowest point"
