"""Ablations change what is read of a record and nothing else; tasks are chosen by name or kind."""

import copy
import json
import re
from types import SimpleNamespace

import numpy as np
import pytest

from llava_aurora.data.ablations import (
    ValueStep,
    check_chains,
    has_coordinates,
    select_tasks,
    transforms,
    with_plain_coordinates,
    without_coordinate_step,
)
from llava_aurora.data.prompts import TEMPLATES, Prompts
from llava_aurora.data.records import RecordWriter, closest, hundredths, letter_points
from llava_aurora.data.store.record_store import RecordStore
from llava_aurora.errors import AuroraError
from llava_aurora.evaluation.written import read_written
from llava_aurora.tokens.box import BoxKind
from llava_aurora.tokens.depth import DepthKind
from llava_aurora.tokens.vocabulary import depth_family, pixel_family
from llava_aurora.vqvae.checkpoint import load_depth_vqvae

DEPTH, PIXELS = depth_family(codebook_size=16, codes_per_map=9), pixel_family(frame=56)
CODES = [3] * 9
POINTS = letter_points([(1, 2), (30, 40), (55, 5)], [10, 200, 90], np.random.default_rng(1))

POINTS_ANSWER = closest(POINTS).letter


def chain(answer=None, *, pixels=PIXELS, marked=True, **more):
    prompts = Prompts({"depth_chain": {"answers": (answer,)}} if answer else None)
    writer = RecordWriter(prompts=prompts, depth=DEPTH, pixels=pixels)
    about = {"name": "7", "image": "7.png", "rng": np.random.default_rng(0), "marked": marked}
    return writer.depth_chain(codes=CODES, points=POINTS, **about, **more)


def values(record):
    return [turn["value"] for turn in record["conversations"]]


def test_every_coordinate_becomes_a_number_in_question_and_answer():
    record = chain(marked=False)
    before = copy.deepcopy(record)
    assert values(with_plain_coordinates(record)) == values(chain(pixels=None, marked=False))
    assert record == before


def test_boxes_become_numbers_and_maps_stay(writer):
    about = {"name": "7", "image": "7.png", "rng": np.random.default_rng(0), "singular": "cube", "plural": "cubes"}
    record = writer.box_generation(boxes=[(1, 2, 30, 40), (5, 6, 9, 9)], **about)
    assert values(with_plain_coordinates(record))[1] == "1. (1,2,30,40)\n2. (5,6,9,9)"
    assert DEPTH.text(CODES) in values(with_plain_coordinates(chain()))[1]


@pytest.mark.parametrize("pixels", [PIXELS, None], ids=["tokens", "numbers"])
@pytest.mark.parametrize("answer", TEMPLATES["depth_chain"]["answers"])
def test_a_chain_without_its_coordinate_step_is_the_writers_own(answer, pixels):
    record = chain(answer, pixels=pixels)
    question, text = values(without_coordinate_step(record))
    assert question == values(record)[0]
    assert not has_coordinates(text)
    assert text == values(chain(pixels=pixels, coordinate_step=False))[1]
    assert without_coordinate_step(record)["aurora"]["task"] == "depth_chain_without_points"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("I look. {points} are marked! The map: {map}. So ({answer}).", "I look. The map: {map}. So ({answer})."),
        ("Points:\n{points}\nMap:\n{map} ({answer})", "Points:\nMap:\n{map} ({answer})"),
        ("{points}. {map} At {points}: ({answer})", "{map} At {points}: ({answer})"),
    ],
)
def test_only_sentences_with_coordinates_before_the_map_go(answer, expected):
    points = ", ".join(f"{point.letter} {PIXELS.text((point.x, point.y))}" for point in POINTS)
    filled = expected.format(points=points, map=DEPTH.text(CODES), answer=POINTS_ANSWER)
    assert values(without_coordinate_step(chain(answer)))[1] == filled


def test_other_tasks_keep_their_coordinates(writer):
    locate = writer.point_location(name="7", image="7.png", points=POINTS, rng=np.random.default_rng(0))
    for record in (chain(marked=False), locate, {"conversations": [{"from": "gpt", "value": "(1,2)"}]}):
        assert without_coordinate_step(record) == record


