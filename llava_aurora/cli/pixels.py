"""`llava-aurora reconstruct`, and what `llava-aurora eval pixels` does."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llava_aurora.cli.output import Commands, tell
from llava_aurora.cli.shared import Base, Device, Load4, Load8, Model, model_or_demo, usable_device

if TYPE_CHECKING:
    from llava_aurora.generation.predictor import Predictor

app = Commands()


@app.command(
    epilog="Example: llava-aurora reconstruct --model checkpoints/mine --image street.jpg --out seen. Any LLaVA can be "
    "asked: without colour tokens it is asked in plain text."
)
def reconstruct(
    image: Annotated[Path, typer.Option(help="The image.")],
    out: Annotated[Path, typer.Option(help="Folder for reconstruction.png, seen.png and pixels.json.")],
    model: Model = None,
    size: Annotated[int, typer.Option(min=2, max=256, help="Cells along each side.")] = 64,
    base: Base = None,
    device: Device = None,
    load_8bit: Load8 = False,
    load_4bit: Load4 = False,
) -> None:
    """Ask a model for the colour of every cell of an image, and draw what it sees beside blurs of the original."""
    import time

    from llava_aurora.data.images.image_files import open_image
    from llava_aurora.evaluation.pixel_probe import error_of, probe, save_reconstruction, save_seen, yardsticks
    from llava_aurora.files import write_json
    from llava_aurora.generation.predictor import Predictor

    picture = open_image(image)
    predictor = Predictor.from_pretrained(
        model_or_demo(model),
        base=base,
        device=usable_device(device) if device else None,
        load_8bit=load_8bit,
        load_4bit=load_4bit,
    )
    began = time.perf_counter()
    probed = probe(predictor, picture, side=size)
    seconds = time.perf_counter() - began
    shown = yardsticks(picture, probed.true, aspect_ratio=predictor.aspect_ratio)
    errors = {name: error_of(colors, probed.true) for name, colors in {"model": probed.seen, **shown}.items()}
    out.mkdir(parents=True, exist_ok=True)
    save_seen(out / "seen.png", probed)
    save_reconstruction(out / "reconstruction.png", probed, shown)
    found: dict[str, Any] = {"errors": errors, "unreadable": probed.unreadable, "token_passes": probed.token_passes}
    write_json(out / "pixels.json", {**found, "seconds": round(seconds, 2), "size": size})
    tell(**found)
    for name, error in errors.items():
        print(f"RE, a channel, {name}: {error:.1f} %")
    print(f"{100 * probed.unreadable:.0f} % of the answers state no colour")
    print(f"{size} × {size} cells: {seconds:.1f} s, {probed.token_passes:,} tokens read; {out / 'reconstruction.png'}")


def evaluate_pixels_of(load: Callable[[], "Predictor"], given: Mapping[str, Any]) -> None:
    """RE of a model over images. Args: load: the model; given: the options of `eval`."""
    from llava_aurora.evaluation.pixel_probe import IMAGES, RESULTS, evaluate_pixels, summary

    out, count = given["out"], given["limit"] or IMAGES
    results = evaluate_pixels(load(), given["data"], out=out, count=count, seed=given["seed"])
    tell(figures=results)
    print(summary(results))
    print(f"figures: {out / RESULTS}; pictures beside it")
