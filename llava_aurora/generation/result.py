"""What a model wrote to one question: text and ids, and the perception tokens found in them."""

import base64
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, field, replace
from functools import cached_property, partial
from html import escape
from typing import Any, Literal

import numpy as np
from PIL import Image

from llava_aurora.data.images.frame import FrameTransform
from llava_aurora.errors import AuroraError
from llava_aurora.generation.picture import draw_answer
from llava_aurora.tasks.task import ANSWER_IS, STEP_BY_STEP
from llava_aurora.tokens.kind import TokenKind
from llava_aurora.tokens.mask import coco_rle
from llava_aurora.tokens.perception import PerceptionTokens
from llava_aurora.tokens.vocabulary import Span

Reasoning = Literal["chain", "direct"]
Coordinates = tuple[float, ...]
_LETTER_BEFORE = re.compile(r"\b([A-Z])\s*$")


@dataclass(frozen=True)
class Timings:
    """How long a batch took."""

    preparing: float  # seconds for pixels, vision tower and tokenizer
    generating: float  # seconds of the language model
    tokens: int  # new tokens of all rows together
    forward_passes: int  # of the language model, each over the whole batch
    token_passes: int = 0  # tokens that were read, image and prompts included; 0 where they are not counted

    @property
    def per_token(self) -> float:
        """Seconds of generating for each new token."""
        return self.generating / max(1, self.tokens)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a model wrote."""

    text: str  # without the end-of-sequence token
    ids: tuple[int, ...]  # of the text
    finished: bool  # False if the text was cut off by `max_new_tokens` or the end of the context
    # what it took, its share of the batch: seconds, and tokens that the language model read; None where not known
    seconds: float | None = field(default=None, compare=False)
    token_passes: float | None = field(default=None, compare=False)


@dataclass(frozen=True, kw_only=True)
class Result(Answer):
    """What a model wrote to one question, and what the perception tokens in it stand for.

    Attributes:
        question: as it was asked, without the request for a chain.
        reasoning: "chain" or "direct".
        reasoning_prompt: what asked for a chain; None for "Think step by step."
        image: that was asked about.
        timings: of the batch in which it was asked.
        token_log_probabilities: for each id, the natural log of its probability among all that could stand there, under
            the constraint and before any temperature; 0 for ids that the answer was made to begin with. None after a
            beam search.
        perception: the model's perception tokens; None for a model without.
        transform: from the side of a frame to the transform between the image and that frame.
    """

    question: str
    reasoning: str
    reasoning_prompt: str | None = None
    image: Image.Image = field(compare=False, repr=False)
    timings: Timings = field(compare=False)
    token_log_probabilities: tuple[float, ...] | None = field(compare=False, repr=False)
    perception: PerceptionTokens | None = field(compare=False, repr=False)
    transform: Callable[[int], FrameTransform] = field(compare=False, repr=False)

    @cached_property
    def spans(self) -> Mapping[str, tuple[Span, ...]]:
        """For each token kind, its spans in the text, by positions of characters; none from a malformed one on."""
        kinds = self.perception.kinds if self.perception is not None else {}
        return {name: tuple(kind.family.whole(self.text)) for name, kind in kinds.items()}

    def annotations(self, kind: str) -> tuple[Any, ...]:
        """What the spans of a token kind stand for; none if the model has no such kind.

        Coordinates, (x, y) or (x1, y1, x2, y2), and masks, bool (H, W), are in pixels of the image, cut off at its
        border. What has no place in it (a depth map) covers the square that the model sees: the image stretched, padded
        or cut.
        """
        return tuple(self._annotation(kind, span) for span in self.spans.get(kind, ()))

    @cached_property
    def depth(self) -> np.ndarray | None:
        """The last depth map, uint8 (H, W) in the VQ-VAE's own size, higher = closer; None without a whole map."""
        spans = self.spans.get("depth")
        return self._annotation("depth", spans[-1]) if spans else None

    @property
    def boxes(self) -> tuple[Coordinates, ...]:
        """Every box, (x1, y1, x2, y2) in pixels of the image."""
        return tuple(place for _, place in self._coordinates() if len(place) == 4)

    @property
    def points(self) -> Mapping[str, Coordinates]:
        """By its letter, (x, y) in pixels of the image of every point that stands behind a letter."""
        found = ((_LETTER_BEFORE.search(self.text, 0, span.start), place) for span, place in self._coordinates())
        return {letter[1]: place for letter, place in found if letter and len(place) == 2}

    @property
    def answer(self) -> str:
        """What follows the chain: the text behind the last "The answer is", else behind the last span, else all."""
        _, stated, answer = self.text.rpartition(ANSWER_IS)
        if not stated:
            end = max((span.end for spans in self.spans.values() for span in spans), default=0)
            answer = self.text[end:].lstrip(".,;:) ")
        return answer.strip().removesuffix(".")

    @property
    def log_probabilities(self) -> Mapping[str, tuple[tuple[float, ...], ...]] | None:
        """For each token kind, for each span, for each code its log-probability; None after a beam search."""
        if self.token_log_probabilities is None or self.perception is None:
            return {} if self.perception is None else None
        found = {}
        for name, spans in self.spans.items():
            family = self.perception.kinds[name].family
            pairs = zip(self.ids, self.token_log_probabilities, strict=True)
            # Codes stand in spans alone, so the codes of the text, taken in order, are those of its spans.
            values = iter([value for token, value in pairs if self.perception.ids.code(family, token) is not None])
            found[name] = tuple(tuple(next(values) for _ in span.codes) for span in spans)
        return found

    def figure(self) -> Image.Image:
        """The image with boxes and points, beside it the last map of each kind; question and answer below."""
        maps = [
            (f"{name}, as the model wrote it", partial(_drawn, kind, self.annotations(name)))
            for name, kind in (self.perception.kinds if self.perception is not None else {}).items()
            if kind.frame is None and self.spans[name]
        ]
        answer = self.answer or "(no answer beside the map)"
        texts = [f"Q: {self.question}", f"A: {answer}{'' if self.finished else ' … (cut off)'}"]
        return draw_answer(
            self.image,
            maps=maps,
            boxes=self.boxes,
            points=self.points,
            texts=[plain(t, self.perception) for t in texts],
        )

    def _repr_html_(self) -> str:
        """The figure, as Jupyter shows it."""
        file = io.BytesIO()
        self.figure().save(file, format="png")
        data = base64.b64encode(file.getvalue()).decode()
        return f'<img src="data:image/png;base64,{data}" alt="{escape(self.answer)}">'

    def to_json(self) -> dict[str, Any]:
        """All but the image and the maps, whose codes are in the text."""
        timings = {**asdict(self.timings), "per_token": self.timings.per_token}
        return {
            "question": self.question,
            "reasoning": self.reasoning,
            "reasoning_prompt": self.reasoning_prompt,
            "answer": self.answer,
            "text": self.text,
            "boxes": [list(box) for box in self.boxes],
            "points": {letter: list(point) for letter, point in self.points.items()},
            "masks": [coco_rle(mask) for mask in self.annotations("mask")],
            "log_probabilities": self.log_probabilities,
            "timings": timings,
            "finished": self.finished,
        }

    def _annotation(self, name: str, span: Span) -> Any:
        assert self.perception is not None
        kind = self.perception.kinds[name]
        decoded = kind.decode(span.codes)
        if kind.in_pixels:
            return self.transform(len(decoded)).image(decoded, self.image.size)
        if kind.frame is None:
            return decoded
        places = enumerate(self.transform(kind.frame).original(decoded))
        return tuple(float(min(max(value, 0), self.image.size[axis % 2])) for axis, value in places)

    def _coordinates(self) -> list[tuple[Span, Coordinates]]:
        kinds = self.perception.kinds if self.perception is not None else {}
        return [
            pair
            for name, kind in kinds.items()
            if kind.frame is not None
            for pair in zip(self.spans[name], self.annotations(name), strict=True)
        ]


