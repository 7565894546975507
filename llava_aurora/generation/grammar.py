"""The constraint of constraint.py as a grammar over text, for engines that take no Python (structured outputs).

Free text, and in it well-formed spans: START, exactly so many codes, END; groups of coordinates in their lengths. No
perception token stands outside of a span. With a task the whole answer is prescribed, in the wording of its prompts.

A grammar reads characters where the processor reads tokens. It differs from the processor in three things:

- Looser: it does not know `allowed_codes`. A box may have x2 <= x1, and one may begin at the frame's edge. A regular
  expression would have to tell all first corners apart, 112,225 of them in a frame of 336.
- Stricter: text may not hold the beginning of a token (`<DEPTH_`), in whichever pieces it is spelled; nor, behind the
  last code of a span, what reads like the separator (`,`), which the processor rules out as a token of its own alone.
- An engine may spell a token in ordinary pieces. Only the text is then the same, not what the model reads. llguidance
  cannot but do so, since it takes every added token between `<` and `>` for one without text; xgrammar does not.
"""

import string
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from llava_aurora.errors import AuroraError
from llava_aurora.generation.grammar_notation import Ebnf, Notation, RegularExpression
from llava_aurora.tasks import forms
from llava_aurora.tasks.prompts import Prompts
from llava_aurora.tasks.registry import family_of, task_named
from llava_aurora.tasks.task import Task
from llava_aurora.tokens.perception import PerceptionTokens
from llava_aurora.tokens.vocabulary import PerceptionVocabulary, TokenFamily, by_kind

NOTATIONS: Mapping[str, type[Notation]] = {"regex": RegularExpression, "ebnf": Ebnf}
MOST_COORDINATE = 999  # as a plain number
# States of the constraint that belong to no family.
FREE, END = "free", "end"


def grammar(
    vocabulary: PerceptionVocabulary,
    *,
    notation: str,
    blank: str = "",
    task: str | None = None,
    prompts: Prompts | None = None,
    values: bool = False,
) -> str:
    """The grammar of what a model may answer.

    Args:
        notation: "regex", to be matched in full, or "ebnf".
        blank: what the tokenizer puts between a perception token and the text behind it (`blank_of`).
        task: name of a task whose answer is prescribed; None allows any text around well-formed spans.
        prompts: the wording of the task's answers; the one that records are written with by default.
        values: the model was taught to state how close each point is (--value_step), so that the task's answers do.
    Raises AuroraError for an unknown notation or task, or a task with a span of a kind that the model lacks.
    """
    if notation not in NOTATIONS:
        raise AuroraError(f"unknown notation {notation!r}; available: {', '.join(NOTATIONS)}")
    write = NOTATIONS[notation]()
    if task is None:
        return write.document(_Constraint(write, vocabulary, blank).root())
    answer = _Answer(write, vocabulary, blank)
    return write.document(answer.root(task_named(task), prompts or Prompts(), values=values))


def grammar_of_model(
    folder: str | Path, *, notation: str, task: str | None = None, prompts: Prompts | None = None
) -> str:
    """The grammar of a trained model, from its folder (ours, or one that was exported); no weights are read.

    Raises AuroraError as `grammar` does, or if the folder holds no model with perception tokens.
    """
    from llava_aurora.files import read_json_object
    from llava_aurora.model.folders import load_tokenizer

    folder = Path(folder)
    block = read_json_object(folder / "config.json", what="configuration of the model").get("aurora")
    if block is None:
        raise AuroraError(f"{folder}: a model without perception tokens; there is nothing to constrain")
    tokenizer = load_tokenizer(folder)
    perception = PerceptionTokens.from_config(block, folder=folder, tokenizer=tokenizer)
    blank = blank_of(tokenizer, perception.vocabulary)
    return grammar(
        perception.vocabulary,
        notation=notation,
        blank=blank,
        task=task,
        prompts=prompts,
        values=bool(perception.values),
    )


def blank_of(tokenizer: Any, vocabulary: PerceptionVocabulary) -> str:
    """What the tokenizer puts between a perception token and text: " " for the legacy SentencePiece one, else nothing.

    Engines read it as part of the text, since their decoders keep it.
    """
    ids = tokenizer(f"{vocabulary.tokens[0]}.", add_special_tokens=False).input_ids
    return " " if tokenizer.convert_ids_to_tokens(ids)[1].startswith("▁") else ""


