"""Attention supervision: the loss by the model's own attention, and what a step of it changes."""

import copy

import pytest
import torch
from stated_chain import labels_of, marked_chain
from transformers import LlamaConfig, LlamaModel

from llava_aurora.errors import AuroraError
from llava_aurora.model.losses.attention import HEADS, AttentionLoss, AttentionSupervision
from llava_aurora.model.losses.auxiliary import AuxWeight
from llava_aurora.model.stated_points import AttentionTarget
from llava_aurora.model.training_loss import TrainingSettings

LAYERS = {"copy": 2, "lookup": 2, "choice": 3}  # of four
NUMBERS = {"copy": 1, "lookup": 0, "choice": 0}
BY_HEAD = pytest.mark.parametrize("name", HEADS)


@pytest.fixture
def model(taught):
    """Tokenizer and model of four layers, with weights so large that a head prefers something."""
    tokenizer, model, _ = taught(language_model=True)
    model.set_attn_implementation("eager")
    double(model)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.q_proj.weight.mul_(8)
    return tokenizer, model


def double(model):
    """Appends a copy of each layer, so that the heads are in different layers."""
    layers = model.model.layers
    for layer in list(layers):
        added = copy.deepcopy(layer)
        added.self_attn.layer_idx = len(layers)
        layers.append(added)
    model.config.num_hidden_layers = len(layers)


def supervise(model, tokenizer):
    """The heads of the attention loss, which the model is now trained with."""
    settings = TrainingSettings(aux_losses={"attention": AuxWeight(0.5)})
    model.start_training(settings, tokenizer=tokenizer)
    return model.training_loss.losses["attention"].heads


def batch(tokenizer, *texts):
    """Texts as answers that are learned whole, padded on the right."""
    labels = labels_of(tokenizer, *texts)
    valid = labels != -100
    return {
        "input_ids": labels.masked_fill(~valid, tokenizer.pad_token_id),
        "attention_mask": valid.long(),
        "labels": labels,
    }


def targets_of(model, inputs, name):
    return model.training_loss.points.read(inputs["labels"]).targets[name]


def forward(model, inputs):
    """A step of training without images."""
    embedded = model.get_input_embeddings()(inputs["input_ids"])
    return model(inputs_embeds=embedded, attention_mask=inputs["attention_mask"], labels=inputs["labels"]).loss


def own_attention(model, inputs, name):
    outputs = model.model(inputs["input_ids"], attention_mask=inputs["attention_mask"], output_attentions=True)
    return outputs.attentions[LAYERS[name]]


@BY_HEAD
def test_the_loss_is_the_divergence_of_the_models_own_attention_from_the_targets(model, name):
    tokenizer, model = model
    head = supervise(model, tokenizer)[name]
    texts = [marked_chain(), "Nothing to be read.", marked_chain({"A": (55, 55), "B": (20, 20)}, chosen="B")]
    inputs = batch(tokenizer, *texts)
    own = own_attention(model, inputs, name)
    targets, divergences = targets_of(model, inputs, name), []
    for target in targets:
        given = own[target.row, NUMBERS[name], target.query, list(target.keys)].double()
        wanted = torch.tensor(list(target.keys.values()), dtype=torch.float64)
        divergences.append(torch.distributions.kl_divergence(*map(torch.distributions.Categorical, (wanted, given))))
        divergences[-1] = divergences[-1] - given.sum().log()  # the rest of the attention goes elsewhere
    assert max(len(target.keys) for target in targets) == (4 if name == "lookup" else 1)
    assert torch.allclose(head(targets, inputs["attention_mask"]).double(), torch.stack(divergences).mean(), rtol=1e-4)


@pytest.mark.parametrize("key_heads", [1, 2, 4])
def test_heads_may_share_keys(key_heads):
    torch.manual_seed(0)
    sizes = {"vocab_size": 30, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2}
    config = LlamaConfig(**sizes, num_attention_heads=4, num_key_value_heads=key_heads, attn_implementation="eager")
    model = LlamaModel(config).train()
    with torch.no_grad():
        model.layers[1].self_attn.q_proj.weight.mul_(100)
    head = AttentionSupervision(HEADS["copy"], layers=model.layers)
    own = model(torch.arange(20)[None], output_attentions=True).attentions[1]
    assert torch.allclose(head([AttentionTarget(0, 15, {4: 1.0})], None), -own[0, 1, 15, 4].log(), rtol=1e-4)


def test_a_batch_without_points_has_no_such_loss(model):
    tokenizer, model = model
    supervise(model, tokenizer)
    forward(model, batch(tokenizer, "Nothing to be read.")).backward()
    assert set(model.training_loss.meter.read()) == {"text"}


@BY_HEAD
def test_it_changes_its_own_head_alone_in_the_layer(model, name):
    tokenizer, model = model
    head = supervise(model, tokenizer)[name]
    inputs = batch(tokenizer, marked_chain())
    model.model(inputs["input_ids"], attention_mask=inputs["attention_mask"])
    head(targets_of(model, inputs, name), inputs["attention_mask"]).backward()
    layer = model.model.layers[LAYERS[name]].self_attn
    for projection in (layer.q_proj, layer.k_proj):
        by_head = projection.weight.grad.unflatten(0, (-1, layer.head_dim)).flatten(1).any(1)
        assert by_head.nonzero().flatten().tolist() == [NUMBERS[name]]


def test_training_with_it_moves_the_attention_to_the_targets(model):
    tokenizer, model = model
    supervise(model, tokenizer)
    inputs = batch(tokenizer, marked_chain())
    optimizer, losses = torch.optim.Adam(model.parameters(), lr=3e-3), []
    for _ in range(60):
        optimizer.zero_grad()
        forward(model, inputs).backward()
        optimizer.step()
        losses.append(model.training_loss.meter.read())
    for name in HEADS:
        assert losses[0][name] > 1
        assert losses[-1][name] < 0.1


def test_checkpointed_activations_give_the_same_gradient_or_are_refused(model):
    tokenizer, model = model
    supervise(model, tokenizer)
    inputs, gradients = batch(tokenizer, marked_chain()), []
    weight = model.model.layers[LAYERS["lookup"]].self_attn.q_proj.weight
    for use_reentrant in (None, False, True):
        model.zero_grad()
        if use_reentrant is not None:
            model.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
        if use_reentrant:
            with pytest.raises(AuroraError, match=r"--aux_losses attention .* --gradient_checkpointing_kwargs"):
                forward(model, inputs)
            continue
        forward(model, inputs).backward()
        gradients.append(weight.grad.clone())
    assert torch.allclose(*gradients, atol=1e-6)


@pytest.mark.parametrize("name", ["attention", "answer"])
def test_a_model_without_coordinates_is_refused(taught, name):
    tokenizer, model, _ = taught(language_model=True, perception_modalities="depth")
    with pytest.raises(AuroraError, match=f"--aux_losses .*{name}"):
        model.start_training(TrainingSettings(aux_losses={name: AuxWeight(0.5)}), tokenizer=tokenizer)


def test_the_demos_weights_are_one_weight():
    assert [0.2 * factor for factor in AttentionLoss.parts.values()] == [0.03, 0.2, 0.03]
