"""What a depth map is worth against the true one.

Maps are relative depth, linear in inverse depth, higher = closer. MSE is taken as the maps stand, as AURORA does; what
depends on a scale (aligned MSE, AbsRel, delta) after the scale and shift that fit the true map best, as is done for
estimators of relative depth (MiDaS); Spearman's rank correlation needs none.
"""

from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from llava_aurora.vqvae.maps import resize_nearest

DELTA = 1.25
_LEAST = 1 / 255  # aligned values are cut off there: what is left of inverse depth must be positive


@dataclass(frozen=True)
class MapQuality:
    """One map against the true one, over the pixels whose true depth is known.

    Attributes:
        mse: mean squared error of the maps in [0, 1], without alignment.
        aligned_mse: the same after scale and shift by least squares.
        abs_rel: mean of |aligned - true| / true.
        delta: share of pixels where aligned / true or its inverse is below 1.25.
        spearman: rank correlation, average ranks for ties; 0 for a map that is the same everywhere, which orders
            nothing.
    """

    mse: float
    aligned_mse: float
    abs_rel: float
    delta: float
    spearman: float


def map_quality(written: np.ndarray, true: np.ndarray) -> MapQuality:
    """Compares two maps.

    Args:
        written: uint8 (H, W).
        true: uint8 of any size, covering the same image; 0 = unknown.

    Raises:
        ValueError: if nothing of the true map is known.
    """
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
    ranks = [rankdata(values) for values in (one, other)]
    a, b = (rank - rank.mean() for rank in ranks)
    norm = float(np.sqrt((a**2).sum() * (b**2).sum()))
    return float((a * b).sum()) / norm if norm > 0 else 0.0
