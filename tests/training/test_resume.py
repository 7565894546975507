"""Runs that are killed and go on: the same weights as an unbroken run's, on as many ranks as before or on others."""

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from forked import begin
from llava.conversation import conv_templates
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

pytestmark = [pytest.mark.slow, pytest.mark.deepspeed]
ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "finetune_aurora.sh"
STEPS, SAVED, KILLED = 10, 5, 6
POISONED = 11
LORA = {"lora_enable": True, "lora_r": 8, "lora_alpha": 16, "lora_dropout": 0.0}


@dataclass(frozen=True)
class Mode:
    """How a run trains: stage of ZeRO, or None, with LoRA or all weights."""

    shop: Any
    forked: Any
    folder: Path
    stage: int | None
    lora: bool

    def flags(self, out: Path, **changes: object) -> list[str]:
        deepspeed = {} if self.stage is None else {"deepspeed": f"deepspeed_configs/zero{self.stage}.json"}
        training = {
            "max_steps": STEPS,
            "save_strategy": "steps",
            "save_steps": SAVED,
            "per_device_train_batch_size": 2,
            "weight_decay": 0.1,
            "mm_projector_lr": 5e-4,
        }
        lora = LORA if self.lora else {}
        return self.shop.flags(out, **deepspeed | training | lora | self.shop.perception_flags() | changes)

    def launch(self, out: Path, *, code: int | None = 0, **changes: object) -> Any:
        """Two ranks."""
        return self.forked(SCRIPT, *self.flags(out, **changes), ranks=2, code=code)

    def alone(self, out: Path, *, accumulation: int = 2, **changes: object) -> Any:
        """One rank; with twice the accumulation its steps have the same records."""
        flags = self.flags(out, gradient_accumulation_steps=accumulation, use_cpu=self.stage is None, **changes)
        return self.forked(SCRIPT, *flags, ranks=1)

    def name(self, place: str) -> Path:
        return self.folder / place / f"llava-aurora{'-lora' if self.lora else ''}"


@dataclass(frozen=True)
class Unbroken:
    """A run of ten steps, and the folder it left."""

    mode: Mode
    out: Path
    run: Any

    def interrupted(self, place: str) -> Path:
        """A folder as if this run had been killed after its first checkpoint."""
        out = self.mode.name(place)
        shutil.copytree(self.out / f"checkpoint-{SAVED}", out / f"checkpoint-{SAVED}")
        return out

    def differences(self, out: Path) -> torch.Tensor:
        """Between all final weights, (n,)."""
        files = ("adapter_model.safetensors", "non_lora_trainables.bin") if self.mode.lora else ("model.safetensors",)
        parts = []
        for file in files:
            ours, theirs = (read(folder / file) for folder in (out, self.out))
            assert ours.keys() == theirs.keys()
            parts += [(ours[name] - theirs[name]).abs().flatten() for name in ours]
        return torch.cat(parts)

    def loss_difference(self, run: Any) -> float:
        """The largest of a step."""
        theirs = self.run.losses[-len(run.losses) :]
        return max(abs(a["loss"] - b["loss"]) for a, b in zip(run.losses, theirs, strict=True))


def read(file: Path) -> dict[str, torch.Tensor]:
    return torch.load(file, weights_only=True) if file.suffix == ".bin" else load_file(file)


def error_of(run: Any) -> str:
    assert run.code != 0
    return next(line for line in run.output.splitlines() if line.startswith("error: "))


def kill_at(step: int, flags: list[str]) -> None:
    """Starts a run on two ranks and kills all its processes as soon as it logs `step`."""
    logged, seen = 0, []
    with begin(SCRIPT, *flags, ranks=2) as running:
        for line in running.output:
            seen.append(line)
            logged += line.startswith("{'loss'")
            if logged == step:
                running.kill()
                break
    assert logged == step, "".join(seen)[-3000:]


