"""Tokens for a base model that has rows of tokens already: they stay, new kinds come behind them."""

import pytest
import torch
from brightness import Brightness

from llava_aurora import load_pretrained_model
from llava_aurora.configuration import ModelArguments
from llava_aurora.errors import AuroraError
from llava_aurora.model.constraint import PerceptionLogitsProcessor
from llava_aurora.model.embeddings import tokens_with_rows
from llava_aurora.model.writing import write_perception_files
from llava_aurora.tokens import register_kind, unregister_kind

NEW = {"perception_modalities": "depth,box,brightness", "modality_options": '{"brightness": {"levels": 8}}'}
OLD, ADDED = 74, 10  # tokens of depth and box, and of brightness
PROMPT = torch.tensor([[1, 300, 301, 302]])


@pytest.fixture
def brightness(monkeypatch):
    monkeypatch.setattr(Brightness, "order", 15)  # between depth and box
    register_kind(Brightness)
    yield
    unregister_kind("brightness")


@pytest.fixture(scope="module")
def with_tokens(workshop, tmp_path_factory):
    """A whole folder of a model with depth and box tokens."""
    folder = tmp_path_factory.mktemp("grown") / "llava"
    tokenizer, model, _, _ = load_pretrained_model(str(workshop.base))
    teach(tokenizer, model.requires_grad_(True), workshop.base, workshop)
    save(folder, tokenizer, model)
    return folder


def teach(tokenizer, model, base, workshop, **changes):
    flags = {**workshop.perception_flags(), "depth_vqvae": str(workshop.vqvae), "mm_use_im_patch_token": False}
    model.initialize_vision_tokenizer(ModelArguments(model_name_or_path=str(base), **{**flags, **changes}), tokenizer)


def save(folder, tokenizer, model):
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    write_perception_files(folder, model=model, weights=model.state_dict(), final_folder=folder)


def whole_rows(model):
    """Both matrices as they are or would be saved."""
    found = []
    for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
        words = getattr(layer, "words", layer).weight
        rows = getattr(layer, "perception_rows", None)
        found.append(words if rows is None else torch.cat([words[: layer.ids.start], rows, words[layer.ids.stop :]]))
    return [matrix.detach().clone() for matrix in found]


def greedy(model):
    return model.generate(PROMPT, max_new_tokens=30, do_sample=False).tolist()


@pytest.mark.parametrize("language_model", [True, False], ids=["whole matrices", "rows of their own"])
def test_a_further_kind_changes_no_row_id_or_answer(workshop, with_tokens, brightness, tmp_path, language_model):
    tokenizer, model, _, _ = load_pretrained_model(str(with_tokens))
    before, answer = whole_rows(model), greedy(model)
    tokens = len(tokenizer)
    model.requires_grad_(language_model)
    teach(tokenizer, model, with_tokens, workshop, perception_init="mean", **NEW)
    assert len(tokenizer) == tokens + ADDED
    assert list(model.perception.kinds) == ["depth", "box", "brightness"]
    words = model.perception.token_ids().start
    for old, matrix in zip(before, whole_rows(model), strict=True):
        assert torch.equal(matrix[:tokens], old)
        assert torch.allclose(matrix[tokens:], old[:words].mean(0), atol=1e-6)  # of the words, without the old tokens
    assert greedy(model) == answer
    if language_model:
        save(tmp_path / "llava", tokenizer, model)
        again = load_pretrained_model(str(tmp_path / "llava"))[1]
        assert again.perception.config() == model.perception.config()
        assert list(again.perception.kinds) == ["depth", "box", "brightness"]
        assert greedy(again) == answer


def test_a_model_that_learns_masks_writes_the_same_maps_before_its_first_step(workshop, with_tokens):
    tokenizer, model, _, _ = load_pretrained_model(str(with_tokens))
    before = greedy_map(model)
    teach(tokenizer, model, with_tokens, workshop, perception_modalities="depth,box,mask")
    assert list(model.perception.kinds) == ["depth", "box", "mask"]
    assert greedy_map(model) == before
    assert len(set(before)) > 1


