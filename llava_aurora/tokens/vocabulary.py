"""Perception tokens: how they are spelled, which ids they get, and how spans of them are read back.

No other file spells a token. A *family* is a set of numbered tokens (`<DEPTH_0>` … `<DEPTH_127>`), a *span* is one
group of codes in a text or in a sequence of ids, a *vocabulary* the ordered list of families that a model was given.
"""

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

from llava_aurora.errors import AuroraError

MASK_CELLS = (8, 16)  # of a side of a mask's box
_NUMBER = "(?:0|[1-9][0-9]*)"  # as Python writes an integer; the tokenizer knows no other form


class MalformedSpan(AuroraError):
    """A group of perception tokens that is not what its family prescribes; the message says where."""


class Span(NamedTuple):
    """One group of codes: `codes`, and the half-open range [start, end) of characters or ids that it fills."""

    start: int
    end: int
    codes: tuple[int, ...]


@dataclass(frozen=True)
class TokenFamily:
    """One kind of perception token."""

    name: str  # upper-case stem of its tokens: "DEPTH" gives `<DEPTH_0>`
    size: int  # number of codes; codes are 0 … size - 1
    lengths: tuple[int, ...]  # the allowed numbers of codes in one span, ascending
    delimited: bool  # True: written `<NAME_START>…<NAME_END>`, nothing between the codes; False: "(code,code,…)"
    kind: str = ""  # name of the token kind that it belongs to; `name` in lower case if left out

    def __post_init__(self) -> None:
        if not self.kind:
            object.__setattr__(self, "kind", self.name.lower())
        if not re.fullmatch(r"[A-Z][A-Z0-9]*", self.name):
            raise ValueError(f"a token family's name is upper-case letters and digits, not {self.name!r}")
        if self.size < 2 or not self.lengths or min(self.lengths) < 1 or list(self.lengths) != sorted(self.lengths):
            raise ValueError(f"{self.name}: needs at least 2 codes and ascending span lengths of at least 1")

    @property
    def start(self) -> str:
        return f"<{self.name}_START>"

    @property
    def end(self) -> str:
        return f"<{self.name}_END>"

    def token(self, code: int) -> str:
        """Raises ValueError if `code` is not in [0, size)."""
        if not 0 <= code < self.size:
            raise ValueError(f"{self.name} code {code} is outside 0…{self.size - 1}")
        return f"<{self.name}_{code}>"

    @cached_property
    def tokens(self) -> tuple[str, ...]:
        """Every token in the order in which it is added to a tokenizer: START and END first, if there are any."""
        delimiters = (self.start, self.end) if self.delimited else ()
        return delimiters + tuple(f"<{self.name}_{code}>" for code in range(self.size))

    def text(self, codes: Sequence[int]) -> str:
        """Writes one span. Raises ValueError for a wrong number of codes or a code out of range."""
        if len(codes) not in self.lengths:
            raise ValueError(f"a {self.name} span holds {self._lengths_in_words} codes, not {len(codes)}")
        tokens = [self.token(int(code)) for code in codes]
        if self.delimited:
            return self.start + "".join(tokens) + self.end
        return "(" + ",".join(tokens) + ")"

    def parse(self, text: str) -> list[Span]:
        """Finds every span in `text`, by character offsets; blanks between the tokens do not matter.

        Only canonical names are tokens: `<DEPTH_003>` and `<depth_3>` are text, as they are for the tokenizer. Raises
        MalformedSpan for a span of a wrong length, an unknown code, a missing delimiter or a stray token.
        """
        spans: list[Span] = []
        position = 0
        for match in self._span_pattern.finditer(text):
            self._refuse_strays(text, position, match.start())
            codes = tuple(int(code) for code in self._code_pattern.findall(match.group()))
            self._check(codes, f"at character {match.start()}")
            spans.append(Span(match.start(), match.end(), codes))
            position = match.end()
        self._refuse_strays(text, position, len(text))
        return spans

    def whole(self, text: str) -> list[Span]:
        """The spans of a text that was perhaps cut off, up to the first that is malformed."""
        while True:
            try:
                return self.parse(text)
            except MalformedSpan:
                text = text[: text.rindex("<")]

    def check(self, text: str) -> None:
        """Raises MalformedSpan as `parse` does, and for a name that only looks like one of the family's tokens."""
        if found := self._look_alike.search(text):
            raise MalformedSpan(
                f"{found.group()} at character {found.start()} is an unknown token; {self.name} tokens are written"
                f" {self.token(0)}, {self.token(1)} and so on"
            )
        self.parse(text)

    def compact(self, text: str) -> str:
        """The text with spans as `text` writes them: without the blanks and line feeds between their tokens."""
        if f"<{self.name}_" not in text:
            return text
        return self._span_pattern.sub(lambda span: "".join(span.group().split()), text)

    def count(self, text: str) -> int:
        """How many tokens of this family a text holds, delimiters included."""
        return text.count(f"<{self.name}_")

    def plain(self, text: str) -> str:
        """The text with each code token written as its number: "(<PIXEL_1>,<PIXEL_2>)" becomes "(1,2)"."""
        return self._code_pattern.sub(r"\1", text)

    @property
    def any_code(self) -> str:
        """A regular expression for a code token of this family, whatever its number."""
        return rf"<{self.name}_\d+>"

    @cached_property
    def _code_pattern(self) -> re.Pattern[str]:
        return re.compile(rf"<{self.name}_({_NUMBER})>")

    @cached_property
    def _look_alike(self) -> re.Pattern[str]:
        canonical = rf"{self.name}_(?:{_NUMBER}|START|END)>"
        return re.compile(rf"(?:<(?!{canonical})|&lt;)\s*(?i:{self.name}[_\s-]*(?:\d+|START|END))\s*(?:>|&gt;)")

    @cached_property
    def _span_pattern(self) -> re.Pattern[str]:
        code = rf"<{self.name}_{_NUMBER}>"
        if self.delimited:
            return re.compile(rf"{self.start}\s*(?:{code}\s*)*{self.end}")
        return re.compile(rf"\(\s*{code}(?:\s*,\s*{code})*\s*\)")

    def _refuse_strays(self, text: str, start: int, end: int) -> None:
        if stray := re.compile(rf"<{self.name}_(?:{_NUMBER}|START|END)>").search(text, start, end):
            raise MalformedSpan(f"{stray.group()} at character {stray.start()} belongs to no complete {self.name} span")

    def _check(self, codes: Sequence[int], where: str) -> None:
        if len(codes) not in self.lengths:
            raise MalformedSpan(
                f"the {self.name} span {where} has {len(codes)} codes instead of {self._lengths_in_words}"
            )
        for index, code in enumerate(codes):
            if not 0 <= code < self.size:
                raise MalformedSpan(
                    f"code {code}, number {index} of the {self.name} span {where}, is outside 0…{self.size - 1}"
                )

    @property
    def _lengths_in_words(self) -> str:
        return " or ".join(map(str, self.lengths))


