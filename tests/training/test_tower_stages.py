"""A vision tower in stages: trained whole, then frozen under LoRA, then trained beside LoRA, then merged and frozen."""

import pytest
import torch

from llava_aurora.demo.tiny_llava import VISION_TOWER
from llava_aurora.model.checkpoint import load_pretrained_model
from llava_aurora.model.merge import merge

pytestmark = pytest.mark.deepspeed
LORA = {"lora_enable": True, "lora_r": 4, "lora_alpha": 8, "mm_vision_tower_lr": 1e-3}


def tower_of(folder):
    """Its weights by name, as a model that is loaded from the folder has them."""
    model = load_pretrained_model(str(folder), device="cpu")[1]
    return {name: weight.clone() for name, weight in model.get_vision_tower().vision_tower.state_dict().items()}


def same(one, other):
    assert one.keys() == other.keys()
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def stages(train_once, finetuned, workshop, tmp_path_factory):
    """Each stage's folder, the next one on the merged model of the one before."""
    trained = finetuned[0]
    flags = {"launched": False, **LORA}  # --vision_tower names the first tower, as users go on giving it
    frozen, _ = train_once("tower-frozen-lora", **flags, model_name_or_path=trained)
    again, _ = train_once("tower-trained-lora", **flags, model_name_or_path=trained, unfreeze_mm_vision_tower=True)
    merged = tmp_path_factory.mktemp("merged") / "llava-merged"
    merge(again, merged)
    last, _ = train_once("tower-frozen-again-lora", **flags, model_name_or_path=merged)
    return {"base": workshop.base, "trained": trained, "frozen": frozen, "again": again, "merged": merged, "last": last}


def test_each_stage_is_loaded_with_the_tower_that_it_was_trained_with(stages):
    towers = {name: tower_of(folder) for name, folder in stages.items() if name != "base"}
    assert (stages["trained"] / VISION_TOWER).is_dir()
    assert same(towers["frozen"], towers["trained"])  # not the one that the first base names
    assert not same(towers["again"], towers["trained"])  # a second LoRA run trained it on
    assert same(towers["merged"], towers["again"])
    assert same(towers["last"], towers["merged"])
