"""The page shows records of every kind, loads nothing, and holds nothing of a record but as text."""

import base64
import io
import json
import re
from collections import Counter
from html.parser import HTMLParser

import numpy as np
import pytest
from command import llava_aurora
from PIL import Image
from written import write_record

from llava_aurora.data.view import RecordPage, sample_records
from llava_aurora.errors import AuroraError
from llava_aurora.tasks.registry import task_name
from llava_aurora.tokens.box import BoxKind
from llava_aurora.tokens.depth import DepthKind
from llava_aurora.tokens.vocabulary import depth_family
from llava_aurora.vqvae.checkpoint import load_depth_vqvae

FRAME = 56
EVIL = "<script>alert('&')</script><img src=http://evil/x>"


class Elements(HTMLParser):
    """Names of all elements, attributes that name a resource, and the text."""

    def __init__(self, page):
        super().__init__()
        self.names, self.resources, self.text = Counter(), [], ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.names[tag] += 1
        self.resources += [value for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]

    def handle_data(self, data):
        self.text += data


@pytest.fixture
def view(tmp_path, workshop):
    """Writes a page of records by the command; returns its text."""

    def run(records, *options):
        path, out = tmp_path / "train.json", tmp_path / "page.html"
        path.write_text(json.dumps(records))
        arguments = ["data", "view", path, "--image-folder", workshop.images, "--out", out, "--frame", FRAME]
        result = llava_aurora(*arguments, *options)
        if result.exception:
            raise result.exception
        return out.read_text()

    return run


@pytest.fixture
def records(workshop):
    return json.loads(workshop.records.read_text())


def pictures(page):
    return [Image.open(io.BytesIO(base64.b64decode(data))) for data in re.findall(r"base64,([^\"]+)", page)]


def test_the_page_shows_pictures_maps_questions_and_answers(view, workshop, records):
    page = view(records, "--depth-vqvae", workshop.vqvae, "--count", 12)
    elements = Elements(page)
    assert elements.names["article"] == 12
    assert elements.names["script"] == 0
    assert all(resource.startswith("data:image/") for resource in elements.resources)
    tasks = Counter(re.findall(r'<article class="is-(\w+)">', page))
    assert tasks == dict.fromkeys(
        ("depth_generation", "depth_chain", "depth_direct_from_coordinates", "counting_chain"), 3
    )
    assert elements.names["img"] == 12 + 6  # a map beside each of six
    assert Counter(picture.size for picture in pictures(page)) == {(336, 336): 12, (336 + 40, 336): 6}  # with its scale
    assert "depth: 9 codes" in elements.text
    assert "<DEPTH_START>" in elements.text


def test_without_a_vqvae_there_are_no_maps(view, records):
    assert Elements(view(records, "--task", "depth_generation", "--count", 4)).names["img"] == 4


def test_a_trained_model_brings_what_it_needs(view, finetuned, records):
    page = view(records, "--model", finetuned[0], "--task", "depth_generation,counting_chain", "--count", 4)
    assert Elements(page).names["img"] == 6


def test_nothing_of_a_record_is_more_than_text(view, workshop):
    turns = [{"from": "human", "value": f"<image>\n{EVIL}"}, {"from": "gpt", "value": EVIL}]
    about = {"task": EVIL, "answer": EVIL, "boxes": [], "points": {EVIL: [1, 2]}, "depths": {}}
    bad = [
        {"id": EVIL, "image": "0.png", "conversations": turns, "aurora": about},
        {"id": EVIL, "image": f"{EVIL}.png", "conversations": turns},
        {"id": EVIL, "image": f"../{EVIL}", "conversations": turns},
        {"id": EVIL, "text": EVIL},
        EVIL,
    ]
    page = view(bad)
    elements = Elements(page)
    assert elements.names["article"] == len(bad)
    assert elements.names["script"] == 0
    assert elements.names["img"] == 1
    assert "http://evil" not in "".join(elements.resources)
    assert elements.text.count("<script>alert") >= len(bad)
    assert "default-src 'none'" in page


def test_records_of_llavas_own_are_shown(view):
    rounds = [{"from": who, "value": text} for who, text in zip(("human", "gpt") * 2, "abcd", strict=True)]
    no_image = {"id": "x", "conversations": rounds}
    page = view([no_image])
    assert "no image" in page
    assert "4 turns" in page
    assert Elements(page).names["img"] == 0