def test_coordinates_that_cannot_be_left_out_name_file_and_record(tmp_path):
    path = tmp_path / "train.json"
    path.write_text(json.dumps([chain(), chain("With {points} the map is {map}. ({answer})")]))
    with pytest.raises(AuroraError, match=r"train.json: record \(id 7/depth_chain\): .* same sentence as the map"):
        check_chains(RecordStore.open(path), [without_coordinate_step])
    record = chain()
    record["conversations"][1]["value"] = "(A)"
    with pytest.raises(AuroraError, match=r"record \(id 7/depth_chain\): a depth chain without a map"):
        without_coordinate_step(record)


VALUES = ", ".join(f"{p.letter} {PIXELS.text((p.x, p.y))} {p.depth * 100 // 256:02d}" for p in POINTS)


def test_the_value_step_says_behind_the_map_how_close_each_point_is():
    assert {POINTS[place].depth for place in range(3)} == {10, 200, 90}
    for record, said in ((chain(), "The values are"), (chain(marked=False), "The points are")):
        question, answer = values(ValueStep()(record))
        assert question == values(record)[0]
        assert f"{DEPTH.end}. {said} {VALUES}. The value is highest at {POINTS_ANSWER}" in answer
        assert read_written(answer, [], None).points == {point.letter: (point.x, point.y) for point in POINTS}
    marked = values(ValueStep()(chain()))[1]
    assert marked.replace(f" The values are {VALUES}.", "") == values(chain())[1]


