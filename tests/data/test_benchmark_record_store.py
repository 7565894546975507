"""The store benchmark runs as its help says; what it measures is no matter of a test."""

import json

import pytest

SCRIPT = "scripts/benchmark_record_store.py"


@pytest.mark.slow
def test_it_measures_each_format(forked):
    run = forked(SCRIPT, "--records", 50, "--ranks", 2, "--rounds", 1)
    assert run.code == 0, run.output[-3000:]
    report = json.loads(run.output.splitlines()[-1])
    assert [row["format"] for row in report["rows"]] == ["json", "jsonl", "parquet"]
    assert {"file_mb", "written_s", "first_open_s", "open", "read", "pss", "private", "anonymous"} <= set(
        report["rows"][0]
    )


def test_no_ranks_are_a_mistake_of_the_command_line(forked):
    run = forked(SCRIPT, "--ranks", 0)
    assert run.code == 2
    assert "at least 1" in run.output
    assert "Example: python scripts/benchmark_record_store.py" in forked(SCRIPT, "--help").output
