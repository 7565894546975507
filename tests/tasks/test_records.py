"""Records in LLaVA's format: what a question and its answer say, and the truth kept beside them."""

import json

import numpy as np
import pytest
from written import write_record

from llava_aurora.errors import AuroraError
from llava_aurora.tasks.points import MarkedPoint, closest, hundredths, letter_points
from llava_aurora.tasks.prompts import Prompts, _problem
from llava_aurora.tasks.records import RecordWriter
from llava_aurora.tasks.registry import family_of, tasks
from llava_aurora.tokens.vocabulary import depth_family, pixel_family

DEPTH, PIXELS = depth_family(codebook_size=16, codes_per_map=4), pixel_family(frame=336)
POINTS = [MarkedPoint("A", 10, 20, 50), MarkedPoint("B", 30, 40, 200), MarkedPoint("C", 5, 6, 100)]
CODES = [3, 1, 4, 1]


@pytest.fixture
def writer():
    return RecordWriter(prompts=Prompts(), families=(DEPTH, PIXELS))


def about(**more):
    return {"name": "7", "image": "7.png", "rng": np.random.default_rng(0), **more}


def turns(record):
    return [turn["value"] for turn in record["conversations"]]


def test_a_depth_chain_states_coordinates_map_comparison_and_letter_in_this_order(writer):
    record = write_record(writer, "depth_chain", points=POINTS, codes=CODES, **about())
    question, answer = turns(record)
    assert question.startswith("<image>\n")
    assert "A, B or C" in question
    steps = ["A (<PIXEL_10>,<PIXEL_20>)", "C (<PIXEL_5>,<PIXEL_6>)", DEPTH.text(CODES), "highest at B", "(B)."]
    assert [answer.index(step) for step in steps] == sorted(answer.index(step) for step in steps)
    assert record["aurora"]["answer"] == "B"
    assert record["aurora"]["points"] == {"A": [10, 20], "B": [30, 40], "C": [5, 6]}


def test_the_coordinate_step_can_be_left_out(writer):
    _, answer = turns(write_record(writer, "depth_chain_without_points", points=POINTS, codes=CODES, **about()))
    assert "PIXEL" not in answer
    assert DEPTH.text(CODES) in answer


def test_points_can_be_given_in_the_question(writer):
    for record in (
        write_record(writer, "depth_chain_from_coordinates", points=POINTS, codes=CODES, **about()),
        write_record(writer, "depth_direct_from_coordinates", points=POINTS, **about()),
    ):
        assert "B (<PIXEL_30>,<PIXEL_40>)" in turns(record)[0]


def test_a_reading_says_the_map_and_its_value_at_each_point(writer):
    question, answer = turns(write_record(writer, "depth_reading", points=POINTS, codes=CODES, **about()))
    assert "A (<PIXEL_10>,<PIXEL_20>), B (<PIXEL_30>,<PIXEL_40>), C (<PIXEL_5>,<PIXEL_6>)" in question
    values = "A (<PIXEL_10>,<PIXEL_20>) 19, B (<PIXEL_30>,<PIXEL_40>) 78, C (<PIXEL_5>,<PIXEL_6>) 39"
    assert answer == f"The depth map is {DEPTH.text(CODES)}. The points are {values}."


@pytest.mark.parametrize(
    ("task", "seen"),
    [("depth_chain_from_map", "depth_chain_from_coordinates"), ("depth_reading_from_map", "depth_reading")],
)
def test_what_is_read_from_a_given_map_is_text_alone_and_ends_as_with_an_image(writer, task, seen):
    record = write_record(writer, task, name="7", points=POINTS, codes=CODES, rng=np.random.default_rng(0))
    question, answer = turns(record)
    assert "image" not in record
    assert "<image>" not in question
    assert DEPTH.text(CODES) in question
    assert "A (<PIXEL_10>,<PIXEL_20>), B (<PIXEL_30>,<PIXEL_40>), C (<PIXEL_5>,<PIXEL_6>)" in question
    for seed in range(5):
        shown = write_record(writer, seen, points=POINTS, codes=CODES, **about(rng=np.random.default_rng(seed)))
        assert turns(shown)[1].endswith(answer)


def test_values_rise_with_depth_from_00_to_99():
    assert [hundredths(depth) for depth in (0, 2, 3, 128, 255)] == ["00", "00", "01", "50", "99"]
    assert sorted(map(hundredths, range(256))) == [hundredths(depth) for depth in range(256)]


