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


# --- conventions of other files in this layout ------------------------------------------------------------------------


@pytest.fixture
def read_coco(read):
    """Reads one image of a file without LVIS's lists; returns its boxes by category, absent categories, passed over."""

    def run(annotations, categories=CATEGORIES):
        known = read(annotations, {"id": 139, "width": 640, "height": 426, "file_name": "1.jpg"}, categories)
        assert known.failures == []
        (image,) = known.images
        return {id: len(boxes) for id, boxes in image.boxes.items()}, image.absent, known.passed_over

    return run


@pytest.mark.parametrize(
    "flag",
    [
        {"ignore": 1},
        {"ignore": True},
        {"iscrowd": "1"},
        {"difficult": 1},
        {"isfake": 1},
        {"IsGroupOf": True},
        {"is_group_of": 1},
        {"tag": "mask"},
        {"extra": {"ignore": 1, "occ": 0}},
        {"attributes": {"ignored": True}},
    ],
)
def test_a_flagged_instance_leaves_its_category_out_of_the_image(read_coco, flag):
    boxes, absent, passed_over = read_coco(
        [annotation(1, 1, [10, 20, 30, 40]), annotation(2, 1, [90, 20, 30, 40], **flag), annotation(3, 5, [1, 1, 9, 9])]
    )
    assert (boxes, absent) == ({5: 1}, (2, 7))
    assert passed_over == {"categories of an image with flagged instances (crowd, ignore, ...)": 1}


@pytest.mark.parametrize(
    "flag", [{"ignore": 0, "iscrowd": 0}, {"ignore": "0"}, {"tag": "person", "extra": {"ignore": 0}}, {"truncated": 1}]
)
def test_a_flag_that_is_not_set_changes_nothing(read_coco, flag):
    boxes, _, passed_over = read_coco([annotation(1, 1, [10, 20, 30, 40], **flag)])
    assert (boxes, passed_over) == ({1: 1}, {})


def test_an_instance_that_is_annotated_twice_counts_once(read_coco):
    boxes, _, passed_over = read_coco(
        [
            annotation(1, 1, [10, 20, 30, 40]),
            annotation(2, 1, [10, 20, 30, 40]),
            annotation(3, 1, [10.4, 20, 29.6, 40.3]),
            annotation(4, 1, [14, 20, 30, 40]),  # beside it, and overlapping
            annotation(5, 5, [10, 20, 30, 40]),  # of another category
        ]
    )
    assert boxes == {1: 2, 5: 1}
    assert passed_over == {"boxes annotated twice": 2}


def test_nearly_the_same_box_makes_a_count_doubtful(read_coco):
    boxes, absent, passed_over = read_coco(
        [annotation(1, 1, [100, 20, 300, 300]), annotation(2, 1, [104, 20, 300, 300])]
    )
    assert (boxes, absent) == ({}, (2, 5, 7))
    assert passed_over == {"categories of an image with boxes that may be one instance": 1}


def category(id, name, above="none"):
    return {"id": id, "name": name, "supercategory": above}


def test_a_supercategory_is_asked_about_only_where_its_count_is_known(read_coco):
    roboflow = [category(0, "vehicles"), category(1, "car", "vehicles"), category(2, "bus", "vehicles")]
    boxes, absent, passed_over = read_coco([annotation(1, 1, [10, 20, 30, 40])], roboflow)
    assert (boxes, absent) == ({1: 1}, (2,))
    assert passed_over == {"supercategories without annotations": 1}
    both = [annotation(1, 1, [10, 20, 30, 40]), annotation(2, 0, [90, 20, 30, 40])]
    boxes, absent, passed_over = read_coco(both, roboflow)
    assert (boxes, absent) == ({1: 1}, (2,))
    assert passed_over == {"categories of an image with instances of a subcategory": 1}
    coco = [category(1, "person", "person"), category(2, "car", "vehicle")]  # as COCO's own: a category above itself
    assert read_coco([annotation(1, 2, [10, 20, 30, 40])], coco) == ({2: 1}, (1,), {})


def test_categories_that_name_nothing_are_not_asked_about(read_coco):
    names = ["car", "others", "other vehicle", "12", "Misc", "人", "motor"]
    boxes, absent, passed_over = read_coco(
        [annotation(1, 0, [10, 20, 30, 40]), annotation(2, 1, [90, 20, 30, 40])],
        [category(id, name) for id, name in enumerate(names)],
    )
    assert (boxes, absent) == ({0: 1}, (5, 6))
    assert passed_over == {"categories that name nothing": 4}


def test_an_image_with_an_ignored_region_is_left_out_whatever_else_is_in_it(read):
    """VisDrone: what lies in the region is not annotated, so no count is known."""
    images = [{"id": id, "width": 640, "height": 426, "file_name": f"{id}.jpg"} for id in (139, 140)]
    boxes = [annotation(1, 0, [10, 20, 30, 40]), annotation(2, 1, [90, 20, 30, 40])]
    known = read(
        [*boxes, {**boxes[1], "id": 3, "image_id": 140}],
        categories=[category(0, "ignored regions"), category(1, "car")],
        images=images,
    )
    assert [(image.id, set(image.boxes), image.absent) for image in known.images] == [(140, {1}, ())]
    assert known.passed_over == {"categories of ignored regions": 1, "images with ignored regions": 1}


def test_categories_of_one_name_are_one(read_coco):
    boxes, absent, passed_over = read_coco(
        [annotation(1, 1, [10, 20, 30, 40]), annotation(2, 2, [90, 20, 30, 40])],
        [category(1, "car"), category(2, "Car"), category(3, "traffic light"), category(4, "traffic_light")],
    )
    assert (boxes, absent) == ({1: 2}, (3,))
    assert passed_over == {"categories of a name that another one has": 2}


def test_an_image_that_is_listed_twice_is_named(read):
    images = [{"id": id, "width": 640, "height": 426, "file_name": "1.jpg"} for id in (139, 140)]
    known = read([annotation(1, 1, [10, 20, 30, 40])], images=images)
    assert known.images == []
    assert all("1.jpg is listed under 2 ids" in failure for failure in known.failures)


def test_annotations_of_nothing_are_named(read):
    known = read([annotation(1, 99, [1, 1, 5, 5]), {**annotation(2, 1, [1, 1, 5, 5]), "image_id": 3}])
    assert [failure.split(": ", 1)[1] for failure in known.failures] == [
        "annotation 2: there is no image 3",
        "image 139: annotation 1: there is no category 99",
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": []}, "a list under 'images' is expected"),
        ({"categories": {}}, "a list under 'categories' is expected"),
        ({"annotations": [7]}, "entry 0 of 'annotations' has no integer under 'id'"),
        ({"categories": [{"id": 1, "name": "x" * 300}]}, "entry 0 of 'categories' has a name of 300 characters"),
        ({"categories": [{"id": 1}]}, "entry 0 of 'categories' has no text under 'name'"),
        ({"images": [{"id": 1, "width": "640", "height": 4}]}, "entry 0 of 'images' has no integer under 'width'"),
        ({"categories": [{"id": 1, "name": "cup"}, {"id": 1, "name": "cap"}]}, "an id occurs twice in 'categories'"),
        ({"images": [lvis_image(neg_category_ids="7")]}, "image 139: neg_category_ids must be a list of integers"),
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