class _Spans:
    """Spans, well-formed, in one notation."""

    def __init__(self, write: Notation, vocabulary: PerceptionVocabulary, blank: str) -> None:
        self.write = write
        self.families = vocabulary.families
        self.blank = blank
        self.separator = f"{blank},"

    def span(self, family: TokenFamily, lengths: Sequence[int] | None = None) -> str:
        """Codes between START and END, or codes with the separator between them and nothing around."""
        write, lengths = self.write, lengths or family.lengths
        name = family.name.lower()
        stem = write.literal(f"<{family.name}_")
        code = write.named(f"{name}-code", write.sequence(stem, write.number(family.size - 1), write.literal(">")))
        if family.delimited:  # the constraint knows one length
            parts = [write.literal(family.start), write.repeated(code, lengths[-1], lengths[-1])]
            return write.named(f"{name}-span", write.sequence(*parts, write.literal(family.end)))
        following = write.named(f"{name}-next", write.sequence(write.literal(self.separator), code))
        part = ""
        for shorter, length in reversed(list(zip((1, *lengths), lengths, strict=False))):
            # One after the other, since llguidance reads no optional part that is a repetition.
            grown = [following] * (length - shorter) + ([write.optional(part)] if part else [])
            part = write.sequence(*grown) if grown else ""
        return write.named(f"{name}-{'or'.join(map(str, lengths))}-codes", write.sequence(code, part) if part else code)


class _Constraint(_Spans):
    """Any text, with well-formed spans in it.

    Between spans there are these states: free text, and for each family without delimiters what is behind its last
    code. What may be written from a state on is an equation in what may be written from the others; they are solved
    one after the other, as a finite automaton is made a regular expression.
    """

    def root(self) -> str:
        write = self.write
        separated = {family.name.lower(): self.span(family) for family in self.families if not family.delimited}
        delimited = [self.span(family) for family in self.families if family.delimited]
        equations: dict[str, dict[str, str]] = {}
        for state in (FREE, *separated):
            rest = self._text() if state == FREE else self._tail(state)
            equations[state] = {END: rest}
            if delimited:
                equations[state][FREE] = write.sequence(rest, write.choice(*delimited))
            for name, span in separated.items():
                equations[state][name] = write.sequence(self._gap(state) if name == state else rest, span)
        return self._solved(equations)

    def _solved(self, equations: dict[str, dict[str, str]]) -> str:
        """What may be written from free text to the end: states to what leads to which other state, or to the end."""
        write = self.write
        for state in list(equations)[::-1]:
            ways = equations.pop(state)
            if state in ways:
                loop = write.any_number_of(ways.pop(state))
                ways = {to: write.sequence(loop, way) for to, way in ways.items()}
            if state == FREE:
                return ways[END]
            ways = {to: write.named(f"{state}-to-{to}", way) for to, way in ways.items()}
            for other in equations.values():
                before = other.pop(state)
                for to, way in ways.items():
                    known = [other[to]] if to in other else []
                    other[to] = write.choice(*known, write.sequence(before, way))
        raise AssertionError("free text is a state")

    # --- text without a perception token ------------------------------------------------------------------------------

    def _text(self) -> str:
        write = self.write
        return write.named(
            "text", write.sequence(write.any_number_of(self._unit("")), write.optional(self._open_end()))
        )

    def _unit(self, besides: str) -> str:
        """One character that begins no stem, or one or more `<` that begin stems and turn out to be none."""
        return self.write.choice(self.write.character("<" + besides, other=True), self._left())

    def _left(self) -> str:
        write = self.write
        stems = self._stems()
        parts = [write.literal("<"), write.any_number_of(self._again(stems)), self._leaving(stems)]
        return write.named("no-token", write.sequence(*parts))

    def _open_end(self) -> str:
        """The beginning of a stem with nothing behind it."""
        write = self.write
        stems = self._stems()
        inside = self._inside(stems)
        parts = [write.literal("<"), write.any_number_of(self._again(stems)), *([inside] if inside else [])]
        return write.named("cut-off", write.sequence(*parts))

    def _stems(self) -> tuple[str, ...]:
        return tuple(f"{family.name}_" for family in self.families)

    def _again(self, stems: Sequence[str]) -> str:
        """From behind a `<`, some of a stem, to behind the next `<`."""
        parts = [self.write.sequence(self.write.literal(c), self._again(rest)) for c, rest in _branches(stems)]
        return self.write.choice(self.write.literal("<"), *parts)

    def _leaving(self, stems: Sequence[str]) -> str:
        """From behind a `<`, some of a stem, and a character that does not go on with it."""
        begun = "".join(sorted({stem[0] for stem in stems}))
        parts = [self.write.sequence(self.write.literal(c), self._leaving(rest)) for c, rest in _branches(stems)]
        return self.write.choice(self.write.character("<" + begun, other=True), *parts)

    def _inside(self, stems: Sequence[str]) -> str:
        """From behind a `<`, some of a stem, or none; "" if there is only none."""
        write = self.write
        parts = []
        for c, rest in _branches(stems):
            further = self._inside(rest)
            parts.append(write.sequence(write.literal(c), *([further] if further else [])))
        return write.optional(write.choice(*parts)) if parts else ""

    # --- text behind the last code of a span without delimiters -------------------------------------------------------

    def _tail(self, family: str) -> str:
        """Text that does not begin with the separator."""
        return self.write.named(f"{family}-tail", self.write.choice(*self._otherwise(self.write.optional)))

    def _gap(self, family: str) -> str:
        """The same, before another span of the family: neither empty nor the blank of a separator alone."""
        return self.write.named(f"{family}-gap", self.write.choice(*self._otherwise(lambda part: part)))

    def _otherwise(self, ending: Callable[[str], str]) -> list[str]:
        """For each length, so much of the separator and then text that does not go on with it, through `ending`."""
        write = self.write
        parts = []
        for length, expected in enumerate(self.separator):
            other = write.sequence(self._unit(expected), self._text())
            begun = [write.literal(self.separator[:length])] if length else []
            parts.append(write.sequence(*begun, ending(write.choice(other, self._open_end()))))
        return parts


