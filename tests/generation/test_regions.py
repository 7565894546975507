"""Regions of questions: points, boxes, outlines and masks, as tokens."""

from functools import partial

import numpy as np
import pytest
from PIL import Image

from llava_aurora.data.images.frame import FrameTransform
from llava_aurora.errors import AuroraError
from llava_aurora.generation.regions import region_of, region_text, with_region
from llava_aurora.tasks.mask_measures import mask_iou
from llava_aurora.tokens.box import BoxKind
from llava_aurora.tokens.mask import MaskKind

SIZE = (80, 60)
KINDS = {"box": BoxKind(frame=40), "mask": MaskKind()}
TRANSFORMS = {
    ratio: partial(lambda ratio, frame: FrameTransform.of(width=80, height=60, frame=frame, aspect_ratio=ratio), ratio)
    for ratio in ("pad", "square", "resize")
}
BOX = np.zeros(SIZE[::-1], bool)
BOX[12:36, 20:60] = True


def text(region, ratio="pad", kinds=KINDS):
    return region_text(kinds, TRANSFORMS[ratio], region, size=SIZE)


def test_points_and_boxes_are_in_the_frame():
    assert text((20, 12), "resize") == KINDS["box"].family.text([10, 8])
    assert text((20, 12, 60, 36), "resize") == KINDS["box"].family.text([10, 8, 30, 24])
    assert text((20, 12, 60, 36)) == KINDS["box"].family.text([10, 11, 30, 23])  # 10 rows of padding above, halved
    asked = with_region(KINDS, TRANSFORMS["resize"], "What is at {region}?", (20, 12), size=SIZE)
    assert asked == f"What is at {KINDS['box'].family.text([10, 8])}?"


@pytest.mark.parametrize("ratio", TRANSFORMS)
def test_a_mask_is_what_the_model_sees_of_it(ratio, tmp_path):
    Image.fromarray(BOX).save(tmp_path / "mask.png")
    for region in (BOX, tmp_path / "mask.png", str(tmp_path / "mask.png")):
        (seen,) = KINDS["mask"].read(text(region, ratio))
        assert mask_iou(TRANSFORMS[ratio](len(seen)).image(seen, SIZE), BOX) > 0.95


def test_clicks_are_a_point_a_box_or_an_outline():
    assert region_of([(3, 4)], SIZE) == (3, 4)
    assert region_of([(60, 12), (20, 36)], SIZE) == (20, 12, 61, 37)
    outline = region_of([(20, 12), (59, 12), (59, 35), (20, 35)], SIZE)
    assert mask_iou(outline, BOX) == 1


@pytest.mark.parametrize(
    ("region", "said"),
    [
        ((90, 5), "outside the image, 80 × 60"),
        ((5, 5, 5, 9), "has no area"),
        ((9, 5, 5, 9), "has no area"),
        ((1, 2, 3), "not 3 numbers"),
        ((0, 0, 5, 9), "is not where the model looks"),
        (np.zeros(SIZE[::-1], bool), "is empty, or none of it is where the model looks"),
        (BOX.T, r"a region of \(60, 80\) pixels for an image of \(80, 60\)"),
    ],
)
def test_what_is_no_region_of_the_image_is_refused(region, said):
    with pytest.raises(AuroraError, match=said):
        text(region, "square")


def test_tokens_and_a_place_are_needed():
    with pytest.raises(AuroraError, match=r"put \{region\} into it"):
        with_region(KINDS, TRANSFORMS["pad"], "What is it?", (1, 2), size=SIZE)
    with pytest.raises(AuroraError, match="no mask tokens"):
        text(BOX, kinds={"box": KINDS["box"]})
    with pytest.raises(AuroraError, match="no box tokens"):
        text((1, 2), kinds={})