def test_numbers_in_brackets_are_coordinates_only_where_the_truth_says_so(workshop, tmp_path):
    turns = [{"from": "human", "value": "<image>\nWhen?"}, {"from": "gpt", "value": "Then (2019, 2020)."}]
    record = {"id": "x", "image": "0.png", "conversations": turns}
    page = RecordPage(image_folder=workshop.images, boxes=BoxKind(frame=FRAME), families=[BoxKind(frame=FRAME).family])
    (picture,) = page.show("record 0", record).pictures
    assert picture.caption == "56 × 56"
    assert page.show("record 0", {**record, "aurora": {"task": "depth_direct"}}).problems


def test_what_is_wrong_is_said_beside_the_record(view, records, workshop):
    records[0]["conversations"][1]["value"] += "<DEPTH_START>"
    records[1]["image"] = "gone.png"
    text = Elements(view(records[:2], "--depth-vqvae", workshop.vqvae)).text
    assert "spans: turn 1: <DEPTH_START>" in text
    assert "image: gone.png" in text


def test_a_line_that_is_no_json_is_shown_as_such(tmp_path):
    path, out = tmp_path / "train.jsonl", tmp_path / "page.html"
    path.write_text('{"id": "1"}\n[[\n')
    assert not llava_aurora("data", "view", path, "--image-folder", ".", "--out", out).exception
    assert "line 2 is not valid JSON" in Elements(out.read_text()).text


def test_a_map_is_the_vqvaes(workshop, records):
    depth = DepthKind(vqvae=load_depth_vqvae(workshop.vqvae))
    boxes = BoxKind(frame=FRAME)
    page = RecordPage(image_folder=workshop.images, boxes=boxes, families=[depth.family, boxes.family], depth=depth)
    shown = page.show("record 0", records[0])
    (_, drawn) = pictures("".join(f'"{picture.uri}"' for picture in shown.pictures))
    from llava_aurora.tokens.depth import color_map

    expected = color_map(depth.read(records[0]["conversations"][1]["value"])[0]).resize((336, 336))
    assert np.array_equal(np.asarray(drawn)[:, :336], np.asarray(expected))
    assert drawn.width > 336, "a colour bar beside it"


def test_boxes_are_drawn_where_the_text_has_them(workshop, writer):
    record = write_record(
        writer,
        "box_generation",
        name="n",
        image="0.png",
        rng=np.random.default_rng(0),
        thing="x",
        things="xs",
        boxes=[(7, 14, 28, 42)],
    )
    boxes = BoxKind(frame=FRAME)
    page = RecordPage(image_folder=workshop.images, boxes=boxes, families=[depth_family(), boxes.family])
    (shown,) = page.show("record 0", record).pictures
    assert shown.caption == "1 boxes in the text"
    (picture,) = pictures(f'"{shown.uri}"')
    red, green, blue = np.asarray(picture.convert("RGB"))[84 + 2 : 252 - 2, 42].astype(int).mean(axis=0)
    assert red > 180
    assert green > 180
    assert blue < 90


# --- which records ----------------------------------------------------------------------------------------------------


def test_a_sample_has_as_many_of_each_task_as_there_are(tmp_path, records):
    path = tmp_path / "train.json"
    path.write_text(json.dumps([*records, {"id": "o", "conversations": []}]))
    drawn = sample_records(path, count=12)
    tasks = Counter(task_name(record) for _, record in drawn)
    assert sorted(tasks.values()) == [1, 2, 3, 3, 3]
    assert tasks["other"] == 1
    assert len(sample_records(path, count=1000)) == len(records) + 1
    assert len({name for name, _ in drawn}) == 12


def test_a_sample_is_the_same_again_and_another_with_another_seed(tmp_path, records):
    path = tmp_path / "train.json"
    path.write_text(json.dumps(records))
    one, again, other = (sample_records(path, count=8, seed=seed) for seed in (0, 0, 1))
    assert one == again
    assert one != other
    places = [int(name.split()[1]) for name, _ in one]
    assert places == sorted(places)


def test_a_task_that_is_none_is_refused(tmp_path, records):
    path = tmp_path / "train.json"
    path.write_text(json.dumps(records))
    with pytest.raises(AuroraError, match="unknown task 'dephts'; available: depth_generation"):
        sample_records(path, count=8, tasks=["dephts"])
    with pytest.raises(AuroraError, match="has no record of point_location"):
        sample_records(path, count=8, tasks=["point_location"])
