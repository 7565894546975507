"""What a checkpoint folder goes through without a run: its name, its record, what may be read from it."""

import json
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from deepspeed.runtime.checkpoint_engine.torch_checkpoint_engine import TorchCheckpointEngine
from llava.train.llava_trainer import LLaVATrainer

from llava_aurora.errors import AuroraError
from llava_aurora.training.checkpoint_folder import (
    MANIFEST,
    RunRecord,
    check_optimizer_states,
    check_whole,
    clear_leftovers,
    damage_of,
    put_in_place,
    staging_for,
    write_manifest,
)
from llava_aurora.training.resumable import ResumableTrainer
from llava_aurora.training.run_lock import run_lock
from llava_aurora.training.safe_loading import FORBID, FORCE, weights_only_loading
from llava_aurora.training.trained_weights import load_exactly
from llava_aurora.training.world_size import check_convertible

WRITTEN = RunRecord(
    world_size=2,
    per_device_batch=4,
    accumulation=2,
    zero_stage=3,
    lora=False,
    order={"seed": 42, "curriculum": ""},
    data_path="train.json",
    records=64,
    perception={"tokens": {"depth": {"count": 18}}},
)


def write(folder, content="new"):
    folder.mkdir(parents=True)
    (folder / "weights").write_text(content)


def test_a_checkpoint_appears_whole_and_replaces_an_older_one(tmp_path):
    final = tmp_path / "checkpoint-5"
    for content in ("first", "second"):
        staging = staging_for(tmp_path, final.name)
        write(staging / final.name, content)
        put_in_place(staging, final)
        assert (final / "weights").read_text() == content
        assert os.listdir(tmp_path) == ["checkpoint-5"]
        assert json.loads((final / MANIFEST).read_text())["weights"]["size"] == len(content)
    with pytest.raises(FileNotFoundError):
        put_in_place(staging, final)
    assert (final / "weights").read_text() == "second"


