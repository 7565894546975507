"""The VQ-VAE benchmark runs as its help says; how fast anything is is no matter of a test."""

import json

import pytest

SCRIPT = "scripts/benchmark_vqvae.py"


def test_every_way_gives_the_codes_and_maps_of_one_at_a_time(forked):
    small = ("--size", "smoke", "--maps", 4, "--batches", 2, 4, "--rounds", 1, "--no-compile")
    run = forked(SCRIPT, *small)
    assert run.code == 0, run.output[-3000:]
    assert "4 maps of 48 × 48" in run.output
    assert "torch.compile: left out, not asked for" in run.output
    measured = json.loads(run.output.splitlines()[-1])
    assert measured["benchmark"] == "vqvae"
    assert measured["perplexity"] > 4  # many of the 16 codes are in use, so equal codes say something
    assert {"one at a time", "batch 4", "as built, batch 4", "inference_mode, batch 2"} <= set(measured["encode"])
    assert set(measured["encode"]) == set(measured["decode"])
    assert measured["at_most_times_as_fast"]["encode"] > 1
    for way, encoded in measured["encode"].items():
        decoded = measured["decode"][way]
        assert encoded["maps_per_second"] > 0
        assert encoded["least"] <= encoded["times_as_fast"] <= encoded["most"]
        # In one round, what is so many times as fast as one at a time comes as many times as near to the bound.
        nearer = encoded["of_the_bound"] / measured["encode"]["one at a time"]["of_the_bound"]
        assert nearer == pytest.approx(encoded["times_as_fast"], rel=1e-2)
        if way.startswith("bfloat16"):
            assert not encoded["exact"]
            assert encoded["equal_codes"] > 0.8
        else:
            assert encoded["equal_codes"] == 1.0
            assert decoded["largest_difference"] <= 1e-4


def test_a_batch_that_does_not_divide_the_maps_is_a_mistake_of_the_command_line(forked):
    run = forked(SCRIPT, "--maps", 4, "--batches", 3)
    assert run.code == 2
    assert "each has to divide --maps" in run.output
    assert "Example: python scripts/benchmark_vqvae.py" in forked(SCRIPT, "--help").output
