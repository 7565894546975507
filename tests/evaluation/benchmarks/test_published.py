"""Benchmarks in the layouts they are published in, made small."""

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from llava_aurora.data.sources.hardblink import write_hardblink
from llava_aurora.errors import AuroraError
from llava_aurora.evaluation.benchmarks.published import (
    read_blink_counting,
    read_blink_depth,
    read_cv_bench_counting,
    read_cv_bench_depth,
    read_hardblink_questions,
    read_seed_bench_counting,
)
from llava_aurora.tasks.task import STEP_BY_STEP

SAMPLE = Path(__file__).resolve().parents[4] / "shared" / "data" / "hardblink_sample"
DEPTH_TEXT = "Two points are circled on the image, labeled by A and B beside each circle. Which point is closer?"


def png(color, size=(8, 6)):
    file = io.BytesIO()
    Image.new("RGB", size, color).save(file, format="PNG")
    return file.getvalue()


def embedded(color):
    return {"bytes": png(color), "path": "image.png"}


def write_parquet(path, rows, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path, **options)


def blink_row(task, number, question, choices, answer, split="val"):
    return {
        "idx": f"{split}_{task}_{number}",
        "sub_task": task,
        "question": question,
        "prompt": f"{question}\n(A) …",
        "image_1": embedded((number * 40, 0, 0)),
        "image_2": None,
        "choices": choices,
        "answer": answer,
        "explanation": "",
    }


@pytest.fixture
def blink(tmp_path):
    """As on the hub: a folder a task, images inside, answers of the test split hidden."""
    folder = tmp_path / "BLINK"
    sides = ["A is closer", "B is closer"]
    write_parquet(
        folder / "Relative_Depth" / "val-00000-of-00001.parquet",
        [blink_row("Relative_Depth", n, DEPTH_TEXT, sides, "(B)" if n % 2 else "(A)") for n in range(1, 6)],
        row_group_size=2,
    )
    write_parquet(
        folder / "Relative_Depth" / "test-00000-of-00001.parquet",
        [blink_row("Relative_Depth", 1, DEPTH_TEXT, sides, "hidden", split="test")],
    )
    write_parquet(
        folder / "Counting" / "val-00000-of-00001.parquet",
        [blink_row("Counting", 1, "How many blue floats are there?", ["0", "3", "2", "1"], "(D)")],
    )
    return folder


def test_blinks_letters_are_those_of_its_points(blink):
    found = read_blink_depth(blink)
    assert [question.answer for question in found.questions] == ["B", "A", "B", "A", "B"]
    assert found.left_out == {"the answer is not published (test split)": 1}
    question = found.questions[2]
    assert (question.kind, question.category, question.chance) == ("letter", "2 points", 0.5)
    assert question.prompt("direct") == DEPTH_TEXT
    assert question.prompt("chain") == f"{DEPTH_TEXT} {STEP_BY_STEP}"


def test_images_come_out_of_their_row_group(blink):
    for number, question in enumerate(read_blink_depth(blink).questions, start=1):
        assert question.open().getpixel((0, 0)) == (number * 40, 0, 0)


def test_a_counting_letter_becomes_its_number(blink):
    (question,) = read_blink_counting(blink).questions
    assert (question.kind, question.answer, question.text) == ("number", "1", "How many blue floats are there?")


def cv_row(number, task, question, choices, answer):
    return {
        "idx": number,
        "type": "2D" if task == "Count" else "3D",
        "task": task,
        "question": question,
        "choices": choices,
        "answer": answer,
        "prompt": f"{question} Select from the following choices.",
        "filename": f"{'2D' if task == 'Count' else '3D'}/{task.lower()}/{number}.png",
        "source": "ADE20K",
    }


CV_ROWS = [
    cv_row(0, "Count", "How many organs are in the image?", ["3", "2", "1", "0"], "(C)"),
    cv_row(1, "Relation", "Where is the cup?", ["left", "right"], "(A)"),
    cv_row(2, "Depth", "Which object is closer, the lamp or the coffee table?", ["lamp", "coffee table"], "(B)"),
    cv_row(3, "Distance", "Which object is closer to the cup?", ["lamp", "table"], "(A)"),
]


