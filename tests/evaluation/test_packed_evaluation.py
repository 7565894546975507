"""`eval --decoding packed`: the questions about an image in one row, with the answers of greedy decoding."""

import json

import numpy as np
import pytest
from PIL import Image

from llava_aurora.data.sources.depth.depth_maps import Share
from llava_aurora.demo.tiny_base import copy_tiny_base
from llava_aurora.evaluation.answers import AnswerSettings, AnswerStore
from llava_aurora.evaluation.run import Plan, evaluate, read_questions
from llava_aurora.generation.packed import decode_packed
from llava_aurora.generation.predictor import Predictor
from llava_aurora.generation.result import Answer
from llava_aurora.tasks.pixel_masks import TASKS, drawn_place
from llava_aurora.tasks.prompts import Prompts
from llava_aurora.tasks.records import RecordWriter

QUESTIONS = 10
WRITER = RecordWriter(prompts=Prompts.plain())


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base") / "tiny"
    copy_tiny_base(folder)
    return Predictor.from_pretrained(folder, device="cpu")


@pytest.fixture
def data(tmp_path):
    """Ten questions about each of two images, in turn."""
    folder, records = tmp_path / "data", []
    folder.mkdir()
    for image in range(2):
        pixels = np.random.default_rng(image).integers(0, 256, (6, 6, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((64, 64)).save(folder / f"{image}.png")
    for number in range(2 * QUESTIONS):
        rng = np.random.default_rng(number)
        facts = drawn_place(np.eye(8, dtype=bool), "line", rng, side=64, frame=64)
        image = f"{number % 2}.png"
        records.append(WRITER.write(TASKS[0], facts, name=str(number), image=image, rng=rng))
    (folder / "records.json").write_text(json.dumps(records))
    return folder


def plan(data, decoding, **options):
    settings = AnswerSettings(decoding=decoding, max_new_tokens=4)
    return Plan(tasks=["records"], data=data, reasonings=["direct"], settings=settings, pictures=0, **options)


def test_ten_questions_about_an_image_are_one_row_with_the_answers_of_greedy(model, data, tmp_path, monkeypatch):
    rows = []

    def noted(*args, **settings):
        rows.append(len(args[2]))
        return decode_packed(*args, **settings)

    monkeypatch.setattr("llava_aurora.generation.packed.decode_packed", noted)
    found = {}
    for decoding in ("greedy", "packed"):
        (asked,) = evaluate(model, plan(data, decoding), out=tmp_path / decoding)
        found[decoding] = [(each.text, each.ids, each.finished) for each in asked.answers["direct"]]
    assert found["packed"] == found["greedy"]
    assert rows == [QUESTIONS, QUESTIONS]
    packed, greedy = (AnswerStore(tmp_path / each).costs("records", "direct") for each in ("packed", "greedy"))
    assert packed["token_passes"] < greedy["token_passes"] / 2


@pytest.mark.parametrize("count", [1, 2, 3])
def test_an_image_is_asked_about_by_one_process_in_batches_of_its_own(model, data, tmp_path, count):
    asked, batches = read_questions("records", plan(data, "packed"), predictor=model, out=tmp_path).questions, []

    def answer(batch):
        batches.append([question.image.name for question in batch])
        return [Answer(text="", ids=(), finished=True) for _ in batch]

    for index in range(count):
        AnswerStore(tmp_path / "out").ask(
            answer,
            asked,
            task="records",
            reasoning="direct",
            batch_size=7,
            share=Share(index=index, count=count),
            by_image=True,
        )
    assert batches == [["0.png"] * 7, ["0.png"] * 3, ["1.png"] * 7, ["1.png"] * 3]
    assert len(AnswerStore(tmp_path / "out").finish(asked, task="records", reasoning="direct")) == 2 * QUESTIONS
