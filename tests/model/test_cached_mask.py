"""The mask of a decoding step is the one that transformers would build."""

import pytest
import torch
from transformers import DynamicCache, LlamaConfig, LlamaModel

from llava_aurora.model.cached_mask import cached_mask


@pytest.mark.parametrize("queries", [1, 3])
def test_hidden_states_are_those_with_the_mask_of_transformers(queries):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=30, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2
    )
    model = LlamaModel(config).eval()
    valid = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    ids, more = torch.randint(30, (2, 5)), torch.randint(30, (2, queries))
    hidden = []
    for ours in (False, True):
        cache = DynamicCache(config=config)
        positions = (valid.cumsum(dim=1) - 1).clamp(min=0)
        model(ids, attention_mask=valid, position_ids=positions, past_key_values=cache)
        longer = torch.cat([valid, torch.ones(2, queries, dtype=torch.long)], dim=1)
        mask = cached_mask(longer, queries=queries, implementation="sdpa") if ours else longer
        positions = valid.sum(dim=1, keepdim=True) + torch.arange(queries)
        hidden.append(model(more, attention_mask=mask, position_ids=positions, past_key_values=cache))
    assert torch.equal(hidden[0].last_hidden_state, hidden[1].last_hidden_state)


def test_written_out():
    valid = torch.tensor([[0, 1, 1, 1]])
    mask = cached_mask(valid, queries=2, implementation="sdpa")
    assert mask.tolist() == [[[[False, True, True, False], [False, True, True, True]]]]


@pytest.mark.parametrize(
    ("rows", "keys", "queries", "implementation"),
    [(2, 4, 4, "sdpa"), (1, 4, 1, "sdpa"), (2, 4, 1, "flash_attention_2"), (2, 4, 2, "eager")],
)
def test_otherwise_it_is_left_to_transformers(rows, keys, queries, implementation):
    valid = torch.ones(rows, keys, dtype=torch.long)
    assert cached_mask(valid, queries=queries, implementation=implementation) is valid