def test_a_killed_run_ends_as_an_unbroken_one_on_other_ranks_too(workshop, forked, tmp_path):
    """ZeRO-3 with LoRA: two ranks are killed; two go on, and one."""
    mode = Mode(workshop, forked, tmp_path, 3, True)
    whole = Unbroken(mode, mode.name("unbroken"), mode.launch(mode.name("unbroken")))
    assert len(whole.run.losses) == STEPS
    out = mode.name("killed")
    kill_at(KILLED, mode.flags(out))
    assert [path.name for path in out.glob("checkpoint-*")] == [f"checkpoint-{SAVED}"]
    half = out / ".saving-checkpoint-7" / "checkpoint-7" / "model.safetensors"
    half.parent.mkdir(parents=True)
    half.write_text("as far as it got")

    run = mode.launch(out)
    assert f"resuming from {out}/checkpoint-{SAVED}, step {SAVED}" in run.output
    assert run.losses == whole.run.losses[SAVED:] or whole.loss_difference(run) < 1e-6
    assert whole.differences(out).max() <= 1e-6
    assert not list(out.glob(".saving-*"))

    out = whole.interrupted("two_to_one")
    run = mode.alone(out)
    assert len(run.losses) == STEPS - SAVED
    assert whole.loss_difference(run) < 1e-3
    # The mean: gradients are summed in another order, and where one is almost 0, Adam makes much of its last digit.
    assert whole.differences(out).mean() <= 1e-6
    assert not list(out.glob(".saving-*"))


def test_two_ranks_resume_what_one_wrote(workshop, forked, tmp_path):
    """ZeRO-2 with all weights."""
    mode = Mode(workshop, forked, tmp_path, 2, False)
    whole = Unbroken(mode, mode.name("one"), mode.alone(mode.name("one")))
    out = whole.interrupted("one_to_two")
    run = mode.launch(out)
    assert len(run.losses) == STEPS - SAVED
    assert whole.loss_difference(run) < 1e-3
    assert whole.differences(out).mean() <= 1e-6


def test_a_run_goes_on_within_its_second_epoch_and_ends_once(workshop, forked, tmp_path):
    """LoRA without DeepSpeed. Started again when it is finished, it trains nothing more and writes its model again."""
    mode = Mode(workshop, forked, tmp_path, None, True)
    flags = {"per_device_train_batch_size": 16, "group_by_modality_length": True, "max_steps": 7, "lora_dropout": 0.05}
    whole = Unbroken(mode, mode.name("unbroken"), mode.alone(mode.name("unbroken"), accumulation=1, **flags))
    out = whole.interrupted("killed")  # at step 5, the first of the second epoch
    run = mode.alone(out, accumulation=1, **flags)
    assert run.losses == whole.run.losses[SAVED:]
    assert whole.differences(out).max() <= 1e-6

    (out / "adapter_model.safetensors").unlink()  # as if it had been killed while it wrote its model
    run = mode.alone(out, accumulation=1, **flags)
    assert f"{out}: this run is finished, 7 of 7 steps" in run.output
    assert run.losses == []
    assert whole.differences(out).max() <= 1e-6


@pytest.fixture
def poisoned(workshop, tmp_path):
    """A workshop with one record that makes the loss NaN: it has a word no other has, whose embedding is NaN."""
    shop = replace(workshop, folder=tmp_path / "poisoned")
    shutil.copytree(workshop.folder, shop.folder)
    records = json.loads(shop.records.read_text())
    tokenizer = AutoTokenizer.from_pretrained(shop.base, use_fast=False)
    texts = [turn["value"] for record in records for turn in record["conversations"]]
    around = f"{conv_templates['vicuna_v1'].get_prompt()} USER: ASSISTANT: </s>USER: \n"
    used = {token for text in [around, *texts] for token in tokenizer(text).input_ids}
    words = {token: tokenizer.decode([token]) for token in range(3, len(tokenizer)) if token not in used}
    token = next(token for token, word in words.items() if token in tokenizer(f"{texts[0]} {word}").input_ids)
    records[POISONED]["conversations"][0]["value"] += f" {words[token]}"
    shop.records.write_text(json.dumps(records))
    weights = load_file(shop.base / "model.safetensors")
    weights["model.embed_tokens.weight"][token] = float("nan")
    save_file(weights, shop.base / "model.safetensors", metadata={"format": "pt"})
    return shop, records[POISONED]["id"]


def test_a_nan_loss_ends_the_whole_job_and_names_its_records(poisoned, forked, tmp_path):
    shop, name = poisoned
    mode = Mode(shop, forked, tmp_path, 2, True)
    out = mode.name("nan")
    # New tokens would start from the mean of all words, the poisoned one among them.
    without = dict.fromkeys(shop.perception_flags())
    run = mode.launch(out, code=None, save_steps=1, max_steps=None, num_train_epochs=1, **without)
    error = error_of(run)
    saved = len(list(out.glob("checkpoint-*")))
    assert saved == len(run.losses)
    assert f"step {saved + 1}, rank" in error
    assert "the loss is nan; the batch was records" in error
    assert f"{POISONED} (id {name})" in error
    assert f"The last good checkpoint is {out}/checkpoint-{saved}." in error
    assert not (out / "adapter_model.safetensors").exists()