def test_leftovers_go_and_what_was_to_be_replaced_comes_back(tmp_path):
    write(tmp_path / "checkpoint-5")
    write(staging_for(tmp_path, "checkpoint-10") / "checkpoint-10", "half")
    write(staging_for(tmp_path, "checkpoint-8") / "checkpoint-8", "half")
    write(staging_for(tmp_path, "checkpoint-8") / "replaced", "old")
    clear_leftovers(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["checkpoint-5", "checkpoint-8"]
    assert (tmp_path / "checkpoint-8" / "weights").read_text() == "old"


@pytest.fixture
def checkpoint(tmp_path):
    """Writes checkpoint-N as a run with DeepSpeed leaves it."""

    def make(step: int) -> Path:
        folder = tmp_path / f"checkpoint-{step}"
        (folder / f"global_step{step}").mkdir(parents=True)
        WRITTEN.write(folder)
        (folder / "latest").write_text(f"global_step{step}")
        for name in ("trainer_state.json", "rng_state_0.pth", "scheduler.pt", f"global_step{step}/optim_states.pt"):
            (folder / name).write_bytes(name.encode() * 100)
        write_manifest(folder)
        return folder

    return make


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("harm", [Path.unlink, flip, lambda file: file.write_bytes(file.read_bytes()[:-1])])
def test_any_damaged_file_is_named(checkpoint, harm):
    folder = checkpoint(5)
    assert damage_of(folder) is None
    files = [file for file in folder.rglob("*") if file.is_file() and file.name != MANIFEST]
    assert len(files) == 6
    for file in files:
        content = file.read_bytes()
        harm(file)
        with pytest.raises(AuroraError, match=f"^{folder}: .*{file.name} .*newest-whole"):
            check_whole(folder)
        file.write_bytes(content)
    (folder / MANIFEST).write_text("[]")
    assert "is damaged" in damage_of(folder)


@pytest.mark.parametrize("name", ["", "..", "../other", "/tmp", "missing", "\0"])
def test_latest_names_a_folder_inside_the_checkpoint(checkpoint, name):
    folder = checkpoint(5)
    (folder.parent / "other").mkdir()
    check_optimizer_states(folder, "latest")
    (folder / "latest").write_text(name)
    with pytest.raises(AuroraError, match=f"{folder}/latest"):
        check_optimizer_states(folder, "latest")


@pytest.fixture
def chosen(tmp_path):
    """Which checkpoint a run takes that is started with a flag, where LLaVA's train() has seen one."""

    def choose(flag: str | None) -> Path | None:
        trainer = object.__new__(ResumableTrainer)
        ranks = {"process_index": 0, "local_process_index": 0}
        trainer.args = SimpleNamespace(output_dir=str(tmp_path), resume_from_checkpoint=flag, **ranks)
        trainer.accelerator = SimpleNamespace(wait_for_everyone=lambda: None)
        trainer.is_world_process_zero = lambda: True
        return trainer._chosen_checkpoint(True)

    return choose


def test_what_is_resumed_is_chosen_by_the_flag(checkpoint, chosen, tmp_path, capsys):
    five, ten = checkpoint(5), checkpoint(10)
    write(tmp_path / "checkpoint-100")  # never finished
    write(tmp_path / "checkpoint-notes")
    assert chosen(None) == chosen("True") == chosen("newest-whole") == ten
    assert chosen("false") is None
    assert chosen(str(five)) == five
    flip(ten / "rng_state_0.pth")
    with pytest.raises(AuroraError, match=r"rng_state_0\.pth is damaged"):
        chosen(None)
    capsys.readouterr()
    assert chosen("newest-whole") == five
    assert f"{ten}: not taken, rng_state_0.pth" in capsys.readouterr().out
    with pytest.raises(AuroraError, match="checkpoint-6: no such folder"):
        chosen(str(tmp_path / "checkpoint-6"))


@pytest.mark.parametrize("name", ["trainer_state.json", "aurora_run.json"])
def test_a_checkpoint_that_lost_a_file_is_not_passed_over_in_silence(checkpoint, chosen, name):
    checkpoint(5)
    (checkpoint(10) / name).unlink()
    with pytest.raises(AuroraError, match=rf"checkpoint-10: {name} missing; resume from the newest undamaged"):
        chosen(None)


def test_a_folder_without_any_checkpoint_to_resume(chosen, tmp_path):
    with pytest.raises(AuroraError, match="holds no checkpoint to resume"):
        chosen("True")
    write(tmp_path / "checkpoint-100")
    with pytest.raises(AuroraError, match=r"aurora_run.json and trainer_state.json and aurora_manifest.json missing"):
        chosen("True")


def test_nothing_is_unpickled_while_a_run_is_resumed(monkeypatch):
    seen = []
    trainer = object.__new__(ResumableTrainer)
    monkeypatch.setattr(LLaVATrainer, "train", lambda *_: seen.append(os.environ.get(FORCE)))
    for method in ("_clear_leftovers", "_chosen_checkpoint", "_refuse_broken_weights"):
        monkeypatch.setattr(trainer, method, lambda _: None, raising=False)
    trainer.args = SimpleNamespace(output_dir="out")
    trainer.train()
    assert seen == ["1"]


def test_weights_of_another_run_or_none_are_refused(tmp_path):
    model, file = torch.nn.Linear(2, 1), tmp_path / "mm_projector.bin"
    with pytest.raises(AuroraError, match=f"{file}: missing"):
        load_exactly(model, file, names={"weight"})
    torch.save({"weight": torch.ones(1, 2), "bias": torch.ones(1)}, file)
    with pytest.raises(AuroraError, match=f"{file}: bias is trained in the file only"):
        load_exactly(model, file, names={"weight"})
    load_exactly(model, file, names={"weight", "bias"})
    assert model.weight.tolist() == [[1, 1]]


def test_weights_that_are_not_finite_end_the_run_unsaved(checkpoint, tmp_path):
    trainer = object.__new__(ResumableTrainer)
    trainer.model = torch.nn.Linear(2, 1)
    trainer.args = SimpleNamespace(output_dir=str(tmp_path), device=torch.device("cpu"))
    trainer.state = SimpleNamespace(global_step=7)
    trainer._refuse_broken_weights("checkpoint-7")
    torch.nn.init.constant_(trainer.model.bias, float("nan"))
    with pytest.raises(AuroraError, match=r"step 7: bias .*checkpoint-7 is not saved. No checkpoint"):
        trainer._refuse_broken_weights("checkpoint-7")
    with pytest.raises(AuroraError, match=f"--resume_from_checkpoint {checkpoint(5)}"):
        trainer._refuse_broken_weights("checkpoint-7")


def test_a_second_run_is_refused_and_told_which_one_is_first(tmp_path):
    script = "from llava_aurora.training.run_lock import *\nimport sys\nwith run_lock(Path(sys.argv[1])): input(1)"
    command = [sys.executable, "-uc", script, str(tmp_path)]
    first = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert first.stdout.read(1) == "1"
    with pytest.raises(AuroraError, match=f"process {first.pid} on "), run_lock(tmp_path):
        pass
    first.kill()
    first.communicate()
    with run_lock(tmp_path):
        pass


def test_a_record_reads_as_it_was_written(tmp_path):
    WRITTEN.write(tmp_path)
    assert RunRecord.read(tmp_path) == WRITTEN


@pytest.mark.parametrize(
    "changes",
    [{}, {"world_size": 1, "accumulation": 4}, {"world_size": 4, "accumulation": 1}, {"data_path": "moved.json"}],
)
def test_a_run_goes_on_with_the_same_order_of_records(changes):
    WRITTEN.check(Path("checkpoint-5"), replace(WRITTEN, **changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"perception": None}, "aurora.tokens is present there, missing here"),
        ({"perception": {"tokens": {"depth": {"count": 130}}}}, "aurora.tokens.depth.count is 18 there, 130 here"),
        ({"lora": True}, "set --lora_enable False"),
        ({"zero_stage": 2}, "written with ZeRO-3, this run has ZeRO-2; start with deepspeed_configs/zero3.json"),
        ({"zero_stage": None}, "this run has no DeepSpeed"),
        (
            {"world_size": 1},
            r"16 records \(2 ranks × 4 × 2 accumulation steps\), in this run it has 8 records"
            r".*--per_device_train_batch_size 4 --gradient_accumulation_steps 4",
        ),
        ({"per_device_batch": 8, "accumulation": 1}, "set --per_device_train_batch_size 4"),
        ({"world_size": 3}, "start a number of ranks that divides 4"),
        ({"records": 63, "data_path": "other.json"}, r"64 records \(train.json\), this run has 63 \(other.json\)"),
        ({"order": {"seed": 7, "curriculum": ""}}, r"\(--seed is 7 now\); set --seed 42"),
        ({"order": {"seed": 42, "curriculum": "linear"}}, "leave out --curriculum"),
    ],
)
def test_another_run_is_refused(changes, message):
    with pytest.raises(AuroraError, match=f"checkpoint-5: .*{message}.*--resume_from_checkpoint False"):
        WRITTEN.check(Path("checkpoint-5"), replace(WRITTEN, **changes))


