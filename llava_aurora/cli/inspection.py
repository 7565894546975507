"""`llava-aurora data check` and `data view`: checks training records, and shows them on a page."""

from pathlib import Path
from typing import Annotated

import typer

from llava_aurora.cli.data import app
from llava_aurora.cli.output import tell
from llava_aurora.errors import AuroraError
from llava_aurora.listed import listed

Records = Annotated[Path, typer.Argument(help="The records: the --data_path of training.")]


@app.command(
    answers=True,
    epilog="Examples: llava-aurora data check train.json --image-folder images/ --model base/ --depth-vqvae vq/  |  "
    "llava-aurora data check train.json --image-folder images/ --quick  |  "
    "llava-aurora data check train.json --image-folder images/ --model base/ --eval-data test.json --out report/",
)
def check(
    file: Records,
    image_folder: Annotated[Path | None, typer.Option(help="The --image_folder of training.")] = None,
    model: Annotated[Path | None, typer.Option(help="Folder of the base model, or of a trained one.")] = None,
    depth_vqvae: Annotated[Path | None, typer.Option(help="The VQ-VAE that the codes come from.")] = None,
    frame: Annotated[int, typer.Option(min=2, help="Side of the frame that coordinates refer to.")] = 336,
    image_aspect_ratio: Annotated[
        str | None, typer.Option(help="As in training: pad, square or resize; default: the model's, or pad.")
    ] = None,
    max_length: Annotated[int | None, typer.Option(min=1, help="The --model_max_length of training.")] = None,
    eval_data: Annotated[
        Path | None, typer.Option(help="Records or questions whose images must not be trained on.")
    ] = None,
    eval_image_folder: Annotated[
        Path | None, typer.Option(help="Folder of its images; default: --image-folder.")
    ] = None,
    distance: Annotated[
        int, typer.Option(min=0, max=7, help="Maximum difference, in bits, of the hashes of two copies of one picture.")
    ] = 5,
    quick: Annotated[bool, typer.Option("--quick", help="Read only the headers of images.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit code 1 for warnings too.")] = False,
    examples: Annotated[int, typer.Option(min=1, max=10, help="Records listed for each kind of problem.")] = 3,
    out: Annotated[Path | None, typer.Option(help="Folder for report.json and two histograms.")] = None,
    workers: Annotated[int, typer.Option(min=0, help="Processes; 0 = one for each core.")] = 0,
) -> None:
    """Check every record and image before a run. Exit code 1 if something is wrong; the last line is the verdict."""
    import os

    from llava_aurora.data.validation.checks import CheckSettings, check_file, codebook_family
    from llava_aurora.tokens.vocabulary import TokenFamily, any_mask_family, pixel_family

    for folder, flag in ((image_folder, "--image-folder"), (eval_image_folder, "--eval-image-folder")):
        if folder is not None and not folder.is_dir():
            raise AuroraError(f"{flag} {folder}: no such folder")
    if eval_data is not None and image_folder is None:
        raise AuroraError("--eval-data is compared by its images; give --image-folder as well")
    depth = codebook_family(depth_vqvae) if depth_vqvae is not None else None
    limits = None
    families: tuple[TokenFamily, ...] = (
        (depth, pixel_family(frame=frame), any_mask_family()) if depth is not None else ()
    )
    if model is not None:
        from llava_aurora.data.validation.labels import model_limits

        limits = model_limits(model, depth=depth, frame=frame, max_length=max_length)
        families, frame = limits.families, limits.frame
    settings = CheckSettings(
        families=families,
        frame=frame,
        model=limits,
        image_folder=image_folder,
        aspect_ratio=image_aspect_ratio or (limits.aspect_ratio if limits else None) or "pad",
        quick=quick,
        eval_data=eval_data,
        eval_image_folder=eval_image_folder,
        distance=distance,
        workers=workers or os.cpu_count() or 1,
    )
    report = check_file(file, settings)
    if out is not None:
        report.save(out)
    tell(**report.as_dict())
    report.print(examples=examples, strict=strict)
    if not report.fine(strict=strict):
        raise typer.Exit(1)


@app.command(
    epilog="Examples: llava-aurora data view train.json --image-folder images/ --depth-vqvae vq/ --out page.html  |  "
    "llava-aurora data view train.json --image-folder images/ --task depth_chain,counting_chain --count 20 --out p.html"
)
def view(
    file: Records,
    image_folder: Annotated[Path, typer.Option(help="The --image_folder of training.")],
    out: Annotated[Path, typer.Option(help="The HTML file to write.")],
    count: Annotated[int, typer.Option(min=1, help="Number of records, balanced over the tasks.")] = 40,
    task: Annotated[str, typer.Option(help="Only these tasks, separated by commas.")] = "",
    seed: Annotated[int, typer.Option(min=0, help="Random seed of the choice.")] = 0,
    depth_vqvae: Annotated[Path | None, typer.Option(help="The VQ-VAE that decodes maps.")] = None,
    model: Annotated[Path | None, typer.Option(help="A trained model, which has tokens and VQ-VAE of its own.")] = None,
    frame: Annotated[int, typer.Option(min=2, help="Side of the frame that coordinates refer to.")] = 336,
) -> None:
    """Write an HTML page of records: pictures with boxes, points and maps, questions and answers."""
    from llava_aurora.data.view import RecordPage, sample_records, trained_modalities
    from llava_aurora.tokens.box import BoxKind
    from llava_aurora.tokens.depth import DepthKind
    from llava_aurora.tokens.kind import TokenKind
    from llava_aurora.tokens.vocabulary import any_mask_family, depth_family

    if not image_folder.is_dir():
        raise AuroraError(f"--image-folder {image_folder}: no such folder")
    if model is not None and depth_vqvae is not None:
        raise AuroraError("--model has its own VQ-VAE; give either --model or --depth-vqvae")
    boxes = BoxKind(frame=frame)
    depth: TokenKind | None = None
    if model is not None:
        known = trained_modalities(model)
        depth, found = known.get("depth"), known.get("box")
        boxes = found if isinstance(found, BoxKind) else boxes
    elif depth_vqvae is not None:
        from llava_aurora.vqvae.checkpoint import load_depth_vqvae

        depth = DepthKind(vqvae=load_depth_vqvae(depth_vqvae))
    families = (depth.family if depth is not None else depth_family(), boxes.family, any_mask_family())
    records = sample_records(file, count=count, tasks=listed(task), seed=seed)
    page = RecordPage(image_folder=image_folder, boxes=boxes, families=families, depth=depth)
    page.write(out, records, title=str(file), summary=f"{len(records)} records, drawn with seed {seed}")
    tell(out=out, records=len(records), bytes=out.stat().st_size)
    print(f"{out}: {len(records)} records, {out.stat().st_size / 1e6:.1f} MB")
