"""Matches written boxes with the true ones, one to one."""

from collections.abc import Sequence

import numpy as np

IOU = 0.5


def matched_boxes(written: Sequence[Sequence[float]], true: Sequence[Sequence[float]], *, iou: float = IOU) -> int:
    """The most pairs of a written and a true box that overlap by at least `iou`, no box in two pairs.

    Args: written, true: (x1, y1, x2, y2) each, in one frame; iou: least intersection over union.
    """
    if not written or not true:
        return 0
    from scipy.optimize import linear_sum_assignment

    enough = intersection_over_union(np.array(written, float), np.array(true, float)) >= iou
    rows, columns = linear_sum_assignment(enough, maximize=True)
    return int(enough[rows, columns].sum())


def intersection_over_union(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(N, 4) and (M, 4) to (N, M); 0 where neither box has an area."""
    low = np.maximum(one[:, None, :2], other[None, :, :2])
    high = np.minimum(one[:, None, 2:], other[None, :, 2:])
    common = np.prod(np.clip(high - low, 0, None), axis=-1)
    areas = [np.prod(np.clip(boxes[:, 2:] - boxes[:, :2], 0, None), axis=-1) for boxes in (one, other)]
    union = areas[0][:, None] + areas[1][None] - common
    return np.divide(common, union, out=np.zeros_like(common), where=union > 0)
