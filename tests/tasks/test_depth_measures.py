"""Depth errors, against other ways to compute them."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from llava_aurora.tasks.depth_measures import align, map_quality, spearman


def maps(seed=0, side=24):
    rng = np.random.default_rng(seed)
    true = rng.integers(1, 256, (side, side), dtype=np.uint8)
    written = np.clip(true * 0.5 + 40 + rng.normal(0, 12, true.shape), 0, 255).astype(np.uint8)
    return written, true


def test_a_map_is_best_against_itself():
    _, true = maps()
    found = map_quality(true, true)
    assert (found.mse, found.delta) == (0, 1)
    assert found.aligned_mse == pytest.approx(0, abs=1e-12)
    assert found.abs_rel == pytest.approx(0, abs=1e-9)
    assert found.spearman == pytest.approx(1)


def test_scale_and_shift_cost_nothing_but_order_does():
    _, true = maps()
    half = (true // 2 + 60).astype(np.uint8)
    assert map_quality(half, true).mse > 0.01
    assert map_quality(half, true).aligned_mse < 1e-4
    assert map_quality(half, true).delta > 0.95
    upside_down = map_quality(255 - true, true)
    assert upside_down.spearman == pytest.approx(-1)
    assert upside_down.aligned_mse < 1e-9  # by a negative scale: which is why order is measured, too


def test_alignment_is_the_least_squares_fit():
    written, true = (each.ravel() / 255 for each in maps())
    design = np.stack([written, np.ones_like(written)], axis=1)
    solution, *_ = np.linalg.lstsq(design, true, rcond=None)
    assert align(written, true) == pytest.approx(design @ solution)


def test_every_measure_by_its_definition():
    written, true = maps()
    x, y = written.ravel() / 255, true.ravel() / 255
    scale, shift = np.polyfit(x, y, 1)
    found = map_quality(written, true)
    errors = [max(scale * a + shift, 1 / 255) for a in x]
    pairs = list(zip(errors, y, strict=True))
    assert found.mse == pytest.approx(sum((a - b) ** 2 for a, b in zip(x, y, strict=True)) / len(x))
    assert found.abs_rel == pytest.approx(sum(abs(p - t) / t for p, t in pairs) / len(pairs))
    assert found.delta == pytest.approx(sum(max(p / t, t / p) < 1.25 for p, t in pairs) / len(pairs))
    assert found.spearman == pytest.approx(spearmanr(x, y).statistic)


def test_ties_share_their_rank():
    one, other = np.array([1, 1, 2, 3, 3, 3]), np.array([2, 1, 1, 5, 4, 4])
    assert spearman(one, other) == pytest.approx(spearmanr(one, other).statistic)


def test_a_constant_map_orders_nothing():
    _, true = maps()
    found = map_quality(np.full_like(true, 7), true)
    assert found.spearman == 0
    assert found.aligned_mse == pytest.approx(np.var(true / 255))


def test_unknown_depth_does_not_count():
    written, true = maps()
    holes = true.copy()
    holes[:12] = 0
    assert map_quality(written, holes) == map_quality(written[12:], true[12:])
    with pytest.raises(ValueError, match="nothing of the true map"):
        map_quality(written, np.zeros_like(true))


def test_maps_may_differ_in_size():
    written, true = maps()
    larger = np.repeat(np.repeat(true, 3, axis=0), 3, axis=1)
    assert map_quality(written, larger) == map_quality(written, true)
