"""Constrained decoding: what a model writes is always a well-formed span, whatever it samples.

A `LogitsProcessor` without state: at each step it reads from the last ids of each row whether a span is open and how
far it has come. So rows of a batch may be at different places, beams may be reordered, and text outside spans is
untouched (only tokens that cannot stand there are ruled out).

A step costs a look at the last ids, one gather of masks and one fill: the mask of each choice that was met is kept on
the device of the scores, as long as the model's perception lives.
"""

import weakref
from collections.abc import Sequence
from threading import Lock
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers import LogitsProcessor

from llava_aurora.modalities import Modality
from llava_aurora.perception import Perception
from llava_aurora.vocabulary import PerceptionIds

# Masks kept at once. AURORA's boxes need 340 of them, 11 MB for 32,000 tokens.
MOST_MASKS = 512


class Choice(NamedTuple):
    """What may come next: only the ids in [first, stop), or anything but these and the id `besides`."""

    only: bool
    first: int
    stop: int
    besides: int = -1


TEXT = Choice(False, 0, 0)


class DelimitedRule:
    """START, exactly so many codes, END (depth maps)."""

    def __init__(self, *, modality: Modality, ids: PerceptionIds) -> None:
        family = modality.family
        self.modality = modality
        self.start, self.end = ids.start_id(family), ids.end_id(family)
        self.first, self.stop = ids.first_code_id(family), ids.first_code_id(family) + family.size
        self.length = family.lengths[-1]
        self.near = 1
        self.reach = self.length + 1
        self.closing = Choice(True, self.end, self.end + 1)
        every_code = type(modality).allowed_codes is Modality.allowed_codes
        self.code = Choice(True, self.first, self.stop) if every_code else None

    @property
    def outside(self) -> range:
        """Ids that cannot stand in text: everything but START."""
        return range(self.end, self.stop)

    def choices(self, tails: np.ndarray, last: Sequence[Sequence[int]]) -> dict[int, Choice]:
        """What may come next in each row that ends inside a span; int64 (B, T), T at least 1, and its last ids."""
        rows = [row for row, ids in enumerate(last) if self.start <= ids[-1] < self.stop and ids[-1] != self.end]
        if not rows:
            return {}
        backwards = tails[rows, : -self.reach - 1 : -1]
        codes = (backwards - self.first).view(np.uint64) < self.stop - self.first  # ids below wrap around
        counts = codes.argmin(axis=1)  # 0 where there is nothing but codes, and then no START stands there
        before = backwards[np.arange(len(rows)), counts].tolist()
        return {
            row: self.closing if count == self.length else self.code or self._narrowed(backwards[place, :count])
            for place, (row, count) in enumerate(zip(rows, counts.tolist(), strict=True))
            if before[place] == self.start
        }

    def _narrowed(self, backwards: np.ndarray) -> Choice:
        allowed = self.modality.allowed_codes((backwards[::-1] - self.first).tolist())
        return Choice(True, self.first + allowed.start, self.first + allowed.stop)


class SeparatedRule:
    """Codes with a separator between them, in one of several lengths (points of 2, boxes of 4)."""

    outside = range(0)

    def __init__(self, *, modality: Modality, ids: PerceptionIds) -> None:
        family = modality.family
        self.modality = modality
        self.first, self.stop = ids.first_code_id(family), ids.first_code_id(family) + family.size
        self.separator = list(ids.separators[family.name])
        self.codes = range(self.first, self.stop)
        self.lengths = family.lengths
        self.near = 1 + len(self.separator)
        self.reach = self.lengths[-1] * (1 + len(self.separator))

    def choices(self, tails: np.ndarray, last: Sequence[Sequence[int]]) -> dict[int, Choice]:
        """What may come next in each row that ends in a span; int64 (B, T), T at least 1, and its last ids."""
        rows = [row for row, ids in enumerate(last) if any(map(self.codes.__contains__, ids[-self.near :]))]
        if not rows:
            return {}
        found = [self._choice(ids) for ids in tails[rows, -self.reach :].tolist()]
        return {row: choice for row, choice in zip(rows, found, strict=True) if choice is not None}

    def _choice(self, ids: list[int]) -> Choice | None:
        codes, progress = self._open(ids)
        if not codes:
            return None
        missing = self.separator[progress:]
        allowed = self.modality.allowed_codes(codes) if len(codes) < self.lengths[-1] else range(0)
        if not missing:
            if not allowed:  # text that happens to look like a separator: no code may follow it
                return Choice(False, self.first, self.stop)
            return Choice(True, self.first + allowed.start, self.first + allowed.stop)
        if len(codes) not in self.lengths:
            return Choice(True, missing[0], missing[0] + 1)
        complete_separator = missing[0] if not allowed and len(missing) == 1 else -1
        return Choice(False, self.first, self.stop, complete_separator)

    def _open(self, ids: list[int]) -> tuple[list[int], int]:
        """Codes of the group at the end of `ids`, and how much of a separator follows the last of them."""
        for progress in range(len(self.separator), -1, -1):
            position = len(ids) - progress
            if position < 1 or ids[position:] != self.separator[:progress] or not self._is_code(ids[position - 1]):
                continue
            codes = [ids[position - 1] - self.first]
            position -= 1 + len(self.separator)
            while (
                position >= 1
                and ids[position : position + len(self.separator)] == self.separator
                and self._is_code(ids[position - 1])
            ):
                codes.append(ids[position - 1] - self.first)
                position -= 1 + len(self.separator)
            return codes[::-1], progress
        return [], 0

    def _is_code(self, token_id: int) -> bool:
        return self.first <= token_id < self.stop


