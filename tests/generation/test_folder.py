"""One question about a folder of images: a line each, going on where a run was stopped."""

import json

import numpy as np
import pytest
from PIL import Image

from llava_aurora import Aurora
from llava_aurora.errors import AuroraError
from llava_aurora.generation.folder import ask_folder

pytestmark = pytest.mark.deepspeed
NAMES = ["a.png", "b.jpg", "more/c.webp", "more/d.png", "e.png"]


@pytest.fixture(scope="module")
def aurora(finetuned):
    return Aurora.from_pretrained(finetuned[0], device="cpu")


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(0)
    for number, name in enumerate(NAMES):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40 + 10 * number, 60, 3), dtype=np.uint8)).save(path)
    (tmp_path / "photos" / "notes.txt").write_text("no image")
    return tmp_path / "photos"


@pytest.fixture
def run(aurora, photos, tmp_path):
    def ask(**changes):
        options = {"question": "How far?", "out": tmp_path / "answers.jsonl", "max_new_tokens": 6, "batch_size": 2}
        return ask_folder(aurora, photos, **{**options, **changes})

    return ask


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_image_gets_the_answer_that_it_gets_alone(run, aurora, photos, tmp_path):
    report = run(reasoning="direct")
    assert (report.answered, report.kept, report.failures) == (5, 0, [])
    answers = lines(tmp_path / "answers.jsonl")
    assert sorted(answer["image"] for answer in answers) == sorted(NAMES)
    for answer in answers:
        alone = aurora.ask(photos / answer["image"], "How far?", reasoning="direct", max_new_tokens=6)
        assert answer["text"] == alone.text
        assert (answer["question"], answer["reasoning"], answer["model"]) == ("How far?", "direct", aurora.name)


def test_a_stopped_run_goes_on_and_drops_the_line_it_was_stopped_in(run, aurora, tmp_path, monkeypatch):
    run()
    whole = tmp_path / "answers.jsonl"
    first, second, third, *_ = whole.read_bytes().splitlines(keepends=True)
    expected = {answer["image"]: answer["text"] for answer in lines(whole)}
    whole.write_bytes(first + second + third[: len(third) // 2])
    asked = []
    ask = Aurora.ask
    monkeypatch.setattr(
        Aurora, "ask", lambda self, images, *rest, **kw: asked.extend(images) or ask(self, images, *rest, **kw)
    )
    report = run()
    assert (report.answered, report.kept, len(asked)) == (3, 2, 3)
    assert whole.read_bytes().startswith(first + second)
    assert {answer["image"]: answer["text"] for answer in lines(whole)} == expected
    before = whole.read_bytes()
    assert run().kept == 5
    assert whole.read_bytes() == before
    assert len(asked) == 3


def test_answers_are_in_the_file_before_the_run_ends(run, photos, tmp_path, monkeypatch):
    ask, calls = Aurora.ask, []

    def stopped(self, *arguments, **options):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(1)
        return ask(self, *arguments, **options)

    monkeypatch.setattr(Aurora, "ask", stopped)
    with pytest.raises(KeyboardInterrupt):
        run()
    assert len(lines(tmp_path / "answers.jsonl")) == 4
    monkeypatch.undo()
    assert run().kept == 4


def test_images_that_cannot_be_read_are_listed_and_tried_again(run, photos, tmp_path):
    good = (photos / "b.jpg").read_bytes()
    (photos / "b.jpg").write_bytes(good[:100])
    report = run()
    assert (report.answered, len(report.failures)) == (4, 1)
    assert "b.jpg: cannot read the image" in report.failures[0]
    (photos / "b.jpg").write_bytes(good)
    assert (run().answered, run().failures) == (1, [])


def test_pictures_lie_under_the_images_paths(run, photos, tmp_path):
    run(pictures=tmp_path / "seen")
    found = {path.relative_to(tmp_path / "seen").as_posix() for path in (tmp_path / "seen").rglob("*.png")}
    assert found == {f"{name}.png" for name in NAMES}
    with pytest.raises(AuroraError, match="is inside"):
        run(pictures=photos / "seen")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"question": "Why?"}, "line 1 was answered with the question 'How far\\?', and now it is 'Why\\?'"),
        ({"reasoning": "direct"}, "with the reasoning 'chain', and now it is 'direct'"),
        ({"reasoning_prompt": "Reason."}, "with the reasoning_prompt None, and now it is 'Reason.'"),
    ],
)
def test_another_question_does_not_go_into_the_same_file(run, changes, message, tmp_path):
    run()
    before = (tmp_path / "answers.jsonl").read_bytes()
    with pytest.raises(AuroraError, match=message):
        run(**changes)
    assert (tmp_path / "answers.jsonl").read_bytes() == before


@pytest.mark.parametrize("content", ['{"id": "0"}\n', "no json", '{"image": "a.png", "caption": "no line feed"}'])
def test_what_is_no_file_of_answers_is_left_alone(run, tmp_path, content):
    other = tmp_path / "train.jsonl"
    other.write_text(content)
    with pytest.raises(AuroraError, match=r"train.jsonl: line 1"):
        run(out=other)
    assert other.read_text() == content
    with pytest.raises(AuroraError, match=str(tmp_path)):
        run(out=tmp_path)
