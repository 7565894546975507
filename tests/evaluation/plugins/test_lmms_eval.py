"""The plug-in for lmms-eval: with a stand-in for the harness, and as the harness runs it where it is installed."""

import importlib
import json
import sys
import types
from dataclasses import replace
from importlib.metadata import entry_points
from importlib.util import find_spec

import numpy as np
import pytest
import yaml
from PIL import Image

from llava_aurora.data.sources.hardblink import write_hardblink
from llava_aurora.errors import AuroraError
from llava_aurora.evaluation.plugins.lmms_tasks import image, judge, text, write_hardblink_tasks
from llava_aurora.generation.aurora import Aurora
from llava_aurora.training.ports import free_port

PLUGIN = "llava_aurora.evaluation.plugins.lmms_eval"
INSTALLED = pytest.mark.skipif(find_spec("lmms_eval") is None, reason="lmms-eval is not installed")


@pytest.fixture(scope="module")
def hardblink(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hardblink")
    ramp = np.tile(np.linspace(1, 255, 336).astype(np.uint8), (336, 1))
    for name in ("images", "depth"):
        (folder / name).mkdir()
        for number in range(2):
            Image.fromarray(ramp).save(folder / name / f"{number}.png")
    write_hardblink(folder / "hardblink", images=folder / "images", depth=folder / "depth")
    return folder / "hardblink"


@pytest.fixture(scope="module")
def tasks(hardblink, tmp_path_factory):
    out = tmp_path_factory.mktemp("tasks") / "tasks"
    names = write_hardblink_tasks(hardblink, out)
    assert names == ["hardblink_3points", "hardblink_4points", "hardblink_5points", "hardblink"]
    return out


def test_rows_hold_question_image_and_truth(tasks):
    rows = [json.loads(line) for line in (tasks / "hardblink_4points.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == ["4points/0", "4points/1"]
    assert image(rows[0])[0].size == (336, 336)
    assert text(rows[0]).endswith("camera?")
    assert judge(rows[0], [f"The answer is ({rows[0]['answer']})."]) == {"accuracy": 1, "unparsable": 0}
    assert judge(rows[0], [text(rows[0])]) == {"accuracy": 0, "unparsable": 1}


def test_tasks_are_open_ended(tasks):
    class Loader(yaml.SafeLoader):
        pass

    Loader.add_constructor("!function", lambda loader, node: loader.construct_scalar(node))
    settings = yaml.load((tasks / "hardblink_3points.yaml").read_text(), Loader)
    assert settings["output_type"] == "generate_until"
    assert settings["process_results"] == "lmms_functions.judge"
    assert "choices" not in settings
    with pytest.raises(AuroraError, match="already exists"):
        write_hardblink_tasks(tasks, tasks)


# --- without the harness ----------------------------------------------------------------------------------------------


class Base:
    """What lmms-eval's base class sets."""

    def __init__(self):
        self._rank, self._world_size, self.task_dict = 0, 1, {}


@pytest.fixture
def plugin(monkeypatch):
    """The plug-in, the one name of the harness that it needs replaced."""
    for name in ("lmms_eval", "lmms_eval.api", "lmms_eval.api.model"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    sys.modules["lmms_eval.api.model"].lmms = Base
    monkeypatch.delitem(sys.modules, PLUGIN, raising=False)
    yield importlib.import_module(PLUGIN)
    sys.modules.pop(PLUGIN)


@pytest.fixture
def model(plugin, workshop, tasks, tmp_path):
    """Makes the tiny base model with some options, and the questions of a task with it."""
    rows = [json.loads(line) for line in (tasks / "hardblink_4points.jsonl").read_text().splitlines()] * 2

    def make(**options):
        options = {"chains": str(tmp_path / "chains.jsonl"), "device": "cpu", "max_new_tokens": 9, **options}
        made = plugin.LlavaAuroraModel(str(workshop.base), **options)
        made.task_dict = {"hardblink": {"test": rows}}
        return made

    requests = [
        types.SimpleNamespace(args=(text(row), {}, image, n, "hardblink", "test")) for n, row in enumerate(rows)
    ]
    return make, rows, requests


@pytest.mark.parametrize("reasoning", ["chain", "direct"])
def test_it_answers_in_batches_what_the_model_answers_and_keeps_the_whole_text(model, workshop, tmp_path, reasoning):
    make, rows, requests = model
    answers = make(reasoning=reasoning, batch_size="3").generate_until(requests)
    aurora = Aurora.from_pretrained(workshop.base, device="cpu")
    alone = [aurora.ask(row["image"], text(row), reasoning=reasoning, max_new_tokens=9) for row in rows]
    assert answers == [each.answer for each in alone]
    kept = [json.loads(line) for line in (tmp_path / "chains.jsonl").read_text().splitlines()]
    assert [line["text"] for line in kept] == [each.text for each in alone]
    assert [(line["task"], line["doc_id"]) for line in kept] == [("hardblink", number) for number in range(4)]
    assert {line["reasoning"] for line in kept} == {reasoning}


def test_the_harness_is_given_the_answer_without_its_chain(model, tmp_path, monkeypatch):
    make, _, requests = model
    made = make(batch_size=4)
    said = made.aurora.ask(Image.new("RGB", (56, 56)), "Which?", max_new_tokens=1)
    said = replace(said, text="The map is …. The answer is (B).")
    monkeypatch.setattr(made.aurora, "ask", lambda images, questions, **options: [said] * len(questions))
    assert made.generate_until(requests) == ["(B)"] * 4
    kept = [json.loads(line) for line in (tmp_path / "chains.jsonl").read_text().splitlines()]
    assert [line["text"] for line in kept] == ["The map is …. The answer is (B)."] * 4


def test_what_the_model_does_not_take_is_refused(plugin, model):
    for options, message in (
        ({"temperature": 1}, "unknown argument 'temperature'"),
        ({"reasoning": "both"}, "unknown reasoning 'both'"),
        ({"constrained": "no"}, "constrained is True or False, not 'no'"),
    ):
        with pytest.raises(AuroraError, match=message):
            plugin.LlavaAuroraModel("nowhere", **options)
    make, _, _ = model
    two = types.SimpleNamespace(args=("Which?", {}, lambda row: image(row) * 2, 1, "hardblink", "test"))
    with pytest.raises(AuroraError, match="hardblink, question 1: holds 2 images or videos; one image is needed"):
        make().generate_until([two])


# --- with the harness -------------------------------------------------------------------------------------------------


@INSTALLED
def test_the_harness_finds_the_model():
    from lmms_eval.models import get_model

    from llava_aurora.evaluation.plugins.lmms_eval import LlavaAuroraModel

    found = [each for each in entry_points(group="lmms_eval.models") if each.name == "llava_aurora"]
    if not found:
        pytest.skip("this checkout was installed before it had the plug-in; install it again")
    assert get_model("llava_aurora") is LlavaAuroraModel


@INSTALLED
@pytest.mark.deepspeed
def test_the_harness_asks_the_model(finetuned, tasks, tmp_path):
    from lmms_eval.evaluator import simple_evaluate
    from lmms_eval.tasks import TaskManager

    from llava_aurora.evaluation.plugins.lmms_eval import LlavaAuroraModel

    chains = tmp_path / "chains.jsonl"
    options = {"max_new_tokens": 20, "batch_size": 2, "device": "cpu", "chains": str(chains)}
    model = LlavaAuroraModel(pretrained=str(finetuned[0]), **options)
    found = simple_evaluate(
        model=model,
        tasks=["hardblink"],
        task_manager=TaskManager(include_path=str(tasks), include_defaults=False),
        batch_size=2,
        bootstrap_iters=0,
        cli_args=None,
    )
    for count in (3, 4, 5):
        result = found["results"][f"hardblink_{count}points"]
        assert 0 <= result["accuracy,none"] <= 1
        assert len(found["samples"][f"hardblink_{count}points"]) == 2
    kept = [json.loads(line) for line in chains.read_text().splitlines()]
    assert len(kept) == 6
    assert all(line["answer"] in line["text"] for line in kept)


@INSTALLED
@pytest.mark.deepspeed
def test_two_processes_share_the_questions(finetuned, start, tasks, tmp_path):
    chains = tmp_path / "chains.jsonl"
    script = tmp_path / "run.py"
    script.write_text(
        "import lmms_eval.models as models\n"
        f"from {PLUGIN.rpartition('.')[0]}.lmms_manifest import manifests\n"
        "models.MODEL_REGISTRY_V2.register_manifest(manifests(), overwrite=True)\n"
        "from lmms_eval.__main__ import cli_evaluate\ncli_evaluate()\n"
    )
    arguments = f"pretrained={finetuned[0]},max_new_tokens=12,chains={chains}"
    flags = ["--model", "llava_aurora", "--model_args", arguments, "--tasks", "hardblink", "--include_path", tasks]
    output = ["--batch_size", 2, "--output_path", tmp_path / "out", "--log_samples"]
    start("torchrun", "--nproc_per_node", 2, "--master_port", free_port(), script, *flags, *output)
    kept = [[json.loads(line) for line in path.read_text().splitlines()] for path in sorted(tmp_path.glob("*.jsonl"))]
    assert [len(lines) for lines in kept] == [3, 3]
    asked = {(line["task"], line["doc_id"]) for lines in kept for line in lines}
    assert asked == {(f"hardblink_{points}points", number) for points in (3, 4, 5) for number in (0, 1)}
    (results,) = (tmp_path / "out").rglob("*_results.json")
    found = json.loads(results.read_text())["results"]
    parts = [found[f"hardblink_{points}points"]["unparsable,none"] for points in (3, 4, 5)]
    assert found["hardblink"]["unparsable,none"] == pytest.approx(sum(parts) / 3)
