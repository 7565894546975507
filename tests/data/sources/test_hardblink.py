"""HardBLINK's layout: made, read back, read as published, refused where it is not whole."""

import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from llava_aurora.data.sources.hardblink import MID_HEIGHT, read_hardblink, write_hardblink
from llava_aurora.data.sources.scenes.photograph import load_photograph
from llava_aurora.data.sources.scenes.scene import SceneConfig
from llava_aurora.data.sources.scenes.scene_folder import write_scenes
from llava_aurora.errors import AuroraError
from llava_aurora.tasks.marks import draw_points
from llava_aurora.vqvae.maps import read_depth_map, resize_nearest

SAMPLE = Path(__file__).resolve().parents[4] / "shared" / "data" / "hardblink_sample"
SCENES = 4


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Images and maps: ray-cast scenes, and where there is scikit-image a photograph of another ratio and format."""
    folder = tmp_path_factory.mktemp("sources")
    write_scenes(out=folder, count=SCENES, seed=11, config=SceneConfig(frame=168, shadows=False))
    try:
        photograph = load_photograph(frame=400)
    except AuroraError:
        return folder
    (folder / "images" / "real").mkdir()
    (folder / "depth" / "real").mkdir()
    near = 255 * (photograph.depth.max() - photograph.depth) / np.ptp(photograph.depth)
    Image.fromarray(photograph.image[:300]).save(folder / "images" / "real" / "motorcycle.jpg")
    np.save(folder / "depth" / "real" / "motorcycle.npy", near[:300].clip(1).astype(np.uint8))
    return folder


@pytest.fixture(scope="module")
def made(sources, tmp_path_factory):
    out = tmp_path_factory.mktemp("made") / "hardblink"
    made = write_hardblink(out, images=sources / "images", depth=sources / "depth")
    return out, made.counts, made.failures


@pytest.fixture
def copy(made, tmp_path):
    """A copy to be spoilt."""
    return Path(shutil.copytree(made[0], tmp_path / "copy"))


def marks(path):
    """(x, y) of the circles in a marked image: centres of all patches of 9 × 9 pixels with their red ring."""
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    red = (pixels[..., 0] > 230) & (pixels[..., 1:] < 25).all(axis=-1)
    windows = np.lib.stride_tricks.sliding_window_view(red, (9, 9))
    y, x = np.indices((9, 9)) - 4
    ring = (x**2 + y**2 >= 10) & (x**2 + y**2 <= 18)
    rows, columns = np.nonzero((windows & ring).sum(axis=(2, 3)) == ring.sum())
    return [(int(column) + 4, int(row) + 4) for row, column in zip(rows, columns, strict=True)]


def test_what_is_made_can_be_read(made):
    out, counts, failures = made
    assert failures == []
    for points in (3, 4, 5):
        questions = read_hardblink(out, points)
        assert len(questions) == counts[points] >= SCENES
        assert [question.id for question in questions] == list(range(counts[points]))
        assert {question.points for question in questions} == {points}
        assert all(question.answer in "ABCDE"[:points] for question in questions)
        assert all(Image.open(question.image).size == (336, 336) for question in questions)


def test_points_are_at_mid_height_and_apart_in_place_and_depth(made, sources):
    paths = sorted((sources / "depth").rglob("*.*"))
    assert len(paths) >= SCENES
    for points in (3, 4, 5):
        first, last = MID_HEIGHT[points]
        for question in read_hardblink(made[0], points):
            found = marks(question.image)
            assert len(found) == points
            depth = resize_nearest(read_depth_map(paths[question.id]), (336, 336))
            values = [int(np.median(depth[y - 3 : y + 4, x - 3 : x + 4])) for x, y in found]
            assert min(values) > 0
            for (one, near), (other, far) in itertools.combinations(zip(found, values, strict=True), 2):
                assert np.hypot(*np.subtract(one, other)) >= 20
                assert abs(near - far) >= 20
            assert all(10 <= x < 326 and first <= y <= last for x, y in found)


def test_the_answer_is_the_letter_at_the_closest_point(tmp_path):
    """A map that grows closer from left to right."""
    for name in ("images", "depth"):
        (tmp_path / name).mkdir()
    plain = np.full((336, 336, 3), 90, np.uint8)
    Image.fromarray(plain).save(tmp_path / "images" / "a.png")
    Image.fromarray(np.tile(np.linspace(1, 255, 336).astype(np.uint8), (336, 1))).save(tmp_path / "depth" / "a.png")
    answers = set()
    for seed in range(4):
        out = tmp_path / f"out{seed}"
        write_hardblink(out, images=tmp_path / "images", depth=tmp_path / "depth", seed=seed)
        (question,) = read_hardblink(out, 5)
        marked = np.asarray(Image.open(question.image))
        expected = draw_points(plain, [max(marks(question.image))], [question.answer])
        changed = (expected != plain).any(axis=-1)
        assert np.array_equal(marked[changed], expected[changed])
        answers.add(question.answer)
    assert len(answers) > 1


def test_the_same_seed_makes_the_same_files(made, sources, tmp_path):
    again, other = tmp_path / "again", tmp_path / "other"
    write_hardblink(again, images=sources / "images", depth=sources / "depth")
    write_hardblink(other, images=sources / "images", depth=sources / "depth", seed=1)
    files = sorted(path.relative_to(again) for path in again.rglob("*.*"))
    assert files == sorted(path.relative_to(made[0]) for path in made[0].rglob("*.*"))
    assert all((again / path).read_bytes() == (made[0] / path).read_bytes() for path in files)
    assert any((other / path).read_bytes() != (again / path).read_bytes() for path in files)


def test_failures_are_named_and_leave_a_gap(sources, tmp_path):
    for name in ("images", "depth"):
        shutil.copytree(sources / name, tmp_path / name)
    (tmp_path / "depth" / "000000.png").unlink()
    Image.fromarray(np.full((168, 168), 9, np.uint8)).save(tmp_path / "depth" / "000001.png")
    Image.fromarray(np.full((60, 168), 9, np.uint8)).save(tmp_path / "depth" / "000002.png")
    (tmp_path / "images" / "broken.png").write_text("no picture")
    shutil.copy(tmp_path / "depth" / "000003.png", tmp_path / "depth" / "broken.png")
    turned = Image.new("RGB", (168, 168))
    exif = turned.getexif()
    exif[ExifTags.Base.Orientation] = 6
    turned.save(tmp_path / "images" / "turned.jpg", exif=exif)
    shutil.copy(tmp_path / "depth" / "000003.png", tmp_path / "depth" / "turned.png")
    (tmp_path / "images" / "notes.txt").write_text("no picture")
    made = write_hardblink(tmp_path / "out", images=tmp_path / "images", depth=tmp_path / "depth")
    assert made.passed_over == {".txt files": 1}
    assert read_hardblink(tmp_path / "out", 3)[0].id == 3
    assert made.counts[5] >= 1
    named = "\n".join(made.failures)
    for message in (
        r"000000.png: there is no depth map",
        r"000001.png: its depth map has no 3 points far enough apart",
        r"000001.png: its depth map has no 5 points far enough apart",
        r"000002.png: the depth map is 168 × 60 pixels, its image 168 × 168",
        r"broken.png: cannot read the image",
        "turned.jpg: stored turned or mirrored (EXIF orientation 6)",
    ):
        assert message in named


def test_a_folder_with_something_in_it_is_left_alone(sources, tmp_path):
    (tmp_path / "kept.txt").write_text("mine")
    with pytest.raises(AuroraError, match="is not empty"):
        write_hardblink(tmp_path, images=sources / "images", depth=sources / "depth")
    assert [path.name for path in tmp_path.iterdir()] == ["kept.txt"]


def test_nothing_is_left_where_nothing_could_be_made(tmp_path):
    for name in ("images", "depth"):
        (tmp_path / name).mkdir()
        Image.fromarray(np.full((64, 64), 9, np.uint8)).save(tmp_path / name / "a.png")
    with pytest.raises(AuroraError, match="no question could be made; the first failure: "):
        write_hardblink(tmp_path / "out", images=tmp_path / "images", depth=tmp_path / "depth")
    assert not (tmp_path / "out").exists()
    with pytest.raises(AuroraError, match="no such folder"):
        write_hardblink(tmp_path / "out", images=tmp_path / "none", depth=tmp_path / "depth")


# --- the reader -------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not SAMPLE.is_dir(), reason="the published sample is not here")
@pytest.mark.parametrize("points", [3, 4, 5])
def test_the_published_layout_is_read(points):
    questions = read_hardblink(SAMPLE, points)
    assert [question.id for question in questions] == list(range(8))
    assert all("closest to the camera" in question.text for question in questions)
    first, last = MID_HEIGHT[points]
    outside = 0
    for question in questions:
        found = marks(question.image)
        assert len(found) == points
        assert all(10 <= x < 326 for x, _ in found)
        outside += not all(first <= y <= last for _, y in found)
    assert outside == (points == 5)


QUESTIONS, ANSWERS = "questions/blink_3pointscenter_questions.jsonl", "answers/blink_3pointscenter_answers.jsonl"


def change_first_line(folder, name, **changes):
    path = folder / name
    first, *rest = path.read_text().splitlines()
    path.write_text("\n".join([json.dumps({**json.loads(first), **changes}), *rest]) + "\n")


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        (QUESTIONS, {"question_id": 77}, "questions.jsonl, line 1: question 77 has no answer in .*answers.jsonl"),
        (ANSWERS, {"question_id": 1}, "answers.jsonl, line 2: question 1 occurs twice"),
        (QUESTIONS, {"question_id": "0"}, "no integer under 'question_id'"),
        (QUESTIONS, {"text": None}, "no text under 'text'"),
        (QUESTIONS, {"image": "../../secret.png"}, "line 1: the path '../../secret.png' leads out of the folder"),
        (QUESTIONS, {"image": "/etc/passwd"}, "leads out of the folder"),
        (QUESTIONS, {"image": "gone.png"}, "there is no image .*gone.png"),
        (QUESTIONS, {"image": 5}, "'image' is the name of a file"),
        (ANSWERS, {"text": "(D)"}, r"answers.jsonl, line 1: '\(D\)' is none of \(A\) to \(C\)"),
        (ANSWERS, {"text": "B or C"}, "is none of"),
    ],
)
def test_what_is_wrong_with_a_line_is_named(copy, name, changes, message):
    change_first_line(copy, name, **changes)
    with pytest.raises(AuroraError, match=message):
        read_hardblink(copy, 3)


def test_files_that_do_not_match_or_are_missing_are_named(copy):
    questions, answers = copy / QUESTIONS, copy / ANSWERS
    with answers.open("a") as file:
        file.write('{"question_id": 99, "text": "(A)"}\n')
    with pytest.raises(AuroraError, match=r"answers.jsonl, line \d+: there is no question 99 in .*questions.jsonl"):
        read_hardblink(copy, 3)
    answers.write_text("{\n")
    with pytest.raises(AuroraError, match=r"answers.jsonl, line 1: not valid JSON"):
        read_hardblink(copy, 3)
    answers.write_text("\n")
    with pytest.raises(AuroraError, match=r"answers.jsonl: it holds no questions"):
        read_hardblink(copy, 3)
    answers.unlink()
    with pytest.raises(AuroraError, match=r"3pointscenter_answers.jsonl: cannot read the HardBLINK file"):
        read_hardblink(copy, 3)
    with pytest.raises(AuroraError, match=r"6pointscenter_answers.jsonl: cannot read"):
        read_hardblink(copy, 6)
    assert questions.is_file()
