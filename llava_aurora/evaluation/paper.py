"""AURORA's own figures, percent, for comparison. Source: arXiv 2412.03548v2, and Ablate-to-Validate (2026)."""

from collections.abc import Mapping

POINTS = ("2 points", "3 points", "4 points", "5 points")
# Accuracy on BLINK (2 points) and HardBLINK (3, 4, 5), then the mean.
RELATIVE_DEPTH: Mapping[str, tuple[float | None, ...]] = {
    "LLaVA-1.5-13B": (54.0, 35.5, 37.9, 29.0, 39.1),
    "fine-tuned on direct answers": (68.5, 58.9, 52.4, 41.1, 55.2),
    "AURORA": (64.5, 66.9, 60.5, 54.8, 61.6),
    "AURORA, read out of its map": (91.9, 78.2, 71.7, 75.8, 79.2),
    "chain without the coordinate step": (None, 56.4, 56.4, 50.0, None),
}
COUNTING_BENCHMARKS = ("cv_bench_counting", "seed_bench_counting", "blink_counting")
COUNTING: Mapping[str, tuple[float | None, ...]] = {
    "LLaVA-1.5-13B": (40.9, 52.2, 35.0),
    "fine-tuned": (44.7, 46.3, 0.2),
    "AURORA": (56.0, 54.6, 45.8),
    "AURORA with plain-text coordinates": (52.2, 50.6, 38.3),
}
# Accuracy of a LLaVA-13B on HardBLINK, mean of 3, 4 and 5 points, by what stood in the place of its map.
REPLACED: Mapping[str, float] = {
    "no map": 76.7,
    "own": 77.7,
    "true": 78.8,
    "random": 68.8,
    "constant": 73.7,
}
