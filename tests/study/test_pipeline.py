"""The study from scenes to report, with training and models that cost nothing; and one run as it is."""

import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from llava_aurora.data.fresh_points import MARKED_TASKS
from llava_aurora.data.tasks import task_name
from llava_aurora.errors import AuroraError
from llava_aurora.files import write_json
from llava_aurora.study import estimate, running
from llava_aurora.study.contestants import CONTESTANTS, Run
from llava_aurora.study.pipeline import Study
from llava_aurora.study.sizes import BY_COORDINATES, COUNTING, MARKED, SIZES


@pytest.fixture
def done(unlearned, out):
    study = unlearned(only=["direct", "full"], seeds=[0])
    study.run()
    return json.loads((out / "report" / "report.json").read_text()), (out / "report" / "report.md").read_text()


def shown(table):
    console = Console(width=200, file=io.StringIO())
    console.print(table)
    return console.file.getvalue()


def test_a_run_counts_what_its_model_does(done, out):
    content, _ = done
    direct, full = content["runs"]
    assert [run["contestant"]["name"] for run in (direct, full)] == ["direct", "full"]
    marked = full["benchmarks"][MARKED]
    assert set(full["benchmarks"]) == {MARKED, BY_COORDINATES, COUNTING}
    assert set(direct["benchmarks"][MARKED]) == {"title", "questions", "left_out", "digest", "direct"}
    answers = [json.loads(line) for line in (out / "runs/full-0/evaluation/answers" / f"{MARKED}.chain.jsonl").open()]
    assert sum(map(len, marked["chain"]["right"].values())) == len(answers) == marked["questions"]
    own, random = (full["replacement"][MARKED]["conditions"][name]["right"] for name in ("own", "random"))
    assert own == marked["chain"]["right"]  # all of them: its own map is put back, so it says A once more
    assert random != own
    assert full["samples"] == direct["samples"] == 32


def test_the_report_tells_what_was_not_run(done):
    content, report = done
    found = [each["finding"] for each in content["expectations"]]
    assert [finding == "not run" for finding in found] == [False, True, True, False, *[True] * 24]
    assert "| chain without the coordinate step | not run | not run |" in report
    assert "*AURORA's paper*" in report
    assert report.count("not run") > 50
    assert "## Does it use its map?" in report
    assert "## From the map to the answer" in report


def test_what_is_done_is_not_done_again(done, unlearned):
    def never(*_, **__):
        raise AssertionError("trained again")

    study = unlearned(only=["direct", "full"], seeds=[0], train=never)
    study.run()
    assert shown(study.plan()).count("done") == 2


def test_runs_of_another_folders_report_count_as_done(done, unlearned, out, tmp_path):
    def never(*_, **__):
        raise AssertionError("trained again")

    content, report = done
    there = unlearned(only=["direct", "full"], seeds=[0], out=tmp_path / "there", train=never)
    assert there.take_over(out / "report" / "report.json") == ["direct-0", "full-0"]
    assert there.take_over(out / "report" / "report.json") == []
    assert there.run().read_text() == report
    assert there.results() == {run["contestant"]["name"]: [run] for run in content["runs"]}


def test_a_result_from_before_a_field_of_contestants_is_of_its_default(done, unlearned, tmp_path):
    content, _ = done
    result = content["runs"][1]
    assert result["contestant"].pop("practises") is False
    study = unlearned(only=["full"], seeds=[0], out=tmp_path)
    path = study.folder(study.wanted[0]) / "result.json"
    write_json(path, result)
    assert study.results() == {"full": [result]}
    write_json(path, {**result, "contestant": {**result["contestant"], "practises": True}})
    with pytest.raises(AuroraError, match="holds a run of other flags"):
        study.results()


def test_practice_is_many_points_anywhere_and_maps_as_text(unlearned, out):
    unlearned(only=["map_practice"], seeds=[0]).run()
    records = json.loads((out / "work" / "practice" / "train.json").read_text())
    by_task: dict[str, list] = {}
    for record in records:
        by_task.setdefault(task_name(record), []).append(record)
    assert {len(record["aurora"]["points"]) for record in by_task["depth_reading"]} == {12}
    assert all(record["aurora"]["any_points"] for record in by_task["depth_reading"])
    assert not any("image" in record for record in by_task["depth_chain_from_map"])
    assert all(record["aurora"]["one_height"] for record in by_task["depth_chain_from_map"])
    assert not (out / "work" / "readings").exists()


