"""What stands in an answer, whole or cut off."""

from dataclasses import replace

import numpy as np
import pytest
from transformers import AutoTokenizer

from llava_aurora.tasks.depth_maps import closest_by
from llava_aurora.tasks.depth_measures import values_of_map
from llava_aurora.tasks.written import read_written
from llava_aurora.tokens import build_kinds
from llava_aurora.tokens.perception import PerceptionTokens

CODES = [3, 1, 4, 1, 5, 9, 2, 6, 5]


@pytest.fixture(scope="module")
def spoken(workshop):
    tokenizer = AutoTokenizer.from_pretrained(workshop.base, use_fast=False)
    settings = {"depth": {"vqvae": str(workshop.vqvae)}, "box": {"frame": 56}}
    perception = PerceptionTokens.teach(tokenizer, build_kinds(settings, workshop.folder))
    return tokenizer, perception


def read(spoken, text, *, cut=0):
    tokenizer, perception = spoken
    ids = tokenizer(text, add_special_tokens=False).input_ids
    ids = ids[: len(ids) - cut]
    return read_written(tokenizer.decode(ids, spaces_between_special_tokens=False), ids, perception, kind="depth"), ids


def test_map_points_and_boxes_are_read(spoken):
    depth = spoken[1].kinds["depth"].family.text(CODES)
    text = f"A (<PIXEL_1>,<PIXEL_2>), B (<PIXEL_3>,<PIXEL_55>). {depth}. 1. (<PIXEL_1>,<PIXEL_2>,<PIXEL_3>,<PIXEL_4>)"
    written, ids = read(spoken, text)
    assert written.codes == tuple(CODES)
    assert written.points == {"A": (1, 2), "B": (3, 55)}
    assert written.boxes == ((1, 2, 3, 4),)
    family = spoken[1].kinds["depth"].family
    assert ids[written.map_end - 1] == spoken[1].ids.end_id(family)
    assert ids[written.map_start] == spoken[1].ids.start_id(family)


def test_plain_numbers_are_coordinates_too(spoken):
    written, _ = read(spoken, "1. (1, 2, 3, 4)\n2. (5,6,7,8)\nB (9,10)")
    assert written.boxes == ((1, 2, 3, 4), (5, 6, 7, 8))
    assert written.points == {"B": (9, 10)}


def test_values_belong_to_lettered_points_and_all_of_the_highest_are_told(spoken):
    depth = spoken[1].kinds["depth"].family.text(CODES)
    text = (
        f"{depth}. The points are A (<PIXEL_1>,<PIXEL_2>) 07, B (<PIXEL_3>,<PIXEL_4>) 55, C (<PIXEL_5>,<PIXEL_6>) 55."
    )
    written, _ = read(spoken, text)
    assert written.values == {"A": 7, "B": 55, "C": 55}
    assert written.highest == ("B", "C")
    assert written.points == {"A": (1, 2), "B": (3, 4), "C": (5, 6)}
    boxes, _ = read(spoken, "9. (<PIXEL_1>,<PIXEL_2>,<PIXEL_3>,<PIXEL_4>)\n10. (<PIXEL_1>,<PIXEL_2>) 20, A (1,2) 123")
    assert (boxes.values, boxes.highest) == ({}, ())


def test_values_are_compared_with_those_that_the_model_was_taught_to_read_in_its_map(spoken):
    perception = spoken[1]
    depth = perception.kinds["depth"]
    text = f"{depth.family.text(CODES)}. The points are A (<PIXEL_1>,<PIXEL_2>) 99, B (<PIXEL_30>,<PIXEL_40>) 00."
    written, _ = read(spoken, text)
    taught = replace(perception, values="interpolated")
    assert values_of_map(written, taught) == {
        letter: depth.depth_between_cells(CODES, place, frame=56) * 100 // 256
        for letter, place in written.points.items()
    }
    assert not values_of_map(written, replace(perception, values=""))
    assert not values_of_map(replace(written, codes=None), taught)
    assert not values_of_map(written, None)


def test_what_is_cut_off_does_not_take_the_rest_along(spoken):
    depth = spoken[1].kinds["depth"].family.text(CODES)
    whole, _ = read(spoken, f"{depth} 1. (<PIXEL_1>,<PIXEL_2>,<PIXEL_3>,<PIXEL_4>) 2. (<PIXEL_1>,<PIXEL_2>", cut=1)
    assert whole.codes == tuple(CODES)
    assert whole.boxes == ((1, 2, 3, 4),)
    assert read(spoken, f"{depth} {depth}", cut=3)[0].codes == tuple(CODES)
    assert read(spoken, depth, cut=2)[0].codes is None


def test_without_tokens_there_is_no_map():
    assert read_written("(1,2,3,4)", [5, 6], None, kind="depth").boxes == ((1, 2, 3, 4),)
    assert read_written("", [], None, kind="depth").codes is None


def test_the_highest_value_is_closest_and_the_first_letter_of_equals():
    depth = np.zeros((20, 20), np.uint8)
    depth[:, 10:] = 200
    assert closest_by(depth, {"A": (10, 50), "B": (90, 50)}, frame=100) == "B"
    assert closest_by(depth, {"B": (80, 10), "A": (90, 90)}, frame=100) == "A"
