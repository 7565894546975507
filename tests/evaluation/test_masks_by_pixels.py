"""`eval scenes_masks --reasoning direct,pixels`: masks that are written and masks of cells, in one report."""

import re

import numpy as np
import pytest
from stub_predictor import StubPredictor
from transformers import AutoTokenizer

from llava_aurora.errors import AuroraError
from llava_aurora.evaluation.answers import AnswerStore
from llava_aurora.evaluation.evaluation_report import write_report
from llava_aurora.evaluation.run import Plan, evaluate, read_questions, read_results
from llava_aurora.generation.result import Answer
from llava_aurora.tasks.mask_measures import stretched
from llava_aurora.tokens.box import BoxKind
from llava_aurora.tokens.mask import MaskKind
from llava_aurora.tokens.perception import PerceptionTokens

FRAME = 56


class Knowing(StubPredictor):
    """Knows the mask of each question in turn, and answers in tokens whichever way it is asked."""

    def __init__(self, tokenizer):
        kinds = {"box": BoxKind(frame=FRAME), "mask": MaskKind()}
        super().__init__(tokenizer, PerceptionTokens.teach(tokenizer, kinds), None, image_size=FRAME)
        self.masks: dict[tuple[bytes, str], np.ndarray] = {}

    def write(self, images, questions, *, among=(), answer_start=None, reasoning="direct", **settings):
        written = []
        for image, question in zip(images, questions, strict=True):
            phrase = re.search(r"(?:segment|part of) the ([^?]*?)(?: in this image.*)?\??$", question)[1]
            mask = self.masks[image.tobytes(), phrase]
            kinds, seen = self.perception.kinds, stretched(mask, (FRAME, FRAME))
            if among:
                x, y = map(int, re.findall(r"PIXEL_(\d+)", question))
                ids = (*answer_start[0], among[int(seen[y, x])])
                written.append(Answer(text="", ids=ids, finished=True, seconds=0.01, token_passes=3))
                continue
            if not mask.any():
                text = f"There is no {phrase} in the image."
            elif reasoning == "chain":
                rows, columns = np.nonzero(seen)
                box = kinds["box"].encode([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
                text = f"It is in the box {kinds['box'].family.text(box)}."
            else:
                text = f"It is {kinds['mask'].text(mask)}."
            ids = self.tokenizer(text, add_special_tokens=False).input_ids
            written.append(Answer(text=text, ids=tuple(ids), finished=True, seconds=0.5, token_passes=100))
        return written


@pytest.fixture
def model(workshop):
    return Knowing(AutoTokenizer.from_pretrained(workshop.base, use_fast=False))


def test_both_ways_are_measured_in_the_same_way(model, scenes, tmp_path):
    plan = Plan(tasks=["scenes_masks"], data=scenes, reasonings=["direct", "pixels"], pictures=1, limit=12)
    asked = read_questions("scenes_masks", plan, predictor=model, out=tmp_path).questions
    model.masks = {(q.open().tobytes(), q.phrase): q.masks[0].pixels for q in asked}
    evaluate(model, plan, out=tmp_path)
    write_report(tmp_path)
    entry = read_results(tmp_path)["benchmarks"]["scenes_masks"]["reasonings"]
    direct, pixels = (
        {name: each["value"] for name, each in entry[way]["summary"]["measures"].items()}
        for way in ("direct", "pixels")
    )
    assert set(direct) == set(pixels)
    assert 0.6 < pixels["ciou"] < direct["ciou"], "a box in pixels of a small frame"
    assert pixels["nothing"] == 1
    assert entry["direct"]["costs"] == {"seconds": 0.5, "token_passes": 100}
    report = (tmp_path / "report.md").read_text()
    assert "Ray-cast scenes, masks of phrases, pixels" in report
    assert re.search(r"What an answer takes.*direct \| 0.50 \| 100", report, re.DOTALL)
    assert any(case["right"] for case in entry["pixels"]["gallery"])
    boxes = sum(q.masks[0].pixels.any() for q in asked) / len(asked)
    assert AnswerStore(tmp_path).costs("scenes_masks", "pixels")["token_passes"] == pytest.approx(100 + boxes * 64 * 3)
    model.write = None  # nothing is asked again
    evaluate(model, plan, out=tmp_path)


def test_what_is_no_mask_of_a_phrase_is_not_asked_by_pixels():
    with pytest.raises(AuroraError, match=r"grounded: only masks of phrases \(scenes_masks, refcoco\) are asked for"):
        Plan(tasks=["masks"], reasonings=["pixels"])
    with pytest.raises(AuroraError, match="unknown reasoning 'cells'; available: chain, direct, pixels"):
        Plan(tasks=["scenes"], reasonings=["cells"])