@pytest.fixture(params=["parquet", "jsonl"])
def cv_bench(request, tmp_path):
    """Its two ways: Parquet with images inside, or lines with the images in img/."""
    folder = tmp_path / "CV-Bench"
    folder.mkdir()
    for rows, name in ((CV_ROWS[:2], "test_2d"), (CV_ROWS[2:], "test_3d")):
        if request.param == "parquet":
            write_parquet(folder / f"{name}.parquet", [{**row, "image": embedded((row["idx"], 9, 9))} for row in rows])
            continue
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        for row in rows:
            path = folder / "img" / row["filename"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(png((row["idx"], 9, 9)))
    return folder


def test_cv_bench_is_read_in_both_layouts(cv_bench):
    (count,) = read_cv_bench_counting(cv_bench).questions
    assert (count.answer, count.kind, count.category) == ("1", "number", "CV-Bench")
    assert count.open().getpixel((0, 0)) == (0, 9, 9)
    (depth,) = read_cv_bench_depth(cv_bench).questions
    assert (depth.answer, depth.kind, depth.choices) == ("coffee table", "choice", ("lamp", "coffee table"))
    assert depth.open().getpixel((0, 0)) == (2, 9, 9)


def seed_question(number, kind, choices, answer, data_type="image"):
    letters = {f"choice_{letter}": choice for letter, choice in zip("abcd", choices, strict=True)}
    return {
        "answer": answer,
        **letters,
        "data_id": f"{number}_1",
        "data_type": data_type,
        "question": "How many towels are in the image?",
        "question_id": str(number),
        "question_type_id": kind,
    }


SEED_QUESTIONS = [
    seed_question(1, 5, ["One", "Two", "Three", "Four"], "C"),
    seed_question(2, 5, ["1", "2", "3", "More than 3"], "D"),
    seed_question(3, 1, ["A cat", "A dog", "A cow", "A hen"], "A"),
    seed_question(4, 5, ["None", "1", "2", "3"], "A"),
    seed_question(5, 5, ["5", "6", "7", "8"], "B"),
]


@pytest.mark.parametrize("layout", ["json", "parquet"])
def test_seed_benchs_words_become_numbers(tmp_path, layout):
    if layout == "json":
        types = {"question_type": {"Instances Counting": 5}, "questions": SEED_QUESTIONS}
        (tmp_path / "SEED-Bench.json").write_text(json.dumps(types))
        (tmp_path / "SEED-Bench-image").mkdir()
        for question in SEED_QUESTIONS:
            (tmp_path / "SEED-Bench-image" / question["data_id"]).write_bytes(png((7, 7, 7)))
    else:
        rows = [{**question, "image": [embedded((7, 7, 7))]} for question in SEED_QUESTIONS]
        write_parquet(tmp_path / "data" / "test-00000-of-00001.parquet", rows)
    found = read_seed_bench_counting(tmp_path)
    assert [(question.id, question.answer) for question in found.questions] == [("1", "3"), ("4", "0"), ("5", "6")]
    assert found.left_out == {"the right option is no number": 1}
    assert all(question.open().size == (8, 6) for question in found.questions)


@pytest.fixture(scope="module")
def own_hardblink(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    rng = np.random.default_rng(0)
    ramp = np.tile(np.linspace(1, 255, 336).astype(np.uint8), (336, 1))
    for name in ("images", "depth"):
        (folder / name).mkdir()
    for number in range(4):
        Image.fromarray(rng.integers(0, 256, (336, 336, 3), dtype=np.uint8)).save(folder / "images" / f"{number}.png")
        Image.fromarray(ramp).save(folder / "depth" / f"{number}.png")
    write_hardblink(folder / "hardblink", images=folder / "images", depth=folder / "depth")
    return folder / "hardblink"


def test_points_of_our_own_hardblink_are_found_in_its_images(own_hardblink):
    found = read_hardblink_questions(own_hardblink).questions
    assert len(found) == 12
    for question in found:
        count = int(question.category[0])
        assert list(question.points) == list("ABCDE"[:count])
        assert question.answer == max(question.points, key=lambda letter: question.points[letter][0])  # a ramp
        assert question.depth is None


def test_a_true_map_is_found_beside_the_images(own_hardblink):
    depth = own_hardblink / "depth" / "blink3pointscenter" / "0.png"
    depth.parent.mkdir(parents=True)
    Image.fromarray(np.full((4, 4), 9, np.uint8)).save(depth)
    first, second = read_hardblink_questions(own_hardblink).questions[:2]
    assert first.true_depth().tolist() == [[9] * 4] * 4
    assert second.true_depth() is None


@pytest.mark.skipif(not SAMPLE.is_dir(), reason="the published sample is not here")
def test_points_of_the_published_images_are_found():
    found = read_hardblink_questions(SAMPLE).questions
    assert len(found) == 24
    for question in found:
        assert list(question.points) == list("ABCDE"[: int(question.category[0])])
        assert question.answer in question.points


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answer": "(E)"}, "line 1: the answer '(E)' is not one of its 4 options"),
        ({"question": ""}, "line 1: there is no text under 'question'"),
        ({"choices": "3"}, "line 1: there is no list of texts under 'choices'"),
        ({"filename": "../secret.png"}, "line 1: the path '../secret.png' leads out of the folder"),
        ({"filename": "2D/none.png"}, "line 1: there is no image"),
        ({"idx": "0"}, "line 1: no integer under 'idx'"),
    ],
)
def test_a_malformed_row_is_named(tmp_path, change, message):
    (tmp_path / "0.png").write_bytes(png((0, 0, 0)))
    (tmp_path / "test_2d.jsonl").write_text(json.dumps({**CV_ROWS[0], "filename": "0.png", **change}))
    with pytest.raises(AuroraError) as error:
        read_cv_bench_counting(tmp_path)
    assert message in str(error.value)


def test_folders_without_the_benchmark_are_refused(tmp_path, blink):
    (tmp_path / "empty").mkdir()
    with pytest.raises(AuroraError, match=r"holds none of \.parquet"):
        read_cv_bench_counting(tmp_path / "empty")
    with pytest.raises(AuroraError, match="holds no question of this benchmark"):
        read_cv_bench_counting(blink)
    with pytest.raises(AuroraError, match="holds no questions/blink_"):
        read_hardblink_questions(blink)
    (tmp_path / "empty" / "a.parquet").write_bytes(b"no")
    with pytest.raises(AuroraError, match=r"a\.parquet: not a readable Parquet file"):
        read_cv_bench_counting(tmp_path / "empty")


def test_the_same_question_twice_is_refused(blink):
    source = blink / "Counting" / "val-00000-of-00001.parquet"
    (blink / "Counting" / "copy.parquet").write_bytes(source.read_bytes())
    with pytest.raises(AuroraError, match="question val_Counting_1 occurs twice"):
        read_blink_counting(blink)


def test_a_broken_image_is_named(tmp_path):
    write_parquet(tmp_path / "a.parquet", [{**CV_ROWS[0], "image": {"bytes": b"no image", "path": None}}])
    (question,) = read_cv_bench_counting(tmp_path).questions
    with pytest.raises(AuroraError, match=r"question Count/0: .*a\.parquet: image 0 of row group 0"):
        question.open()
