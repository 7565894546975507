"""The answer that a text states, found by tables of the forms of a final statement; no judge model.

The tables are LETTER_STATEMENTS, CHOICE_STATEMENTS (names), TOTAL_STATEMENTS and COUNT_STATEMENTS (numbers). First, all
that states no answer is removed: perception tokens, coordinates, list numbers, questions (an echo of the prompt), lists
of alternatives, negations. A text without a final statement, or with contradicting ones, is unparsable: None.
"""

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import groupby
from typing import Literal, NamedTuple

AnswerKind = Literal["letter", "number", "choice", "mask"]
NUMBER_WORDS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty"),
)
_ANY_WORD = "|".join(sorted(NUMBER_WORDS, key=len, reverse=True))

# What the names in braces stand for in a pattern; a blank is any white space. Case is ignored but in {L}, a letter,
# which is treated alike whichever it is: no pattern may hold a word of one letter.
_MACROS = {
    "{ANSWER}": r"(?:\b(?:answer|correct (?:option|choice|letter|point|number|count))\b|\\boxed)"
    r"(?:[\s:={(]|{FILLER}\b)*",
    "{FILLER}": r"\b(?:is|would|must|should|be|the|therefore|thus|so|that|there|are)",
    "{IS}": r"(?: (?:that|which))? (?:is|are|appears|seems|looks|would be|must be)(?: {ADVERB})* ",
    "{ADVERB}": r"(?:to be|the|one|marked|point|that|which|is|by far|much|clearly|therefore|thus|probably|likely"
    r"|definitely|indeed|also|actually|slightly|located|positioned)",
    "{ONE_IS}": r"(?: (?:marked|points?|one|marker|option|object|of|the|these|two|to|camera|viewer|observer|us))*"
    r"(?: (?:is|must be|would be)|:)(?: (?:therefore|clearly|the))*\s*",
    "{END}": r"(?=\s*(?:[.,;:!?()}\n]|$|(?:because|since|as|for|which|that is|and|but|not|due|given|based|being|in|on"
    r"|at|with|than|here)\b))",
    "{POINT}": r"(?:\b(?:marked )?(?:point|option|choice|letter|marker) )?(?:\(\s*)?{L}(?:\s*\))?",
    "{L}": r"(?<![\w'’\-])(?-i:[A-Z])(?![\w'’]|-\w)",
    "{COUNT}": r"(?:{DIGITS}|(?<![\w\-])(?:{WORDS})\b)(?!-| (?:{WORDS}|hundred|thousand|dozen|more|other|can|could)\b)",
    "{DIGITS}": r"(?<![\w.\-–/])(?<!\d,)\d+(?![\w\-–%/]|[.,]\d)",
    "{WORDS}": _ANY_WORD,
    "{NO}": r"\b(?:none|no(?= \w)(?! (?:other|more|additional|further|doubt|idea|answer|way|longer|one|need)))\b",
    "{ABOUT}": r"(?:(?:exactly|only|just|about|around|approximately|roughly|clearly|in total,?|(?:a )?total of) )*",
    "{OTHER}": r"(?: (?!(?:{WORDS}|and|plus)\b)[a-z]+)",
}


class Statement(NamedTuple):
    """A form of a final statement."""

    precedence: int  # in a text, the statements of the lowest precedence decide
    pattern: str  # in the words of `_MACROS`; {V} is the value
    # of several of the same precedence the "last" counts; or none, unless they "agree"
    pick: Literal["last", "agree"] = "last"
    means: str | None = None  # the value of a pattern without {V}