def with_costs(answers: Sequence[Answer]) -> list[Answer]:
    """The answers of one batch, each with its share of what the batch took; as they are where that is not known."""
    times = [each.timings for each in answers if isinstance(each, Result)]
    if len(times) < len(answers) or not times:
        return list(answers)
    seconds = max(each.preparing + each.generating for each in times) / len(times)
    passes = max(each.token_passes for each in times) / len(times) or None
    return [replace(each, seconds=seconds, token_passes=passes) for each in answers]


def _drawn(kind: TokenKind, annotations: Sequence[Any], image: Image.Image) -> Image.Image:
    return kind.with_scale(kind.draw(annotations, image))


def asked(question: str, reasoning: str, prompt: str | None = None) -> str:
    """The question as the model gets it: for a chain with what asks for one at its end, if it does not stand there.

    Args:
        question: without it.
        reasoning: "chain" or "direct".
        prompt: what asks for a chain, behind a blank unless it begins with one; None for "Think step by step."
    Raises AuroraError for another kind of reasoning.
    """
    if reasoning not in ("chain", "direct"):
        raise AuroraError(f"unknown reasoning {reasoning!r}; available: chain, direct")
    question, prompt = question.strip(), STEP_BY_STEP if prompt is None else prompt
    if reasoning == "direct" or not question or question.lower().endswith(prompt.strip().lower()):
        return question
    return f"{question}{'' if prompt[0].isspace() else ' '}{prompt.rstrip()}"


def folded(text: str, perception: PerceptionTokens | None) -> str:
    """The text with each map shortened to "[depth map, 100 codes]"; an open one is "[depth map, 37 of 100 codes]"."""
    for kind in perception.kinds.values() if perception else ():
        family = kind.family
        if not family.delimited:
            continue
        before, opened, codes = text.rpartition(family.start)
        if opened and family.end not in codes:
            text = f"{before}[{family.name.lower()} map, {family.count(codes)} of {family.lengths[-1]} codes]"
        for span in reversed(family.whole(text)):
            text = f"{text[: span.start]}[{family.name.lower()} map, {len(span.codes)} codes]{text[span.end :]}"
    return text


def plain(text: str, perception: PerceptionTokens | None) -> str:
    """The text with coordinates as numbers: "(<PIXEL_1>,<PIXEL_2>)" becomes "(1,2)"."""
    for kind in perception.kinds.values() if perception else ():
        if not kind.family.delimited:
            text = kind.family.plain(text)
    return text


def joined(first: Result, second: Result) -> Result:
    """Both turns as one answer to the first question."""
    noted = [each.token_log_probabilities for each in (first, second)]
    times = [each.timings for each in (first, second)]
    return replace(
        first,
        text=f"{first.text}\n{second.text}",
        ids=first.ids + second.ids,
        finished=second.finished,
        timings=Timings(*(sum(parts) for parts in zip(*map(astuple, times), strict=True))),
        token_log_probabilities=None if None in noted else (*noted[0], *noted[1]),  # type: ignore[misc]
    )
