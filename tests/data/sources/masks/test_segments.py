"""Outlines, run lengths and mask files as masks."""

import numpy as np
import pytest
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask

from llava_aurora.data.sources.masks.segments import read_mask_file, read_segment
from llava_aurora.errors import AuroraError

SIZE = (40, 30)
rng = np.random.default_rng(0)


def read(segment, size=SIZE):
    return read_segment(segment, size=size, where="a.json: annotation 3")


def test_run_lengths_of_both_kinds_give_the_mask_back():
    for _ in range(20):
        mask = rng.random(SIZE[::-1]) < rng.random()
        runs = coco_mask.encode(np.asfortranarray(mask, np.uint8))
        assert (read({"size": runs["size"], "counts": runs["counts"].decode()}) == mask).all()
        flat = mask.ravel(order="F")
        counts, start = ([0], 0) if flat[0] else ([], 0)
        for end in [*np.flatnonzero(np.diff(flat)) + 1, len(flat)]:
            counts.append(int(end - start))
            start = end
        assert (read({"size": [30, 40], "counts": counts}) == mask).all()


def test_an_outline_is_filled_as_pillow_fills_it_but_for_its_border():
    outline = [3, 4, 33, 8, 25, 27, 9, 20]
    drawn = Image.new("1", SIZE)
    ImageDraw.Draw(drawn).polygon(outline, fill=1)
    inner, mask = np.asarray(drawn), read([outline])
    assert np.count_nonzero(inner ^ mask) <= 2 * (30 + 40)
    assert (mask[12:18, 12:24]).all()
    assert (read(outline) == mask).all()  # one outline without a list around it, as lmms-lab's rows have it
    assert (read([outline, [0, 0, 2, 0, 2, 2, 0, 2]]) | mask == read([outline, [0, 0, 2, 0, 2, 2, 0, 2]])).all()


@pytest.mark.parametrize(
    ("segment", "said"),
    [
        ({"size": [40, 30], "counts": [1200]}, r"\[40, 30\], but its image is \[30, 40\]"),
        ({"size": [30, 40], "counts": [100, 3]}, "do not add up to the 1200 pixels"),
        ({"size": [30, 40], "counts": "oo"}, "run lengths"),
        ({"size": [30, 40], "counts": "\t\t"}, "damaged"),
        ({"size": [30, 40], "counts": None}, "a list or a text"),
        ({"size": [30, 40], "counts": [1200]}, "the mask is empty"),
        ([[3, 4, 45, 8, 25, 27]], "leaves its image of 40 × 30"),
        ([[3, 4, 5, 8]], "three points or more"),
        ([[3, 4, 5, 8, float("nan"), 1]], "three points or more"),
        ([[3, 4, 3, 4, 3, 4]], "the mask is empty"),
        ([], "neither outlines nor run lengths"),
        (None, "neither outlines nor run lengths"),
    ],
)
def test_what_is_no_mask_of_the_image_is_named(segment, said):
    with pytest.raises(AuroraError, match=f"^a.json: annotation 3.*{said}"):
        read(segment)


def test_a_mask_file_has_two_values_the_image_s_size_and_something_in_it(tmp_path):
    mask = rng.random(SIZE[::-1]) < 0.4
    for mode, scale in (("1", 1), ("L", 255), ("L", 1), ("RGBA", 255)):
        file = tmp_path / "mask.png"
        values = mask if mode == "1" else np.uint8(mask * scale)
        image = Image.fromarray(values if mode != "RGBA" else np.dstack([values * 0 + 9] * 3 + [values]))
        image.save(file)
        assert (read_mask_file(file, size=SIZE) == mask).all()
    soft = Image.fromarray(np.uint8(mask * 255)).resize((80, 60), Image.Resampling.BILINEAR)
    for image, said in (
        (soft, r"soft edges"),
        (Image.new("L", SIZE), "mask.png: the mask is empty"),
        (Image.new("L", (4, 4), 1), r"\(4, 4\) pixels for an image of \(40, 30\)"),
    ):
        image.save(tmp_path / "mask.png")
        with pytest.raises(AuroraError, match=said):
            read_mask_file(tmp_path / "mask.png", size=SIZE if image is not soft else None)
