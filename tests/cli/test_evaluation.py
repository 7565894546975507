"""`eval`, `replace-test` and `compare` as a user runs them."""

import json
import re
import shutil

import numpy as np
import pytest
import typer
from command import llava_aurora

from llava_aurora import load_pretrained_model
from llava_aurora.cli.__main__ import app
from llava_aurora.data.sources.scenes.scene import SceneConfig
from llava_aurora.data.sources.scenes.scene_folder import write_scenes
from llava_aurora.evaluation.benchmarks.registry import BENCHMARKS
from llava_aurora.files import read_json

pytestmark = pytest.mark.deepspeed


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes") / "scenes"
    write_scenes(out=folder, count=4, seed=5, config=SceneConfig(frame=56, shadows=False, antialias=False))
    return folder


@pytest.fixture
def run(finetuned, scenes):
    def invoke(command, task, out, *more):
        about = (task, "--model", finetuned[0], "--data", scenes, "--out", out, "--device", "cpu")
        done = llava_aurora(command, *about, "--max-new-tokens", 30, *more)
        return done.exit_code, done.output, done.exception

    return invoke


@pytest.fixture(scope="module")
def evaluated(finetuned, scenes, tmp_path_factory):
    out = tmp_path_factory.mktemp("evaluated") / "eval"
    options = ("--data", scenes, "--out", out, "--max-new-tokens", 30, "--pictures", 1)
    done = llava_aurora("eval", "scenes_depth", "--model", finetuned[0], *options)
    assert done.exit_code == 0, done.output
    return out, done.output


def lines(path):
    return {each["id"]: each["ids"] for each in map(json.loads, path.read_text().splitlines())}


@pytest.mark.parametrize("command", ["eval", "replace-test"])
def test_the_help_names_every_benchmark(command):
    (task,) = [param for param in typer.main.get_command(app).commands[command].params if param.name == "tasks"]
    named = re.findall(r"\w+", task.help)
    assert [name for name in BENCHMARKS if name not in named] == []


def test_an_evaluation_ends_in_numbers_and_a_report(evaluated):
    out, output = evaluated
    asked = read_json(out / "results.json", what="results")["benchmarks"]["scenes_depth"]
    count = asked["questions"]
    assert "Ray-cast scenes, marked points, chain: " in output
    assert f"% of {count} right" in output
    assert output.splitlines()[-1] == f"report: {out / 'report.html'}"
    assert {path.name for path in out.iterdir()} >= {"evaluation.json", "answers", "report.md", "pictures"}
    for reasoning in ("chain", "direct"):
        assert len((out / "answers" / f"scenes_depth.{reasoning}.jsonl").read_text().splitlines()) == count


def test_two_processes_write_what_one_writes(evaluated, finetuned, scenes, forked, tmp_path):
    """Answers agree to the letter, whoever gave them and beside whatever in a batch."""
    options = ("--data", scenes, "--out", tmp_path / "two", "--max-new-tokens", 30, "--pictures", 1)
    command = ("-m", "llava_aurora.cli", "eval", "scenes_depth", "--model", finetuned[0], *options, "--device", "cpu")
    done = forked(*command, ranks=2)
    for reasoning in ("chain", "direct"):
        name = f"scenes_depth.{reasoning}.jsonl"
        assert (tmp_path / "two" / "answers" / name).read_text() == (evaluated[0] / "answers" / name).read_text()
    assert len(list((tmp_path / "two" / "answers").iterdir())) == 2
    assert done.output.count("report: ") == 1


def test_verified_decoding_gives_the_same_answers_and_is_part_of_the_evaluation(evaluated, run, tmp_path):
    some = ("--limit", 6, "--decoding", "verified", "--reasoning", "chain", "--pictures", 0)
    code, output, _ = run("eval", "scenes_depth", tmp_path / "verified", *some)
    assert code == 0, output
    name = "answers/scenes_depth.chain.jsonl"
    found, greedy = (lines(folder / name) for folder in (tmp_path / "verified", evaluated[0]))
    assert len(found) == 6
    assert found == {id: greedy[id] for id in found}
    assert read_json(tmp_path / "verified" / "evaluation.json", what="header")["asked"]["decoding"] == "verified"


