"""Looking again: records with several images, the crop, and both turns as a model is asked them."""

import json

import numpy as np
import pytest
import torch
from llava import conversation
from PIL import Image
from transformers import AutoTokenizer

from llava_aurora import Predictor, load_pretrained_model
from llava_aurora.configuration import DataArguments
from llava_aurora.data.dataset import AuroraCollator, AuroraDataset
from llava_aurora.data.images.crop import crop
from llava_aurora.errors import AuroraError
from llava_aurora.evaluation.answers import AnswerSettings
from llava_aurora.evaluation.run import _answer
from llava_aurora.generation.inputs import Turn, prepare_inputs
from llava_aurora.model.context_mask import text_and_image
from llava_aurora.tasks.look_again import AGAIN
from llava_aurora.tokens import build_kinds
from llava_aurora.tokens.perception import PerceptionTokens

FIRST, BOX = "What is it? Think step by step.", "It is in the box (10,20,30,32)."


@pytest.fixture(scope="module")
def predictor(workshop):
    _, model, image_processor, _ = load_pretrained_model(str(workshop.base), device="cpu")
    # LLaVA masks the answers of several turns by counting, for tokenizers of Llama's pieces or of the older way.
    tokenizer = AutoTokenizer.from_pretrained(workshop.base, use_fast=False, legacy=True)
    perception = PerceptionTokens.teach(tokenizer, build_kinds({"box": {"frame": 56}}, workshop.folder))
    model.resize_token_embeddings(len(tokenizer))
    model.attach_perception(perception)
    return Predictor(tokenizer=tokenizer, model=model, image_processor=image_processor)


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(1)
    return [Image.fromarray(rng.integers(0, 256, (56, 56, 3), dtype=np.uint8)) for _ in range(2)]


@pytest.fixture
def written(predictor, monkeypatch):
    """What the model is asked; its answers, which are given."""
    asked, answers = [], {"What is it?": [f"It is in the box {box_text(predictor, [10, 20, 30, 32])}."]}

    def decode(tokenizer, model, inputs, *, limit, **_):
        asked.append(inputs)
        said = [answers["What is it?"].pop(0) if len(asked) == 1 else "The answer is red cube." for _ in inputs.rows]
        ids = [[*tokenizer(text, add_special_tokens=False).input_ids, tokenizer.eos_token_id] for text in said]
        return [type("Row", (), {"ids": each, "passes": 1, "log_probabilities": None}) for each in ids]

    monkeypatch.setattr("llava_aurora.generation.predictor.decode_by_token", decode)
    return asked, answers["What is it?"]


def box_text(predictor, box):
    return predictor.perception.kinds["box"].family.text(box)


def embedded(model, batch):
    found = model.prepare_inputs_labels_for_multimodal(
        batch["input_ids"], None, batch["attention_mask"], None, batch["labels"], batch["images"]
    )
    return found[4], found[2], found[5]


