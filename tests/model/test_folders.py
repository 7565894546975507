"""Folders that are damaged, moved, made for another base, or bring code of their own."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from command import llava_aurora
from llava.model import LlavaLlamaForCausalLM
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from llava_aurora import load_pretrained_model
from llava_aurora.configuration import ModelArguments
from llava_aurora.errors import AuroraError
from llava_aurora.model.folders import BASE_RECORD, check_trainable, load_tokenizer
from llava_aurora.model.merge import merge
from llava_aurora.model.writing import write_lora_folder, write_merged_folder


@pytest.fixture
def base(workshop, tmp_path):
    return shutil.copytree(workshop.base, tmp_path / "base")


@pytest.fixture
def lora_folder(taught, base, tmp_path):
    """A folder as LoRA training leaves it, on a base of its own."""
    tokenizer, model, _ = taught(language_model=False, model_name_or_path=str(base))
    model.name_or_path = str(base)
    peft = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    trained = {name: value.detach() for name, value in peft.named_parameters()}
    adapter = {name: value + 0.1 for name, value in trained.items() if "lora_" in name}
    others = {name: value for name, value in trained.items() if "mm_projector" in name or "perception_rows" in name}
    folder = tmp_path / "lora"
    write_lora_folder(folder, model=peft, tokenizer=tokenizer, adapter=adapter, others=others)
    return folder


def change(file: Path, **changes: object) -> None:
    """Sets values of a JSON file; None removes one."""
    content = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({name: value for name, value in content.items() if value is not None}))


# --- the base of LoRA weights -----------------------------------------------------------------------------------------


def test_a_lora_folder_finds_its_base_from_anywhere(lora_folder, monkeypatch):
    monkeypatch.chdir("/")
    assert load_pretrained_model(str(lora_folder))[1].perception is not None


def test_a_base_that_was_moved_is_named_and_can_be_given(lora_folder, base, tmp_path):
    moved = base.rename(tmp_path / "elsewhere")
    with pytest.raises(AuroraError, match=f"{lora_folder}: its base model {base} is not there .*--base"):
        load_pretrained_model(str(lora_folder))
    with pytest.raises(AuroraError, match=f"{lora_folder}: its base model {tmp_path} is not there .*--base"):
        load_pretrained_model(str(lora_folder), str(tmp_path))
    assert load_pretrained_model(str(lora_folder), str(moved))[1].perception is not None


@pytest.mark.parametrize("recorded", [True, False], ids=["ours", "LLaVA's"])
def test_weights_are_not_merged_into_another_base(lora_folder, base, tmp_path, recorded):
    other = shutil.copytree(base, tmp_path / "other")
    weights = load_file(other / "model.safetensors")
    save_file({name: value + 1 for name, value in weights.items()}, other / "model.safetensors", {"format": "pt"})
    if not recorded:
        (lora_folder / BASE_RECORD).unlink()
    with pytest.raises(AuroraError, match=f"was trained on {base}, and {other} has other weight files"):
        merge(lora_folder, tmp_path / "merged", base=str(other))
    assert not (tmp_path / "merged").exists()


def test_a_whole_model_has_no_base(workshop):
    with pytest.raises(AuroraError, match="leave out --base"):
        load_pretrained_model(str(workshop.base), str(workshop.base))


def test_a_moved_folder_with_a_trained_tower_is_exported_for_llava(taught, tmp_path):
    tokenizer, model, _ = taught(language_model=True, unfreeze_mm_vision_tower=True)
    written, moved, out = (tmp_path / name for name in ("written", "moved", "out"))
    write_merged_folder(written, model=model, tokenizer=tokenizer)
    written.rename(moved)
    with pytest.raises((ValueError, OSError), match=str(written)):
        LlavaLlamaForCausalLM.from_pretrained(moved)
    result = llava_aurora("export", "--model", moved, "--out", out, "--format", "llava")
    assert result.exit_code == 0, result.output
    shutil.rmtree(moved)
    theirs = LlavaLlamaForCausalLM.from_pretrained(out)
    theirs.get_vision_tower().load_model()
    expected = model.state_dict()
    assert theirs.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in theirs.state_dict().items())


def test_config_names_the_tower_of_the_base_whatever_the_flag_names(workshop):
    tokenizer, model, *_ = load_pretrained_model(str(workshop.base))
    own = model.config.mm_vision_tower
    model.config.mm_vision_tower = "openai/clip-vit-large-patch14-336"  # as LLaVA's initialize_vision_modules does
    flags = {"model_name_or_path": str(workshop.base), "mm_use_im_patch_token": False}
    model.initialize_vision_tokenizer(ModelArguments(**flags), tokenizer)
    assert model.config.mm_vision_tower == own == model.get_vision_tower().vision_tower_name


# --- damaged folders --------------------------------------------------------------------------------------------------


def halve(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def drop_a_layer(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda folder: halve(folder / "model.safetensors"), "weights"),
        (lambda folder: (folder / "model.safetensors").unlink(), "weights"),
        (drop_a_layer, "lack model.layers.1.mlp.up_proj.weight"),
        (lambda folder: halve(folder / "config.json"), "config.json"),
        (lambda folder: (folder / "config.json").write_text("[]"), "config.json"),
        (lambda folder: change(folder / "config.json", num_hidden_layers=1), "hold model.layers.1.*no place for"),
        (lambda folder: change(folder / "config.json", hidden_size=7), "weights"),
        (lambda folder: change(folder / "config.json", max_position_embeddings=[]), "max_position_embeddings is"),
        (lambda folder: change(folder / "config.json", tokenizer_model_max_length="long"), "max_length is 'long'"),
        (lambda folder: change(folder / "config.json", image_aspect_ratio="anyres"), "image_aspect_ratio"),
        (lambda folder: change(folder / "config.json", eos_token_id="end"), "eos_token_id is 'end'"),
        (lambda folder: change(folder / "config.json", hidden_size="wide"), "weights|config.json"),
        (lambda folder: change(folder / "config.json", model_type="llava_mpt"), "model_type 'llava_mpt'"),
        (lambda folder: change(folder / "config.json", num_hidden_layers=10**30), "num_hidden_layers is 1000"),
        (lambda folder: change(folder / "vision_tower" / "config.json", num_hidden_layers=10**9), "num_hidden_layers"),
        (lambda folder: change(folder / "config.json", mm_vision_tower=None), "mm_vision_tower"),
        (lambda folder: change(folder / "config.json", mm_vision_tower="/gone"), "vision tower /gone"),
        (lambda folder: change(folder / "config.json", mm_vision_select_layer="last"), "mm_vision_select_layer 'last'"),
        (lambda folder: change(folder / "config.json", mm_vision_select_layer=99), "mm_vision_select_layer 99"),
        (
            lambda folder: change(folder / "config.json", mm_vision_select_feature="all"),
            "mm_vision_select_feature 'all'",
        ),
        (lambda folder: halve(folder / "tokenizer.model"), "tokenizer"),
        (lambda folder: halve(folder / "tokenizer_config.json"), "tokenizer"),
        (lambda folder: halve(folder / "vision_tower" / "model.safetensors"), "vision tower"),
        (lambda folder: halve(folder / "vision_tower" / "config.json"), "vision tower"),
        (lambda folder: change(folder / "vision_tower" / "config.json", num_hidden_layers=7), "weights lack"),
        (lambda folder: change(folder / "vision_tower" / "config.json", num_hidden_layers=1), "no place for"),
        (lambda folder: change(folder / "config.json", image_aspect_ratio="anyres_max_9"), "image_aspect_ratio"),
        (lambda folder: (folder / "vision_tower" / "preprocessor_config.json").unlink(), "vision tower"),
        (lambda folder: (folder / "vision_tower" / "preprocessor_config.json").write_text("{}"), r"not \(3, 56, 56\)"),
        (
            lambda folder: change(folder / "vision_tower" / "preprocessor_config.json", image_std=[0, 0, 0]),
            "makes NaN or infinite values",
        ),
        (
            lambda folder: change(
                folder / "vision_tower" / "preprocessor_config.json", size={"shortest_edge": 10**5}, crop_size=10**5
            ),
            "far more than the 56 pixels",
        ),
    ],
)
def test_a_damaged_folder_is_one_clear_line(base, damage, named):
    change(base / "config.json", mm_vision_tower=str(base / "vision_tower"))
    damage(base)
    with pytest.raises(AuroraError, match=f"^{base}.*({named})") as error:
        load_pretrained_model(str(base))
    assert "\n" not in str(error.value)


def test_folders_published_as_llava_1_5_load_and_transformers_own_layout_is_named(base):
    change(base / "config.json", mm_vision_tower=str(base / "vision_tower"), model_type="llava")
    _, model, _, _ = load_pretrained_model(str(base))
    assert model.config.model_type == "llava_llama"
    check_trainable(str(base))
    change(base / "config.json", text_config={})
    with pytest.raises(AuroraError, match="transformers' own layout"):
        load_pretrained_model(str(base))


def test_a_folder_has_a_card_that_says_what_it_is(base, tmp_path):
    change(base / "config.json", mm_vision_tower=str(base / "vision_tower"))
    tokenizer, model, _, _ = load_pretrained_model(str(base))
    model.trained_on = "train.json"
    write_merged_folder(tmp_path / "out", model=model, tokenizer=tokenizer)
    card = (tmp_path / "out" / "README.md").read_text()
    for fact in ("library_name: llava_aurora", str(base), "train.json", "Aurora.from_pretrained"):
        assert fact in card


def test_a_name_that_is_no_folder_is_looked_for_on_the_hub():
    with pytest.raises(AuroraError, match=r"^owner/model: no such folder here, and the download") as error:
        load_pretrained_model("owner/model")  # tests are offline
    assert "\n" not in str(error.value)
    assert "try again with a network" in str(error.value)


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("adapter_model.safetensors", halve),
        ("adapter_model.safetensors", Path.unlink),
        ("adapter_config.json", halve),
        ("non_lora_trainables.bin", halve),
        ("non_lora_trainables.bin", Path.unlink),
        (BASE_RECORD, halve),
        ("tokenizer_config.json", Path.unlink),
        ("config.json", lambda file: change(file, aurora=[])),
        ("config.json", lambda file: change(file, aurora={"format": 1})),
        ("config.json", lambda file: change(file, aurora={"format": 1, "modalities": {"depth": 3}, "tokens": {}})),
        ("config.json", lambda file: file.write_text(json.dumps(json.loads(file.read_text()) | {"aurora": None}))),
    ],
)
def test_a_damaged_lora_folder_is_one_clear_line(lora_folder, file, damage):
    damage(lora_folder / file)
    with pytest.raises(AuroraError, match=f"^{lora_folder}") as error:
        load_pretrained_model(str(lora_folder))
    assert "\n" not in str(error.value)


# --- code in a folder is never run ------------------------------------------------------------------------------------

PAYLOAD = "import pathlib\npathlib.Path({marker!r}).touch()\nclass Config: pass\ndef generate(model, **kwargs): pass\n"
CODE = {"AutoConfig": "payload.Config", "AutoTokenizer": ["payload.Config", None]}


def own_type(folder: Path) -> None:
    change(folder / "config.json", model_type="own", auto_map=CODE)


def mpt(folder: Path) -> None:
    change(folder / "config.json", model_type="mpt", auto_map=CODE)


def own_tokenizer(folder: Path) -> None:
    change(folder / "tokenizer_config.json", tokenizer_class="Own", auto_map=CODE)


def own_generation(folder: Path) -> None:
    (folder / "custom_generate").mkdir()
    shutil.copy(folder / "payload.py", folder / "custom_generate" / "generate.py")


@pytest.fixture
def trap(base, tmp_path):
    """Puts code into the base model's folder; the file that it makes when it is run."""

    def spring(place) -> Path:
        marker = tmp_path / "marker"
        (base / "payload.py").write_text(PAYLOAD.format(marker=str(marker)))
        place(base)
        return marker

    return spring


