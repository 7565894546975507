"""What a text answers: one strict parser, and no judge model.

Of what a text says, the first of these that is there counts, and of several of one kind the last:

    said to be the answer       "The answer is (B).", "Answer: seven", "answer is B"
    a conclusion                "so B is closest", "there are seven cups", "there are no cups"
    in brackets                 "(B)", letters alone
    alone, or in its last line  "B.", "7", "seven cups"; a number in digits may stand anywhere

Coordinates, perception tokens, the numbers of a list and questions say nothing, so that neither boxes nor an echo of
the question are taken for an answer. What says nothing is None: unparsable, and counted as such.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Literal, get_args

AnswerKind = Literal["letter", "number", "choice"]
ANSWER_KINDS: tuple[AnswerKind, ...] = get_args(AnswerKind)
NUMBER_WORDS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty"),
)

_TOKEN = re.compile(r"<[^<>\s]*>")
_COORDINATES = re.compile(r"[(\[][\s\d.,]*,[\s\d.,]*[)\]]")
_ENUMERATION = re.compile(r"(?m)^\s*\d+[.)](?=\s+\S)")
_QUESTION = re.compile(r"[^.!?\n]*\?")
_ANSWER_IS = re.compile(r"\banswer\b(?:\s+(?:is|would\s+be|must\s+be)\b)?\s*(?P<colon>[:=])?", re.IGNORECASE)
# What may stand between "the answer is" and the answer.
_FILLER = re.compile(r"(?:[\s:*\"'`]|(?:the|point|option|letter|number|therefore|thus|so|that|there|are|is)\b)*", re.I)

_LETTER = re.compile(r"\(\s*([A-Z])\s*\)|([A-Z])(?![\w'’])(?!\s+[a-z])|([B-HJ-Z])(?![\w'’])")
_LETTER_IN_BRACKETS = re.compile(r"(?<!not )\(\s*([A-Z])\s*\)")
_CLOSEST = r"\s+is\s+(?:clearly\s+|therefore\s+)?(?:the\s+)?(?:one\s+)?(?:closest|nearest|closer|nearer)\b"
_START_OF_CLAUSE = r"(?:^|[.;:!\n]|\b(?:so|that|therefore|thus|hence),?\s)\s*(?:the\s+)?(?:marked\s+)?(?:point|option)?"
_LETTER_CONCLUSION = re.compile(rf"{_START_OF_CLAUSE}\s*\(?([A-Z])\)?{_CLOSEST}", re.IGNORECASE)

_WORDS = "|".join(sorted(NUMBER_WORDS, key=len, reverse=True))
_DIGITS = r"(?<![\w.\-–])(?<!\d,)\d+(?![\w\-–]|[.,]\d)"
_NUMBER = re.compile(rf"\(\s*(\d+)\s*\)|({_DIGITS})|\b({_WORDS}|none)\b(?!-)", re.IGNORECASE)
_ANY_DIGITS = re.compile(_DIGITS)
_NUMBER_CONCLUSION = re.compile(
    rf"\b(?:there\s+(?:are|is|were|was)|i\s+(?:count|counted|see)|(?:total|count|number)\s+(?:of|is|:))"
    rf"(?:\s+(?:exactly|only|a\s+total\s+of|in\s+total))?\s+({_DIGITS}|(?:{_WORDS}|no)\b(?!-))",
    re.IGNORECASE,
)


def stated_letter(text: str) -> str | None:
    """The letter that a text answers, upper case; None if it answers none."""
    text = _prose(text)
    said = [match[1] or match[2] or match[3] for match in _after_answer_is(text, _LETTER)]
    concluded = [letter for letter in _LETTER_CONCLUSION.findall(text) if letter.isupper()]
    alone = [line.strip(" .*\"'") for line in text.strip().splitlines()[-1:]]
    single = [re.sub(r"^(?:point|option)\s+", "", line, flags=re.IGNORECASE) for line in alone]
    found = said or concluded or _LETTER_IN_BRACKETS.findall(text) or [s for s in single if re.fullmatch("[A-Z]", s)]
    return found[-1] if found else None


def stated_number(text: str) -> str | None:
    """The whole number that a text answers, in digits without leading zeros; None if it answers none."""
    text = _prose(_ENUMERATION.sub(" ", text))
    said = [match[1] or match[2] or match[3] for match in _after_answer_is(text, _NUMBER)]
    found = said or _NUMBER_CONCLUSION.findall(text) or _ANY_DIGITS.findall(re.sub(r"\([^()]*\)", " ", text))
    if not found:
        alone = re.match(rf"(?:{_WORDS})\b(?!-)|none$", text.strip(" \n.*\"'"), re.IGNORECASE)
        found = [alone[0]] if alone else []
    return _digits(found[-1]) if found else None


def named_number(text: str) -> str | None:
    """The number in digits that a text is as a whole, such as an option: "3", "Three"; None for "more than 3"."""
    text = text.strip().rstrip(".").lower()
    known = text in NUMBER_WORDS or text == "none" or (text.isascii() and text.isdigit())
    return _digits(text) if known else None


def stated_choice(text: str, choices: Sequence[str]) -> str | None:
    """Which of some names a text answers, as it stands in `choices`; None if none, or several without a conclusion."""
    text = _prose(text)
    names = "|".join(re.escape(choice) for choice in sorted(choices, key=len, reverse=True))
    name = re.compile(rf"\b({names})\b", re.IGNORECASE)
    said = [match[1] for match in _after_answer_is(text, name)]
    concluded = re.findall(rf"\b({names})\b(?:\s*\([^()]*\))?{_CLOSEST}", text, re.IGNORECASE)
    mentioned = {each.lower() for each in name.findall(text)}
    found = said or concluded or (list(mentioned) if len(mentioned) == 1 else [])
    return next((choice for choice in choices if found and choice.lower() == found[-1].lower()), None)


def stated(text: str, *, kind: AnswerKind, choices: Sequence[str] = ()) -> str | None:
    """The answer of a kind that a text states; None if it states none.

    Args:
        text: all that the model wrote.
        kind: "letter", "number", or "choice" for one of `choices`.
    """
    if kind == "choice":
        return stated_choice(text, choices)
    return stated_number(text) if kind == "number" else stated_letter(text)


def stated_answer(text: str, *, task: str) -> str | None:
    """The answer of a record's task: a number for counting, else a letter."""
    return stated(text, kind="number" if task.startswith("counting") else "letter")


def _prose(text: str) -> str:
    """The text without tokens, coordinates and questions."""
    return _QUESTION.sub(" ", _COORDINATES.sub(" ", _TOKEN.sub(" ", text)))


def _after_answer_is(text: str, value: re.Pattern[str]) -> Iterator[re.Match[str]]:
    """What follows each "answer is" or "answer:", with nothing but filler words between."""
    for phrase in _ANSWER_IS.finditer(text):
        filler = _FILLER.match(text, phrase.end())
        ends = {filler.end() if filler else phrase.end(), phrase.end()}
        found = next((match for end in sorted(ends, reverse=True) if (match := value.match(text, end))), None)
        if found:
            yield found


def _digits(number: str) -> str:
    number = number.lower()
    if number in ("no", "none"):
        return "0"
    return str(NUMBER_WORDS.index(number) if number in NUMBER_WORDS else int(number))
