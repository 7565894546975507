"""Recipes and the command line: who wins, what is missing, what cannot work; no model is loaded."""

import argparse
import json
import shutil
import socket
import sys
from pathlib import Path

import pytest

from llava_aurora import installation
from llava_aurora.configuration import ModelArguments
from llava_aurora.errors import AuroraError
from llava_aurora.training import integration, train
from llava_aurora.training.command_line import UsageError, flag_parser
from llava_aurora.training.flag_checks import attention_kernel, check_flags, names_tasks
from llava_aurora.training.legacy_flags import translate
from llava_aurora.training.recipes import DROP_IN, RECIPES, fill, find_recipe, given, missing

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def parser():
    integration.register()
    yield flag_parser(DROP_IN, {})
    integration.unregister()


def parsed(parser: argparse.ArgumentParser, recipe: str, flags: str) -> argparse.Namespace:
    return parser.parse_args(present(fill(flags.split(), RECIPES[recipe].defaults(ROOT))))


def present(arguments: list[str]) -> list[str]:
    """In the spelling of the installed transformers, as train.run has it before it parses."""
    return translate(arguments, cuda=True, tf32=True)[0]


@pytest.mark.parametrize("name", RECIPES)
def test_every_flag_of_a_recipe_exists_and_its_files_are_there(parser, name):
    recipe = RECIPES[name]
    flags = parser.parse_args(present(fill([], recipe.defaults(ROOT))))
    assert given(present([f"--{name}=1" for name in recipe.flags])) <= set(vars(flags))
    assert Path(flags.deepspeed).is_file()
    assert (ROOT / recipe.script).is_file()


def test_the_papers_recipe(parser):
    flags = parsed(parser, "aurora_lora", "--data_path train.json")
    assert (flags.lora_enable, flags.lora_r, flags.lora_alpha) == (True, 128, 256)
    assert (flags.learning_rate, flags.mm_projector_lr, flags.per_device_train_batch_size) == (2e-4, 2e-5, 16)
    warmup = getattr(flags, "warmup_ratio", flags.warmup_steps)
    assert (flags.lr_scheduler_type, warmup, flags.model_max_length) == ("cosine", 0.03, 2048)
    assert (flags.curriculum, flags.num_train_epochs, flags.group_by_modality_length) == ("linear", 10, True)
    assert not flags.train_base_vocabulary


@pytest.mark.parametrize(
    ("flags", "name", "value"),
    [
        *(("--lora_r=8", "lora_r", 8), ("--lora-r 8", "lora_r", 8), ("--lora_enable False", "lora_enable", False)),
        *(("--learning_ra 1", "learning_rate", 1.0), ("--curriculum=", "curriculum", "")),
        ("--mm-use-im-patch-token", "mm_use_im_patch_token", True),
    ],
)
def test_the_users_flag_wins_in_any_spelling(parser, flags, name, value):
    assert getattr(parsed(parser, "aurora_lora", flags), name) == value


def test_flags_are_known_in_every_spelling():
    arguments = ["--evaluation_strategy=no", "--lora-r", "8", "--no_double_quant", "value", "--local_rank=0"]
    assert given(arguments) == {"eval_strategy", "lora_r", "double_quant", "local_rank"}


@pytest.mark.parametrize(
    ("flags", "absent"),
    [
        ("", ["model_name_or_path", "data_path"]),
        ("--data-path train.json", ["model_name_or_path"]),
        ("--model_name base --data_pa=train.json", []),
    ],
)
def test_what_is_missing(flags, absent):
    assert missing(flags.split(), DROP_IN.needs) == absent


def test_an_unknown_recipe_is_refused():
    with pytest.raises(AuroraError, match="unknown recipe 'best'; available: aurora_lora, pretrain"):
        find_recipe("best")


def test_tensorboard_is_the_default_log(parser):
    flags = [parser.parse_args(fill(given, train.REPORT_TO)).report_to for given in ([], ["--report_to", "none"])]
    assert flags[0] in ("tensorboard", ["tensorboard"])
    assert flags[1] in ("none", ["none"])


def test_an_unknown_flag_is_a_usage_error(parser):
    with pytest.raises(UsageError, match="unrecognized arguments: --lern_rate 1"):
        parser.parse_args(["--lern_rate", "1"])


# --- Checks before the model is loaded --------------------------------------------------------------------------------


@pytest.fixture
def check(parser, workshop, tmp_path):
    def run(**changes: object) -> None:
        check_flags(parser.parse_args(workshop.flags(tmp_path / "out", **changes)))

    return run


def test_a_sound_command_line_passes(check, workshop):
    check(deepspeed=ROOT / "deepspeed_configs" / "zero3.json", **workshop.perception_flags())
    check(deepspeed='{"zero_optimization": {"stage": 2}}', image_folder=None)


