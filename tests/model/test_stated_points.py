"""What a chain's labels state, and what each of its tokens is read from."""

import pytest
from stated_chain import CODES, PLACES, chain, end_of_chain, labels_of, marked_chain, span

from llava_aurora import load_pretrained_model
from llava_aurora.configuration import ModelArguments
from llava_aurora.model.stated_points import StatedPoints

MAP = span()
BOXES = "1. (<PIXEL_1>,<PIXEL_2>,<PIXEL_3>,<PIXEL_4>)\n2. (<PIXEL_5>,<PIXEL_6>,<PIXEL_7>,<PIXEL_8>)"
TWO = "A (<PIXEL_1>,<PIXEL_2>) 07, B (<PIXEL_3>,<PIXEL_4>) 55."


@pytest.fixture(scope="module")
def stated(workshop):
    """Tokenizer, and reader of its labels."""
    tokenizer, model, _, _ = load_pretrained_model(str(workshop.base))
    flags = {**workshop.perception_flags(), "mm_use_im_patch_token": False, "model_name_or_path": str(workshop.base)}
    model.initialize_vision_tokenizer(ModelArguments(**{**flags, "depth_vqvae": str(flags["depth_vqvae"])}), tokenizer)
    return tokenizer, StatedPoints(tokenizer, model.perception)


def said(tokenizer, labels, positions):
    return [tokenizer.decode([int(labels[row, position])]).strip() for row, position in positions]


def test_coordinates_of_a_point_are_copied_from_where_it_was_named_in_the_question(stated):
    tokenizer, points = stated
    ids = labels_of(tokenizer, f"Which of C (<PIXEL_30>,<PIXEL_55>), A (<PIXEL_0>,<PIXEL_0>)? {chain()}", "No points.")
    labels = ids.clone()
    labels[0, : ids[0].tolist().index(tokenizer.convert_tokens_to_ids("<DEPTH_START>"))] = -100
    assert not points.read(labels).targets["copy"]
    targets = points.read(labels, ids).targets["copy"]
    assert [target.row for target in targets] == [0] * 4  # B was not asked about
    coordinates = [f"<PIXEL_{value}>" for letter in "AC" for value in PLACES[letter]]
    assert said(tokenizer, ids, [(0, target.query + 1) for target in targets]) == coordinates
    assert said(tokenizer, ids, [(0, key) for target in targets for key in target.keys]) == coordinates
    sources = [next(iter(target.keys)) for target in targets]
    assert min(sources[:2]) > max(sources[2:])  # A is asked about behind C


def test_of_points_named_more_than_once_the_first_is_copied(stated):
    tokenizer, points = stated
    labels = labels_of(tokenizer, f"{marked_chain({'A': (1, 2)})} Again A (<PIXEL_1>,<PIXEL_2>).")
    targets = points.read(labels).targets["copy"]
    assert len(targets) == 4
    assert len({key for target in targets for key in target.keys}) == 2


@pytest.mark.parametrize(
    "text",
    [
        "A (<PIXEL_1>,<PIXEL_2>), B (<PIXEL_1>,<PIXEL_2>).",
        "A (<PIXEL_1>,<PIXEL_2>), A (<PIXEL_1>,<PIXEL_3>).",
        BOXES + BOXES,
    ],
    ids=["another letter", "another place", "boxes"],
)
def test_other_coordinates_are_copied_from_nowhere(stated, text):
    tokenizer, points = stated
    assert not points.read(labels_of(tokenizer, text)).targets["copy"]


def test_each_digit_of_a_value_is_read_from_the_codes_around_its_point(stated):
    tokenizer, points = stated
    labels = labels_of(tokenizer, "Some words.", chain())
    first = labels[1].tolist().index(tokenizer.convert_tokens_to_ids("<DEPTH_START>")) + 1
    targets = points.read(labels).targets["lookup"]
    assert [target.row for target in targets] == [1] * 6  # two digits a value
    assert "".join(said(tokenizer, labels, [(1, target.query + 1) for target in targets])) == "071727"
    depth = points.perception.kinds["depth"]
    for target, place in zip(targets, [place for place in PLACES.values() for _ in range(2)], strict=True):
        assert {key - first: share for key, share in target.keys.items()} == depth.cells_around(place, frame=56)
    assert {len(target.keys) for target in targets} == {1, 2}  # a corner; two at edges


