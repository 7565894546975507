"""Options and helpers that several commands share."""

import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from llava_aurora.cli.output import tell
from llava_aurora.errors import AuroraError, shown
from llava_aurora.found_files import in_words
from llava_aurora.listed import listed

if TYPE_CHECKING:
    from llava_aurora.data.sources.made_records import MadeRecords
    from llava_aurora.tasks.records import RecordWriter
    from llava_aurora.tokens.vocabulary import TokenFamily

Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ...; a GPU if there is one.")]
Seed = Annotated[int, typer.Option(min=0, help="Random seed.")]

# Of a model that is asked.
Model = Annotated[Path | None, typer.Option(help="Model folder or hub name; default: the demo's.")]
Base = Annotated[str | None, typer.Option(help="The base model of a folder with only a projector.")]
Prompt = Annotated[str | None, typer.Option(help="Prompt that asks for a chain; default: 'Think step by step.'")]
Decoding = Annotated[
    Literal["greedy", "verified", "parallel", "packed"],
    typer.Option(
        help="One pass per token; the same text in few passes; maps after --refinements passes; or the same text as "
        "greedy, with an image that several questions share read once."
    ),
]
Refinements = Annotated[int, typer.Option(min=1, help="Passes over each map, for parallel decoding.")]
Load8 = Annotated[bool, typer.Option("--load-8bit", help="Quantize to 8 bits (bitsandbytes).")]
Load4 = Annotated[bool, typer.Option("--load-4bit", help="Quantize to 4 bits (bitsandbytes).")]

# Of training records that are written.
RecordsOut = Annotated[Path, typer.Option(help="The JSON file to write: the --data_path of training.")]
ValidationOut = Annotated[Path | None, typer.Option(help="The same for images kept out of training.")]
ValidationShare = Annotated[float, typer.Option(help="Share of the images to keep out.")]
Points = Annotated[str, typer.Option(help="Allowed numbers of points in a question.")]
OneHeight = Annotated[bool, typer.Option("--one-height", help="All points of a question at about the same height.")]
AspectRatio = Annotated[str, typer.Option(help="pad, square or resize, as --image_aspect_ratio in training.")]
Frame = Annotated[int, typer.Option(min=2, help="Side of the frame that coordinates refer to.")]
PlainCoordinates = Annotated[bool, typer.Option("--plain-coordinates", help="Numbers instead of tokens.")]
MaskCells = Annotated[int, typer.Option(help="Cells along each side of a mask's box, 8 or 16.")]
TASKS_HELP = "task=share of the scenes, separated by commas; masks=1: all about masks. Default: depth and counts."
PromptsFile = Annotated[Path | None, typer.Option("--prompts", help="JSON file with your own templates.")]

# Of a model folder that is written.
DType = Annotated[
    Literal["float32", "float16", "bfloat16"] | None, typer.Option(help="Type of the weights; default: the model's.")
]

DEMO_OUTPUT = Path("demo_output")
DEMO_MODEL = DEMO_OUTPUT / "work" / "model"


def usable_device(device: str | None) -> str:
    """The device as it was given, else this process's GPU, else the CPU. Raises AuroraError if it cannot be used."""
    import torch

    from llava_aurora.data.sources.depth.depth_estimation import default_device

    if device is None:
        return default_device()

    try:
        torch.zeros((), device=device)
    except (RuntimeError, AssertionError) as error:
        raise AuroraError(f"--device {device}: not usable here: {str(error).splitlines()[0]}") from error
    return device


def record_writer(*families: "TokenFamily", prompts: Path | None, frame: int, plain: bool) -> "RecordWriter":
    """Writes records with these tokens, and with those of coordinates in a frame unless they are to be plain."""
    from llava_aurora.tasks.prompts import Prompts
    from llava_aurora.tasks.records import RecordWriter
    from llava_aurora.tokens.vocabulary import pixel_family

    if not plain:
        families = (*families, pixel_family(frame=frame))
    return RecordWriter(prompts=Prompts.load(prompts) if prompts else Prompts(), families=families)


def shares_of(tasks: str, default: Mapping[str, float]) -> Mapping[str, float]:
    """The option --tasks name=share,… as a mapping; the default if it is empty. A family's name stands for its tasks.

    Raises AuroraError if it is malformed.
    """
    from llava_aurora.tasks.registry import families

    try:
        shares = {name: float(share) for name, share in (part.split("=") for part in listed(tasks))}
    except ValueError as error:
        raise AuroraError(f"--tasks {tasks}: expected name=share,name=share,…, such as depth_chain=0.5") from error
    for name, share in shares.items():
        if not 0 <= share <= 1:
            raise AuroraError(f"--tasks {name}={share:g}: expected a probability from 0 to 1")
    members = {family.name: [task.name for task in family.tasks] for family in families()}
    return {task: share for name, share in shares.items() for task in members.get(name, [name])} or default


def report_records(made: "MadeRecords") -> None:
    """Prints how many records were written, those of images that were kept out first; else as `report_failures`."""
    tell(validation_records=len(made.validation))
    if made.validation_out is not None:
        print(f"{made.validation_out}: {len(made.validation)} records of other images")
    report_failures(len(made.training), made.failures, made.out, made.passed_over)


def model_or_demo(model: Path | None) -> Path:
    """The folder of a model; if none is given, that which `llava-aurora demo` made here, which is said on stderr.

    Raises AuroraError if there is none.
    """
    if model is not None:
        return model
    if not (DEMO_MODEL / "config.json").is_file():
        raise AuroraError(f"give --model; {DEMO_MODEL}, which `llava-aurora demo` makes, is not here")
    print(f"{DEMO_MODEL}: the demo's model, since --model is not given", file=sys.stderr)
    return DEMO_MODEL


def report_failures(
    written: int, failures: list[str], out: Path, passed_over: Mapping[str, int] = MappingProxyType({})
) -> None:
    """Prints one summary line of a command on many files, and each failure on stderr; exit code 1 if some failed."""
    tell(out=out, written=written, failures=failures, passed_over=dict(passed_over))
    print(f"{out}: {written} written, {len(failures)} failed{in_words(passed_over)}")
    for failure in failures:
        print(f"error: {shown(failure)}", file=sys.stderr)
    if failures:
        raise typer.Exit(1)
