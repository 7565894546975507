"""New rows in the embeddings."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from llava_aurora.modeling.embeddings import grow_embeddings


def tiny(tied: bool = False) -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=50,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            tie_word_embeddings=tied,
        )
    )


@pytest.mark.parametrize("tied", [False, True])
def test_old_rows_stay_and_new_ones_are_distinct_average_words(tied):
    model = tiny(tied)
    before = [model.get_input_embeddings().weight.clone(), model.get_output_embeddings().weight.clone()]
    grow_embeddings(model, rows=60, new_ids=range(50, 60))
    for old, matrix in zip(before, (model.get_input_embeddings(), model.get_output_embeddings()), strict=True):
        weight = matrix.weight
        assert weight.shape == (60, 16)
        assert torch.equal(weight[:50], old)
        assert torch.allclose(weight[50:].mean(0), old.mean(0), atol=2 * old.std().item())
        assert torch.cdist(weight[50:], weight[50:]).fill_diagonal_(1).min() > 0
    assert model.config.vocab_size == 60


def test_tokens_that_stand_for_similar_things_start_alike():
    model = tiny()
    positions = torch.linspace(0, 1, 8)[:, None]
    features = {range(52, 60): torch.cat([positions.sin(), positions.cos()], dim=1)}
    grow_embeddings(model, rows=60, new_ids=range(50, 60), features=features)
    started = model.get_input_embeddings().weight[52:60]
    distances = torch.cdist(started[:1], started)[0]
    assert torch.equal(distances.argsort(), torch.arange(8))


def test_the_same_seed_gives_the_same_rows():
    one, other = tiny(), tiny()
    for model in (one, other):
        grow_embeddings(model, rows=60, new_ids=range(50, 60), seed=3)
    assert torch.equal(one.lm_head.weight, other.lm_head.weight)


def test_ids_that_do_not_follow_the_words_are_refused():
    with pytest.raises(ValueError, match="do not follow"):
        grow_embeddings(tiny(), rows=55, new_ids=range(50, 60))
