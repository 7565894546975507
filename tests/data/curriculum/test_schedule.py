"""Schedules: fractions sum to 1, the linear one is AURORA's, and weight moves from easy to hard where it should."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava_aurora.data.curriculum.schedule import (
    BUILT_IN,
    ConstantSchedule,
    LinearSchedule,
    MixtureSchedule,
    SoftmaxSchedule,
    progress,
)
from llava_aurora.tasks.registry import family_of, tasks

AURORA = {
    "depth_generation": 20_000,
    "depth_chain": 500,
    "depth_direct": 500,
    "box_generation": 5_000,
    "counting_chain": 250,
    "counting_direct": 250,
}
COUNTS = st.dictionaries(st.sampled_from(list(tasks())), st.integers(1, 1000), min_size=1)


@given(name=st.sampled_from(list(BUILT_IN)), counts=COUNTS, epoch=st.integers(0, 12), epochs=st.integers(1, 10))
def test_fractions_are_of_tasks_that_are_there_and_sum_to_one(name, counts, epoch, epochs):
    shares = BUILT_IN[name]().shares(epoch, epochs=epochs, counts=counts)
    assert set(shares) <= set(counts)
    assert min(shares.values()) >= 0
    assert sum(shares.values()) == pytest.approx(1)


def by_kind(shares, family):
    kinds = {"atomic": 0.0, "chain": 0.0, "direct": 0.0}
    for task, share in shares.items():
        if family_of(task).name == family:
            kinds[tasks()[task].kind] += share
    return kinds


@pytest.mark.parametrize("epoch", range(10))
def test_linear_is_aurora_as_it_was_run(epoch):
    schedule = LinearSchedule()
    assert schedule.length(AURORA) == 25_000
    shares = schedule.shares(epoch, epochs=10, counts=AURORA)
    for family, weight in (("depth", 0.8), ("counting", 0.2)):
        kinds = by_kind(shares, family)
        assert kinds["atomic"] == pytest.approx(weight * (1 - epoch / 10))
        assert kinds["chain"] == kinds["direct"] == pytest.approx(weight * epoch / 20)


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        (["atomic"], [1, 0, 0]),
        (["chain"], [0, 1, 0]),
        (["chain", "direct"], [0, 0.5, 0.5]),
        (["atomic", "direct"], [0.55, 0, 0.45]),
        (["atomic", "chain", "direct"], [0.55, 0.225, 0.225]),
    ],
)
def test_what_a_family_lacks_leaves_its_share_to_what_it_has(kinds, expected):
    names = {"atomic": "depth_generation", "chain": "depth_chain", "direct": "depth_direct"}
    shares = LinearSchedule().shares(0, epochs=1, counts={names[kind]: 7 for kind in kinds})
    assert list(by_kind(shares, "depth").values()) == pytest.approx(expected)


def test_a_family_without_atomic_records_counts_all_it_has():
    counts = {"depth_generation": 30, "counting_chain": 6, "counting_direct": 4}
    assert LinearSchedule().length(counts) == 40
    assert LinearSchedule(records_per_epoch=7).length(counts) == 7


def test_tasks_of_a_kind_share_by_their_records():
    counts = {"depth_generation": 30, "point_location": 10}
    assert LinearSchedule().shares(0, epochs=3, counts=counts) == {"depth_generation": 0.75, "point_location": 0.25}


def test_a_falling_temperature_moves_weight_from_easy_to_hard():
    schedule = SoftmaxSchedule()
    assert schedule.temperature(1) < schedule.temperature(0)
    easy = [by_kind(schedule.shares(epoch, epochs=10, counts=AURORA), "depth")["atomic"] / 0.8 for epoch in range(10)]
    assert easy == sorted(easy, reverse=True)
    assert easy[0] == pytest.approx(0.943, abs=1e-3)
    assert easy[-1] == pytest.approx(0.100, abs=1e-3)


def test_all_tasks_weigh_the_same_at_the_moment_asked_for():
    schedule = SoftmaxSchedule(even_at=0.5, tau0=0.3, cooling=2, difficulty={"depth_direct": 3.5})
    counts = {task: count for task, count in AURORA.items() if family_of(task).name == "depth"}
    assert list(schedule.shares(1, epochs=3, counts=counts).values()) == pytest.approx([1 / 3] * 3)
    last = schedule.shares(2, epochs=3, counts=counts)
    assert last["depth_direct"] > last["depth_chain"] > last["depth_generation"]


def test_a_very_low_temperature_is_no_overflow():
    shares = SoftmaxSchedule(tau0=1e-6).shares(9, epochs=10, counts=AURORA)
    assert shares["depth_generation"] == 0


def test_constant_follows_the_records_or_the_weights():
    counts = {"depth_generation": 30, "depth_chain": 10}
    assert ConstantSchedule().shares(3, epochs=4, counts=counts) == {"depth_generation": 0.75, "depth_chain": 0.25}
    weighted = ConstantSchedule(weights={"depth_chain": 2, "depth_generation": 0})
    assert weighted.shares(0, epochs=4, counts=counts)["depth_chain"] == 1
    assert weighted.named_tasks == ("depth_chain",)


def test_the_last_mixture_holds_on():
    schedule = MixtureSchedule(mixtures=[{"depth_chain": 1}, {"depth_chain": 1, "depth_direct": 3}])
    assert schedule.shares(0, epochs=9, counts=AURORA) == {"depth_chain": 1}
    assert schedule.shares(8, epochs=9, counts=AURORA) == {"depth_chain": 0.25, "depth_direct": 0.75}


def test_progress_goes_from_zero_to_one():
    assert [progress(epoch, 3) for epoch in range(5)] == [0, 0.5, 1, 1, 1]
    assert progress(0, 1) == 0.5
