"""The benchmarks of training run as their help says; how fast anything is is no matter of a test."""

import json

import pytest

TINY = ("--width", 64, "--layers", 1, "--words", 600, "--frame", 28, "--batch", 2, "--rounds", 1)


@pytest.mark.slow
def test_a_step_is_compared_with_the_same_step_of_llava(forked):
    run = forked("scripts/benchmark_training_step.py", *TINY)
    assert run.code == 0, run.output[-3000:]
    compared = json.loads(run.output.splitlines()[-1])["comparisons"]
    assert list(compared) == ["off", "tokens", "reconstruction"]
    for name, result in compared.items():
        ours, other = result["ways"].values()
        # Flags off, the same model learns the same; with tokens only the first step is from the same weights.
        steps = None if name == "off" else 1
        assert ours["first_losses"][:steps] == pytest.approx(other["first_losses"][:steps], abs=1e-4)
        assert ours["peak_bytes"] > 0
        # With flags off only logits without a label are saved; trained matrices of the words cost more than rows.
        assert 0 < ours["flops_a_step"] <= other["flops_a_step"] or name == "reconstruction"
    rows, whole = compared["tokens"]["ways"].values()
    assert whole["trained"] - rows["trained"] == 2 * 600 * 64  # the words' rows of both matrices
    assert whole["optimizer_bytes"] - rows["optimizer_bytes"] == 2 * 4 * 2 * 600 * 64


@pytest.mark.slow
def test_an_epoch_of_a_curriculum_has_the_losses_of_llavas_loop(forked):
    run = forked("scripts/benchmark_curriculum_epoch.py", *TINY, "--steps", 2, "--curves", 6)
    assert run.code == 0, run.output[-3000:]
    report = json.loads(run.output.splitlines()[-1])
    assert [row["loop"] for row in report["loops"]] == ["LLaVA", "ours: labels", "ours: + cache", "ours: + lengths"]
    assert report["largest_loss_difference"] < 1e-3
    padding = {row["loop"]: row["padding"] for row in report["loops"]}
    assert padding["LLaVA"] == padding["ours: labels"]


@pytest.mark.parametrize("script", ["benchmark_training_step", "benchmark_curriculum_epoch"])
def test_rounds_of_nothing_are_a_mistake_of_the_command_line(forked, script):
    run = forked(f"scripts/{script}.py", "--rounds", 0)
    assert run.code == 2
    assert "at least 1" in run.output
