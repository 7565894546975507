"""Intervals and paired tests, against enumeration and scipy's own."""

import itertools
import math

import numpy as np
import pytest
from scipy.stats import bootstrap

from llava_aurora.evaluation.statistics import bootstrap_mean, compare_paired


def test_resampled_means_are_those_of_every_possible_resample():
    values = [0.0, 1.0, 4.0]
    means = [np.mean(drawn) for drawn in itertools.product(values, repeat=3)]
    for level in (0.5, 0.8, 0.9):
        found = bootstrap_mean(values, level=level, draws=40_000)
        low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
        assert (found.low, found.high) == pytest.approx((low, high), abs=0.34)  # one step between possible means
    assert found.value == pytest.approx(5 / 3)
    assert found.count == 3


@pytest.mark.parametrize(("right", "count"), [(60, 100), (3, 12), (400, 500)])
def test_an_interval_of_accuracy_is_scipys(right, count):
    values = np.arange(count) < right
    found = bootstrap_mean(values)
    theirs = bootstrap((values.astype(float),), np.mean, method="percentile", n_resamples=10_000, rng=1)
    assert found.low == pytest.approx(theirs.confidence_interval.low, abs=1.01 / count)
    assert found.high == pytest.approx(theirs.confidence_interval.high, abs=1.01 / count)


def test_an_interval_of_measurements_is_scipys():
    values = np.random.default_rng(2).exponential(size=150)
    found = bootstrap_mean(values)
    theirs = bootstrap((values,), np.mean, method="percentile", n_resamples=10_000, rng=1).confidence_interval
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=0.01)


def test_sets_count_alike_whatever_their_size():
    many, few = [1.0] * 90 + [0.0] * 10, [0.0, 1.0]
    found = bootstrap_mean(many, few)
    assert found.value == pytest.approx((0.9 + 0.5) / 2)
    spread = math.sqrt((0.09 / 100 + 0.25 / 2) / 4)
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * spread, rel=0.35)
    assert found.count == 102


def test_the_same_seed_gives_the_same_interval():
    values = np.random.default_rng(0).normal(size=200)
    assert bootstrap_mean(values, seed=3) == bootstrap_mean(values, seed=3)
    assert bootstrap_mean(values, seed=3) != bootstrap_mean(values, seed=4)


def test_what_is_certain_has_no_width_and_what_is_absent_no_value():
    certain = bootstrap_mean([True] * 5)
    assert (certain.value, certain.low, certain.high) == (1, 1, 1)
    absent = bootstrap_mean([])
    assert math.isnan(absent.value)
    assert absent.to_json() == {"value": None, "low": None, "high": None, "count": 0}
    with pytest.raises(ValueError, match="not finite"):
        bootstrap_mean([1.0, math.nan])


def test_mcnemars_test_is_the_sum_over_all_ways_to_differ():
    first = [True] * 9 + [False] * 2 + [True] * 20
    second = [False] * 9 + [True] * 2 + [True] * 20
    found = compare_paired(first, second)
    ways = [sum(flips) for flips in itertools.product((0, 1), repeat=11)]
    expected = sum(way <= 2 or way >= 9 for way in ways) / len(ways)
    assert found.p_value == pytest.approx(expected)
    assert (found.only_first, found.only_second) == (9, 2)
    assert found.difference.value == pytest.approx(-7 / 31)
    assert found.difference.low < found.difference.value < found.difference.high < 0


def test_models_that_do_not_differ_are_told_apart_by_nothing():
    same = compare_paired([True, False], [True, False])
    assert same.p_value == 1
    assert same.difference.low == same.difference.high == 0
    with pytest.raises(ValueError, match="2 and 1 answers"):
        compare_paired([True, False], [True])


def test_what_was_measured_on_one_image_is_drawn_together():
    values, images = [1.0, 1.0, 0.0, 0.0] * 25, [number // 2 for number in range(100)]
    each = bootstrap_mean(values)
    together = bootstrap_mean(values, units=[images])
    assert together.value == each.value == 0.5
    assert together.high - together.low == pytest.approx(2**0.5 * (each.high - each.low), rel=0.1)
    apart = bootstrap_mean(values, units=[range(100)])
    assert apart == each, "images with one value each are resampled as values are"
    means = [np.mean(values[2 * image : 2 * image + 2]) for image in range(50)]
    assert (together.low, together.high) == pytest.approx(
        (bootstrap_mean(means).low, bootstrap_mean(means).high), abs=0.021
    )


def test_images_are_drawn_for_all_categories_at_once():
    left, right = [1.0] * 20 + [0.0] * 20, [0.0] * 20 + [1.0] * 20
    found = bootstrap_mean(left, right, units=[range(40), range(40)])
    assert found.value == 0.5
    assert found.high - found.low < 0.01, "what one category gains by a draw the other loses"
