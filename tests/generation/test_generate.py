"""Asking a model in batches."""

import numpy as np
import pytest
import torch
from PIL import Image

from llava_aurora import generate, load_pretrained_model
from llava_aurora.errors import AuroraError

pytestmark = pytest.mark.deepspeed
QUESTIONS = ["Write down the depth map of this image.", "How many red cubes are in the image?", "Why?"]


@pytest.fixture(scope="module")
def loaded(finetuned):
    return load_pretrained_model(str(finetuned[0]))


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(1)
    return [Image.fromarray(rng.integers(0, 256, (size, 56, 3), dtype=np.uint8)) for size in (56, 40, 90)]


def ask(loaded, images, questions, **options):
    return generate(*loaded[:3], images=images, questions=questions, max_new_tokens=40, **options)


def test_a_batch_says_what_each_question_gets_alone(loaded, images):
    together = ask(loaded, images, QUESTIONS)
    alone = [ask(loaded, [image], [question])[0] for image, question in zip(images, QUESTIONS, strict=True)]
    assert together == alone


@pytest.mark.parametrize(
    "options", [{"do_sample": True, "temperature": 3.0, "top_k": 0}, {"num_beams": 3}, {"use_cache": False}]
)
def test_maps_are_whole_however_they_are_searched(loaded, images, options):
    perception = loaded[1].perception
    depth = perception.vocabulary.families[0]
    answers = ask(loaded, images, QUESTIONS, answer_start=f"It is {depth.start}", **options)
    for answer in answers:
        assert answer.text.startswith("It is <DEPTH_START>")
        spans = perception.ids.spans(depth, answer.ids[: answer.ids.index(perception.ids.end_id(depth)) + 1])
        assert [len(span.codes) for span in spans] == [9]


def test_without_the_constraint_the_model_is_on_its_own(loaded, images):
    depth = loaded[1].perception.vocabulary.families[0]
    options = {"do_sample": True, "temperature": 5.0, "top_k": 0, "answer_start": depth.start, "constrained": False}
    torch.manual_seed(0)
    answers = ask(loaded, images, QUESTIONS, **options)
    words = [word for answer in answers for word in answer.ids[2:11]]  # where the codes of a map would stand
    assert any(loaded[1].perception.ids.code(depth, word) is None for word in words)


def test_bad_questions_are_refused(loaded, images):
    with pytest.raises(AuroraError, match="a question is empty"):
        ask(loaded, images[:1], [" "])
    with pytest.raises(AuroraError, match="1 questions for 2 images"):
        ask(loaded, images[:2], ["?"])
    with pytest.raises(AuroraError, match="unknown conversation 'none'"):
        ask(loaded, images[:1], ["?"], conversation="none")
