"""Constrained decoding: what a model writes is always a well-formed span, whatever it samples.

A `LogitsProcessor` without state: at each step it reads from the last ids of each row whether a span is open and how
far it has come. So rows of a batch may be at different places, beams may be reordered, and text outside spans is
untouched (only tokens that cannot stand there are ruled out).
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from transformers import LogitsProcessor

from llava_aurora.modalities import Modality
from llava_aurora.perception import Perception
from llava_aurora.vocabulary import PerceptionIds


class Choice(NamedTuple):
    """What may come next: only the ids in [first, stop), or anything but these and the id `besides`."""

    only: bool
    first: int
    stop: int
    besides: int = -1


class DelimitedRule:
    """START, exactly so many codes, END (depth maps)."""

    def __init__(self, *, modality: Modality, ids: PerceptionIds) -> None:
        family = modality.family
        self.modality = modality
        self.start, self.end = ids.start_id(family), ids.end_id(family)
        self.first, self.stop = ids.first_code_id(family), ids.first_code_id(family) + family.size
        self.length = family.lengths[-1]
        self.reach = self.length + 1

    @property
    def outside(self) -> range:
        """Ids that cannot stand in text: everything but START."""
        return range(self.end, self.stop)

    def choice(self, ids: Sequence[int]) -> Choice | None:
        """None if no span is open at the end of `ids`, a row's last `reach` ids or fewer."""
        codes: list[int] = []
        for token_id in reversed(ids):
            if token_id == self.start:
                break
            if not self.first <= token_id < self.stop:
                return None
            codes.append(token_id - self.first)
        else:
            return None
        if len(codes) == self.length:
            return Choice(True, self.end, self.end + 1)
        allowed = self.modality.allowed_codes(codes[::-1])
        return Choice(True, self.first + allowed.start, self.first + allowed.stop)


class SeparatedRule:
    """Codes with a separator between them, in one of several lengths (points of 2, boxes of 4)."""

    outside = range(0)

    def __init__(self, *, modality: Modality, ids: PerceptionIds) -> None:
        family = modality.family
        self.modality = modality
        self.first, self.stop = ids.first_code_id(family), ids.first_code_id(family) + family.size
        self.separator = list(ids.separators[family.name])
        self.lengths = family.lengths
        self.reach = self.lengths[-1] * (1 + len(self.separator))

    def choice(self, ids: Sequence[int]) -> Choice | None:
        """None if `ids`, a row's last `reach` ids or fewer, end in no span, or in one that may end there."""
        codes, progress = self._open(list(ids))
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
    """

    def __init__(self, perception: Perception, *, answer_start: Sequence[int] = ()) -> None:
        self.answer_start = list(answer_start)
        self.rules = [
            (DelimitedRule if modality.family.delimited else SeparatedRule)(modality=modality, ids=perception.ids)
            for modality in perception.modalities.values()
        ]
        self.reach = max(rule.reach for rule in self.rules)
        self._columns: torch.Tensor | None = None
        self._outside: torch.Tensor | None = None

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Rules out what may not come next.

        Args:
            input_ids: int64 (B, T), all that was written so far; T may be 0.
            scores: (B, V).

        Returns:
            (B, V), -inf where ruled out.
        """
        columns, outside = self._tables(scores)
        tails = input_ids[:, -self.reach :].tolist()
        choices = [self._choice(self.answer_start + tail) for tail in tails]
        bounds = torch.tensor([choice[1:] for choice in choices], device=scores.device)
        only = torch.tensor([choice.only for choice in choices], device=scores.device)[:, None]
        inside = ((columns >= bounds[:, :1]) & (columns < bounds[:, 1:2])) | (columns == bounds[:, 2:])
        ruled_out = torch.where(only, ~inside, inside | outside)
        return scores.masked_fill(ruled_out, float("-inf"))

    def _choice(self, tail: list[int]) -> Choice:
        for rule in self.rules:
            choice = rule.choice(tail[-rule.reach :])
            if choice is not None:
                return choice
        return Choice(False, 0, 0)

    def _tables(self, scores: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Column numbers and the columns that cannot stand in text, made once per device and vocabulary."""
        if (
            self._columns is None
            or self._columns.shape[-1] != scores.shape[-1]
            or self._columns.device != scores.device
        ):
            self._columns = torch.arange(scores.shape[-1], device=scores.device)[None]
            outside = torch.zeros_like(self._columns, dtype=torch.bool)
            for rule in self.rules:
                outside[:, rule.outside.start : rule.outside.stop] = True
            self._outside = outside
        assert self._outside is not None
        return self._columns, self._outside
