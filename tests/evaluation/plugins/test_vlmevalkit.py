"""The plug-in for VLMEvalKit: with a stand-in for the harness, and as the harness runs it where it is installed."""

import importlib
import json
import sys
import types
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
from PIL import Image

from llava_aurora.errors import AuroraError
from llava_aurora.generation.aurora import Aurora

PLUGIN = "llava_aurora.evaluation.plugins.vlmevalkit"
RUN = """
import sys
from {plugin} import register

register("mine", pretrained={pretrained!r}, chains={chains!r}, max_new_tokens=24, device="cpu", several_images="join")

from vlmeval.run import main

main()
"""


class BaseModel:
    """What VLMEvalKit's base class does with a list of parts before it calls the model."""

    def __init__(self):
        self.dump_image_func = None

    def generate(self, message, dataset=None):
        assert all(part["type"] in self.allowed_types for part in message)
        return self.generate_inner(message, dataset)


def beside(images, height, *, return_image):
    opened = [Image.open(image) for image in images]
    widths = [round(each.width * height / each.height) for each in opened]
    joined = Image.new("RGB", (sum(widths), height))
    for number, each in enumerate(opened):
        joined.paste(each.resize((widths[number], height)), (sum(widths[:number]), 0))
    assert return_image
    return joined


@pytest.fixture
def plugin(monkeypatch):
    """The plug-in, its harness replaced by the few names of it that are used."""
    names = {
        "vlmeval": {},
        "vlmeval.config": {"supported_VLM": {"llava_v1.5_7b": None}},
        "vlmeval.smp": {"concat_images_vlmeval": beside},
        "vlmeval.vlm": {},
        "vlmeval.vlm.base": {"BaseModel": BaseModel},
    }
    for name, values in names.items():
        module = types.ModuleType(name)
        vars(module).update(values)
        monkeypatch.setitem(sys.modules, name, module)
        parent, _, child = name.rpartition(".")
        if parent:
            monkeypatch.setattr(sys.modules[parent], child, module, raising=False)
    monkeypatch.delitem(sys.modules, PLUGIN, raising=False)
    yield importlib.import_module(PLUGIN)
    sys.modules.pop(PLUGIN)