@torch.no_grad()
def test_a_model_is_asked_what_it_was_trained_on(predictor, images, tmp_path, monkeypatch):
    """Rows with two images, none, and one, in one batch, are each what they are alone; so is the question."""
    monkeypatch.setattr(conversation, "default_conversation", conversation.conv_templates["v1"])
    for number, image in enumerate(images):
        image.save(tmp_path / f"{number}.png")
    turns = [("human", f"<image>\n{FIRST}"), ("gpt", BOX), ("human", f"<image>\n{AGAIN}"), ("gpt", "Red.")]
    first = {"image": ["0.png", "1.png"], "conversations": [{"from": who, "value": said} for who, said in turns]}
    plain = [{"from": "human", "value": "How?"}, {"from": "gpt", "value": "So."}]
    one = [{"from": "human", "value": "<image>\nHow?"}, {"from": "gpt", "value": "So."}]
    records = [first, {"conversations": plain}, {"image": "1.png", "conversations": one}]
    (tmp_path / "train.json").write_text(json.dumps(records))
    args = DataArguments(data_path="", image_folder=str(tmp_path), is_multimodal=True, lazy_preprocess=True)
    args.image_processor, args.mm_use_im_start_end = predictor.image_processor, False
    tokenizer = predictor.tokenizer
    tokenizer.pad_token = tokenizer.unk_token
    items = [AuroraDataset(str(tmp_path / "train.json"), tokenizer, args)[number] for number in range(3)]
    assert [tuple(item["image"].shape[:-2]) for item in items] == [(2, 3), (3,), (3,)]
    collate = AuroraCollator(tokenizer=tokenizer)
    together, valid, _ = embedded(predictor.model, collate(items))
    for number, item in enumerate(items):
        alone, _, labels = embedded(predictor.model, collate([item]))
        assert torch.allclose(together[number][valid[number].bool()], alone[0], atol=1e-5)
        if number == 0:
            learned = (labels[0] != -100).nonzero().flatten().tolist()
            behind = next(at for at in reversed(learned) if at - 1 not in learned)  # where the last answer begins
            expected = alone[0][:behind]
    inputs = prepare_inputs(
        tokenizer,
        predictor.model,
        predictor.image_processor,
        images=[images[1]],
        questions=[AGAIN],
        before=[Turn(images[0], FIRST, BOX)],
    )
    assert torch.allclose(inputs.embeddings[0], expected, atol=1e-5)
    with pytest.raises(AuroraError, match="several images, and a context mask is for one"):
        text_and_image(collate(items)["input_ids"], None, -200)


def test_the_crop_is_a_square_around_the_box_inside_the_image(images):
    image = images[0].resize((100, 56))
    assert np.array_equal(crop(image, (40, 20, 60, 30)), np.asarray(image)[10:40, 35:65])
    assert crop(image, (0, 0, 4, 8)).size == (12, 12)
    assert crop(image, (90, 0, 200, 56)).size == (84, 56)


@pytest.mark.parametrize("box", [(10, 5, 10, 20), (60, 60, 80, 80), (20, 9, 10, 12)])
def test_a_box_without_area_is_one_clear_line(images, box):
    with pytest.raises(AuroraError, match=r"the box \(.*\) has no area in the image of 56 × 56 pixels"):
        crop(images[0], box)


def test_both_turns_are_one_answer(predictor, images, written):
    asked, _ = written
    (result,) = predictor.look_again(images[:1], ["What is it?"])
    assert [row.count(-200) for row in (asked[0].rows[0], asked[1].rows[0])] == [1, 2]
    assert result.text == f"It is in the box {box_text(predictor, [10, 20, 30, 32])}.\nThe answer is red cube."
    assert (result.answer, len(result.boxes), result.finished) == ("red cube", 1, True)
    assert result.question == "What is it?"


@pytest.mark.parametrize("said", ["No idea.", "It is in the box {empty}."])
def test_an_answer_without_a_box_is_an_error_or_stays_as_it_is(predictor, images, written, said):
    asked, answers = written
    said = said.format(empty=box_text(predictor, [10, 20, 10, 32]))
    answers[:] = [said, answers[0]]
    good = predictor.look_again([images[0], images[1]], ["What is it?"] * 2, lenient=True)
    assert [each.text.count("\n") for each in good] == [0, 1]
    assert good[0].text == said
    asked.clear()
    answers[:] = [said]
    with pytest.raises(AuroraError, match=r"has no (box|area)"):
        predictor.look_again(images[:1], ["What is it?"])


def test_an_evaluation_looks_again_in_chains_alone(predictor, images, written):
    question = type("Q", (), {"family": "look_again", "text": "What is it?", "open": lambda self: images[0]})()
    question.prompt = lambda reasoning, prompt: "What is it?"
    asked, answers = written
    answers.append(answers[0])
    (chain,) = _answer(predictor, AnswerSettings(max_new_tokens=30), "chain", [question])
    assert len(asked) == 2
    assert chain.text.endswith("red cube.")
    asked.clear()
    _answer(predictor, AnswerSettings(max_new_tokens=30), "direct", [question])
    assert len(asked) == 1
