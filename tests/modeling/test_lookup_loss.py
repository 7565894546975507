"""The look-up loss: which code a value is read from; where the head looks, by the model's own attention."""

import pytest
import torch

from llava_aurora.errors import AuroraError
from llava_aurora.modeling.lookup_loss import find_lookups

CODES = [3, 1, 4, 1, 5, 9, 2, 6, 5]  # 3 × 3 cells, row by row
PLACES = {"A": (0, 0), "B": (55, 20), "C": (30, 55)}  # in a frame of 56 pixels
CELLS = {"A": 0, "B": 5, "C": 7}
LAYER = 1  # of two


@pytest.fixture
def model(taught):
    """Tokenizer and model, its guided layer loud enough that a head prefers something."""
    tokenizer, model, _ = taught(language_model=True)
    model.set_attn_implementation("eager")
    model.guide_lookups(0.5, tokenizer)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.q_proj.weight.mul_(8)
    return tokenizer, model


def chain(model, places=PLACES, *, codes=CODES):
    span = model.perception.modalities["depth"].family.text(codes)
    points = ", ".join(
        f"{letter} (<PIXEL_{x}>,<PIXEL_{y}>) {number}7" for number, (letter, (x, y)) in enumerate(places.items())
    )
    return f"The depth map is {span}. The points are {points}."


