"""Masks against the true ones: pixel by pixel, and one to one where an answer has several.

Masks are boolean arrays (H, W) in the image's own pixels. What is measured of an answer is a pair whose parts are added
over answers (`Measured`): so cIoU is all intersections over all unions, gIoU the mean of the answers' own ratios.
"""

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from llava_aurora.tasks.outcome import Asked, Measure, Measured, MeasureTable, Outcome, TrueMask

LEVELS = (0.5, 0.7, 0.9)
FOUND, MISSED = "found", "missed"  # what an answer with masks comes to
_PHRASE = re.compile(r"<p>\s*([^<>]*?)\s*</p>\s*$")
_NOTHING = re.compile(r"\bno\b|\bnot\b|\bnone\b|n't\b", re.IGNORECASE)
MATCH = 0.5  # least intersection over union of two masks that are one thing


class Grounded(NamedTuple):
    """A phrase and its mask, bool (H, W)."""

    phrase: str
    mask: np.ndarray


def overlap(one: np.ndarray, other: np.ndarray) -> tuple[int, int]:
    """Pixels of intersection and union. Raises ValueError for masks of two sizes."""
    if one.shape != other.shape:
        raise ValueError(f"a mask of {one.shape[::-1]} pixels cannot be compared with one of {other.shape[::-1]}")
    return int(np.count_nonzero(one & other)), int(np.count_nonzero(one | other))


