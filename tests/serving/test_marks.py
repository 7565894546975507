"""Points are kept in the image's own pixels, whatever copy of it is shown, and images that are none are refused."""

import os

import numpy as np
import pytest
from PIL import Image

from llava_aurora.errors import AuroraError
from llava_aurora.serving.marks import COORDINATES, Marker, shown_size, suggested_question, was_suggested
from llava_aurora.tasks.marks import draw_points


@pytest.fixture
def marker(tmp_path):
    """As for a model that sees an image padded to a square."""
    folder = tmp_path / "shown"
    folder.mkdir()
    return Marker(folder=folder, side=max)


def saved(tmp_path, size, name="image.png", **options):
    path = tmp_path / name
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, **options)
    return str(path)


def test_a_click_on_the_small_copy_is_a_point_of_the_image(marker, tmp_path):
    marked = marker.choose(saved(tmp_path, (1536, 400)))
    with Image.open(marked.shown) as copy:
        assert copy.size == shown_size((1536, 400)) == (768, 200)
    marked = marker.add_point(marked, (0, 0))
    marked = marker.add_point(marked, (384, 100))
    marked = marker.add_point(marked, (767, 199))
    assert marked.points == ((1, 1), (769, 201), (1535, 399))
    assert marked.letters == "ABC"


def test_a_small_image_is_shown_as_it_is(marker, tmp_path):
    marked = marker.choose(saved(tmp_path, (60, 40)))
    for place in [(0, 0), (59, 39), (12, 33)]:
        marked = marker.add_point(marked, place)
    assert marked.points == ((0, 0), (59, 39), (12, 33))


def test_the_model_sees_the_marks_that_training_images_have(marker, tmp_path):
    path = saved(tmp_path, (400, 300))
    marked = marker.with_points(marker.choose(path), ((50, 60), (300, 200)))
    with Image.open(path) as image:
        expected = draw_points(np.asarray(image), [(50, 60), (300, 200)], ["A", "B"], side=400)
    np.testing.assert_array_equal(np.asarray(marker.drawn(marked)), expected)


def test_points_that_the_question_gives_are_shown_to_the_visitor_alone(marker, tmp_path):
    path = saved(tmp_path, (80, 80))
    marked = marker.add_point(marker.choose(path, given=COORDINATES), (20, 50))
    with Image.open(path) as image:
        unmarked = np.asarray(image)
    np.testing.assert_array_equal(np.asarray(marker.drawn(marked)), unmarked)
    with Image.open(marked.shown) as copy:
        red = np.asarray(copy)[40:60, 10:30].astype(int)
    assert (red[..., 0] - red[..., 1]).max() > 100


def test_taking_points_away_takes_their_marks_away(marker, tmp_path):
    path = saved(tmp_path, (80, 80))
    marked = marker.add_point(marker.choose(path), (20, 50))
    with Image.open(path) as image:
        unmarked = np.asarray(image)
    assert (np.asarray(marker.drawn(marked)) != unmarked).any()
    np.testing.assert_array_equal(np.asarray(marker.drawn(marker.with_points(marked, ()))), unmarked)


def test_an_image_lies_as_its_camera_says(marker, tmp_path):
    exif = Image.Exif()
    exif[274] = 6  # turned by a quarter
    marked = marker.choose(saved(tmp_path, (90, 40), "turned.jpg", exif=exif))
    assert marked.size == (40, 90)
    with Image.open(marked.shown) as copy:
        assert copy.size == (40, 90)


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n" + b"\0" * 64, b"<svg xmlns='x'/>"])
def test_what_is_no_image_is_refused_by_its_name_alone(marker, tmp_path, content):
    path = tmp_path / "upload.png"
    path.write_bytes(content)
    with pytest.raises(AuroraError, match=r"^upload.png: cannot read the image") as raised:
        marker.choose(str(path))
    assert str(tmp_path) not in str(raised.value)


def test_a_cut_off_image_is_refused(marker, tmp_path):
    path = saved(tmp_path, (200, 200))
    os.truncate(path, os.path.getsize(path) // 2)
    with pytest.raises(AuroraError, match=r"^image.png: cannot read"):
        marker.choose(path)


def test_a_decompression_bomb_is_refused_before_it_is_decoded(marker, tmp_path):
    path = tmp_path / "bomb.png"
    Image.new("1", (10000, 10000)).save(path)
    assert path.stat().st_size < 100_000
    with pytest.raises(AuroraError, match=r"^bomb.png: cannot read the image: .*pixels"):
        marker.choose(str(path))


def test_there_are_as_many_points_as_letters(marker, tmp_path):
    marked = marker.with_points(marker.choose(saved(tmp_path, (80, 80))), ((5, 5),) * 26)
    with pytest.raises(AuroraError, match="26 points"):
        marker.add_point(marked, (1, 1))


def test_the_question_names_the_points():
    assert suggested_question("") == ""
    assert suggested_question("ABC") == "Which of the marked points A, B or C is closest to the camera?"
    assert suggested_question("AB", ["(1,2)", "(30,4)"]) == (
        "Which of the points A (1,2), B (30,4) is closest to the camera?"
    )


def test_a_question_of_ones_own_is_not_taken_for_a_suggested_one():
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    for count in range(27):
        assert was_suggested(suggested_question(letters[:count]))
        assert was_suggested(suggested_question(letters[:count], [f"(<PIXEL_{n}>,<PIXEL_0>)" for n in range(count)]))
    for question in (
        "How many red cubes are in the image?",
        "Which of the marked points A or B is closest to the cube?",
        "Which of the points A (1,2), B (30,4) is closest to the camera? Think step by step.",
        "Which of the points on the cube is closest to the camera?",
    ):
        assert not was_suggested(question)
