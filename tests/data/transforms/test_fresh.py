"""Points drawn anew: other ones each epoch, right in the true map, the same wherever they are drawn."""

import copy
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from skimage import data as photographs
from written import write_record

from llava_aurora.data.sources.scenes.scene import SceneConfig
from llava_aurora.data.sources.scenes.scene_folder import write_scenes
from llava_aurora.data.sources.scenes.scene_records import DEFAULT_SHARES, SceneTasks, write_scene_records
from llava_aurora.data.store.record_file import read_records
from llava_aurora.data.store.record_store import RecordStore
from llava_aurora.data.transforms.coordinates import PlainCoordinates, WithoutCoordinateStep
from llava_aurora.data.transforms.fresh import FreshPoints
from llava_aurora.errors import AuroraError
from llava_aurora.tasks.annotated import Drawing
from llava_aurora.tasks.marks import depth_at, draw_points
from llava_aurora.tasks.points import hundredths, letter_points
from llava_aurora.tasks.prompts import Prompts
from llava_aurora.tasks.records import RecordWriter
from llava_aurora.tokens.vocabulary import depth_family, pixel_family

COUNT, SIDE, FRAME = 8, 112, 336
DEPTH, PIXELS = depth_family(codebook_size=4, codes_per_map=4), pixel_family(frame=FRAME)
WRITER = RecordWriter(prompts=Prompts(), families=(DEPTH, PIXELS))
CODES = {f"{number:06d}": [number % 4] * 4 for number in range(COUNT)}
RENEWED = {"depth_chain", "depth_direct", "depth_chain_from_coordinates", "depth_direct_from_coordinates"} | {
    "point_location",
    "depth_reading",
    "depth_chain_from_map",
    "depth_reading_from_map",
}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(out=folder, count=COUNT, seed=5, config=SceneConfig(frame=SIDE, shadows=False))
    return folder


@pytest.fixture(scope="module")
def records(scenes, tmp_path_factory):
    shares = {**DEFAULT_SHARES, "depth_reading": 1.0, "depth_chain_from_map": 1.0, "depth_reading_from_map": 1.0}
    tasks = SceneTasks(shares=shares, drawing=Drawing(frame=FRAME))
    path = tmp_path_factory.mktemp("records") / "train.json"
    return write_scene_records(path, scenes=scenes, codes=CODES, writer=WRITER, tasks=tasks)


@pytest.fixture
def fresh(scenes):
    return FreshPoints(writer=WRITER, image_folder=scenes, frame=FRAME, aspect_ratio="square")


def text(record):
    return "".join(turn["value"] for turn in record["conversations"])


def test_every_question_about_points_is_renewed_and_no_other(records, fresh):
    for record in records:
        renewed = fresh(record)
        assert (renewed is record) != (record["aurora"]["task"] in RENEWED)
        assert renewed["id"] == record["id"]


def test_the_answer_is_the_closest_in_the_true_map_and_the_text_says_so(records, fresh, scenes):
    for epoch in range(3):
        fresh.set_epoch(epoch)
        for record in map(fresh, records):
            truth = record["aurora"]
            if truth["task"] not in RENEWED:
                continue
            depth = np.asarray(Image.open(scenes / truth["depth"]).resize((FRAME, FRAME), Image.Resampling.NEAREST))
            values = {letter: depth_at(depth, tuple(point)) for letter, point in truth["points"].items()}
            assert values == truth["depths"]
            assert truth["answer"] == max(values, key=values.get)
            assert sorted(values) == list("ABCDE"[: len(values)])
            ranked = sorted(values.values())
            assert min(np.diff(ranked)) >= 20
            places = np.array(list(truth["points"].values()))
            apart = np.linalg.norm(places[:, None] - places, axis=-1) + 1000 * np.eye(len(places))
            assert apart.min() >= 20
            reads = truth["task"] in ("depth_reading", "depth_reading_from_map")
            if truth["task"] != "point_location" and not reads:
                assert f"({truth['answer']})" in record["conversations"][1]["value"]
            if reads:
                said = [f") {hundredths(value)}" for value in truth["depths"].values()]
                assert re.findall(r"\) \d\d", record["conversations"][1]["value"]) == said
            if truth["task"] == "depth_chain":
                assert [list(span.codes) for span in PIXELS.parse(text(record))] == list(truth["points"].values())


def test_maps_and_numbers_of_points_stay(records, fresh):
    for record in records:
        renewed = fresh(record)
        before, after = ([span.codes for span in DEPTH.parse(text(each))] for each in (record, renewed))
        assert before == after
        assert len(renewed["aurora"].get("points", [])) == len(record["aurora"].get("points", []))
        assert PIXELS.count(text(renewed)) == PIXELS.count(text(record))


