"""The benchmark of decoding in few passes runs as its help says; what it measures is no matter of a test."""

import json

import pytest

pytestmark = pytest.mark.deepspeed


def test_it_prints_a_table_for_each_batch_and_one_line_of_json(finetuned_lora, workshop, forked):
    run = forked(
        "scripts/benchmark_span_decoding.py",
        *("--model", finetuned_lora[0], "--records", workshop.records, "--images", workshop.images),
        *("--task", "depth_chain", "--count", 2, "--batches", 1, 2, "--rounds", 1, "--max-new-tokens", 30),
    )
    assert run.code == 0, run.output[-3000:]
    assert "2 answers, batch 1" in run.output
    assert "2 answers, batch 2" in run.output
    measured = json.loads(run.output.splitlines()[-1])
    assert [result["batch"] for result in measured["results"]] == [1, 2]
    assert measured["results"][0]["ways"]["verified"]["same_text"] == 1.0
