"""Handlers of the page's events: from the values of its components to their new values."""

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

import gradio as gr

from llava_aurora.data.images.frame import FrameTransform
from llava_aurora.errors import AuroraError
from llava_aurora.files import write_json
from llava_aurora.generation.regions import region_of, region_text
from llava_aurora.generation.result import Reasoning, Result, folded, plain
from llava_aurora.serving.examples import ImageExample
from llava_aurora.serving.marks import COORDINATES, REGION, MarkedImage, Marker, read_upload, suggested_question
from llava_aurora.serving.view import last_span, masks_html, span_html
from llava_aurora.tasks.marks import REFERENCE_FRAME
from llava_aurora.tasks.mask_measures import phrase_before
from llava_aurora.tasks.registry import task_named

if TYPE_CHECKING:
    from llava_aurora.generation.aurora import Aurora
    from llava_aurora.generation.predictor import Decoding
    from llava_aurora.tokens.box import BoxKind
    from llava_aurora.tokens.kind import TokenKind


class Shown(NamedTuple):
    """New values of the right column; `gr.skip()` leaves one as it is."""

    map: Any = gr.skip()
    answer: Any = gr.skip()
    chain: Any = gr.skip()
    picture: Any = gr.skip()
    json_file: Any = gr.skip()


T = TypeVar("T")
REGION_QUESTION = task_named("region_naming").wording.questions[0]

# New values of the picture, of what the server keeps of it, and of the question.
Image = tuple[str | None, MarkedImage | None, str]


