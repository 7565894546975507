"""The model in training: upstream's loss on another way, and every flag that changes the way."""

import json
import shutil

import pytest
import torch
from llava.train import train as upstream

from llava_aurora import load_pretrained_model
from llava_aurora.configuration import DataArguments, ModelArguments
from llava_aurora.data.dataset import make_supervised_data_module
from llava_aurora.errors import AuroraError
from llava_aurora.model.aurora_llama import AuroraLlamaForCausalLM
from llava_aurora.model.code_metrics import CodeMetrics
from llava_aurora.model.context_mask import ContextMask
from llava_aurora.model.losses import AuxWeight
from llava_aurora.model.perception_head import is_split
from llava_aurora.model.training_loss import TrainingSettings
from llava_aurora.tokens.perception import PerceptionTokens

FEATURES = 16  # image tokens of the tiny model


def batch_for(workshop, tokenizer, processor, *indices: int) -> dict[str, torch.Tensor]:
    upstream.conversation_lib.default_conversation = upstream.conversation_lib.conv_templates["v1"]
    arguments = DataArguments(data_path=str(workshop.records), image_folder=str(workshop.images), is_multimodal=True)
    arguments.image_processor, arguments.mm_use_im_start_end = processor, False
    module = make_supervised_data_module(tokenizer, arguments)
    batch = module["data_collator"]([module["train_dataset"][index] for index in indices])
    return {name: batch[name] for name in ("input_ids", "attention_mask", "labels", "images")}


@pytest.mark.parametrize("language_model", [True, False])
def test_the_loss_is_that_of_upstreams_forward(workshop, taught, language_model):
    tokenizer, model, processor = taught(language_model=language_model)
    assert is_split(model) is not language_model
    batch = batch_for(workshop, tokenizer, processor, 0, 1, 2, 3)
    loss = model(**batch).loss
    whole = model.eval()(**batch)
    assert whole.logits.shape == (*whole.logits.shape[:2], len(tokenizer))
    assert torch.allclose(loss, whole.loss, rtol=1e-5)
    loss.backward()
    trained = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert any("layers" in name for name in trained) is language_model
    assert any("perception_rows" in name for name in trained) is not language_model


def test_without_a_dtype_weights_are_loaded_in_float32(workshop, tmp_path):
    base = shutil.copytree(workshop.base, tmp_path / "base")
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"dtype": "bfloat16", "torch_dtype": "bfloat16"}))
    assert AuroraLlamaForCausalLM.from_pretrained(base, torch_dtype=None).dtype == torch.float32


def test_bf16_gradient_checkpointing_and_reconstruction_go_together(workshop, taught):
    settings = TrainingSettings(aux_losses={"reconstruction": AuxWeight(1.0)})
    tokenizer, model, processor = taught(language_model=False, settings=settings)
    model.to(torch.bfloat16)
    model.gradient_checkpointing_enable()
    batch = batch_for(workshop, tokenizer, processor, 0, 1)
    batch["images"] = batch["images"].bfloat16()
    model(**batch).loss.backward()
    for matrix in (model.model.embed_tokens, model.lm_head):
        assert matrix.perception_rows.grad.isfinite().all()
        assert matrix.perception_rows.grad.any()
    assert model.training_loss.meter.read()["reconstruction"] > 0


def test_the_context_mask_hides_the_image_and_the_chain_where_they_really_stand(workshop, taught, monkeypatch):
    settings = TrainingSettings(context_mask=ContextMask.parse("chain,image"))
    tokenizer, model, processor = taught(language_model=False, settings=settings)
    batch = batch_for(workshop, tokenizer, processor, 0, 1)
    seen = {}
    forward = model.model.forward
    monkeypatch.setattr(model.model, "forward", lambda **inputs: seen.update(inputs) or forward(**inputs))
    model(**batch)
    allowed = seen["attention_mask"][:, 0] == 0
    for row, (ids, labels) in enumerate(zip(batch["input_ids"].tolist(), batch["labels"].tolist(), strict=True)):
        start, end = (model.perception.ids.first_ids["DEPTH"] + offset for offset in (0, 1))
        shift = FEATURES - 1  # how far the image's features push what follows it
        image = range(ids.index(-200), ids.index(-200) + FEATURES)
        chain = range(next(i for i, label in enumerate(labels) if label != -100) + shift, ids.index(start) + shift)
        assert not allowed[row, ids.index(end) + shift, [*image, *chain]].any()
        assert allowed[row, ids.index(end) + shift - 1, : ids.index(end) + shift].all()
    model.eval().training_loss.metrics = CodeMetrics(model.perception, pictures=0)
    model(**batch)
    assert seen["attention_mask"].dim() == 2  # padding alone: an evaluation hides nothing


@pytest.mark.parametrize(("attention", "side"), [("sdpa", "right"), ("sdpa", "left"), ("eager", "right")])
def test_padding_behind_all_tokens_costs_sdpa_no_mask(workshop, taught, monkeypatch, attention, side):
    tokenizer, model, processor = taught(language_model=True)
    model.set_attn_implementation(attention)
    model.config.tokenizer_padding_side = side
    batch = batch_for(workshop, tokenizer, processor, 0, 1, 2, 3)
    assert not batch["attention_mask"].all()
    seen, kernel = [], torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(
        torch.nn.functional,
        "scaled_dot_product_attention",
        lambda *args, **options: seen.append((options["attn_mask"], options["is_causal"])) or kernel(*args, **options),
    )
    model.train()
    model.get_vision_tower().vision_tower.set_attn_implementation("eager")  # only the language model's is looked at
    loss = model(**batch).loss
    if attention == "sdpa" and side == "right":
        assert seen == [(None, True)] * model.config.num_hidden_layers
    else:
        assert all(mask is not None for mask, _ in seen)
        assert len(seen) == (model.config.num_hidden_layers if attention == "sdpa" else 0)
    alone = [{name: value[row : row + 1] for name, value in batch.items()} for row in range(4)]
    losses = [model(**{**one, "attention_mask": None, **unpadded(one)}).loss for one in alone]
    learned = torch.tensor([(one["labels"] != -100).sum() for one in alone])
    assert torch.allclose(loss, (torch.stack(losses) * learned).sum() / learned.sum(), rtol=1e-5)


