"""A toy task about a toy token kind, one file each, goes the whole way: records, training, answers, scores, page."""

import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import brightest
import numpy as np
import pytest
from brightness import Brightness
from PIL import Image
from stub_predictor import StubPredictor
from transformers import AutoTokenizer

from llava_aurora.data.validation.checks import CheckSettings, check_file
from llava_aurora.evaluation.replacement import replacement_test
from llava_aurora.evaluation.run import Plan, evaluate, read_results
from llava_aurora.generation.grammar import grammar
from llava_aurora.generation.predictor import Predictor
from llava_aurora.generation.result import Result, Timings
from llava_aurora.tasks.annotated import AnnotatedImage, Drawing
from llava_aurora.tasks.prompts import Prompts
from llava_aurora.tasks.records import RecordWriter, write_records
from llava_aurora.tasks.registry import register_family, task_names, unregister_family
from llava_aurora.tokens import register_kind, unregister_kind
from llava_aurora.tokens.perception import PerceptionTokens
from llava_aurora.tokens.vocabulary import PerceptionVocabulary

KIND = Brightness(levels=8)
FAMILY = KIND.family
IMAGES = 40


@pytest.fixture(scope="module", autouse=True)
def registered():
    register_kind(Brightness)
    register_family(brightest.Brightest)
    yield
    unregister_family("brightest")
    unregister_kind("brightness")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images of four grey quarters, and records of both tasks."""
    folder, rng = tmp_path_factory.mktemp("toy"), np.random.default_rng(0)
    writer, records = RecordWriter(prompts=Prompts(), families=(FAMILY,)), []
    for number in range(IMAGES):
        quarters = 32 * rng.permutation(8)[:4].reshape(2, 2).astype(np.uint8) + 16
        pixels = np.kron(quarters, np.ones((28, 28), np.uint8))
        Image.fromarray(pixels).convert("RGB").save(folder / f"{number}.png")
        known = AnnotatedImage(name=str(number), size=(56, 56), codes={"brightness": KIND.encode(pixels)})
        shares = {"brightest_chain": 1.0, "brightest_direct": 1.0}
        records += write_records(known, image=f"{number}.png", shares=shares, drawing=Drawing(), writer=writer)
    (folder / "records.json").write_text(json.dumps(records))
    return folder


def test_its_records_pass_the_pre_flight_and_a_wrong_one_does_not(folder, tmp_path):
    assert "brightest_chain" in task_names()
    settings = CheckSettings(families=(FAMILY,), frame=56)
    assert not check_file(folder / "records.json", settings).findings.numbers
    records = json.loads((folder / "records.json").read_text())
    chain = next(record for record in records if record["aurora"]["task"] == "brightest_chain")
    right = chain["aurora"]["answer"]
    chain["conversations"][1]["value"] = chain["conversations"][1]["value"].replace(
        f"({right})", f"({'A' if right != 'A' else 'B'})"
    )
    (tmp_path / "wrong.json").write_text(json.dumps([chain]))
    assert check_file(tmp_path / "wrong.json", settings).findings.numbers["letters"] == 1


def test_the_grammar_of_its_answers_comes_from_its_forms():
    pattern = re.compile(grammar(PerceptionVocabulary((FAMILY,)), notation="regex", task="brightest_chain"))
    assert pattern.fullmatch(f"The brightness is {FAMILY.text([1, 2, 3, 4])}. The answer is (B).")
    assert not pattern.fullmatch(f"The brightness is {FAMILY.text([1, 2, 3, 4])}. The answer is (b).")


@pytest.fixture(scope="module")
def model(workshop):
    """Writes the true brightness, and which quarter is brightest in what then stands there."""
    tokenizer = AutoTokenizer.from_pretrained(workshop.base, use_fast=False)

    def respond(prompt, start):
        light = "" if start else f"The brightness is {KIND.text(np.asarray(model.image.convert('L')))}"
        if start.endswith(FAMILY.start + FAMILY.end):  # a span without codes
            return ". The answer is (a)."
        (span,) = FAMILY.parse(start + light)
        return f"{light}. The answer is ({brightest.brightest(span.codes)})."

    model = StubPredictor(tokenizer, PerceptionTokens.teach(tokenizer, {"brightness": KIND}), respond)
    return model


def test_it_is_scored_and_its_span_replaced(model, folder, tmp_path):
    plan = Plan(tasks=["records"], data=folder, reasonings=["chain"], pictures=1)
    evaluate(model, plan, out=tmp_path)
    entry = read_results(tmp_path)["benchmarks"]["records"]
    summary = entry["reasonings"]["chain"]["summary"]
    assert summary["accuracy"]["value"] == summary["read_out"]["value"] == summary["has_span"] == 1
    assert 0.25 < summary["blind"] < 0.6
    found = replacement_test(model, plan, out=tmp_path)["records"]
    assert found["verdict"]["finding"] == "uses its map"
    assert found["conditions"]["true"]["loss"]["value"] == 0
    conditions = {name: each for name, each in found["conditions"].items() if name != "empty"}
    assert all(condition["follows"]["value"] == 1 for condition in conditions.values())


def test_the_page_offers_it_and_shows_its_span_while_it_is_written(model, tmp_path):
    pytest.importorskip("gradio", reason="pip install 'llava-aurora[serve]'")
    from llava_aurora.serving.events import PageEvents
    from llava_aurora.serving.examples import scene_examples

    examples = scene_examples(tmp_path, kinds=["brightness"])
    example = next(each for each in examples if "brightest" in each.question)
    pieces = ["The brightness is ", FAMILY.start, *map(FAMILY.token, (1, 2, 7, 0)), FAMILY.end, ". The answer is (C)."]

    def stream(image, question, *, reasoning, decoding):
        yield from pieces
        yield Result(
            text="".join(pieces),
            ids=(),
            finished=True,
            question=question,
            reasoning=reasoning,
            image=image,
            timings=Timings(preparing=0.1, generating=0.1, tokens=8, forward_passes=8),
            token_log_probabilities=None,
            perception=model.perception,
            transform=lambda frame: None,
        )

    seen = SimpleNamespace(perception=model.perception, config=SimpleNamespace(image_aspect_ratio="pad"))
    aurora = SimpleNamespace(model=seen, image_processor=SimpleNamespace(size={"shortest_edge": 56}), stream=stream)
    events = PageEvents(aurora, folder=tmp_path, examples=examples, decoding="greedy", interval=0)
    shown = list(events.ask(example.path, None, example.question, "chain"))
    maps = [each.map for each in shown if isinstance(each.map, str)]
    assert "2 of 4 codes" in "".join(maps)
    assert "<img" in maps[-1]
    assert "<p>brightness map</p>" in maps[-1]
    assert shown[-1].answer == "(C)"
    with Image.open(shown[-1].picture) as picture:
        assert picture.width > picture.height  # the image, and its span beside it


@pytest.mark.slow
def test_it_is_trained_and_its_spans_are_well_formed(start, workshop, folder, tmp_path):
    flags = {"perception_modalities": "brightness", "modality_options": json.dumps({"brightness": {"levels": 8}})}
    start(
        sys.executable,
        Path(brightest.__file__),
        *workshop.flags(tmp_path / "out", data_path=folder / "records.json", image_folder=folder, **flags),
        "--use_cpu",
        "True",
    )
    predictor = Predictor.from_pretrained(tmp_path / "out", device="cpu")
    with Image.open(folder / "0.png") as image:
        (result,) = predictor.write(
            [image.convert("RGB")], ["Which quarter is brightest?"], answer_start="The brightness is <LIGHT_START>",
            max_new_tokens=12,
        )  # fmt: skip
    (span,) = result.spans["brightness"]
    assert len(span.codes) == 4
    assert result.annotations("brightness")[0].shape == (2, 2)
