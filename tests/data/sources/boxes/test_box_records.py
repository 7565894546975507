"""From a folder in LVIS's layout to records: which questions, whose boxes, in which file."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from published_lvis import write_lvis

from llava_aurora.data.images.frame import FrameTransform
from llava_aurora.data.sources.boxes.box_questions import BoxTasks, Question, balance, box_codes
from llava_aurora.data.sources.boxes.box_records import write_box_records
from llava_aurora.data.sources.boxes.lvis import AnnotatedImage
from llava_aurora.data.store.record_file import read_records
from llava_aurora.errors import AuroraError
from llava_aurora.tasks.prompts import Prompts
from llava_aurora.tasks.records import RecordWriter
from llava_aurora.tokens.box import BoxKind
from llava_aurora.tokens.vocabulary import pixel_family

PIXELS = pixel_family(frame=336)


@pytest.fixture(scope="module")
def lvis(tmp_path_factory):
    return write_lvis(tmp_path_factory.mktemp("lvis"))


@pytest.fixture
def changed(lvis, tmp_path):
    """The annotation file, changed by a function that gets its content."""

    def run(change):
        content = json.loads(lvis.read_text())
        change(content)
        path = tmp_path / "changed.json"
        path.write_text(json.dumps(content))
        return path

    return run


@pytest.fixture
def write(lvis, tmp_path):
    def run(annotations=None, pixels=PIXELS, images=None, validation_out=None, resized=None, **tasks):
        writer = RecordWriter(prompts=Prompts(), families=(pixels,) if pixels else ())
        return write_box_records(
            tmp_path / "train.json",
            annotations=annotations or lvis,
            images=images or lvis.parent,
            writer=writer,
            tasks=BoxTasks(**tasks),
            validation_out=validation_out,
            resized=resized,
        )

    return run


def test_every_count_is_the_number_of_true_boxes(write, lvis, tmp_path):
    made = write()
    content = json.loads(lvis.read_text())
    true = Counter((entry["image_id"], entry["category_id"]) for entry in content["annotations"])
    tasks = Counter(record["aurora"]["task"].removesuffix("_of_none") for record in made.training)
    assert tasks["box_generation"] == tasks["counting_chain"] == tasks["counting_direct"] == made.asked.total()
    for record in made.training:
        image, category, _ = record["id"].split("/")
        truth = record["aurora"]
        assert int(truth["answer"]) == len(truth["boxes"]) == true[int(image), int(category)]
        assert (lvis.parent / record["image"]).is_file()
        assert truth["aspect_ratio"] == "pad"
    assert made.failures == []
    assert read_records(tmp_path / "train.json", families=[PIXELS]) == made.training


def test_boxes_of_scenes_and_of_a_photograph_are_moved_into_the_padded_frame(write, lvis):
    records = write(per_image=9, negatives=0).training
    content = json.loads(lvis.read_text())
    for record in records:
        image, category, _ = record["id"].split("/")
        boxes = [
            entry["bbox"]
            for entry in content["annotations"]
            if (entry["image_id"], entry["category_id"]) == (int(image), int(category))
        ]
        shift, scale = (100, 336 / 600) if image == "9" else (0, 336 / 64)
        expected = [
            [x * scale, (y + shift * (image == "9")) * scale, (x + w) * scale, (y + shift * (image == "9") + h) * scale]
            for x, y, w, h in boxes
        ]
        assert np.abs(np.array(record["aurora"]["boxes"]) - sorted(expected)).max() <= 1.01
    cup = next(record for record in records if record["aurora"]["things"] == "cups")
    assert cup["aurora"]["boxes"] == [[92, 64, 229, 236]]
    assert "(<PIXEL_92>,<PIXEL_64>,<PIXEL_229>,<PIXEL_236>)" in str(records)


def test_boxes_go_from_left_to_right_and_then_down(write):
    for record in write(per_image=9).training:
        assert record["aurora"]["boxes"] == sorted(record["aurora"]["boxes"])


def test_what_is_not_exhaustive_is_never_asked_for(write):
    made = write(per_image=9, negatives=0)
    assert not any(record["id"].startswith("12/") for record in made.training)


def test_negatives_are_as_many_as_wanted_and_surely_absent(write, lvis):
    absent = {image["id"]: set(image["neg_category_ids"]) for image in json.loads(lvis.read_text())["images"]}
    made = write(negatives=0.25)
    assert made.asked[0] / made.asked.total() == pytest.approx(0.25, abs=0.02)
    for record in made.training:
        image, category, _ = map(str, record["id"].split("/"))
        assert (record["aurora"]["answer"] == "0") == (int(category) in absent[int(image)])
    assert write(negatives=0).asked[0] == 0


def test_shares_thin_tasks_out_and_leave_tasks_out(write):
    made = write(shares={"counting_chain": 0.5, "counting_direct": 1})
    tasks = Counter(record["aurora"]["task"].removesuffix("_of_none") for record in made.training)
    assert 0 < tasks["counting_chain"] < tasks["counting_direct"] == made.asked.total()
    assert tasks["box_generation"] == 0


def test_no_more_boxes_than_wanted(write):
    made = write(max_boxes=1)
    assert max(made.possible) == max(made.asked) == 1


def test_the_same_seed_writes_the_same_records(write):
    assert write(seed=1).training == write(seed=1).training != write(seed=2).training


def test_images_are_in_training_or_in_validation_whatever_else_is_asked(write, tmp_path):
    out = tmp_path / "val.json"

    def sides(**tasks):
        made = write(validation_out=out, validation_share=0.4, **tasks)
        return [{record["image"] for record in records} for records in (made.training, made.validation)]

    training, validation = sides()
    assert training
    assert validation
    assert not training & validation
    assert {record["image"] for record in json.loads(out.read_text())} == validation
    fewer_training, fewer_validation = sides(max_images=15, shares={"box_generation": 1}, negatives=0.5)
    assert len(fewer_training | fewer_validation) <= 15
    assert not (fewer_training & validation) | (training & fewer_validation)


def test_square_leaves_out_what_the_crop_cuts_through():
    transform = FrameTransform.of(width=800, height=400, frame=336, aspect_ratio="square")
    kind = BoxKind(frame=336)
    inside, half, sliver, outside = (300, 0, 400, 50), (150, 0, 250, 50), (120, 0, 220, 50), (0, 0, 99, 50)
    assert box_codes([inside, outside], transform, kind) == ((84, 0, 168, 42),)
    assert box_codes([inside, half], transform, kind) == ((0, 0, 42, 42), (84, 0, 168, 42))
    assert box_codes([inside, sliver], transform, kind) is None


def test_images_can_be_left_for_training_to_resize(write, tmp_path):
    there = write(aspect_ratio="resize", negatives=0).training
    copied = write(aspect_ratio="resize", resized=tmp_path / "small", negatives=0).training
    assert [record["aurora"] for record in there] == [record["aurora"] for record in copied]
    assert all(f"{record['image']}.png" == copy["image"] for record, copy in zip(there, copied, strict=True))


def test_resized_images_are_written_and_named(write, lvis, tmp_path):
    made = write(aspect_ratio="resize", resized=tmp_path / "small", negatives=0)
    for record in made.training:
        with Image.open(tmp_path / "small" / record["image"]) as picture:
            assert picture.size == (336, 336)
    cup = next(record for record in made.training if record["aurora"]["things"] == "cups")
    assert cup["image"] == "val2017/000000000009.jpg.png"
    assert cup["aurora"]["boxes"] == [[92, 12, 229, 270]]


def test_files_right_in_the_folder_are_found_by_file_name_and_by_url(write, lvis):
    made = write(images=lvis.parent / "val2017", negatives=0)
    assert {record["image"] for record in made.training} == {"000000000009.jpg"}
    assert len(made.failures) == 24
    assert "image 100: no such image" in "".join(made.failures)


def test_failures_are_named_and_the_rest_is_written(write, changed):
    def spoil(content):
        images = {image["id"]: image for image in content["images"]}
        images[100]["coco_url"] = "http://images.cocodataset.org/train2017/000000999999.jpg"
        images[101]["width"] = 63
        images[102]["file_name"] = "../../secret.jpg"
        images[103]["coco_url"] = "http://images.cocodataset.org/x/../.."
        box = next(entry for entry in content["annotations"] if entry["image_id"] == 104)
        box["bbox"][2] = 0
        del images[105]["coco_url"]

    made = write(changed(spoil))
    assert len(made.training) > 30
    named = "\n".join(made.failures)
    for message in (
        r"000000999999.jpg",
        "64 × 64 pixels, but annotated as 63 × 64",
        "'../../secret.jpg' leads out of the folder",
        "image 103: the path '../..' leads out",
        "image 104: annotation",
        "image 105: no such image: it has neither file_name nor coco_url",
    ):
        assert message in named
    assert len({failure.split("image ")[1][:3] for failure in made.failures}) == 6


def test_nothing_is_written_where_there_would_be_nothing(write, tmp_path):
    with pytest.raises(AuroraError, match=r"train\.json: no records could be made.* the first: image"):
        write(images=tmp_path)
    with pytest.raises(AuroraError, match=r"val\.json: no records could be made"):
        write(validation_out=tmp_path / "val.json", validation_share=1e-9)
    assert list(tmp_path.glob("*.json")) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shares": {"counting": 1.0}}, "unknown task 'counting'"),
        ({"aspect_ratio": "anyres"}, "unknown aspect ratio 'anyres'"),
        ({"negatives": 1.0}, "negatives is a share"),
        ({"validation_share": -0.1}, "validation_share is a share"),
        ({"max_boxes": 0}, "max_boxes must be at least 1"),
        ({"resized": Path("small")}, "a folder for resized images needs the aspect ratio 'resize'"),
        ({"validation_share": 0.5}, "given together"),
    ],
)
def test_impossible_wishes_are_refused(write, arguments, message):
    with pytest.raises(AuroraError, match=message):
        write(**arguments)


# --- balance ----------------------------------------------------------------------------------------------------------


def questions(counts):
    """One question of each (image, count)."""
    return [
        Question(
            AnnotatedImage(id=image, names=(), width=1, height=1, boxes={}, absent=()),
            f"{image}.jpg",
            number,
            ((0, 0, 1, 1),) * count,
        )
        for number, (image, count) in enumerate(counts)
    ]


def test_no_count_is_asked_more_often_than_the_cap():
    rng = np.random.default_rng(0)
    many = questions([(image, count) for image in range(100) for count in (1, 1, 2, 3)])
    chosen = balance(many, max_per_count=7, per_image=9, rng=rng)
    assert Counter(len(question.boxes) for question in chosen) == {1: 7, 2: 7, 3: 7}
    assert len(balance(many, max_per_count=0, per_image=9, rng=rng)) == 400


def test_a_rare_count_is_not_crowded_out_of_its_image():
    often = [(image, 1) for image in range(50)]
    rare = [(image, 12) for image in range(0, 50, 10)]
    chosen = balance(questions(often + rare), max_per_count=20, per_image=1, rng=np.random.default_rng(0))
    assert Counter(len(question.boxes) for question in chosen) == {12: 5, 1: 20}
    assert max(Counter(question.image.id for question in chosen).values()) == 1