class _Answer(_Spans):
    """The answer to one task, word by word."""

    def root(self, task: Task, prompts: Prompts, *, values: bool) -> str:
        answers = [self._answer(task, template) for template in prompts.answers(task, values=values)]
        # The first word of an answer brings its blank along: in a class, so that nobody strips it from the whole.
        return self.write.sequence(self.write.optional(self.write.character(" ")), self.write.choice(*answers))

    def _answer(self, task: Task, template: str) -> str:
        fields, parts, behind_token = family_of(task).fields, [], False
        for words, field, _, _ in string.Formatter().parse(template):
            if words:
                parts.append(self.write.literal((self.blank if behind_token else "") + words))
            if field is not None:
                parts.append(self._form(fields[field], task))
            behind_token = field is not None and isinstance(fields[field], forms.Span)
        return self.write.sequence(*parts)

    def _form(self, form: forms.Form, task: Task) -> str:
        """All texts of a form."""
        write = self.write
        match form:
            case forms.Span(kind):
                family = by_kind(self.families).get(kind)
                if family is None:
                    raise AuroraError(f"task {task.name} has a {kind} span in its answer, and the model has none")
                return self.span(family)
            case forms.Coordinates(length):
                return self._coordinates(length)
            case forms.Letter():
                return write.character(forms.LETTERS)
            case forms.Number(most):
                return write.number(most)
            case forms.Digits(length):
                return write.sequence(*[write.character("0123456789")] * length)
            case forms.Words():
                return write.named("words", write.repeated(write.character("<\n", other=True), 1, None))
            case forms.Literal(text):
                return write.literal(text)
            case forms.Sequence(parts):
                return write.sequence(*(self._form(part, task) for part in parts))
            case forms.Listed(part, between, last):
                written = self._form(part, task)
                more = write.any_number_of(write.sequence(write.literal(between), written))
                ending = [write.optional(write.sequence(write.literal(last), written))] if last is not None else []
                return write.sequence(written, more, *ending)

    def _coordinates(self, length: int) -> str:
        """As RecordWriter writes them: tokens, or plain numbers for a model that has none."""
        write = self.write
        pixels = by_kind(self.families).get("box")
        if pixels is None:
            number = write.number(MOST_COORDINATE)
            following = write.repeated(write.sequence(write.literal(","), number), length - 1, length - 1)
            return write.sequence(write.literal("("), number, following, write.literal(")"))
        return write.sequence(write.literal("("), self.span(pixels, (length,)), write.literal(f"{self.blank})"))


def _branches(stems: Sequence[str]) -> list[tuple[str, list[str]]]:
    """How stems go on behind a common beginning: the next character, and what follows it. Their ends are left out."""
    following: dict[str, list[str]] = {}
    for stem in stems:
        following.setdefault(stem[0], []).append(stem[1:])
    return [(c, rest) for c, rest in sorted(following.items()) if all(rest)]
