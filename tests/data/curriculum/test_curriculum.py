"""The order of a curriculum: exact quotas, even use, chain and direct in turn, the same on any number of ranks."""

import itertools
import math
from collections import Counter
from inspect import signature
from types import SimpleNamespace

import numpy as np
import pytest
from accelerate import skip_first_batches
from accelerate.data_loader import prepare_data_loader
from torch.utils.data import DataLoader
from transformers import Trainer

from llava_aurora.data.curriculum.length_grouped_batches import LengthGroupedBatches
from llava_aurora.data.curriculum.sampler import Curriculum, CurriculumSampler, planned_epochs
from llava_aurora.data.curriculum.schedule import BUILT_IN, ConstantSchedule, LinearSchedule, MixtureSchedule
from llava_aurora.errors import AuroraError
from llava_aurora.tasks.registry import task_names, tasks

COUNTS = {
    "depth_generation": 48,
    "depth_chain": 10,
    "depth_direct": 10,
    "box_generation": 16,
    "counting_chain": 6,
    "counting_direct": 6,
    None: 8,
}
EPOCHS = 10


@pytest.fixture
def curriculum(make_store):
    return Curriculum(make_store(COUNTS), LinearSchedule())


def tasks_of(store, order):
    return [task_names()[code] for code in store.tasks[order]]


@pytest.mark.parametrize("name", BUILT_IN)
def test_an_epoch_holds_exactly_its_quotas(make_store, name):
    store = make_store(COUNTS)
    curriculum = Curriculum(store, BUILT_IN[name]())
    for epoch in range(EPOCHS + 1):
        quotas = curriculum.quotas(epoch, epochs=EPOCHS)
        order = curriculum.order(epoch, epochs=EPOCHS, seed=0)
        assert sum(quotas.values()) == len(order) == curriculum.length == 48 + 16 + 8
        assert Counter(tasks_of(store, order)) == {task: count for task, count in quotas.items() if count}


def test_records_without_a_task_come_once_an_epoch(curriculum):
    for epoch in range(3):
        order = curriculum.order(epoch, epochs=EPOCHS, seed=0).tolist()
        assert all(order.count(index) == 1 for index in range(96, 104))


def test_records_of_a_task_are_used_evenly_over_all_epochs(make_store):
    store = make_store(COUNTS)
    curriculum = Curriculum(store, LinearSchedule())
    used = np.zeros(len(store), dtype=int)
    for epoch in range(EPOCHS):
        used += np.bincount(curriculum.order(epoch, epochs=EPOCHS, seed=3), minlength=len(store))
        for task in tasks():
            of_task = used[store.tasks == task_names().index(task)]
            assert not len(of_task) or of_task.max() - of_task.min() <= 1


def test_an_epoch_is_shuffled_across_its_tasks(curriculum):
    order = curriculum.order(5, epochs=EPOCHS, seed=0)
    atomic = (order < 48).astype(int)
    assert 0.2 < atomic[:36].mean() < 0.8
    assert np.abs(np.diff(atomic)).sum() > 10


def test_chain_and_direct_take_turns_on_every_image(make_store):
    store = make_store({"depth_chain": 12, "depth_direct": 12})
    schedule = MixtureSchedule(mixtures=[{"depth_chain": 1, "depth_direct": 1}], records_per_epoch=6)
    curriculum = Curriculum(store, schedule)
    visits = {image: [] for image in range(12)}
    for epoch in range(12):
        for index in curriculum.order(epoch, epochs=12, seed=5):
            kind, image = divmod(int(index), 12)
            visits[image].append(kind)
        assert max(map(len, visits.values())) - min(map(len, visits.values())) <= 1
    for kinds in visits.values():
        assert all(a != b for a, b in itertools.pairwise(kinds))
    assert {kinds[0] for kinds in visits.values()} == {0, 1}


def test_with_unequal_fractions_the_rarer_kind_is_spread_evenly_over_images(make_store):
    store = make_store({"depth_chain": 12, "depth_direct": 12})
    schedule = MixtureSchedule(mixtures=[{"depth_chain": 3, "depth_direct": 1}], records_per_epoch=16)
    curriculum = Curriculum(store, schedule)
    orders = np.concatenate([curriculum.order(epoch, epochs=6, seed=5) for epoch in range(6)])
    assert np.bincount(orders).tolist() == [6] * 12 + [2] * 12


def test_an_image_with_one_kind_of_question_uses_it(make_store):
    images = {"depth_chain": lambda number: f"a{number}", "depth_direct": lambda number: f"a{number + 2}"}
    store = make_store({"depth_chain": 4, "depth_direct": 4}, images=lambda task, number: images[task](number))
    order = Curriculum(store, ConstantSchedule(records_per_epoch=8)).order(0, epochs=1, seed=0)
    assert sorted(order.tolist()) == list(range(8))


def test_several_questions_of_one_image_are_taken_in_turn(make_store):
    store = make_store({"depth_chain": 6}, images=lambda task, number: f"a{number % 2}")
    curriculum = Curriculum(store, ConstantSchedule(records_per_epoch=2))
    pairs = [sorted(curriculum.order(epoch, epochs=3, seed=0).tolist()) for epoch in range(3)]
    assert pairs == [[0, 1], [2, 3], [4, 5]]


