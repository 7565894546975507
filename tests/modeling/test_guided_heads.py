"""Guided heads: what each token of a chain is read from; where the heads look, by the model's own attention."""

import copy

import pytest
import torch

from llava_aurora.errors import AuroraError
from llava_aurora.modeling.guided_heads import GUIDES, StatedPoints

CODES = [3, 1, 4, 1, 5, 9, 2, 6, 5]  # 3 × 3 cells, row by row
PLACES = {"A": (0, 0), "B": (55, 20), "C": (30, 55)}  # in a frame of 56 pixels
CELLS = {"A": 0, "B": 5, "C": 7}
LAYERS = {"lookup": 2, "choice": 3}  # of four
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
    model.guide_head(guide, weight=0.5, tokenizer=tokenizer)
    return model.objective.guided[-1]


def chain(model, places=PLACES, *, codes=CODES, chosen="C"):
    span = model.perception.modalities["depth"].family.text(codes)
    return f"The depth map is {span}. {end_of_chain(places, chosen)}"


def end_of_chain(places=PLACES, chosen="C"):
    points = ", ".join(
        f"{letter} (<PIXEL_{x}>,<PIXEL_{y}>) {number}7" for number, (letter, (x, y)) in enumerate(places.items())
    )
    return f"The points are {points}. The value is highest at {chosen}, so it is closest. The answer is ({chosen})."


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


def found(model, tokenizer, guide, *texts):
    return StatedPoints(tokenizer, model.perception).looks(guide, batch(tokenizer, *texts)["labels"])


def read(model, tokenizer, guide, text):
    """For each look the token, where it stands, and where it is read from."""
    ids = batch(tokenizer, text)["input_ids"][0].tolist()
    return [
        (tokenizer.decode([ids[look.query + 1]]).strip(), look.query + 1, look.key)
        for look in found(model, tokenizer, guide, text)
    ]


def test_each_digit_of_a_value_is_read_from_the_code_of_its_points_cell(model):
    tokenizer, model = model
    ids = batch(tokenizer, "Some words.", chain(model))["input_ids"][1]
    lookups = found(model, tokenizer, "lookup", "Some words.", chain(model))
    assert [look.row for look in lookups] == [1] * 6  # two digits a value
    assert tokenizer.decode([int(ids[look.query + 1]) for look in lookups]) == "071727"
    codes = tokenizer.convert_ids_to_tokens([int(ids[look.key]) for look in lookups])
    assert codes == [f"<DEPTH_{CODES[cell]}>" for cell in CELLS.values() for _ in range(2)]
    first = ids.tolist().index(tokenizer.convert_tokens_to_ids("<DEPTH_START>")) + 1
    assert [look.key - first for look in lookups] == [cell for cell in CELLS.values() for _ in range(2)]


def test_of_two_maps_the_last_is_read(model):
    tokenizer, model = model
    span = model.perception.modalities["depth"].family.text(CODES)
    two = f"The depth map is {span}. {chain(model, {'A': (0, 0)}, codes=CODES[::-1])}"
    ids = batch(tokenizer, two)["input_ids"][0]
    assert {tokenizer.decode(ids[look.key]) for look in found(model, tokenizer, "lookup", two)} == {"<DEPTH_5>"}


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
    assert not found(model, tokenizer, "lookup", text.format(map=span))


def test_a_map_that_is_not_learned_is_not_looked_at(model):
    tokenizer, model = model
    labels = batch(tokenizer, chain(model))["labels"]
    start = labels[0].tolist().index(tokenizer.convert_tokens_to_ids("<DEPTH_START>"))
    labels[0, start + 4] = -100
    points = StatedPoints(tokenizer, model.perception)
    assert not points.looks("lookup", labels)
    assert points.looks("choice", labels)  # what is chosen from are the values


