"""`llava-aurora ask`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from llava_aurora.cli.output import Commands, tell
from llava_aurora.cli.shared import (
    Base,
    Decoding,
    Device,
    Load4,
    Load8,
    Model,
    Prompt,
    Refinements,
    model_or_demo,
    usable_device,
)

if TYPE_CHECKING:
    from llava_aurora.generation.aurora import Aurora

app = Commands()


@app.command(
    answers=True,
    epilog="Examples: llava-aurora ask --model checkpoints/mine --image street.jpg 'How many cars are there?'  |  "
    "llava-aurora ask --model checkpoints/mine --folder photos --out answers.jsonl --pictures seen "
    "'How many people are there?'  |  llava-aurora ask --model checkpoints/mine --image street.jpg --point A=120,80 "
    "--point B=300,210 'Which of the points {points} is closest to the camera?'. Run again after an "
    "interruption to resume.",
)
def ask(
    question: Annotated[str, typer.Argument(help="What to ask.")],
    model: Model = None,
    image: Annotated[Path | None, typer.Option(help="The image to ask about.")] = None,
    point: Annotated[
        list[str] | None,
        typer.Option(
            help="A=120,80: a point in pixels of the image; drawn in, or named where QUESTION has {points}. Repeatable."
        ),
    ] = None,
    region: Annotated[
        str | None,
        typer.Option(help="MASK.png, x,y or x1,y1,x2,y2 in pixels of the image: put where QUESTION has {region}."),
    ] = None,
    look_again: Annotated[
        bool, typer.Option("--look-again", help="Show the model the box that it writes, enlarged, before it answers.")
    ] = False,
    folder: Annotated[Path | None, typer.Option(help="Ask about every image under this folder instead.")] = None,
    reasoning: Annotated[
        Literal["chain", "direct"], typer.Option(help="With a chain of thought, or only the answer.")
    ] = "chain",
    reasoning_prompt: Prompt = None,
    decoding: Decoding = "greedy",
    refinements: Refinements = 1,
    picture: Annotated[
        Path | None, typer.Option(help="PNG of the answer; default: NAME.answer.png in the current folder.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="With --folder: the JSONL file of the answers.")] = None,
    pictures: Annotated[Path | None, typer.Option(help="With --folder: a folder for pictures.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images at once.")] = 16,
    max_new_tokens: Annotated[
        int | None, typer.Option(min=1, help="Maximum length of an answer; default: the rest of the context.")
    ] = None,
    base: Base = None,
    device: Device = None,
    device_map: Annotated[str | None, typer.Option(help="auto: spread over all GPUs.")] = None,
    load_8bit: Load8 = False,
    load_4bit: Load4 = False,
    flash_attn: Annotated[bool, typer.Option("--flash-attn", help="FlashAttention 2.")] = False,
) -> None:
    """Ask a model about an image, or about a folder of them. Exit code 1 if some could not be read."""
    if (image is None) == (folder is None):
        raise typer.BadParameter("give either --image or --folder")
    if folder is not None and (out is None or picture is not None or point or region):
        raise typer.BadParameter("--folder goes with --out and --pictures, not with --picture, --point and --region")
    if look_again and (folder is not None or reasoning == "direct"):
        raise typer.BadParameter("--look-again goes with --image, and not with --reasoning direct")
    points = points_of(point or [])
    if image is not None and (out is not None or pictures is not None):
        raise typer.BadParameter("--out and --pictures need --folder; with --image use --picture")
    if load_8bit and load_4bit:
        raise typer.BadParameter("give one of --load-8bit and --load-4bit")
    from llava_aurora.data.images.image_files import SUFFIXES, opened_image
    from llava_aurora.found_files import find_files

    if image is not None:  # loading the model takes long
        with opened_image(image):
            pass
    elif folder is not None:
        find_files(folder, SUFFIXES)
    from llava_aurora.generation.aurora import Aurora

    aurora = Aurora.from_pretrained(
        model_or_demo(model),
        base=base,
        device=usable_device(device) if device else None,
        device_map=device_map,
        load_8bit=load_8bit,
        load_4bit=load_4bit,
        use_flash_attn=flash_attn,
    )
    options: dict[str, Any] = {"reasoning": reasoning, "reasoning_prompt": reasoning_prompt}
    options |= {"max_new_tokens": max_new_tokens, "decoding": decoding, "refinements": refinements}
    if image is not None:
        place = region_of(region) if region else None
        _ask_one(
            aurora, image, question, picture=picture, points=points, region=place, look_again=look_again, **options
        )
    else:
        assert folder is not None
        _ask_all(aurora, folder, question=question, out=out, pictures=pictures, batch_size=batch_size, **options)


def points_of(options: list[str]) -> dict[str, tuple[float, float]]:
    """The options --point A=120,80 by their letters. Raises typer.BadParameter for another form, or a letter twice."""
    points: dict[str, tuple[float, float]] = {}
    for option in options:
        letter, _, place = option.partition("=")
        try:
            x, y = map(float, place.split(","))
        except ValueError as error:
            raise typer.BadParameter(
                f"--point {option}: expected a letter and two numbers, such as A=120,80"
            ) from error
        if letter in points:
            raise typer.BadParameter(f"--point {letter} is given twice")
        points[letter] = (x, y)
    return points


def region_of(option: str) -> tuple[float, ...] | Path:
    """The option --region: numbers, or the file of a mask."""
    try:
        return tuple(map(float, option.split(",")))
    except ValueError:
        return Path(option)


def _ask_one(aurora: "Aurora", image: Path, question: str, *, picture: Path | None, **options: Any) -> None:
    from llava_aurora.generation.answer_pictures import refuse_other_picture, save_picture
    from llava_aurora.generation.result import folded

    picture = picture or Path(f"{image.stem}.answer.png")
    refuse_other_picture(picture)
    result = aurora.ask(image, question, **options)
    save_picture(result.figure(), picture)
    tell(result.to_json)
    if result.answer not in (result.text, result.text.removesuffix(".")):
        print(f"{folded(result.text, aurora.model.perception)}\n")
    print(result.answer or "(no answer beside the map)")
    if not result.finished:
        print("the answer was cut off: the token limit was reached", file=sys.stderr)
    print(f"{picture}: the picture", file=sys.stderr)


def _ask_all(aurora: "Aurora", folder: Path, *, out: Path | None, **options: Any) -> None:
    from llava_aurora.errors import shown
    from llava_aurora.found_files import in_words
    from llava_aurora.generation.folder import ask_folder

    assert out is not None
    report = ask_folder(aurora, folder, out=out, **options)
    for failure in report.failures:
        print(f"error: {shown(failure)}", file=sys.stderr)
    tell(out=out, answered=report.answered, already_done=report.kept, failures=report.failures)
    counts = f"{report.answered} answered, {report.kept} already done, {len(report.failures)} failed"
    print(f"{out}: {counts}{in_words(report.passed_over)}")
    if report.failures:
        raise typer.Exit(1)
