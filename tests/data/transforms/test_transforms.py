"""Transforms change what is read of a record and nothing else."""

import copy
import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
from written import write_record

from llava_aurora.data.store.record_store import RecordStore
from llava_aurora.data.transforms.coordinates import PlainCoordinates, WithoutCoordinateStep
from llava_aurora.data.transforms.raster_rows import RasterRows
from llava_aurora.data.transforms.transform import build_transforms
from llava_aurora.data.transforms.values import ValueStep
from llava_aurora.errors import AuroraError
from llava_aurora.tasks.points import closest, hundredths, letter_points, mentions
from llava_aurora.tasks.prompts import Prompts
from llava_aurora.tasks.records import RecordWriter
from llava_aurora.tasks.registry import task_named
from llava_aurora.tokens.box import BoxKind
from llava_aurora.tokens.depth import DepthKind
from llava_aurora.tokens.vocabulary import depth_family, pixel_family
from llava_aurora.vqvae.checkpoint import load_depth_vqvae

DEPTH, PIXELS = depth_family(codebook_size=16, codes_per_map=9), pixel_family(frame=56)
CODES = [3] * 9
POINTS = letter_points([(1, 2), (30, 40), (55, 5)], [10, 200, 90], np.random.default_rng(1))

POINTS_ANSWER = closest(POINTS).letter


with_plain_coordinates, without_coordinate_step = PlainCoordinates(), WithoutCoordinateStep()


def chain(answer=None, *, task="depth_chain", pixels=PIXELS, codes=CODES):
    prompts = Prompts({task: {"answers": (answer,)}} if answer else None)
    writer = RecordWriter(prompts=prompts, families=(DEPTH, pixels) if pixels else (DEPTH,))
    return write_record(writer, task, codes=codes, points=POINTS, name="7", image="7.png")


@pytest.fixture(scope="module")
def depth(workshop):
    """The workshop's maps, with codes that say 0, 16, 32 …; its own hardly differ."""
    kind = DepthKind(vqvae=load_depth_vqvae(workshop.vqvae))
    kind.code_depths = np.arange(0, 256, 16, dtype=np.uint8)
    return kind


@pytest.fixture(scope="module")
def step(depth):
    return ValueStep(depth=depth, frame=56)


def values(record):
    return [turn["value"] for turn in record["conversations"]]


def test_every_coordinate_becomes_a_number_in_question_and_answer():
    record = chain(task="depth_chain_from_coordinates")
    before = copy.deepcopy(record)
    assert values(with_plain_coordinates(record)) == values(chain(pixels=None, task="depth_chain_from_coordinates"))
    assert record == before


def test_boxes_become_numbers_and_maps_stay(writer):
    about = {"name": "7", "image": "7.png", "rng": np.random.default_rng(0), "thing": "cube", "things": "cubes"}
    record = write_record(writer, "box_generation", boxes=[(1, 2, 30, 40), (5, 6, 9, 9)], **about)
    assert values(with_plain_coordinates(record))[1] == "1. (1,2,30,40)\n2. (5,6,9,9)"
    assert DEPTH.text(CODES) in values(with_plain_coordinates(chain()))[1]


@pytest.mark.parametrize("pixels", [PIXELS, None], ids=["tokens", "numbers"])
@pytest.mark.parametrize("answer", task_named("depth_chain").wording.answers)
def test_a_chain_without_its_coordinate_step_is_the_writers_own(answer, pixels):
    record = chain(answer, pixels=pixels)
    question, text = values(without_coordinate_step(record))
    assert question == values(record)[0]
    assert not mentions(text)
    assert text == values(chain(pixels=pixels, task="depth_chain_without_points"))[1]
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
    locate = write_record(
        writer, "point_location", name="7", image="7.png", points=POINTS, rng=np.random.default_rng(0)
    )
    for record in (
        chain(task="depth_chain_from_coordinates"),
        locate,
        {"conversations": [{"from": "gpt", "value": "(1,2)"}]},
    ):
        assert without_coordinate_step(record) == record


def test_coordinates_that_cannot_be_left_out_name_file_and_record(tmp_path):
    path = tmp_path / "train.json"
    path.write_text(json.dumps([chain(), chain("With {points} the map is {map}. ({answer})")]))
    with pytest.raises(AuroraError, match=r"train.json: record \(id 7/depth_chain\): .* same sentence as the map"):
        without_coordinate_step.check(RecordStore.open(path))
    record = chain()
    record["conversations"][1]["value"] = "(A)"
    with pytest.raises(AuroraError, match=r"record \(id 7/depth_chain\): .*no depth map"):
        without_coordinate_step(record)


