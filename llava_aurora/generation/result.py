"""What a model said about an image, read: its answer, its map, its boxes and points, and how sure it was of them."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
from PIL import Image

from llava_aurora.data.images.frame import FrameTransform
from llava_aurora.errors import AuroraError
from llava_aurora.generation.generate import Answer, Timings
from llava_aurora.tasks.task import ANSWER_IS, STEP_BY_STEP
from llava_aurora.tokens.perception import PerceptionTokens
from llava_aurora.tokens.vocabulary import MalformedSpan, Span, TokenFamily

Reasoning = Literal["chain", "direct"]
_LETTER_BEFORE = re.compile(r"\b([A-Z])\s*$")


@dataclass(frozen=True)
class Result:
    """One question, asked and answered.

    Attributes:
        question: as it was asked, without the cue for a chain.
        reasoning: "chain" or "direct".
        text: all that the model wrote.
        answer: what follows the chain: the text after the last "The answer is", else after the last span of
            perception tokens, else all.
        depth: the last map, uint8 (H, W) in the VQ-VAE's own size, higher = closer; it covers the whole image,
            stretched to its square. None without a whole map.
        boxes: every box, (x1, y1, x2, y2) in pixels of the image as it was given, cut off at its border.
        points: by its letter the (x, y) of every point that the text states after one, in the same pixels.
        log_probabilities: for each kind, for each of its spans, for each code: natural log of its probability
            among all that could stand there. None after a beam search.
        timings: of the batch in which it was asked.
        finished: False if the text was cut off.
        image: that it was asked about.
    """

    question: str
    reasoning: Reasoning
    text: str
    answer: str
    depth: np.ndarray | None = field(compare=False)
    boxes: tuple[tuple[float, ...], ...]
    points: Mapping[str, tuple[float, ...]]
    log_probabilities: Mapping[str, tuple[tuple[float, ...], ...]] | None = field(compare=False, repr=False)
    timings: Timings = field(compare=False)
    finished: bool
    image: Image.Image = field(compare=False, repr=False)

    def figure(self) -> Image.Image:
        """The image with its boxes and points beside the map, question and answer below."""
        from llava_aurora.generation.picture import draw_result

        return draw_result(self)

    def to_json(self) -> dict[str, Any]:
        """All but the image and the map, whose codes are in the text."""
        timings = {**asdict(self.timings), "per_token": self.timings.per_token}
        return {
            "question": self.question,
            "reasoning": self.reasoning,
            "answer": self.answer,
            "text": self.text,
            "boxes": [list(box) for box in self.boxes],
            "points": {letter: list(point) for letter, point in self.points.items()},
            "log_probabilities": self.log_probabilities,
            "timings": timings,
            "finished": self.finished,
        }


def asked(question: str, reasoning: str) -> str:
    """The question as the model gets it: a chain is asked for by its cue, unless the question ends with that.

    Raises:
        AuroraError: for another kind of reasoning.
    """
    if reasoning not in ("chain", "direct"):
        raise AuroraError(f"unknown reasoning {reasoning!r}; there are: chain, direct")
    question = question.strip()
    if reasoning == "direct" or not question or question.lower().endswith(STEP_BY_STEP.lower()):
        return question
    return f"{question} {STEP_BY_STEP}"


def read_result(
    answer: Answer,
    *,
    question: str,
    reasoning: Reasoning,
    image: Image.Image,
    perception: PerceptionTokens | None,
    config: Any,
    image_processor: Any,
) -> Result:
    """Reads what a model wrote.

    Args:
        answer: from `generate`.
        question, reasoning, image: what it was asked.
        perception: the model's.
        config, image_processor: the model's, which say how it saw the image.
    """
    families = {name: kind.family for name, kind in (perception.kinds if perception else {}).items()}
    spans = {name: whole_spans(family, answer.text) for name, family in families.items()}
    depth = None
    if perception is not None and spans.get("depth"):
        depth = perception.kinds["depth"].decode(spans["depth"][-1].codes)
    boxes: list[tuple[float, ...]] = []
    points: dict[str, tuple[float, ...]] = {}
    for span in spans.get("box", ()):
        place = _in_image(span.codes, frame=families["box"].size, image=image, seen=(config, image_processor))
        letter = _LETTER_BEFORE.search(answer.text, 0, span.start)
        if len(place) == 4:
            boxes.append(place)
        elif letter:
            points[letter.group(1)] = place
    assert answer.timings is not None
    return Result(
        question=question,
        reasoning=reasoning,
        text=answer.text,
        answer=_after_chain(answer.text, [span for found in spans.values() for span in found]),
        depth=depth,
        boxes=tuple(boxes),
        points=points,
        log_probabilities=_by_span(answer, spans, perception),
        timings=answer.timings,
        finished=answer.finished,
        image=image,
    )


def whole_spans(family: TokenFamily, text: str) -> list[Span]:
    """Every span of a text that was perhaps cut off, up to the first that is not whole."""
    while True:
        try:
            return family.parse(text)
        except MalformedSpan:
            text = text[: text.rindex("<")]


def folded(text: str, perception: PerceptionTokens | None) -> str:
    """The text with each map shortened to "[depth map, 100 codes]", so that a chain can be read.

    One that is still being written says how far it has come: "[depth map, 37 of 100 codes]".
    """
    for kind in perception.kinds.values() if perception else ():
        family = kind.family
        if not family.delimited:
            continue
        before, opened, codes = text.rpartition(family.start)
        if opened and family.end not in codes:
            text = f"{before}[{family.name.lower()} map, {family.count(codes)} of {family.lengths[-1]} codes]"
        for span in reversed(whole_spans(family, text)):
            text = f"{text[: span.start]}[{family.name.lower()} map, {len(span.codes)} codes]{text[span.end :]}"
    return text


def _after_chain(text: str, spans: list[Span]) -> str:
    _, stated, answer = text.rpartition(ANSWER_IS)
    if not stated:
        answer = text[max((span.end for span in spans), default=0) :].lstrip(".,;:) ")
    return answer.strip().removesuffix(".")


def _in_image(codes: tuple[int, ...], *, frame: int, image: Image.Image, seen: tuple[Any, Any]) -> tuple[float, ...]:
    """Coordinates of the frame in pixels of the image, cut off at its border."""
    width, height = image.size
    transform = FrameTransform.of_model(*seen, width=width, height=height, frame=frame)
    moved = transform.original(codes)
    return tuple(float(min(max(value, 0), (width, height)[axis % 2])) for axis, value in enumerate(moved))


def _by_span(
    answer: Answer, spans: Mapping[str, list[Span]], perception: PerceptionTokens | None
) -> Mapping[str, tuple[tuple[float, ...], ...]] | None:
    """Codes stand in spans alone, so the codes of a text, taken in order, are those of its spans."""
    if answer.log_probabilities is None or perception is None:
        return {} if perception is None else None
    sure = {}
    for name, found in spans.items():
        family = perception.kinds[name].family
        pairs = zip(answer.ids, answer.log_probabilities, strict=True)
        values = iter([value for token, value in pairs if perception.ids.code(family, token) is not None])
        sure[name] = tuple(tuple(next(values) for _ in span.codes) for span in found)
    return sure
