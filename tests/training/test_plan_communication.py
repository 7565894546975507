"""What each GPU sends in a step: figures worked out by hand, and what changes with windows and thresholds."""

import json
from dataclasses import replace

import pytest

from llava_aurora.training.model_sizes import SIZES, LanguageSizes, LlavaSizes, Run, VisionSizes, count
from llava_aurora.training.plan import Zero, shipped
from llava_aurora.training.plan_communication import communication, gathers, trace

# Two layers of 4·16 + 3·32 = 160 in linear maps and 8 in norms; matrices of 10 + 2 rows; a projector of 4·2 + 4.
TINY = LlavaSizes(
    name="tiny",
    language=LanguageSizes(hidden=4, intermediate=8, layers=2, heads=1, kv_heads=1, vocabulary=10),
    vision=VisionSizes(hidden=2, intermediate=4, layers=1, image=4, patch=2),
    projector_layers=1,
)
TRAINED = 2 * 168 + 4 + 2 * 48 + 12  # 448
# Class 2, patches 24, places 10, norms around the layer 8, four maps of 6, norms 8, and 12 and 10.
TOWER = 2 + 24 + 10 + 8 + 4 * 6 + 8 + 12 + 10
# Every weight is released at once, and nothing is fetched early or kept whole.
GREEDY = Zero(name="", stage=3, persistence=0, prefetch_bucket=0, max_reuse=0)


def gathered(run: Run, zero: Zero) -> int:
    return sum(numel * times for numel, times in gathers(run, zero).items())