def mask_iou(one: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union, in [0, 1]; 1 for two empty masks."""
    common, union = overlap(one, other)
    return common / union if union else 1.0


def filled_box(mask: np.ndarray) -> np.ndarray:
    """Every pixel of the smallest box around a mask; empty for an empty one."""
    filled = np.zeros_like(mask)
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    if len(rows):
        filled[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = True
    return filled


def average_precision(answers: Sequence[Sequence[float]]) -> float:
    """AP of answers as `grounded_measures` has them: mean precision at 101 recalls, as COCO takes it; all equally sure.

    NaN where nothing is true.
    """
    total = sum(answer[0] for answer in answers)
    hits = np.concatenate([np.asarray(answer[1:]) for answer in answers]) if answers else np.zeros(0)
    if not total:
        return float("nan")
    found = np.cumsum(hits)
    precision = np.maximum.accumulate((found / np.arange(1, len(hits) + 1))[::-1])[::-1]
    places = np.searchsorted(found / total, np.linspace(0, 1, 101), side="left")
    return float(np.append(precision, 0.0)[places].mean())


REFERRING = MeasureTable(
    "Masks",
    (
        Measure("ciou", "cIoU, %", of_span=False),
        Measure("giou", "gIoU, %", of_span=False),
        *(Measure(f"p{level * 100:.0f}", f"P@{level}, %", of_span=False) for level in LEVELS),
        Measure("box_ciou", "its boxes alone, cIoU, %", of_span=False),
        Measure("true_box_ciou", "the true boxes, cIoU, %", of_span=False),
        Measure("nothing", "nothing there, said, %", of_span=False),
    ),
    "cIoU: all intersections over all unions; gIoU: mean of the intersection over the union; P: share of the answers at"
    " least that good; no mask is an empty one, and empty against empty is 1. Pixels are those of the images. Intervals"
    " are over images. Boxes alone: every pixel in the box around a mask.",
)
GROUNDED = MeasureTable(
    "Grounded answers",
    (
        Measure("miou", "mIoU, %", of_span=False),
        Measure("ap50", "AP50, %", of_span=False, pooled=average_precision),
        Measure("mask_recall", "recall, %", of_span=False),
        Measure("named_recall", "recall, phrase too, %", of_span=False),
    ),
    f"Masks are matched one to one so that their intersections over unions add up to the most. mIoU: of the pairs that"
    f" overlap, by image; recall: true masks with a partner at IoU {MATCH}, whose phrase is the same in the second"
    " column; AP50: COCO's, of masks without classes, all equally sure.",
)


def referring_measures(written: np.ndarray, true: np.ndarray, *, denied: bool = True) -> dict[str, Measured]:
    """Of one answer, what `REFERRING` shows.

    Args: written: empty where the answer has no mask; denied: whether it says that what was asked for is not there.
    """
    iou = mask_iou(written, true)
    measured: dict[str, Measured] = {"ciou": overlap(written, true), "giou": (iou, 1)}
    measured |= {f"p{level * 100:.0f}": (float(iou >= level), 1) for level in LEVELS}
    measured["box_ciou"] = overlap(filled_box(written), true)
    measured["true_box_ciou"] = overlap(filled_box(true), true)
    return measured | ({} if true.any() else {"nothing": (float(denied and not written.any()), 1)})


def grounded_measures(written: Sequence[Grounded], true: Sequence[Grounded]) -> dict[str, Measured]:
    """Of one answer, what `GROUNDED` shows; `ap50` is (true masks, then 1 for each written one that matches, or 0)."""
    ious = np.array([mask_iou(one.mask, other.mask) for one in written for other in true])
    ious = ious.reshape(len(written), len(true))
    pairs = [pair for pair in _matched(ious) if ious[pair] > 0]
    most = _matched(ious + (len(true) + 1) * (ious >= MATCH))  # as many as possible
    found = [pair for pair in most if ious[pair] >= MATCH]
    named = sum(_words(written[row].phrase) == _words(true[column].phrase) for row, column in found)
    free, hits = set(range(len(true))), []
    for row in ious:  # as COCO does: in the order of the answer, each takes the best that is left
        best = max(free, key=lambda column: (row[column], column), default=None)
        hits.append(float(best is not None and row[best] >= MATCH))
        free -= {best} if hits[-1] else set()
    mean = float(np.mean([ious[pair] for pair in pairs])) if pairs else float(not written and not true)
    return {
        "miou": (mean, 1),
        "ap50": (float(len(true)), *hits),
        "mask_recall": (float(len(found)), float(len(true))),
        "named_recall": (float(named), float(len(true))),
    }


def written_masks(outcome: Outcome) -> list[Grounded]:
    """The masks of an answer in the image's pixels, each with the phrase `<p>…</p>` in front of it, or "".

    From a malformed span on, nothing is read.
    """
    kind = outcome.perception.kinds.get("mask") if outcome.perception is not None else None
    found: list[Grounded] = []
    for span in kind.family.whole(outcome.text) if kind is not None else ():
        assert kind is not None
        mask = outcome.question.in_image(kind.decode(span.codes))
        found.append(Grounded(phrase_before(outcome.text, span.start), mask))
    return found


def phrase_before(text: str, place: int) -> str:
    """The phrase `<p>…</p>` right in front of a place in a text; "" if there is none."""
    found = _PHRASE.search(text[:place])
    return found[1] if found else ""


def answer_of_masks(outcome: Outcome) -> str | None:
    """FOUND or MISSED: of a phrase by its IoU, of a description if each thing has its mask and nothing else has one.

    None where neither a mask nor the words that there is none were written.
    """
    true, written = outcome.question.masks or (), written_masks(outcome)
    if not written and not _NOTHING.search(outcome.text):
        return None
    if _is_referring(true):
        right = mask_iou(_together(written, true[0].pixels), true[0].pixels) >= MATCH
    else:
        matched, total = grounded_measures(written, _grounded(true))["mask_recall"]  # type: ignore[misc]
        right = matched == total == len(written)
    return FOUND if right else MISSED


def measured_masks(outcome: Outcome) -> dict[str, Measured]:
    """Of an answer about one phrase what `REFERRING` shows, of a description what `GROUNDED` shows."""
    true = outcome.question.masks
    if true is None:
        return {}
    written = written_masks(outcome)
    if _is_referring(true):
        denied = bool(_NOTHING.search(outcome.text))
        return referring_measures(_together(written, true[0].pixels), true[0].pixels, denied=denied)
    return grounded_measures(written, _grounded(true))


def constant_measures(questions: Sequence[Asked]) -> Sequence[dict[str, Measured]]:
    """What the best mask that is the same for all questions about a phrase comes to, for each; none of others."""
    masks = [question.masks[0] for question in questions if question.masks and _is_referring(question.masks)]
    return _constant_measures(tuple(masks)) if masks and len(masks) == len(questions) else ()


@lru_cache(maxsize=1)
def _constant_measures(masks: tuple[TrueMask, ...]) -> Sequence[dict[str, Measured]]:
    constant = best_constant(mask.pixels for mask in masks)
    return [referring_measures(stretched(constant, mask.size[::-1]), mask.pixels) for mask in masks]


def best_constant(masks: Iterable[np.ndarray], *, side: int = 64) -> np.ndarray:
    """The mask that fits all of these best by cIoU when it is given for each: the blind baseline.

    Args: masks: bool (H, W) each, of any sizes, at least one.
    Returns: bool (side, side), to be stretched over an image.
    """
    times, number = np.zeros((side, side)), 0
    for mask in masks:
        times += stretched(mask, (side, side))
        number += 1
    # Of all masks with so many pixels, that of the most frequent ones shares the most with the true ones.
    order = np.argsort(-times, axis=None, kind="stable")
    common = np.cumsum(times.ravel()[order])
    unions = times.sum() + number * np.arange(1, side**2 + 1) - common
    constant = np.zeros(side**2, bool)
    constant[order[: int(np.argmax(common / unions)) + 1]] = True
    return constant.reshape(side, side)


def stretched(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A mask stretched to (height, width), by nearest neighbour."""
    rows, columns = ((np.arange(new) + 0.5) * old / new for new, old in zip(size, mask.shape, strict=True))
    return mask[rows.astype(int)[:, None], columns.astype(int)]


def _matched(gains: np.ndarray) -> list[tuple[int, int]]:
    """The pairs (row, column), none twice, that add up to the most."""
    from scipy.optimize import linear_sum_assignment

    return list(zip(*map(np.ndarray.tolist, linear_sum_assignment(gains, maximize=True)), strict=True))


def _together(written: Sequence[Grounded], like: np.ndarray) -> np.ndarray:
    """All masks of an answer as one."""
    return np.logical_or.reduce([each.mask for each in written]) if written else np.zeros_like(like)


def _is_referring(true: Sequence[TrueMask]) -> bool:
    """Whether a question is about one phrase, which it gives; the masks of a description have phrases of their own."""
    return len(true) == 1 and not true[0].phrase


def _grounded(true: Sequence[TrueMask]) -> list[Grounded]:
    return [Grounded(each.phrase, each.pixels) for each in true]


def _words(phrase: str) -> list[str]:
    return [word for word in phrase.lower().strip(" .").split() if word not in ("a", "an", "the")]
