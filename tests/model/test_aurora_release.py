"""A tiny checkpoint in the layout of AURORA's release is imported: its logits are those by LLaVA's own loading."""

import json
import shutil

import pytest
import torch
from command import llava_aurora
from llava.model import LlavaLlamaForCausalLM
from llava.model.language_model.llava_llama import LlavaConfig
from peft import LoraConfig, PeftModel, get_peft_model
from PIL import Image
from transformers import AutoTokenizer

from llava_aurora import load_pretrained_model
from llava_aurora.errors import AuroraError
from llava_aurora.model.aurora_release import import_aurora
from llava_aurora.model.merge import merge

FRAME = 56
NEW = {"depth,box": 18 + FRAME, "depth": 18, "box": FRAME, "other": 5}


@pytest.fixture
def release(workshop, tmp_path):
    """Writes LoRA weights, projector and both matrices with so many new rows, all random, and nothing of ours."""

    def write(new: int):
        torch.manual_seed(1)
        folder = tmp_path / "release"
        model = LlavaLlamaForCausalLM.from_pretrained(workshop.base)
        model.resize_token_embeddings(model.config.vocab_size + new, mean_resizing=False)
        trained = [model.model.embed_tokens, model.lm_head, *model.model.mm_projector]
        for parameter in (parameter for module in trained for parameter in module.parameters()):
            torch.nn.init.normal_(parameter, std=0.1)
        lora = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
        peft = get_peft_model(model, lora)
        peft.save_pretrained(folder, save_embedding_layers=False)
        model.config.save_pretrained(folder)
        others = {
            name: value.detach().clone()
            for name, value in peft.named_parameters()
            if name.endswith(("embed_tokens.weight", "lm_head.weight")) or "mm_projector" in name
        }
        assert "base_model.model.model.embed_tokens.weight" in others
        assert "base_model.model.lm_head.weight" in others
        torch.save(others, folder / "non_lora_trainables.bin")
        return folder

    return write


def logits(model, processor, perception_id: int) -> torch.Tensor:
    pixels = processor(Image.new("RGB", (FRAME, FRAME), (90, 10, 200)), return_tensors="pt")["pixel_values"]
    ids = torch.tensor([[1, 5, -200, 7, perception_id]])
    with torch.inference_mode():
        return model(input_ids=ids, attention_mask=torch.ones_like(ids), images=pixels).logits


def test_its_logits_are_those_of_llavas_loader(release, workshop, tmp_path):
    folder = release(NEW["depth,box"])
    out = import_aurora(folder, tmp_path / "out", depth_vqvae=workshop.vqvae, frame=FRAME)
    shutil.rmtree(folder)
    tokenizer, model, processor, _ = load_pretrained_model(str(out))
    words = len(AutoTokenizer.from_pretrained(workshop.base, use_fast=False))
    assert model.perception.ids.first_ids == {"DEPTH": words, "PIXEL": words + 18}
    names = ["<DEPTH_START>", "<DEPTH_END>", "<DEPTH_0>", "<PIXEL_0>"]
    assert tokenizer.convert_tokens_to_ids(names) == [words, words + 1, words + 2, words + 18]
    assert (out / "depth_vqvae").is_dir()
    config = json.loads((out / "config.json").read_text())
    assert config["aurora"] == model.perception.config()
    assert config["image_aspect_ratio"] == "resize"

    folder = release(NEW["depth,box"])  # the same weights, as the seed is
    theirs = LlavaLlamaForCausalLM.from_pretrained(workshop.base, config=LlavaConfig.from_pretrained(workshop.base))
    theirs.resize_token_embeddings(words + NEW["depth,box"], mean_resizing=False)
    others = torch.load(folder / "non_lora_trainables.bin", weights_only=True)
    theirs.load_state_dict({name.removeprefix("base_model.model."): v for name, v in others.items()}, strict=False)
    theirs = PeftModel.from_pretrained(theirs, folder).merge_and_unload().eval()
    theirs.get_vision_tower().load_model()
    expected = logits(theirs, processor, words)
    found = logits(model, processor, words)
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    assert expected.std() > 0.1


@pytest.mark.parametrize("kinds", ["depth", "box"])
def test_checkpoints_with_one_kind_of_tokens(release, workshop, tmp_path, kinds):
    vqvae = None if kinds == "box" else workshop.vqvae
    out = import_aurora(release(NEW[kinds]), tmp_path / "out", depth_vqvae=vqvae, frame=FRAME)
    assert list(load_pretrained_model(str(out))[1].perception.kinds) == [kinds]


@pytest.mark.parametrize(("new", "vqvae", "remedy"), [("other", True, "--frame"), ("depth", False, "--depth_vqvae")])
def test_other_numbers_of_rows_are_refused(release, workshop, tmp_path, new, vqvae, remedy):
    with pytest.raises(AuroraError, match=rf"{NEW[new]} rows more than the base's vocabulary.*56 \(box\).*{remedy}"):
        import_aurora(release(NEW[new]), tmp_path / "out", depth_vqvae=workshop.vqvae if vqvae else None, frame=FRAME)
    assert not (tmp_path / "out").exists()


def test_every_other_way_in_names_the_command_and_the_command_runs(release, workshop, tmp_path):
    folder, out = release(NEW["depth,box"]), tmp_path / "out"
    command = f"llava-aurora import aurora {folder} --base {workshop.base} --depth_vqvae FILE --out OUT"
    for way_in in (lambda: load_pretrained_model(str(folder)), lambda: merge(folder, out)):
        with pytest.raises(AuroraError, match=command):
            way_in()
    words = command.replace("FILE", str(workshop.vqvae)).replace("OUT", str(out)).split()[1:]
    result = llava_aurora(*words, "--frame", FRAME)
    assert result.exit_code == 0, result.output
    assert load_pretrained_model(str(out))[1].perception is not None


def test_a_folder_of_ours_is_no_release(workshop, tmp_path):
    with pytest.raises(AuroraError, match="not in AURORA's released form"):
        import_aurora(workshop.base, tmp_path / "out")
