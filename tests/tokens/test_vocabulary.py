"""Perception tokens: names, order, ids; codes and boxes to text and ids and back; malformed spans say where."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from llava_aurora.errors import AuroraError
from llava_aurora.tokens.vocabulary import (
    MalformedSpan,
    PerceptionVocabulary,
    TokenFamily,
    depth_family,
    pixel_family,
)

AURORA_DEPTH, AURORA_PIXELS = depth_family(), pixel_family()


def maps(family: TokenFamily) -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(0, family.size - 1), min_size=family.lengths[0], max_size=family.lengths[0])


def boxes(family: TokenFamily) -> st.SearchStrategy[list[int]]:
    return st.sampled_from(family.lengths).flatmap(
        lambda length: st.lists(st.integers(0, family.size - 1), min_size=length, max_size=length)
    )


def test_names_and_order_are_those_of_aurora():
    tokens = PerceptionVocabulary((AURORA_DEPTH, AURORA_PIXELS)).tokens
    assert tokens[:3] == ("<DEPTH_START>", "<DEPTH_END>", "<DEPTH_0>")
    assert tokens[129:131] == ("<DEPTH_127>", "<PIXEL_0>")
    assert tokens[-1] == "<PIXEL_335>"
    assert len(tokens) == 130 + 336


@given(st.lists(maps(AURORA_DEPTH), max_size=3))
def test_maps_survive_text(codes):
    text = " and ".join(["map:", *map(AURORA_DEPTH.text, codes)])
    spans = AURORA_DEPTH.parse(text)
    assert [list(span.codes) for span in spans] == codes
    assert all(text[span.start : span.end] == AURORA_DEPTH.text(span.codes) for span in spans)


@given(st.lists(boxes(AURORA_PIXELS), max_size=5))
def test_boxes_and_points_survive_text(coordinates):
    text = "\n".join(f"{number}. {AURORA_PIXELS.text(values)}" for number, values in enumerate(coordinates))
    assert [list(span.codes) for span in AURORA_PIXELS.parse(text)] == coordinates


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<DEPTH_START>" + "<DEPTH_1>" * 99 + "<DEPTH_END>", "at character 0 has 99 codes instead of 100"),
        ("x <DEPTH_START>" + "<DEPTH_1>" * 99 + "<DEPTH_128><DEPTH_END>", "code 128, number 99 .* outside 0…127"),
        ("no start <DEPTH_5> here", "<DEPTH_5> at character 9 belongs to no complete"),
        ("<DEPTH_START><DEPTH_1>", "<DEPTH_START> at character 0 belongs to no complete"),
        ("<DEPTH_START><DEPTH_1> a <DEPTH_END>", "<DEPTH_START> at character 0"),
    ],
)
def test_malformed_text_says_where(text, message):
    with pytest.raises(MalformedSpan, match=message):
        AURORA_DEPTH.parse(text)


@pytest.mark.parametrize("text", ["(<PIXEL_1>,<PIXEL_2>,<PIXEL_3>)", "<PIXEL_1>", "(<PIXEL_1>,<PIXEL_336>)"])
def test_malformed_coordinates_are_refused(text):
    with pytest.raises(MalformedSpan):
        AURORA_PIXELS.parse(text)


@pytest.mark.parametrize(
    "name", ["<DEPTH_03>", "<depth_3>", "<Depth_END>", "<DEPTH_\u0663>", "<DEPTH-3>", "< DEPTH_3 >", "&lt;DEPTH_3&gt;"]
)
def test_only_canonical_names_are_tokens(name):
    assert AURORA_DEPTH.parse(f"as {name}") == []
    with pytest.raises(MalformedSpan, match=name):
        AURORA_DEPTH.check(f"as {name}")
    with pytest.raises(MalformedSpan):
        AURORA_DEPTH.parse(AURORA_DEPTH.text([3] * 100).replace("<DEPTH_3>", name, 1))
    AURORA_DEPTH.check(f"<DEPTH> <DEPTH_x> <DEPTH_START_3> {AURORA_DEPTH.text([3] * 100)}")


@given(maps(AURORA_DEPTH), boxes(AURORA_PIXELS), st.text(alphabet=" \n\t\u00a0", max_size=3))
def test_blanks_inside_spans_are_removed_and_others_stay(codes, coordinates, blanks):
    text = f" a map {AURORA_DEPTH.text(codes)} , ( b ) and {AURORA_PIXELS.text(coordinates)}\n"
    spaced = re.sub(r"(?<=>)(?=<)|(?<=,)(?=<)|(?<=>)(?=,)", blanks, text)
    assert AURORA_PIXELS.compact(AURORA_DEPTH.compact(spaced)) == text
    assert [span.codes for span in AURORA_DEPTH.parse(spaced)] == [tuple(codes)]


@pytest.mark.parametrize("codes", [[0] * 99, [0] * 101, [0] * 99 + [128], [-1] + [0] * 99])
def test_what_is_no_map_is_not_written(codes):
    with pytest.raises(ValueError, match="DEPTH"):
        AURORA_DEPTH.text(codes)


def test_tokens_are_removed_for_training_a_tokenizer():
    text = f"map {AURORA_DEPTH.text([0] * 100)} at {AURORA_PIXELS.text([1, 2])}."
    assert PerceptionVocabulary((AURORA_DEPTH, AURORA_PIXELS)).remove_from(text) == "map  at (,)."


@pytest.fixture(params=[True, False], ids=["legacy", "not legacy"])
def tokenizer(request, workshop):
    """Both ways in which Llama's tokenizer treats text behind an added token."""
    return AutoTokenizer.from_pretrained(workshop.base, use_fast=False, legacy=request.param)


