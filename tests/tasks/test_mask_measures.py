"""Measures of masks, each against a second way to take it: pycocotools, or all matchings one by one."""

import contextlib
import io
from itertools import permutations

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from llava_aurora.evaluation.statistics import bootstrap_pooled, bootstrap_ratio
from llava_aurora.tasks.mask_measures import (
    Grounded,
    average_precision,
    best_constant,
    filled_box,
    grounded_measures,
    mask_iou,
    overlap,
    referring_measures,
    stretched,
)

rng = np.random.default_rng(0)


def blob(size=(12, 16)):
    mask = np.zeros(size, bool)
    x, y = rng.integers(0, 10), rng.integers(0, 8)
    mask[y : y + rng.integers(1, 6), x : x + rng.integers(1, 7)] = True
    return mask


def rle(mask):
    return coco_mask.encode(np.asfortranarray(mask, np.uint8))


def test_iou_is_that_of_pycocotools_and_empty_against_empty_is_right():
    for _ in range(50):
        one, other = blob(), blob()
        assert mask_iou(one, other) == pytest.approx(coco_mask.iou([rle(one)], [rle(other)], [0])[0, 0])
        x, y, width, height = map(int, coco_mask.toBbox(rle(one)))
        box = np.zeros_like(one)
        box[y : y + height, x : x + width] = True
        assert (filled_box(one) == box).all()
    nothing = np.zeros((12, 16), bool)
    assert (mask_iou(nothing, nothing), mask_iou(nothing, blob())) == (1, 0)
    assert not filled_box(nothing).any()
    with pytest.raises(ValueError, match="cannot be compared"):
        mask_iou(nothing, nothing.T)


def test_ciou_adds_pixels_and_giou_averages_answers():
    pairs = [(blob(), blob()) for _ in range(8)] + [(np.zeros((12, 16), bool),) * 2]
    measured = [referring_measures(*pair) for pair in pairs]
    of = {
        name: bootstrap_ratio([each[name] for each in measured]).value for name in ("ciou", "giou", "p50", "box_ciou")
    }
    all_written, all_true = (np.concatenate([pair[place] for pair in pairs]) for place in (0, 1))
    assert of["ciou"] == pytest.approx(coco_mask.iou([rle(all_written)], [rle(all_true)], [0])[0, 0])
    ious = [mask_iou(*pair) for pair in pairs]
    assert of["giou"] == pytest.approx(np.mean(ious))
    assert of["p50"] == pytest.approx(np.mean(np.array(ious) >= 0.5))
    boxes = [overlap(filled_box(one), other) for one, other in pairs]
    assert of["box_ciou"] == pytest.approx(sum(one for one, _ in boxes) / sum(union for _, union in boxes))
    assert [each.get("nothing") for each in measured] == [None] * 8 + [(1.0, 1)]


def test_masks_are_matched_as_well_as_any_matching_could():
    for _ in range(30):
        written = [Grounded(f"the thing {place}", blob()) for place in range(rng.integers(1, 4))]
        true = [Grounded(f"thing {place}", blob()) for place in range(rng.integers(1, 4))]
        measured = grounded_measures(written, true)
        longer, shorter = (written, true) if len(written) > len(true) else (true, written)
        matchings = [
            [mask_iou(one.mask, other.mask) for one, other in zip(chosen, shorter, strict=True)]
            for chosen in permutations(longer, len(shorter))
        ]
        best = [iou for iou in max(matchings, key=sum) if iou > 0]
        assert measured["miou"][0] == pytest.approx(np.mean(best) if best else 0)
        assert measured["mask_recall"] == (max(sum(iou >= 0.5 for iou in each) for each in matchings), len(true))
        assert measured["named_recall"][0] <= measured["mask_recall"][0]
    same = [Grounded("A red cube.", blob())]
    assert grounded_measures(same, [Grounded("the red cube", same[0].mask)])["named_recall"] == (1, 1)
    assert [grounded_measures(*pair)["miou"][0] for pair in (([], []), ([], same), (same, []))] == [1, 0, 0]


def test_ap50_is_that_of_cocoeval():
    answers, annotations, results = [], [], []
    for image in range(1, 30):
        true, written = ([Grounded("", blob()) for _ in range(rng.integers(1, 4))] for _ in range(2))
        written += [Grounded("", each.mask) for each in true if rng.random() < 0.6]
        answers.append(grounded_measures(written, true)["ap50"])
        about = {"image_id": image, "category_id": 1}
        for each in true:
            area = {"area": int(each.mask.sum()), "iscrowd": 0, "id": len(annotations) + 1}
            annotations.append({**about, **area, "segmentation": rle(each.mask), "bbox": [0, 0, 1, 1]})
        results += [{**about, "segmentation": rle(each.mask), "score": 1.0} for each in written]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "images": [{"id": i, "height": 12, "width": 16} for i in range(1, 30)],
            "annotations": annotations,
            "categories": [{"id": 1}],
        }
        coco.createIndex()
        judged = COCOeval(coco, coco.loadRes(results), "segm")
        judged.evaluate()
        judged.accumulate()
        judged.summarize()
    assert 0.2 < judged.stats[1] < 0.9
    assert average_precision(answers) == pytest.approx(judged.stats[1], abs=1e-6)
    interval = bootstrap_pooled(answers, average_precision, draws=50)
    assert interval.low < interval.value < interval.high
    assert np.isnan(average_precision([(0.0, 0.0)]))


def test_no_threshold_of_the_mean_mask_and_no_changed_pixel_is_a_better_constant():
    masks = [blob() for _ in range(20)]
    constant = best_constant(masks, side=24)
    small = [stretched(mask, (24, 24)) for mask in masks]
    levels = [np.mean(small, axis=0) >= level for level in np.linspace(0.01, 1, 100)]

    def ciou(mask):
        sums = np.sum([overlap(mask, each) for each in small], axis=0)
        return sums[0] / sums[1]

    assert ciou(constant) >= max(map(ciou, levels)) - 1e-9
    for place in rng.integers(0, 24, size=(200, 2)):
        changed = constant.copy()
        changed[tuple(place)] ^= True
        assert ciou(changed) <= ciou(constant)
    assert (stretched(stretched(masks[0], (24, 32)), (12, 16)) == masks[0]).all()
