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
from test_resume_folder import Malicious
from transformers import AutoTokenizer

from llava_aurora.training.safe_loading import safe_classes

pytestmark = [pytest.mark.slow, pytest.mark.deepspeed]
ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "finetune_aurora.sh"
STEPS, SAVED, KILLED = 10, 5, 6
POISONED = 11
LORA = {"lora_enable": True, "lora_r": 8, "lora_alpha": 16, "lora_dropout": 0.05}
MODES = [(stage, lora) for stage in (2, 3) for lora in (False, True)]
NAMES = [f"zero{stage}-{'lora' if lora else 'full'}" for stage, lora in MODES]


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

    def launch(self, out: Path, **changes: object) -> Any:
        """Two ranks."""
        return self.forked(SCRIPT, *self.flags(out, **changes), ranks=2)

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


@pytest.fixture(scope="module")
def unbroken(workshop, forked, tmp_path_factory):
    """The unbroken run of a mode; each is run once."""
    runs: dict[tuple[int | None, bool], Unbroken] = {}

    def of(stage: int | None, lora: bool) -> Unbroken:
        if (stage, lora) not in runs:
            mode = Mode(workshop, forked, tmp_path_factory.mktemp("resume"), stage, lora)
            out = mode.name("unbroken")
            run = mode.alone(out, accumulation=1) if stage is None else mode.launch(out)
            assert run.code == 0, run.output[-3000:]
            assert len(run.losses) == STEPS
            runs[stage, lora] = Unbroken(mode, out, run)
        return runs[stage, lora]

    return of


@pytest.mark.parametrize(("stage", "lora"), MODES, ids=NAMES)
def test_a_killed_run_ends_as_an_unbroken_one(unbroken, stage, lora):
    whole = unbroken(stage, lora)
    out = whole.mode.name("killed")
    kill_at(KILLED, whole.mode.flags(out))
    assert [path.name for path in out.glob("checkpoint-*")] == [f"checkpoint-{SAVED}"]
    half = out / ".saving-checkpoint-7" / "checkpoint-7" / "model.safetensors"
    half.parent.mkdir(parents=True)
    half.write_text("as far as it got")

    run = whole.mode.launch(out)
    assert run.code == 0, run.output[-3000:]
    assert f"resuming from {out}/checkpoint-{SAVED}, step {SAVED}" in run.output
    assert run.losses == whole.run.losses[SAVED:] or whole.loss_difference(run) < 1e-6
    assert whole.differences(out).max() <= 1e-6
    assert not list(out.glob(".saving-*"))


@pytest.mark.parametrize(("stage", "lora"), MODES, ids=NAMES)
def test_one_rank_goes_on_with_what_two_wrote(unbroken, stage, lora):
    whole = unbroken(stage, lora)
    out = whole.interrupted("two_to_one")
    run = whole.mode.alone(out)
    assert run.code == 0, run.output[-3000:]
    assert len(run.losses) == STEPS - SAVED
    if lora:  # another dropout: random states belong to a rank
        assert whole.loss_difference(run) < 0.05
    else:
        assert whole.loss_difference(run) < 1e-3
        assert whole.differences(out).mean() <= 1e-6
    assert not list(out.glob(".saving-*"))


@pytest.mark.parametrize("stage", [2, 3])
def test_two_ranks_go_on_with_what_one_wrote(unbroken, stage):
    mode = unbroken(stage, False).mode
    whole = Unbroken(mode, mode.name("one"), mode.alone(mode.name("one")))
    out = whole.interrupted("one_to_two")
    run = mode.launch(out)
    assert run.code == 0, run.output[-3000:]
    assert len(run.losses) == STEPS - SAVED
    assert whole.loss_difference(run) < 1e-3
    # The mean: gradients are summed in another order, and where one is almost 0, Adam makes much of its last digit.
    assert whole.differences(out).mean() <= 1e-6


@pytest.mark.parametrize("ranks", [2, 1])
def test_a_foreign_pickle_is_not_opened(unbroken, tmp_path, ranks):
    whole = unbroken(2, False)
    out, marker = whole.interrupted(f"malicious_{ranks}"), tmp_path / "marker"
    file = next(out.rglob("zero_pp_rank_1_*_optim_states.pt"))
    with torch.serialization.safe_globals(safe_classes()):
        states = torch.load(file, weights_only=True)
    torch.save(states | {"ds_version": Malicious(marker)}, file, _use_new_zipfile_serialization=False)
    run = whole.mode.launch(out) if ranks == 2 else whole.mode.alone(out)
    assert f"{file}: not loaded: it holds posix.mkdir as a pickled object" in error_of(run)
    assert not marker.exists()


