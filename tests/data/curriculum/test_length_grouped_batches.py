"""Batches of like length: a permutation of the curriculum's order in which less is padding."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava_aurora.data.curriculum.length_grouped_batches import WINDOW, LengthGroupedBatches

BATCH = 8


def padding(lengths, order):
    """Elements of padding in whole batches."""
    batches = lengths[order[: len(order) // BATCH * BATCH]].reshape(-1, BATCH)
    return int((batches.max(axis=1, keepdims=True) - batches).sum())


@given(count=st.integers(0, 700), seed=st.integers(0, 99))
def test_every_record_comes_once_and_stays_in_its_window(count, seed):
    rng = np.random.default_rng(seed)
    order = rng.permutation(1000)[:count].astype(np.int32)
    grouping = LengthGroupedBatches(lengths=rng.integers(-50, 50, 1000), image_tokens=9, batch=BATCH)
    grouped = grouping.grouped(order, np.random.default_rng(seed))
    whole = count // BATCH * BATCH
    assert grouped.dtype == order.dtype
    assert grouped[whole:].tolist() == order[whole:].tolist()
    for start in range(0, whole, WINDOW * BATCH):
        window = slice(start, min(start + WINDOW * BATCH, whole))
        assert sorted(grouped[window]) == sorted(order[window])


def test_records_with_and_without_an_image_are_apart_by_what_an_image_takes():
    lengths = np.array([10, -10] * 64)
    grouped = LengthGroupedBatches(lengths=lengths, image_tokens=100, batch=BATCH).grouped(
        np.arange(128), np.random.default_rng(0)
    )
    assert all(len(set(batch)) == 1 for batch in lengths[grouped].reshape(-1, BATCH).tolist())


@pytest.mark.parametrize("seed", [0, 1])
def test_lengths_do_not_rise_through_a_window(seed):
    lengths = np.arange(WINDOW * BATCH)
    grouped = LengthGroupedBatches(lengths=lengths, image_tokens=0, batch=BATCH).grouped(
        lengths, np.random.default_rng(seed)
    )
    firsts = grouped.reshape(-1, BATCH)[:, 0]
    assert firsts.tolist() != sorted(firsts)


def test_a_step_can_have_several_lengths_each_batch_one():
    rng = np.random.default_rng(0)
    lengths, order = rng.choice([20, 100], 4000), rng.permutation(4000)
    grouped, mixed = (
        LengthGroupedBatches(lengths=lengths, image_tokens=0, batch=4 * BATCH, mixed=parts).grouped(
            order, np.random.default_rng(0)
        )
        for parts in (1, 4)
    )
    of_one_length = [(lengths[each].reshape(-1, 4 * BATCH).std(axis=1) == 0).mean() for each in (grouped, mixed)]
    assert of_one_length[0] > 0.9
    assert of_one_length[1] < 0.3  # of four batches drawn from two lengths, one in eight has but one
    assert padding(lengths, mixed) < 0.1 * padding(lengths, order)
    assert sorted(mixed) == sorted(order)
