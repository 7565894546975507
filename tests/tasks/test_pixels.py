"""Records about pixels, and the colours that a frame shows."""

import numpy as np
import pytest
from PIL import Image

from llava_aurora.data.images.frame import FrameTransform
from llava_aurora.data.images.seen_colors import seen_colors
from llava_aurora.errors import AuroraError
from llava_aurora.tasks.annotated import AnnotatedImage, Drawing
from llava_aurora.tasks.pixels import facts_of_cell, known_facts, stated_color
from llava_aurora.tasks.prompts import Prompts
from llava_aurora.tasks.records import RecordWriter, write_records
from llava_aurora.tokens.vocabulary import color_family, pixel_family


def noise(width, height, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("aspect_ratio", ["pad", "square", "resize"])
@pytest.mark.parametrize("size", [(96, 64), (64, 96), (80, 80)])
def test_a_cell_has_the_mean_colour_of_the_pixels_that_the_frame_shows_there(aspect_ratio, size):
    image, side = noise(*size), 8
    into = FrameTransform.of(width=size[0], height=size[1], frame=side, aspect_ratio=aspect_ratio)
    sums, counts = np.zeros((side, side, 3)), np.zeros((side, side, 1))
    pixels = np.asarray(image, float)
    for y in range(size[1]):
        for x in range(size[0]):
            column, row = (
                int(np.floor((place + 0.5) * into.scale[axis] + into.shift[axis])) for axis, place in enumerate((x, y))
            )
            if 0 <= column < side and 0 <= row < side:
                sums[row, column] += pixels[y, x]
                counts[row, column] += 1
    seen = seen_colors(image, aspect_ratio=aspect_ratio, side=side)
    inside = counts[..., 0] >= counts.max() * 0.6  # cells that the image fills, not those that it only reaches into
    assert (seen[inside] >= 0).all()
    assert (seen[counts[..., 0] == 0] == -1).all()
    assert np.abs(seen[inside] - (sums / counts.clip(1))[inside]).mean() < 12  # single pixels differ by 85


def image_of(colors):
    return AnnotatedImage(name="7", size=(64, 64), seen_colors=lambda: colors)


def records(colors, families, task):
    writer = RecordWriter(prompts=Prompts(), families=families)
    return list(
        write_records(image_of(colors), image="7.png", shares={task: 1}, drawing=Drawing(frame=112), writer=writer)
    )


def test_a_record_asks_for_the_middle_of_a_cell_in_tokens():
    colors = seen_colors(noise(64, 64), aspect_ratio="resize", side=4)
    (record,) = records(colors, (color_family(), pixel_family(frame=112)), "pixel_value")
    (column, row), color = record["aurora"]["cell"], record["aurora"]["color"]
    x, y = int((column + 0.5) * 28), int((row + 0.5) * 28)
    question, answer = (turn["value"] for turn in record["conversations"])
    assert question == f"<image>\nWhat colour is the pixel {pixel_family(frame=112).text((x, y))}?"
    assert answer == color_family().text(color)
    assert color == colors[row, column].tolist()
    assert known_facts(record) == facts_of_cell(colors, (column, row), frame=112)


def test_the_plain_wording_is_the_papers():
    colors = np.full((4, 4, 3), -1, np.int16)
    colors[2, 1] = (3, 20, 255)  # the only cell that shows the image
    (record,) = records(colors, (), "pixel_value_plain")
    assert [turn["value"] for turn in record["conversations"]] == [
        "<image>\n[reconstruct] loc: [1,2] rgb:",
        "[3,20,255]",
    ]


def test_an_image_whose_pixels_are_not_known_is_not_asked():
    assert records(np.full((4, 4, 3), -1, np.int16), (), "pixel_value_plain") == []
    image = AnnotatedImage(name="7", size=(64, 64))
    writer = RecordWriter(prompts=Prompts())
    shares = {"pixel_value_plain": 1}
    assert not list(write_records(image, image="7.png", shares=shares, drawing=Drawing(), writer=writer))


@pytest.mark.parametrize(
    ("text", "color"),
    [("[1,2,3]", (1, 2, 3)), ("It is [ 10, 0 ,255 ].", (10, 0, 255)), ("[1,2]", None), ("[1,2,256]", None), ("", None)],
)
def test_stated_colours(text, color):
    assert stated_color(text) == color


def test_a_record_without_its_facts_is_named():
    with pytest.raises(AuroraError, match="cell, side, colour or frame is missing"):
        known_facts({"aurora": {"cell": [1, 2]}})
