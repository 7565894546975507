"""Published figures, percent, for comparison: AURORA's own (arXiv 2412.03548v2, and Ablate-to-Validate, 2026).

Those of masks are from PAE-LaMM (2408.03940), which quotes MiniGPT-v2, and OMG-LLaVA (2406.19389), which quotes LISA.
"""

from collections.abc import Mapping

POINTS = ("2 points", "3 points", "4 points", "5 points")
# Accuracy on BLINK (2 points) and HardBLINK (3, 4, 5), then the mean.
RELATIVE_DEPTH: Mapping[str, tuple[float | None, ...]] = {
    "LLaVA-1.5-13B": (54.0, 35.5, 37.9, 29.0, 39.1),
    "fine-tuned on direct answers": (68.5, 58.9, 52.4, 41.1, 55.2),
    "AURORA": (64.5, 66.9, 60.5, 54.8, 61.6),
    "AURORA, computed from its map": (91.9, 78.2, 71.7, 75.8, 79.2),
    "chain without the coordinate step": (None, 56.4, 56.4, 50.0, None),
}
COUNTING_BENCHMARKS = ("cv_bench_counting", "seed_bench_counting", "blink_counting")
COUNTING: Mapping[str, tuple[float | None, ...]] = {
    "LLaVA-1.5-13B": (40.9, 52.2, 35.0),
    "fine-tuned": (44.7, 46.3, 0.2),
    "AURORA": (56.0, 54.6, 45.8),
    "AURORA with plain-text coordinates": (52.2, 50.6, 38.3),
}
# Accuracy of a LLaVA-13B on HardBLINK, mean of 3, 4 and 5 points, by what replaced its map.
REPLACED: Mapping[str, float] = {
    "no map": 76.7,
    "own": 77.7,
    "true": 78.8,
    "random": 68.8,
    "constant": 73.7,
}
REFERRING_SETS = (
    *("RefCOCO val", "RefCOCO testA", "RefCOCO testB", "RefCOCO+ val", "RefCOCO+ testA", "RefCOCO+ testB"),
    *("RefCOCOg val", "RefCOCOg test"),
)
REFERRING: Mapping[str, tuple[float | None, ...]] = {  # cIoU
    "MiniGPT-v2": (72.63, 65.30, 65.07, 66.22, 60.68, 58.37, 54.94, 56.18),
    "PAE-LaMM": (83.93, 81.63, 74.37, 72.18, 72.14, 65.00, 68.05, 63.55),
    "LISA, fine-tuned": (74.1, 76.5, 71.1, 62.4, 67.4, 56.5, 66.4, 68.5),
    "OMG-LLaVA, fine-tuned": (78.0, 80.3, 74.1, 69.1, 73.1, 63.0, 72.9, 72.9),
}
GROUNDED_MEASURES = ("miou", "ap50")
GROUNDED: Mapping[str, tuple[float | None, ...]] = {  # on GranD-f
    "OMG-LLaVA, val": (65.5, 29.9),
    "OMG-LLaVA, test": (64.7, 28.6),
}
