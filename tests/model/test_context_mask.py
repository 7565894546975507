"""The information bottleneck, by the mask itself and by what a perturbed chain can still change."""

import pytest
import torch
from transformers import LlamaConfig, LlamaModel

from llava_aurora.errors import AuroraError
from llava_aurora.model.context_mask import ContextMask, image_features, text_and_image

START, END, CODE = 90, 91, 92
# Two image features, a question of two, then an answer: two words, a map of two codes, two words.
LABELS = torch.tensor([[-100, -100, -100, -100, 5, 6, START, CODE, CODE, END, 7, 8]])
IMAGE, CHAIN, MAP, AFTER = range(0, 2), range(4, 6), range(6, 10), range(9, 12)


def allowed(
    hidden: str, labels: torch.Tensor = LABELS, valid: torch.Tensor | None = None, *, probability: float = 1.0
) -> torch.Tensor:
    mask = ContextMask.parse(hidden, probability=probability).mask(
        labels=labels,
        valid=torch.ones_like(labels, dtype=torch.bool) if valid is None else valid,
        images=[IMAGE] * len(labels),
        start_ids=[START],
        end_ids=[END],
        dtype=torch.float32,
    )
    return mask[:, 0] == 0


def test_the_chain_is_hidden_from_all_behind_the_map_and_nothing_else_is():
    expected = torch.ones(12, 12).tril().bool()
    expected[9:12, 4:6] = False  # END predicts the first word behind the map
    assert torch.equal(allowed("chain")[0], expected)


def test_the_image_can_be_hidden_too():
    expected = torch.ones(12, 12).tril().bool()
    expected[9:12, 0:2] = False
    assert torch.equal(allowed("image")[0], expected)
    expected[9:12, 4:6] = False
    assert torch.equal(allowed("chain,image")[0], expected)


def test_an_answer_without_a_map_and_padding_are_left_as_they_are():
    plain = torch.tensor([[-100, -100, -100, -100, 5, 6, 7, 8, -100, -100, -100, -100]])
    valid = torch.arange(12)[None] < 8
    seen = allowed("chain,image", plain, valid)[0]
    assert torch.equal(seen[:8, :8], torch.ones(8, 8).tril().bool())
    assert seen[8:].sum(1).tolist() == [9, 9, 9, 9]  # padded queries see something, or their softmax would be NaN
    assert not seen[8:, 8:].triu(1).any()


def test_a_map_before_a_map_stays_visible_and_another_turn_is_untouched():
    labels = torch.tensor([[5, START, CODE, END, 6, START, CODE, END, 7, -100, 8, 9]])
    seen = allowed("chain", labels)[0]
    assert seen[8].tolist() == [False, True, True, True, False, True, True, True, True, False, False, False]
    assert seen[10, :11].all()


def test_what_a_changed_chain_changes_behind_the_map():
    """In one layer the map's keys and values depend on the map alone: behind it, the chain must leave no trace."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=100, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
    )
    model = LlamaModel(config).eval()
    inputs = torch.randn(1, 12, 32)
    changed = inputs.clone()
    changed[:, CHAIN.start : CHAIN.stop] += 1.0
    for hidden, traceless in (("chain", True), ("image", False)):
        mask = ContextMask.parse(hidden).mask(
            labels=LABELS,
            valid=torch.ones_like(LABELS, dtype=torch.bool),
            images=[IMAGE],
            start_ids=[START],
            end_ids=[END],
            dtype=torch.float32,
        )
        one, other = (model(inputs_embeds=x, attention_mask=mask).last_hidden_state for x in (inputs, changed))
        assert torch.equal(one[:, AFTER.start :], other[:, AFTER.start :]) is traceless
        assert not torch.equal(one[:, MAP.start : MAP.stop - 1], other[:, MAP.start : MAP.stop - 1])


def test_where_the_image_stands():
    ids = torch.tensor([[1, -200, 3, 4], [1, 2, 3, 0]])
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])
    places = text_and_image(ids, mask, -200)
    assert places == [(1, 3), (-1, 3)]
    assert image_features(places, [3 + 16, 3]) == [range(1, 17), range(0)]


def test_some_rows_alone_are_under_the_bottleneck():
    torch.manual_seed(0)
    seen = allowed("image", LABELS.repeat(2000, 1), probability=0.25)
    hidden = ~seen[:, 9:12, 0:2].flatten(1).any(1)
    assert torch.equal(seen[~hidden], torch.ones(12, 12).tril().bool().expand(int((~hidden).sum()), 12, 12))
    assert 0.25 - 4 * 0.01 < hidden.float().mean() < 0.25 + 4 * 0.01  # the deviation of a share of 2000 is 0.0097


def test_what_cannot_be_hidden_is_refused():
    assert ContextMask.parse("") is None
    for probability in (0, 1.5):
        with pytest.raises(AuroraError, match=f"--information_bottleneck_probability {probability}: "):
            ContextMask.parse("image", probability=probability)
    with pytest.raises(AuroraError, match="--information_bottleneck question: available: chain, image"):
        ContextMask.parse("question")
