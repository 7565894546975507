"""Benchmarks about masks: what is asked, and what answers come to in the pixels of the images."""

import re

import pytest
from refcoco import CUP, DISH, filled, write_refs, write_rows
from stub_predictor import StubPredictor
from transformers import AutoTokenizer

from llava_aurora.data.images.frame import FrameTransform
from llava_aurora.evaluation.benchmarks.registry import BENCHMARKS, Wording
from llava_aurora.evaluation.evaluation_report import write_report
from llava_aurora.evaluation.run import Plan, evaluate, read_results
from llava_aurora.tokens.mask import MaskKind
from llava_aurora.tokens.perception import PerceptionTokens

KIND = MaskKind(cells=16)


@pytest.fixture(scope="module")
def answering(workshop):
    """A model of masks out of what it answers."""
    tokenizer = AutoTokenizer.from_pretrained(workshop.base, use_fast=False)
    perception = PerceptionTokens.teach(tokenizer, {"mask": KIND})
    return lambda respond: StubPredictor(tokenizer, perception, respond)


def ask(predictor, task, data, out):
    evaluate(predictor, Plan(tasks=[task], data=data, reasonings=["direct"], pictures=1), out=out)
    write_report(out)
    entry = read_results(out)["benchmarks"][task]["reasonings"]["direct"]
    numbers = {name: value["value"] for name, value in entry["summary"]["measures"].items()}
    return entry, numbers


def questions(task, data):
    return BENCHMARKS[task].read(data, Wording(56)).questions


def whole(mask, aspect_ratio="resize"):
    """What a model writes that sees a mask rightly."""
    height, width = mask.shape
    moved = FrameTransform.of(width=width, height=height, frame=400, aspect_ratio=aspect_ratio)
    return f"It is {KIND.text(moved.view(mask))}." if mask.any() else "There is no such thing in the image."


def test_phrases_of_refcoco_by_split_and_set(tmp_path):
    write_rows(tmp_path / "RefCOCOplus" / "data")
    asked = questions("refcoco", tmp_path)
    assert [q.text for q in asked] == [
        f"Please segment the {each} in this image." for each in ("left cup", "white cup", "dish")
    ]
    assert {(q.category, q.image_id) for q in asked} == {("RefCOCO+ val", "COCO_train2014_000000000009.jpg")}
    assert (asked[1].masks[0].pixels == filled(CUP)).all()
    found = BENCHMARKS["refcoco"].read(write_refs(tmp_path / "refcocog"), Wording(56))
    assert [q.category for q in found.questions] == ["RefCOCOg testA"]
    assert dict(found.left_out) == {"references for training": 2}


@pytest.mark.parametrize("aspect_ratio", ["pad", "resize", "square"])
def test_masks_are_compared_in_the_pixels_of_the_image(answering, tmp_path, aspect_ratio):
    true = {"left cup": filled(CUP), "white cup": filled(CUP), "dish": filled(DISH)}
    model = answering(lambda prompt, start: whole(true[re.search(r"the (.*) in this", prompt)[1]], aspect_ratio))
    model.aspect_ratio = aspect_ratio
    entry, numbers = ask(model, "refcoco", write_rows(tmp_path / "data"), tmp_path / "out")
    assert numbers["ciou"] > (0.6 if aspect_ratio == "square" else 0.94)  # it does not see the left of the cup
    assert numbers["true_box_ciou"] == 1
    assert entry["summary"]["accuracy"]["value"] == 1
    assert entry["summary"]["measures"]["giou"]["count"] == 1  # images
    blind = entry["summary"]["blind_measures"]["ciou"]["value"]
    assert blind == pytest.approx((100 + 100 + 240) / (3 * 340), abs=0.02)  # always both things
    assert entry["summary"]["blind"] == pytest.approx(1 / 3)


def test_scenes_ask_for_what_is_there_and_what_is_not(answering, scenes, tmp_path):
    asked = questions("scenes_masks", scenes)
    assert {q.category for q in asked} == {"by name", "by place", "not there"}
    by_text = {(q.text, q.masks[0].pixels.tobytes()) for q in asked}
    assert len(by_text) > 40
    answers = iter(asked)
    model = answering(lambda prompt, start: whole(next(answers).masks[0].pixels))
    entry, numbers = ask(model, "scenes_masks", scenes, tmp_path)
    assert numbers["ciou"] > 0.9
    assert numbers["nothing"] == entry["categories"]["not there"]["accuracy"]["value"] == 1
    assert numbers["box_ciou"] < numbers["ciou"]
    assert 0 < entry["summary"]["blind_measures"]["ciou"]["value"] < 0.5


def test_saying_nothing_of_masks_is_unparsable_and_no_is_an_empty_mask(answering, scenes, tmp_path):
    silent, numbers = ask(answering(lambda *_: "A fine scene."), "scenes_masks", scenes, tmp_path / "silent")
    assert silent["summary"]["unparsable"] == 1
    assert (numbers["ciou"], numbers["nothing"]) == (0, 0), "babble denies nothing"
    denying, numbers = ask(
        answering(lambda *_: "There is no such thing."), "scenes_masks", scenes, tmp_path / "denying"
    )
    absent = sum(q.category == "not there" for q in questions("scenes_masks", scenes))
    assert denying["summary"]["unparsable"] == 0
    assert numbers["nothing"] == 1
    assert denying["categories"]["not there"]["accuracy"]["value"] == 1
    assert denying["categories"]["not there"]["questions"] == absent


def test_descriptions_are_matched_thing_by_thing(answering, scenes, tmp_path):
    asked = iter(questions("grounded", scenes))

    def described(prompt, start):
        things = next(asked).masks
        told = [f"<p>a {each.phrase}</p> {KIND.text(each.pixels)}" for each in reversed(things)]
        return f"The image shows {', '.join(told[: max(1, len(told) // 2)])}."

    entry, numbers = ask(answering(described), "grounded", scenes, tmp_path)
    true = [len(q.masks) for q in questions("grounded", scenes)]
    share = sum(max(1, count // 2) for count in true) / sum(true)
    assert numbers["mask_recall"] == numbers["named_recall"] == pytest.approx(share, abs=0.02)
    assert numbers["miou"] > 0.9
    assert numbers["ap50"] == pytest.approx(share, abs=0.03)
    assert entry["summary"]["accuracy"]["value"] == pytest.approx(true.count(1) / len(true), abs=0.05)
