"""Constrained decoding: a `LogitsProcessor` that keeps spans of perception tokens well-formed, whatever is sampled.

It decides by the ids of each row alone, so rows of a batch may be at different places and beams may be reordered. Of
the tokens outside spans only those are ruled out that cannot stand there.

The rules of spans (span_rules.py) form an automaton. In each step each row follows one of its edges, and a mask of 0
and -inf is added to the scores. Edges and masks are made when they are first needed and kept with the model's tokens.
"""

import weakref
from collections.abc import Sequence
from threading import Lock
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import LogitsProcessor

from llava_aurora.model.span_rules import TEXT, Choice, DelimitedRule, Rule, SeparatedRule
from llava_aurora.tokens.perception import PerceptionTokens

# Kept at once. AURORA's boxes need 340 masks, with room for more 66 MB for 32,000 words in float32; a box is 7 places.
MOST_MASKS = 512
MOST_PLACES = 16_384


class PerceptionLogitsProcessor(LogitsProcessor):
    """Keeps every span that a model writes well-formed: its length, its order, its range.

    Works with greedy search, sampling and beams, on any batch. It remembers the last step's places only to save time.

    Args:
        starts: ids that stand before `input_ids` and are not in them: of all rows, or of each. Where there are several
            rows for each start, as in a beam search, those of a start follow one another.
    Attributes: reach: how many of the last ids decide what may come next.
    """

    def __init__(self, perception: PerceptionTokens, *, starts: Sequence[Sequence[int]] = ((),)) -> None:
        self._kept = _kept_of(perception)
        self.reach = self._kept.reach
        self._starts = [self._kept.walk(self._kept.root, start) for start in starts]
        self._last_id = max(ids.stop for ids in perception.id_ranges().values()) - 1
        self._before: tuple[np.ndarray, list[_Place]] = np.empty((0, 0), np.int64), []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Rules out what may not come next.

        Args:
            input_ids: int64 (B, T), all that was written so far; T may be 0.
            scores: (B, V), finite or -inf.
        Returns: (B, V), -inf where ruled out.
        """
        return self._masks(scores).add_to(scores, self._places(input_ids))

    def along(self, written: Sequence[int], scores: Tensor) -> Tensor:
        """Rules out what may not come next behind each of the last beginnings of one text.

        Args:
            written: T ids, those that it was made to begin with included.
            scores: (B, V), finite or -inf; the last row is of what follows all of `written`, the row before it of what
                follows all but its last id, and so on. B is at most T + 1.
        Returns: (B, V), -inf where ruled out.
        """
        first = len(written) - len(scores) + 1
        place = self._kept.walk(self._kept.root, written[max(0, first - self.reach) : first])
        places = [place]
        for token_id in written[first:]:
            place = self._kept.step(place, token_id)
            places.append(place)
        return self._masks(scores).add_to(scores, places)

    def mask(self, input_ids: Tensor, *, vocabulary_size: int | None = None) -> Tensor:
        """What may not come next.

        Args:
            input_ids: int64 (B, T), all that was written so far, or the last `reach` ids of it.
            vocabulary_size: V, the number of the model's scores; up to the last perception token if left out.
        Returns bool (B, V) on the device of `input_ids`, True where ruled out.
        """
        scores = torch.zeros(len(input_ids), vocabulary_size or self._last_id + 1, device=input_ids.device)
        return self(input_ids, scores) != 0

    def _masks(self, scores: Tensor) -> "_Masks":
        width, device, dtype = key = scores.shape[-1], scores.device, scores.dtype
        masks = self._kept.masks.get(key)
        if masks is None:
            masks = _Masks([rule.outside for rule in self._kept.rules], width=width, device=device, dtype=dtype)
            masks = self._kept.masks.setdefault(key, masks)
        return masks

    def _places(self, input_ids: Tensor) -> "list[_Place]":
        """Where each row is, from where it was a step ago if these are the same rows with one more id."""
        tails = input_ids[:, -self.reach - 1 :].cpu().numpy()
        seen, places = self._before
        if tails.shape[1] and np.array_equal(tails[:, :-1], seen):
            places = list(map(self._kept.step, places, tails[:, -1].tolist()))
        else:
            roots = [self._kept.root]
            if tails.shape[1] <= self.reach:  # all that was written is here
                roots = self._starts
            each = len(tails) // len(roots)
            rows = tails[:, -self.reach :].tolist()
            places = [self._kept.walk(roots[number // each], row) for number, row in enumerate(rows)]
        self._before = tails[:, -self.reach :].copy(), places
        return places


class _Place:
    """A state of the automaton: each rule's state, what may come next, and the states behind the ids met so far.

    An id stands for all that mean the same to the rules, -1 for those that mean nothing to them.
    """

    __slots__ = ("choice", "states", "then")

    def __init__(self, states: tuple[Any, ...], choice: Choice) -> None:
        self.states, self.choice = states, choice
        self.then: dict[int, _Place] = {}


class _Kept:
    """What all processors of a model share: the states met so far, and the masks by number, device and type of scores.

    When there are too many states all are forgotten; a processor that holds one can go on from it.
    """

    def __init__(self, perception: PerceptionTokens) -> None:
        self.rules: list[Rule] = [
            (DelimitedRule if kind.family.delimited else SeparatedRule)(kind=kind, ids=perception.ids)
            for kind in perception.kinds.values()
        ]
        self.reach = max(rule.reach for rule in self.rules)
        self.alike = {token_id: kind for rule in self.rules for token_id, kind in rule.alike().items()}
        self.masks: dict[tuple[int, torch.device, torch.dtype], _Masks] = {}
        self._forget()

    def _forget(self) -> None:
        self.root = _Place((None,) * len(self.rules), TEXT)
        self.places = {self.root.states: self.root}

    def walk(self, place: _Place, token_ids: Sequence[int]) -> _Place:
        for token_id in token_ids:
            place = self.step(place, token_id)
        return place

    def step(self, place: _Place, token_id: int) -> _Place:
        kind = self.alike.get(token_id, -1)
        then = place.then.get(kind)
        if then is None:
            then = place.then[kind] = self._after(place, kind)
        return then

    def _after(self, place: _Place, token_id: int) -> _Place:
        states = tuple(rule.after(state, token_id) for rule, state in zip(self.rules, place.states, strict=True))
        found = self.places.get(states)
        if found is None:
            if len(self.places) >= MOST_PLACES:
                self._forget()
            choices = (rule.choice(state) for rule, state in zip(self.rules, states, strict=True) if state is not None)
            found = self.places[states] = _Place(states, next(choices, TEXT))  # of two that apply, the first counts
        return found


_KEPT: dict[int, _Kept] = {}


def _kept_of(perception: PerceptionTokens) -> _Kept:
    """What was made for a model so far; all its processors share it."""
    key = id(perception)
    if key not in _KEPT:
        _KEPT[key] = _Kept(perception)
        weakref.finalize(perception, _KEPT.pop, key, None)
    return _KEPT[key]


class _Masks:
    """The masks of the choices met so far, 0 and -inf, on one device; all forgotten when there are too many.

    They are added because that is faster in torch than filling in -inf where a boolean mask says so.

    Args: outside: ids that cannot stand in text; device, dtype: of the scores.
    """

    @torch.inference_mode(False)  # tensors made in that mode could not be changed outside of it
    def __init__(self, outside: Sequence[range], *, width: int, device: torch.device, dtype: torch.dtype) -> None:
        self.device = device
        self.text = torch.zeros(width, dtype=dtype, device=device)
        for ids in outside:
            self.text[ids.start : ids.stop] = -torch.inf
        self.lock = Lock()
        self.numbers: dict[Choice, int] = {}
        self.rows = self.text.new_empty(0, width)

    def add_to(self, scores: Tensor, places: Sequence[_Place]) -> Tensor:
        """(B, V): the scores, -inf where the choice of a row's place rules them out."""
        choices = [place.choice for place in places]
        with self.lock:  # several threads may ask one model
            numbers = [self.numbers.get(choice, -1) for choice in choices]
            if -1 in numbers:
                self._add(set(choices))
                numbers = [self.numbers[choice] for choice in choices]
            if numbers.count(numbers[0]) == len(numbers):
                return scores + self.rows[numbers[0]]
            masks = self.rows.index_select(0, torch.tensor(numbers, device=self.device))
        return masks.add_(scores)

    @torch.inference_mode(False)
    def _add(self, needed: set[Choice]) -> None:
        missing = [choice for choice in needed if choice not in self.numbers]
        if len(self.numbers) + len(missing) > MOST_MASKS:
            self.numbers, missing = {}, list(needed)
        held = len(self.numbers)
        if held + len(missing) > len(self.rows):  # twice as many each time, so that few are copied
            larger = self.rows.new_empty(max(held + len(missing), 2 * len(self.rows)), len(self.text))
            larger[:held] = self.rows[:held]
            self.rows = larger
        for number, choice in enumerate(missing, start=held):
            row = self.rows[number].copy_(self.text)
            if choice.only:
                row.fill_(-torch.inf)[choice.first : choice.stop] = 0
            else:
                row[choice.first : choice.stop] = -torch.inf
                if choice.besides >= 0:
                    row[choice.besides] = -torch.inf
            self.numbers[choice] = number
