"""Asking a model in batches, from given beginnings, however it is decoded; with a model of random weights."""

import numpy as np
import pytest
import torch
from PIL import Image
from untrained import untrained_predictor

from llava_aurora import Predictor
from llava_aurora.errors import AuroraError
from llava_aurora.model.folders import fingerprint

QUESTIONS = ["Write down the depth map of this image.", "How many red cubes are in the image?", "Why?"]


@pytest.fixture(scope="module")
def predictor(workshop):
    """The base model with its new tokens, before any training."""
    return untrained_predictor(workshop)


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(1)
    return [Image.fromarray(rng.integers(0, 256, (size, 56, 3), dtype=np.uint8)) for size in (56, 40, 90)]


@pytest.fixture
def starts(predictor):
    """What three answers begin with: a whole map, an open one, and nothing."""
    perception = predictor.perception
    family = perception.kinds["depth"].family
    return [perception.ids.ids(family, [3] * 9), perception.ids.ids(family, [7] * 9)[:5], []]


@pytest.mark.parametrize("decoding", ["greedy", "verified"])
@pytest.mark.parametrize("begun", ["nothing", "a text", "ids of each"])
def test_a_batch_writes_what_each_question_gets_alone(predictor, images, starts, decoding, begun):
    given = {"nothing": "", "a text": "It is <DEPTH_START>", "ids of each": starts}[begun]
    options = {"max_new_tokens": 24, "decoding": decoding}
    together = predictor.write(images, QUESTIONS, answer_start=given, **options)
    for number, result in enumerate(together):
        start = given if isinstance(given, str) else [given[number]]
        (alone,) = predictor.write([images[number]], [QUESTIONS[number]], answer_start=start, **options)
        assert alone == result
        assert np.allclose(alone.token_log_probabilities, result.token_log_probabilities, atol=1e-3)
        assert len(result.token_log_probabilities) == len(result.ids)
    if decoding == "verified":
        greedy = predictor.write(images, QUESTIONS, answer_start=given, max_new_tokens=24)
        assert [result.ids for result in together] == [result.ids for result in greedy]


def test_going_on_from_an_answers_own_ids_gives_the_answer(predictor, images):
    options = {"max_new_tokens": 24, "constrained": False}  # any place may then be one to go on from
    whole = predictor.write(images, QUESTIONS, **options)
    beginnings = [result.ids[:length] for result, length in zip(whole, (0, 3, 17), strict=True)]
    for start, result, expected in zip(
        beginnings, predictor.write(images, QUESTIONS, answer_start=beginnings, **options), whole, strict=True
    ):
        assert result.ids[: len(expected.ids)] == expected.ids
        assert result.token_log_probabilities[: len(start)] == (0.0,) * len(start)


@pytest.mark.parametrize("options", [{}, {"do_sample": True, "temperature": 3.0, "top_k": 0}, {"num_beams": 3}])
def test_maps_are_whole_however_they_are_searched_and_begun(predictor, images, starts, options):
    torch.manual_seed(0)
    for result in predictor.write(images, QUESTIONS, answer_start=starts, max_new_tokens=20, **options)[:2]:
        assert [len(span.codes) for span in result.spans["depth"]][:1] == [9]
        assert (result.log_probabilities is None) == ("num_beams" in options)


def test_without_the_constraint_the_model_is_on_its_own(predictor, images):
    torch.manual_seed(0)
    sampling = {"do_sample": True, "temperature": 5.0, "top_k": 0, "constrained": False}
    results = predictor.write(images, QUESTIONS, answer_start="<DEPTH_START>", max_new_tokens=12, **sampling)
    assert any(not result.spans["depth"] for result in results)


def test_what_does_not_go_together_is_refused_and_changes_no_setting(predictor, images):
    before = predictor.model.config.to_dict()
    for arguments, options, message in (
        ((images[:1], [" "]), {}, "a question is empty"),
        ((images[:1], ["a \ud800?"]), {}, "half a surrogate pair"),
        ((images[:1], ["<image> Why?"]), {}, "holds <image>"),
        ((images[:2], ["?"]), {}, "1 questions for 2 images"),
        ((images[:1], ["?"]), {"conversation": "none"}, "unknown conversation 'none'"),
        ((images[:1], ["?"]), {"reasoning": "none"}, "unknown reasoning 'none'"),
        ((images[:1], ["?"]), {"decoding": "fast"}, "unknown decoding 'fast'"),
        ((images[:1], ["?"]), {"decoding": "parallel"}, "--span_mask_probability"),
        ((images[:1], ["?"]), {"decoding": "verified", "num_beams": 2}, "num_beams"),
        ((images[:1], ["?"]), {"answer_start": [[], []]}, "2 answer beginnings for 1 questions"),
        ((images[:1], ["?"]), {"max_new_tokens": 0}, "max_new_tokens"),
    ):
        with pytest.raises(AuroraError, match=message):
            predictor.write(*arguments, **options)
    assert predictor.model.config.to_dict() == before


def test_a_fingerprint_tells_one_checkpoint_from_another(workshop, tmp_path):
    with pytest.raises(AuroraError, match="no checkpoint here"):
        fingerprint(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    seen = {fingerprint(tmp_path)}
    for content in (b"weights", b"weights of another training"):
        (tmp_path / "model.safetensors").write_bytes(content)
        seen.add(fingerprint(tmp_path))
    assert len(seen) == 3
    loaded = Predictor.from_pretrained(workshop.base, device="cpu")
    assert loaded.identity["fingerprint"] == fingerprint(workshop.base)
    assert set(loaded.identity) == {"model", "fingerprint", "base", "load_8bit", "load_4bit"}
