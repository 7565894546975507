"""Means over seeds and differences of contestants, against counting by hand; what is expected, and what is found."""

import numpy as np
import pytest

from llava_aurora.study.expectations import check
from llava_aurora.study.scores import answers, difference, replaced, score
from llava_aurora.study.sizes import COUNTING


def result(seed, chain, *, own=None, random=None, direct=None, task="scenes_depth"):
    asked = {"chain": {"right": chain}}
    if direct is not None:
        asked["direct"] = {"right": direct}
    conditions = {"own": {"right": own}, "random": {"right": random}} if own else {}
    replacement = {task: {"conditions": conditions}} if own else {}
    return {"seed": seed, "benchmarks": {task: asked}, "replacement": replacement}


def test_a_mean_counts_seeds_and_categories_alike():
    runs = [result(0, {"3 points": "1100", "4 points": "10"}), result(1, {"3 points": "1111", "4 points": "00"})]
    found = score(runs, answers("scenes_depth", "chain"))
    assert found.by_seed == {0: 0.5, 1: 0.5}
    assert found.interval.value == pytest.approx((0.75 + 0.25) / 2)
    assert found.interval.count == 6
    assert found.interval.low < found.interval.value < found.interval.high
    only = score(runs, answers("scenes_depth", "chain"), categories=["3 points"])
    assert only.interval.value == pytest.approx(0.75)
    assert score(runs, answers("scenes_depth", "chain"), categories=["5 points"]) is None
    assert score(runs, answers(COUNTING, "chain")) is None
    assert score([], answers("scenes_depth", "chain")) is None


def test_a_difference_is_over_the_seeds_that_both_have():
    one = [result(0, {"3 points": "1000"}), result(1, {"3 points": "0000"})]
    other = [result(1, {"3 points": "1110"}), result(2, {"3 points": "1111"})]
    chain = answers("scenes_depth", "chain")
    found = difference(one, other, (chain, chain))
    assert found.by_seed == {1: 0.75}
    assert found.interval.value == pytest.approx(0.75)
    assert difference(one, other[1:], (chain, chain)) is None


def test_a_replacement_costs_what_the_control_had_right():
    run = result(0, {"3 points": "1101"}, own={"3 points": "110-"}, random={"3 points": "010-"})
    found = score([run], replaced("scenes_depth", "random"))
    assert found.interval.value == pytest.approx(1 / 3)  # the chain without a map counts nowhere
    assert found.interval.count == 3
    assert score([run], replaced("scenes_depth", "shuffled")) is None


def test_the_interval_is_that_of_the_questions_means():
    rng = np.random.default_rng(0)
    marks = ["".join(rng.choice(["0", "1"], size=400)) for _ in range(2)]
    found = score(
        [result(seed, {"3 points": each}) for seed, each in enumerate(marks)], answers("scenes_depth", "chain")
    )
    means = np.mean([[int(mark) for mark in each] for each in marks], axis=0)
    error = means.std() / np.sqrt(len(means))
    assert found.interval.high - found.interval.low == pytest.approx(2 * 1.96 * error, rel=0.05)


def test_expectations_are_met_by_what_is_large_and_sure():
    points = {f"{count} points": "1" * 60 for count in (2, 3, 4, 5)}
    half = dict.fromkeys(points, "10" * 30)
    counted = {COUNTING: {"chain": {"right": {"scenes": "1" * 60}}}}
    full = result(0, points, own=points, random=half)
    full["benchmarks"] |= counted
    direct = result(0, half, direct=half)
    plain = {"seed": 0, "benchmarks": counted, "replacement": {}}
    reading = result(0, half, own=half, random=half)
    given = {"full": [full], "direct": [direct], "plain_text": [plain], "readings": [reading], "map_values": [full]}
    found = check(given, depth="scenes_depth")
    assert [each.finding for each in found[:4]] == ["met", "not run", "not met", "met"]  # the paper's
    assert [each.finding for each in found[4:]] == ["not met"] * 2 + ["met"] * 2 + ["not run"] * 20
    assert "50.0" in found[0].reason
    assert found[0].measured["by_seed"] == {"0": 0.5}
