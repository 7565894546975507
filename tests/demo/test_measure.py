"""What stands in the place of a chain's map when the demo asks whether its model uses it."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from transformers import AutoTokenizer

from llava_aurora.demo import measure
from llava_aurora.demo.measure import Asked, true_depth
from llava_aurora.generation.result import Result, Timings
from llava_aurora.tokens import build_kinds
from llava_aurora.tokens.perception import PerceptionTokens

POINTS = {"A": [3, 4], "B": [30, 40], "C": [50, 9]}
CODES = [[1] * 9, [2] * 9, [3] * 9, [4] * 9]


@pytest.fixture
def perception(workshop):
    tokenizer = AutoTokenizer.from_pretrained(workshop.base, use_fast=False)
    settings = {"depth": {"vqvae": str(workshop.vqvae)}, "box": {"frame": 56}}
    return tokenizer, PerceptionTokens.teach(tokenizer, build_kinds(settings, workshop.folder))


@pytest.fixture
def outcomes(perception, tmp_path):
    """Chains about three points, three points, two points, and three again with the map cut off; all say A."""
    tokenizer, perception = perception
    rng, found = np.random.default_rng(0), []
    for number, (codes, count, right, length) in enumerate(zip(CODES, (3, 3, 2, 3), "ABAA", (9, 9, 9, 4), strict=True)):
        Image.fromarray(rng.integers(0, 256, (56, 56), dtype=np.uint8)).save(tmp_path / f"{number}.png")
        about = {"task": "depth_chain_from_coordinates", "answer": right, "depth": f"{number}.png"}
        about["points"] = dict(list(POINTS.items())[:count])
        span = perception.kinds["depth"].family.text(codes)
        text = span[: span.index("<DEPTH_END>")] if length < 9 else f"{span}. The answer is (A)."
        ids = tokenizer(text, add_special_tokens=False).input_ids
        result = Result(
            text=text,
            ids=tuple(ids),
            finished=True,
            question="?",
            reasoning="direct",
            image=Image.new("RGB", (56, 56)),
            timings=Timings(preparing=0, generating=0, tokens=1, forward_passes=1),
            token_log_probabilities=None,
            perception=perception,
            transform=None,
        )
        found.append(Asked({"id": str(number), "aurora": about}, result))
    return found


def measured(perception, outcomes, images, monkeypatch):
    depth, asked = perception.kinds["depth"].family, {}

    def ask(predictor, records, *, images, description, answer_start):
        maps = [perception.ids.spans(depth, start)[-1].codes for start in answer_start]
        asked[description.removeprefix("With ")] = [list(codes) for codes in maps]
        return [each for each in outcomes if each.record in records]

    monkeypatch.setattr(measure, "ask", ask)
    demo = SimpleNamespace(images=images, preset=SimpleNamespace(seed=0))
    return measure.behind_other_maps(demo, SimpleNamespace(perception=perception), outcomes), asked


def test_whole_maps_of_hard_questions_are_replaced(perception, outcomes, tmp_path, monkeypatch):
    depth = perception[1].kinds["depth"]
    found, asked = measured(perception[1], outcomes, tmp_path, monkeypatch)
    assert found == dict.fromkeys(["the true map", "its own map", "its map of another scene", "random codes"], (0.5, 2))
    assert asked["its own map"] == CODES[:2]
    assert asked["its map of another scene"] == CODES[1::-1]
    size = depth.vqvae.config.image_size
    true = [true_depth(each.record, images=tmp_path, size=size) for each in outcomes[:2]]
    assert asked["the true map"] == [list(depth.encode(each)) for each in true]
    random = np.array(asked["random codes"])
    assert random.shape == (2, 9)
    assert ((random >= 0) & (random < depth.family.size)).all()
    assert len(np.unique(random)) > 2


def test_without_hard_questions_all_are_asked_and_without_maps_none(perception, outcomes, tmp_path, monkeypatch):
    found, asked = measured(perception[1], outcomes[2:], tmp_path, monkeypatch)
    assert asked["its own map"] == CODES[2:3]
    assert found["random codes"] == (1.0, 1)
    assert measured(perception[1], outcomes[3:], tmp_path, monkeypatch) == ({}, {})
