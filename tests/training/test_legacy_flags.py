"""Flags as LLaVA's own scripts spell them."""

import pytest

from llava_aurora.errors import AuroraError
from llava_aurora.training.legacy_flags import translate


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("--evaluation_strategy no --seed 1", "--eval_strategy no --seed 1"),
        ("--evaluation_strategy=no", "--eval_strategy no"),
        ("--tf32 True", "--tf32 False"),
        ("--tf32", "--tf32 False"),
        ("--bf16 True --deepspeed zero3.json", "--bf16 False --deepspeed zero3.json"),
        ("--bf16 True", "--bf16 True --use_cpu True"),
        ("--report_to wandb", "--report_to tensorboard"),
        ("--report_to wandb tensorboard", "--report_to tensorboard"),
    ],
)
def test_what_would_be_refused_is_translated_with_a_line_each(before, after, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    arguments, notes = translate(before.split(), cuda=False, tf32=False)
    assert arguments == after.split()
    assert len(notes) == 1
    assert " because " in notes[0]


@pytest.mark.parametrize(
    "flags",
    ["--tf32 False --bf16 False", "--local_rank=0 --mm_vision_select_layer -2 --seed 1", "--report_to none", ""],
)
def test_everything_else_is_left_alone(flags):
    arguments, notes = translate(flags.replace("=", " ").split(), cuda=False, tf32=False)
    assert arguments == flags.replace("=", " ").split()
    assert notes == []


def test_on_a_gpu_bf16_and_tf32_stay():
    flags = ["--bf16", "True", "--tf32", "True"]
    assert translate(flags, cuda=True, tf32=True) == (flags, [])


@pytest.mark.parametrize("flag", ["--depth_data", "--coordinates_data", "--annealing_data", "--custom_image_size"])
def test_flags_of_auroras_code_name_what_replaces_them(flag):
    with pytest.raises(AuroraError, match=f"{flag} is not supported; use "):
        translate(["--seed", "1", flag, "1"], cuda=False, tf32=False)