def test_values_of_the_map_are_those_that_its_codes_stand_for(workshop, writer):
    """So that whoever has the map can write them; what the records say of the true depth does not matter."""
    depth = DepthKind(vqvae=load_depth_vqvae(workshop.vqvae))
    step, codes = ValueStep(map=depth, frame=56), list(range(9))
    expected = [hundredths(int(depth.code_depths[3 * (p.y * 3 // 56) + p.x * 3 // 56])) for p in POINTS]
    listed = ", ".join(f"{p.letter} {PIXELS.text((p.x, p.y))} {v}" for p, v in zip(POINTS, expected, strict=True))
    about = {"codes": codes, "points": POINTS, "name": "7", "image": "7.png", "rng": np.random.default_rng(0)}
    without_image = {name: value for name, value in about.items() if name != "image"}
    for record in (
        writer.depth_chain(**about),
        writer.depth_chain(**about, marked=False),
        writer.depth_chain_from_map(**without_image),
        writer.depth_reading_from_map(**without_image),
        writer.depth_reading(**about),
    ):
        answer = values(step(record))[1]
        assert record["aurora"]["task"].endswith("_from_map") or f"{DEPTH.end}. The " in answer
        assert f" {listed}." in answer
        assert len(re.findall(r"\) \d\d", answer)) == len(POINTS)
        record["aurora"]["depths"] = {"A": 0, "B": 0, "C": 0}
        assert values(step(record))[1] == answer
    assert ValueStep()(record) == record  # of depth_reading only its own values are known


def test_interpolated_values_tell_points_of_one_cell_apart(workshop, writer):
    depth = DepthKind(vqvae=load_depth_vqvae(workshop.vqvae))
    depth.code_depths = np.arange(0, 256, 16, dtype=np.uint8)  # the workshop's codes hardly differ
    perception = SimpleNamespace(kinds={"depth": depth, "box": BoxKind(frame=56)})
    of_cell, between = (ValueStep.of(source, perception) for source in ("map", "interpolated"))
    codes, places = [0] * 6 + [15] * 3, [(28, 20), (28, 30), (28, 36)]  # all in the middle cell, ever nearer
    assert len({of_cell.depth_by_code(codes, place) for place in places}) == 1
    values = [between.depth_by_code(codes, place) for place in places]
    assert values == sorted(set(values))
    record = writer.depth_chain(codes=codes, points=POINTS, name="7", image="7.png", rng=np.random.default_rng(0))
    stated = re.findall(r"\) (\d\d)", between(record)["conversations"][1]["value"])
    assert stated == [hundredths(depth.depth_between_cells(codes, (p.x, p.y), frame=56)) for p in POINTS]


def test_whether_values_bear_out_the_answer(workshop):
    depth = DepthKind(vqvae=load_depth_vqvae(workshop.vqvae))
    by_closeness = np.argsort(depth.code_depths)
    far, near = int(by_closeness[0]), int(by_closeness[-1])
    assert ValueStep().bears_out(chain())
    step = ValueStep(map=depth, frame=56)
    cells = {point.letter: 3 * (point.y * 3 // 56) + point.x * 3 // 56 for point in POINTS}
    for codes, expected in (
        ([near if cell == cells[POINTS_ANSWER] else far for cell in range(9)], True),
        ([far if cell == cells[POINTS_ANSWER] else near for cell in range(9)], False),
        ([near] * 9, False),  # no value is the highest
    ):
        record = chain()
        turn = record["conversations"][1]
        turn["value"] = turn["value"].replace(DEPTH.text(CODES), DEPTH.text(codes))
        assert step.bears_out(record) is expected


def test_the_value_step_is_for_chains_with_points_alone(writer):
    about = {"name": "7", "image": "7.png", "rng": np.random.default_rng(0)}
    for record in (chain(coordinate_step=False), writer.depth_direct(points=POINTS, **about), {"conversations": []}):
        assert ValueStep()(record) == record


@pytest.mark.parametrize(
    ("answer", "depths", "message"),
    [
        ("(A)", {"A": 1}, "a depth chain without a map"),
        (DEPTH.text(CODES), {"A": 1}, "each point's letter and coordinates"),
        (f"A (1,2). {DEPTH.text(CODES)}", {"A": 1, "B": 2}, "each point's letter and coordinates"),
        (f"A (1,2). {DEPTH.text(CODES)}", None, r"how close its points are \(aurora.depths\)"),
    ],
)
def test_a_chain_whose_values_cannot_be_said_names_file_and_record(tmp_path, answer, depths, message):
    record = chain()
    record["conversations"][1]["value"] = answer
    record["aurora"]["depths"] = depths
    path = tmp_path / "train.json"
    path.write_text(json.dumps([chain(), record]))
    with pytest.raises(AuroraError, match=rf"train.json: record \(id 7/depth_chain\): .*{message}"):
        check_chains(RecordStore.open(path), [ValueStep()])
    check_chains(RecordStore.open(path), [])


def test_both_ablations_together_leave_neither_tokens_nor_step():
    record = chain()
    for transform in transforms(plain_coordinates=True, coordinate_step=False):
        record = transform(record)
    assert values(record)[1] == values(chain(pixels=None, coordinate_step=False))[1]
    assert transforms(plain_coordinates=False, coordinate_step=True) == []


@pytest.mark.parametrize(
    ("train_tasks", "expected"),
    [
        ("", {"depth_generation": 4, "depth_chain": 3, "counting_direct": 2, "other": 1}),
        ("depth_chain", {"depth_chain": 3}),
        (" atomic, direct ", {"depth_generation": 4, "counting_direct": 2}),
        ("chain,counting_direct,other", {"depth_chain": 3, "counting_direct": 2, "other": 1}),
    ],
)
def test_tasks_are_chosen_by_name_or_kind(make_store, train_tasks, expected):
    store = make_store({"depth_generation": 4, "depth_chain": 3, "counting_direct": 2, None: 1})
    assert select_tasks(store, train_tasks).task_counts() == expected


@pytest.mark.parametrize(
    ("train_tasks", "message"),
    [
        ("atomic,chian", "unknown task 'chian'; there are the kinds atomic, chain, direct and the tasks depth_gen"),
        ("direct", r"has no record of direct \(--train_tasks\); it has depth_generation \(4\)"),
    ],
)
def test_unknown_tasks_and_an_empty_choice_are_refused(make_store, train_tasks, message):
    with pytest.raises(AuroraError, match=message):
        select_tasks(make_store({"depth_generation": 4}), train_tasks)
