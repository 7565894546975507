"""What DeepSpeed sends and holds on two ranks is what the plan says: the benchmark at a tiny size."""

import json
import sys

import pytest

pytestmark = pytest.mark.deepspeed

SCRIPT = "scripts/benchmark_communication.py"


@pytest.fixture(scope="module")
def measured(start):
    run = start(sys.executable, SCRIPT, "--ranks", 2, "--layers", 2, "--steps", 2, "--checkpointing", "on")
    assert run.code == 0, run.output[-3000:]
    assert "MB of rank 0" in run.output
    return {(row["stage"], row["mode"]): row for row in json.loads(run.output.splitlines()[-1])["rows"]}


@pytest.mark.parametrize(("stage", "mode"), [(2, "full"), (2, "lora"), (3, "full"), (3, "lora")])
def test_what_is_sent_is_planned_to_the_byte(stage, mode, measured):
    row = measured[stage, mode]
    assert row["steps_alike"]
    assert row["unplanned_bytes"] == 0
    measured, planned = row["measured"], row["planned"]
    assert measured["sent"] > 0
    for name in ("all_reduce", "reduce_scatter", "all_gather", "parameters", "frozen_whole"):
        assert measured[name] == planned[name], name
    assert measured["optimizer"] - planned["optimizer"] == 4  # Adam counts its steps in a tensor
    assert (measured["frozen_whole"] > 0) == ((stage, mode) == (3, "lora"))


def test_too_few_ranks_are_a_mistake_of_the_command_line(start):
    run = start(sys.executable, SCRIPT, "--ranks", 1)
    assert run.code == 2
    assert "at least 2" in run.output
    assert "python scripts/benchmark_communication.py --ranks 2" in start(sys.executable, SCRIPT, "--help").output
