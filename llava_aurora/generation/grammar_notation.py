"""Two ways to write one grammar: as a regular expression, and as EBNF in the dialect of GBNF that engines read.

A grammar is built from a notation's methods alone, which return its parts as text. Both notations are written without
look-ahead and back-references, so that every engine can make an automaton of them.
"""

from abc import ABC, abstractmethod


class Notation(ABC):
    """The parts a grammar is made of. A part is text; only the notation that wrote it can read it."""

    @abstractmethod
    def literal(self, text: str) -> str:
        """Exactly this text, of at least one character."""

    @abstractmethod
    def character(self, characters: str, *, other: bool = False) -> str:
        """One of these characters; with `other`, any one that is none of them. No character of a class's own syntax."""

    @abstractmethod
    def sequence(self, *parts: str) -> str:
        """One after the other."""

    @abstractmethod
    def choice(self, *parts: str) -> str:
        """One of them."""

    @abstractmethod
    def repeated(self, part: str, least: int, most: int | None) -> str:
        """So many times; `most` None: any number."""

    @abstractmethod
    def named(self, name: str, part: str) -> str:
        """A part that is used in several places; `name` is of lower-case letters, digits and hyphens."""

    @abstractmethod
    def document(self, root: str) -> str:
        """The whole grammar."""

    def optional(self, part: str) -> str:
        return self.repeated(part, 0, 1)

    def any_number_of(self, part: str) -> str:
        return self.repeated(part, 0, None)

    def number(self, most: int) -> str:
        """0 to `most` in decimal digits, without leading zeros."""
        digits = str(most)
        shorter = [self._leading(1, 9, length - 1) for length in range(2, len(digits))]
        parts = [self._digits(0, 9), *shorter] if len(digits) > 1 else []
        for place, digit in enumerate(map(int, digits)):
            lowest = 1 if place == 0 and len(digits) > 1 else 0
            highest = digit if place == len(digits) - 1 else digit - 1
            if lowest <= highest:
                head = [self.literal(digits[:place])] if place else []
                parts.append(self.sequence(*head, self._leading(lowest, highest, len(digits) - place - 1)))
        return self.choice(*parts)

    def _leading(self, first: int, last: int, following: int) -> str:
        head = self._digits(first, last)
        return self.sequence(head, self.repeated(self._digits(0, 9), following, following)) if following else head

    def _digits(self, first: int, last: int) -> str:
        return self.character("".join(map(str, range(first, last + 1))))


class RegularExpression(Notation):
    """The syntax that Python's re, Rust's regex and the engines built on them have in common; to be matched in full."""

    def literal(self, text: str) -> str:
        return "".join(f"\\{c}" if c in r"\.^$|?*+()[]{}" else "\\n" if c == "\n" else c for c in text)

    def character(self, characters: str, *, other: bool = False) -> str:
        return f"[{'^' if other else ''}{_ranges(characters)}]"

    def sequence(self, *parts: str) -> str:
        return "".join(parts)

    def choice(self, *parts: str) -> str:
        return parts[0] if len(parts) == 1 else f"(?:{'|'.join(parts)})"

    def repeated(self, part: str, least: int, most: int | None) -> str:
        whole = part if _is_class(part) or len(part) == 1 else f"(?:{part})"
        return part if least == most == 1 else whole + _times(least, most)

    def named(self, name: str, part: str) -> str:
        return f"(?:{part})"

    def document(self, root: str) -> str:
        return root


class Ebnf(Notation):
    """GBNF, the EBNF of llama.cpp, which xgrammar and llguidance read: `root ::= …`, one rule a line."""

    def __init__(self) -> None:
        self.rules: dict[str, str] = {}

    def literal(self, text: str) -> str:
        escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        return f'"{escaped}"'

    def character(self, characters: str, *, other: bool = False) -> str:
        return f"[{'^' if other else ''}{_ranges(characters)}]"

    def sequence(self, *parts: str) -> str:
        return " ".join(parts)

    def choice(self, *parts: str) -> str:
        return parts[0] if len(parts) == 1 else f"({' | '.join(parts)})"

    def repeated(self, part: str, least: int, most: int | None) -> str:
        whole = part if _is_class(part) or part in self.rules else f"({part})"
        return part if least == most == 1 else whole + _times(least, most)

    def named(self, name: str, part: str) -> str:
        """Raises ValueError if another part has that name."""
        if self.rules.setdefault(name, part) != part:
            raise ValueError(f"rule {name} already exists with another definition")
        return name

    def document(self, root: str) -> str:
        # A root of more than one part would be cut into words by llguidance, each as long as it can be, and then text
        # takes the `<` of the token behind it.
        rules = {"root": "answer", "answer": root, **self.rules}
        return "".join(f"{name} ::= {part}\n" for name, part in rules.items())


def _times(least: int, most: int | None) -> str:
    short = {(0, None): "*", (1, None): "+", (0, 1): "?"}.get((least, most))
    if short is not None:
        return short
    if least == most:
        return f"{{{least}}}"
    return f"{{{least},{'' if most is None else most}}}"


def _is_class(part: str) -> bool:
    """Whether a part is one character class and nothing else; classes hold no brackets."""
    return part.startswith("[") and part.find("]") == len(part) - 1


def _ranges(characters: str) -> str:
    """ "0123456789" as 0-9. A line break is written \\n."""
    ordered = sorted(set(characters))
    if len(ordered) > 2 and ord(ordered[-1]) - ord(ordered[0]) == len(ordered) - 1:
        return f"{ordered[0]}-{ordered[-1]}"
    return "".join("\\n" if c == "\n" else c for c in ordered)
