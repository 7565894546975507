"""What happens when a visitor uploads, clicks and asks: from the values of the page to its new values."""

import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import gradio as gr
from PIL import Image

from llava_aurora.data.images.frame import FrameTransform
from llava_aurora.errors import AuroraError
from llava_aurora.generation.result import Reasoning, Result
from llava_aurora.serving.examples import Example
from llava_aurora.serving.marks import COORDINATES, MarkedImage, Marker, suggested_question, was_suggested
from llava_aurora.serving.view import AnswerView
from llava_aurora.tasks.marks import REFERENCE_FRAME

if TYPE_CHECKING:
    from llava_aurora.generation.aurora import Aurora
    from llava_aurora.generation.predictor import Decoding
    from llava_aurora.tokens.box import BoxKind


class Shown(NamedTuple):
    """The new values of the right column, in the order of its components; `gr.skip()` leaves one as it is."""

    seen: Any = gr.skip()
    map: Any = gr.skip()
    answer: Any = gr.skip()
    chain: Any = gr.skip()
    picture_file: Any = gr.skip()
    json_file: Any = gr.skip()


class PageEvents:
    """Handlers of the page's events; what they know of a visitor comes in as an argument.

    Args:
        aurora: the model.
        folder: for the files of all visitors; what is in it may be sent out.
        examples: by their place on the page.
        decoding: for `Aurora.stream`.
        interval: seconds between two pictures of a map that is being written.
    """

    def __init__(
        self,
        aurora: "Aurora",
        *,
        folder: Path,
        examples: list[Example],
        decoding: "Decoding" = "greedy",
        interval: float = 0.2,
    ) -> None:
        self.aurora, self.folder, self.examples = aurora, folder, examples
        self.decoding, self.interval = decoding, interval
        self.marker = Marker(folder=folder, side=self._frame_side)
        perception = aurora.model.perception
        self.view = AnswerView(perception=perception)
        self.box = cast("BoxKind | None", perception.kinds.get("box") if perception is not None else None)

    # --- the image ----------------------------------------------------------------------------------------------------

    def choose(self, path: str | None, question: str, given: str) -> tuple[Any, MarkedImage | None, str]:
        """An image was uploaded or taken away: picture, what is kept of it, question."""
        with _errors_shown():
            return self._changed(self.marker.choose(path, given=given) if path else None, question)

    def click(self, marked: MarkedImage | None, question: str, event: gr.SelectData) -> tuple[Any, Any, str]:
        """The picture was clicked on: the place becomes a point."""
        with _errors_shown():
            if marked is None:
                raise AuroraError("choose an image first")
            return self._changed(self.marker.add_point(marked, tuple(event.index)), question)

    def undo(self, marked: MarkedImage | None, question: str) -> tuple[Any, MarkedImage | None, str]:
        """The last point goes."""
        return self._with_points(marked, slice(-1), question)

    def clear(self, marked: MarkedImage | None, question: str) -> tuple[Any, MarkedImage | None, str]:
        """All points go."""
        return self._with_points(marked, slice(0), question)

    def give(self, marked: MarkedImage | None, question: str, given: str) -> tuple[Any, MarkedImage | None, str]:
        """Points are to be given in another way."""
        return self._changed(replace(marked, given=given) if marked is not None else None, question)

    def example(self, given: str, event: gr.SelectData) -> tuple[Any, MarkedImage | None, str]:
        """An example was clicked on."""
        with _errors_shown():
            chosen = self.examples[event.index]
            return self._changed(self.marker.choose(chosen.path, chosen.points, given=given), chosen.question)

    def _with_points(self, marked: MarkedImage | None, kept: slice, question: str) -> tuple[Any, Any, str]:
        if marked is None:
            return gr.skip(), None, question
        with _errors_shown():
            return self._changed(self.marker.with_points(marked, marked.points[kept]), question)

    def _changed(self, marked: MarkedImage | None, question: str) -> tuple[Any, MarkedImage | None, str]:
        """A question that only named the points before names those there are now."""
        if was_suggested(question.strip()):
            question = self._suggested(marked) if marked is not None else ""
        return marked.shown if marked else None, marked, question

    def _suggested(self, marked: MarkedImage) -> str:
        if marked.given != COORDINATES or self.box is None:
            return suggested_question(marked.letters)
        transform = self._transform(*marked.size, frame=self.box.frame)
        places = [self.box.family.text(transform.pixel(point)) for point in marked.points]
        return suggested_question(marked.letters, places)

    def _frame_side(self, width: int, height: int) -> int:
        return round(REFERENCE_FRAME / max(self._transform(width, height, frame=REFERENCE_FRAME).scale))

    def _transform(self, width: int, height: int, *, frame: int) -> FrameTransform:
        seen = self.aurora.model.config, self.aurora.image_processor
        return FrameTransform.of_model(*seen, width=width, height=height, frame=frame)

    # --- the question -------------------------------------------------------------------------------------------------

    def ask(self, path: str | None, marked: MarkedImage | None, question: str, reasoning: Reasoning) -> Iterator[Shown]:
        """Asks about the image with its points, and shows the text and its map while they are written.

        Args:
            path: of the picture on the page, or of an image that came with the request.
            marked: what is kept of the picture on the page.
            question, reasoning: for `Aurora.stream`.

        Raises:
            gr.Error: with the message of an AuroraError. Closing the iterator ends the writing.
        """
        with _errors_shown():
            if not path:
                raise AuroraError("choose an image first")
            if not question.strip():
                raise AuroraError("the question is empty; type one")
            if marked is None or marked.shown != path:
                marked = self.marker.choose(path)
            image = self.marker.drawn(marked)
            waiting = self.view.empty("no depth map yet")
            yield Shown(self.view.picture(image), waiting, self.view.empty("…"), self.view.chain(""), None, None)
            text, codes, due = "", 0, 0.0
            writing: Any = self.aurora.stream(image, question, reasoning=reasoning, decoding=self.decoding)
            with closing(writing) as pieces:
                for piece in pieces:
                    if isinstance(piece, Result):
                        yield self._answered(piece)
                        return
                    text += piece
                    if time.monotonic() >= due:
                        count, drawn = self.view.map(text, image.size)
                        yield Shown(map=drawn if count != codes else gr.skip(), chain=self.view.chain(text))
                        codes, due = count, time.monotonic() + self.interval

    def _answered(self, result: Result) -> Shown:
        _, drawn = self.view.map(result.text, result.image.size, whole=True)
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        picture, record = folder / "answer.png", folder / "answer.json"
        result.figure().save(picture)
        record.write_text(json.dumps(result.to_json(), indent=2, ensure_ascii=False), encoding="utf-8")
        return Shown(
            seen=self.view.picture(result.image, boxes=result.boxes, points=result.points),
            map=drawn,
            answer=self.view.answer(result),
            chain=self.view.chain(result.text),
            picture_file=str(picture),
            json_file=str(record),
        )


@contextmanager
def _errors_shown() -> Iterator[None]:
    """What a visitor can mend is shown as it is; anything else is the server's matter and stays in its log."""
    try:
        yield
    except (AuroraError, Image.DecompressionBombError) as error:
        raise gr.Error(escape(str(error), quote=False), duration=None, print_exception=False) from error
