"""The parts of an answer: map, boxes, points and values, as far as they were written."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from llava_aurora.tasks.points import mentions
from llava_aurora.tokens.perception import PerceptionTokens
from llava_aurora.tokens.vocabulary import MalformedSpan


@dataclass(frozen=True)
class Written:
    """What stands in an answer; what was cut off counts as not written."""

    # of the last whole span of a token kind, such as a depth map; None if there is none
    codes: tuple[int, ...] | None = None
    map_end: int = 0  # how many of the answer's ids end with that span
    # (x1, y1, x2, y2) each, in the coordinate frame, as tokens or as plain numbers
    boxes: tuple[tuple[int, ...], ...] = ()
    points: Mapping[str, tuple[int, int]] = field(default_factory=dict)  # (x, y) by the letter in front of them
    # how close points are said to be, in hundredths, 99 the closest, by letter
    values: Mapping[str, int] = field(default_factory=dict)

    @property
    def map_start(self) -> int:
        """Where the last whole map begins among the ids, its START included; 0 if there is none."""
        return self.map_end - len(self.codes) - 2 if self.codes is not None else 0

    @property
    def highest(self) -> tuple[str, ...]:
        """Letters of the points that are said to be closest, all of equals; none if no values are said."""
        most = max(self.values.values(), default=None)
        return tuple(letter for letter, value in self.values.items() if value == most)


def read_written(text: str, ids: Sequence[int], perception: PerceptionTokens | None, *, kind: str | None) -> Written:
    """Reads an answer.

    Args:
        text, ids: of what the model wrote.
        kind: the token kind whose spans are looked for; None for none.
    """
    found = _coordinates(text)
    if perception is None or kind is None or kind not in perception.kinds:
        return found
    family = perception.kinds[kind].family
    end_id = perception.ids.end_id(family)
    whole = len(ids) - list(ids)[::-1].index(end_id) if end_id in ids else 0
    try:
        spans = perception.ids.spans(family, ids[:whole])
    except MalformedSpan:
        spans = []
    return replace(found, codes=spans[-1].codes, map_end=spans[-1].end) if spans else found


def _coordinates(text: str) -> Written:
    """What an answer holds beside a map."""
    named = mentions(text)
    boxes = tuple(mention.place for mention in named if len(mention.place) == 4)
    points = {each.letter: (each.place[0], each.place[1]) for each in named if each.letter and len(each.place) == 2}
    values = {
        each.letter: each.value for each in named if each.letter and len(each.place) == 2 and each.value is not None
    }
    return Written(boxes=boxes, points=points, values=values)
