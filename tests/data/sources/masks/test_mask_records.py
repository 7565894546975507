"""Training records about masks, as a user makes them."""

import json

import numpy as np
import pytest
from command import llava_aurora
from PIL import Image
from refcoco import CUP, DISH, SIZE, filled, write_refs, write_rows

from llava_aurora.data.images.frame import FrameTransform
from llava_aurora.tasks.mask_measures import mask_iou
from llava_aurora.tokens.mask import decode_mask
from llava_aurora.tokens.vocabulary import mask_family

FAMILY = mask_family()


@pytest.fixture
def run(tmp_path):
    def invoke(annotations, images, *arguments):
        out = tmp_path / "train.json"
        out.unlink(missing_ok=True)
        command = ["data", "masks", "--annotations", annotations, "--images", images, "--out", out, *arguments]
        done = llava_aurora(*command)
        return done, json.loads(out.read_text()) if out.exists() else []

    return invoke


def write_coco(folder, **second):
    """Three images of COCO with a cup and a dish each; arguments replace parts of the last annotation."""
    images, annotations = [], []
    for id in range(3):
        Image.new("RGB", SIZE, (id * 40, 90, 90)).save(folder / f"{id}.png")
        images.append({"id": id, "file_name": f"{id}.png", "width": SIZE[0], "height": SIZE[1]})
        for category, outline in ((1, CUP), (2, DISH)):
            box = [outline[0], outline[1], outline[2] - outline[0], outline[5] - outline[1]]
            number = len(annotations)
            about = {"id": number, "image_id": id, "category_id": category, "bbox": box, "iscrowd": 0}
            annotations.append({**about, "segmentation": [outline]})
    annotations[-1].update(second)
    categories = [{"id": 1, "name": "cup"}, {"id": 2, "name": "dish"}, {"id": 3, "name": "dog"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "instances.json").write_text(json.dumps(content))
    return folder / "instances.json"


def answers(records, task):
    return {r["aurora"]["phrase"]: r["conversations"][1]["value"] for r in records if r["aurora"]["task"] == task}


def test_every_phrase_of_refcoco_becomes_a_record_of_its_mask(run, tmp_path):
    folder = write_refs(tmp_path / "refcoco", split="train")
    done, records = run(folder, folder, "--mask-cells", 16)
    assert done.exit_code == 0, done.output
    assert {record["image"] for record in records} == {"COCO_train2014_000000000009.jpg"}
    found = answers(records, "segmentation")
    view = FrameTransform.of(width=40, height=30, frame=40, aspect_ratio="pad").view
    for phrase, mask in {"left cup": filled(CUP), "all of it": filled(CUP) | filled(DISH)}.items():
        span = mask_family(cells=16).parse(found[phrase])[0]
        assert mask_iou(decode_mask(span.codes, (40, 40)), view(mask)) > 0.9
    assert answers(records, "segmentation_of_none") == {"dog": "There is no dog in the image."}
    assert all(record["aurora"]["aspect_ratio"] == "pad" for record in records)


def test_images_in_parquet_are_written_beside_their_records(run, tmp_path):
    source, images = write_rows(tmp_path / "data"), tmp_path / "images"
    done, records = run(source, images, "--split", "val", "--tasks", "segmentation=1")
    assert done.exit_code == 0, done.output
    assert len(records) == 3
    assert Image.open(images / records[0]["image"]).size == SIZE
    done, records = run(source, images, "--tasks", "segmentation=1")
    assert "no records could be made" in str(done.exception)


def test_things_of_coco_are_segmented_counted_and_denied(run, tmp_path):
    done, records = run(write_coco(tmp_path), tmp_path, "--per-image", 6, "--aspect-ratio", "resize")
    assert done.exit_code == 0, done.output
    assert set(answers(records, "segmentation")) <= {"cup", "dish"}
    assert set(answers(records, "segmentation_of_none")) <= {"dog"}
    tasks = {record["aurora"]["task"] for record in records}
    assert not any("place" in task for task in tasks)  # all of them would be of nothing
    assert {"box_then_mask", "mask_counting_chain", "grounded_description", "region_naming"} <= tasks
    for text in answers(records, "grounded_description").values():
        masks = [decode_mask(span.codes, SIZE) for span in FAMILY.parse(text)]
        assert all(mask_iou(mask, filled(true)) > 0.9 for mask, true in zip(masks, (CUP, DISH), strict=True))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"segmentation": [[0, 0, 50, 0, 50, 9]]},
            "annotation 5 (dish): an outline leaves its image of 40 × 30",
        ),
        ({"segmentation": {"size": [9, 9], "counts": [81]}}, "(dish): run lengths of [height, width] [9, 9]"),
        ({"segmentation": [[1, 1, 1, 1, 1, 1]]}, "(dish): the mask is empty"),
    ],
)
def test_a_bad_outline_is_named_and_all_else_is_written(run, tmp_path, changes, said):
    done, records = run(write_coco(tmp_path, **changes), tmp_path)
    assert done.exit_code == 1
    assert said in done.output.replace("\n", "")
    assert {record["image"] for record in records} == {"0.png", "1.png", "2.png"}
    assert not any("dish" in r["conversations"][0]["value"] for r in records if r["image"] == "2.png")


def test_what_the_square_cuts_off_is_passed_over(run, tmp_path):
    left = {"bbox": [0, 0, 4, 9], "segmentation": [[0, 0, 4, 0, 4, 9, 0, 9]]}
    done, records = run(write_coco(tmp_path, **left), tmp_path, "--aspect-ratio", "square")
    assert "1 categories of an image that the square cuts off" in done.output
    assert not any("dish" in r["conversations"][0]["value"] for r in records if r["image"] == "2.png")
    assert np.all([record["aurora"]["aspect_ratio"] == "square" for record in records])
