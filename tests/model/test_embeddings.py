"""New rows in the embeddings."""

import pytest
import torch
from untrained import tiny_llama

from llava_aurora.errors import AuroraError
from llava_aurora.model.embeddings import RowStart, grow_embeddings, initial_rows


@pytest.mark.parametrize("tied", [False, True])
def test_old_rows_stay_and_new_ones_are_distinct_average_words(tied):
    model = tiny_llama(tied=tied)
    before = [model.get_input_embeddings().weight.clone(), model.get_output_embeddings().weight.clone()]
    grow_embeddings(model, rows=60, ids=range(50, 60), start=RowStart())
    for old, matrix in zip(before, (model.get_input_embeddings(), model.get_output_embeddings()), strict=True):
        weight = matrix.weight
        assert weight.shape == (60, 16)
        assert torch.equal(weight[:50], old)
        assert torch.allclose(weight[50:].mean(0), old.mean(0), atol=2 * old.std().item())
        assert torch.cdist(weight[50:], weight[50:]).fill_diagonal_(1).min() > 0
    assert model.config.vocab_size == 60


def test_tokens_that_stand_for_similar_things_start_alike():
    model = tiny_llama()
    positions = torch.linspace(0, 1, 8)[:, None]
    features = {range(52, 60): torch.cat([positions.sin(), positions.cos()], dim=1)}
    grow_embeddings(model, rows=60, ids=range(50, 60), start=RowStart(features=features))
    started = model.get_input_embeddings().weight[52:60]
    distances = torch.cdist(started[:1], started)[0]
    assert torch.equal(distances.argsort(), torch.arange(8))


def test_the_same_seed_gives_the_same_rows():
    one, other = tiny_llama(), tiny_llama()
    for model in (one, other):
        grow_embeddings(model, rows=60, ids=range(50, 60), start=RowStart(seed=3))
    assert torch.equal(one.lm_head.weight, other.lm_head.weight)


def test_ids_that_do_not_follow_the_words_are_refused():
    with pytest.raises(ValueError, match="do not follow"):
        grow_embeddings(tiny_llama(), rows=55, ids=range(50, 60), start=RowStart())


def test_mean_and_words_are_what_they_say():
    words = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
    mean = initial_rows(words, ids=range(20, 22), start=RowStart(method="mean"), number=0)
    assert torch.allclose(mean, words.mean(0).expand(2, -1))
    described = RowStart(method="words", descriptions=[[1, 2], [5]])
    rows = initial_rows(words, ids=range(20, 22), start=described, number=0)
    assert torch.allclose(rows, torch.stack([(words[1] + words[2]) / 2, words[5]]))


def test_noise_overlooks_features():
    words = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
    alike = {range(20, 22): torch.zeros(2, 3)}
    noise = initial_rows(words, ids=range(20, 22), start=RowStart(method="noise", features=alike), number=0)
    assert torch.equal(noise, initial_rows(words, ids=range(20, 22), start=RowStart(method="noise"), number=0))
    assert not torch.equal(noise[0], noise[1])


def test_an_unknown_start_is_refused():
    with pytest.raises(AuroraError, match="--perception_init zero: unknown; available: mean, noise"):
        RowStart(method="zero")