def depth_family(*, codebook_size: int = 128, codes_per_map: int = 100, labels: int = 0) -> TokenFamily:
    """The tokens of a depth map: one code per cell of a square grid, row by row. Defaults: AURORA's 10 × 10 of 128.

    Args: labels: row labels of a map; maps with and without them can be read.
    """
    lengths = (codes_per_map, codes_per_map + labels) if labels else (codes_per_map,)
    return TokenFamily("DEPTH", codebook_size + labels, lengths, delimited=True)


def pixel_family(*, frame: int = 336) -> TokenFamily:
    """The tokens of coordinates in a square frame: two make a point (x, y), four a box (x1, y1, x2, y2)."""
    return TokenFamily("PIXEL", frame, (2, 4), delimited=False, kind="box")


def mask_family(*, cells: int = 8) -> TokenFamily:
    """The tokens of a mask: four edges, then a code for each eight of cells × cells bits (mask.py)."""
    return TokenFamily("MASK", 256, (4 + cells**2 // 8,), delimited=True)


def any_mask_family() -> TokenFamily:
    """The tokens of masks, which are the same for any number of cells, in spans of each allowed length."""
    return replace(mask_family(), lengths=tuple(mask_family(cells=cells).lengths[0] for cells in MASK_CELLS))


def color_family() -> TokenFamily:
    """The tokens of a colour: its levels of red, green and blue, 0 to 255 each."""
    return TokenFamily("RGB", 256, (3,), delimited=True, kind="color")


def by_kind(families: Iterable[TokenFamily]) -> dict[str, TokenFamily]:
    """The families by the name of their token kind."""
    return {family.kind: family for family in families}


@dataclass(frozen=True)
class PerceptionVocabulary:
    """The families a model knows, in the order in which their tokens follow one another."""

    families: tuple[TokenFamily, ...]

    def __post_init__(self) -> None:
        names = [family.name for family in self.families]
        if len(set(names)) != len(names):
            raise ValueError(f"token families must have different names, not {names}")

    @property
    def tokens(self) -> tuple[str, ...]:
        return tuple(token for family in self.families for token in family.tokens)

    def remove_from(self, text: str) -> str:
        """The text without any of these tokens, such as a tokenizer is trained on."""
        names = "|".join(family.name for family in self.families)
        return re.sub(rf"<(?:{names})_(?:\d+|START|END)>", "", text)

    def add_to(self, tokenizer: Any) -> int:
        """Adds the families that the tokenizer lacks, behind all its tokens. Returns how many tokens are new.

        They are added as ordinary tokens, so that `skip_special_tokens=True` keeps them. Raises AuroraError if the
        tokenizer has some tokens of a family, but not all of them in this order.
        """
        known = tokenizer.get_vocab()
        new: list[str] = []
        for family in self.families:
            present = [token for token in family.tokens if token in known]
            if not present:
                new += family.tokens
            elif len(present) < len(family.tokens):
                missing = next(token for token in family.tokens if token not in known)
                raise AuroraError(
                    f"{tokenizer.name_or_path}: the tokenizer has {len(present)} of the {len(family.tokens)}"
                    f" {family.name} tokens already ({present[0]} is there, {missing} is not); start from a base model"
                    " without any, or from one made with the same settings"
                )
        added = tokenizer.add_tokens(new) if new else 0
        self.bind(tokenizer)
        return added

    def bind(self, tokenizer: Any) -> "PerceptionIds":
        """Looks the ids up. Raises AuroraError if a token is missing or the ids of a family are not consecutive."""
        first_ids = {}
        for family in self.families:
            ids = tokenizer.convert_tokens_to_ids(list(family.tokens))
            for offset, (token, found) in enumerate(zip(family.tokens, ids, strict=True)):
                if found is None or found == tokenizer.unk_token_id or found != ids[0] + offset:
                    raise AuroraError(
                        f"{tokenizer.name_or_path}: the tokenizer gives {token} id {found} instead of"
                        f" {ids[0] + offset}; it is not the one this model was trained with"
                    )
            first_ids[family.name] = ids[0]
        separators = {f.name: _separator_ids(f, tokenizer) for f in self.families if not f.delimited}
        return PerceptionIds(vocabulary=self, first_ids=first_ids, separators=separators)


@dataclass(frozen=True)
class PerceptionIds:
    """A vocabulary on one tokenizer."""

    vocabulary: PerceptionVocabulary  # the families
    first_ids: Mapping[str, int]  # the id of each family's first token; the others follow it
    separators: Mapping[str, tuple[int, ...]]  # of each family that is not delimited, the ids between two codes

    def start_id(self, family: TokenFamily) -> int:
        return self.first_ids[family.name]

    def end_id(self, family: TokenFamily) -> int:
        return self.first_ids[family.name] + 1

    def first_code_id(self, family: TokenFamily) -> int:
        """The id of code 0."""
        return self.first_ids[family.name] + (2 if family.delimited else 0)

    def code(self, family: TokenFamily, token_id: int) -> int | None:
        """The code that an id stands for, or None if it is no code of this family."""
        code = token_id - self.first_code_id(family)
        return code if 0 <= code < family.size else None

    def ids(self, family: TokenFamily, codes: Sequence[int]) -> list[int]:
        """The ids of one span of a delimited family, delimiters included."""
        first = self.first_code_id(family)
        return [self.start_id(family), *(first + int(code) for code in codes), self.end_id(family)]

    def spans(self, family: TokenFamily, ids: Sequence[int]) -> list[Span]:
        """Finds every span of a family in a sequence of ids, by positions.

        Raises MalformedSpan for a span of a wrong length, or a stray or missing token; it says at which position.
        """
        walk = self._delimited_spans if family.delimited else self._separated_spans
        spans = []
        for span in walk(family, [int(token_id) for token_id in ids]):
            family._check(span.codes, f"at position {span.start}")
            spans.append(span)
        return spans

    def _delimited_spans(self, family: TokenFamily, ids: list[int]) -> Iterator[Span]:
        start_id, end_id = self.start_id(family), self.end_id(family)
        opened: int | None = None
        codes: list[int] = []
        for position, token_id in enumerate(ids):
            code = self.code(family, token_id)
            if token_id == start_id and opened is None:
                opened, codes = position, []
            elif token_id == end_id and opened is not None:
                yield Span(opened, position + 1, tuple(codes))
                opened = None
            elif code is not None and opened is not None:
                codes.append(code)
            elif opened is not None:
                raise MalformedSpan(f"id {token_id} at position {position} stands inside a {family.name} span")
            elif code is not None or token_id == end_id:
                raise MalformedSpan(f"id {token_id} at position {position} belongs to no {family.name} span")
        if opened is not None:
            raise MalformedSpan(f"the {family.name} span at position {opened} has no {family.end}")

    def _separated_spans(self, family: TokenFamily, ids: list[int]) -> Iterator[Span]:
        separator = list(self.separators[family.name])
        position = 0
        while position < len(ids):
            code = self.code(family, ids[position])
            if code is None:
                position += 1
                continue
            start, codes = position, [code]
            position += 1
            while ids[position : position + len(separator)] == separator and position + len(separator) < len(ids):
                following = self.code(family, ids[position + len(separator)])
                if following is None:
                    break
                codes.append(following)
                position += len(separator) + 1
            yield Span(start, position, tuple(codes))


def _separator_ids(family: TokenFamily, tokenizer: Any) -> tuple[int, ...]:
    first, last = tokenizer.convert_tokens_to_ids([family.token(0), family.token(family.size - 1)])
    ids = tokenizer(family.text([0] * family.lengths[-1]), add_special_tokens=False).input_ids
    places = [place for place, token_id in enumerate(ids) if first <= token_id <= last]
    between = {tuple(ids[left + 1 : right]) for left, right in itertools.pairwise(places)}
    if len(between) != 1 or () in between:
        raise AuroraError(
            f"{tokenizer.name_or_path}: the tokenizer does not keep the codes of a {family.name} span apart;"
            " it is not a SentencePiece tokenizer with added tokens"
        )
    return between.pop()
