"""The page: an image, points and a question on the left; what the model saw and answered on the right."""

from typing import Any, NamedTuple

import gradio as gr
from gradio.data_classes import ImageData

from llava_aurora.serving.events import PageEvents
from llava_aurora.serving.marks import COORDINATES, MARKS

TITLE = "llava_aurora"
DAY = 24 * 3600
_FONT = ["system-ui", "Segoe UI", "Helvetica", "Arial", "sans-serif"]
_MONO = ["ui-monospace", "Menlo", "Consolas", "monospace"]


class LeftColumn(NamedTuple):
    """What a visitor does something with; `marked` is what the server keeps of the picture."""

    marked: gr.State
    picture: gr.Image
    undo: gr.Button
    clear: gr.Button
    given: gr.Radio
    question: gr.Textbox
    reasoning: gr.Radio
    ask: gr.Button
    stop: gr.Button
    examples: gr.Gallery


def theme() -> gr.Theme:
    """Fonts of the visitor's own machine: nothing is fetched."""
    return gr.themes.Soft(primary_hue="indigo", neutral_hue="slate", font=_FONT, font_mono=_MONO)


def build_page(events: PageEvents, *, name: str, concurrency: int) -> gr.Blocks:
    """Builds the page.

    Args:
        events: its handlers.
        name: of the model, for the heading.
        concurrency: questions answered at the same time; others wait.

    Returns:
        the page; its files are deleted an hour after they were written, and its visitors' points after a day.
    """
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(600, 3600), fill_width=True) as page:
        gr.Markdown(f"## {TITLE}\n{name}", elem_id="aurora-heading", sanitize_html=True)
        with gr.Row(equal_height=False):
            with gr.Column(scale=5, min_width=360):
                left = _left_column(events)
            with gr.Column(scale=7, min_width=420):
                right = _right_column(events)
        _connect(events, left, right, concurrency)
    return page


def _left_column(events: PageEvents) -> LeftColumn:
    marked = gr.State(None, time_to_live=DAY)
    picture = gr.Image(
        label="Image: click on it to mark points",
        type="filepath",
        image_mode=None,
        format="webp",
        sources=["upload", "clipboard"],
        buttons=[],
        height=400,
        elem_id="aurora-image",
    )
    _hand_on_paths(picture)
    with gr.Row():
        undo = gr.Button("Undo point", size="sm", elem_id="aurora-undo")
        clear = gr.Button("Clear points", size="sm", elem_id="aurora-clear")
    given = gr.Radio(
        [("drawn into the image", MARKS), ("named in the question", COORDINATES)],
        value=MARKS,
        label="Points are",
        visible=events.box is not None,
        elem_id="aurora-given",
    )
    question = gr.Textbox(label="Question", lines=2, max_length=4000, elem_id="aurora-question")
    reasoning = gr.Radio(
        [("Chain: reason with perception tokens", "chain"), ("Direct: answer at once", "direct")],
        value="chain",
        label="Reasoning",
        elem_id="aurora-reasoning",
    )
    with gr.Row():
        ask = gr.Button("Ask", variant="primary", elem_id="aurora-ask", scale=3)
        stop = gr.Button("Stop", variant="secondary", elem_id="aurora-stop", scale=1)
    examples = gr.Gallery(
        [example.path for example in events.examples],
        label="Examples",
        columns=4,
        height=190,
        object_fit="cover",
        allow_preview=False,
        interactive=False,
        buttons=[],
        elem_id="aurora-examples",
    )
    return LeftColumn(marked, picture, undo, clear, given, question, reasoning, ask, stop, examples)


def _hand_on_paths(picture: gr.Image) -> None:
    """Makes it give the path of an uploaded file as it is.

    By itself it would decode the file, where its errors say nothing, and fetch one whose address a request names.
    Its handlers return values alone: an update of other properties would put a new gr.Image in its place.
    """
    move = picture.async_move_resource_to_block_cache

    def path_of(payload: ImageData | None) -> str | None:
        return payload.path if payload is not None else None

    async def moved(path: Any) -> str | None:
        if "://" in str(path):
            raise gr.Error("images are uploaded, not fetched from an address", print_exception=False)
        return await move(path)

    picture.preprocess = path_of  # type: ignore[method-assign]
    picture.async_move_resource_to_block_cache = moved  # type: ignore[assignment, method-assign]


def _right_column(events: PageEvents) -> list[Any]:
    view = events.view
    with gr.Row():
        seen = gr.HTML(view.empty("the image"), elem_id="aurora-seen", js_on_load=None, min_width=200)
        drawn = gr.HTML(view.empty("the depth map"), elem_id="aurora-map", js_on_load=None, min_width=200)
    answer = gr.HTML(view.empty("the answer"), elem_id="aurora-answer", js_on_load=None)
    chain = gr.HTML(view.chain(""), elem_id="aurora-chain", js_on_load=None)
    with gr.Row():
        picture_file = gr.DownloadButton("Picture (PNG)", size="sm", interactive=False, elem_id="aurora-png")
        json_file = gr.DownloadButton("Everything (JSON)", size="sm", interactive=False, elem_id="aurora-json")
    return [seen, drawn, answer, chain, picture_file, json_file]


def _connect(events: PageEvents, left: LeftColumn, right: list[Any], concurrency: int) -> None:
    image = [left.picture, left.marked, left.question]
    options: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "concurrency_limit": 2}
    chosen = {"inputs": [left.picture, left.question, left.given], "outputs": image, **options}
    kept = {"inputs": [left.marked, left.question], "outputs": image, **options}
    left.picture.upload(events.choose, **chosen)
    left.picture.clear(events.choose, **chosen)
    left.picture.select(events.click, **kept)
    left.undo.click(events.undo, **kept)
    left.clear.click(events.clear, **kept)
    left.given.input(events.give, inputs=[left.marked, left.question, left.given], outputs=image, **options)
    left.examples.select(events.example, inputs=[left.given], outputs=image, **options)
    asking = gr.on(
        [left.ask.click, left.question.submit],
        events.ask,
        inputs=[left.picture, left.marked, left.question, left.reasoning],
        outputs=right,
        api_name="ask",
        concurrency_limit=concurrency,
        concurrency_id="ask",
        show_progress="hidden",
    )
    offered = [gr.update(interactive=True)] * 2
    asking.success(lambda: offered, outputs=right[-2:], show_progress="hidden", api_visibility="private")
    left.stop.click(None, cancels=[asking], show_progress="hidden", api_visibility="private")