def test_lora_goes_on_without_deepspeed(unbroken):
    whole = unbroken(None, True)
    out = whole.interrupted("killed")
    # What the newest one would be if its saving had been cut off: not whole, and passed over.
    (out / "checkpoint-7").mkdir()
    run = whole.mode.alone(out, accumulation=1)
    assert run.code == 0, run.output[-3000:]
    assert run.losses == whole.run.losses[SAVED:]
    assert whole.differences(out).max() <= 1e-6

    weights = out / f"checkpoint-{SAVED}" / "non_lora_trainables.bin"
    weights.unlink()
    refused = whole.mode.alone(out, accumulation=1, resume_from_checkpoint=weights.parent)
    assert f"{weights}: missing; without it projector and token rows would start anew" in error_of(refused)


def test_what_to_resume_is_said_by_the_flag(unbroken):
    whole = unbroken(None, True)
    out = whole.interrupted("flag")
    none = whole.mode.alone(out, accumulation=1, resume_from_checkpoint=out / "checkpoint-6")
    assert f"error: {out}/checkpoint-6: no such folder; give a checkpoint-N, or start anew" in error_of(none)
    other = whole.mode.alone(out, accumulation=1, perception_modalities="box", depth_vqvae=None)
    assert f"error: {out}/checkpoint-5: its perception tokens are others" in error_of(other)
    anew = whole.mode.alone(out, accumulation=1, resume_from_checkpoint=False, max_steps=1, save_strategy="no")
    assert anew.code == 0, anew.output[-3000:]
    assert "resuming from" not in anew.output
    assert anew.losses[0]["loss"] == whole.run.losses[0]["loss"]


@pytest.mark.parametrize("grouped", [False, True])
def test_a_run_goes_on_within_its_second_epoch(workshop, forked, tmp_path, grouped):
    mode = Mode(workshop, forked, tmp_path, None, False)
    flags = {"per_device_train_batch_size": 16, "group_by_modality_length": grouped, "max_steps": 8}
    whole = Unbroken(mode, mode.name("unbroken"), mode.alone(mode.name("unbroken"), accumulation=1, **flags))
    out = whole.interrupted("killed")  # at step 5, the first of the second epoch
    run = mode.alone(out, accumulation=1, **flags)
    assert run.losses == whole.run.losses[SAVED:]
    assert whole.differences(out).max() <= 1e-6


def test_steps_of_several_lengths_have_the_same_records_on_other_ranks(workshop, forked, tmp_path):
    mode = Mode(workshop, forked, tmp_path, 2, False)
    flags = {"curriculum": "linear", "group_by_modality_length": True, "lengths_per_step": 2, "max_steps": 5}
    two, one = mode.launch(mode.name("two"), **flags), mode.alone(mode.name("one"), **flags)
    assert len(two.losses) == 5
    assert Unbroken(mode, mode.name("two"), two).loss_difference(one) < 1e-3
    refused = mode.alone(mode.name("refused"), accumulation=1, **flags)
    assert "--lengths_per_step 2: a step has 1 batches (1 ranks × 1 accumulation steps)" in error_of(refused)


def test_weights_that_are_not_finite_are_not_saved(workshop, forked, tmp_path):
    mode = Mode(workshop, forked, tmp_path, None, False)
    # A decay this strong makes the first step's weights infinite; its loss, of the weights before, is fine.
    flags = {"optim": "sgd", "learning_rate": 1e38, "weight_decay": 1e4, "mm_projector_lr": None}
    run = mode.alone(mode.name("broken"), save_steps=1, **flags)
    assert "holds NaN or infinity, checkpoint-1 is not saved. No checkpoint was saved before" in error_of(run)
    assert not list(mode.name("broken").glob("*checkpoint*"))


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
    run = mode.launch(out, save_steps=1, max_steps=None, num_train_epochs=1, **without)
    error = error_of(run)
    saved = len(list(out.glob("checkpoint-*")))
    assert saved == len(run.losses)
    assert f"step {saved + 1}, rank" in error
    assert "the loss is nan; the batch was records" in error
    assert f"{POISONED} (id {name})" in error
    assert f"The last good checkpoint is {out}/checkpoint-{saved}." in error
    assert not (out / "adapter_model.safetensors").exists()
