"""`llava-aurora data boxes`, `data masks`, `data pixels` and `data hardblink`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llava_aurora.cli import shared
from llava_aurora.cli.data import app
from llava_aurora.cli.depth_options import CloserOption, UnknownOption, ValuesOption, checked_scale
from llava_aurora.cli.output import tell
from llava_aurora.cli.shared import record_writer, report_failures, report_records, shares_of

if TYPE_CHECKING:
    from llava_aurora.data.sources.boxes.box_records import BoxRecords


@app.command(
    epilog="Examples: llava-aurora data boxes --annotations lvis_v1_train.json --image-folder coco --out "
    "train.json  |  llava-aurora data boxes --annotations instances_train2017.json --image-folder coco/train2017 "
    "--out train.json --validation-out val.json --validation-share 0.05 --tasks counting_chain=1,counting_direct=0.5"
)
def boxes(
    annotations: Annotated[Path, typer.Option(help="Annotation file of LVIS, or in COCO's layout.")],
    images: Annotated[
        Path,
        typer.Option(
            "--image-folder", "--images", help="Folder of the images or of train2017 and val2017; --image_folder."
        ),
    ],
    out: shared.RecordsOut,
    validation_out: shared.ValidationOut = None,
    validation_share: shared.ValidationShare = 0.0,
    tasks: Annotated[str, typer.Option(help="task=share of the questions, separated by commas; default: all.")] = "",
    negatives: Annotated[float, typer.Option(help="Share of questions about absent categories.")] = 0.2,
    max_boxes: Annotated[int, typer.Option(help="Maximum number of instances in a question.")] = 15,
    max_per_count: Annotated[
        int, typer.Option(help="Maximum number of questions with the same count above 0; 0: no limit.")
    ] = 1000,
    per_image: Annotated[
        int, typer.Option(help="Maximum number of questions per image, for present and for absent categories each.")
    ] = 2,
    max_images: Annotated[int, typer.Option(help="Use this many images, drawn at random; 0: all.")] = 0,
    aspect_ratio: shared.AspectRatio = "pad",
    resized: Annotated[
        Path | None,
        typer.Option(help="Folder for copies that --aspect-ratio resize makes, for LLaVA's own code."),
    ] = None,
    frame: shared.Frame = 336,
    plain_coordinates: shared.PlainCoordinates = False,
    prompts: shared.PromptsFile = None,
    seed: shared.Seed = 0,
) -> None:
    """Make questions about boxes and counts in images of LVIS or COCO: training records in LLaVA's JSON format."""
    from llava_aurora.data.sources.boxes.box_questions import BOX_TASKS, BoxTasks
    from llava_aurora.data.sources.boxes.box_records import write_box_records

    writer = record_writer(prompts=prompts, frame=frame, plain=plain_coordinates)
    asked = BoxTasks(
        shares=shares_of(tasks, dict.fromkeys(BOX_TASKS, 1.0)),
        negatives=negatives,
        max_boxes=max_boxes,
        max_per_count=max_per_count,
        per_image=per_image,
        max_images=max_images,
        validation_share=validation_share,
        aspect_ratio=aspect_ratio,
        frame=frame,
        seed=seed,
    )
    made = write_box_records(
        out,
        annotations=annotations,
        images=images,
        writer=writer,
        tasks=asked,
        validation_out=validation_out,
        resized=resized,
    )
    tell(possible=made.possible, asked=made.asked)
    _print_counts(made)
    ratio = "" if resized else f" --image_aspect_ratio {aspect_ratio}"
    print(f"train with --image_folder {resized or images}{ratio}")
    report_records(made)


def _print_counts(made: "BoxRecords") -> None:
    counts = range(max(made.possible, default=0) + 1)
    rows = [(count, made.possible[count], made.asked[count]) for count in counts]
    print("Questions by their count")
    for row in (("count", "possible", "asked"), *rows, ("all", made.possible.total(), made.asked.total())):
        print("{:<6}{:>9}{:>9}".format(*row))