def test_of_two_maps_the_last_is_read(stated):
    tokenizer, points = stated
    labels = labels_of(tokenizer, f"The depth map is {MAP}. {chain({'A': (0, 0)}, codes=CODES[::-1])}")
    targets = points.read(labels).targets["lookup"]
    assert set(said(tokenizer, labels, [(0, key) for target in targets for key in target.keys])) == {"<DEPTH_5>"}


@pytest.mark.parametrize(
    "text",
    [
        "A (<PIXEL_1>,<PIXEL_2>) 07.",
        f"{MAP} {BOXES}",
        f"{MAP} A (<PIXEL_1>,<PIXEL_2>). There are 7.",
        f"{MAP} So 07.",
        f"A (<PIXEL_1>,<PIXEL_2>) 07. {MAP}",
    ],
    ids=["no map", "boxes", "another sentence", "no point", "before the map"],
)
def test_other_digits_are_read_from_no_map(stated, text):
    tokenizer, points = stated
    assert not points.read(labels_of(tokenizer, text)).targets["lookup"]


def test_a_map_that_is_not_learned_is_not_looked_at(stated):
    tokenizer, points = stated
    labels = labels_of(tokenizer, chain())
    start = labels[0].tolist().index(tokenizer.convert_tokens_to_ids("<DEPTH_START>"))
    labels[0, start + 4] = -100
    assert not points.read(labels).targets["lookup"]
    assert points.read(labels).targets["choice"]  # what is chosen from are the values


@pytest.mark.parametrize("chosen", ["A", "B", "C"])
def test_each_time_the_chosen_point_is_named_it_is_read_from_its_value(stated, chosen):
    tokenizer, points = stated
    labels = labels_of(tokenizer, end_of_chain(chosen=chosen))
    targets = points.read(labels).targets["choice"]
    assert said(tokenizer, labels, [(0, target.query + 1) for target in targets]) == [chosen, chosen]
    assert targets[1].query > targets[0].query + 3
    for target in targets:
        (value,) = target.keys
        before = tokenizer.decode(labels[0, : value + 1])
        assert before.endswith(f"{'ABC'.index(chosen)}7")
        assert before.count("(") == "ABC".index(chosen) + 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A (<PIXEL_1>,<PIXEL_2>) 07, B (<PIXEL_3>,<PIXEL_4>). The answer is (A).", []),
        ("A (<PIXEL_1>,<PIXEL_2>), B (<PIXEL_3>,<PIXEL_4>). The answer is (A).", []),
        (f"{TWO} The answer is (C).", []),
        (TWO, []),
        (f"A or B: {TWO} (B)", ["B"]),
        (f"{TWO} A is lower than B. (B)", ["B", "B"]),
    ],
    ids=["one value", "no values", "another point", "no answer", "named before", "a point not chosen"],
)
def test_of_the_letters_only_the_chosen_one_behind_values_is_read_from_one(stated, text, expected):
    tokenizer, points = stated
    labels = labels_of(tokenizer, text)
    assert (
        said(tokenizer, labels, [(0, target.query + 1) for target in points.read(labels).targets["choice"]]) == expected
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (chain(), ["C", "C"]),
        (f"The marked points are A (<PIXEL_1>,<PIXEL_2>). The depth map is {MAP}. The answer is (A).", ["A"]),
        (f"The depth map is {MAP}. So the answer is (A).", []),
        (f"The chairs are at\n{BOXES}\nSo there are 12. The answer is 12.", ["1", "2", "1", "2"]),
        ("There are no chairs. The answer is 0.", []),
        ("(C)", []),
        (f"The depth map is {MAP}. The points are {TWO}", []),
        (f"The depth map is {MAP}.", []),
        (BOXES, []),
        ("A man rides a horse in 1 of 2 pictures.", []),
    ],
    ids=[
        "values",
        "no values",
        "a letter of no point",
        "counting",
        "nothing to count",
        "direct",
        "reading",
        "map",
        "boxes",
        "another conversation",
    ],
)
def test_the_answer_is_what_is_said_behind_the_last_perception_token(stated, text, expected):
    tokenizer, points = stated
    labels = labels_of(tokenizer, "(A)", text)
    answers = points.read(labels).answers
    assert {row for row, _ in answers} <= {1}
    assert said(tokenizer, labels, answers) == expected
