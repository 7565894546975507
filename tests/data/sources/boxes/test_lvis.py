"""Annotation files in the layouts that LVIS 0.5, LVIS 1 and COCO are published in."""

import json

import pytest

from llava_aurora.data.sources.boxes.lvis import read_annotations
from llava_aurora.errors import AuroraError

CATEGORIES = [
    {"id": 1, "name": "cup", "synset": "cup.n.01", "frequency": "f"},
    {"id": 2, "name": "bow_(weapon)", "synset": "bow.n.04", "frequency": "r"},
    {"id": 5, "name": "sheep", "synset": "sheep.n.01", "frequency": "f"},
    {"id": 7, "name": "knife", "synset": "knife.n.01", "frequency": "f"},
]


def annotation(id, category, box, **more):
    outline = [[1.0, 1.0, 2.0, 2.0, 1.0, 2.0]]
    return {"id": id, "image_id": 139, "category_id": category, "bbox": box, "segmentation": outline, "area": 9, **more}


def lvis_image(**more):
    return {
        "id": 139,
        "width": 640,
        "height": 426,
        "coco_url": "http://images.cocodataset.org/train2017/000000000139.jpg",
        "flickr_url": "http://example.org/139",
        "neg_category_ids": [7],
        "not_exhaustive_category_ids": [],
        **more,
    }


@pytest.fixture
def read(tmp_path):
    def run(annotations, image=None, categories=CATEGORIES, **more):
        content = {"info": {}, "licenses": [], "images": [image or lvis_image()], "categories": categories}
        path = tmp_path / "annotations.json"
        path.write_text(json.dumps({**content, "annotations": annotations, **more}))
        return read_annotations(path)

    return run


def test_boxes_are_corners_and_negatives_are_what_lvis_says(read):
    known = read([annotation(1, 1, [10, 20, 30.5, 40]), annotation(2, 1, [0, 0, 5, 5]), annotation(3, 5, [1, 1, 2, 2])])
    (image,) = known.images
    assert image.boxes == {1: ((10, 20, 40.5, 60), (0, 0, 5, 5)), 5: ((1, 1, 3, 3),)}
    assert image.absent == (7,)
    assert image.names == ("train2017/000000000139.jpg", "000000000139.jpg")
    assert known.categories[2] == "bow_(weapon)"
    assert known.failures == []


def test_categories_that_are_not_exhaustive_are_left_out(read):
    image = lvis_image(not_exhaustive_category_ids=[1], neg_category_ids=[1, 2, 7, 99])
    (image,) = read([annotation(1, 1, [10, 20, 30, 40]), annotation(2, 5, [1, 1, 2, 2])], image).images
    assert set(image.boxes) == {5}
    assert image.absent == (2, 7)


def test_in_coco_all_other_categories_are_absent_and_crowds_are_left_out(read):
    image = {"id": 139, "width": 640, "height": 426, "file_name": "000000000139.jpg", "coco_url": "http://x/v/1.jpg"}
    crowd = {"iscrowd": 1, "segmentation": {"counts": [3, 5], "size": [426, 640]}}
    boxes = [annotation(1, 1, [10, 20, 30, 40], iscrowd=0), annotation(2, 5, [1, 1, 2, 2], **crowd)]
    (image,) = read([*boxes, annotation(3, 5, [4, 4, 2, 2], iscrowd=0)], image).images
    assert set(image.boxes) == {1}
    assert image.absent == (2, 7)
    assert image.names[0] == "000000000139.jpg"


def test_names_of_lvis_one_half(read):
    image = lvis_image(file_name="COCO_val2014_000000000139.jpg")
    del image["coco_url"]
    (image,) = read([annotation(1, 1, [10, 20, 30, 40])], image).images
    assert image.names == ("COCO_val2014_000000000139.jpg", "000000000139.jpg")


def test_rounding_at_the_border_is_cut_off(read):
    (image,) = read([annotation(1, 1, [-0.4, 0, 640.9, 426.5])]).images
    assert image.boxes == {1: ((0, 0, 640, 426),)}


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ([10, 20, 0, 40], "has no area"),
        ([10, 20, 5, -1], "has no area"),
        ([639, 20, 5, 5], "leaves its image of 640 × 426 pixels"),
        ([-5, 20, 50, 5], "leaves its image"),
        ([640.2, 20, 0.5, 5], "has no area inside"),
        ([10, 20, 30], "a box is"),
        ([10, 20, 30, float("nan")], "a box is"),
        ("10 20 30 40", "a box is"),
        (None, "a box is"),
    ],
)
def test_a_bad_box_is_named_and_nothing_is_counted_of_its_category(read, box, message):
    known = read(
        [annotation(1, 1, [1, 1, 5, 5]), annotation(42, 1, box), annotation(3, 5, [1, 1, 2, 2])],
        lvis_image(neg_category_ids=[1, 7]),
    )
    assert set(known.images[0].boxes) == {5}
    assert known.images[0].absent == (7,)
    (failure,) = known.failures
    assert "image 139: annotation 42 (cup)" in failure
    assert message in failure


def test_annotations_of_nothing_are_named(read):
    known = read([annotation(1, 99, [1, 1, 5, 5]), {**annotation(2, 1, [1, 1, 5, 5]), "image_id": 3}])
    assert [failure.split(": ", 1)[1] for failure in known.failures] == [
        "annotation 2: there is no image 3",
        "image 139: annotation 1: there is no category 99",
    ]


def test_reading_prints_nothing(read, capsys):
    read([annotation(1, 1, [1, 1, 5, 5])])
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": []}, "a list under 'images' is expected"),
        ({"categories": {}}, "a list under 'categories' is expected"),
        ({"annotations": [7]}, "entry 0 of 'annotations' has no whole number under 'id'"),
        ({"categories": [{"id": 1}]}, "entry 0 of 'categories' has no text under 'name'"),
        ({"images": [{"id": 1, "width": "640", "height": 4}]}, "entry 0 of 'images' has no whole number under 'width'"),
        ({"categories": [{"id": 1, "name": "cup"}, {"id": 1, "name": "cap"}]}, "an id occurs twice in 'categories'"),
        ({"images": [lvis_image(neg_category_ids="7")]}, "image 139: neg_category_ids is a list of whole numbers"),
    ],
)
def test_a_file_of_another_kind_is_refused(read, change, message):
    with pytest.raises(AuroraError, match=rf"annotations\.json: .*{message}"):
        read(**{"annotations": [annotation(1, 1, [1, 1, 5, 5])], **change})


@pytest.mark.parametrize("text", ["", "[1, 2", "[1]", "[" * 200_000, "\x80\x81"])
def test_what_is_no_json_is_refused(tmp_path, text):
    (tmp_path / "a.json").write_text(text, encoding="latin-1")
    with pytest.raises(AuroraError, match=r"a\.json: "):
        read_annotations(tmp_path / "a.json")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(AuroraError, match=r"gone\.json: cannot read the annotations"):
        read_annotations(tmp_path / "gone.json")