class PerceptionLogitsProcessor(LogitsProcessor):
    """Keeps every span that a model writes well-formed: its length, its order, its range.

    Works with greedy search, sampling and beams, on any batch. Ids and lengths come from the checkpoint.

    Args:
        perception: of the loaded model.
        answer_start: ids that stand before what is written, in every row, but not in `input_ids`.

    Attributes:
        reach: how many of the last ids decide what may come next.
    """

    def __init__(self, perception: Perception, *, answer_start: Sequence[int] = ()) -> None:
        self.rules = [
            (DelimitedRule if modality.family.delimited else SeparatedRule)(modality=modality, ids=perception.ids)
            for modality in perception.modalities.values()
        ]
        self.reach = max(rule.reach for rule in self.rules)
        self.near = max(rule.near for rule in self.rules)
        self.answer_start = np.array([list(answer_start)[-self.reach :]], dtype=np.int64)
        self._last_id = max(ids.stop for ids in perception.id_ranges().values()) - 1
        self._kept = _masks_of(perception)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Rules out what may not come next.

        Args:
            input_ids: int64 (B, T), all that was written so far; T may be 0.
            scores: (B, V).

        Returns:
            (B, V), -inf where ruled out.
        """
        ruled_out = self._ruled_out(input_ids, width=scores.shape[-1], device=scores.device)
        return scores.masked_fill(ruled_out, float("-inf"))

    def mask(self, input_ids: Tensor, *, vocabulary_size: int | None = None) -> Tensor:
        """What may not come next.

        Args:
            input_ids: int64 (B, T), all that was written so far, or the last `reach` ids of it.
            vocabulary_size: V, the number of the model's scores; up to the last perception token if left out.

        Returns:
            bool (B, V) on the device of `input_ids`, True where ruled out; not to be written into.
        """
        width = vocabulary_size or self._last_id + 1
        return self._ruled_out(input_ids, width=width, device=input_ids.device).expand(len(input_ids), -1)

    def _ruled_out(self, input_ids: Tensor, *, width: int, device: torch.device) -> Tensor:
        """bool (B, V), or (1, V) where it is the same for all rows."""
        masks = self._kept.get((width, device))
        if masks is None:
            masks = _Masks([rule.outside for rule in self.rules], width=width, device=device)
            masks = self._kept.setdefault((width, device), masks)
        return masks.take(self._choices(input_ids))

    def _choices(self, input_ids: Tensor) -> list[Choice]:
        tails = input_ids[:, -self.reach :].cpu().numpy()
        if self.answer_start.size and tails.shape[1] < self.reach:
            tails = np.concatenate([self.answer_start.repeat(len(tails), axis=0), tails], axis=1)
        choices = [TEXT] * len(tails)
        if tails.shape[1]:
            last = tails[:, -self.near :].tolist()
            for rule in reversed(self.rules):  # of two that apply, the first counts
                for row, choice in rule.choices(tails, last).items():
                    choices[row] = choice
        return choices


_MASKS: "dict[int, dict[tuple[int, torch.device], _Masks]]" = {}


def _masks_of(perception: Perception) -> "dict[tuple[int, torch.device], _Masks]":
    """The masks made for a model so far, by number of scores and device; its calls of `generate` share them."""
    key = id(perception)
    if key not in _MASKS:
        _MASKS[key] = {}
        weakref.finalize(perception, _MASKS.pop, key, None)
    return _MASKS[key]


class _Masks:
    """The masks of the choices met so far, on one device; forgotten all at once when they are too many.

    Args:
        outside: ids that cannot stand in text.
        width: V, the number of scores.
        device: of the scores.
    """

    @torch.inference_mode(False)  # tensors made in that mode could not be changed outside of it
    def __init__(self, outside: Sequence[range], *, width: int, device: torch.device) -> None:
        self.width, self.device = width, device
        self.columns = torch.arange(width, device=device)[None]
        self.outside = torch.zeros(1, width, dtype=torch.bool, device=device)
        for ids in outside:
            self.outside[:, ids.start : ids.stop] = True
        self.lock = Lock()
        self.numbers: dict[Choice, int] = {}
        self.rows = torch.empty(0, width, dtype=torch.bool, device=device)

    def take(self, choices: Sequence[Choice]) -> Tensor:
        """The mask of each choice, (B, V), or (1, V) if all are the same."""
        distinct = set(choices)
        with self.lock:  # several threads may ask one model
            if missing := [choice for choice in distinct if choice not in self.numbers]:
                self._add(missing, distinct)
            if len(distinct) == 1:
                number = self.numbers[choices[0]]
                return self.rows[number : number + 1]
            numbers = torch.tensor([self.numbers[choice] for choice in choices], device=self.device)
            return self.rows.index_select(0, numbers)

    @torch.inference_mode(False)
    def _add(self, missing: Sequence[Choice], needed: set[Choice]) -> None:
        if len(self.numbers) + len(missing) > MOST_MASKS:
            self.numbers, missing = {}, list(needed)
            self.rows = self.rows.new_empty(0, self.width)  # masks that were taken may still be in use
        bounds = torch.tensor([choice[1:] for choice in missing], device=self.device)
        only = torch.tensor([choice.only for choice in missing], device=self.device)[:, None]
        inside = (self.columns >= bounds[:, :1]) & (self.columns < bounds[:, 1:2])
        inside |= self.columns == bounds[:, 2:]
        held = len(self.numbers)
        self.numbers |= {choice: held + place for place, choice in enumerate(missing)}
        if len(self.numbers) > len(self.rows):  # twice as many each time, so that few are copied
            larger = self.rows.new_empty(max(len(self.numbers), 2 * len(self.rows)), self.width)
            larger[:held] = self.rows[:held]
            self.rows = larger
        self.rows[held : len(self.numbers)] = torch.where(only, ~inside, inside | self.outside)