@app.command(
    epilog="Examples: llava-aurora data masks --annotations instances_train2017.json --image-folder coco/train2017 "
    "--out train.json  |  llava-aurora data masks --annotations 'refcoco/refs(unc).p' --image-folder coco/train2014 "
    "--out ref.json"
)
def masks(
    annotations: Annotated[
        Path, typer.Option(help="File of COCO or LVIS; RefCOCO's refs file or folder; Parquet in lmms-lab's layout.")
    ],
    images: Annotated[
        Path,
        typer.Option("--image-folder", "--images", help="Folder of the images; those in Parquet are written there."),
    ],
    out: shared.RecordsOut,
    validation_out: shared.ValidationOut = None,
    validation_share: shared.ValidationShare = 0.0,
    tasks: Annotated[
        str,
        typer.Option(help="task=share, with commas; default: all about masks; of RefCOCO those about a phrase."),
    ] = "",
    split: Annotated[str, typer.Option(help="Split of RefCOCO to read.")] = "train",
    per_image: Annotated[int, typer.Option(min=1, help="Rounds of questions about an image of COCO or LVIS.")] = 2,
    max_images: Annotated[int, typer.Option(help="Use this many images of COCO or LVIS, at random; 0: all.")] = 0,
    aspect_ratio: shared.AspectRatio = "pad",
    mask_cells: shared.MaskCells = 8,
    frame: shared.Frame = 336,
    plain_coordinates: shared.PlainCoordinates = False,
    prompts: shared.PromptsFile = None,
    seed: shared.Seed = 0,
) -> None:
    """Ask for masks of things and phrases: training records in LLaVA's JSON format."""
    from llava_aurora.data.sources.masks.mask_records import MaskTasks, default_shares, write_mask_records
    from llava_aurora.tokens.vocabulary import mask_family

    made = write_mask_records(
        out,
        annotations=annotations,
        images=images,
        writer=record_writer(mask_family(cells=mask_cells), prompts=prompts, frame=frame, plain=plain_coordinates),
        tasks=MaskTasks(
            shares=shares_of(tasks, default_shares(annotations)),
            split=split,
            per_image=per_image,
            max_images=max_images,
            validation_share=validation_share,
            aspect_ratio=aspect_ratio,
            frame=frame,
            seed=seed,
        ),
        validation_out=validation_out,
    )
    print(
        f"train with --image_folder {images} --image_aspect_ratio {aspect_ratio} --perception_modalities depth,box,mask"
    )
    report_records(made)


@app.command(
    epilog="Examples: llava-aurora data pixels --image-folder photos --out train.json  |  llava-aurora data pixels "
    "--image-folder coco/train2017 --out train.json --tasks pixel_value_plain=1 --per-image 2"
)
def pixels(
    images: Annotated[Path, typer.Option("--image-folder", "--images", help="Folder of images, folders inside too.")],
    out: shared.RecordsOut,
    tasks: Annotated[
        str, typer.Option(help="task=share, with commas: pixel_value in tokens, pixel_value_plain in plain text.")
    ] = "pixel_value=1",
    per_image: Annotated[
        int, typer.Option(min=1, help="Questions about an image; in training each asks for another pixel every epoch.")
    ] = 1,
    aspect_ratio: shared.AspectRatio = "pad",
    frame: shared.Frame = 336,
    plain_coordinates: shared.PlainCoordinates = False,
    prompts: shared.PromptsFile = None,
    seed: shared.Seed = 0,
) -> None:
    """Ask for the colour of pixels: training records in LLaVA's JSON format."""
    from llava_aurora.data.sources.pixel_records import write_pixel_records
    from llava_aurora.tokens.vocabulary import color_family

    made = write_pixel_records(
        out,
        images=images,
        writer=record_writer(color_family(), prompts=prompts, frame=frame, plain=plain_coordinates),
        shares=shares_of(tasks, {}),
        per_image=per_image,
        aspect_ratio=aspect_ratio,
        frame=frame,
        seed=seed,
    )
    kinds = "--perception_modalities depth,box,color" if "pixel_value=" in tasks else "no perception tokens needed"
    print(f"train with --image_folder {images} --image_aspect_ratio {aspect_ratio}; {kinds}")
    report_records(made)


@app.command(
    epilog="Example: llava-aurora data hardblink --image-folder blink/images --depth blink/depth --out hardblink. "
    "The depth maps are PNG or npy, higher = closer, named as the images are."
)
def hardblink(
    images: Annotated[Path, typer.Option("--image-folder", "--images", help="Folder of images without marks.")],
    depth: Annotated[Path, typer.Option(help="Folder of their depth maps.")],
    out: Annotated[Path, typer.Option(help="Folder to create, in HardBLINK's published layout.")],
    values: ValuesOption = None,
    closer: CloserOption = None,
    unknown: UnknownOption = "",
    seed: Annotated[int, typer.Option(min=0, help="Random seed of points and letters.")] = 0,
) -> None:
    """Mark 3, 4 and 5 points at mid height of each image and ask for the closest: a benchmark like HardBLINK."""
    from llava_aurora.data.sources.hardblink import write_hardblink

    scale, _ = checked_scale(depth, values=values, closer=closer, unknown=unknown)
    made = write_hardblink(out, images=images, depth=depth, scale=scale, seed=seed)
    tell(questions=made.counts)
    for points, questions in made.counts.items():
        print(f"{points} points: {questions} questions")
    report_failures(sum(made.counts.values()), made.failures, out, made.passed_over)
