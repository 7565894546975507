"""What is trained, logged and saved in each of LLaVA's modes, on the tiny model."""

import json
import math
import shutil
from pathlib import Path

import pytest
import torch

from llava_aurora import load_pretrained_model
from llava_aurora.errors import AuroraError
from llava_aurora.model.folders import fingerprint_of_base
from llava_aurora.model.merge import merge

pytestmark = pytest.mark.deepspeed
SCRIPT = "scripts/finetune_aurora.sh"
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def lora(finetuned_lora):
    return load_pretrained_model(str(finetuned_lora[0]))


@pytest.fixture(scope="module")
def base(workshop):
    return load_pretrained_model(str(workshop.base))[1]


def test_lora_leaves_every_word_as_it_was_and_trains_the_new_rows(lora, base, finetuned_lora):
    tokenizer, model, _, _ = lora
    words = base.lm_head.weight.shape[0]
    assert model.lm_head.weight.shape[0] == len(tokenizer) == words + 74
    for trained, before in (
        (model.lm_head.weight, base.lm_head.weight),
        (model.model.embed_tokens.weight, base.model.embed_tokens.weight),
    ):
        assert torch.equal(trained[:words], before)
    saved = torch.load(finetuned_lora[0] / "non_lora_trainables.bin", weights_only=True)
    rows = {name: value for name, value in saved.items() if "mm_projector" not in name}
    assert {name: tuple(value.shape) for name, value in rows.items()} == {
        "base_model.model.model.embed_tokens.perception_rows": (74, 64),
        "base_model.model.lm_head.perception_rows": (74, 64),
    }
    midway = torch.load(finetuned_lora[0] / "checkpoint-2" / "non_lora_trainables.bin", weights_only=True)
    assert all(not torch.equal(midway[name], value) for name, value in saved.items())


def test_a_checkpoint_on_the_way_is_a_whole_folder(finetuned_lora, lora):
    model = load_pretrained_model(str(finetuned_lora[0] / "checkpoint-2"))[1]
    assert model.perception.config() == lora[1].perception.config()
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    assert not list(finetuned_lora[0].rglob(".saving-*"))


def test_lora_remembers_its_base(finetuned_lora, workshop):
    for folder in (finetuned_lora[0], finetuned_lora[0] / "checkpoint-2"):
        assert json.loads((folder / "aurora_base.json").read_text()) == {
            "base": str(workshop.base),
            "fingerprint": fingerprint_of_base(str(workshop.base)),
        }


def test_a_base_with_mpt_in_its_path_trains_and_runs_no_code(workshop, forked, tmp_path):
    base, marker = tmp_path / "attempt", tmp_path / "marker"
    shutil.copytree(workshop.base, base)
    (base / "custom_generate").mkdir()
    (base / "custom_generate" / "generate.py").write_text(f"open({str(marker)!r}, 'w')\n\ndef generate(): ...\n")
    flags = workshop.flags(tmp_path / "out", model_name_or_path=base, max_steps=1, use_cpu=True)
    forked(SCRIPT, *flags)
    assert not marker.exists()


def test_the_reconstruction_loss_counts_from_its_first_step_on(finetuned_lora):
    logged = [step.get("loss_reconstruction") for step in finetuned_lora[1].losses]
    assert logged[:2] == [None, None]
    assert all(value > 0 for value in logged[2:])


def test_evaluations_tell_how_well_tokens_are_written(finetuned_lora):
    history = json.loads((finetuned_lora[0] / "trainer_state.json").read_text())["log_history"]
    evaluations = [entry for entry in history if "eval_loss" in entry]
    assert [entry["step"] for entry in evaluations] == [2, 4]
    for entry in evaluations:
        for name in ("depth_code_accuracy", "box_code_accuracy", "box_iou"):
            assert 0 <= entry[f"eval_{name}"] <= 1
        assert math.isfinite(entry["eval_loss_depth"])


def test_tensorboard_shows_curves_and_maps(finetuned_lora):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (folder,) = (finetuned_lora[0] / "runs").iterdir()
    events = EventAccumulator(str(folder)).Reload()
    assert set(events.Tags()["scalars"]) >= {
        "train/loss",
        "train/loss_depth",
        "eval/box_iou",
        "eval/depth_code_accuracy",
    }
    maps = events.Images("eval/map_0 (true, written)")
    assert [picture.step for picture in maps] == [2, 4]
    assert (maps[0].width, maps[0].height) == (320, 160)


def test_a_merged_folder_is_the_same_model(finetuned_lora, lora, tmp_path):
    out = merge(finetuned_lora[0], tmp_path / "llava-merged")
    merged = load_pretrained_model(str(out))[1]
    assert merged.perception.config() == lora[1].perception.config()
    expected, found = lora[1].state_dict(), merged.state_dict()
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    with pytest.raises(AuroraError, match="already exists"):
        merge(finetuned_lora[0], out)


