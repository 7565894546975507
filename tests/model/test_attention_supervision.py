"""Guided heads: where they look, by the model's own attention; answers, whose tokens count once more."""

import copy

import pytest
import torch
from stated_chain import chain, end_of_chain, labels_of, marked_chain
from transformers import LlamaConfig, LlamaModel

from llava_aurora.errors import AuroraError
from llava_aurora.model.attention_supervision import GUIDES, AttentionSupervision
from llava_aurora.model.stated_points import AttentionTarget

LAYERS = {"copy": 2, "lookup": 2, "choice": 3}  # of four
HEADS = {"copy": 1, "lookup": 0, "choice": 0}
BY_GUIDE = pytest.mark.parametrize("guide", GUIDES)


@pytest.fixture
def model(taught):
    """Tokenizer and model of four layers, loud enough that a head prefers something."""
    tokenizer, model, _ = taught(language_model=True)
    model.set_attn_implementation("eager")
    double(model)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.q_proj.weight.mul_(8)
    return tokenizer, model


def double(model):
    """Puts copies of the layers behind them, so that the guides have layers of their own."""
    layers = model.model.layers
    for layer in list(layers):
        added = copy.deepcopy(layer)
        added.self_attn.layer_idx = len(layers)
        layers.append(added)
    model.config.num_hidden_layers = len(layers)


def guided(model, tokenizer, guide):
    model.guide(tokenizer, **{guide: 0.5})
    return model.training_loss.guided[-1]


def batch(tokenizer, *texts):
    """Texts as answers that are learned whole, padded on the right."""
    labels = labels_of(tokenizer, *texts)
    told = labels != -100
    return {
        "input_ids": labels.masked_fill(~told, tokenizer.pad_token_id),
        "attention_mask": told.long(),
        "labels": labels,
    }


def looks_of(model, inputs, guide):
    return model.training_loss.stated_points.read(inputs["labels"]).looks[guide]


def forward(model, inputs):
    """A step of training without images."""
    embedded = model.get_input_embeddings()(inputs["input_ids"])
    return model(inputs_embeds=embedded, attention_mask=inputs["attention_mask"], labels=inputs["labels"]).loss


@BY_GUIDE
def test_the_loss_is_that_of_the_models_own_attention(model, guide):
    tokenizer, model = model
    head = guided(model, tokenizer, guide)
    texts = [marked_chain(), "Nothing to be read.", marked_chain({"A": (55, 55), "B": (0, 0)}, chosen="B")]
    inputs = batch(tokenizer, *texts)
    own = model.model(inputs["input_ids"], attention_mask=inputs["attention_mask"], output_attentions=True).attentions[
        LAYERS[guide]
    ]
    looks = looks_of(model, inputs, guide)
    shares = torch.stack([own[look.row, HEADS[guide], look.query, next(iter(look.keys))] for look in looks])
    loss = head(looks_of(model, inputs, guide), inputs["attention_mask"])
    assert torch.allclose(loss, -shares.log().mean(), rtol=1e-4)


@pytest.mark.parametrize("key_heads", [1, 2, 4])
def test_heads_may_share_keys(key_heads):
    torch.manual_seed(0)
    sizes = {"vocab_size": 30, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2}
    config = LlamaConfig(**sizes, num_attention_heads=4, num_key_value_heads=key_heads, attn_implementation="eager")
    model = LlamaModel(config).train()
    with torch.no_grad():
        model.layers[1].self_attn.q_proj.weight.mul_(100)
    head = AttentionSupervision("copy", layers=model.layers, weight=1.0)
    own = model(torch.arange(20)[None], output_attentions=True).attentions[1]
    assert torch.allclose(head([AttentionTarget(0, 15, {4: 1.0})], None), -own[0, 1, 15, 4].log(), rtol=1e-4)


def test_of_several_tokens_it_is_how_far_their_shares_lie_from_those_wanted(model):
    tokenizer, model = model
    model.state_values("interpolated")
    head = guided(model, tokenizer, "lookup")
    inputs = batch(tokenizer, "Nothing to be read.", chain({"A": (20, 20), "B": (55, 30)}))
    own = model.model(inputs["input_ids"], attention_mask=inputs["attention_mask"], output_attentions=True).attentions[
        LAYERS["lookup"]
    ]
    divergences = []
    for look in looks_of(model, inputs, "lookup"):
        given = own[look.row, 0, look.query, list(look.keys)].double()
        wanted = torch.tensor(list(look.keys.values()), dtype=torch.float64)
        divergences.append(torch.distributions.kl_divergence(*map(torch.distributions.Categorical, (wanted, given))))
        divergences[-1] = divergences[-1] - given.sum().log()  # the rest of the attention goes elsewhere
    assert {len(look.keys) for look in looks_of(model, inputs, "lookup")} == {4, 2}
    loss = head(looks_of(model, inputs, "lookup"), inputs["attention_mask"])
    assert torch.allclose(loss.double(), torch.stack(divergences).mean(), rtol=1e-4)


