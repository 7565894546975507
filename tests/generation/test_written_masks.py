"""A model with depth, box and mask tokens, before any training, writes masks under the constraint."""

import pytest
from PIL import Image
from untrained import untrained_predictor

from llava_aurora.tokens.mask import coco_rle


@pytest.fixture(scope="module")
def predictor(workshop):
    return untrained_predictor(workshop, mask={"cells": 8})


@pytest.mark.parametrize("decoding", ["greedy", "verified"])
def test_masks_are_whole_and_in_the_pixels_of_their_images(predictor, decoding):
    images = [Image.new("RGB", size, (90, 120, 30)) for size in ((56, 56), (80, 40), (40, 90))]
    questions = ["Please segment the red cube in this image."] * 3
    options = {"answer_start": "It is <MASK_START>", "max_new_tokens": 16}
    results = predictor.write(images, questions, decoding=decoding, **options)
    for image, result in zip(images, results, strict=True):
        span, *_ = result.spans["mask"]
        assert len(span.codes) == 12
        assert all(near <= far for near, far in zip(span.codes[:2], span.codes[2:4], strict=True))
        mask = result.annotations("mask")[0]
        assert mask.shape == image.size[::-1]
        assert result.to_json()["masks"][0] == coco_rle(mask)
    assert [result.ids for result in predictor.write(images, questions, **options)] == [each.ids for each in results]
