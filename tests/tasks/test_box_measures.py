"""Matching boxes, against trying every way to pair them."""

import itertools

import numpy as np
import pytest

from llava_aurora.tasks.box_measures import intersection_over_union, matched_boxes
from llava_aurora.tokens.box import BoxKind


def boxes(rng, count):
    corner = rng.integers(0, 30, (count, 2))
    return np.concatenate([corner, corner + rng.integers(8, 30, (count, 2))], axis=1).tolist()


def best_by_trying(written, true, iou):
    overlap = intersection_over_union(np.array(written, float), np.array(true, float)) >= iou
    if len(written) > len(true):
        overlap = overlap.T
    few, many = overlap.shape
    return max(sum(overlap[i, j] for i, j in enumerate(order)) for order in itertools.permutations(range(many), few))


@pytest.mark.parametrize("seed", range(12))
def test_no_other_pairing_matches_more(seed):
    rng = np.random.default_rng(seed)
    written, true = boxes(rng, int(rng.integers(1, 6))), boxes(rng, int(rng.integers(1, 6)))
    assert matched_boxes(written, true, iou=0.2) == best_by_trying(written, true, 0.2)


def test_taking_the_best_overlap_first_would_match_less():
    true = [[0, 0, 10, 10], [0, 4, 10, 14]]
    written = [[0, 1, 10, 11], [0, -3, 10, 7]]  # the first overlaps both, the second only the first
    assert matched_boxes(written, true) == 2


def test_overlap_is_that_of_the_modality():
    rng = np.random.default_rng(0)
    one, other = boxes(rng, 6), boxes(rng, 6)
    found = intersection_over_union(np.array(one, float), np.array(other, float))
    expected = [[BoxKind(frame=336).compare(a, b) for b in other] for a in one]
    assert found == pytest.approx(np.array(expected))


def test_a_box_is_matched_once():
    assert matched_boxes([[0, 0, 10, 10]] * 3, [[0, 0, 10, 10]]) == 1
    assert matched_boxes([], [[0, 0, 1, 1]]) == matched_boxes([[0, 0, 1, 1]], []) == 0