def test_reading_first_has_many_points_anywhere_of_maps_as_text(unlearned, out):
    unlearned(only=["map_first"], seeds=[0]).run()
    records = json.loads((out / "work" / "lookups" / "train.json").read_text())
    read = [record for record in records if task_name(record) == "depth_reading_from_map"]
    assert {len(record["aurora"]["points"]) for record in read} == {12}
    assert not any("image" in record for record in read)
    assert all(record["aurora"]["any_points"] for record in read)


def test_a_report_that_does_not_fit_is_not_taken_over(done, unlearned, out, tmp_path):
    content, _ = done
    study = unlearned(only=["direct"], seeds=[0], out=tmp_path / "there")
    changed = content["runs"][1]["contestant"] | {"flags": {"fresh_points": True}}
    path = tmp_path / "report.json"
    for wrong, message in (
        ([], "report.json: is no report.json of a study"),
        ({**content, "size": {**content["size"], "epochs": 3}}, "report.json: is of other sizes than --size smoke"),
        ({**content, "runs": [{**content["runs"][1], "contestant": changed}]}, "full was trained with other flags"),
        ({**content, "runs": [content["runs"][0], {"seed": 0}]}, "holds something that is no result of a run"),
    ):
        path.write_text(json.dumps(wrong))
        with pytest.raises(AuroraError, match=message):
            study.take_over(path)
    assert study.results() == {}


def test_a_training_that_was_stopped_goes_on(done, unlearned, trained, out, monkeypatch):
    commands = []
    monkeypatch.setattr(running, "commit", lambda: f"commit {len(commands)}")  # the checkout moves on in each training

    def stopped(command, *, log, description):
        commands.append(command)
        trained(command, log=log, description=description)
        checkpoint = out / "runs" / "constant-0" / "model" / "checkpoint-3"
        for name in ("aurora_run.json", "trainer_state.json"):
            write_json(checkpoint / name, {})
        if len(commands) == 1:
            raise AuroraError("stopped")

    study = unlearned(only=["constant"], seeds=[0], train=stopped)
    with pytest.raises(AuroraError, match="stopped"):
        study.run()
    assert "goes on from checkpoint-3" in shown(study.plan())
    study.run()
    assert "--resume_from_checkpoint" not in commands[0]
    assert commands[1][-2:] == ["--resume_from_checkpoint", "True"]
    (result,) = study.results()["constant"]
    assert result["resumed"]
    assert result["trained_at"] == "commit 1"  # where its last start began, not where it ended
    assert not list((out / "runs" / "constant-0" / "model").glob("checkpoint-*"))


def test_a_folder_of_other_sizes_or_flags_is_refused(done, unlearned, out, monkeypatch):
    with pytest.raises(AuroraError, match="holds a study of other sizes"):
        unlearned(size="cpu").run()
    changed = Run(CONTESTANTS["no_coordinates"], 0).contestant
    object.__setattr__(changed, "name", "full")
    monkeypatch.setitem(CONTESTANTS, "full", changed)
    try:
        with pytest.raises(AuroraError, match="full-0: holds a run of other flags"):
            unlearned(only=["full"], seeds=[0]).run()
    finally:
        object.__setattr__(changed, "name", "no_coordinates")


def test_names_that_do_not_exist_are_refused(out):
    with pytest.raises(AuroraError, match="--size large: there are: cpu, gpu, smoke"):
        Study(size="large", out=out)
    with pytest.raises(AuroraError, match="--only best: no contestant"):
        Study(size="smoke", out=out, only=["best"])


def test_few_scenes_are_asked_about_many_times(done, out):
    records = json.loads((out / "work" / "records" / "train.json").read_text())
    chains = [record for record in records if task_name(record) == "depth_chain"]
    assert {record["image"].split("/")[0] for record in chains} == {"questions_0", "questions_1"}
    by_scene: dict[str, set[str]] = {}
    for record in chains:
        by_scene.setdefault(record["id"].split("/")[1], set()).add(json.dumps(record["aurora"]["points"]))
    assert max(map(len, by_scene.values())) == 2  # other points at each draw
    counted = {record["id"].split("/")[1] for record in records if task_name(record) == "counting_direct"}
    assert counted == {"000000", "000002"}
    assert all((out / "work" / "scenes" / record["image"]).is_file() for record in records)
    assert len({record["id"] for record in records}) == len(records)