@pytest.mark.parametrize(
    ("task", "said"),
    [
        ("depth_chain", "The values are"),
        ("depth_chain_from_coordinates", "The points are"),
        ("depth_chain_from_map", "The points are"),
        ("depth_reading_from_map", "The points are"),
        ("depth_reading", "The points are"),
    ],
)
def test_the_values_of_points_are_interpolated_between_the_codes_around_them(depth, step, task, said):
    """Whoever has the map can write them; what the record says of the true depth does not matter."""
    codes = list(range(9))
    record = chain(task=task, codes=codes)
    expected = []
    for point in POINTS:  # bilinear between the centres of the cells, worked out another way
        x, y = (np.clip((place + 0.5) * 3 / 56 - 0.5, 0, 2) for place in (point.x, point.y))
        weights = np.outer(np.clip(1 - abs(np.arange(3) - y), 0, None), np.clip(1 - abs(np.arange(3) - x), 0, None))
        expected.append(hundredths(round(float((weights.ravel() * depth.code_depths[codes]).sum()))))
    listed = ", ".join(f"{p.letter} {PIXELS.text((p.x, p.y))} {v}" for p, v in zip(POINTS, expected, strict=True))
    question, answer = values(step(record))
    assert question == values(record)[0]
    assert f"{said} {listed}." in answer
    assert [mention.value for mention in mentions(answer) if mention.value is not None] == list(map(int, expected))
    record["aurora"]["depths"] = {"A": 0, "B": 0, "C": 0}
    assert values(step(record))[1] == answer


def test_values_are_all_that_is_added_to_a_marked_chain(step):
    valued = values(step(chain()))[1]
    assert re.sub(r" The values are [^.]*\.", "", valued) == values(chain())[1]


def test_whether_values_bear_out_the_answer(step):
    cells = {point.letter: 3 * (point.y * 3 // 56) + point.x * 3 // 56 for point in POINTS}
    for codes, expected in (
        ([15 if cell == cells[POINTS_ANSWER] else 0 for cell in range(9)], True),
        ([0 if cell == cells[POINTS_ANSWER] else 15 for cell in range(9)], False),
        ([15] * 9, False),  # no value is the highest
    ):
        assert step.bears_out(chain(codes=codes)) is expected
        assert step.bears_out(chain(codes=codes, task="depth_reading"))


def test_the_value_step_is_for_chains_with_points_alone(step):
    for record in (chain(task="depth_chain_without_points"), chain(task="depth_direct"), {"conversations": []}):
        assert step(record) == record


@pytest.mark.parametrize(
    ("answer", "points", "message"),
    [
        ("(A)", {"A": [1, 2]}, "no depth map"),
        (DEPTH.text(CODES), {"A": [1, 2]}, "each point's letter and coordinates"),
        (f"A (1,2). {DEPTH.text(CODES)}", {"A": [1, 2], "B": [3, 4]}, "each point's letter and coordinates"),
        (f"A (1,2). {DEPTH.text(CODES)}", None, r"it lacks aurora.points"),
    ],
)
def test_a_chain_whose_values_cannot_be_said_names_file_and_record(tmp_path, step, answer, points, message):
    record = chain()
    record["conversations"][1]["value"] = answer
    record["aurora"]["points"] = points
    path = tmp_path / "train.json"
    path.write_text(json.dumps([chain(), record]))
    with pytest.raises(AuroraError, match=rf"train.json: record \(id 7/depth_chain\): .*{message}"):
        step.check(RecordStore.open(path))


def flags(**changes):
    given = {"fresh_points": False, "value_step": "", "coordinate_step": True, "plain_coordinates": False}
    given["image_folder"] = None
    return SimpleNamespace(**{**given, **changes})


def test_flags_build_their_transforms_in_order(depth):
    assert build_transforms(flags(), None) == []
    record = chain()
    for transform in build_transforms(flags(plain_coordinates=True, coordinate_step=False), None):
        record = transform(record)
    assert values(record)[1] == values(chain(pixels=None, task="depth_chain_without_points"))[1]
    with pytest.raises(AuroraError, match="--value_step interpolated needs depth and box tokens"):
        build_transforms(flags(value_step="interpolated"), None)
    perception = SimpleNamespace(kinds={"depth": depth, "box": BoxKind(frame=56)})
    (built,) = build_transforms(flags(value_step="interpolated"), perception)
    assert (built.depth, built.frame) == (depth, 56)


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
    assert store.of_tasks(train_tasks).task_counts() == expected


@pytest.mark.parametrize(
    ("train_tasks", "message"),
    [
        ("atomic,chian", "unknown task 'chian'; available: the kinds atomic, chain, direct and the tasks depth_gen"),
        ("direct", r"has no record of direct \(--train_tasks\); it has depth_generation \(4\)"),
    ],
)
def test_unknown_tasks_and_an_empty_choice_are_refused(make_store, train_tasks, message):
    with pytest.raises(AuroraError, match=message):
        make_store({"depth_generation": 4}).of_tasks(train_tasks)


def test_raster_rows_put_a_label_before_each_row_of_a_map_after_its_values_were_read(workshop, step):
    raster = DepthKind(vqvae=load_depth_vqvae(workshop.vqvae), raster_rows=True)
    record = step(chain())
    once = RasterRows(depth=raster)(record)
    labelled = "".join(f"<DEPTH_{16 + row}>" + "<DEPTH_3>" * 3 for row in range(3))
    assert values(once)[1] == values(record)[1].replace("<DEPTH_3>" * 9, labelled)
    assert values(RasterRows(depth=raster)(once)) == values(once), "a map that has labels keeps them"
