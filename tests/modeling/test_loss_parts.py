"""The loss told apart by what was to be said, against a loop over the tokens."""

import math

import pytest
import torch

from llava_aurora.modeling.loss_parts import LossParts

RANGES = {"depth": range(10, 14), "box": range(14, 20)}


def by_hand(logits: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    sums: dict[str, list[float]] = {}
    for row in range(labels.shape[0]):
        for place in range(1, labels.shape[1]):
            target = int(labels[row, place])
            if target == -100:
                continue
            name = next((name for name, ids in RANGES.items() if target in ids), "text")
            scores = logits[row, place - 1]
            sums.setdefault(name, []).append(math.log(scores.exp().sum()) - float(scores[target]))
    return {name: sum(values) / len(values) for name, values in sums.items()}


def batch(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 20, (3, 12), generator=generator)
    labels[:, :4] = -100
    return torch.randn(3, 12, 20, generator=generator), labels


def test_parts_are_the_means_over_their_tokens():
    parts = LossParts(id_ranges=RANGES)
    parts.add(*batch(0))
    assert parts.read() == pytest.approx(by_hand(*batch(0)), rel=1e-5)


def test_several_batches_are_summed_and_reading_starts_anew():
    parts = LossParts(id_ranges=RANGES)
    one, other = batch(1), batch(2)
    parts.add(*one)
    parts.add(*other)
    together = by_hand(torch.cat([one[0], other[0]]), torch.cat([one[1], other[1]]))
    assert parts.read() == pytest.approx(together, rel=1e-5)
    assert parts.read() == {}


def test_a_part_without_a_token_is_left_out():
    logits, labels = batch(0)
    parts = LossParts(id_ranges=RANGES)
    parts.add(logits, labels.clamp(max=5))
    assert list(parts.read()) == ["text"]


def test_nan_stays_nan():
    logits, labels = batch(0)
    parts = LossParts(id_ranges=RANGES)
    parts.add(logits * math.nan, labels)
    assert math.isnan(parts.read()["text"])