def test_many_points_to_be_read_are_drawn_as_many_and_anywhere(scenes, fresh, tmp_path):
    tasks = SceneTasks(shares={"depth_reading": 1.0}, drawing=Drawing(frame=FRAME, read_points=12))
    read = write_scene_records(tmp_path / "train.json", scenes=scenes, codes=CODES, writer=WRITER, tasks=tasks)
    for record in read:
        before, after = record["aurora"]["points"], fresh(record)["aurora"]["points"]
        assert list(before) == list(after) == list("ABCDEFGHIJKL")
        assert before != after


def test_points_are_drawn_until_they_are_accepted(records, fresh):
    """Here accepted is what has the answer A. What has no answer is taken as it comes."""
    plain = [fresh(record) for record in records]

    def is_first(record):
        return record["aurora"].get("answer") == "A"

    fresh.accept = is_first
    chosen = [fresh(record) for record in records]
    shares = [np.mean([is_first(each) for each in some if "points" in each["aurora"]]) for some in (plain, chosen)]
    assert shares[1] > 2 * shares[0]
    assert all(before == after or not is_first(before) for before, after in zip(plain, chosen, strict=True))


def test_no_epoch_repeats_another(records, fresh):
    asked = [record for record in records if record["aurora"]["task"] == "depth_chain"]
    seen = set()
    for epoch in range(10):
        fresh.set_epoch(epoch)
        seen |= {json.dumps(fresh(record)["aurora"]["points"]) + record["id"] for record in asked}
    assert len(seen) == 10 * len(asked)


def test_the_same_is_drawn_in_any_process_and_order(records, fresh):
    fresh.set_epoch(3)
    first = [fresh(record) for record in records]
    there = copy.deepcopy(fresh)  # copies what a process that is spawned gets
    assert [there(record) for record in reversed(records)][::-1] == first
    other = FreshPoints(writer=WRITER, image_folder=fresh.image_folder, frame=FRAME, aspect_ratio="square", seed=1)
    other.set_epoch(3)
    assert [other(record) for record in records] != first


def test_marks_are_drawn_in_memory_on_the_image_without_marks(records, fresh, scenes):
    for record in map(fresh, records):
        change = fresh.image_change(record)
        marked = record["aurora"]["task"] in ("depth_chain", "depth_direct", "point_location")
        assert (change is not None) == marked
        if change is None:
            continue
        with Image.open(scenes / record["image"]) as picture:
            plain = np.asarray(picture.convert("RGB"))
            drawn = np.asarray(change(picture))
        assert record["image"].startswith("images/")
        scale = SIDE / FRAME
        places = [(int((x + 0.5) * scale), int((y + 0.5) * scale)) for x, y in record["aurora"]["points"].values()]
        assert (drawn == draw_points(plain, places, list(record["aurora"]["points"]))).all()


def test_records_as_written_have_nothing_drawn_on_them(records, fresh):
    assert all(fresh.image_change(record) is None for record in records)


def test_the_ablations_take_renewed_records(records, fresh):
    for record in map(fresh, records):
        plain = PlainCoordinates()(WithoutCoordinateStep()(record))
        assert PIXELS.count(text(plain)) == 0


def test_plain_coordinates_stay_plain(records, fresh):
    plain = [PlainCoordinates()(record) for record in records]
    for record in map(fresh, plain):
        assert PIXELS.count(text(record)) == 0
        if record["aurora"]["task"] == "point_location":
            x, y = record["aurora"]["points"]["A"]
            assert f"A ({x},{y})" in text(record)


def test_without_room_for_other_points_a_record_stays(records, fresh, tmp_path):
    record = next(record for record in records if record["aurora"]["task"] == "depth_chain")
    (tmp_path / "depth").mkdir()
    for name in (record["aurora"]["depth"], record["aurora"]["mean_depth"]):
        Image.fromarray(np.full((SIDE, SIDE), 9, np.uint8)).save(tmp_path / name)
    flat = FreshPoints(writer=WRITER, image_folder=tmp_path, frame=FRAME, aspect_ratio="square")
    assert flat(record) is record


