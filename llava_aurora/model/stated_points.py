"""What an answer's labels state: points with their values, and the answer; and what each is read from.

In tokens, `A (<PIXEL_3>,<PIXEL_40>) 57` is a letter, a place, and a value. The answer is what is said in the end,
behind all codes and coordinates: the letter of a stated point, or a number. A small vocabulary spells digits and
letters as bytes.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from llava_aurora.tokens.perception import PerceptionTokens, depth_and_box

# Tokens between a point's letter and its first coordinate, or its last coordinate and its value: a bracket and a blank.
_MOST_BETWEEN = 3
_APART = 2  # positions from a coordinate to the next, with a comma between them


@dataclass(frozen=True)
class AttentionTarget:
    """A token, and what it is read from.

    Attributes:
        row: of the batch.
        query: the position whose next token it is.
        keys: the positions to be looked at, and the share of each, 1 in all.
    """

    row: int
    query: int
    keys: Mapping[int, float]


@dataclass(frozen=True)
class Stated:
    """What the answers of a batch state.

    Attributes:
        looks: what is read from where. "copy": each coordinate of a point that was named before with the same, in the
            question too, from where it was named first. "lookup": each digit of a value, behind a whole map that is
            learned too, from the code of the point's cell; an interpolated value from the codes of the cells around it,
            by their weights. "choice": the letter that is the answer, behind two values or more, from the last digit of
            its value.
        answers: row and position of the answer's letter or digits, each time it is said behind the last perception
            token. Rows without such tokens have none: there, the answer is most of what is said.
    """

    looks: Mapping[str, list[AttentionTarget]]
    answers: list[tuple[int, int]]


@dataclass
class _Point:
    """Letter ("": none), place, and positions: of its last coordinate, of its value's digits, and of the first code of
    the map before it."""

    letter: str
    place: tuple[int, int]
    last: int
    digits: list[int] = field(default_factory=list)
    codes: int | None = None


class StatedPoints:
    """Reads labels.

    Args:
        tokenizer: of the model.
        perception: with depth and box tokens; its `values` say where values come from.

    Raises:
        AuroraError: if it lacks them.
    """

    def __init__(self, tokenizer: Any, perception: PerceptionTokens) -> None:
        flags = "--aux_losses attention or answer"
        self.depth, self.box = depth, box = depth_and_box(perception, flags)
        self.perception = perception
        self.interpolated = perception.values == "interpolated"
        self.start = perception.ids.start_id(depth.family)
        self.first_code, self.first_pixel = (perception.ids.first_code_id(each.family) for each in (depth, box))
        self.perception_ids = {index for ids in perception.id_ranges().values() for index in ids}
        spelt = {f"<0x{ord(sign):02X}>": sign for sign in "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"}
        self.digits: set[int] = set()
        self.letters: dict[int, str] = {}
        for token, index in tokenizer.get_vocab().items():
            said = spelt.get(token, token.lstrip("▁Ġ"))
            if said.isdecimal():
                self.digits.add(index)
            elif len(said) == 1 and "A" <= said <= "Z":
                self.letters[index] = said

    def read(self, labels: Tensor, ids: Tensor | None = None) -> Stated:
        """What the answers of a batch state.

        Args:
            labels: int64 (B, T), -100 where nothing is to be learned.
            ids: int64 (B, T), of all tokens, -100 where there is none: points that are copied may be named in what is
                asked. None: only in the labels.
        """
        stated = Stated({"copy": [], "lookup": [], "choice": []}, [])
        for row, learned in enumerate(labels.tolist()):
            points = self._points(learned)
            shown = points if ids is None else self._points(ids[row].tolist())
            first = {(point.letter, point.place): point.last for point in reversed(shown)}
            for point in points:
                named = first.get((point.letter, point.place), point.last)
                if point.letter and named < point.last:
                    stated.looks["copy"] += [
                        AttentionTarget(row, point.last - back - 1, {named - back: 1.0}) for back in (_APART, 0)
                    ]
                if point.codes is not None:
                    keys = {point.codes + cell: share for cell, share in self._cells(point.place).items()}
                    stated.looks["lookup"] += [AttentionTarget(row, position - 1, keys) for position in point.digits]
            values = {point.letter: point.digits[-1] for point in points if point.letter and point.digits}
            for position in self._answer(learned, points):
                stated.answers.append((row, position))
                value = values.get(self.letters.get(learned[position], ""))
                if len(values) > 1 and value is not None:
                    stated.looks["choice"].append(AttentionTarget(row, position - 1, {value: 1.0}))
        return stated

    def _cells(self, place: tuple[int, int]) -> dict[int, float]:
        if self.interpolated:
            return self.depth.cells_around(place, frame=self.box.frame)
        return {self.depth.cell_of(place, frame=self.box.frame): 1.0}

    def _points(self, ids: Sequence[int]) -> list[_Point]:
        points: list[_Point] = []
        codes: int | None = None  # where the codes of the last map begin
        letter, lettered = "", -_MOST_BETWEEN  # the last letter, and where it stands
        place: list[int] = []  # the coordinates that were said last
        between = 0  # tokens since then
        for position, label in enumerate(ids):
            if label == self.start:
                codes = position + 1 if self._is_map(ids, position + 1) else None
            elif 0 <= label - self.first_pixel < self.box.family.size:
                place = [*place, label - self.first_pixel] if between == _APART - 1 else [label - self.first_pixel]
                between = 0
                if len(place) == 2:
                    near = position - 2 - lettered <= _MOST_BETWEEN
                    points.append(_Point(letter if near else "", (place[0], place[1]), position, codes=codes))
            elif label in self.digits and len(place) == 2 and between <= _MOST_BETWEEN:
                points[-1].digits.append(position)
            else:
                between += 1
                if label in self.letters:
                    letter, lettered = self.letters[label], position
        return points

    def _answer(self, ids: Sequence[int], points: Sequence[_Point]) -> Iterator[int]:
        behind = [position for position, label in enumerate(ids) if label in self.perception_ids]
        if not behind:
            return
        values = {position for point in points for position in point.digits}
        rest = [position for position in range(behind[-1] + 1, len(ids)) if position not in values]
        names = {point.letter for point in points}
        letters = [position for position in rest if self.letters.get(ids[position]) in names]
        if not letters:
            yield from (position for position in rest if ids[position] in self.digits)
            return
        said = self.letters[ids[letters[-1]]]
        yield from (position for position in letters if self.letters[ids[position]] == said)

    def _is_map(self, ids: Sequence[int], begin: int) -> bool:
        length = self.depth.family.lengths[-1]
        codes = [code - self.first_code for code in ids[begin : begin + length]]
        return len(codes) == length and all(0 <= code < self.depth.family.size for code in codes)
