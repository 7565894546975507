"""Every benchmark runs at its smallest size, and what it compares is the same where it has to be."""

import json

import pytest

SMALL_MODEL = ("--width", 64, "--layers", 1, "--words", 600, "--frame", 28, "--batch", 2)


@pytest.fixture
def rows(forked):
    """Runs a benchmark for one round. Returns its rows by way, and all that its line of JSON holds."""

    def run(name, *flags):
        finished = forked(f"benchmarks/{name}.py", "--rounds", 1, *flags)
        measured = json.loads(finished.output.splitlines()[-1])
        assert measured["benchmark"] == name
        assert all(row["least"] <= row["times_as_fast"] <= row["largest"] for row in measured["rows"] if "than" in row)
        return measured["rows"], measured

    return run


@pytest.mark.slow
def test_training_step(rows):
    found, _ = rows("training_step", *SMALL_MODEL, "--only", "tokens", "reconstruction")
    new_rows, whole, reconstruction, _ = found
    assert new_rows["first_loss"] == pytest.approx(whole["first_loss"], abs=1e-4)
    assert whole["trained"] - new_rows["trained"] == 2 * 600 * 64  # the words' rows of both matrices
    assert whole["optimizer_bytes"] - new_rows["optimizer_bytes"] == 2 * 4 * 2 * 600 * 64
    assert all(row["peak_bytes"] > 0 for row in found)
    assert reconstruction["losses"] == pytest.approx(new_rows["losses"], abs=1e-2)


def test_packed_queries(rows):
    found, measured = rows("packed_queries", "--side", 8, "--asked", 4)
    assert [row["way"] for row in found] == ["one at a time", "batches of 16", "packed", "packed, all 64"]
    assert all(row["same_answers"] == 1 for row in found[:3])
    assert measured["fewer_tokens"] > 20


@pytest.mark.slow
def test_curriculum_epoch(rows):
    found, measured = rows("curriculum_epoch", *SMALL_MODEL, "--steps", 2, "--curves", 6)
    assert [row["way"] for row in found] == ["LLaVA", "ours: labels", "ours: + cache", "ours: + lengths"]
    assert found[0]["padding"] == found[1]["padding"]
    assert measured["largest_loss_difference"] < 1e-3


@pytest.mark.deepspeed
def test_generation(rows, finetuned_lora):
    settings = ("--questions", 3, "--batch", 2, "--max-new-tokens", 20, "--forced-tokens", 12)
    found, _ = rows("generation", "--model", finetuned_lora[0], *settings)
    assert [row["way"] for row in found if row["way"].endswith("parallel")] == [
        "one at a time, parallel",
        "batch 2, parallel",
    ]
    assert all(row["same_text"] == 1 for row in found if "parallel" not in row["way"] and "same_text" in row)
    assert [row["passes"] for row in found if "tokens" in row["way"]] == [12, 12]


def test_vqvae(rows):
    found, measured = rows("vqvae", "--size", "demo", "--maps", 4, "--batches", 2, 4)
    assert measured["perplexity"] > 4  # of 16 codes, so that equal codes say something
    assert {row["what"] for row in found} == {"encode", "decode"}
    assert all(row["same"] for row in found)


@pytest.mark.slow
def test_loader(rows):
    small = ("--images", 6, "--width", 60, "--height", 40, "--frame", 28, "--batch", 2)
    found, _ = rows("loader", *small)
    assert [(row["way"], row["workers"]) for row in found[:4]] == [
        ("LLaVA", 0),
        ("ours", 0),
        ("ours, cached", 0),
        ("LLaVA", 2),
    ]


@pytest.mark.parametrize(
    "name", ["training_step", "curriculum_epoch", "generation", "vqvae", "loader", "packed_queries"]
)
def test_help_has_an_example_and_nothing_cannot_be_measured(forked, name):
    assert f"python benchmarks/{name}.py" in forked(f"benchmarks/{name}.py", "--help").output
    refused = forked(f"benchmarks/{name}.py", "--rounds", 0, code=2)
    assert "--rounds" in refused.output
