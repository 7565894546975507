"""What a text answers: the last letter in brackets, or the last whole number outside of coordinates. No judge model."""

import re

_LETTER = re.compile(r"\(\s*([A-Z])\s*\)")
_NUMBER = re.compile(r"(?<![\w.])(\d+)(?![\w]|\.\d)")
_IN_BRACKETS = re.compile(r"\([^()]*\)|<[^<>]*>")


def stated_letter(text: str) -> str | None:
    """The last letter in brackets, or a text that is one letter; None if there is none."""
    found = _LETTER.findall(text)
    if found:
        return found[-1]
    bare = text.strip().rstrip(".")
    return bare if re.fullmatch(r"[A-Z]", bare) else None


def stated_number(text: str) -> str | None:
    """The last whole number that is no coordinate (in brackets) and no part of a token; None if there is none."""
    found = _NUMBER.findall(_IN_BRACKETS.sub(" ", text))
    return str(int(found[-1])) if found else None


def stated_answer(text: str, *, task: str) -> str | None:
    """The answer of a record's task: a number for counting, else a letter."""
    return stated_number(text) if task.startswith("counting") else stated_letter(text)
