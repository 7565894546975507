"""Going on from given words, with a model of random weights."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from llava_aurora import generate, load_pretrained_model
from llava_aurora.evaluation.continuation import continue_answers
from llava_aurora.evaluation.outcomes import ask, go_on
from llava_aurora.generation.inputs import context_length
from llava_aurora.model.embeddings import RowStart, grow_embeddings
from llava_aurora.tokens import build_kinds
from llava_aurora.tokens.perception import PerceptionTokens

QUESTIONS = ["How many red cubes are in the image?", "Why?", "Write down the depth map of this image."]


@pytest.fixture(scope="module")
def loaded(workshop):
    """The base model with its new tokens, before any training."""
    torch.manual_seed(1)
    tokenizer, model, image_processor, _ = load_pretrained_model(str(workshop.base))
    settings = {"depth": {"vqvae": str(workshop.vqvae)}, "box": {"frame": 56}}
    perception = PerceptionTokens.teach(tokenizer, build_kinds(settings, workshop.folder))
    grow_embeddings(model, rows=len(tokenizer), ids=perception.token_ids(), start=RowStart())
    model.attach_perception(perception)
    return tokenizer, model, image_processor


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(1)
    return [Image.fromarray(rng.integers(0, 256, (size, 56, 3), dtype=np.uint8)) for size in (56, 40, 90)]


def test_going_on_from_an_answers_own_words_gives_the_answer(loaded, images):
    options = {"max_new_tokens": 24, "constrained": False}  # any place may then be one to go on from
    whole = generate(*loaded, images=images, questions=QUESTIONS, **options)
    starts = [answer.ids[:length] for answer, length in zip(whole, (0, 3, 17), strict=True)]
    found = continue_answers(*loaded, images=images, questions=QUESTIONS, starts=starts, **options)
    for start, answer, expected in zip(starts, found, whole, strict=True):
        assert answer.ids[: len(start)] == start
        assert answer.ids[: len(expected.ids)] == expected.ids
        assert answer.text.startswith(expected.text.strip()[:20])


def test_rows_do_not_disturb_each_other(loaded, images):
    perception = loaded[1].perception
    family = perception.kinds["depth"].family
    starts = [perception.ids.ids(family, [code] * 9) for code in (3, 7)] + [[]]
    options = {"max_new_tokens": 12}
    together = continue_answers(*loaded, images=images, questions=QUESTIONS, starts=starts, **options)
    for image, question, start, answer in zip(images, QUESTIONS, starts, together, strict=True):
        (alone,) = continue_answers(*loaded, images=[image], questions=[question], starts=[start], **options)
        assert alone == answer
    assert family.text([3] * 9) in together[0].text


def test_other_codes_stand_in_the_place_of_a_map(loaded, workshop):
    depth = loaded[1].perception.kinds["depth"]
    records = [record for record in json.loads(workshop.records.read_text()) if "depth_chain" in record["id"]][:3]
    about = {"images": workshop.images, "batch_size": 2}
    written = ask((*loaded, 0), records, answer_start=depth.family.start, max_new_tokens=20, **about)
    own = [depth.family.parse(outcome.answer.text)[0].codes for outcome in written]
    again = go_on((*loaded, 0), written, own, **about)
    for before, after in zip(written, again, strict=True):
        assert after.answer.ids[: len(before.answer.ids)] == before.answer.ids
    others = [[code] * 9 for code in (3, 7, 5)]
    for codes, outcome in zip(others, go_on((*loaded, 0), written, others, **about), strict=True):
        assert list(depth.family.parse(outcome.answer.text)[0].codes) == codes  # it may write another behind it


def test_a_start_takes_its_part_of_the_context(loaded, images):
    context = context_length(loaded[1])
    start = loaded[0]("a" * 40, add_special_tokens=False).input_ids * 8
    (answer,) = continue_answers(
        *loaded, images=images[:1], questions=QUESTIONS[:1], starts=[start], max_new_tokens=10_000
    )
    assert answer.finished or len(answer.ids) < context
