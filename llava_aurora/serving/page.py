"""The page: image, points and question on the left, what the model writes on the right."""

from typing import Any

import gradio as gr
from gradio.data_classes import ImageData

from llava_aurora.serving.events import PageEvents
from llava_aurora.serving.marks import COORDINATES, MARKS, REGION

_FONT = ["system-ui", "Segoe UI", "Helvetica", "Arial", "sans-serif"]
_MONO = ["ui-monospace", "Menlo", "Consolas", "monospace"]
# On a narrow screen the answer is below the question; screen readers say it when it comes.
_SHOW_ANSWER = """() => {
    document.getElementById("aurora-answer").scrollIntoView({behavior: "smooth", block: "nearest"});
}"""
_READ_ALOUD = """() => {
    document.getElementById("aurora-answer").setAttribute("aria-live", "polite");
}"""


def theme() -> gr.Theme:
    """Fonts of the visitor's own machine: nothing is fetched."""
    return gr.themes.Soft(primary_hue="indigo", neutral_hue="slate", font=_FONT, font_mono=_MONO)


def build_page(events: PageEvents, *, name: str, concurrency: int) -> gr.Blocks:
    """Builds the page for what the model can do: without box tokens, for instance, coordinates are not offered.

    Args: concurrency: questions answered at the same time; others wait.
    """
    kinds = " and ".join(events.perception.kinds) if events.perception is not None else ""
    about = f"writes {kinds} tokens" if kinds else "has no perception tokens"
    frame = f"coordinates in the model's frame of {events.box.frame} × {events.box.frame}" if events.box else ""
    with gr.Blocks(title="llava_aurora", analytics_enabled=False, fill_width=True) as page:
        gr.Markdown(f"## {name}\nThis model {about}.", elem_id="aurora-heading", sanitize_html=True)
        with gr.Row(equal_height=False):
            with gr.Column(scale=5, min_width=320):
                marked = gr.State(None, time_to_live=24 * 3600)
                picture = gr.Image(
                    label="Image: click on it to mark points",
                    type="filepath",
                    image_mode=None,
                    format="webp",
                    sources=["upload", "clipboard"],
                    buttons=[],
                    height=330,
                    elem_id="aurora-image",
                )
                _hand_on_paths(picture)
                with gr.Row():
                    undo = gr.Button("Undo point", size="sm", min_width=90, elem_id="aurora-undo")
                    clear = gr.Button("Clear points", size="sm", min_width=90, elem_id="aurora-clear")
                    typed = gr.Textbox(
                        placeholder="point: x, y",
                        show_label=False,
                        container=False,
                        max_lines=1,
                        min_width=90,
                        elem_id="aurora-typed",
                    )
                given = gr.Radio(
                    [
                        ("drawn into the image", MARKS),
                        ("named in the question", COORDINATES),
                        ("the region of the question", REGION),
                    ],
                    value=MARKS,
                    label="Points are",
                    visible=events.box is not None,
                    elem_id="aurora-given",
                )
                question = gr.Textbox(label="Question", lines=2, max_length=4000, elem_id="aurora-question")
                with gr.Row():
                    ask = gr.Button("Ask", variant="primary", elem_id="aurora-ask", scale=3, min_width=100)
                    stop = gr.Button("Stop", variant="secondary", elem_id="aurora-stop", scale=1, min_width=80)
                reasoning = gr.Radio(
                    [("Chain: reason with perception tokens", "chain"), ("Direct: answer at once", "direct")],
                    value="chain" if kinds else "direct",
                    label="Reasoning",
                    visible=bool(kinds),
                    elem_id="aurora-reasoning",
                )
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
            with gr.Column(scale=7, min_width=320):
                right = [
                    gr.HTML(
                        visible=any(kind.family.delimited for kind in events.kinds.values()),
                        elem_id="aurora-map",
                        js_on_load=None,
                    ),
                    gr.Textbox(label="Answer", interactive=False, elem_id="aurora-answer"),
                    gr.Textbox(label="Text", info=frame or None, interactive=False, lines=3, elem_id="aurora-chain"),
                    gr.Image(
                        label="Picture, in the image's own pixels",
                        type="filepath",
                        format="png",
                        interactive=False,
                        buttons=["download"],
                        elem_id="aurora-png",
                    ),
                    gr.DownloadButton("Everything (JSON)", size="sm", elem_id="aurora-json"),
                ]
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        inputs, outputs = [marked, question, given], [picture, marked, question]
        # One image is decoded at a time.
        image = {"outputs": outputs, "concurrency_limit": 1, "concurrency_id": "image", **quiet}
        gr.on([picture.upload, picture.clear], events.choose, inputs=[*inputs, picture], **image)
        for listener, handler in (
            (picture.select, events.click),
            (undo.click, events.undo),
            (clear.click, events.clear),
            (given.input, events.give),
            (examples.select, events.example),
        ):
            listener(handler, inputs=inputs, **image)
        typed.submit(events.type_point, inputs=[*inputs, typed], **image).then(lambda: "", outputs=typed, **quiet)
        asking = gr.on(
            [ask.click, question.submit],
            events.ask,
            inputs=[picture, marked, question, reasoning],
            outputs=right,
            api_name="ask",
            concurrency_limit=concurrency,
            concurrency_id="ask",
            show_progress="hidden",
        )
        stop.click(events.stopped, inputs=[question, reasoning, right[2]], outputs=right[4], cancels=[asking], **quiet)
        ask.click(None, js=_SHOW_ANSWER, **quiet)
        page.load(None, js=_READ_ALOUD, **quiet)
    return page


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
            raise gr.Error("images are uploaded, not fetched from a URL", print_exception=False)
        return await move(path)

    picture.preprocess = path_of  # type: ignore[method-assign]
    picture.async_move_resource_to_block_cache = moved  # type: ignore[assignment, method-assign]
