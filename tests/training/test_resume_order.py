"""The order of an epoch, drawn a second time."""

from types import SimpleNamespace

import torch
from accelerate.data_loader import SeedableRandomSampler
from torch.utils.data import Sampler

from llava_aurora.training.epoch_order import EpochOrder
from llava_aurora.training.trainer import AuroraTrainer


class Shuffled(Sampler):
    """As upstream's order by length, drawn from the global random state."""

    def __len__(self):
        return 20

    def __iter__(self):
        return iter(torch.randperm(20).tolist())


def test_an_order_is_drawn_again_whatever_the_random_state():
    first = EpochOrder(Shuffled())
    list(first)
    first.set_epoch(1)
    drawn = list(first)

    resumed = EpochOrder(Shuffled(), resumed=first.state)
    resumed.set_epoch(1)
    resumed.set_epoch(0)
    before = torch.get_rng_state()
    assert list(resumed) == drawn
    assert torch.equal(torch.get_rng_state(), before)
    assert resumed.state["epoch"] == 1
    resumed.set_epoch(2)
    assert list(resumed) != drawn


def test_a_random_order_is_accelerate_s():
    theirs, ours = (SeedableRandomSampler(range(20), data_seed=7) for _ in range(2))
    order = EpochOrder(ours)
    for epoch in range(3):
        theirs.set_epoch(epoch)
        order.set_epoch(epoch)
        assert list(order) == list(theirs)


class Records(list):
    data_args, curriculum = SimpleNamespace(shuffle=False), None


def test_unshuffled_records_come_in_the_order_of_their_file():
    trainer = object.__new__(AuroraTrainer)
    trainer.train_dataset = Records("abcdefgh")
    assert list(trainer._get_train_sampler(trainer.train_dataset)) == list(range(8))
