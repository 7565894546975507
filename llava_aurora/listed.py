"""Options and flags that list values, separated by commas."""

from collections.abc import Callable
from typing import TypeVar

from llava_aurora.errors import AuroraError

Number = TypeVar("Number", int, float)


def listed(text: str) -> list[str]:
    """The values, without the blanks around them; none of an empty text."""
    return [value.strip() for value in text.split(",") if value.strip()]


def listed_numbers(text: str, flag: str, kind: Callable[[str], Number]) -> list[Number]:
    """The values as numbers. Raises AuroraError naming `flag` if one is no such number, or there is none."""
    try:
        return [kind(value) for value in listed(text) or [text]]
    except ValueError as error:
        raise AuroraError(f"{flag} {text}: expected numbers separated by commas") from error