@pytest.mark.parametrize(("layers", "problem"), [(7, "weights lack"), (1, "no place for")])
@pytest.mark.parametrize(("tower", "trained"), [("{base}/vision_tower", False), ("vision_tower", False), ("/x", True)])
def test_a_vision_tower_of_other_layers_is_refused_before_loading(
    check, workshop, tmp_path, layers, problem, tower, trained
):
    base = shutil.copytree(workshop.base, tmp_path / "base")
    for file, changed in {
        base / "vision_tower" / "config.json": {"num_hidden_layers": layers},
        base / "config.json": {"mm_vision_tower": tower.format(base=base), "mm_vision_tower_trained": trained},
    }.items():
        file.write_text(json.dumps(json.loads(file.read_text()) | changed))
    with pytest.raises(AuroraError, match=f"{base}/vision_tower: .*{problem}"):
        check(model_name_or_path=base)


def test_names_on_the_hub_are_not_taken_for_paths(check):
    with pytest.raises(
        AuroraError, match=r"owner/nowhere: config.json cannot be read .*on the hub"
    ):  # tests are offline
        check(model_name_or_path="owner/nowhere", vision_tower="openai/clip-vit-large-patch14-336")


def test_an_output_folder_that_cannot_be_written_is_named(check, tmp_path):
    (tmp_path / "out").touch()
    for folder in (tmp_path / "out", tmp_path / "out" / "run", "/proc/run"):
        with pytest.raises(AuroraError, match=f"--output_dir {folder}: cannot be written"):
            check(output_dir=folder)


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ({"config.json": '{"model_type": "llava_llama"}', "adapter_config.json": "{}"}, "llava-aurora merge"),
        ({"config.json": '{"model_type": "llava_llama"}', "mm_projector.bin": ""}, "--pretrain_mm_mlp_adapter"),
        ({"config.json": '{"model_type": "gpt2"}'}, "model_type 'gpt2'"),
        ({}, "model_type None"),
    ],
)
def test_a_base_that_cannot_be_trained_is_refused_before_loading(check, tmp_path, files, problem):
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(AuroraError, match=f"{tmp_path}: .*{problem}"):
        check(model_name_or_path=tmp_path)


def test_records_without_tasks_are_told_from_others_before_a_model_is_loaded(tmp_path):
    plain = {"id": "1", "conversations": [{"from": "human", "value": "?"}, {"from": "gpt", "value": "!"}]}
    for name, records in {"plain": [plain, 5], "tasks": [plain, {**plain, "aurora": {"task": "depth_chain"}}]}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(records))
        assert names_tasks(str(tmp_path / f"{name}.json")) is (name == "tasks")


def test_a_base_is_kept_as_an_absolute_path_and_never_taken_for_mpt(workshop, monkeypatch, tmp_path):
    (tmp_path / "prompts").symlink_to(workshop.base)
    monkeypatch.chdir(tmp_path)
    arguments = ModelArguments(model_name_or_path="prompts", vision_tower="prompts/vision_tower")
    assert arguments.model_name_or_path == str(tmp_path / "prompts")
    assert arguments.vision_tower == str(tmp_path / "prompts" / "vision_tower")
    assert "mpt" not in arguments.model_name_or_path
    assert "prompts" in arguments.model_name_or_path


@pytest.mark.parametrize(
    ("flag", "remedy"),
    [
        ("data_path", "llava-aurora data records"),
        ("image_folder", "the folder that"),
        ("deepspeed", "deepspeed_configs/"),
        ("vision_tower", "on the Hugging Face hub"),
        ("model_name_or_path", "on the Hugging Face hub"),
        ("eval_data_path", "JSON"),
        ("pretrain_mm_mlp_adapter", "pretrain_aurora.sh"),
    ],
)
def test_a_missing_file_is_named_with_its_flag_and_a_remedy(check, flag, remedy):
    with pytest.raises(AuroraError, match=f"^--{flag} /nowhere/at/all: no such file") as error:
        check(**{flag: "/nowhere/at/all"})
    assert remedy in str(error.value)


def test_a_record_without_its_image_is_named_before_loading(check, tmp_path):
    (tmp_path / "there.png").touch()
    records = [{"id": name, "image": f"{name}.png", "conversations": []} for name in ("there", "gone")]
    (tmp_path / "train.json").write_text(json.dumps(records))
    with pytest.raises(AuroraError, match=f"train.json: record 1: its image gone.png is not in .*{tmp_path}"):
        check(data_path=tmp_path / "train.json", image_folder=tmp_path)


@pytest.mark.parametrize(("vqvae", "problem"), [(None, "is missing"), ("/nowhere", "no such file")])
def test_depth_tokens_need_their_vqvae(check, vqvae, problem):
    with pytest.raises(AuroraError, match=f"--depth_vqvae .*{problem}"):
        check(perception_modalities="depth,box", depth_vqvae=vqvae)
    check(perception_modalities="box", depth_vqvae=None)


def test_values_need_the_coordinates_that_they_stand_behind(check):
    check(value_step="interpolated")
    with pytest.raises(AuroraError, match="--value_step writes each value after coordinates, which --coordinate_step"):
        check(value_step="interpolated", coordinate_step=False)
    with pytest.raises(AuroraError, match="--value_step True: available: interpolated"):
        check(value_step="True")