def test_without_coordinate_tokens_plain_numbers_are_written():
    writer = RecordWriter(prompts=Prompts(), families=(DEPTH,))
    assert "B (30,40)" in turns(write_record(writer, "point_location", points=POINTS, **about()))[1]


def test_a_direct_answer_is_the_letter_alone_in_brackets(writer):
    assert turns(write_record(writer, "depth_direct", points=POINTS, **about()))[1] == "(B)"


def test_generation_is_the_map_alone(writer):
    assert DEPTH.parse(turns(write_record(writer, "depth_generation", codes=CODES, **about()))[1])[0].codes == tuple(
        CODES
    )


def counting(**more):
    return about(thing="red cube", things="red cubes", **more)


def test_a_counting_chain_lists_the_boxes_numbered_from_one_and_concludes(writer):
    boxes = [(1, 2, 3, 4), (5, 6, 70, 80)]
    record = write_record(writer, "counting_chain", boxes=boxes, **counting())
    question, answer = turns(record)
    assert "red cubes" in question
    assert "\n1. (<PIXEL_1>,<PIXEL_2>,<PIXEL_3>,<PIXEL_4>)\n2. (<PIXEL_5>," in answer
    assert answer.endswith("The answer is 2.")
    assert record["aurora"]["answer"] == "2"


def test_none_of_a_kind_is_said_without_a_box(writer):
    _, answer = turns(write_record(writer, "counting_chain", boxes=[], **counting()))
    assert "PIXEL" not in answer
    assert answer.endswith("The answer is 0.")
    assert turns(write_record(writer, "counting_direct", boxes=[], **counting()))[1] == "0"


def test_letters_give_neither_place_nor_order_away():
    rng = np.random.default_rng(0)
    answers = [closest(letter_points([(0, 0), (9, 9), (5, 5)], [1, 2, 3], rng)).letter for _ in range(300)]
    assert {answers.count(letter) > 70 for letter in "ABC"} == {True}


def test_the_same_seed_writes_the_same_record(writer):
    assert write_record(writer, "depth_chain", points=POINTS, codes=CODES, **about()) == write_record(
        writer, "depth_chain", points=POINTS, codes=CODES, **about()
    )


@pytest.mark.parametrize("task", tasks().values(), ids=lambda task: task.name)
def test_every_shipped_template_has_the_fields_it_needs_and_its_family_knows_them(task):
    for wording in task.wordings.values():
        for part, templates in (("questions", wording.questions), ("answers", wording.answers)):
            assert templates
            assert [_problem(wording, part, template) for template in templates] == [None] * len(templates)
        assert wording.question_needs | wording.answer_needs | wording.optional <= set(family_of(task).fields)


def test_a_file_replaces_the_wording(tmp_path):
    path = tmp_path / "prompts.json"
    path.write_text(json.dumps({"depth_direct": {"questions": ["Nearest of {letters}?"]}}))
    writer = RecordWriter(prompts=Prompts.load(path), families=(DEPTH, PIXELS))
    assert turns(write_record(writer, "depth_direct", points=POINTS, **about())) == [
        "<image>\nNearest of A, B or C?",
        "(B)",
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"depth": {}}, "unknown task 'depth'"),
        ({"depth_direct": {"question": ["?"]}}, "task depth_direct: expected 'questions' and 'answers'"),
        ({"depth_direct": {"questions": []}}, "with at least one"),
        ({"depth_chain": {"answers": ["({answer})"]}}, r"lacks \{map\}"),
        ({"depth_direct": {"answers": ["{answer} {maps}"]}}, r"uses \{maps\}"),
        ({"depth_direct": {"answers": ["{answer"]}}, "is not a template"),
        ({"depth_direct": {"answers": ["{answer:>2000000000}"]}}, "has a format for {answer}"),
        ({"depth_direct": {"answers": ["{answer!r}"]}}, "has a format for {answer}"),
        ([], "a JSON object of tasks"),
    ],
)
def test_bad_wording_is_refused_by_file_task_and_template(tmp_path, content, message):
    path = tmp_path / "prompts.json"
    path.write_text(json.dumps(content))
    with pytest.raises(AuroraError, match=f"prompts.json: .*{message}"):
        Prompts.load(path)
