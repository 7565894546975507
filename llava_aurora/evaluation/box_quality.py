"""Boxes against the true ones: one to one, and never one box twice."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

IOU = 0.5


@dataclass(frozen=True)
class BoxMatch:
    """Boxes of one question, or of several together.

    Attributes:
        matched: pairs of a written and a true box that overlap enough, no box in two pairs.
        written, true: how many boxes there are.
    """

    matched: int
    written: int
    true: int

    @property
    def precision(self) -> float:
        """Share of the written boxes that are matched; 1 if none was written, as none of them is wrong."""
        return self.matched / self.written if self.written else 1.0

    @property
    def recall(self) -> float:
        """Share of the true boxes that are matched; 1 if there are none."""
        return self.matched / self.true if self.true else 1.0

    @property
    def f1(self) -> float:
        """Harmonic mean of both: 2 matched / (written + true)."""
        return 2 * self.matched / (self.written + self.true) if self.written + self.true else 1.0

    @classmethod
    def together(cls, matches: "Iterable[BoxMatch]") -> "BoxMatch":
        """All boxes of all questions counted alike."""
        each = list(matches)
        return cls(sum(m.matched for m in each), sum(m.written for m in each), sum(m.true for m in each))


def match_boxes(written: Sequence[Sequence[float]], true: Sequence[Sequence[float]], *, iou: float = IOU) -> BoxMatch:
    """Pairs boxes so that as many as possible overlap by at least `iou`, an optimal assignment.

    Args:
        written, true: (x1, y1, x2, y2) each, in one frame.
        iou: least intersection over union.
    """
    if not written or not true:
        return BoxMatch(0, len(written), len(true))
    enough = intersection_over_union(np.array(written, float), np.array(true, float)) >= iou
    rows, columns = linear_sum_assignment(enough, maximize=True)
    return BoxMatch(int(enough[rows, columns].sum()), len(written), len(true))


def intersection_over_union(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(N, 4) and (M, 4) to (N, M); 0 where neither box has an area."""
    low = np.maximum(one[:, None, :2], other[None, :, :2])
    high = np.minimum(one[:, None, 2:], other[None, :, 2:])
    common = np.prod(np.clip(high - low, 0, None), axis=-1)
    areas = [np.prod(np.clip(boxes[:, 2:] - boxes[:, :2], 0, None), axis=-1) for boxes in (one, other)]
    union = areas[0][:, None] + areas[1][None] - common
    return np.divide(common, union, out=np.zeros_like(common), where=union > 0)