def test_a_base_of_resized_images_is_trained_on_resized_images(check, workshop, tmp_path):
    base = shutil.copytree(workshop.base, tmp_path / "base")
    settings = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(settings | {"image_aspect_ratio": "resize"}))
    check(model_name_or_path=base, image_aspect_ratio="resize")
    with pytest.raises(AuroraError, match=r"pad: .*base was trained on images resized .* --image_aspect_ratio resize"):
        check(model_name_or_path=base, image_aspect_ratio="pad")
    with pytest.raises(AuroraError, match="--image_aspect_ratio stretch: available: pad, square, resize, anyres"):
        check(image_aspect_ratio="stretch")


def test_the_order_of_the_file_goes_with_no_other_order(check):
    check(shuffle=False)
    with pytest.raises(AuroraError, match=r"change it: add --curriculum '' --group_by_modality_length False$"):
        check(shuffle=False, curriculum="linear", group_by_modality_length=True)


def test_auxiliary_losses_are_read_before_a_model_is_loaded(check):
    check(aux_losses="attention=0.2,answer=0.3")
    with pytest.raises(AuroraError, match="--aux_losses attention needs coordinate tokens"):
        check(aux_losses="attention=0.2", plain_coordinates=True)
    with pytest.raises(AuroraError, match="--aux_losses attention=-1"):
        check(aux_losses="attention=-1")


def test_random_codes_are_a_share_of_the_maps_that_are_hidden(check):
    check(span_mask_probability=0.5, span_noise_probability=0.5)
    with pytest.raises(AuroraError, match="--span_noise_probability is a share of the maps of --span_mask_probability"):
        check(span_noise_probability=0.5)
    for share in (-0.1, 1.0):
        with pytest.raises(AuroraError, match=f"--span_noise_probability {share}: must be in"):
            check(span_mask_probability=0.5, span_noise_probability=share)


def test_lengths_are_mixed_within_the_steps_of_a_curriculum_in_batches_of_like_length(check):
    check(lengths_per_step=2, curriculum="linear", group_by_modality_length=True)
    for lacking in ({"curriculum": "linear"}, {"group_by_modality_length": True}):
        with pytest.raises(AuroraError, match="--lengths_per_step needs --curriculum and --group_by_modality_length"):
            check(lengths_per_step=2, **lacking)
    with pytest.raises(AuroraError, match="--lengths_per_step 0: must be 1 or more"):
        check(lengths_per_step=0)


def test_quantized_training_needs_bitsandbytes_and_no_zero_3(check, monkeypatch, tmp_path):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(AuroraError, match="--bits 4 needs bitsandbytes; run: pip install bitsandbytes"):
        check(bits=4)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    config = tmp_path / "mine.json"
    for stage in (2, 3):
        config.write_text(json.dumps({"zero_optimization": {"stage": stage}}))
        if stage == 2:
            check(bits=8, deepspeed=config)
            continue
        with pytest.raises(AuroraError, match=r"--bits 8 cannot be combined with ZeRO-3.*zero2\.json"):
            check(bits=8, deepspeed=config)
    config.write_text("stage: 3")
    with pytest.raises(AuroraError, match="not a DeepSpeed configuration in JSON"):
        check(bits=8, deepspeed=config)


def test_an_information_bottleneck_takes_sdpa_and_says_why(parser, monkeypatch):
    monkeypatch.setattr(installation, "attention_kernel", lambda: ("flash_attention_2", "it is there"))
    assert attention_kernel(parser.parse_args([])) == ("flash_attention_2", "it is there")
    kernel, reason = attention_kernel(parser.parse_args(["--information_bottleneck", "chain"]))
    assert kernel == "sdpa"
    assert "FlashAttention takes no such mask" in reason


def test_rank_one_lets_rank_zero_speak(monkeypatch, capfd):
    slept, codes = [], []
    monkeypatch.setattr(train.time, "sleep", slept.append)
    monkeypatch.setattr(train.os, "_exit", codes.append)
    monkeypatch.setattr(sys, "argv", ["x.sh"])
    for rank in ("0", "1"):
        monkeypatch.setenv("LOCAL_RANK", rank)
        train.main(str(ROOT / "scripts" / "finetune_aurora.sh"))
    assert codes == [2, 2]
    assert len(slept) == 1
    assert "--model_name_or_path and --data_path are missing" in capfd.readouterr().err


def test_a_port_that_is_taken_is_named_with_the_remedy(monkeypatch):
    with socket.create_server(("", 0)) as server:
        port = str(server.getsockname()[1])
        monkeypatch.setenv("MASTER_PORT", port)
        with pytest.raises(AuroraError, match=f"port {port}.*Address already in use.*MASTER_PORT=29501"):
            train._check_port()
        monkeypatch.setenv("RANK", "1")
        train._check_port()
    monkeypatch.setenv("RANK", "0")
    train._check_port()
