"""`llava-aurora serve`: a page to ask a model on."""

import signal
from pathlib import Path
from typing import Annotated, Literal

import typer

from llava_aurora.cli.shared import Base, Device, Load4, Load8, Model, model_or_demo
from llava_aurora.errors import AuroraError

app = typer.Typer()


@app.command(
    epilog="Examples: llava-aurora serve --model demo_output/work/model  |  "
    "llava-aurora serve --model checkpoints/mine --host 0.0.0.0 --port 8080 --queue 50 --load-4bit  |  "
    "llava-aurora serve --model checkpoints/mine --decoding verified --examples photographs/"
)
def serve(
    model: Model = None,
    base: Base = None,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 lets in other machines.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 7860,
    max_upload_mb: Annotated[int, typer.Option(min=1, help="Maximum size of an image file in MiB.")] = 20,
    queue: Annotated[
        int, typer.Option(min=1, help="Maximum number of waiting questions; further ones are refused.")
    ] = 20,
    concurrency: Annotated[int, typer.Option(min=1, help="Questions answered at the same time.")] = 1,
    decoding: Annotated[
        Literal["greedy", "verified", "parallel"],
        typer.Option(help="One pass per token; the same text in few passes; or approximate maps in few passes."),
    ] = "greedy",
    examples: Annotated[Path | None, typer.Option(help="Folder of example images; default: rendered scenes.")] = None,
    device: Device = None,
    device_map: Annotated[str | None, typer.Option(help="auto spreads the model over all GPUs.")] = None,
    load_8bit: Load8 = False,
    load_4bit: Load4 = False,
) -> None:
    """Serve a page to ask a model on: upload or mark an image, watch the map appear, read the answer."""
    try:
        import gradio  # noqa: F401  said before the model is loaded
    except ImportError as error:
        raise AuroraError(f"the page needs Gradio ({error}); pip install 'llava-aurora[serve]'") from error
    from llava_aurora.serving.server import ServerSettings
    from llava_aurora.serving.server import serve as serve_page

    settings = ServerSettings(
        host=host,
        port=port,
        max_upload_mb=max_upload_mb,
        queue=queue,
        concurrency=concurrency,
        decoding=decoding,
        examples=examples,
    )
    settings.check()
    from llava_aurora.generation.aurora import Aurora

    model = model_or_demo(model)
    aurora = Aurora.from_pretrained(
        model, base=base, device=device, device_map=device_map, load_8bit=load_8bit, load_4bit=load_4bit
    )
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        serve_page(aurora, settings, name=model.resolve().name)
    except KeyboardInterrupt:
        print("stopped")