def unpadded(one):
    return {name: one[name][one["attention_mask"]][None] for name in ("input_ids", "labels")}


@pytest.mark.parametrize("name", ["attention", "answer"])
def test_a_loss_that_needs_ids_is_given_those_of_the_question_too(workshop, taught, monkeypatch, name):
    settings = TrainingSettings(aux_losses={name: AuxWeight(0.1)})
    tokenizer, model, processor = taught(language_model=False, settings=settings)
    batch = batch_for(workshop, tokenizer, processor, 0, 1)
    given = {}
    loss = model.training_loss.loss
    monkeypatch.setattr(
        model.training_loss,
        "loss",
        lambda hidden, labels, **more: given.update(labels=labels, **more) or loss(hidden, labels, **more),
    )
    model(**batch)
    assert (given["ids"] is None) is (name == "answer")
    for row, valid in enumerate(batch["attention_mask"].bool()):
        ids, labels = batch["input_ids"][row, valid].tolist(), batch["labels"][row, valid].tolist()
        image = ids.index(-200)
        rest = given["labels"].shape[1] - len(ids) - FEATURES + 1
        for found, expected in ((given["ids"], ids), (given["labels"], labels)):
            around = [*expected[:image], *[-100] * FEATURES, *expected[image + 1 :], *[-100] * rest]
            assert found is None or found[row].tolist() == around


@pytest.mark.parametrize("method", ["mean", "noise", "words", "neighbours"])
def test_rows_can_start_in_every_way(workshop, taught, method):
    _, model, _ = taught(language_model=False, perception_init=method)
    rows = model.lm_head.perception_rows
    assert rows.shape == (74, 64)
    assert (rows == rows[:1]).all() == (method == "mean")


def test_words_describe_the_tokens(workshop, taught):
    tokenizer, model, _ = taught(language_model=False, perception_init="words")
    ids = tokenizer("<s>7", add_special_tokens=False).input_ids[1:]  # without a blank, as behind a bracket
    place = tokenizer.convert_tokens_to_ids("<PIXEL_7>") - model.perception.token_ids().start
    expected = model.lm_head.words.weight[ids].mean(0)
    assert torch.allclose(model.lm_head.perception_rows[place], expected, atol=1e-6)


def test_a_base_with_some_of_the_tokens_is_refused(workshop):
    tokenizer, model, _, _ = load_pretrained_model(str(workshop.base))
    tokenizer.add_tokens(["<DEPTH_START>", "<PIXEL_3>"])
    flags = {**workshop.perception_flags(), "depth_vqvae": str(workshop.vqvae)}
    arguments = ModelArguments(model_name_or_path=str(workshop.base), mm_use_im_patch_token=False, **flags)
    with pytest.raises(AuroraError, match=r"has 1 of the 18 DEPTH tokens already \(<DEPTH_START> is there"):
        model.initialize_vision_tokenizer(arguments, tokenizer)


def test_rows_of_another_vocabulary_beside_a_projector_are_refused(workshop, taught, tmp_path):
    path = tmp_path / "mm_projector.bin"
    torch.save({"model.embed_tokens.perception_rows": torch.zeros(5, 64)}, path)
    with pytest.raises(AuroraError, match=r"mm_projector.bin: holds 5 rows of perception tokens, but 74 are needed"):
        taught(language_model=False, pretrain_mm_mlp_adapter=str(path))


@pytest.mark.parametrize("language_model", [True, False])
def test_rows_beside_a_projector_are_where_every_mode_starts(workshop, taught, tmp_path, language_model):
    path = tmp_path / "mm_projector.bin"
    rows = torch.randn(2, 74, 64, generator=torch.Generator().manual_seed(0))
    torch.save({"model.embed_tokens.perception_rows": rows[0], "lm_head.perception_rows": rows[1]}, path)
    _, model, _ = taught(language_model=language_model, pretrain_mm_mlp_adapter=str(path))
    for matrix, expected in ((model.get_input_embeddings(), rows[0]), (model.get_output_embeddings(), rows[1])):
        found = matrix.weight[-74:] if language_model else matrix.perception_rows
        assert torch.equal(found, expected)


def test_a_model_that_states_values_goes_on_as_such_and_may_be_taught_others(taught, workshop):
    tokenizer, model, _ = taught(language_model=True)
    assert "values" not in model.config.aurora
    model.start_training(TrainingSettings(values="map"), tokenizer=tokenizer)
    flags = {**workshop.perception_flags(), "mm_use_im_patch_token": False, "model_name_or_path": str(workshop.base)}
    again = ModelArguments(**{**flags, "depth_vqvae": str(flags["depth_vqvae"])})
    model.initialize_vision_tokenizer(again, tokenizer)
    model.start_training(TrainingSettings(), tokenizer=tokenizer)  # a run without --value_step
    assert model.perception.values == model.config.aurora["values"] == "map"
    model.start_training(TrainingSettings(values="interpolated"), tokenizer=tokenizer)
    block, folder = model.config.aurora, workshop.vqvae.parent
    block["modalities"]["depth"]["vqvae"] = workshop.vqvae.name
    assert PerceptionTokens.from_config(block, folder=folder, tokenizer=tokenizer).values == "interpolated"
