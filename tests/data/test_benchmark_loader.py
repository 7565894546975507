"""The loader benchmark runs as its help says; what it measures is no matter of a test."""

import json

import pytest

SCRIPT = "scripts/benchmark_loader.py"
SMALL = ("--images", 6, "--rounds", 1, "--width", 60, "--height", 40, "--frame", 28, "--batch", 2)


@pytest.mark.slow
def test_it_compares_three_datasets_with_and_without_workers(forked):
    run = forked(SCRIPT, *SMALL, "--profile")
    assert run.code == 0, run.output[-3000:]
    report = json.loads(run.output.splitlines()[-1])
    assert [row["workers"] for row in report["rows"]] == [0, 2]
    for row in report["rows"]:
        assert all(row[name] > 0 for name in ("LLaVA", "ours", "ours, cached"))
        assert row["LLaVA, ratio"] == 1
    assert report["cache_kb_an_image"] == pytest.approx(28 * 28 * 3 / 1000, abs=0.1)
    assert len(report["milliseconds"]) == 9


def test_sizes_of_nothing_are_a_mistake_of_the_command_line(forked):
    run = forked(SCRIPT, "--rounds", 0)
    assert run.code == 2
    assert "at least 1" in run.output
    assert "Example: python scripts/benchmark_loader.py" in forked(SCRIPT, "--help").output
