"""Files in the layout of AURORA's: their kinds of records are recognised, and all that needs a task works on them."""

import json
from collections import Counter

import numpy as np
import pytest
from command import llava_aurora
from PIL import Image

from llava_aurora.data.curriculum.sampler import Curriculum
from llava_aurora.data.curriculum.schedule_file import read_schedule
from llava_aurora.data.sources.aurora_records import AuroraRecords, truth_of
from llava_aurora.data.store.record_store import RecordStore
from llava_aurora.data.validation.checks import CheckSettings, check_file
from llava_aurora.errors import AuroraError
from llava_aurora.evaluation.benchmarks.record_questions import read_record_questions
from llava_aurora.tokens.vocabulary import depth_family, pixel_family

DEPTH, PIXELS = depth_family(), pixel_family()
MAP = " ".join([DEPTH.start, *map(DEPTH.token, range(100)), DEPTH.end])  # with blanks, as theirs have
CUPS = f"1. {PIXELS.text((10, 20, 300, 330))}\n2. {PIXELS.text((5, 6, 90, 99))}"
POINTS = {"A": [12, 34], "B": [200, 90]}
NAMED = ",".join(f"Mark {letter} lies at (x = {x} y = {y})" for letter, (x, y) in POINTS.items())
CLOSEST, COUNT = "Letters name some circles. Which is the closest one?", "How many cups does it show?"
CHAIN = f"{NAMED}.This is the map: {MAP}. As B is higher in it, the answer is that point B is closer to the camera."
CASES = {
    "map": ("And its depth?", f"It is {MAP}.", {"task": "depth_generation"}),
    "chain": (f"{CLOSEST}\nIn steps.", CHAIN, {"task": "depth_chain", "points": POINTS, "answer": "B"}),
    "no points": (CLOSEST, CHAIN.removeprefix(NAMED), {"task": "depth_chain_without_points", "answer": "B"}),
    "letter": (CLOSEST, "(B)", {"task": "depth_direct", "answer": "B"}),
    "boxes": ("Where are the cups?", CUPS, {"task": "box_generation", "boxes": [[10, 20, 300, 330], [5, 6, 90, 99]]}),
    "count": (
        f"{COUNT} In steps.",
        f"{CUPS}\nSo there are 2 cups.",
        {"task": "counting_chain", "boxes": [[10, 20, 300, 330], [5, 6, 90, 99]], "answer": "2"},
    ),
    "plain": (
        COUNT,
        "1. (10,20,300,330)\nThere is 1 cup.",
        {"task": "counting_chain", "boxes": [[10, 20, 300, 330]], "answer": "1"},
    ),
    "number": (COUNT, "2", {"task": "counting_direct", "answer": "2"}),
    "no box": ("Where are the cups?", "No cups available: there are 0.", {"task": "box_generation_of_none"}),
    "none": (COUNT, "There are no cups in it, so 0.", {"task": "counting_chain_of_none"}),
    "words": ("What is it?", "Two cups on a table.", None),
    "option": ("Choose A or B.", "(B)", None),
    "two maps": ("And its depth?", f"{MAP} {MAP}", None),
    "no count": (COUNT, CUPS, None),
}


def record(question, answer, *, image="wide.png", number=0):
    turns = [{"from": "human", "value": f"<image>\n{question}"}, {"from": "gpt", "value": answer}]
    return {"id": str(number), "image": image, "conversations": turns}


@pytest.mark.parametrize("case", CASES)
def test_the_task_of_a_record_follows_from_its_answer(case):
    question, answer, truth = CASES[case]
    if truth is not None and truth["task"].endswith("_of_none"):
        truth = {**truth, "boxes": [], "answer": "0"}
    assert truth_of(record(question, answer)) == truth


@pytest.fixture
def theirs(tmp_path):
    """A wide image with all recognised kinds of records, each twice, as in a file with two epochs in it."""
    made = [record(*CASES[case][:2], number=i) for i, case in enumerate(CASES) if CASES[case][2] and case != "plain"]
    words = record(*CASES["words"][:2], number="w")
    (tmp_path / "theirs.json").write_text(json.dumps([*made, *made, words]))
    pixels = np.random.default_rng(0).integers(0, 256, (100, 200, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    return tmp_path / "theirs.json", made


def convert(theirs, out, *options):
    done = llava_aurora("data", "convert", "--from", "aurora", *options, theirs, out)
    assert done.exit_code == 0, done.output
    return json.loads(out.read_text()), done


def test_texts_and_order_stay_and_the_truth_is_added(theirs, tmp_path):
    path, made = theirs
    found, done = convert(path, tmp_path / "all.json")
    assert [each["conversations"] for each in found[:-1]] == [each["conversations"] for each in made * 2]
    assert all(each["aurora"]["aspect_ratio"] == "resize" for each in found[:-1])
    assert "aurora" not in found[-1]
    direct = next(each for each in found if each["aurora"]["task"] == "depth_direct")
    assert direct["aurora"]["points"] == POINTS, "those of the chain about the same image"
    assert "depth_generation 2" in done.stdout
    assert f"repeated: {len(made)}" in done.stdout
    assert done.stderr.splitlines()[-1] == f"not recognised: record {2 * len(made)} (id w): 'Two cups on a table.'"


def test_each_record_once_is_what_curriculum_preflight_and_evaluation_need(theirs, tmp_path):
    path, made = theirs
    found, done = convert(path, tmp_path / "records.json", "--once")
    assert len(found) == len(made) + 1
    assert "left out" in done.stdout
    assert len({each["id"] for each in found}) == len(found)

    for ratio, kinds in (("resize", set()), ("pad", {"frame"})):
        settings = CheckSettings(families=(DEPTH, PIXELS), image_folder=tmp_path, aspect_ratio=ratio)
        assert set(check_file(tmp_path / "records.json", settings).findings.numbers) == kinds

    store = RecordStore.open(str(tmp_path / "records.json"), families=(DEPTH, PIXELS))
    curriculum = Curriculum(store, read_schedule("linear"))
    assert curriculum.counts == {
        **dict.fromkeys(("depth_generation", "depth_chain", "depth_chain_without_points", "depth_direct"), 1),
        **{"box_generation": 2, "counting_chain": 2, "counting_direct": 1},
    }
    assert len(curriculum.order(1, epochs=2, seed=0)) == curriculum.length

    alone = tmp_path / "depth"
    alone.mkdir()
    (alone / "wide.png").symlink_to(tmp_path / "wide.png")
    (alone / "records.json").write_text(json.dumps([each for each in found if "depth" in each["id"]]))
    questions = read_record_questions(alone).questions
    assert Counter(each.category for each in questions) == dict.fromkeys(
        ("depth_chain", "depth_chain_without_points", "depth_direct"), 1
    )
    assert {each.answer for each in questions} == {"B"}
    asked = next(each for each in found if each["aurora"]["task"] == "depth_direct")
    asked["aurora"]["points"] = ""
    (alone / "records.json").write_text(json.dumps([asked]))
    with pytest.raises(AuroraError, match=r"records\.json: record 0 \(id "):
        read_record_questions(alone)


def test_what_has_a_task_already_is_left_alone(tmp_path):
    ours = {**record(*CASES["letter"][:2]), "aurora": {"task": "depth_direct", "answer": "A"}}
    (tmp_path / "ours.json").write_text(json.dumps([ours]))
    assert list(AuroraRecords(tmp_path / "ours.json")([ours])) == [ours]