class PageEvents:
    """It keeps nothing of a visitor: the state of the page comes in as arguments.

    Args:
        folder: for the files of all visitors.
        decoding: for `Aurora.stream`.
        interval: seconds between two pictures of a map that is being written.
    """

    def __init__(
        self, aurora: "Aurora", *, folder: Path, examples: list[ImageExample], decoding: "Decoding", interval: float
    ) -> None:
        self.aurora, self.folder, self.examples = aurora, folder, examples
        self.decoding, self.interval = decoding, interval
        self.perception = aurora.model.perception
        self.kinds: Mapping[str, TokenKind] = self.perception.kinds if self.perception is not None else {}
        self.box = cast("BoxKind | None", self.kinds.get("box"))
        self.marker = Marker(
            folder=folder,
            side=lambda *size: round(REFERENCE_FRAME / max(self._transform(size, frame=REFERENCE_FRAME).scale)),
        )

    # Handlers of the image: of what is kept of it, the question, and how points are given.

    def choose(self, marked: MarkedImage | None, question: str, given: str, path: str | None) -> Image:
        """An image was uploaded or removed."""
        return self._changed(marked, question, lambda: self._opened(path, given=given) if path else None)

    def example(self, marked: MarkedImage | None, question: str, given: str, event: gr.SelectData) -> Image:
        """An example was clicked on."""
        chosen = self.examples[event.index]
        return self._changed(
            marked,
            chosen.question,
            lambda: replace(self._opened(chosen.path, given=given), points=tuple(chosen.points)),
        )

    def click(self, marked: MarkedImage | None, question: str, given: str, event: gr.SelectData) -> Image:
        """The picture was clicked on: the place becomes a point."""
        return self._changed(marked, question, lambda: _chosen(marked).with_point(event.index))

    def type_point(self, marked: MarkedImage | None, question: str, given: str, place: str) -> Image:
        """A place "x, y" in pixels of the image was typed: it becomes a point."""
        return self._changed(marked, question, lambda: _chosen(marked).with_typed_point(place))

    def undo(self, marked: MarkedImage | None, question: str, given: str) -> Image:
        """The last point is removed."""
        return self._changed(marked, question, lambda: marked and replace(marked, points=marked.points[:-1]))

    def clear(self, marked: MarkedImage | None, question: str, given: str) -> Image:
        """All points are removed."""
        return self._changed(marked, question, lambda: marked and replace(marked, points=()))

    def give(self, marked: MarkedImage | None, question: str, given: str) -> Image:
        """Points are to be given in another way."""
        return self._changed(marked, question, lambda: marked and replace(marked, given=given))

    def _opened(self, path: str, *, given: str) -> MarkedImage:
        return MarkedImage(path=path, size=read_upload(path).size, given=given)

    def _changed(self, before: MarkedImage | None, question: str, change: Callable[[], MarkedImage | None]) -> Image:
        """Makes a change; a question that the page proposed, or none, becomes the one it proposes now."""
        with _errors_shown():
            after = change()
            proposed = question.strip() in ("", before.suggested if before else "")
            if after is None:
                return None, None, "" if proposed else question
            named = self._coordinates(after)
            if after.given == REGION:
                suggested = REGION_QUESTION.format(region=named[0]) if named else ""
            else:
                suggested = suggested_question(after.letters, named)
            after = self.marker.shown(replace(after, suggested=suggested))
            return after.shown, after, suggested if proposed else question

    def _coordinates(self, marked: MarkedImage) -> list[str]:
        """Of each point or of their region, as the question has to name it; none if points are drawn into the image."""
        if marked.given == REGION and marked.points:
            region, moved = region_of(marked.points, marked.size), partial(self._transform, marked.size)
            return [region_text(self.kinds, moved, region, size=marked.size)]
        if marked.given != COORDINATES or self.box is None:
            return []
        transform = self._transform(marked.size, frame=self.box.frame)
        return [self.box.family.text(transform.pixel(point)) for point in marked.points]

    def _transform(self, size: tuple[int, ...], frame: int) -> FrameTransform:
        seen = self.aurora.model.config, self.aurora.image_processor
        return FrameTransform.of_model(*seen, width=size[0], height=size[1], frame=frame)

    def ask(self, path: str | None, marked: MarkedImage | None, question: str, reasoning: Reasoning) -> Iterator[Shown]:
        """Asks about the image with its points, and shows text and map while they are written.

        Args:
            path: of the picture on the page, or of an image that came with the request.
            marked: what is kept of the picture on the page.
            question, reasoning: for `Aurora.stream`.
        Raises gr.Error with the message of an AuroraError. Closing the iterator ends the writing.
        """
        with _errors_shown():
            path = _chosen(path)
            if not question.strip():
                raise AuroraError("the question is empty; type one")
            if marked is None or marked.shown != path:
                marked = self._opened(path, given="")
            for letter, place in zip(marked.letters, self._coordinates(marked), strict=False):
                if place not in question and marked.given == REGION:
                    raise AuroraError(f"the region is not in the question: insert {place}, or clear the points")
                if place not in question:
                    raise AuroraError(f"point {letter} is not in the question: insert {letter} {place}, or draw points")
            image = self.marker.seen(marked)
            yield Shown("", "", "", None, None)
            text, due, span = "", 0.0, None
            writing: Any = self.aurora.stream(image, question, reasoning=reasoning, decoding=self.decoding)
            with closing(writing) as pieces:
                for piece in pieces:
                    if isinstance(piece, Result):
                        yield self._answered(piece)
                        return
                    text += piece
                    if time.monotonic() >= due:
                        before, span = span, last_span(text, self.kinds.values())
                        shown = span_html(*span, image.size) if span else ""
                        yield Shown(shown if span != before else gr.skip(), chain=self._chain(text))
                        due = time.monotonic() + self.interval

    def stopped(self, question: str, reasoning: Reasoning, chain: str) -> str | None:
        """The writing was stopped: what was written so far, as a file; None if that is nothing."""
        if not chain:
            return None
        return self._saved({"question": question, "reasoning": reasoning, "text": chain, "finished": False})

    def _saved(self, answer: dict[str, Any]) -> str:
        """The path of answer.json with this, in a folder of its own."""
        record = Path(tempfile.mkdtemp(dir=self.folder)) / "answer.json"
        write_json(record, answer)
        return str(record)

    def _answered(self, result: Result) -> Shown:
        record = self._saved(result.to_json())
        result.figure().save(picture := Path(record).with_name("answer.png"))
        span, masks = last_span(result.text, self.kinds.values()), result.annotations("mask")
        shown, answer = span_html(*span, result.image.size) if span else "", result.answer
        if masks:
            phrases = [phrase_before(result.text, each.start) for each in result.spans["mask"]]
            shown = masks_html(result.image, masks, phrases)
            answer = answer or ", ".join(filter(None, phrases))
        if not result.finished:
            answer += " (cut off: the context is full)"
        return Shown(shown, answer, self._chain(result.text), str(picture), record)

    def _chain(self, text: str) -> str:
        """A text that may still be written, with maps folded and coordinates as numbers."""
        return plain(folded(text, self.perception), self.perception)


def _chosen(image: T | None) -> T:
    """What was chosen or marked. Raises AuroraError if that is nothing."""
    if not image:
        raise AuroraError("choose an image first")
    return image


@contextmanager
def _errors_shown() -> Iterator[None]:
    """A visitor sees the errors that she can correct; all others stay in the server's log."""
    try:
        yield
    except AuroraError as error:
        raise gr.Error(escape(str(error), quote=False), duration=None, print_exception=False) from error
