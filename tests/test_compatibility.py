"""What differs between the supported transformers, as far as one of them shows it."""

import json

import pytest
import torch

from llava_aurora import compatibility
from llava_aurora.compatibility import old_tower_names, present_flags, present_tower_names, write_old_rope_names
from llava_aurora.errors import AuroraError
from llava_aurora.training.resumable import ResumableTrainer


def on_five(*flags: str) -> list[str]:
    pairs = [(flag, values.split()) for flag, _, values in (flag.partition(" ") for flag in flags)]
    return [" ".join([flag, *values]) for flag, values in present_flags(pairs)[0]]


@pytest.fixture
def five(monkeypatch):
    monkeypatch.setattr(compatibility, "FIVE", True)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (["--warmup_ratio 0.03"], ["--warmup_steps 0.03"]),
        (["--warmup_ratio 0.03", "--warmup_steps 10"], ["--warmup_steps 10"]),
        (["--warmup_steps 0", "--warmup_ratio 0.03"], ["--warmup_steps 0.03"]),
        (["--no_cuda True"], ["--use_cpu True"]),
        (["--group_by_length"], ["--train_sampling_strategy group_by_length"]),
        (["--group_by_length False", "--overwrite_output_dir", "--save_safetensors True"], []),
        (["--seed 1", "--warmup_steps 0"], ["--seed 1", "--warmup_steps 0"]),
    ],
)
def test_flags_that_transformers_5_dropped_are_spelt_anew(five, before, after):
    assert on_five(*before) == after


def test_every_change_of_a_flag_is_said(five):
    pairs = [("--warmup_ratio", ["0.1"]), ("--seed", ["1"]), ("--overwrite_output_dir", [])]
    notes = present_flags(pairs)[1]
    changes = ["--warmup_ratio 0.1 to --warmup_steps 0.1 because ", "--overwrite_output_dir to nothing because "]
    assert all(note.startswith(change) for note, change in zip(notes, changes, strict=True))


@pytest.mark.parametrize("flag", ["--save_safetensors False", "--logging_dir logs"])
def test_a_flag_whose_work_none_does_is_refused(five, flag):
    with pytest.raises(AuroraError, match=flag.split()[0]):
        on_five(flag)


def test_on_4_57_every_flag_stays(monkeypatch):
    monkeypatch.setattr(compatibility, "FIVE", False)
    assert on_five("--warmup_ratio 0.03", "--no_cuda") == ["--warmup_ratio 0.03", "--no_cuda"]


@pytest.mark.parametrize(
    ("parameters", "scaling"),
    [
        ({"rope_type": "default"}, None),
        ({"rope_type": "linear", "factor": 2.0}, {"type": "linear", "factor": 2.0}),
        ({"rope_type": "yarn", "factor": 4.0}, {"rope_type": "yarn", "factor": 4.0}),
    ],
)
def test_a_config_also_has_the_names_that_older_libraries_read(tmp_path, parameters, scaling):
    parameters = {"rope_theta": 500000.0, **parameters}
    for content in ({"rope_parameters": parameters}, {"text_config": {"rope_parameters": parameters}}):
        (tmp_path / "config.json").write_text(json.dumps(content))
        write_old_rope_names(tmp_path)
        written = json.loads((tmp_path / "config.json").read_text())
        part = written.get("text_config", written)
        assert part == {"rope_parameters": parameters, "rope_theta": 500000.0, "rope_scaling": scaling}


@pytest.mark.parametrize("scaling", [None, {"rope_type": "linear", "type": "linear", "factor": 2.0}])
def test_what_4_57_writes_is_read_by_4_37_too(tmp_path, scaling):
    (tmp_path / "config.json").write_text(json.dumps({"rope_theta": 300.0, "rope_scaling": scaling}))
    write_old_rope_names(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    assert written == {"rope_theta": 300.0, "rope_scaling": scaling and {"type": "linear", "factor": 2.0}}


@pytest.mark.parametrize(("five", "refused"), [(True, "4.57.6"), (False, "5.24.0")])
def test_deepspeeds_states_of_the_other_stack_are_refused_by_name(tmp_path, monkeypatch, five, refused):
    monkeypatch.setattr(compatibility, "FIVE", five)
    for version in ("4.57.6", "5.24.0", None):
        (tmp_path / "config.json").write_text(json.dumps({"transformers_version": version}))
        if version != refused:
            ResumableTrainer._check_states(tmp_path)
            continue
        with pytest.raises(AuroraError, match=f"{tmp_path}: .*transformers {version}"):
            ResumableTrainer._check_states(tmp_path)


def test_a_towers_tensors_have_one_name_in_files(monkeypatch):
    one, other, word = torch.zeros(1), torch.ones(1), torch.ones(2)
    old = {"a.tower.vision_model.x": one, "a.tower.vision_model.y.z": other, "a.embed": word}
    new = {"a.tower.x": one, "a.tower.y.z": other, "a.embed": word}
    assert old_tower_names(new, "tower.") == old_tower_names(old, "tower.") == old
    assert old_tower_names({"x": one, "vision_model.y": other}) == {"vision_model.x": one, "vision_model.y": other}
    for five, present in ((True, new), (False, old)):
        monkeypatch.setattr(compatibility, "FIVE", five)
        assert present_tower_names(old, "tower.") == present
