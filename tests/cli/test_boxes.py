"""`data boxes` and `data hardblink` as a user runs them."""

import json
import re

import numpy as np
import pytest
from command import llava_aurora
from PIL import ExifTags, Image

from llava_aurora.data.sources.hardblink import read_hardblink


@pytest.fixture
def run():
    def invoke(*arguments):
        done = llava_aurora("data", *arguments)
        return done.exit_code, done.output, done.exception

    return invoke


@pytest.fixture
def coco(tmp_path):
    """Six images in COCO's layout with 1 to 3 cups each; returns what adds annotations and writes the file."""
    folder = tmp_path / "train2017"
    folder.mkdir()
    images, annotations = [], []
    for id in range(6):
        name = f"{id:012d}.jpg"
        Image.new("RGB", (64, 48), (id * 40, 90, 90)).save(folder / name)
        images.append({"id": id, "file_name": name, "width": 64, "height": 48})
        annotations += [
            {"id": 10 * id + k, "image_id": id, "category_id": 1, "bbox": [5 + 15 * k, 8, 10, 12], "iscrowd": 0}
            for k in range(1 + id % 3)
        ]
    categories = [{"id": 1, "name": "cup"}, {"id": 2, "name": "scissors"}]

    def write(*more):
        path = tmp_path / "instances.json"
        content = {"images": images, "annotations": [*annotations, *more], "categories": categories}
        path.write_text(json.dumps(content))
        return "boxes", "--annotations", path, "--images", folder, "--out", tmp_path / "train.json"

    return write


def test_boxes_writes_records_and_shows_the_counts(run, coco, tmp_path):
    code, output, _ = run(*coco(), "--negatives", 0.25)
    assert code == 0
    counts = {row[0]: row[1:] for row in map(str.split, output.splitlines()) if len(row) == 3}
    assert counts["0"] == ["6", "2"]
    assert counts["1"] == counts["2"] == counts["3"] == ["2", "2"]
    assert counts["all"] == ["12", "8"]
    assert "24 written, 0 failed" in output
    assert "--image_aspect_ratio pad" in output
    assert len(json.loads((tmp_path / "train.json").read_text())) == 24


def test_failures_end_in_exit_code_one_with_the_rest_written(run, coco, tmp_path):
    empty = {"id": 99, "image_id": 0, "category_id": 1, "bbox": [5, 8, 0, 12]}
    code, output, _ = run(*coco(empty))
    assert code == 1
    assert "1 failed" in output
    assert "image 0: annotation 99 (cup): the box [5, 8, 0, 12] has no area" in output
    assert not any(record["id"] == "0/1" for record in json.loads((tmp_path / "train.json").read_text()))


def test_an_image_that_is_stored_turned_is_named_and_what_conventions_leave_out_is_counted(run, coco, tmp_path):
    path = tmp_path / "train2017" / "000000000000.jpg"
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 3  # the size stays the same
    Image.new("RGB", (64, 48)).save(path, exif=exif)
    twice = {"id": 99, "image_id": 1, "category_id": 1, "bbox": [5, 8, 10, 12]}
    code, output, _ = run(*coco(twice))
    assert code == 1
    assert "000000000000.jpg: stored turned or mirrored (EXIF orientation 3)" in output.replace("\n", "")
    assert "1 failed; passed over: 1 boxes annotated twice" in output
    assert all(record["image"] != path.name for record in json.loads((tmp_path / "train.json").read_text()))


def test_every_flag_reaches_the_records(run, coco, tmp_path):
    wording = tmp_path / "wording.json"
    wording.write_text(json.dumps({"counting_direct": {"questions": ["Tell the number of {things}."]}}))
    code, output, _ = run(
        *coco(),
        *("--validation-out", tmp_path / "val.json", "--validation-share", 0.5, "--tasks", "counting_direct=1"),
        *("--prompts", wording, "--plain-coordinates", "--frame", 56, "--max-boxes", 2, "--max-per-count", 1),
        *("--per-image", 1, "--max-images", 6, "--aspect-ratio", "square", "--seed", 3, "--negatives", 0.5),
    )
    assert code == 0, output
    records = [json.loads((tmp_path / name).read_text()) for name in ("train.json", "val.json")]
    assert all(records)
    for record in records[0] + records[1]:
        assert record["conversations"][0]["value"].startswith("<image>\nTell the number of ")
        assert int(record["aurora"]["answer"]) <= 2
        assert record["aurora"]["aspect_ratio"] == "square"
        assert all(coordinate < 56 for box in record["aurora"]["boxes"] for coordinate in box)


@pytest.mark.parametrize(
    "tasks",
    ["counting_chain", "counting_chain=x", "=", "counted=1", "counting_chain=nan", "counting_chain=2"],
)
def test_malformed_tasks_are_refused(run, coco, tasks):
    code, _, error = run(*coco(), "--tasks", tasks)
    assert code == 1
    assert re.search("expected name=share|unknown task|expected a probability", str(error))


def test_hardblink_says_how_many_questions_it_made(run, tmp_path):
    ramp = np.tile(np.linspace(1, 255, 120).astype(np.uint8), (90, 1))
    for name in ("images", "depth"):
        (tmp_path / name).mkdir()
        Image.fromarray(ramp).save(tmp_path / name / "a.png")
    out = tmp_path / "out"
    code, output, _ = run("hardblink", "--images", tmp_path / "images", "--depth", tmp_path / "depth", "--out", out)
    assert code == 0
    assert "3 points: 1 questions" in output
    assert "3 written, 0 failed" in output
    assert len(read_hardblink(out, 5)) == 1
    Image.fromarray(ramp).save(tmp_path / "images" / "b.png")
    code, output, _ = run(
        "hardblink", "--images", tmp_path / "images", "--depth", tmp_path / "depth", "--out", tmp_path / "more"
    )
    assert code == 1
    assert "b.png: there is no depth map" in output
