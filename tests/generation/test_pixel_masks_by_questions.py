"""Masks that are put together from a yes or no for each cell of a box."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from stub_predictor import StubPredictor
from transformers import AutoTokenizer

from llava_aurora.demo.tiny_base import copy_tiny_base
from llava_aurora.errors import AuroraError
from llava_aurora.generation.inputs import prepare_inputs
from llava_aurora.generation.pixel_masks import _Asking, edges_of, write_pixel_masks
from llava_aurora.generation.predictor import Predictor
from llava_aurora.generation.result import Answer
from llava_aurora.model.checkpoint import load_pretrained_model
from llava_aurora.model.embeddings import RowStart, grow_embeddings
from llava_aurora.tokens import build_kinds
from llava_aurora.tokens.mask import MaskKind, decode_mask, encode_mask
from llava_aurora.tokens.perception import PerceptionTokens
from llava_aurora.tokens.vocabulary import pixel_family

PHRASE, QUESTION = "red cube", "Please segment the red cube in this image."
FRAME = 128
PIXELS = pixel_family(frame=FRAME)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The tiny base with untrained mask tokens."""
    folder = tmp_path_factory.mktemp("base") / "tiny"
    copy_tiny_base(folder)
    tokenizer, model, processor, _ = load_pretrained_model(str(folder), device="cpu")
    perception = PerceptionTokens.teach(tokenizer, build_kinds({"box": {"frame": FRAME}, "mask": {}}, folder))
    start = RowStart(method="words", descriptions=perception.descriptions(tokenizer))
    grow_embeddings(model, rows=len(tokenizer), ids=perception.token_ids(), start=start)
    model.attach_perception(perception)
    return Predictor(tokenizer=tokenizer, model=model, image_processor=processor, name=str(folder))


class Knowing(StubPredictor):
    """Says the box of a mask, bool (128, 128), and of each pixel whether it is in the mask."""

    def __init__(self, model, mask):
        super().__init__(model.tokenizer, model.perception, self.said, image_size=FRAME)
        self.mask = mask

    def said(self, question, start):
        rows, columns = np.nonzero(self.mask)
        if not len(rows):
            return "There is no red cube in the image."
        box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        return f"It is in the box {PIXELS.text([min(int(edge), FRAME - 1) for edge in box])}. Its mask"

    def place(self, question):
        x, y = map(int, re.findall(r"PIXEL_(\d+)", question))
        return x, y

    def write(self, images, questions, *, among=(), answer_start=None, **settings):
        if not among:
            assert settings["reasoning"] == "chain"
            return super().write(images, questions, **settings)
        assert (settings["decoding"], settings["max_new_tokens"]) == ("packed", 1)
        places = map(self.place, questions)
        ids = [among[int(self.mask[y, x])] for x, y in places]
        pairs = zip(answer_start, ids, strict=True)
        return [Answer(text="", ids=(*start, each), finished=False) for start, each in pairs]


