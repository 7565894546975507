"""A vision tower in stages: trained whole, then frozen under LoRA, then trained beside LoRA, then merged and frozen."""

import pytest
import torch

from llava_aurora.demo.tiny_llava import VISION_TOWER
from llava_aurora.model.checkpoint import load_pretrained_model

pytestmark = pytest.mark.deepspeed


def tower_of(folder):
    """Its weights by name, as a model that is loaded from the folder has them."""
    model = load_pretrained_model(str(folder), device="cpu")[1]
    return {name: weight.clone() for name, weight in model.get_vision_tower().vision_tower.state_dict().items()}


def same(one, other):
    assert one.keys() == other.keys()
    return all(torch.equal(one[name], other[name]) for name in one)


def test_each_stage_is_loaded_with_the_tower_that_it_was_trained_with(tower_stages):
    towers = {name: tower_of(folder) for name, folder in tower_stages.items()}
    assert (tower_stages["trained"] / VISION_TOWER).is_dir()
    assert same(towers["frozen"], towers["trained"])  # not the one that the first base names
    assert not same(towers["again"], towers["trained"])  # a second LoRA run trained it on
    assert same(towers["merged"], towers["again"])
    assert same(towers["last"], towers["merged"])
