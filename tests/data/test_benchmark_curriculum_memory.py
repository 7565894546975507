"""The memory benchmark runs as its help says; what it measures is no matter of a test."""

import json

import pytest

SCRIPT = "scripts/benchmark_curriculum_memory.py"


@pytest.mark.slow
def test_it_measures_each_way_of_holding_records(forked):
    run = forked(SCRIPT, "--records", 400, "--ranks", 2, "--epochs", 4)
    assert run.code == 0, run.output[-3000:]
    report = json.loads(run.output.splitlines()[-1])
    assert report["ranks"] == 2
    assert len(report["rows"]) == 3
    assert all({"what", "json_mb", "pss", "private", "anonymous"} == set(row) for row in report["rows"])


def test_too_few_records_are_a_mistake_of_the_command_line(forked):
    run = forked(SCRIPT, "--records", 10)
    assert run.code == 2
    assert "--records at least 100 an epoch" in run.output
    assert "Example: python scripts/benchmark_curriculum_memory.py" in forked(SCRIPT, "--help").output