def blocky(seed, box=(16, 32, 80, 128)):
    """A mask whose edges are those of 8 × 8 cells of its box."""
    mask, cells = np.zeros((FRAME, FRAME), bool), np.random.default_rng(seed).random((8, 8)) < 0.5
    cells[0] = cells[-1] = True
    cells[:, 0] = cells[:, -1] = True
    x1, y1, x2, y2 = box
    mask[y1:y2, x1:x2] = np.kron(cells, np.ones(((y2 - y1) // 8, (x2 - x1) // 8), bool))
    return mask


@pytest.mark.parametrize("seed", range(5))
def test_true_answers_make_the_exact_mask(model, seed):
    mask = blocky(seed)
    (answer,) = write_pixel_masks(Knowing(model, mask), [None], [QUESTION], [PHRASE])
    family = model.perception.kinds["mask"].family
    box, text = PIXELS.text((16, 32, 80, FRAME - 1)), family.text(encode_mask(mask))
    assert answer.text == f"It is in the box {box}. Its mask is {text}."
    (span,) = family.parse(answer.text)
    assert (decode_mask(span.codes, (FRAME, FRAME)) == mask).all()
    assert model.perception.ids.spans(family, answer.ids)[0].codes == span.codes


def test_a_model_without_coordinate_tokens_is_asked_in_the_papers_text(model, workshop):
    tokenizer, mask = AutoTokenizer.from_pretrained(workshop.base, use_fast=False), blocky(0)
    model = SimpleNamespace(tokenizer=tokenizer, perception=PerceptionTokens.teach(tokenizer, {"mask": MaskKind()}))
    asked = []

    class Plain(Knowing):
        def said(self, question, start):
            return "It is in the box (16,32,80,127). Its mask"

        def place(self, question):
            asked.append(question)
            column, row = map(int, re.search(r"loc: \[(\d+),(\d+)\] mask:", question).groups())
            return int((column + 0.5) * FRAME / 64), int((row + 0.5) * FRAME / 64)

    (answer,) = write_pixel_masks(Plain(model, mask), [None], [QUESTION], [PHRASE])
    assert asked[0] == "[segmentation] red cube loc: [10,19] mask:"  # of the cells from column 8, row 16 on, of 4 by 6
    assert answer.text == f"It is in the box (16,32,80,127). Its mask is {MaskKind().text(mask)}."


def test_cells_get_the_answers_that_each_question_gets_alone(model, monkeypatch):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 6, 3), np.uint8)).resize((96, 96))
    asking, write = _Asking(model), model.write
    edges, found = edges_of((10, 20, 90, 101), FRAME), []

    def boxed(images, questions, **options):
        if options.get("reasoning") == "chain":
            text = f"It is in the box {PIXELS.text((10, 20, 90, 101))}."
            return [Answer(text=text, ids=(), finished=True) for _ in images]
        return write(images, questions, **options)

    for question in asking.questions(edges, PHRASE):
        inputs = prepare_inputs(
            model.tokenizer,
            model.model,
            model.image_processor,
            images=[image],
            questions=[question],
            answer_start=[asking.start],
        )
        with torch.inference_mode():
            scores = model.model.lm_head(model.model.model(inputs_embeds=inputs.embeddings).last_hidden_state[0, -1])
        no, yes = asking.choices
        found.append(bool(scores[yes] > scores[no]))
    monkeypatch.setattr(model, "write", boxed)
    (answer,) = write_pixel_masks(model, [image], [QUESTION], [PHRASE])
    (span,) = model.perception.kinds["mask"].family.parse(answer.text)
    assert list(span.codes[:4]) == edges
    assert len(set(found)) == 2
    assert np.unpackbits(np.array(span.codes[4:], np.uint8)).astype(bool).tolist() == found


def test_what_it_takes_is_added_up(model, monkeypatch):
    image, (plain,) = Image.new("RGB", (64, 64)), model.write([Image.new("RGB", (64, 64))], ["Hello"], max_new_tokens=2)
    assert plain.seconds is None
    (answer,) = write_pixel_masks(model, [image], [QUESTION], [PHRASE])
    assert answer.seconds > 0
    assert answer.token_passes > 16


def test_an_answer_without_a_box_stays_as_it_is(model):
    nothing = np.zeros((FRAME, FRAME), bool)
    (answer,) = write_pixel_masks(Knowing(model, nothing), [None], [QUESTION], [PHRASE])
    assert answer.text == "There is no red cube in the image."


@pytest.mark.parametrize(
    ("box", "edges"),
    [
        ((0, 0, 127, 127), [0, 0, 255, 255]),
        ((16, 32, 80, 96), [32, 64, 159, 191]),
        ((5, 5, 6, 6), [10, 10, 11, 11]),
        ((9, 5, 9, 6), None),
        ((9, 5, 8, 6), None),
        ((9, 5, 12, 300), None),
    ],
)
def test_edges_of_a_box(box, edges):
    assert edges_of(box, FRAME) == edges


def test_a_model_without_mask_tokens_is_refused(model):
    stub = Knowing(model, blocky(0))
    stub.perception = None
    with pytest.raises(AuroraError, match="masks by pixels are written in mask tokens, which this model has not"):
        write_pixel_masks(stub, [None], [QUESTION], [PHRASE])


def test_only_packed_questions_have_an_answer_among_some(model):
    with pytest.raises(AuroraError, match="among: not available with greedy decoding; use packed"):
        model.write([Image.new("RGB", (9, 9))], ["Is it?"], among=[1, 2])
