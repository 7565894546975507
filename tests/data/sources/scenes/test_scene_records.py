"""Records of scenes: every task, points and boxes that are where they are said to be."""

import json
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from llava_aurora.data.sources.scenes.scene import SceneConfig
from llava_aurora.data.sources.scenes.scene_folder import read_scenes, write_scenes
from llava_aurora.data.sources.scenes.scene_records import DEFAULT_SHARES, SceneTasks, write_scene_records
from llava_aurora.errors import AuroraError
from llava_aurora.tasks.annotated import Drawing
from llava_aurora.tasks.marks import depth_at
from llava_aurora.tasks.prompts import Prompts
from llava_aurora.tasks.records import RecordWriter
from llava_aurora.tokens.vocabulary import depth_family, pixel_family

COUNT, FRAME = 12, 64
CODES = {f"{number:06d}": [number % 4] * 4 for number in range(COUNT)}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(out=folder, count=COUNT, seed=5, config=SceneConfig(frame=FRAME, shadows=False))
    return folder


@pytest.fixture
def write(scenes, tmp_path):
    def run(shares=DEFAULT_SHARES, codes=CODES, frame=FRAME, seed=0, keep=None, **settings):
        writer = RecordWriter(
            prompts=Prompts(), families=(depth_family(codebook_size=4, codes_per_map=4), pixel_family(frame=frame))
        )
        drawing = Drawing(frame=frame, points=(2, 3), **settings)
        tasks = SceneTasks(shares=shares, drawing=drawing, seed=seed)
        return write_scene_records(
            tmp_path / "train.json", scenes=scenes, codes=codes, writer=writer, tasks=tasks, keep=keep
        )

    return run


def test_every_scene_is_asked_every_task_and_all_images_are_there(write, scenes, tmp_path):
    records = write()
    tasks = Counter(record["aurora"]["task"].removesuffix("_of_none") for record in records)
    assert set(tasks) == set(DEFAULT_SHARES)
    assert tasks["depth_generation"] == tasks["box_generation"] == COUNT
    assert 0 < tasks["counting_direct"] == tasks["counting_chain"] < COUNT, (
        "not every scene has the count that is drawn"
    )
    assert all((scenes / record["image"]).is_file() for record in records)
    assert json.loads((tmp_path / "train.json").read_text()) == records


def test_records_may_be_left_out_and_the_others_stay_as_they_are(write):
    everything = write()
    kept = write(keep=lambda record: record["aurora"].get("answer") != "A")
    assert kept == [record for record in everything if record["aurora"].get("answer") != "A"]
    assert 0 < len(kept) < len(everything)


@pytest.mark.parametrize("task", ["depth_reading", "depth_chain_from_map", "depth_reading_from_map"])
def test_what_practises_maps_comes_when_asked_for_and_changes_nothing_else(write, task):
    plain, read = write(), write(shares={**DEFAULT_SHARES, task: 1.0})
    practice = [record for record in read if record["aurora"]["task"] == task]
    assert [record for record in read if record["aurora"]["task"] != task] == plain
    assert len(practice) == sum(record["aurora"]["task"] == "depth_direct" for record in plain)
    assert all("unmarked" not in record["aurora"] for record in practice)
    assert all(("image" in record) == (task == "depth_reading") for record in practice)


def test_as_many_points_are_read_as_asked_for_whatever_the_questions_have(write, scenes):
    for record in write(
        shares={"depth_reading": 1.0, "depth_reading_from_map": 1.0, "depth_direct": 1.0}, read_points=12
    ):
        truth = record["aurora"]
        if truth["task"] == "depth_direct":
            assert len(truth["points"]) in (2, 3)
            continue
        assert "".join(truth["points"]) == "ABCDEFGHIJKL"
        depth = np.asarray(Image.open(scenes / truth["depth"]))
        assert {letter: depth_at(depth, tuple(place)) for letter, place in truth["points"].items()} == truth["depths"]


def test_more_points_than_there_are_letters_are_refused():
    with pytest.raises(AuroraError, match="27 points to state values of: 1 to 26 are possible"):
        SceneTasks(shares={}, drawing=Drawing(read_points=27))
    for points in (-1, 0, 1, 27):
        with pytest.raises(AuroraError, match=f"questions of {points} points: 2 to 26"):
            Drawing(points=[2, points])


def test_a_file_without_records_is_not_written(write):
    with pytest.raises(AuroraError, match="none of these tasks could be asked"):
        write(shares={"depth_generation": 0})


