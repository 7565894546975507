"""Forms: which texts a field of a template may be. A grammar, an example and a description are all derived from them.

A form says how something is written and knows no value: `Listed(Sequence(Letter(), Literal(" "), Coordinates(2)))` is
any list of points. The values of single records are written and read by their families (depth.py, counting.py).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from llava_aurora.tokens.vocabulary import TokenFamily

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class Span:
    """A whole span of a token kind. Args: kind: its name, such as "depth"."""

    kind: str


@dataclass(frozen=True)
class Coordinates:
    """A point (2 numbers) or a box (4), as tokens, or as plain numbers for a model without tokens for them."""

    length: int


@dataclass(frozen=True)
class Letter:
    """A capital letter, the name of a marked point."""


@dataclass(frozen=True)
class Number:
    """A whole number without leading zeros, from 0 to `most`."""

    most: int


@dataclass(frozen=True)
class Digits:
    """A number of exactly `length` digits."""

    length: int


@dataclass(frozen=True)
class Words:
    """Any text of one line, such as the name of a thing. Args: example: one of them."""

    example: str = "thing"


@dataclass(frozen=True)
class Literal:
    text: str


@dataclass(frozen=True)
class Sequence:
    """One form after the other."""

    parts: tuple["Form", ...]


@dataclass(frozen=True)
class Listed:
    """One or more of a form."""

    part: "Form"  # what is listed
    between: str  # what stands between two of them
    last: str | None = None  # what may stand before the last one instead
    example: int = 5  # how many an example has


Form: TypeAlias = Span | Coordinates | Letter | Number | Digits | Words | Literal | Sequence | Listed


def sequence(*parts: Form | str) -> Sequence:
    """A sequence in which a text stands for itself."""
    return Sequence(tuple(Literal(part) if isinstance(part, str) else part for part in parts))


def example(form: Form, families: Mapping[str, TokenFamily], number: int = 0) -> str:
    """Some text of this form.

    Args:
        families: the token families of a model, by token kind. A span of a kind that it lacks is an empty text.
        number: place in a list, which letters and numbers count.
    """
    match form:
        case Span(kind):
            family = families.get(kind)
            return family.text([0] * family.lengths[-1]) if family else ""
        case Coordinates(length):
            return families["box"].text([0] * length) if "box" in families else f"({','.join('0' * length)})"
        case Letter():
            return LETTERS[number]
        case Number():
            return str(number + 1)
        case Digits(length):
            return "0" * length
        case Words(text) | Literal(text):
            return text
        case Sequence(parts):
            return "".join(example(part, families, number) for part in parts)
        case Listed(part, between, last, count):
            *first, final = [example(part, families, place) for place in range(count)]
            return f"{between.join(first)}{between if last is None else last}{final}"