@pytest.mark.parametrize("chosen", ["A", "B", "C"])
def test_each_time_the_chosen_point_is_named_it_is_read_from_its_value(model, chosen):
    tokenizer, model = model
    first, second = read(model, tokenizer, "choice", end_of_chain(chosen=chosen))
    assert (first[0], second[0]) == (chosen, chosen)
    assert second[1] > first[1] + 3
    ids = batch(tokenizer, end_of_chain(chosen=chosen))["input_ids"][0]
    for *_, value in (first, second):
        stated = tokenizer.decode(ids[: value + 1])
        assert stated.endswith(f"{'ABC'.index(chosen)}7")
        assert stated.count("(") == "ABC".index(chosen) + 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A (<PIXEL_1>,<PIXEL_2>) 07, B (<PIXEL_3>,<PIXEL_4>). The answer is (A).", []),
        ("A (<PIXEL_1>,<PIXEL_2>), B (<PIXEL_3>,<PIXEL_4>). The answer is (A).", []),
        ("A (<PIXEL_1>,<PIXEL_2>) 07, B (<PIXEL_3>,<PIXEL_4>) 55. The answer is (C).", []),
        ("A (<PIXEL_1>,<PIXEL_2>) 07, B (<PIXEL_3>,<PIXEL_4>) 55.", []),
        ("A or B: A (<PIXEL_1>,<PIXEL_2>) 07, B (<PIXEL_3>,<PIXEL_4>) 55. (B)", ["B"]),
        ("A (<PIXEL_1>,<PIXEL_2>) 07, B (<PIXEL_3>,<PIXEL_4>) 55. A is lower than B. (B)", ["B", "B"]),
    ],
    ids=["one value", "no values", "another point", "no answer", "named before", "a point not chosen"],
)
def test_of_the_letters_only_the_chosen_one_behind_values_is_read_from_one(model, text, expected):
    tokenizer, model = model
    assert [letter for letter, *_ in read(model, tokenizer, "choice", text)] == expected


@BY_GUIDE
def test_the_loss_is_that_of_the_models_own_attention(model, guide):
    tokenizer, model = model
    head = guided(model, tokenizer, guide)
    texts = [chain(model), "Nothing to be read.", chain(model, {"A": (55, 55), "B": (0, 0)}, chosen="B")]
    inputs = batch(tokenizer, *texts)
    own = model.model(inputs["input_ids"], attention_mask=inputs["attention_mask"], output_attentions=True).attentions[
        LAYERS[guide]
    ]
    looks = found(model, tokenizer, guide, *texts)
    expected = torch.stack([-own[look.row, 0, look.query, look.key].log() for look in looks]).mean()
    assert torch.allclose(head(inputs["labels"], inputs["attention_mask"]), expected, rtol=1e-4)


def test_each_is_added_with_its_weight_and_logged_without(model):
    tokenizer, model = model
    inputs = batch(tokenizer, chain(model))
    without = forward(model, inputs)
    assert not set(GUIDES) & set(model.objective.parts.read())
    for guide, weight in {"lookup": 0.5, "choice": 0.25}.items():
        model.guide_head(guide, weight=weight, tokenizer=tokenizer)
    with_both, parts = forward(model, inputs), model.objective.parts.read()
    added = 0.5 * parts["lookup"] + 0.25 * parts["choice"]
    assert with_both.item() == pytest.approx(without.item() + added, rel=1e-5)


def test_a_weight_of_none_guides_nothing(model):
    tokenizer, model = model
    model.guide_head("choice", weight=0, tokenizer=tokenizer)
    assert not model.objective.guided


@BY_GUIDE
def test_a_batch_without_values_has_no_such_loss(model, guide):
    tokenizer, model = model
    guided(model, tokenizer, guide)
    forward(model, batch(tokenizer, "Nothing to be read.")).backward()
    assert guide not in model.objective.parts.read()


@BY_GUIDE
def test_it_teaches_one_head_to_look_there_and_leaves_the_others_of_its_layer_alone(model, guide):
    tokenizer, model = model
    head = guided(model, tokenizer, guide)
    inputs = batch(tokenizer, chain(model))
    model.model(inputs["input_ids"], attention_mask=inputs["attention_mask"])
    head(inputs["labels"], inputs["attention_mask"]).backward()
    layer = model.model.layers[LAYERS[guide]].self_attn
    for projection in (layer.q_proj, layer.k_proj):
        assert projection.weight.grad[: layer.head_dim].any()
        assert not projection.weight.grad[layer.head_dim :].any()
    optimizer, losses = torch.optim.Adam(model.parameters(), lr=3e-3), []
    for _ in range(60):
        optimizer.zero_grad()
        forward(model, inputs).backward()
        optimizer.step()
        losses.append(model.objective.parts.read()[guide])
    assert losses[0] > 1
    assert losses[-1] < 0.1


@BY_GUIDE
def test_checkpointed_activations_give_the_same_gradient_or_are_refused(model, guide):
    tokenizer, model = model
    guided(model, tokenizer, guide)
    inputs, gradients = batch(tokenizer, chain(model)), []
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


@BY_GUIDE
def test_without_coordinates_there_is_nothing_to_look_at(taught, guide):
    tokenizer, model, _ = taught(language_model=True, perception_modalities="depth")
    with pytest.raises(AuroraError, match="guided heads need box tokens"):
        guided(model, tokenizer, guide)