@pytest.mark.parametrize("frame", [FRAME, 336])
def test_the_answer_is_the_point_that_is_closest_in_the_true_map(write, scenes, frame):
    for record in write(frame=frame):
        truth = record["aurora"]
        if "points" not in truth:
            continue
        depth = np.asarray(Image.open(scenes / truth["depth"]))
        places = {
            letter: (int(x * FRAME / frame), int(y * FRAME / frame)) for letter, (x, y) in truth["points"].items()
        }
        values = {letter: depth_at(depth, place) for letter, place in places.items()}
        assert truth["answer"] == max(values, key=values.get)


def test_the_count_is_the_number_of_boxes_and_of_objects(write, scenes):
    objects = {scene.id: scene.objects for scene in read_scenes(scenes)}
    written = [
        record for seed in range(4) for record in write({"counting_chain": 1.0, "counting_direct": 1.0}, seed=seed)
    ]
    counted = [record for record in written if record["aurora"]["task"].startswith("counting")]
    assert any(record["aurora"]["answer"] == "0" for record in counted)
    for record in counted:
        truth = record["aurora"]
        there = [thing for thing in objects[record["id"].split("/")[0]] if thing.plural == truth["things"]]
        assert int(truth["answer"]) == len(truth["boxes"]) == len(there)


def test_each_count_is_asked_for_as_often_as_another(write):
    answers = Counter(
        record["aurora"]["answer"] for seed in range(60) for record in write({"counting_direct": 1.0}, seed=seed)
    )
    assert len(answers) >= 4
    assert max(answers.values()) < 1.4 * sum(answers.values()) / len(answers)


def test_marked_images_differ_from_the_plain_ones_at_the_points(write, scenes):
    for record in write(shares={"depth_direct": 1.0}):
        marked = np.asarray(Image.open(scenes / record["image"])).astype(int)
        plain = np.asarray(Image.open(scenes / record["image"].replace("marked", "images"))).astype(int)
        changed = np.abs(marked - plain).max(axis=2) > 60
        for x, y in record["aurora"]["points"].values():
            assert changed[max(0, y - 3) : y + 4, max(0, x - 3) : x + 4].any()


def test_the_same_seed_writes_the_same_records(write):
    assert write(seed=1) == write(seed=1) != write(seed=2)


@pytest.fixture
def spoilt(tmp_path):
    """A folder of one scene, to be spoilt."""
    folder = tmp_path / "spoilt"
    write_scenes(out=folder, count=1, seed=5, config=SceneConfig(frame=FRAME, shadows=False))

    def run():
        writer = RecordWriter(
            prompts=Prompts(), families=(depth_family(codebook_size=4, codes_per_map=4), pixel_family(frame=FRAME))
        )
        tasks = SceneTasks(shares=DEFAULT_SHARES, drawing=Drawing(frame=FRAME))
        write_scene_records(tmp_path / "train.json", scenes=folder, codes=CODES, writer=writer, tasks=tasks)

    return folder, run


def test_a_depth_map_of_another_size_is_refused(spoilt):
    folder, run = spoilt
    Image.fromarray(np.full((32, 48), 7, np.uint8)).save(folder / "depth" / "000000.png")
    with pytest.raises(
        AuroraError, match=r"scene 000000: .*000000\.png: the depth map is 48 × 32 .* its image 64 × 64"
    ):
        run()


def test_a_depth_map_of_zeros_is_refused(spoilt):
    folder, run = spoilt
    Image.fromarray(np.zeros((FRAME, FRAME), np.uint8)).save(folder / "depth" / "000000.png")
    with pytest.raises(AuroraError, match=r"scene 000000: .*000000\.png: .* all zero"):
        run()


@pytest.mark.parametrize("box", [[60, 60, 70, 70], [30, 30, 20, 40]])
def test_a_box_outside_the_image_or_upside_down_is_refused(spoilt, box):
    folder, run = spoilt
    path = folder / "scenes.jsonl"
    scene = json.loads(path.read_text())
    for thing in scene["objects"]:
        thing["box"] = box
    path.write_text(json.dumps(scene) + "\n")
    with pytest.raises(AuroraError, match=r"scenes\.jsonl"):
        for _ in range(8):
            run()


def test_what_is_missing_or_unknown_is_named(write):
    with pytest.raises(AuroraError, match=r"000000\.png: has no codes"):
        write(codes={})
    with pytest.raises(AuroraError, match="unknown task 'depth_chains'"):
        write(shares={"depth_chains": 1.0})
