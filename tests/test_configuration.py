"""The flags of a training run: LLaVA's, and ours."""

import pytest
from llava.train import train as upstream
from transformers import HfArgumentParser

from llava_aurora.configuration import DataArguments, ModelArguments, TrainingArguments
from llava_aurora.errors import AuroraError


def parse(*flags: str):
    parser = HfArgumentParser((ModelArguments, DataArguments, TrainingArguments))
    return parser.parse_args_into_dataclasses(["--output_dir", "out", "--use_cpu", "True", *flags])


def test_without_ours_every_flag_has_upstreams_default():
    ours = parse()
    theirs = HfArgumentParser(
        (upstream.ModelArguments, upstream.DataArguments, upstream.TrainingArguments)
    ).parse_args_into_dataclasses(["--output_dir", "out", "--use_cpu", "True"])
    changed = {"logging_nan_inf_filter", "logging_dir"}  # NaN is shown; logging_dir holds the time of day
    for mine, original in zip(ours, theirs, strict=True):
        for name, value in vars(original).items():
            if name not in changed and not name.startswith(("_", "distributed", "deepspeed")):
                assert getattr(mine, name) == value, name


def test_a_nan_is_shown_as_nan():
    assert parse()[2].logging_nan_inf_filter is False


def test_modalities_and_their_settings():
    model, _, _ = parse("--perception_modalities", "depth, box", "--depth_vqvae", "vq", "--coordinate_frame", "112")
    assert model.kind_settings() == {"depth": {"vqvae": "vq"}, "box": {"frame": 112}}
    assert parse()[0].kind_settings() == {}


def test_settings_of_other_modalities_are_json():
    flags = ("--perception_modalities", "flow", "--modality_options")
    assert parse(*flags, '{"flow": {"levels": 8}}')[0].kind_settings() == {"flow": {"levels": 8}}
    for options, message in (
        ("{", "not valid JSON"),
        ('{"flow": 8}', "must map names to settings"),
        ('{"flo": {}}', "names flo, not in --perception_modalities"),
    ):
        with pytest.raises(AuroraError, match=message):
            parse(*flags, options)[0].kind_settings()
