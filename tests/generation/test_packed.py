"""Many questions about one image in one row: what each gets alone."""

import numpy as np
import pytest
import torch
from PIL import Image

from llava_aurora.errors import AuroraError
from llava_aurora.generation.aurora import Aurora
from llava_aurora.generation.packed import decode_packed
from llava_aurora.generation.predictor import Predictor
from llava_aurora.model.checkpoint import load_pretrained_model

pytestmark = pytest.mark.deepspeed
NEW = 16
QUESTIONS = [
    "Red?",
    "Which of the points A (<PIXEL_3>,<PIXEL_40>), B (<PIXEL_50>,<PIXEL_6>) is closest? Think step by step.",
    "Write down the depth map of this image.",
    "How many red cubes are in the image?",
    "Red?",
    "What is there, from left to right, and how many of them are there in all?",
]


@pytest.fixture(scope="module", params=["sdpa", "eager"])
def predictor(finetuned_lora, request):
    tokenizer, model, processor, _ = load_pretrained_model(str(finetuned_lora[0]), device="cpu")
    model.config._attn_implementation = request.param
    return Predictor(tokenizer=tokenizer, model=model, image_processor=processor)


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (56, 56, 3), dtype=np.uint8)) for _ in range(2)]


@pytest.mark.parametrize("begins", ["", "The map is <DEPTH_START>"])
@pytest.mark.parametrize("constrained", [True, False])
def test_every_question_gets_the_answer_that_it_gets_alone(predictor, images, begins, constrained):
    asked = [(image, question) for question in QUESTIONS for image in images]
    options = {"answer_start": begins, "constrained": constrained, "max_new_tokens": NEW}
    together = predictor.write(*map(list, zip(*asked, strict=True)), decoding="packed", **options)
    for (image, question), result in zip(asked, together, strict=True):
        (alone,) = predictor.write([image], [question], **options)
        assert (result.ids, result.text, result.finished) == (alone.ids, alone.text, alone.finished)
        assert result.token_log_probabilities == pytest.approx(alone.token_log_probabilities, abs=1e-4)


def test_equal_images_are_read_once_and_short_rows_change_nothing(predictor, images, monkeypatch):
    def written():
        results = predictor.write([images[0].copy() for _ in QUESTIONS], QUESTIONS, decoding="packed", max_new_tokens=4)
        return [result.ids for result in results], results[0].timings.token_passes

    ids, passes = written()
    alone = [predictor.write([images[0]], [each], decoding="packed", max_new_tokens=4)[0] for each in QUESTIONS]
    assert passes < sum(result.timings.token_passes for result in alone) / 2
    rows = []
    monkeypatch.setattr(
        "llava_aurora.generation.packed.decode_packed",
        lambda *args, **settings: rows.append(decode_packed(*args, **settings, row=1)) or rows[-1],
    )
    assert written() == (ids, passes)


def test_ask_packs_a_list_of_questions_about_one_picture(predictor, images):
    aurora = Aurora(tokenizer=predictor.tokenizer, model=predictor.model, image_processor=predictor.image_processor)
    packed = aurora.ask(images[0], QUESTIONS, decoding="packed", reasoning="direct", max_new_tokens=4)
    assert [result.ids for result in packed] == [
        result.ids for result in aurora.ask(images[0], QUESTIONS, reasoning="direct", max_new_tokens=4)
    ]


def test_what_cannot_be_packed_is_refused(predictor, images, monkeypatch):
    with pytest.raises(AuroraError, match="num_beams: not available with packed decoding"):
        predictor.write(images[:1], ["Red?"], decoding="packed", num_beams=2)
    with pytest.raises(AuroraError, match="2 questions for 1 images"):
        predictor.write(images[:1], ["Red?", "Blue?"], decoding="packed")
    monkeypatch.setattr(predictor.model.config, "_attn_implementation", "flash_attention_2")
    with torch.inference_mode(), pytest.raises(AuroraError, match="load the model without --flash-attn"):
        predictor.write(images[:1], ["Red?"], decoding="packed")