def test_what_is_asked_about_lies_at_one_height_and_what_is_read_anywhere(unlearned, out):
    study = unlearned(only=["readings"], seeds=[0])
    study.run()
    records = json.loads((out / "work" / "readings" / "train.json").read_text())
    kinds: dict[str, set[bool]] = {}
    for record in records:
        if "points" in record["aurora"]:
            kinds.setdefault(task_name(record), set()).add(record["aurora"].get("one_height", False))
    assert kinds["depth_reading"] == {False}
    assert kinds["depth_chain_from_coordinates"] == kinds["depth_direct"] == {True}


def test_where_no_point_is_marked_nothing_is_asked_about_marks(first_letter, trained, tmp_path, monkeypatch):
    monkeypatch.setitem(SIZES, "told", replace(SIZES["smoke"], marked=False, located=0.0, locating=0.0))
    monkeypatch.setattr(running, "LoadedAsker", lambda model, settings: first_letter(model, study=tmp_path))
    study = Study(size="told", out=tmp_path, only=["full", "no_coordinates"], seeds=[0], train=trained)
    report = study.run().read_text()
    assert [run.name for run in study.wanted] == ["full-0"]
    records = json.loads((tmp_path / "work" / "records" / "train.json").read_text())
    assert not {task_name(record) for record in records} & set(MARKED_TASKS)
    (result,) = study.results()["full"]
    assert set(result["benchmarks"]) == {BY_COORDINATES, COUNTING}
    assert "Relative depth: points by coordinates" in report
    assert "marked points" not in report


def test_the_plan_measures_what_it_does_not_know(unlearned, trained, first_letter, out, monkeypatch):
    monkeypatch.setattr(estimate, "LoadedAsker", lambda model, settings: first_letter(model, study=out))

    def short(command, *, log, description):
        assert command[command.index("--max_steps") + 1] == str(estimate.STEPS)
        trained(command, log=log, description=description)
        state = {"log_history": [{"train_runtime": 2.0}]}
        write_json(out / "work" / "measured" / "model" / "trainer_state.json", state)

    study = unlearned(only=["chain"], seeds=[0], train=short)
    assert "Not measured yet" in shown(unlearned(only=["chain"], seeds=[0], out=out.parent / "empty").plan())
    assert "?" not in shown(study.plan(measure=True))
    measured = json.loads((out / "measured.json").read_text())
    assert measured["samples_per_second"] == estimate.STEPS * 8 / 2
    found = estimate.estimate(out, study.runner, results={}, measure=False, seed=0)
    assert found.training == pytest.approx(measured["starting"] + 32 / measured["samples_per_second"])
    assert found.asking(CONTESTANTS["direct"]) < found.asking(CONTESTANTS["full"])


@pytest.mark.deepspeed
@pytest.mark.slow
def test_one_run_as_it_is(forked, tmp_path):
    """Under DeepSpeed: plain-text coordinates, whose model has other tokens than the rest."""

    def train(command, *, log, description):
        script = next(number for number, word in enumerate(command) if word.endswith(".sh"))
        run = forked(*command[script:], ranks=int(command[command.index("--num_gpus") + 1]))
        assert run.code == 0, run.output[-3000:]

    study = Study(size="smoke", out=tmp_path, only=["plain_text"], seeds=[0], train=train)
    report = study.run().read_text()
    (result,) = study.results()["plain_text"]
    assert "--plain_coordinates True" in result["training_command"]
    assert result["benchmarks"][COUNTING]["chain"]["summary"]["questions"] == 4
    assert not list((tmp_path / "runs" / "plain_text-0" / "model").glob("checkpoint-*"))

    script = ("scripts/study.py", "--size", "smoke", "--out", tmp_path, "--only", "plain_text", "--seeds", 0)
    assert "done" in forked(*script, "--plan").output
    again = forked(*script)
    assert again.code == 0, again.output[-3000:]
    assert (tmp_path / "report" / "report.md").read_text() == report