def test_a_weight_of_zero_is_none_at_all(make_store):
    store = make_store(COUNTS)
    mixtures = [{"depth_chain": 1, "depth_direct": 0}, {"depth_direct": 1}]
    curriculum = Curriculum(store, MixtureSchedule(mixtures=mixtures))
    for epoch, task in enumerate(["depth_chain", "depth_direct"]):
        order = curriculum.order(epoch, epochs=2, seed=0)
        assert set(tasks_of(store, order)) == {task, "other"}


def test_the_order_follows_from_seed_and_epoch_alone(curriculum):
    def order(seed, epoch):
        return curriculum.order(epoch, epochs=EPOCHS, seed=seed).tolist()

    late = order(1, 7)
    assert order(1, 2) != order(1, 3) != late
    assert order(2, 7) != late
    assert order(1, 7) == late


def test_what_cannot_be_ordered_is_refused_with_what_there_is(make_store):
    with pytest.raises(AuroraError, match=r'no record has a task under "aurora".*train without --curriculum'):
        Curriculum(make_store({None: 3}), LinearSchedule())
    schedule = MixtureSchedule(source="my.yaml", mixtures=[{"depth_chain": 0, "counting_chain": 1}])
    with pytest.raises(
        AuroraError, match=r"my.yaml: gives counting_chain a weight, but .*json has no record .* depth_direct \(2\)"
    ):
        Curriculum(make_store({"depth_direct": 2, None: 1}), schedule)


@pytest.mark.parametrize(
    ("max_steps", "epochs", "accumulation", "expected"),
    [(-1, 2.5, 1, 3), (-1, 10, 4, 10), (25, 99, 1, 3), (24, 99, 1, 2), (25, 1, 5, 9)],
)
def test_epochs_are_planned_as_transformers_counts_them(max_steps, epochs, accumulation, expected):
    arguments = SimpleNamespace(
        max_steps=max_steps,
        num_train_epochs=epochs,
        train_batch_size=4,
        world_size=2,
        gradient_accumulation_steps=accumulation,
    )
    length = 95
    assert planned_epochs(arguments, length=length) == expected
    size = 8 * accumulation
    counted = {"num_examples": length, "get_total_train_batch_size": size, "get_sp_size": 1}
    trainer = SimpleNamespace(**{name: lambda *_, number=number: number for name, number in counted.items()})
    count = Trainer.set_initial_training_values
    given = (trainer, arguments, range(math.ceil(length / 8)), size)
    theirs, *_ = count(*given[: len(signature(count).parameters)])  # transformers 5 asks for the size itself
    assert theirs == expected


# --- under accelerate -------------------------------------------------------------------------------------------------


class Indices:
    """A dataset whose items are their indices."""

    def __init__(self, length):
        self.length = length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        assert type(index) is int
        return index


def loader(curriculum, *, ranks, rank, workers=0, global_batch=8, seed=4):
    sampler = CurriculumSampler(curriculum, epochs=EPOCHS, seed=seed)
    plain = DataLoader(
        Indices(200), sampler=sampler, batch_size=global_batch // ranks, num_workers=workers, collate_fn=list
    )
    return prepare_data_loader(plain, num_processes=ranks, process_index=rank, put_on_device=False)


def together(loaders):
    return [list(itertools.chain(*parts)) for parts in zip(*loaders, strict=True)]


def global_batches(loaders, epoch):
    """The records of each step over all ranks, as transformers' Trainer reads them."""
    for each in loaders:
        each.set_epoch(epoch)
    return together(loaders)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("ranks", [1, 2, 8])
def test_any_number_of_ranks_and_workers_sees_the_same_global_batches(curriculum, ranks, workers):
    assert curriculum.length % 8 == 0
    used = workers if ranks < 8 else 0
    loaders = [loader(curriculum, ranks=ranks, rank=rank, workers=used) for rank in range(ranks)]
    for epoch in (0, 1, 6):
        order = curriculum.order(epoch, epochs=EPOCHS, seed=4).tolist()
        assert global_batches(loaders, epoch) == [order[start : start + 8] for start in range(0, len(order), 8)]


@pytest.mark.parametrize("ranks", [1, 2, 8])
def test_a_run_resumed_within_an_epoch_goes_on_at_the_exact_record(curriculum, ranks):
    loaders = [loader(curriculum, ranks=ranks, rank=rank) for rank in range(ranks)]
    uninterrupted = global_batches(loaders, 6), global_batches(loaders, 7)
    resumed = [loader(curriculum, ranks=ranks, rank=rank) for rank in range(ranks)]
    for each in resumed:
        each.set_epoch(6)
    rest = [skip_first_batches(each, 4) for each in resumed]
    assert together(rest) == uninterrupted[0][4:]
    assert global_batches(resumed, 7) == uninterrupted[1]


def test_batches_of_like_length_are_the_same_for_any_number_of_ranks(curriculum):
    grouping = LengthGroupedBatches(lengths=np.random.default_rng(0).integers(5, 90, 200), image_tokens=0, batch=8)
    sampler = CurriculumSampler(curriculum, epochs=EPOCHS, seed=4, length_grouped_batches=grouping)
    sampler.set_epoch(6)
    once, again = list(sampler), list(sampler)
    order = curriculum.order(6, epochs=EPOCHS, seed=4).tolist()
    assert once == again
    assert once != order
    assert sorted(once) == sorted(order)


def test_an_earlier_epoch_than_the_present_is_ignored(curriculum):
    sampler = CurriculumSampler(curriculum, epochs=EPOCHS, seed=0)
    assert len(sampler) == curriculum.length == len(list(sampler))
    sampler.set_epoch(3)
    third = list(sampler)
    sampler.set_epoch(0)
    assert list(sampler) == third