ENTRANCES = {
    "ask": ("ask", "Where?", "--image", "{image}", "--model", "{model}"),
    "eval": ("eval", "scenes_depth", "--model", "{model}", "--limit", "1", "--out", "{out}"),
    "replace-test": ("replace-test", "scenes_depth", "--model", "{model}", "--limit", "1", "--out", "{out}"),
    "serve": ("serve", "--model", "{model}"),
    "merge": ("merge", "{model}", "--out", "{out}"),
    "export": ("export", "--model", "{model}", "--out", "{out}"),
    "grammar": ("grammar", "--model", "{model}"),
}


@pytest.mark.parametrize("place", [own_type, mpt, own_tokenizer])
@pytest.mark.parametrize("entrance", ENTRANCES)
@pytest.mark.parametrize("as_base", [False, True], ids=["whole", "projector"])
def test_code_in_a_folder_is_not_run(trap, base, workshop, tmp_path, entrance, place, as_base):
    marker, model = trap(place), base
    options: tuple[str, ...] = ()
    if as_base and entrance != "grammar":
        model, options = tmp_path / "projector", ("--base", str(base))
        model.mkdir()
        shutil.copy(workshop.base / "config.json", model)
        torch.save({}, model / "mm_projector.bin")
    places = {"model": model, "out": tmp_path / "out", "image": workshop.images / "0.png"}
    arguments = [part.format(**places) for part in ENTRANCES[entrance]]
    result = llava_aurora(*arguments, *options, input="y\n" * 9)
    assert isinstance(result.exception, AuroraError), result.output
    assert "run the custom code" not in result.output
    assert not marker.exists()


def test_generation_code_in_a_folder_is_not_run(trap, base):
    marker = trap(own_generation)
    _, model, _, _ = load_pretrained_model(str(base))
    assert "generate" not in vars(model)
    assert not marker.exists()


def test_a_tokenizer_known_to_transformers_is_read_without_the_code_beside_it(trap, base):
    marker = trap(lambda folder: change(folder / "tokenizer_config.json", auto_map=CODE))
    assert type(load_tokenizer(base)).__name__ == "LlamaTokenizer"
    assert not marker.exists()