def test_other_ranks_need_all_parts(tmp_path):
    write(tmp_path / "global_step5")
    with pytest.raises(AuroraError, match="written by 2 ranks, this run has 1, but 0 of its 2 parts are here"):
        check_convertible(tmp_path, WRITTEN, 1)
    with pytest.raises(AuroraError, match="works with ZeRO-1, ZeRO-2, ZeRO-3 and without DeepSpeed; start 2 ranks"):
        check_convertible(tmp_path, replace(WRITTEN, zero_stage=0), 1)


class Malicious:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickled_object_is_refused_by_the_file_s_name(tmp_path, zipped):
    file, marker = tmp_path / "optim_states.pt", tmp_path / "marker"
    torch.save({"step": Malicious(marker)}, file, _use_new_zipfile_serialization=zipped)
    called, arguments = Malicious(marker).__reduce__()
    called(*arguments)
    assert marker.is_dir(), "nothing would be seen of what the file runs"
    marker.rmdir()
    with (
        pytest.raises(AuroraError, match=r"optim_states.pt: not loaded: it holds \S+\.mkdir as a pickled object"),
        weights_only_loading(),
    ):
        TorchCheckpointEngine().load(str(file))
    assert not marker.exists()


def test_a_damaged_file_is_named(tmp_path):
    file = tmp_path / "optim_states.pt"
    torch.save({"step": torch.zeros(1000)}, file, _use_new_zipfile_serialization=False)
    file.write_bytes(file.read_bytes()[:-2000])
    with pytest.raises(AuroraError, match=r"optim_states.pt: not loaded: the file is damaged"), weights_only_loading():
        TorchCheckpointEngine().load(str(file))


def test_what_deepspeed_pickles_is_read(tmp_path):
    from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler, LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    scaler = DynamicLossScaler(2.0**16, 2.0, 1000, 1.0, 1, False, dtype=torch.float16)
    held = {"a": LossScaler(1.0), "b": scaler, "c": ZeroStageEnum.weights, "d": fragment_address(4, 2)}
    torch.save(held, tmp_path / "states.pt", _use_new_zipfile_serialization=False)
    with weights_only_loading():
        read = TorchCheckpointEngine().load(str(tmp_path / "states.pt"))
    assert (read["c"], read["d"]) == (ZeroStageEnum.weights, fragment_address(4, 2))
    assert read["b"].cur_scale == 2.0**16


class Getattr:
    """Pickled as the attribute of an object."""

    def __init__(self, holder, name):
        self.holder, self.name = holder, name

    def __reduce__(self):
        return getattr, (self.holder, self.name)


def test_an_enumeration_as_some_pythons_pickle_it_is_read_and_no_other_attribute(tmp_path):
    from deepspeed.runtime.fp16.loss_scaler import LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum

    path = tmp_path / "states.pt"
    torch.save({"stage": Getattr(ZeroStageEnum, "weights")}, path)
    with weights_only_loading():
        assert TorchCheckpointEngine().load(str(path)) == {"stage": ZeroStageEnum.weights}
    torch.save({"scaler": Getattr(LossScaler, "backward")}, path)
    with pytest.raises(AuroraError, match=r"states.pt: not loaded: it holds builtins.getattr"), weights_only_loading():
        TorchCheckpointEngine().load(str(path))


def test_the_guard_ends_with_its_block_and_other_errors_pass(monkeypatch):
    monkeypatch.setenv(FORBID, "1")
    with pytest.raises(pickle.UnpicklingError, match="mine"), weights_only_loading():
        assert os.environ[FORCE] == "1"
        assert FORBID not in os.environ
        raise pickle.UnpicklingError("mine")
    assert FORCE not in os.environ
    assert os.environ[FORBID] == "1"