def batch(tokenizer, *texts):
    """Texts as answers that are learned whole, padded on the right."""
    rows = [tokenizer(text).input_ids for text in texts]
    longest = max(map(len, rows))
    ids = torch.tensor([row + [tokenizer.pad_token_id] * (longest - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    return {"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(mask == 0, -100)}


def forward(model, inputs):
    """A step of training without images."""
    embedded = model.get_input_embeddings()(inputs["input_ids"])
    return model(inputs_embeds=embedded, attention_mask=inputs["attention_mask"], labels=inputs["labels"]).loss


def found(model, tokenizer, *texts):
    return find_lookups(batch(tokenizer, *texts)["labels"], model.perception, digits=model.objective.lookup.digits)


def test_each_digit_of_a_value_is_read_from_the_code_of_its_points_cell(model):
    tokenizer, model = model
    ids = batch(tokenizer, "Some words.", chain(model))["input_ids"][1]
    lookups = found(model, tokenizer, "Some words.", chain(model))
    assert [lookup.row for lookup in lookups] == [1] * 6  # two digits a value
    assert tokenizer.decode([int(ids[lookup.query + 1]) for lookup in lookups]) == "071727"
    read = tokenizer.convert_ids_to_tokens([int(ids[lookup.key]) for lookup in lookups])
    assert read == [f"<DEPTH_{CODES[cell]}>" for cell in CELLS.values() for _ in range(2)]
    first = ids.tolist().index(tokenizer.convert_tokens_to_ids("<DEPTH_START>")) + 1
    assert [lookup.key - first for lookup in lookups] == [cell for cell in CELLS.values() for _ in range(2)]


def test_of_two_maps_the_last_is_read(model):
    tokenizer, model = model
    two = f"{chain(model, {})} {chain(model, {'A': (0, 0)}, codes=CODES[::-1])}"
    ids = batch(tokenizer, two)["input_ids"][0]
    assert {tokenizer.decode(ids[lookup.key]) for lookup in found(model, tokenizer, two)} == {"<DEPTH_5>"}


@pytest.mark.parametrize(
    "text",
    [
        "A (<PIXEL_1>,<PIXEL_2>) 07.",
        "{map} 1. (<PIXEL_1>,<PIXEL_2>,<PIXEL_3>,<PIXEL_4>)\n2. (<PIXEL_1>,<PIXEL_2>,<PIXEL_3>,<PIXEL_4>)",
        "{map} A (<PIXEL_1>,<PIXEL_2>). There are 7.",
        "{map} So 07.",
        "A (<PIXEL_1>,<PIXEL_2>) 07. {map}",
    ],
    ids=["no map", "boxes", "another sentence", "no point", "before the map"],
)
def test_other_digits_are_read_from_no_map(model, text):
    tokenizer, model = model
    span = model.perception.modalities["depth"].family.text(CODES)
    assert not found(model, tokenizer, text.format(map=span))


def test_a_map_that_is_not_learned_is_not_looked_at(model):
    tokenizer, model = model
    labels = batch(tokenizer, chain(model))["labels"]
    start = labels[0].tolist().index(tokenizer.convert_tokens_to_ids("<DEPTH_START>"))
    labels[0, start + 4] = -100
    assert not find_lookups(labels, model.perception, digits=model.objective.lookup.digits)


def test_the_loss_is_that_of_the_models_own_attention(model):
    tokenizer, model = model
    texts = [chain(model), "Nothing to be read.", chain(model, {"A": (55, 55)})]
    inputs = batch(tokenizer, *texts)
    own = model.model(inputs["input_ids"], attention_mask=inputs["attention_mask"], output_attentions=True).attentions[
        LAYER
    ]
    expected = torch.stack(
        [-own[lookup.row, 0, lookup.query, lookup.key].log() for lookup in found(model, tokenizer, *texts)]
    ).mean()
    loss = model.objective.lookup(inputs["labels"], inputs["attention_mask"])
    assert torch.allclose(loss, expected, rtol=1e-4)


def test_it_is_added_with_its_weight_and_logged_without(model):
    tokenizer, model = model
    inputs = batch(tokenizer, chain(model))
    with_it, parts = forward(model, inputs), model.objective.parts.read()
    lookup, model.objective.lookup = model.objective.lookup, None
    without = forward(model, inputs)
    assert with_it.item() == pytest.approx(without.item() + lookup.weight * parts["lookup"], rel=1e-5)
    assert "lookup" not in model.objective.parts.read()


def test_a_batch_without_values_has_none(model):
    tokenizer, model = model
    forward(model, batch(tokenizer, "Nothing to be read.")).backward()
    assert "lookup" not in model.objective.parts.read()


def test_it_teaches_one_head_to_look_there_and_leaves_the_others_of_its_layer_alone(model):
    tokenizer, model = model
    inputs = batch(tokenizer, chain(model))
    model.model(inputs["input_ids"], attention_mask=inputs["attention_mask"])
    model.objective.lookup(inputs["labels"], inputs["attention_mask"]).backward()
    layer = model.model.layers[LAYER].self_attn
    for projection in (layer.q_proj, layer.k_proj):
        assert projection.weight.grad[: layer.head_dim].any()
        assert not projection.weight.grad[layer.head_dim :].any()
    optimizer, losses = torch.optim.Adam(model.parameters(), lr=3e-3), []
    for _ in range(60):
        optimizer.zero_grad()
        forward(model, inputs).backward()
        optimizer.step()
        losses.append(model.objective.parts.read()["lookup"])
    assert losses[0] > 1
    assert losses[-1] < 0.1


def test_checkpointed_activations_give_the_same_gradient_or_are_refused(model):
    tokenizer, model = model
    inputs, gradients = batch(tokenizer, chain(model)), []
    weight = model.model.layers[LAYER].self_attn.q_proj.weight
    for use_reentrant in (None, False, True):
        model.zero_grad()
        if use_reentrant is not None:
            model.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
        if use_reentrant:
            with pytest.raises(AuroraError, match="--gradient_checkpointing_kwargs"):
                forward(model, inputs)
            continue
        forward(model, inputs).backward()
        gradients.append(weight.grad.clone())
    assert torch.allclose(*gradients, atol=1e-6)


def test_without_coordinates_there_is_nothing_to_look_up(taught):
    tokenizer, model, _ = taught(language_model=True, perception_modalities="depth")
    with pytest.raises(AuroraError, match="--lookup_loss_weight needs box tokens"):
        model.guide_lookups(0.5, tokenizer)
