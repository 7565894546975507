"""Rows of their own: the same function as whole matrices, with the words' rows frozen."""

import copy

import pytest
import torch
from transformers import LlamaForCausalLM
from untrained import tiny_llama

from llava_aurora.model.embeddings import RowStart, grow_embeddings, initial_rows_of, present_rows_of
from llava_aurora.model.perception_head import is_split, join_rows, split_rows

IDS = range(50, 60)


@pytest.fixture
def whole() -> LlamaForCausalLM:
    """Whole matrices with rows for the tokens, then two more rows behind them."""
    model = tiny_llama()
    grow_embeddings(model, rows=62, ids=IDS, start=RowStart())
    return model


@pytest.fixture
def tokens() -> torch.Tensor:
    return torch.randint(0, 62, (2, 30), generator=torch.Generator().manual_seed(0))


def test_split_rows_give_the_same_logits_and_the_same_gradients(whole, tokens):
    split = copy.deepcopy(whole)
    split_rows(split, ids=IDS, rows=present_rows_of(split, ids=IDS))
    assert is_split(split)
    assert not is_split(whole)
    expected, found = whole(tokens, labels=tokens), split(tokens, labels=tokens)
    assert torch.allclose(found.logits, expected.logits, atol=1e-6)
    expected.loss.backward()
    found.loss.backward()
    for matrix, rows in (
        (whole.model.embed_tokens.weight, split.model.embed_tokens.perception_rows),
        (whole.lm_head.weight, split.lm_head.perception_rows),
    ):
        assert torch.allclose(rows.grad, matrix.grad[IDS.start : IDS.stop], atol=1e-6)


def test_training_moves_the_new_rows_and_no_word(whole, tokens):
    split_rows(whole, ids=IDS, rows=present_rows_of(whole, ids=IDS))
    before = {name: value.clone() for name, value in whole.state_dict().items()}
    optimizer = torch.optim.AdamW([p for p in whole.parameters() if p.requires_grad], lr=0.1, weight_decay=0.1)
    whole(tokens, labels=tokens).loss.backward()
    optimizer.step()
    for place in ("model.embed_tokens", "lm_head"):
        assert torch.equal(whole.state_dict()[f"{place}.words.weight"], before[f"{place}.words.weight"])
        assert not torch.equal(whole.state_dict()[f"{place}.perception_rows"], before[f"{place}.perception_rows"])


def test_a_base_without_rows_for_the_tokens_starts_them_as_whole_matrices_do(tokens):
    grown, split = tiny_llama(), tiny_llama()
    grow_embeddings(grown, rows=60, ids=IDS, start=RowStart(seed=1))
    split_rows(split, ids=IDS, rows=initial_rows_of(split, ids=IDS, start=RowStart(seed=1)))
    assert split.config.vocab_size == 60
    tokens = tokens.clamp(max=59)
    assert torch.allclose(split(tokens).logits, grown(tokens).logits, atol=1e-6)
    joined = join_rows(split.state_dict(), ids=IDS)
    assert joined.keys() == grown.state_dict().keys()
    for name, value in grown.state_dict().items():
        assert torch.equal(joined[name], value), name


def test_a_base_padded_beyond_its_words_keeps_the_rows_behind_the_tokens(tokens):
    padded = tiny_llama(vocabulary=64)
    rows = initial_rows_of(padded, ids=IDS, start=RowStart())
    expected = padded.lm_head.weight[60:].clone()
    split_rows(padded, ids=IDS, rows=rows)
    assert padded(tokens).logits.shape[-1] == padded.config.vocab_size == 64
    joined = join_rows(padded.state_dict(), ids=IDS)
    assert torch.equal(joined["lm_head.weight"][60:], expected)
    assert torch.equal(joined["lm_head.weight"][50:60], rows["output"])


def test_tied_matrices_share_their_rows(tokens):
    model = tiny_llama(tied=True)
    split_rows(model, ids=IDS, rows=initial_rows_of(model, ids=IDS, start=RowStart()))
    assert model.lm_head.perception_rows is model.model.embed_tokens.perception_rows
    assert sum("perception_rows" in name for name, _ in model.named_parameters()) == 1
    assert model(tokens.clamp(max=59)).logits.shape[-1] == 60