@pytest.mark.parametrize(
    ("aspect_ratio", "size", "shown"),
    [
        ("square", (480, 320), (80, 0, 400, 320)),
        ("square", (320, 480), (0, 80, 320, 400)),
        ("pad", (480, 320), (0, 0, 480, 320)),
        ("resize", (480, 320), (0, 0, 480, 320)),
    ],
)
def test_marks_are_where_the_frame_says_and_nowhere_outside(tmp_path, aspect_ratio, size, shown):
    """A photograph that is not square, and a map that grows closer downwards and to the right."""
    width, height = size
    Image.fromarray(photographs.astronaut()).resize(size).save(tmp_path / "image.png")
    depth = np.add.outer(np.linspace(1, 127, height), np.linspace(0, 127, width)).round().astype(np.uint8)
    Image.fromarray(depth).save(tmp_path / "depth.png")
    points = letter_points([(10, 20), (200, 30), (90, 300)], [10, 60, 200], np.random.default_rng(0))
    record = write_record(
        WRITER, "depth_chain", name="x", image="marked.png", codes=[0] * 4, points=points, rng=np.random.default_rng(0)
    )
    record["aurora"] |= {"depth": "depth.png", "unmarked": "image.png"}
    fresh = FreshPoints(writer=WRITER, image_folder=tmp_path, frame=FRAME, aspect_ratio=aspect_ratio)
    for epoch in range(20):
        fresh.set_epoch(epoch)
        renewed = fresh(record)
        with Image.open(tmp_path / "image.png") as picture:
            plain, drawn = np.asarray(picture), np.asarray(fresh.image_change(renewed)(picture))
        changed = (plain != drawn).any(-1)
        left, top, right, bottom = shown
        changed[top:bottom, left:right] = False
        assert not changed.any()
        scale = {"square": (320 / FRAME,) * 2, "pad": (480 / FRAME,) * 2, "resize": (480 / FRAME, 320 / FRAME)}
        for letter, (x, y) in renewed["aurora"]["points"].items():
            place = (x + 0.5) * scale[aspect_ratio][0] + left, (y + 0.5) * scale[aspect_ratio][1] + top
            place = (place[0], place[1] - (80 if aspect_ratio == "pad" else 0))
            column, row = int(place[0]), int(place[1])
            assert renewed["aurora"]["depths"][letter] == pytest.approx(int(depth[row, column]), abs=2)
            assert tuple(plain[row, column]) == tuple(drawn[row, column])
            around = drawn[max(0, row - 9) : row + 10, max(0, column - 9) : column + 10]
            assert (around == (255, 0, 0)).all(-1).sum() >= 20


def store_of(folder, records):
    path = folder / f"{len(list(folder.iterdir()))}.json"
    path.write_text(json.dumps(list(records)))
    return RecordStore.open(path)


def test_wording_that_is_not_of_the_prompts_is_refused_before_a_run(records, fresh, tmp_path):
    fresh.check(store_of(tmp_path, records))
    fresh.check(store_of(tmp_path, map(PlainCoordinates(), records)))
    own = {"depth_direct": {"questions": ("Which is nearest: {letters}?",), "answers": ("({answer})",)}}
    fresh.writer = replace(WRITER, prompts=Prompts(own))
    with pytest.raises(AuroraError, match=r"json: record \(id 000000/depth_direct\): its wording is not that"):
        fresh.check(store_of(tmp_path, records))


def test_a_file_without_anything_to_renew_is_refused(records, fresh, tmp_path):
    bare = [{**record, "aurora": {"task": record["aurora"]["task"]}} for record in records]
    assert [fresh(record) for record in bare] == bare
    with pytest.raises(AuroraError, match=r"json: no record says what its points were drawn from .*data records"):
        fresh.check(store_of(tmp_path, bare))
    assert fresh({"id": "x", "conversations": []}) == {"id": "x", "conversations": []}


@pytest.mark.parametrize("path", ["../depth.png", "/etc/depth.png", "depth/nowhere.png"])
def test_depth_maps_outside_the_folder_or_missing_are_refused(records, fresh, path):
    record = next(record for record in records if record["aurora"]["task"] == "depth_chain")
    broken = {**record, "aurora": {**record["aurora"], "depth": path}}
    with pytest.raises(AuroraError, match=r"record \(id 000000/depth_chain\): .*(leads out|not a usable depth map)"):
        fresh(broken)


def test_renewed_records_are_good_records(records, fresh, tmp_path):
    (tmp_path / "renewed.json").write_text(json.dumps([fresh(record) for record in records]))
    assert len(read_records(tmp_path / "renewed.json", families=(DEPTH, PIXELS))) == len(records)


def test_points_at_one_height_stay_at_one_height(scenes, tmp_path, fresh):
    tasks = SceneTasks(
        shares={"depth_direct": 1.0, "box_generation": 1.0}, drawing=Drawing(frame=FRAME, one_height=True)
    )
    records = write_scene_records(tmp_path / "train.json", scenes=scenes, codes=CODES, writer=WRITER, tasks=tasks)
    asked = [record for record in records if record["aurora"]["task"] == "depth_direct"]
    assert len(asked) > COUNT / 2
    assert all("one_height" not in record["aurora"] for record in records if record not in asked)
    within = 2 * round(0.05 * SIDE) * FRAME / SIDE  # either side of the height, in whole pixels of the scene
    for epoch in range(3):
        fresh.set_epoch(epoch)
        for record in [*asked, *map(fresh, asked)]:
            heights = [y for _, y in record["aurora"]["points"].values()]
            assert max(heights) - min(heights) <= within
