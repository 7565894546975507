"""Matching boxes, against trying every way to pair them."""

import itertools

import numpy as np
import pytest

from llava_aurora.evaluation.box_quality import BoxMatch, intersection_over_union, match_boxes
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
    assert match_boxes(written, true, iou=0.2).matched == best_by_trying(written, true, 0.2)


def test_taking_the_best_overlap_first_would_match_less():
    true = [[0, 0, 10, 10], [0, 4, 10, 14]]
    written = [[0, 1, 10, 11], [0, -3, 10, 7]]  # the first overlaps both, the second only the first
    assert match_boxes(written, true).matched == 2


def test_overlap_is_that_of_the_modality():
    rng = np.random.default_rng(0)
    one, other = boxes(rng, 6), boxes(rng, 6)
    found = intersection_over_union(np.array(one, float), np.array(other, float))
    expected = [[BoxKind(frame=336).compare(a, b) for b in other] for a in one]
    assert found == pytest.approx(np.array(expected))


def test_a_box_is_matched_once():
    found = match_boxes([[0, 0, 10, 10]] * 3, [[0, 0, 10, 10]])
    assert (found.matched, found.precision, found.recall, found.f1) == (1, 1 / 3, 1, 0.5)


def test_nothing_written_where_nothing_is_there_is_right():
    assert match_boxes([], []).f1 == 1
    missed = match_boxes([], [[0, 0, 1, 1]])
    assert (missed.precision, missed.recall, missed.f1) == (1, 0, 0)


def test_questions_together_count_boxes():
    found = BoxMatch.together([BoxMatch(1, 2, 1), BoxMatch(0, 0, 3)])
    assert (found.precision, found.recall, found.f1) == (1 / 2, 1 / 4, 1 / 3)