LETTER_STATEMENTS = (
    Statement(1, r"{ANSWER}{V}{END}"),  # the answer is B; Answer: B; \boxed{B}
    Statement(1, r"{V}{IS}(?:correct\b|(?:right |final |my )?(?:answer|choice|option)\b)"),  # B is correct
    Statement(2, r"{V}{IS}(?:closest|nearest)\b"),  # B is the point closest to the camera
    Statement(2, r"\b(?:closest|nearest){ONE_IS}{V}{END}"),  # the closest point is B
    Statement(3, r"{V}{IS}(?:closer|nearer)\b(?! to (?:the )?{POINT})"),  # B is closer; not: B is closer to A
    Statement(3, r"\b(?:closer|nearer){ONE_IS}{V}{END}"),  # the closer one is B
    Statement(
        3, r"\b(?:choose|pick|select|go with|say|it is|it['’]s|must be|so|hence|thus),? (?:the )?{V}{END}"
    ),  # I choose B
    Statement(4, r"^\s*{V}[\s.:,)!]*$", "agree"),  # a line of its own
    Statement(5, r"\(\s*(?P<value>{L})\s*\)", "agree"),  # (B)
    # B: it is lower; not: A: far, B: near
    Statement(6, r"\A\s*{V}(?:\s*[).:,]| [-–—] | (?:because|since|as)\b)(?!(?s:.*)\b(?-i:[A-Z])\s*[:)])"),
)
CHOICE_STATEMENTS = (
    *(each for each in LETTER_STATEMENTS if each.precedence <= 3),
    Statement(4, "{V}", "agree"),  # the only name of the text
)
TOTAL_STATEMENTS = (
    Statement(1, r"{ANSWER}{V}"),  # the answer is 3
    Statement(2, r"\btotal(?: (?:number|count))?(?: of{OTHER}{1,8}?)?(?: (?:is|are|of)|\s*[:=])\s*{V}"),  # a total of 3
    Statement(2, r"{V}{OTHER}{0,4}?,? (?:in total|altogether|in all|overall)\b"),  # 3 cups in total
    Statement(2, r"\b(?:number|count)(?: of{OTHER}{1,8}?)?(?: is|\s*[:=])\s*{V}"),  # the number of cups is 3
    Statement(2, r"\b(?:so|therefore|thus|hence),? (?:(?:there (?:is|are)|i count|we have) )?{V}"),  # so there are 3
    Statement(2, r"=\s*{V}"),  # 2 + 1 = 3
)
# Only of sentences that do not count in parts.
COUNT_STATEMENTS = (
    Statement(3, r"\bthere(?: (?:is|are|was|were|(?:seem|appear)s? to be)|['’](?:s|re)) {V}", "agree"),
    Statement(3, r"\b(?:see|count(?:ed)?|find|found|spot|identify|detect|contains|shows|has|have) {V}", "agree"),
    Statement(3, r"\bthere (?:is|are|was|were)(?: not|n['’]t) (?:any|an?)\b(?! (?:other|more))", "agree", "0"),
    Statement(3, r"\b(?:do|can|could)\s?(?:not|n?['’]t) (?:see|find|spot) any\b(?! (?:other|more))", "agree", "0"),
    Statement(3, r"{NO}{OTHER}{1,4}? (?:visible|seen|present|shown|found|in (?:the|this))\b", "agree", "0"),
    Statement(4, r"^\s*{V}(?! of\b)(?: [a-z]+){0,3}[\s.!]*$", "agree"),  # a line of its own: 3; three red cups
    Statement(5, r"\A\s*{V}(?! of\b)", "agree"),  # three cups stand on the table
    Statement(6, r"(?<!\bthan\s)(?<!\bat\sleast\s)(?<!\bat\smost\s)(?P<value>(?!one\b){COUNT})", "agree"),  # no other
)
_LETTER = r"(?:\b(?:marked )?(?:point|option|choice|letter|marker) )?(?:\(\s*)?(?P<value>{L})(?:\s*\))?"
_NUMBER = r"{ABOUT}(?:\(\s*)?(?P<value>{COUNT}|\ba single\b|{NO})(?:\s*\))?"

# What is taken out of every text, and what states no letter and no name.
_NO_STATEMENTS = (
    r"^\s*\d+[.)](?=[^\S\n]+\S)",  # the number of a list's item
    r"<[^<>\s]*>",  # tokens
    r"[(\[][\s\d.,]*,[\s\d.,]*[)\]]",  # coordinates
    r"[*`\"“”$]|__|(?<!\w)['‘’]|['‘’](?!\w)",  # emphasis and quotation marks
    r"(?:^|(?<=[.!?\n]))[^.!?\n]*\?",  # questions
    r"\b(?:which (?:of|point|marked)|how many)\b(?:[^.!?:;,\n]|,(?=\s*{POINT}))*",  # indirect ones
)
_NO_CHOICES = (
    r"{POINT}(?:\s*,\s*{POINT}){0,25}\s*,?\s*\b(?:(?:or|nor) {POINT}|and {POINT}(?! is\b))",  # A, B or C
    r"{POINT}(?:\s*,\s*{POINT}){2,25}|{POINT}\s*,\s*{POINT}(?=\s*(?:[.;\n]|$))",  # A, B
    r"\bnot (?:the )?{POINT}",
    r"{POINT}{IS}(?:farther|further|farthest|furthest|behind)\b",
)
_CLAUSE = re.compile(r"[.;:!,\n]|\b(?:but|so|therefore|thus|hence|then)\b", re.IGNORECASE)
_NEGATION = re.compile(r"\b(?:not|never|neither|nor|if|whether|unless|cannot)\b|n['’]t\b", re.IGNORECASE)
_SEQUENCE = r"\b(?:\d+|{WORDS})(?:,\s*(?:and )?(?:\d+|{WORDS})\b)+"
# Alternatives and what is denied, which state no number: 2 or 3, two to four, not 5.
_NO_NUMBERS = (r"{COUNT} (?:or|to) {COUNT}", r"\bnot {COUNT}(?=\s*(?:[.,;)\n]|$))")
# A sentence, and in it a count with further ones: "one cup on the left and two on the right".
_SENTENCE = r"(?:[^.!?:(\n]|\.(?=\d))+"
_FURTHER = r"(?:,|\band\b|\bplus\b|\+)[^,]*?(?!(?:zero|0)\b){COUNT}"


