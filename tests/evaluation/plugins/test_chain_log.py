"""The log of chains: a line each, append-safe, one file a process."""

import json

import pytest
from PIL import Image

from llava_aurora.errors import AuroraError
from llava_aurora.evaluation.plugins.chain_log import ChainLog
from llava_aurora.generation.result import Result, Timings


@pytest.fixture
def result():
    return Result(
        text="1. a cup\nThe answer is 1.",
        ids=(1, 2, 3),
        finished=True,
        question="How many cups – 杯 – are there?",
        reasoning="chain",
        image=Image.new("RGB", (8, 8)),
        timings=Timings(preparing=1.0, generating=2.0, tokens=8, forward_passes=8),
        token_log_probabilities=None,
        perception=None,
        transform=None,
    )


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_line_holds_who_was_asked_what_and_all_that_was_written(tmp_path, result):
    log = ChainLog(tmp_path / "new" / "chains.jsonl", model="mine")
    log.append(result, dataset="CV-Bench", images=["a.png"])
    (line,) = lines(log.path)
    asked = {"model": "mine", "dataset": "CV-Bench", "images": ["a.png"]}
    assert line == {**asked, **json.loads(json.dumps(result.to_json()))}
    assert line["text"] == result.text


def test_a_second_run_goes_on_behind_the_first_and_drops_a_line_that_was_cut_off(tmp_path, result):
    path = tmp_path / "chains.jsonl"
    ChainLog(path, model="mine").append(result, dataset="first")
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:-9])
    assert ChainLog(path, model="mine").path.read_bytes() == whole
    ChainLog(path, model="mine").append(result, dataset="second")
    assert [line["dataset"] for line in lines(path)] == ["first", "second"]


def test_each_process_has_a_file_of_its_own(tmp_path, result):
    for process in range(3):
        ChainLog(tmp_path / "chains.jsonl", model="mine", process=process).append(result)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["chains.1.jsonl", "chains.2.jsonl", "chains.jsonl"]


def test_a_file_of_something_else_is_left_alone(tmp_path):
    path = tmp_path / "notes.txt"
    for content in ("milk, bread", '{"model": "mine", "loss": 0.5}'):
        path.write_text(content)
        with pytest.raises(AuroraError, match=r"notes\.txt: line 1 is no line of a log of chains"):
            ChainLog(path, model="mine")
        assert path.read_text() == content
    with pytest.raises(AuroraError, match="not written"):
        ChainLog(path / "chains.jsonl", model="mine")
