"""The rules of well-formed spans that the constraint keeps, applied one token id at a time."""

from typing import Any, NamedTuple, Protocol

from llava_aurora.tokens import TokenKind
from llava_aurora.tokens.vocabulary import PerceptionIds


class Choice(NamedTuple):
    """What may come next: only the ids in [first, stop), or anything but these and the id `besides`."""

    only: bool
    first: int
    stop: int
    besides: int = -1


TEXT = Choice(False, 0, 0)


class Rule(Protocol):
    """The rule of one kind of span. Its state is what it needs to know of the ids before; None outside of a span."""

    reach: int

    @property
    def outside(self) -> range:
        """Ids that cannot stand in text."""

    def alike(self) -> dict[int, int]:
        """The ids that matter to it, each with one id that stands for all of the same meaning."""

    def after(self, state: Any, token_id: int) -> Any:
        """The state behind one more id: one of the values of `alike`, or any that does not matter."""

    def choice(self, state: Any) -> Choice:
        """What may come next in an open span."""


class DelimitedRule:
    """START, exactly so many codes, END (depth maps). Its state are the codes of the open span."""

    def __init__(self, *, kind: TokenKind, ids: PerceptionIds) -> None:
        family = kind.family
        self.kind = kind
        self.start, self.end = ids.start_id(family), ids.end_id(family)
        self.first, self.stop = ids.first_code_id(family), ids.first_code_id(family) + family.size
        self.length = family.lengths[-1]
        self.reach = self.length + 1
        self.narrows = type(kind).allowed_codes is not TokenKind.allowed_codes and not kind.allowed_by_place

    @property
    def outside(self) -> range:
        """Ids that cannot stand in text: everything but START."""
        return range(self.end, self.stop)

    def alike(self) -> dict[int, int]:
        """START and the codes; all codes are alike where none depends on another, so that maps share their states."""
        codes = range(self.first, self.stop)
        return {self.start: self.start} | {token_id: token_id if self.narrows else self.first for token_id in codes}

    def after(self, codes: tuple[int, ...] | None, token_id: int) -> tuple[int, ...] | None:
        """The codes so far, None outside of a span."""
        if token_id == self.start:
            return ()
        if codes is None or len(codes) == self.length or not self.first <= token_id < self.stop:
            return None
        return (*codes, token_id - self.first)

    def choice(self, codes: tuple[int, ...]) -> Choice:
        """What may come next in an open span."""
        if len(codes) == self.length:
            return Choice(True, self.end, self.end + 1)
        allowed = self.kind.allowed_codes(codes)
        return Choice(True, self.first + allowed.start, self.first + allowed.stop)


class SeparatedRule:
    """Codes with a separator between them, in one of several lengths (points of 2, boxes of 4).

    Its state are the last codes, as many as the longest span has, and how much of a separator follows them.
    """

    def __init__(self, *, kind: TokenKind, ids: PerceptionIds) -> None:
        family = kind.family
        self.kind = kind
        self.first, self.stop = ids.first_code_id(family), ids.first_code_id(family) + family.size
        self.separator = ids.separators[family.name]
        self.lengths = family.lengths
        self.reach = self.lengths[-1] * (1 + len(self.separator))

    @property
    def outside(self) -> range:
        """None: a code may stand anywhere in text, as the first of a span."""
        return range(0)

    def alike(self) -> dict[int, int]:
        """The codes and what separates them, all different."""
        return {token_id: token_id for token_id in (*range(self.first, self.stop), *self.separator)}

    def after(self, state: tuple[tuple[int, ...], int] | None, token_id: int) -> tuple[tuple[int, ...], int] | None:
        """The state behind one more id; None where no code stands, with or without a separator."""
        codes, progress = state or ((), 0)
        if self.first <= token_id < self.stop:
            before = codes if progress == len(self.separator) else ()
            return (*before, token_id - self.first)[-self.lengths[-1] :], 0
        if codes and progress < len(self.separator) and token_id == self.separator[progress]:
            return codes, progress + 1
        return None

    def choice(self, state: tuple[tuple[int, ...], int]) -> Choice:
        """What may come next behind a code and perhaps the beginning of a separator."""
        codes, progress = state
        missing = self.separator[progress:]
        allowed = self.kind.allowed_codes(codes) if len(codes) < self.lengths[-1] else range(0)
        if not missing:
            if not allowed:  # text that happens to look like a separator: no code may follow it
                return Choice(False, self.first, self.stop)
            return Choice(True, self.first + allowed.start, self.first + allowed.stop)
        if len(codes) not in self.lengths:
            return Choice(True, missing[0], missing[0] + 1)
        complete_separator = missing[0] if not allowed and len(missing) == 1 else -1
        return Choice(False, self.first, self.stop, complete_separator)
