"""Training on two CPU ranks: as a user starts it, and with LLaVA's own flags."""

import json
import math
import shutil

import pytest
import torch
from safetensors.torch import load_file

from llava_aurora import load_pretrained_model

pytestmark = pytest.mark.deepspeed
SCRIPT = "scripts/finetune_aurora.sh"


def test_two_ranks_learn_and_tell_each_part_of_the_loss(finetuned):
    out, run = finetuned
    assert len(run.losses) == 4
    for step in run.losses:
        assert all(math.isfinite(step[part]) for part in ("loss", "loss_text", "loss_depth", "loss_box"))
        low, high = (f([step[part] for part in ("loss_text", "loss_depth", "loss_box")]) for f in (min, max))
        assert low <= step["loss"] + 1e-2
        assert step["loss"] <= high + 1e-2
    assert run.losses[-1]["loss"] < run.losses[0]["loss"]
    assert {path.name for path in out.iterdir()} >= {
        "config.json",
        "depth_vqvae",
        "model.safetensors",
        "tokenizer.model",
        "trainer_state.json",
        "vision_tower",
    }
    assert not list(out.glob(".saving-*"))
    assert "shm_comm" not in run.output, "its shared memory would outlive the run"


def test_a_model_with_tokens_goes_on_with_them_without_a_flag(finetuned, workshop, forked, tmp_path):
    tower = finetuned[0] / "vision_tower"
    flags = {"model_name_or_path": finetuned[0], "vision_tower": tower, "max_steps": 1, "use_cpu": True}
    out = tmp_path / "llava-aurora-2"
    run = forked(SCRIPT, *workshop.flags(out, **flags))
    assert "loss_depth" in run.losses[0]
    before, after = (load_pretrained_model(str(folder))[1] for folder in (finetuned[0], out))
    assert after.perception.config() == before.perception.config()

    other = {**flags, "perception_modalities": "depth", "depth_vqvae": workshop.vqvae}
    refused = forked(SCRIPT, *workshop.flags(tmp_path / "other", **other), code=1)
    assert "perception tokens have other settings" in refused.output.splitlines()[-1]


# The flags of LLaVA's own scripts/v1_5/*.sh, in their spelling; only paths and sizes are those of the tiny model.
V15_FLAGS = {
    "bf16": True,
    "num_train_epochs": 1,
    "per_device_eval_batch_size": 4,
    "gradient_accumulation_steps": 1,
    "evaluation_strategy": "no",
    "save_strategy": "steps",
    "save_steps": 50000,
    "save_total_limit": 1,
    "weight_decay": 0.0,
    "warmup_ratio": 0.03,
    "lr_scheduler_type": "cosine",
    "tf32": True,
    "gradient_checkpointing": True,
    "dataloader_num_workers": 1,
    "report_to": "wandb",
}


@pytest.fixture
def language_model(workshop, tmp_path):
    """What LLaVA starts from: a language model that has never seen an image."""
    folder = tmp_path / "vicuna"
    shutil.copytree(workshop.base, folder)
    config = json.loads((folder / "config.json").read_text())
    config = {name: value for name, value in config.items() if "mm_" not in name}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture
def projector(workshop, tmp_path):
    """What its first stage leaves."""
    path = tmp_path / "mm_projector.bin"
    weights = load_file(workshop.base / "model.safetensors")
    torch.save({name: value for name, value in weights.items() if "mm_projector" in name}, path)
    return path


def test_finetune_as_llava_writes_it(workshop, forked, language_model, projector, tmp_path):
    flags = workshop.flags(
        tmp_path / "out",
        zero=3,
        model_name_or_path=language_model,
        pretrain_mm_mlp_adapter=projector,
        image_aspect_ratio="pad",
        group_by_modality_length=True,
        **V15_FLAGS,
    )
    run = forked(SCRIPT, *flags, ranks=2)
    changes = "--evaluation_strategy no to --eval_strategy no", "--tf32 True to --tf32 False"
    for change in (*changes, "--report_to wandb to --report_to tensorboard"):
        assert run.output.count(f"Warning: changed {change} because ") == 1
    assert len(run.losses) == 4
    assert "loss_depth" not in run.losses[0]
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert "aurora" not in config


def test_finetune_lora_as_llava_writes_it_with_perception_tokens(workshop, forked, tmp_path):
    out = tmp_path / "llava-aurora-lora"
    flags = workshop.flags(out, zero=3, lora=True, lora_alpha=16, mm_projector_lr=2e-5, **V15_FLAGS, tokens=True)
    run = forked(SCRIPT, *flags, ranks=2)
    assert math.isfinite(run.losses[-1]["loss_depth"])
    tokenizer, model, _, _ = load_pretrained_model(str(out))
    assert list(model.perception.kinds) == ["depth", "box"]
    base = load_pretrained_model(str(workshop.base))[1]
    words = base.get_input_embeddings().weight.shape[0]
    assert model.get_output_embeddings().weight.shape[0] == len(tokenizer) == words + 74
    layer = "model.layers.0.self_attn.q_proj.weight"
    assert not torch.equal(model.state_dict()[layer], base.state_dict()[layer])


def test_pretrain_as_llava_writes_it(workshop, forked, language_model, tmp_path):
    out = tmp_path / "pretrain"
    flags = workshop.flags(
        out,
        zero=2,
        model_name_or_path=language_model,
        version="plain",
        tune_mm_mlp_adapter=True,
        **{**V15_FLAGS, "save_steps": 24000},
    )
    forked(SCRIPT, *flags, ranks=2)
    weights = torch.load(out / "mm_projector.bin", weights_only=True)
    assert all("mm_projector" in name for name in weights)
