"""The plug-in for lmms-eval. What needs the harness itself runs where it is installed beside this package."""

import json
from importlib.metadata import entry_points

import numpy as np
import pytest
import yaml
from PIL import Image

from llava_aurora.data.hardblink import write_hardblink
from llava_aurora.errors import AuroraError
from llava_aurora.evaluation.harness.lmms_tasks import image, judge, text, write_hardblink_tasks


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
    with pytest.raises(AuroraError, match="there is something already"):
        write_hardblink_tasks(tasks, tasks)


# --- with the harness -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def harness():
    return pytest.importorskip("lmms_eval.evaluator", reason="lmms-eval is not installed", exc_type=ImportError)


def test_the_harness_finds_the_model(harness):
    from lmms_eval.models import get_model

    from llava_aurora.evaluation.harness.lmms_model import LlavaAuroraModel

    found = [each for each in entry_points(group="lmms_eval.models") if each.name == "llava_aurora"]
    if not found:
        pytest.skip("this checkout was installed before it had the plug-in; install it again")
    assert get_model("llava_aurora") is LlavaAuroraModel


@pytest.mark.deepspeed
def test_the_harness_asks_the_model(harness, finetuned, tasks, tmp_path):
    from lmms_eval.tasks import TaskManager

    from llava_aurora.evaluation.harness.lmms_model import LlavaAuroraModel

    chains = tmp_path / "chains.jsonl"
    options = {"max_new_tokens": 20, "batch_size": 2, "device": "cpu", "chains": str(chains)}
    model = LlavaAuroraModel(pretrained=str(finetuned[0]), **options)
    found = harness.simple_evaluate(
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


def test_what_the_model_does_not_take_is_refused(harness):
    from llava_aurora.evaluation.harness.lmms_model import LlavaAuroraModel

    with pytest.raises(AuroraError, match="unknown argument 'temperature'"):
        LlavaAuroraModel(pretrained="nowhere", temperature=1)
    with pytest.raises(AuroraError, match="reasoning is chain or direct"):
        LlavaAuroraModel(pretrained="nowhere", reasoning="both")
