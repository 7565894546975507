"""Folders that describe themselves, and ordinary LLaVA folders, by one loader."""

import json
import shutil

import pytest
import torch
from llava.model import LlavaLlamaForCausalLM
from llava.model.builder import load_pretrained_model as upstream_load
from PIL import Image

from llava_aurora import load_pretrained_model
from llava_aurora.compatibility import vision_transformer
from llava_aurora.errors import AuroraError


@pytest.fixture
def copy(finetuned, tmp_path):
    return shutil.copytree(finetuned[0], tmp_path / "copy-of-llava-aurora")


def test_an_ordinary_llava_gives_upstreams_logits_exactly(workshop):
    tokenizer, ours, processor, length = load_pretrained_model(str(workshop.base), torch_dtype=torch.float16)
    theirs_tokenizer, theirs, _, theirs_length = upstream_load(
        str(workshop.base), None, "llava-base", device_map="cpu", device="cpu"
    )
    assert ours.perception is None
    assert len(tokenizer) == len(theirs_tokenizer)
    assert length == theirs_length
    assert set(ours.state_dict()) == set(theirs.state_dict())
    pixels = processor(Image.new("RGB", (56, 56), (90, 10, 200)), return_tensors="pt")["pixel_values"]
    ids = torch.tensor([[1, 5, -200, 7, 8]])
    logits = [
        model.float()(input_ids=ids, attention_mask=torch.ones_like(ids), images=pixels).logits
        for model in (ours, theirs)
    ]
    assert torch.equal(*logits)


@pytest.mark.deepspeed
def test_a_folder_describes_itself(finetuned, workshop):
    tokenizer, model, _, _ = load_pretrained_model(str(finetuned[0]))
    assert list(model.perception.kinds) == ["depth", "box"]
    words = len(tokenizer) - 74
    assert model.perception.ids.first_ids == {"DEPTH": words, "PIXEL": words + 18}
    assert model.perception.kinds["depth"].grid == 3
    assert model.perception.kinds["box"].frame == 56
    assert model.get_input_embeddings().weight.shape[0] == len(tokenizer)
    assert all(parameter.isfinite().all() for parameter in model.parameters())


@pytest.mark.deepspeed
def test_the_trained_vision_tower_moves_with_its_folder(copy, finetuned, workshop):
    original, moved = (load_pretrained_model(str(folder))[1] for folder in (finetuned[0], copy))
    tower, base = moved.get_vision_tower(), load_pretrained_model(str(workshop.base))[1].get_vision_tower()
    assert moved.config.mm_vision_tower == str(copy / "vision_tower")
    towers = (tower, original.get_vision_tower(), base)
    moved, original, base = (vision_transformer(each.vision_tower) for each in towers)
    assert torch.equal(moved.post_layernorm.weight, original.post_layernorm.weight)
    trained, untrained = (each.encoder.layers[0].mlp.fc1.weight for each in (moved, base))
    assert not torch.equal(trained, untrained)


@pytest.mark.deepspeed
def test_upstreams_class_overlooks_what_is_ours(finetuned):
    _, ours, _, _ = load_pretrained_model(str(finetuned[0]), torch_dtype=torch.float16)
    theirs = LlavaLlamaForCausalLM.from_pretrained(str(finetuned[0]), torch_dtype=torch.float16)
    ids = torch.tensor([[1, 5, 7, 8, ours.perception.ids.first_ids["DEPTH"]]])
    assert torch.equal(ours(input_ids=ids).logits, theirs(input_ids=ids).logits)


@pytest.mark.deepspeed
def test_a_checkpoint_without_its_vqvae_is_refused(copy):
    shutil.rmtree(copy / "depth_vqvae")
    with pytest.raises(AuroraError, match="depth VQ-VAE 'depth_vqvae' is missing"):
        load_pretrained_model(str(copy))


@pytest.mark.deepspeed
def test_another_tokenizer_is_refused_by_both_sides(copy, workshop):
    for name in ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"):
        (copy / name).unlink(missing_ok=True)
    shutil.copy(workshop.base / "tokenizer_config.json", copy)
    with pytest.raises(AuroraError, match=r"was trained with 18 DEPTH tokens from <DEPTH_START> = .* has 0 from"):
        load_pretrained_model(str(copy))


@pytest.mark.deepspeed
def test_a_block_of_another_format_is_refused(copy):
    config = json.loads((copy / "config.json").read_text())
    config["aurora"]["format"] = 99
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(AuroraError, match="format 99, this version reads 1"):
        load_pretrained_model(str(copy))


def test_a_folder_that_is_none_is_refused(tmp_path):
    with pytest.raises(AuroraError, match="no checkpoint here"):
        load_pretrained_model(str(tmp_path))