def stated_letter(text: str) -> str | None:
    """The letter that a text states, upper case; None if it states none."""
    return _final(LETTER_STATEMENTS, _without(_NO_CHOICES, _without(_NO_STATEMENTS, text)), value=_LETTER)


def stated_number(text: str) -> str | None:
    """The whole number that a text states, in digits without leading zeros; None if it states none."""
    text = _compiled(_SEQUENCE).sub(_last_of_sequence, _without(_NO_NUMBERS, _without(_NO_STATEMENTS, text)))
    total = _final(TOTAL_STATEMENTS, text, value=_NUMBER, read=_digits)
    return total or _final(COUNT_STATEMENTS, _without_parts(text), value=_NUMBER, read=_digits)


def named_number(text: str) -> str | None:
    """The number in digits that a text is as a whole, such as an option: "3", "Three"; None for "more than 3"."""
    text = text.strip().rstrip(".").lower()
    known = text in NUMBER_WORDS or text == "none" or (text.isascii() and text.isdigit())
    return _digits(text) if known else None


def stated_choice(text: str, choices: Sequence[str]) -> str | None:
    """Which of some names a text states, as it stands in `choices`; None if it states none."""
    names = "|".join(re.escape(choice).replace(r"\ ", " ") for choice in sorted(choices, key=len, reverse=True))
    point = rf"(?:\bthe )?\b(?:{names})\b(?: \([^()]*\))?"
    text = _without(_NO_CHOICES, _without(_NO_STATEMENTS, text), point=point)
    by_name = {" ".join(choice.lower().split()): choice for choice in choices}
    return _final(
        CHOICE_STATEMENTS,
        text,
        value=point.replace("(?:" + names, "(?P<value>" + names),
        point=point,
        read=lambda name: by_name[" ".join(name.lower().split())],
    )


def stated(text: str, *, kind: AnswerKind, choices: Sequence[str] = ()) -> str | None:
    """The answer of a kind that a text states; None if it states none.

    Args: text: all that the model wrote; kind: "letter", "number", "choice" for one of `choices`, or "mask", which no
        text states (`TaskFamily.answered`).
    """
    if kind == "mask":
        return None
    if kind == "choice":
        return stated_choice(text, choices)
    return stated_number(text) if kind == "number" else stated_letter(text)


def _final(
    statements: Sequence[Statement],
    text: str,
    *,
    value: str,
    point: str = _MACROS["{POINT}"],
    read: Callable[[str], str] = str,
) -> str | None:
    """The value of the final statement of a text.

    Args: value: pattern of {V}, with a group `value`; read: makes values comparable.
    """
    for _, group in groupby(statements, key=lambda statement: statement.precedence):
        found = []
        for statement in group:
            for match in _compiled(statement.pattern, value, point).finditer(text):
                if not _NEGATION.search(_CLAUSE.split(text[: match.start()])[-1]):
                    found.append((match.start(), statement.pick, read(statement.means or match["value"])))
        if found:
            differ = any(pick == "agree" for _, pick, _ in found) and len({value for _, _, value in found}) > 1
            return None if differ else max(found)[2]
    return None


@lru_cache(maxsize=1000)
def _compiled(pattern: str, value: str = "", point: str = _MACROS["{POINT}"]) -> re.Pattern[str]:
    """A pattern with its macros and blanks replaced."""
    macros = {**_MACROS, "{V}": value, "{POINT}": point}
    while (expanded := re.sub(r"\{[A-Z_]+\}", lambda name: macros[name[0]], pattern)) != pattern:
        pattern = expanded
    return re.compile(pattern.replace(" ", r"\s+"), re.IGNORECASE | re.MULTILINE)


def _without(patterns: Sequence[str], text: str, *, point: str = _MACROS["{POINT}"]) -> str:
    for pattern in patterns:
        text = _compiled(pattern, "", point).sub(" ", text)
    return text


def _without_parts(text: str) -> str:
    """The text without sentences that count in parts; of "three cups, one red and two blue" the total stays."""

    def whole(sentence: re.Match[str]) -> str:
        first, counts = _compiled("{COUNT}").search(sentence[0]), _compiled("{COUNT}").findall(sentence[0])
        if first is None or _compiled(_FURTHER).search(sentence[0], first.end()) is None:
            return sentence[0]
        total, *parts = (int(_digits(count)) for count in counts)
        return sentence[0][: first.end()] if len(parts) > 1 and total == sum(parts) else " "

    return _compiled(_SENTENCE).sub(whole, text)


def _last_of_sequence(match: re.Match[str]) -> str:
    """The last of "1, 2, 3"; other numbers stay as they are."""
    counted = re.findall(r"\b(?!and\b)\w+", match[0].lower())
    consecutive = [int(_digits(each)) for each in counted] == list(range(1, len(counted) + 1))
    return counted[-1] if consecutive else match[0]


def _digits(number: str) -> str:
    number = number.lower()
    if number in ("no", "none"):
        return "0"
    if number in NUMBER_WORDS:
        return str(NUMBER_WORDS.index(number))
    return str(int(number)) if number.isdigit() else "1"  # "a single"
