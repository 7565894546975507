"""Guesses at what is written next, from the wording of prompts and from what was written before."""

import re

import pytest
from transformers import AutoTokenizer

from llava_aurora.generation.drafts import Phrases, wording_of
from llava_aurora.tasks.prompts import Prompts
from llava_aurora.tokens import build_kinds
from llava_aurora.tokens.perception import PerceptionTokens

CODES = range(1000, 1100)


def test_a_text_goes_on_as_it_did_before():
    phrases = Phrases()
    phrases.remember([1, 2, 3, 4, 5])
    assert phrases.following([9, 9, 2]) == (3, 4, 5)
    assert phrases.following([9, 9, 5]) == ()
    assert phrases.following([9, 9, 9]) == ()


def test_the_longest_agreement_counts_and_then_the_latest():
    phrases = Phrases()
    phrases.remember([1, 2, 3, 10])
    phrases.remember([7, 2, 3, 20])
    assert phrases.following([1, 2, 3]) == (10,)
    assert phrases.following([8, 2, 3]) == (20,)
    assert phrases.following([8, 2, 3], least=3) == ()


def test_all_coordinates_are_one_word_and_some_coordinate_is_guessed():
    phrases = Phrases([CODES])
    phrases.remember([1, 1005, 2, 3, 1008, 4])
    some = CODES[len(CODES) // 2]
    assert phrases.following([1, 1099]) == (2, 3, some, 4)
    assert phrases.following([3]) == (some, 4)


def test_all_codes_of_a_map_together_are_one_word_and_are_not_guessed():
    phrases = Phrases(maps=[CODES])
    phrases.remember([1, 1005, 1006, 1007, 2, 3, 1008, 4])
    assert phrases.following([1, 1050, 1051]) == (2, 3)
    assert phrases.following([3]) == ()
    assert phrases.following([1099]) == (4,)


@pytest.fixture
def tokenizer(workshop):
    return AutoTokenizer.from_pretrained(workshop.base, use_fast=False)


def test_the_wording_of_every_template_is_known(workshop, tokenizer):
    settings = {"depth": {"vqvae": str(workshop.vqvae)}, "box": {"frame": 56}}
    perception = PerceptionTokens.teach(tokenizer, build_kinds(settings, workshop.folder))
    phrases = wording_of(Prompts(), tokenizer=tokenizer, perception=perception)
    family = perception.kinds["depth"].family
    codes = family.text([3] * 9)

    def ids(text):
        return tokenizer(text, add_special_tokens=False).input_ids

    begun = ids(f"The depth map is {codes}. The value")
    following = tokenizer.decode(phrases.following(begun))
    assert following.startswith("is highest at")
    assert tokenizer.decode(phrases.following(ids("The marked points are A (<PIXEL_1>"))).startswith(",")
    assert phrases.following(ids("The depth map is"))[-1] == perception.ids.start_id(family)


def test_digits_are_one_word_and_some_digit_is_guessed(workshop, tokenizer):
    perception = PerceptionTokens.teach(tokenizer, build_kinds({"box": {"frame": 56}}, workshop.folder))
    phrases = wording_of(Prompts(), tokenizer=tokenizer, perception=perception)
    phrases.remember(tokenizer("Closest: A 21, B 10.", add_special_tokens=False).input_ids)
    following = phrases.following(tokenizer("Closest: A 0", add_special_tokens=False).input_ids)
    assert re.fullmatch(r"[012], B [012]{2}\.", tokenizer.decode(following))