def test_a_model_compared_with_itself_differs_in_nothing(evaluated):
    done = llava_aurora("compare", evaluated[0], evaluated[0])
    assert done.exit_code == 0
    assert done.output.count("Ray-cast scenes") == done.output.count("  0.0 [0.0, 0.0] points: second minus first") == 2
    done = llava_aurora("compare", evaluated[0], evaluated[0], "--json")
    assert [each["paired"]["p_value"] for each in json.loads(done.output)["comparisons"]] == [1, 1]


def test_maps_are_replaced_in_the_chains_of_an_evaluation(evaluated, finetuned, run, tmp_path):
    tokenizer, model, *_ = load_pretrained_model(str(finetuned[0]))
    depth, copy = model.perception.kinds["depth"].family, tmp_path / "copy"
    shutil.copytree(evaluated[0], copy)
    path, rng = copy / "answers" / "scenes_depth.chain.jsonl", np.random.default_rng(0)
    chains = {}
    for id in lines(path):  # as if the model had written a map in each
        text = f"The depth map is {depth.text(rng.integers(depth.size, size=9))}"
        chains[id] = tokenizer(text, add_special_tokens=False).input_ids
    content = [{"id": id, "text": tokenizer.decode(ids), "ids": ids, "finished": True} for id, ids in chains.items()]
    path.write_text("".join(json.dumps(each) + "\n" for each in content))
    code, output, _ = run("replace-test", "scenes_depth", copy)
    assert code == 0, output
    assert f"cannot be told. {len(chains)} chains are too few" in output
    found = read_json(copy / "results.json", what="results")["replacement"]["scenes_depth"]
    assert found["chains"] == len(chains)
    made = ["own", "true", "random", "constant", "first", "other", "shuffled", "empty"]
    assert list(found["conditions"])[: len(made)] == made
    own, constant = (lines(copy / "answers" / f"scenes_depth.chain-{name}.jsonl") for name in ("own", "constant"))
    zeros = model.perception.ids.ids(depth, [0] * 9)
    for id, ids in chains.items():
        assert own[id][: len(ids)] == ids
        assert constant[id][: len(ids)] == ids[:-11] + zeros


def test_what_is_wrong_is_one_line(run, evaluated, tmp_path):
    for arguments, message in (
        (("eval", "blink", tmp_path), "unknown benchmark 'blink'"),
        (("eval", "hardblink", tmp_path), "holds no questions/blink_"),
        (("eval", "scenes_depth", tmp_path, "--reasoning", "none"), "unknown reasoning 'none'"),
        (("eval", "scenes_depth", tmp_path, "--device", "tpu"), "--device tpu: not usable here"),
        (("replace-test", "scenes_counting", tmp_path), "answers of counting do not depend"),
        (
            ("eval", "scenes_depth", evaluated[0], "--max-new-tokens", 31),
            "holds answers with max_new_tokens 30, not 31",
        ),
    ):
        code, _, error = run(*arguments)
        assert code == 1
        assert message in str(error)


def test_a_model_plays_ten_steps_beside_the_driver_and_chance(finetuned, tmp_path):
    pytest.importorskip("gymnasium")
    pytest.importorskip("Box2D")
    options = ("--out", tmp_path / "eval", "--rounds", 2, "--limit", 10, "--device", "cpu", "--model", finetuned[0])
    done = llava_aurora("eval", "games", *options, "--gif", tmp_path / "round.gif", catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert [line.split(":")[0] for line in done.stdout.splitlines()[:-1]] == ["model", "scripted driver", "random"]
    assert (tmp_path / "round.gif").read_bytes().startswith(b"GIF89a")
    kept = (tmp_path / "eval" / "games.jsonl").read_text()
    assert llava_aurora("eval", "games", *options).stdout == done.stdout
    assert (tmp_path / "eval" / "games.jsonl").read_text() == kept


def test_a_gif_is_of_games_only(tmp_path):
    said = llava_aurora("eval", "scenes", "--out", tmp_path / "eval", "--gif", "round.gif").exception
    assert str(said) == "--gif round.gif: only `llava-aurora eval games` draws one; leave it out"
    said = llava_aurora("eval", "scenes,games", "--out", tmp_path / "eval").exception
    assert "games are played alone" in str(said)
    said = llava_aurora("eval", "games", "--out", tmp_path / "eval", "--gif", "round.png").exception
    assert ".gif" in str(said) or "[games]" in str(said)