def greedy_map(model):
    """The ids behind the beginning of a map."""
    start = model.perception.ids.start_id(model.perception.kinds["depth"].family)
    constraint = PerceptionLogitsProcessor(model.perception, starts=[[start]])
    prompt = torch.tensor([[*PROMPT[0].tolist(), start]])
    return model.generate(prompt, max_new_tokens=10, do_sample=False, logits_processor=[constraint]).tolist()[0]


@pytest.mark.parametrize("changes", [{"coordinate_frame": 55}, {"perception_modalities": "depth,brightness"}])
def test_a_base_goes_on_with_all_of_its_kinds_and_their_settings(workshop, with_tokens, brightness, changes):
    tokenizer, model, _, _ = load_pretrained_model(str(with_tokens))
    with pytest.raises(AuroraError, match="other settings"):
        teach(tokenizer, model, with_tokens, workshop, **{**NEW, **changes})


# --- matrices with rows for tokens that the tokenizer lacks, as those of AURORA --------------------------------------


@pytest.mark.parametrize("language_model", [True, False], ids=["whole matrices", "rows of their own"])
@pytest.mark.parametrize("trained", [OLD, 18], ids=["both kinds", "depth alone"])
def test_rows_that_the_matrices_have_are_kept(workshop, capsys, language_model, trained):
    tokenizer, model, _, _ = load_pretrained_model(str(workshop.base))
    words = len(tokenizer)
    model.resize_token_embeddings(words + trained, mean_resizing=False)
    before = whole_rows(model)
    teach(tokenizer, model.requires_grad_(language_model), workshop.base, workshop)
    for old, matrix in zip(before, whole_rows(model), strict=True):
        assert matrix.shape == (words + OLD, 64)
        assert torch.equal(matrix[: words + trained], old)
    assert f"{trained} perception tokens, whose rows are kept" in capsys.readouterr().out


def test_another_number_of_rows_is_refused_with_both_numbers(workshop):
    tokenizer, model, _, _ = load_pretrained_model(str(workshop.base))
    words = len(tokenizer)
    model.resize_token_embeddings(words + 17, mean_resizing=False)
    with pytest.raises(AuroraError, match=f"{words + 17} rows.*{words} or {words + 18} or {words + OLD}"):
        teach(tokenizer, model, workshop.base, workshop)


def test_padding_is_no_row_of_a_token():
    assert tokens_with_rows(rows=32_000, words=32_000, new=[130, 336]) == 0
    assert tokens_with_rows(rows=32_130, words=32_000, new=[130, 336]) == 130
    assert tokens_with_rows(rows=32_466, words=32_000, new=[130, 336]) == 466
    assert tokens_with_rows(rows=32_064, words=32_002, new=[130, 336]) == 0  # a multiple of 64
    for rows in (31_999, 32_336, 32_467, 32_128):
        with pytest.raises(ValueError, match=f"{rows:,}"):
            tokens_with_rows(rows=rows, words=32_000, new=[130, 336])


@pytest.mark.deepspeed
def test_two_ranks_train_a_further_kind(workshop, with_tokens, forked, tmp_path):
    flags = workshop.flags(
        tmp_path / "llava-grown-lora",
        deepspeed="deepspeed_configs/zero3.json",
        lora_enable=True,
        lora_r=8,
        max_steps=1,
        learning_rate=0.0,
        **{**workshop.perception_flags(), **NEW},
    )
    flags[flags.index("--model_name_or_path") + 1] = str(with_tokens)
    run = forked("tests/brightness.py", *flags, ranks=2)
    assert len(run.losses) == 1
    register_kind(Brightness)
    try:
        tokenizer, model, _, _ = load_pretrained_model(str(tmp_path / "llava-grown-lora"))
    finally:
        unregister_kind("brightness")
    old = load_pretrained_model(str(with_tokens))[1]
    for before, matrix in zip(whole_rows(old), whole_rows(model), strict=True):
        assert len(matrix) == len(tokenizer) == len(before) + ADDED
        assert torch.equal(matrix[: len(before)], before)
