"""Masks as an edge box and bits, on masks of scenes and on hand-written ones."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from llava_aurora.data.images.frame import FrameTransform
from llava_aurora.data.sources.scenes.scene import SceneConfig, render_scene, scene_seed
from llava_aurora.errors import AuroraError
from llava_aurora.model.losses.reconstruction import pictures
from llava_aurora.tasks.mask_measures import mask_iou
from llava_aurora.tokens.mask import MaskKind, coco_rle, decode_mask, encode_mask

KIND = MaskKind()


@pytest.fixture(scope="module")
def masks():
    """Of the objects of twelve scenes."""
    scenes = [render_scene(seed=scene_seed(0, index), config=SceneConfig(frame=112)) for index in range(12)]
    return [scene.instances == number + 1 for scene in scenes for number in range(len(scene.objects))]


@pytest.mark.parametrize(("cells", "least"), [(8, 0.90), (16, 0.93)])
def test_a_span_keeps_this_much_of_a_scene_mask(masks, cells, least):
    pairs = [(mask, decode_mask(encode_mask(mask, cells), mask.shape[::-1])) for mask in masks]
    common, union = (sum(np.count_nonzero(part(*pair)) for pair in pairs) for part in (np.logical_and, np.logical_or))
    assert least < common / union < 1


def rectangle(x1, y1, x2, y2, side=256):
    mask = np.zeros((side, side), bool)
    mask[y1:y2, x1:x2] = True
    return mask


def test_codes_are_edges_then_a_row_of_bits_each():
    mask = rectangle(64, 32, 128, 96)
    mask[32:40, 96:] = False
    assert KIND.encode(mask) == [64, 32, 127, 95, 0b11110000, *[255] * 7]
    assert (KIND.decode(KIND.encode(mask)) == mask).all()
    wide = MaskKind(cells=16)
    assert len(wide.encode(mask)) == 36
    assert (wide.decode(wide.encode(mask)) == mask).all()


@given(st.tuples(*[st.integers(0, 15)] * 4), st.binary(min_size=8, max_size=8))
def test_a_pattern_of_cells_comes_back_exactly(place, pattern):
    x, y, wide, high = place
    wide, high = min(wide, 31 - x) + 1, min(high, 31 - y) + 1
    rows = [255, *(row | 129 for row in pattern[1:7]), 255]  # every edge of the box is touched
    codes = [8 * x, 8 * y, 8 * (x + wide) - 1, 8 * (y + high) - 1, *rows]
    assert KIND.encode(KIND.decode(codes)) == codes
    assert all(code in KIND.allowed_codes(codes[:place]) for place, code in enumerate(codes))


def test_what_lies_left_of_its_left_edge_is_empty_and_not_allowed():
    codes = [10, 10, 9, 20, *[255] * 8]
    assert not KIND.decode(codes).any()
    assert KIND.allowed_codes(codes[:2]) == range(10, 256)
    assert KIND.compare(codes, KIND.encode(rectangle(0, 0, 8, 8))) == 0


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.zeros((4, 4), bool), "empty"),
        (np.array([[0, 128], [255, 0]], np.uint8), r"3 values \(soft edges\)"),
        (np.ones((4, 4, 3), bool), "not of shape"),
    ],
)
def test_what_is_no_mask_is_refused(mask, message):
    with pytest.raises(AuroraError, match=message):
        KIND.encode(mask)
    with pytest.raises(AuroraError, match="8 or 16 cells a side, not 9"):
        MaskKind(cells=9)


@pytest.mark.parametrize("ratio", ["pad", "square", "resize"])
def test_masks_of_wide_images_return_to_their_pixels(ratio):
    mask = np.zeros((100, 200), bool)
    mask[20:80, 70:130] = True
    into = FrameTransform.of(width=200, height=100, frame=512, aspect_ratio=ratio)
    back = FrameTransform.of(width=200, height=100, frame=256, aspect_ratio=ratio)
    found = back.image(KIND.decode(KIND.encode(into.view(mask))), (200, 100))
    assert found.shape == mask.shape
    assert mask_iou(found, mask) > 0.95


def test_rle_is_that_of_coco(masks):
    coco = pytest.importorskip("pycocotools.mask")
    for mask in (*masks[:9], rectangle(0, 0, 256, 256), rectangle(0, 0, 0, 0), rectangle(0, 3, 256, 9)):
        ours, theirs = coco_rle(mask), coco.encode(np.asfortranarray(mask, dtype=np.uint8))
        assert ours == {"size": theirs["size"], "counts": theirs["counts"].decode()}


@pytest.mark.parametrize("cells", [8, 16])
def test_its_picture_is_the_mask_and_its_error_has_a_gradient(masks, cells):
    kind = MaskKind(cells=cells)
    codes = torch.tensor([kind.encode(mask) for mask in masks[:8]])
    logits = torch.nn.functional.one_hot(codes, 256) * 50.0
    written, true = pictures(kind, logits, codes)
    assert kind.picture_error(written, true).abs().max() < 1e-5
    for picture, row in zip(true, codes.tolist(), strict=True):
        assert mask_iou(picture[0].numpy() > 0.5, decode_mask(row, (64, 64))) > 0.8
    off = codes.roll(1, dims=0)
    unsure = (torch.nn.functional.one_hot(off, 256) * 3.0).requires_grad_()
    errors = kind.picture_error(*pictures(kind, unsure, codes))
    errors.sum().backward()
    assert (errors > 0.1).all()
    assert unsure.grad.isfinite().all()
    assert (unsure.grad.abs().sum(dim=2) > 0)[:, 4:].any(dim=1).all()


def test_the_gradient_moves_an_edge_toward_the_true_one():
    true = torch.tensor([KIND.encode(rectangle(64, 64, 192, 192))])
    written = true.clone()
    written[0, 2] = 150
    logits = (torch.nn.functional.one_hot(written, 256) * 8.0).requires_grad_()
    KIND.picture_error(*pictures(KIND, logits, true)).sum().backward()
    assert logits.grad[0, 2, 191] < 0 < logits.grad[0, 2, 80]


def test_masks_are_drawn_in_colours_of_their_own_and_while_they_are_written():
    image = Image.new("RGB", (128, 64))
    drawn = np.asarray(KIND.draw([rectangle(0, 0, 128, 256), rectangle(128, 0, 256, 256)], image))
    assert drawn.any(axis=2).all()
    assert (drawn[0, 10] != drawn[0, 100]).any()
    assert KIND.draw_written([0, 0, 127]) is None
    started = np.asarray(KIND.draw_written([0, 0, 127, 255, 0])).any(axis=2)
    assert not started[:32].any()
    assert started[32:, :128].all()
