"""With every perception flag off, training gives the losses and weights of unpatched LLaVA on transformers 4.37.2.

CLIP is told to compute its attention as transformers 4.37 does (eager): with torch's own, which adds up in another
order, losses differ by up to 1e-4, and Adam turns what is almost 0 in a gradient into differences of 1e-3 in weights.
"""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

PYTHON = os.environ.get("LLAVA_AURORA_UPSTREAM_PYTHON")
pytestmark = [
    pytest.mark.upstream,
    pytest.mark.slow,
    pytest.mark.skipif(PYTHON is None, reason="needs unpatched LLaVA: bash scripts/test.sh --with-upstream"),
]
WAYS = {
    "full": {},
    "accumulated": {"gradient_accumulation_steps": 2},
    "lora": {"lora_enable": True, "lora_r": 8, "lora_alpha": 16, "mm_projector_lr": 2e-5},
    "projector": {"tune_mm_mlp_adapter": True},
}


@pytest.fixture(scope="module")
def shop(workshop, tmp_path_factory):
    """The workshop with CLIP's eager attention."""
    copy = replace(workshop, folder=tmp_path_factory.mktemp("eager") / "workshop")
    shutil.copytree(workshop.folder, copy.folder)
    tower = copy.base / "vision_tower"
    for folder, changes in {
        tower: {"_attn_implementation": "eager"},
        copy.base: {"mm_vision_tower": str(tower)},
    }.items():
        config = folder / "config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | changes))
    return copy


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    """All weights in the files of a folder."""
    found = {}
    for file in folder.glob("*.safetensors"):
        found |= load_file(file)
    for name in ("non_lora_trainables.bin", "mm_projector.bin"):
        if (folder / name).is_file():
            found |= torch.load(folder / name, weights_only=True)
    return found


def losses(folder: Path) -> list[float]:
    """Of each step; transformers 5 prints them with fewer digits."""
    history = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    return [step["loss"] for step in history if "loss" in step]


@pytest.mark.parametrize("way", WAYS)
def test_losses_and_weights_are_those_of_unpatched_llava(shop, start, forked, tmp_path, way):
    # Grouped by length, the order of records is LLaVA's own; otherwise it is that of accelerate, which has changed.
    common = {"use_cpu": True, "group_by_modality_length": True, "logging_nan_inf_filter": False, "seed": 42}
    flags = {name: shop.flags(tmp_path / name, max_steps=6, **common, **WAYS[way]) for name in ("theirs", "ours")}
    script = Path(__file__).with_name("train_upstream.py")
    theirs = start(PYTHON, "-I", script, *flags["theirs"], CUDA_VISIBLE_DEVICES="")
    ours = forked("scripts/finetune_aurora.sh", *flags["ours"])
    assert len(theirs.losses) == len(ours.losses) == 6
    assert losses(tmp_path / "ours") == pytest.approx(losses(tmp_path / "theirs"), abs=1e-4)
    expected, found = tensors(tmp_path / "theirs"), tensors(tmp_path / "ours")
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        assert (found[name] - weight).abs().max() < 1e-5, name
