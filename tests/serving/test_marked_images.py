"""Points are kept in the image's own pixels, whatever copy of it is shown; files that are no images are refused."""

import os
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from llava_aurora.errors import AuroraError
from llava_aurora.serving.marks import COORDINATES, MarkedImage, Marker, read_upload, shown_size, suggested_question
from llava_aurora.tasks.marks import draw_points


@pytest.fixture
def marker(tmp_path):
    """As for a model that sees an image padded to a square."""
    folder = tmp_path / "shown"
    folder.mkdir()
    return Marker(folder=folder, side=max)


def marked(tmp_path, size, *points, **values):
    path = tmp_path / "image.png"
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return MarkedImage(path=str(path), size=size, points=points, **values)


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image)


def test_a_click_on_the_reduced_copy_is_a_point_of_the_image(marker, tmp_path):
    large = marked(tmp_path, (1536, 400))
    assert pixels(marker.shown(large).shown).shape == (200, 768, 3)
    assert shown_size((1536, 400)) == (768, 200)
    for place in [(0, 0), (384, 100), (767, 199)]:
        large = large.with_point(place)
    assert large.points == ((1, 1), (769, 201), (1535, 399))
    assert large.letters == "ABC"


def test_a_small_image_is_enlarged_so_that_its_pixels_can_be_clicked(marker, tmp_path):
    small = marked(tmp_path, (60, 40))
    assert pixels(marker.shown(small).shown).shape == (320, 480, 3)
    for place in [(0, 0), (479, 319), (100, 270)]:
        small = small.with_point(place)
    assert small.points == ((0, 0), (59, 39), (12, 33))


def test_the_model_sees_the_marks_that_training_images_have(marker, tmp_path):
    image = marked(tmp_path, (400, 300), (50, 60), (300, 200))
    expected = draw_points(pixels(image.path), [(50, 60), (300, 200)], ["A", "B"], side=400)
    np.testing.assert_array_equal(np.asarray(marker.seen(image)), expected)
    np.testing.assert_array_equal(np.asarray(marker.seen(replace(image, points=()))), pixels(image.path))


def test_points_that_the_question_gives_are_shown_to_the_visitor_alone(marker, tmp_path):
    image = marker.shown(marked(tmp_path, (80, 80), (20, 50), given=COORDINATES))
    np.testing.assert_array_equal(np.asarray(marker.seen(image)), pixels(image.path))
    red = pixels(image.shown)[40:60, 10:30].astype(int)
    assert (red[..., 0] - red[..., 1]).max() > 100


def test_an_image_is_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[274] = 6  # turned by a quarter
    Image.new("RGB", (90, 40)).save(tmp_path / "turned.jpg", exif=exif)
    assert read_upload(str(tmp_path / "turned.jpg")).size == (40, 90)


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n" + b"\0" * 64, b"<svg xmlns='x'/>", None])
def test_a_file_that_is_no_image_is_refused_by_its_name_alone(tmp_path, content):
    path = marked(tmp_path, (200, 200)).path
    if content is None:
        os.truncate(path, os.path.getsize(path) // 2)
    else:
        (tmp_path / "image.png").write_bytes(content)
    with pytest.raises(AuroraError, match=r"^image.png: ") as raised:
        read_upload(path)
    assert str(tmp_path) not in str(raised.value)


@pytest.mark.parametrize("size", [(10000, 10000), (8000, 4000)])  # beyond Pillow's limit, and beyond ours
def test_an_image_of_too_many_pixels_is_refused_before_it_is_decoded(tmp_path, size, monkeypatch):
    path = tmp_path / "large.png"
    Image.new("1", size).save(path)
    assert path.stat().st_size < 100_000
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda image: pytest.fail("decoded"))
    with pytest.raises(AuroraError, match=r"^large.png: .*pixels"):
        read_upload(str(path))


def test_there_are_as_many_points_as_letters(tmp_path):
    with pytest.raises(AuroraError, match="26 points"):
        marked(tmp_path, (80, 80), *[(5, 5)] * 26).with_point((1, 1))


def test_the_question_names_the_points_if_there_is_a_choice():
    assert suggested_question("") == suggested_question("A") == suggested_question("A", ["(1,2)"]) == ""
    assert suggested_question("ABC") == "Which of the marked points A, B or C is closest to the camera?"
    assert suggested_question("AB", ["(1,2)", "(30,4)"]) == (
        "Which of the points A (1,2), B (30,4) is closest to the camera?"
    )
