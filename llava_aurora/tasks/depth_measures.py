"""Measures of answers about depth: of the map against the true one, of points, and of values read in the map.

Maps are relative depth, linear in inverse depth, higher = closer. MSE is taken as the maps stand, as AURORA does; what
depends on a scale (aligned MSE, AbsRel, delta) after the scale and shift that fit the true map best, as is done for
estimators of relative depth (MiDaS); Spearman's rank correlation needs none.
"""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, cast

import numpy as np

from llava_aurora.tasks.outcome import Measure, Measured, MeasureTable, Outcome
from llava_aurora.tasks.points import hundredths
from llava_aurora.tasks.written import Written

if TYPE_CHECKING:
    from llava_aurora.tokens.depth import DepthKind
    from llava_aurora.tokens.perception import PerceptionTokens

DELTA = 1.25
_LEAST = 1 / 255  # aligned values are cut off there: what is left of inverse depth must be positive

MEASURES = (
    MeasureTable(
        "Depth maps",
        (
            Measure("agreement", "answer is that of its map, %"),
            Measure("mse", "MSE", 3),
            Measure("aligned_mse", "MSE aligned", 3),
            Measure("abs_rel", "AbsRel", 3),
            Measure("delta", f"δ < {DELTA}"),
            Measure("spearman", "Spearman", 3),
            Measure("location_error", "points off, px", 1),
        ),
        "Depth measures are over maps that were written and pixels whose depth is known: MSE of maps in [0, 1] as they"
        " stand; aligned MSE, AbsRel and δ after the best scale and shift; Spearman is 0 for a map that is the same"
        " everywhere.",
    ),
    MeasureTable(
        "From the map to the values, from the values to the answer",
        (
            Measure("values_stated", "chains with values, %"),
            Measure("highest_of_map_right", "highest of its map's values is right, %"),
            Measure("values_are_maps", "all values are its map's, %"),
            Measure("highest_closest_by_map", "highest value is closest by its map, %"),
            Measure("highest_right", "highest value is right, %"),
            Measure("answer_highest", "answer is the highest value, %"),
        ),
        "Of equal highest values the first letter counts as the point they choose.",
    ),
)


def depth_measured(outcome: Outcome, read_out: str | None) -> dict[str, Measured]:
    """The values of MEASURES of one answer. Args: read_out: the point that is closest by the map that was written."""
    question, written, map = outcome.question, outcome.written, outcome.annotation
    stated, perception = outcome.stated, outcome.perception
    found: dict[str, Measured] = {}
    if read_out is not None:
        found["agreement"] = stated == read_out
    true = question.true_depth() if map is not None else None
    if map is not None and true is not None:
        found |= asdict(map_quality(map, true))
    if both := [letter for letter in question.points if letter in written.points]:
        away = [np.hypot(*np.subtract(question.points[letter], written.points[letter])) for letter in both]
        found["location_error"] = float(np.mean(away))
    of_map = Written(values=values_of_map(written, perception))
    if of_map.values:
        found["highest_of_map_right"] = min(of_map.highest) == question.answer
    taught = perception is not None and perception.values != ""
    if map is not None and (taught or written.values):
        found["values_stated"] = bool(written.values)
    if written.values:
        if of_map.values:
            found["values_are_maps"] = written.values == of_map.values
        if read_out is not None:
            found["highest_closest_by_map"] = read_out in written.highest
        found["highest_right"] = min(written.highest) == question.answer
        found["answer_highest"] = stated in written.highest
    return found


def values_of_map(written: Written, perception: "PerceptionTokens | None") -> dict[str, int]:
    """The values of the stated points, in hundredths by letter, as the model was taught to read them in its map.

    Empty if no map was written, or if the model was taught no such values.
    """
    if perception is None or written.codes is None or perception.values != "interpolated":
        return {}
    depth, codes, frame = cast("DepthKind", perception.kinds["depth"]), written.codes, perception.kinds["box"].frame
    assert frame is not None, "values are taught with box tokens alone"
    return {
        letter: int(hundredths(depth.depth_between_cells(codes, place, frame=frame)))
        for letter, place in written.points.items()
    }


@dataclass(frozen=True)
class MapQuality:
    """One map against the true one, over the pixels whose true depth is known."""

    mse: float  # mean squared error of the maps in [0, 1], without alignment
    aligned_mse: float  # the same after scale and shift by least squares
    abs_rel: float  # mean of |aligned - true| / true
    delta: float  # share of pixels where aligned / true or its inverse is below 1.25
    # rank correlation, average ranks for ties; 0 for a map that is the same everywhere, which orders nothing
    spearman: float


def map_quality(written: np.ndarray, true: np.ndarray) -> MapQuality:
    """Compares two maps.

    Args:
        written: uint8 (H, W).
        true: uint8 of any size, covering the same image; 0 = unknown.
    Raises ValueError if nothing of the true map is known.
    """
    from llava_aurora.vqvae.maps import resize_nearest

    target = resize_nearest(true, (written.shape[0], written.shape[1]))
    known = target > 0
    if not known.any():
        raise ValueError("nothing of the true map is known")
    x, y = written[known] / 255, target[known] / 255
    aligned = np.maximum(align(x, y), _LEAST)
    ratio = np.maximum(aligned / y, y / aligned)
    return MapQuality(
        mse=float(np.mean((x - y) ** 2)),
        aligned_mse=float(np.mean((aligned - y) ** 2)),
        abs_rel=float(np.mean(np.abs(aligned - y) / y)),
        delta=float(np.mean(ratio < DELTA)),
        spearman=spearman(x, y),
    )


def align(values: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The values, (N,), times a scale plus a shift, so that the squared distance from `target`, (N,), is least."""
    spread = values - values.mean()
    variance = float(np.mean(spread**2))
    scale = float(np.mean(spread * (target - target.mean()))) / variance if variance > 0 else 0.0
    return target.mean() + scale * spread


def spearman(one: np.ndarray, other: np.ndarray) -> float:
    """Correlation of the ranks of two (N,) arrays, ties sharing their average rank; 0 if one is constant."""
    from scipy.stats import rankdata

    ranks = [rankdata(values) for values in (one, other)]
    a, b = (rank - rank.mean() for rank in ranks)
    norm = float(np.sqrt((a**2).sum() * (b**2).sum()))
    return float((a * b).sum()) / norm if norm > 0 else 0.0
