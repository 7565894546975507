"""What a checkpoint folder goes through without a run: its name, its record, what may be read from it."""

import os
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from deepspeed.runtime.checkpoint_engine.torch_checkpoint_engine import TorchCheckpointEngine

from llava_aurora.errors import AuroraError
from llava_aurora.training.checkpoint_folder import (
    RunRecord,
    check_whole,
    clear_leftovers,
    newest_whole,
    put_in_place,
    staging_for,
)
from llava_aurora.training.safe_loading import FORBID, FORCE, weights_only_loading
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


def test_the_newest_whole_checkpoint_is_found_by_number(tmp_path):
    for step in (5, 10, 100):
        write(tmp_path / f"checkpoint-{step}")
    write(tmp_path / "checkpoint-notes")
    assert newest_whole(tmp_path) is None
    for step in (5, 10):
        WRITTEN.write(tmp_path / f"checkpoint-{step}")
        (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text("{}")
    assert newest_whole(tmp_path) == tmp_path / "checkpoint-10"
    with pytest.raises(AuroraError, match=r"aurora_run.json and trainer_state.json missing.*give a checkpoint-N"):
        check_whole(tmp_path / "checkpoint-100")


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