def test_rows_trained_with_the_projector_alone_are_where_the_next_stage_starts(workshop, forked, tmp_path):
    first, second = tmp_path / "llava-first", tmp_path / "llava-second-lora"
    flags = workshop.flags(first, zero=2, tune_mm_mlp_adapter=True, perception_init="words", tokens=True)
    run = forked(SCRIPT, *flags, ranks=2)
    assert run.losses[-1]["loss_depth"] < run.losses[0]["loss_depth"]
    saved = torch.load(first / "mm_projector.bin", weights_only=True)
    rows = {name: value for name, value in saved.items() if "perception_rows" in name}
    assert sorted(rows) == ["lm_head.perception_rows", "model.embed_tokens.perception_rows"]

    model = load_pretrained_model(str(first))[1]
    assert torch.equal(model.lm_head.weight[-74:], rows["lm_head.perception_rows"])

    flags = workshop.flags(
        second,
        pretrain_mm_mlp_adapter=first / "mm_projector.bin",
        lora=True,
        max_steps=1,
        learning_rate=0.0,
        use_cpu=True,
        tokens=True,
    )
    run = forked(SCRIPT, *flags)
    model = load_pretrained_model(str(second))[1]
    assert torch.equal(model.model.embed_tokens.weight[-74:], rows["model.embed_tokens.perception_rows"])


@pytest.mark.parametrize("stage", [1, 2])
def test_the_reconstruction_loss_works_under_the_other_stages(workshop, forked, tmp_path, stage):
    config = tmp_path / "zero.json"
    shipped = json.loads((ROOT / "deepspeed_configs" / "zero2.json").read_text())
    config.write_text(json.dumps({**shipped, "zero_optimization": {**shipped["zero_optimization"], "stage": stage}}))
    flags = workshop.flags(
        tmp_path / "llava-lora",
        deepspeed=config,
        lora=True,
        gradient_checkpointing=True,
        aux_losses="reconstruction=1",
        # A rank's batch may be all about boxes: no map is in it.
        train_tasks="counting_chain,depth_generation",
        per_device_train_batch_size=1,
        tokens=True,
    )
    run = forked(SCRIPT, *flags, ranks=2)
    assert all(step["loss_reconstruction"] >= 0 for step in run.losses)
    assert any("loss_depth" not in step or "loss_box" not in step for step in run.losses)


@pytest.mark.parametrize("lora", [True, False], ids=["LoRA", "full"])
def test_a_head_is_guided_where_its_layer_is_wrapped_or_partitioned(workshop, forked, tmp_path, lora):
    flags = workshop.flags(
        tmp_path / ("llava-lora" if lora else "llava"),
        zero=3,
        lora_enable=lora,
        lora_r=8,
        gradient_checkpointing=True,
        gradient_checkpointing_kwargs='{"use_reentrant": false}',
        value_step="interpolated",
        aux_losses="attention=0.5,answer=0.5",
        train_tasks="chain",
        max_steps=3,
        tokens=True,
    )
    run = forked(SCRIPT, *flags, ranks=2)
    for name in ("copy", "lookup", "choice", "answer"):
        assert all(0 < step[f"loss_{name}"] < 20 for step in run.losses if "loss_depth" in step)
    assert any("loss_depth" in step for step in run.losses)
    config = json.loads((Path(flags[flags.index("--output_dir") + 1]) / "config.json").read_text())
    assert config["aurora"]["values"] == "interpolated"


def test_four_bits_train_and_load(workshop, forked, tmp_path):
    out = tmp_path / "llava-qlora"
    flags = workshop.flags(out, zero=2, bits=4, lora=True, gradient_checkpointing=True, max_steps=2, tokens=True)
    forked(SCRIPT, *flags, ranks=2)
    assert "quantization_config" not in json.loads((out / "config.json").read_text())
    model = load_pretrained_model(str(out), load_4bit=True)[1]
    assert type(model.model.layers[0].self_attn.q_proj).__name__ == "Linear4bit"
    assert type(model.lm_head) is torch.nn.Linear
    assert model.perception is not None


def test_the_papers_way_trains_both_whole_matrices(workshop, base, forked, tmp_path):
    out = tmp_path / "llava-whole-lora"
    flags = workshop.flags(out, lora=True, train_base_vocabulary=True, max_steps=1, use_cpu=True, tokens=True)
    forked(SCRIPT, *flags)
    model = load_pretrained_model(str(out))[1]
    words = base.lm_head.weight.shape[0]
    assert model.lm_head.weight.shape[0] == words + 74
    assert not torch.equal(model.lm_head.weight[:words], base.lm_head.weight)
    assert not torch.equal(model.model.embed_tokens.weight[:words], base.model.embed_tokens.weight)


def test_a_frozen_language_model_keeps_its_words_and_is_saved_whole(workshop, base, forked, tmp_path):
    out = tmp_path / "llava-frozen"
    flags = workshop.flags(out, zero=3, freeze_backbone=True, max_steps=1, tokens=True)
    forked(SCRIPT, *flags, ranks=2)
    model = load_pretrained_model(str(out))[1]
    words = base.lm_head.weight.shape[0]
    assert torch.equal(model.lm_head.weight[:words], base.lm_head.weight)
    assert model.lm_head.weight.shape[0] == words + 74


def test_peft_reads_a_lora_folder_as_the_docs_do_it(finetuned_lora, lora):
    page = (Path(__file__).parents[2] / "docs" / "serving_engines.md").read_text()
    code = page.split("## A LoRA folder in PEFT")[1].split("```python\n")[1].split("```")[0]
    names = {}
    exec(code.replace("checkpoints/mine-lora", str(finetuned_lora[0])), names)
    ids = torch.tensor([[1, 5, names["first"], names["first"] + 3, 9]])
    torch.testing.assert_close(
        names["model"].eval()(input_ids=ids).logits, lora[1](input_ids=ids).logits, atol=1e-5, rtol=0
    )