def test_each_is_added_with_its_weight_and_logged_without(model):
    tokenizer, model = model
    inputs = batch(tokenizer, marked_chain())
    without = forward(model, inputs)
    weights = {"copy": 0.75, "lookup": 0.5, "choice": 0.25, "answer": 2.0}
    assert not set(weights) & set(model.training_loss.parts.read())
    model.guide(tokenizer, **weights)
    with_all, parts = forward(model, inputs), model.training_loss.parts.read()
    added = sum(weight * parts[name] for name, weight in weights.items())
    assert with_all.item() == pytest.approx(without.item() + added, rel=1e-5)


def test_the_answer_loss_is_that_of_the_answers_tokens(model):
    tokenizer, model = model
    model.guide(tokenizer, answer=0.5)
    inputs = batch(tokenizer, chain(chosen="B"), "Nothing to be answered.", end_of_chain(chosen="A"))
    forward(model, inputs)
    logits = model.lm_head(model.model(inputs["input_ids"], attention_mask=inputs["attention_mask"])[0])
    expected = []
    for row, letter in ((0, "B"), (2, "A")):
        tokens = tokenizer.convert_ids_to_tokens(inputs["input_ids"][row].tolist())
        said = [position for position, token in enumerate(tokens) if token.strip("▁") in (letter, f"<0x{ord(letter)}>")]
        for position in said[-2:]:
            target = inputs["labels"][row, position]
            expected.append(-logits[row, position - 1].log_softmax(-1)[target])
    assert len(expected) == 4
    assert model.training_loss.parts.read()["answer"] == pytest.approx(torch.stack(expected).mean().item(), rel=1e-4)


def test_no_weight_changes_nothing(model):
    tokenizer, model = model
    model.guide(tokenizer)
    assert not model.training_loss.guided
    assert model.training_loss.stated_points is None
    assert not model.training_loss.answer_weight


@BY_GUIDE
def test_a_batch_without_values_has_no_such_loss(model, guide):
    tokenizer, model = model
    model.guide(tokenizer, answer=0.5, **{guide: 0.5})
    forward(model, batch(tokenizer, "Nothing to be read.")).backward()
    assert not {guide, "answer"} & set(model.training_loss.parts.read())


@BY_GUIDE
def test_it_teaches_one_head_to_look_there_and_leaves_the_others_of_its_layer_alone(model, guide):
    tokenizer, model = model
    head = guided(model, tokenizer, guide)
    inputs = batch(tokenizer, marked_chain())
    model.model(inputs["input_ids"], attention_mask=inputs["attention_mask"])
    head(looks_of(model, inputs, guide), inputs["attention_mask"]).backward()
    layer = model.model.layers[LAYERS[guide]].self_attn
    for projection in (layer.q_proj, layer.k_proj):
        by_head = projection.weight.grad.unflatten(0, (-1, layer.head_dim)).flatten(1).any(1)
        assert by_head.nonzero().flatten().tolist() == [HEADS[guide]]
    optimizer, losses = torch.optim.Adam(model.parameters(), lr=3e-3), []
    for _ in range(60):
        optimizer.zero_grad()
        forward(model, inputs).backward()
        optimizer.step()
        losses.append(model.training_loss.parts.read()[guide])
    assert losses[0] > 1
    assert losses[-1] < 0.1


@BY_GUIDE
def test_checkpointed_activations_give_the_same_gradient_or_are_refused(model, guide):
    tokenizer, model = model
    guided(model, tokenizer, guide)
    inputs, gradients = batch(tokenizer, marked_chain()), []
    weight = model.model.layers[LAYERS[guide]].self_attn.q_proj.weight
    for use_reentrant in (None, False, True):
        model.zero_grad()
        if use_reentrant is not None:
            model.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
        if use_reentrant:
            with pytest.raises(AuroraError, match=f"--{guide}_loss_weight needs .* --gradient_checkpointing_kwargs"):
                forward(model, inputs)
            continue
        forward(model, inputs).backward()
        gradients.append(weight.grad.clone())
    assert torch.allclose(*gradients, atol=1e-6)


@pytest.mark.parametrize("name", [*GUIDES, "answer"])
def test_without_coordinates_there_is_nothing_to_look_at(taught, name):
    tokenizer, model, _ = taught(language_model=True, perception_modalities="depth")
    with pytest.raises(AuroraError, match=f"--{name}_loss_weight.*needs depth and box tokens"):
        model.guide(tokenizer, **{name: 0.5})
