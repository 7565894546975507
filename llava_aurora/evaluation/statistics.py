"""Bootstrap intervals, and the paired comparison of two models on the same questions.

A number is a mean over questions (accuracy, a difference between two models, an error), or a ratio of sums over them.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from scipy.stats import binomtest

DRAWS = 10_000
LEVEL = 0.95
_AT_ONCE = 500
_FEW = 8
_Value = TypeVar("_Value")


@dataclass(frozen=True)
class Interval:
    """A mean, the ends of its interval, and how many values it is a mean of; NaN of none."""

    value: float
    low: float
    high: float
    count: int

    def to_json(self) -> dict[str, float | int | None]:
        """As JSON takes it: NaN becomes null."""
        numbers = {name: getattr(self, name) for name in ("value", "low", "high")}
        return {**{name: None if np.isnan(value) else value for name, value in numbers.items()}, "count": self.count}


@dataclass(frozen=True)
class Paired:
    """Two models on the same questions."""

    difference: Interval  # accuracy of the second less that of the first, with its interval
    # only_first, only_second: questions that only this one answers rightly
    only_first: int
    only_second: int
    p_value: float  # of McNemar's exact test, two-sided: that both are equally good, seen where they differ


def bootstrap_mean(
    *samples: Sequence[float],
    units: Sequence[Sequence[Hashable]] | None = None,
    level: float = LEVEL,
    draws: int = DRAWS,
    seed: int = 0,
) -> Interval:
    """Mean of the samples' means with its percentile bootstrap interval; each sample is resampled on its own.

    Of one sample this is its mean; of several, as for sets of questions with 2, 3, 4 and 5 points, the mean in which
    every set counts alike.

    Args:
        samples: numbers, one a question; NaN values are refused.
        units: for each value what it was measured on (its image); units are resampled, with all that was measured on
            them, in all samples at once. Left out: every value is a unit of its own.
        level: share of the bootstrap means inside the interval.
        seed: the same seed and samples, the same interval.
    Raises ValueError if a value is not finite.
    """
    arrays = [np.asarray(sample, np.float64) for sample in samples]
    count = sum(map(len, arrays))
    if not arrays or not all(map(len, arrays)):
        return Interval(float("nan"), float("nan"), float("nan"), count)
    if not all(np.isfinite(array).all() for array in arrays):
        raise ValueError("a value is not finite")
    rng = np.random.default_rng(seed)
    if units is not None and len({unit for each in units for unit in each}) < count:
        means = _means_over_units(arrays, units, draws, rng)
    else:
        means = np.mean([_resampled_means(array, draws, rng) for array in arrays], axis=0)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(np.mean([array.mean() for array in arrays])), float(low), float(high), count)


def bootstrap_ratio(pairs: Sequence[tuple[float, float]], *, seed: int = 0) -> Interval:
    """The sum of the first numbers over the sum of the second, with its percentile bootstrap interval over pairs.

    So F1 = 2 matched / (written + true) over the boxes of all questions. NaN where the second sum is 0.
    """
    values = np.asarray(pairs, np.float64).reshape(-1, 2)
    above, below = values.sum(axis=0)
    if below == 0:
        return Interval(float("nan"), float("nan"), float("nan"), len(values))
    rng, count, sums = np.random.default_rng(seed), len(values), []
    for start in range(0, DRAWS, _AT_ONCE):
        sums.append(values[rng.integers(count, size=(min(_AT_ONCE, DRAWS - start), count))].sum(axis=1))
    drawn = np.concatenate(sums)
    drawn = drawn[drawn[:, 1] > 0]
    low, high = np.quantile(drawn[:, 0] / drawn[:, 1], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(above / below), float(low), float(high), count)


def bootstrap_pooled(
    values: Sequence[_Value], pooled: Callable[[Sequence[_Value]], float], *, draws: int = 1000, seed: int = 0
) -> Interval:
    """Any number that is made of many values, such as average precision, with its percentile bootstrap interval."""
    rng, count = np.random.default_rng(seed), len(values)
    drawn = [pooled([values[place] for place in rng.integers(count, size=count)]) for _ in range(draws if count else 0)]
    known = [value for value in drawn if not np.isnan(value)] or [float("nan")]
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(pooled(values), float(low), float(high), count)


def compare_paired(first: Sequence[bool], second: Sequence[bool], *, seed: int = 0) -> Paired:
    """Compares two models, or two ways to ask one, by which of the same questions each answers rightly.

    Raises ValueError if they did not answer as many questions.
    """
    if len(first) != len(second):
        raise ValueError(f"{len(first)} and {len(second)} answers cannot be paired")
    a, b = np.asarray(first, bool), np.asarray(second, bool)
    only_first, only_second = int((a & ~b).sum()), int((b & ~a).sum())
    differing = only_first + only_second
    p_value = float(binomtest(only_first, differing, 0.5).pvalue) if differing else 1.0
    difference = bootstrap_mean(b.astype(float) - a.astype(float), seed=seed)
    return Paired(difference=difference, only_first=only_first, only_second=only_second, p_value=p_value)


def _means_over_units(
    arrays: Sequence[np.ndarray], units: Sequence[Sequence[Hashable]], draws: int, rng: np.random.Generator
) -> np.ndarray:
    """float64 (draws,); a draw in which a sample is empty counts the others alone."""
    places = {unit: place for place, unit in enumerate(dict.fromkeys(unit for each in units for unit in each))}
    owners = [np.array([places[unit] for unit in each]) for each in units]
    sums = np.stack([np.bincount(at, array, len(places)) for at, array in zip(owners, arrays, strict=True)])
    counts = np.stack([np.bincount(at, minlength=len(places)) for at in owners])
    means = []
    for start in range(0, draws, _AT_ONCE):
        shape = min(_AT_ONCE, draws - start)
        drawn = rng.multinomial(len(places), np.full(len(places), 1 / len(places)), size=shape)
        with np.errstate(invalid="ignore"):
            means.append(np.nanmean((drawn @ sums.T) / (drawn @ counts.T), axis=1))
    return np.concatenate(means)


def _resampled_means(values: np.ndarray, draws: int, rng: np.random.Generator) -> np.ndarray:
    """float64 (draws,)."""
    count = len(values)
    different, times = np.unique(values, return_counts=True)
    parts = [min(_AT_ONCE, draws - start) for start in range(0, draws, _AT_ONCE)]
    if len(different) > _FEW:
        return np.concatenate([values[rng.integers(count, size=(part, count))].mean(axis=1) for part in parts])
    # How often each value is drawn is multinomial, which spares drawing every one.
    return np.concatenate([rng.multinomial(count, times / count, size=part) @ different / count for part in parts])
