"""The experiments' runner at its smallest size, and the flags of every variant."""

import json
import runpy
import sys
from pathlib import Path

import pytest
import yaml

from llava_aurora.demo.stages import as_arguments
from llava_aurora.errors import AuroraError
from llava_aurora.training.legacy_flags import translate

FOLDER = Path(__file__).parents[2] / "experiments"
CONTENT = yaml.safe_load((FOLDER / "variants.yaml").read_text())


@pytest.fixture(scope="module")
def runner():
    """The names that experiments/run.py defines."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        yield runpy.run_path(str(FOLDER / "run.py"))
        sys.modules.pop("report")


@pytest.fixture(scope="module")
def parser():
    from llava_aurora.training import integration
    from llava_aurora.training.command_line import flag_parser
    from llava_aurora.training.recipes import find_recipe

    integration.register()
    yield flag_parser(find_recipe(None), {})
    integration.unregister()


@pytest.fixture(scope="module")
def made(runner, forked, tmp_path_factory):
    """Two runs of the smallest size: one that writes maps, one without a chain."""

    def call(command):
        forked("-m", "llava_aurora.cli", *command)

    def train(command, *, log, description):
        script = next(number for number, word in enumerate(command) if word.endswith(".sh"))
        forked(*command[script:], ranks=int(command[command.index("--num_gpus") + 1]))

    out = tmp_path_factory.mktemp("experiments") / "out"
    runs = [runner["Run"]("full", 0), runner["Run"]("direct", 0)]
    report = runner["Experiment"](CONTENT, size="smoke", out=out, call=call, train=train).run(runs)
    return out, runs, report.read_text()


@pytest.mark.parametrize("size", CONTENT["sizes"])
@pytest.mark.parametrize("variant", CONTENT["variants"])
def test_training_takes_the_flags_and_the_curriculum_of_every_variant(variant, size, runner, parser, tmp_path):
    from llava_aurora.data.curriculum.schedule_file import read_schedule

    experiment = runner["Experiment"](CONTENT, size=size, out=tmp_path)
    arguments = as_arguments(experiment.flags(runner["Run"](variant, 1)))
    flags = parser.parse_args(translate(arguments, cuda=True, tf32=True)[0])
    for flag, value in experiment.variants[variant]["flags"].items():
        assert getattr(flags, flag) == value
    steps = flags.num_train_epochs * CONTENT["sizes"][size]["records_per_epoch"]
    steps /= flags.per_device_train_batch_size * CONTENT["sizes"][size]["ranks"] * flags.gradient_accumulation_steps
    assert json.loads(flags.lr_scheduler_kwargs)["num_decay_steps"] == pytest.approx(steps / 5, abs=2)
    path = tmp_path / "curriculum.yaml"
    path.write_text(yaml.safe_dump(experiment.curriculum(variant)))
    asked = CONTENT["sizes"][size]["records"]["tasks"]
    shares = read_schedule(str(path)).shares(0, epochs=10, counts=dict.fromkeys(asked, 10))
    assert sum(shares.values()) == pytest.approx(1)


@pytest.mark.deepspeed
@pytest.mark.slow
def test_a_result_holds_counts_commands_and_seconds(made):
    out, _, report = made
    direct, full = json.loads((out / "results.json").read_text())["runs"]
    assert [run["variant"] for run in (direct, full)] == ["direct", "full"]
    counted = full["benchmarks"]["scenes_counting"]["chain"]["all"]
    assert 0 <= counted["right"] <= counted["questions"] == 4
    assert set(direct["benchmarks"]["scenes_one_height"]) == {"title", "direct"}
    for run in (full, direct):
        assert "scripts/finetune_aurora.sh" in run["commands"]["training"]
        assert str(out) not in json.dumps(run)
        assert all(seconds > 0 for seconds in run["seconds"].values())
        assert not list((out / "runs" / f"{run['variant']}-0" / "model").glob("checkpoint-*"))
    assert "| chance |" in report
    assert "| AURORA's recipe | 0 | chain |" in report


@pytest.mark.deepspeed
@pytest.mark.slow
def test_what_is_done_is_not_done_again_and_belongs_to_its_command(made, runner):
    def never(*_, **__):
        raise AssertionError("done again")

    out, runs, report = made
    again = runner["Experiment"](CONTENT, size="smoke", out=out, call=never, train=never)
    assert again.run(runs).read_text() == report
    assert [again.state(run) for run in runs] == ["done", "done"]
    assert again.state(runner["Run"]("full", 1)) == "not begun"
    again.variants["full"]["flags"] = {"coordinate_step": False}
    with pytest.raises(AuroraError, match=r"full-0/model: .* another command"):
        again.run(runs)
    with pytest.raises(AuroraError, match=r"scenes/train: .* another command"):
        runner["Experiment"](CONTENT, size="cpu", out=out, call=never, train=never).run(runs)


def test_replaced_maps_and_the_blind_baseline_are_in_the_report(runner, tmp_path):
    share = {"value": 0.5, "low": 0.25, "high": 0.75, "count": 4}
    summary = {"questions": 4, "accuracy": share, "chance": 0.5, "blind": 0.625, "read_out": share, "has_span": 1.0}
    chain = {"summary": summary, "categories": {"2 points": summary}}
    entry = {"title": "Points", "reasonings": {"chain": chain}}
    condition = {"put_in": "random codes", "accuracy": share, "loss": share}
    tested = {"title": "Points", "verdict": {"finding": "uses its map"}, "conditions": {"random": condition}}
    called = []

    def call(command):
        called.append(command)
        out = Path(command[command.index("--out") + 1])
        out.mkdir(parents=True, exist_ok=True)
        results = {"benchmarks": dict.fromkeys(command[1].split(","), entry)}
        if command[0] == "replace-test":
            results = {**json.loads((out / "results.json").read_text()), "replacement": {command[1]: tested}}
        (out / "results.json").write_text(json.dumps(results))

    experiment = runner["Experiment"](CONTENT, size="cpu", out=tmp_path, call=call)
    trained = {"command": "x", "seconds": 1.0, "commit": "c", "resumed": False}
    experiment.evaluate(runner["Run"]("reconstruction", 3), trained=trained)
    report = experiment.report().read_text()
    assert [command[0] for command in called] == ["eval", "replace-test"]
    assert "| blind |  |  | 62.5 | 62.5 |" in report
    assert "| with the reconstruction loss | 3 | 50.0 [25.0, 75.0] | uses its map |" in report
    (run,) = json.loads((tmp_path / "results.json").read_text())["runs"]
    assert run["benchmarks"]["scenes_counting"]["chain"]["2 points"]["right"] == 2
    assert set(run["seconds"]) == {"training", "evaluation", "replacement"}
