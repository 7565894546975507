"""Other pixels of the same image, in the record's own words."""

import json

import numpy as np
import pytest
from PIL import Image

from llava_aurora.data.images.seen_colors import seen_colors
from llava_aurora.data.sources.pixel_records import write_pixel_records
from llava_aurora.data.store.record_store import RecordStore
from llava_aurora.data.transforms.pixels import FreshPixels
from llava_aurora.errors import AuroraError
from llava_aurora.tasks.pixels import facts_of_cell, known_facts
from llava_aurora.tasks.prompts import Prompts
from llava_aurora.tasks.records import RecordWriter
from llava_aurora.tokens.vocabulary import color_family, pixel_family

FAMILIES = (color_family(), pixel_family(frame=112))
WRITER = RecordWriter(prompts=Prompts(), families=FAMILIES)


@pytest.fixture
def folder(tmp_path):
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (48, 64, 3), dtype=np.uint8)
        (tmp_path / "images").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{number}.png")
    return tmp_path


def written(folder, task="pixel_value", **options):
    return write_pixel_records(
        folder / "train.json", images=folder / "images", writer=WRITER, shares={task: 1}, frame=112, **options
    )


@pytest.mark.parametrize("task", ["pixel_value", "pixel_value_plain"])
def test_each_epoch_asks_for_another_pixel_with_its_colour(folder, task):
    made = written(folder, task)
    assert [record["image"] for record in made.training] == ["0.png", "1.png", "2.png"]
    step = FreshPixels(writer=WRITER, image_folder=folder / "images", aspect_ratio="pad")
    cells = set()
    for epoch in range(4):
        step.set_epoch(epoch)
        record = step(made.training[1])
        assert step(made.training[1]) == record
        about = record["aurora"]
        colors = seen_colors(Image.open(folder / "images" / "1.png"), aspect_ratio="pad")
        facts = facts_of_cell(colors, tuple(about["cell"]), frame=112)
        assert known_facts(record) == facts
        # As if the file had been written so.
        assert (
            record["conversations"]
            == WRITER.write(task, facts, name="", image="1.png", rng=np.random.default_rng(0))["conversations"]
        )
        cells.add(tuple(about["cell"]))
    assert len(cells) > 1


def test_records_of_other_tasks_stay_as_they_are(folder):
    step = FreshPixels(writer=WRITER, image_folder=folder, aspect_ratio="pad")
    record = {"id": "1", "conversations": [], "aurora": {"task": "depth_chain"}}
    assert step(record) is record
    assert step({"id": "2", "conversations": []}) == {"id": "2", "conversations": []}


def test_an_image_that_is_gone_is_named_before_training(folder):
    written(folder)
    (folder / "images" / "2.png").unlink()
    step = FreshPixels(writer=WRITER, image_folder=folder / "images", aspect_ratio="pad")
    with pytest.raises(AuroraError, match=r"train.json: record \(id 2.png/0/pixel_value\): .*2.png: no such image"):
        step.check(RecordStore.open(folder / "train.json"))


def test_a_broken_image_is_reported_and_the_others_are_written(folder):
    (folder / "images" / "1.png").write_bytes(b"no image")
    made = written(folder, per_image=2)
    assert len(made.training) == 4 == len(json.loads((folder / "train.json").read_text()))
    assert len(made.failures) == 1
    assert "1.png" in made.failures[0]
    (folder / "empty").mkdir()
    with pytest.raises(AuroraError, match="holds none of"):
        write_pixel_records(folder / "x.json", images=folder / "empty", writer=WRITER, shares={})
