"""The generation benchmark runs as its help says; how fast anything is is no matter of a test."""

import json

SCRIPT = "scripts/benchmark_generation.py"


def test_batches_answer_as_one_at_a_time_does(forked):
    small = ("--width", 32, "--layers", 1, "--questions", 4, "--batch", 3, "--rounds", 1)
    run = forked(SCRIPT, *small, "--max-new-tokens", 20, "--forced-tokens", 12)
    assert run.code == 0, run.output[-3000:]
    assert "4 questions, cpu" in run.output
    measured = json.loads(run.output.splitlines()[-1])
    assert measured["benchmark"] == "generation"
    ways = measured["ways"]
    assert list(ways) == [
        "one at a time",
        "batch 3",
        "batch 3, 12 tokens forced, unconstrained",
        "batch 3, 12 tokens forced, constrained",
    ]
    assert ways["batch 3"]["same_answers"] == 1
    assert ways["batch 3"]["than"] == "one at a time"
    assert [ways[way]["new_tokens"] for way in list(ways)[2:]] == [4 * 12, 4 * 12]
    assert all(way["least"] <= way["times_as_fast"] <= way["most"] for way in ways.values() if "than" in way)
    assert set(measured["left_out"]) == {"verified", "parallel"}  # random weights were not trained for them


def test_no_questions_are_a_mistake_of_the_command_line(forked):
    run = forked(SCRIPT, "--questions", 0)
    assert run.code == 2
    assert "at least 1" in run.output
    assert "Example: python scripts/benchmark_generation.py" in forked(SCRIPT, "--help").output
