"""The loss told apart by what was to be said, against a loop over the tokens."""

import math

import pytest
import torch

from llava_aurora.model.loss_meter import LossMeter

RANGES = {"depth": range(10, 14), "box": range(14, 20)}


def by_hand(losses: torch.Tensor, targets: torch.Tensor) -> dict[str, float]:
    values: dict[str, list[float]] = {}
    for loss, target in zip(losses.tolist(), targets.tolist(), strict=True):
        name = next((name for name, ids in RANGES.items() if target in ids), "text")
        values.setdefault(name, []).append(loss)
    return {name: sum(parts) / len(parts) for name, parts in values.items()}


def batch(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(24, generator=generator), torch.randint(0, 20, (24,), generator=generator)


def test_parts_are_the_means_over_their_tokens():
    parts = LossMeter(id_ranges=RANGES)
    parts.add(*batch(0))
    assert parts.read() == pytest.approx(by_hand(*batch(0)), rel=1e-5)


def test_several_batches_are_summed_and_reading_starts_anew():
    parts = LossMeter(id_ranges=RANGES)
    one, other = batch(1), batch(2)
    parts.add(*one)
    parts.add(*other)
    together = by_hand(torch.cat([one[0], other[0]]), torch.cat([one[1], other[1]]))
    assert parts.read() == pytest.approx(together, rel=1e-5)
    assert parts.read() == {}


def test_a_part_without_a_token_is_left_out():
    losses, targets = batch(0)
    parts = LossMeter(id_ranges=RANGES)
    parts.add(losses, targets.clamp(max=5))
    assert list(parts.read()) == ["text"]


def test_a_loss_of_the_whole_batch_is_averaged_over_the_batches_that_had_it():
    parts = LossMeter(id_ranges=RANGES, extra=("reconstruction",))
    parts.add(*batch(0))
    parts.add(*batch(1), reconstruction=torch.tensor(0.5))
    parts.add(*batch(2), reconstruction=torch.tensor(0.1))
    assert parts.read()["reconstruction"] == pytest.approx(0.3)


def test_nan_stays_nan():
    losses, targets = batch(0)
    parts = LossMeter(id_ranges=RANGES)
    parts.add(losses * math.nan, targets)
    assert math.isnan(parts.read()["text"])