def test_without_zero_gradients_are_reduced_to_all():
    run = Run(model=TINY, mode="full", new_tokens=2, element=2, gpus=4)
    sent = communication(run, Zero(name="", stage=0))
    assert count(run.trained) == TRAINED
    assert (sent.all_reduce, sent.reduce_scatter, sent.all_gather) == (2 * 2 * TRAINED * 3 // 4, 0, 0)


@pytest.mark.parametrize("stage", [1, 2])
def test_zero_1_and_2_reduce_all_gradients_to_all_and_gather_all_weights(stage):
    """448 elements are a multiple of 2·4, so that nothing is added to the row."""
    run = Run(model=TINY, mode="full", new_tokens=2, element=2, gpus=4)
    sent = communication(run, Zero(name="", stage=stage))
    assert (sent.all_reduce, sent.reduce_scatter, sent.all_gather) == (1344, 0, 672)


def test_padding_is_sent_too():
    """12 elements are 4 on each of 3 GPUs, in two times 2; ZeRO-3 rounds up one weight after the other."""
    run = Run(model=TINY, mode="projector", new_tokens=0, element=4, gpus=3)
    assert count(run.trained) == 12
    assert communication(run, Zero(name="", stage=2)).all_gather == 4 * 4 * 2
    assert communication(run, GREEDY).reduce_scatter == 4 * (3 + 2) * 2  # 8 and 4 elements: 3 and 2 a rank


@pytest.mark.parametrize(("checkpointing", "times"), [(False, 2), (True, 3)])
def test_zero_3_gathers_for_each_pass_of_a_layer(checkpointing, times):
    """Once forward and once backward, and once more to recompute; the tower goes forward alone."""
    run = Run(model=TINY, mode="full", new_tokens=2, element=2, gpus=2, checkpointing=checkpointing)
    # The head goes backward right after it went forward, and is released in between.
    assert gathered(run, GREEDY) == TOWER + times * 2 * 168 + 2 * (4 + 2 * 48 + 12)
    sent = communication(run, GREEDY)
    assert sent.all_gather == 2 * gathered(run, GREEDY) // 2  # all of it is even
    assert (sent.reduce_scatter, sent.all_reduce) == (2 * TRAINED // 2, 0)


def test_under_lora_frozen_weights_are_gathered_and_only_trained_ones_reduced():
    run = Run(model=TINY, mode="lora", lora_r=2, new_tokens=2, element=2, gpus=2, checkpointing=False)
    lora = 2 * (4 * 2 * (4 + 4) + 3 * 2 * (4 + 8))
    assert count(run.trained) == lora + 2 * 8 + 12
    # The frozen embedding's output has no gradient: its 40 are gathered once.
    assert gathered(run, GREEDY) == TOWER + 40 + 2 * (2 * 168 + lora + 4 + 40 + 2 * 8 + 12)
    assert communication(run, GREEDY).reduce_scatter == 2 * count(run.trained) // 2


def test_small_weights_are_gathered_once_after_the_step():
    run = Run(model=TINY, mode="full", new_tokens=2, checkpointing=False)
    all_small = gathers(run, replace(GREEDY, persistence=10**6))
    assert all_small.total() == len({name for module in trace(run) for name, _ in module.weights})
    # What has 16 elements and less: norms, q, k, v, o, projector, and all of the tower but the patches.
    small = TOWER - 24 + 2 * (8 + 64) + 4 + 12
    assert gathered(run, replace(GREEDY, persistence=16)) == small + 24 + 2 * (2 * 96 + 2 * 48)


def test_what_is_needed_again_soon_is_not_gathered_again():
    run = Run(model=TINY, mode="full", new_tokens=2)
    everything = TRAINED + TOWER
    assert gathered(run, replace(GREEDY, max_reuse=10**6)) == everything
    windows = [gathered(run, replace(GREEDY, max_reuse=reuse)) for reuse in (0, 50, 200, 400, 800)]
    assert windows == sorted(windows, reverse=True)
    # 48 of the head and 4 of the norm are kept at the turn: between head and head there is nothing.
    assert windows[0] - gathered(run, replace(GREEDY, max_reuse=1)) >= 48


def test_a_layer_wider_than_the_window_is_gathered_a_third_time():
    """Of Yi-34B's layers, 558 M elements each, only the queries are further from their backward pass than 10⁹.

    Fetching ahead finds most of them needed again, so that they are kept all the same.
    """
    run = Run(model=SIZES["34b"], mode="full", new_tokens=0)
    for ahead, times in ((0, 60), (50_000_000, 10)):
        zero = replace(shipped(7168)[3], prefetch_bucket=ahead)
        recomputed, kept = (gathered(replace(run, checkpointing=on), zero) for on in (True, False))
        assert (recomputed - kept) / 7168**2 == pytest.approx(times, abs=3)


def test_every_weight_is_in_the_trace():
    for mode in ("full", "lora", "projector"):
        for sizes in (TINY, *SIZES.values()):
            run = Run(model=sizes, mode=mode)
            shapes = dict(weight for module in trace(run) for weight in module.weights)
            assert sum(shapes.values()) == count(run.trained) + count(run.frozen)


@pytest.mark.parametrize("model", SIZES)
def test_at_scale(model):
    """The ZeRO paper, sec. 7: three times the weights for ZeRO-3; DeepSpeed's ZeRO-2 sends as much, not two times."""
    run = Run(model=SIZES[model], mode="full", gpus=512)
    ways = shipped(run.model.language.hidden)
    weights = run.element * count(run.trained)
    none, one, two, three, offload = (communication(run, zero).total / weights for zero in ways)
    assert (none, one, two) == pytest.approx((2, 3, 3), rel=0.01)
    assert 2.7 < three < 3.1
    assert offload == pytest.approx(three, rel=0.02)
    sent = [communication(replace(run, gpus=gpus), ways[3]).total for gpus in (1, 2, 8, 64, 512)]
    assert sent[0] == 0
    assert sent == sorted(sent)


# --- The command ------------------------------------------------------------------------------------------------------


def test_the_command_shows_models_and_numbers_of_gpus(start):
    command = ["llava-aurora", "plan", "--model", "7b,13b,34b", "--gpus", "8,64,512", "--mode", "full"]
    shown = start(*command, "--bandwidth", 25)
    assert shown.code == 0, shown.output
    for part in ("7b: 7.06 billion", "13b: 13.35 billion", "34b: 34.75 billion", "512", "sent", "at 25 GB/s", "180.9"):
        assert part in shown.output
    records = json.loads(start(*command, "--json").output)
    assert len(records) == 3 * 3 * 5
    found = next(r for r in records if (r["model"], r["way"], r["gpus"]) == ("34b", "ZeRO-2", 8))
    run = Run(model=SIZES["34b"], mode="full", gpus=8)
    assert found["sent"]["total"] == communication(run, shipped(7168)[2]).total


@pytest.mark.parametrize(("gpus", "message"), [("many", "neither a number"), ("8,0", "at least 1")])
def test_numbers_of_gpus_are_checked(start, gpus, message):
    shown = start("llava-aurora", "plan", "--gpus", gpus)
    assert shown.code == 1
    assert f"--gpus {gpus}: {message}" in shown.output