FAMILIES = (depth_family(codebook_size=16, codes_per_map=9), pixel_family(frame=56))


def test_ids_follow_the_words(tokenizer):
    words = len(tokenizer)
    vocabulary = PerceptionVocabulary(FAMILIES)
    assert vocabulary.add_to(tokenizer) == 18 + 56
    ids = vocabulary.bind(tokenizer)
    assert ids.first_ids == {"DEPTH": words, "PIXEL": words + 18}
    assert vocabulary.add_to(tokenizer) == 0


@settings(max_examples=25)
@given(codes=maps(FAMILIES[0]), box=boxes(FAMILIES[1]))
def test_spans_are_found_again_in_ids(tokenizer_with_tokens, codes, box):
    tokenizer, ids = tokenizer_with_tokens
    text = f"The map is {FAMILIES[0].text(codes)}. There: {FAMILIES[1].text(box)}."
    sequence = tokenizer(text).input_ids
    (depth,), (pixels,) = (ids.spans(family, sequence) for family in FAMILIES)
    assert list(depth.codes) == codes
    assert list(pixels.codes) == box
    assert sequence[depth.start : depth.end] == ids.ids(FAMILIES[0], codes)
    decoded = tokenizer.decode(sequence, skip_special_tokens=True, spaces_between_special_tokens=False)
    assert [list(span.codes) for span in FAMILIES[0].parse(decoded)] == [codes]
    assert [list(span.codes) for span in FAMILIES[1].parse(decoded)] == [box]


@pytest.fixture(scope="module", params=[True, False], ids=["legacy", "not legacy"])
def tokenizer_with_tokens(request, workshop):
    tokenizer = AutoTokenizer.from_pretrained(workshop.base, use_fast=False, legacy=request.param)
    vocabulary = PerceptionVocabulary(FAMILIES)
    vocabulary.add_to(tokenizer)
    return tokenizer, vocabulary.bind(tokenizer)


def test_malformed_ids_say_where(tokenizer_with_tokens):
    _, ids = tokenizer_with_tokens
    whole = ids.ids(FAMILIES[0], [0] * 9)
    with pytest.raises(MalformedSpan, match="position 2 has 8 codes instead of 9"):
        ids.spans(FAMILIES[0], [5, 6, *whole[:-2], whole[-1]])
    with pytest.raises(MalformedSpan, match="position 0 has no"):
        ids.spans(FAMILIES[0], whole[:-1])
    with pytest.raises(MalformedSpan, match="id 7 at position 3 stands inside"):
        ids.spans(FAMILIES[0], [*whole[:3], 7])
    with pytest.raises(MalformedSpan, match="position 0 belongs to no"):
        ids.spans(FAMILIES[0], whole[1:])


def test_a_tokenizer_with_some_of_the_tokens_is_refused(tokenizer):
    tokenizer.add_tokens(["<DEPTH_3>"])
    with pytest.raises(AuroraError, match=r"has 1 of the 18 DEPTH tokens already \(<DEPTH_3> is there"):
        PerceptionVocabulary(FAMILIES).add_to(tokenizer)


def test_a_tokenizer_without_the_tokens_is_refused(tokenizer):
    with pytest.raises(AuroraError, match="gives <DEPTH_START> id"):
        PerceptionVocabulary(FAMILIES).bind(tokenizer)


def test_codes_become_plain_numbers_whatever_the_size_of_the_family():
    assert AURORA_PIXELS.plain("A (<PIXEL_1>,<PIXEL_900>), <DEPTH_3>") == "A (1,900), <DEPTH_3>"