@pytest.fixture
def pictures(tmp_path):
    rng = np.random.default_rng(0)
    paths = [str(tmp_path / f"{number}.png") for number in range(2)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(path)
    return paths


@pytest.fixture
def model(plugin, workshop, tmp_path):
    """Makes the tiny base model with some options."""

    def make(**options):
        options = {"chains": tmp_path / "chains.jsonl", "device": "cpu", "max_new_tokens": 9, **options}
        return plugin.LlavaAurora(workshop.base, **options)

    return make


def parts(images, *texts):
    return [
        *({"type": "image", "value": image} for image in images),
        *({"type": "text", "value": text} for text in texts),
    ]


def kept(tmp_path):
    return [json.loads(line) for line in (tmp_path / "chains.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("reasoning", ["chain", "direct"])
def test_it_answers_what_the_model_answers_and_keeps_the_whole_text(model, workshop, pictures, tmp_path, reasoning):
    answer = model(reasoning=reasoning).generate(parts(pictures[:1], "How many red", "cubes are there?"), "CV-Bench-2D")
    aurora = Aurora.from_pretrained(workshop.base, device="cpu")
    expected = aurora.ask(pictures[0], "How many red\ncubes are there?", reasoning=reasoning, max_new_tokens=9)
    assert answer == expected.answer
    (line,) = kept(tmp_path)
    assert (line["model"], line["dataset"], line["images"]) == (str(workshop.base), "CV-Bench-2D", pictures[:1])
    assert (line["text"], line["answer"], line["reasoning"]) == (expected.text, expected.answer, reasoning)


def test_the_harness_is_given_the_answer_without_its_chain(model, pictures, tmp_path, monkeypatch):
    asked = model()
    aurora = asked.aurora
    result = aurora.ask(pictures[0], "Which?", max_new_tokens=1)
    said = replace(result, text="The map is …. The answer is (B).")
    monkeypatch.setattr(aurora, "ask", lambda *given, **options: said)
    assert asked.generate(parts(pictures[:1], "Which?")) == "(B)"
    assert [line["text"] for line in kept(tmp_path)] == ["The map is …. The answer is (B)."]


def test_several_images_are_refused_or_joined(model, pictures, tmp_path):
    with pytest.raises(AuroraError, match=r"BLINK: 'Which\?' has 2 images and one is needed; several_images='join'"):
        model().generate(parts(pictures, "Which?"), "BLINK")
    with pytest.raises(AuroraError, match=r"has 0 images and one is needed$"):
        model(several_images="join").generate(parts([], "Which?"), "BLINK")
    model(several_images="join").generate(parts(pictures, "Which?"), "BLINK")
    (line,) = kept(tmp_path)
    assert line["images"] == pictures


def test_arguments_that_mean_nothing_are_refused(plugin, tmp_path):
    for options, message in (
        ({"reasoning": "both"}, "unknown reasoning 'both'"),
        ({"several_images": "first"}, "unknown several_images 'first'; available: refuse, join"),
    ):
        with pytest.raises(AuroraError, match=message):
            plugin.LlavaAurora("nowhere", chains=tmp_path / "chains.jsonl", **options)


def test_it_is_registered_once_under_a_name_of_its_own(plugin, workshop, tmp_path):
    import vlmeval.config
    import vlmeval.vlm

    plugin.register("mine", pretrained=workshop.base, chains=tmp_path / "chains.jsonl", device="cpu")
    made = vlmeval.config.supported_VLM["mine"]()
    assert isinstance(made, plugin.LlavaAurora)
    assert vlmeval.vlm.LlavaAurora is plugin.LlavaAurora
    for name in ("mine", "llava_v1.5_7b"):
        with pytest.raises(AuroraError, match=f"VLMEvalKit already has a model '{name}'; choose another name"):
            plugin.register(name, pretrained=workshop.base, chains=tmp_path / "chains.jsonl")


def test_other_processes_keep_their_chains_beside(model, pictures, tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    model().generate(parts(pictures[:1], "Which?"))
    assert (tmp_path / "chains.1.jsonl").exists()


@pytest.mark.deepspeed
@pytest.mark.skipif(find_spec("vlmeval") is None, reason="VLMEvalKit is not installed")
def test_the_harness_runs_a_table_of_questions(finetuned, start, pictures, tmp_path):
    import pandas

    questions = ["How many red cubes are there?", "Which of the marked points is closest to the camera?"]
    images = [pictures[0], json.dumps(pictures)]
    rows = [
        {"index": number, "image_path": image, "question": question, "answer": "1"}
        for number, (image, question) in enumerate(zip(images, questions, strict=True))
    ]
    pandas.DataFrame(rows).to_csv(tmp_path / "Ours.tsv", sep="\t", index=False)
    chains = tmp_path / "out" / "chains.jsonl"
    script = tmp_path / "run.py"
    script.write_text(RUN.format(plugin=PLUGIN, pretrained=str(finetuned[0]), chains=str(chains)))
    flags = ["--data", "Ours", "--model", "mine", "--mode", "infer", "--work-dir", tmp_path / "out"]
    start(sys.executable, script, *flags, LMUData=str(tmp_path), PRED_FORMAT="tsv")
    (table,) = (tmp_path / "out").rglob("mine_Ours.tsv")
    predictions = pandas.read_csv(table, sep="\t", keep_default_na=False)["prediction"].astype(str).tolist()
    lines = [json.loads(line) for line in chains.read_text().splitlines()]
    aurora = Aurora.from_pretrained(finetuned[0], device="cpu")
    first = aurora.ask(pictures[0], questions[0], max_new_tokens=24)
    assert [line["answer"] for line in lines] == predictions
    assert (lines[0]["text"], lines[0]["answer"]) == (first.text, first.answer)
    assert lines[1]["images"] == pictures
