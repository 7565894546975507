"""`llava-aurora data depth`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from llava_aurora.cli import shared
from llava_aurora.cli.data import app
from llava_aurora.cli.depth_options import CloserOption, UnknownOption, ValuesOption, checked_scale, depth_scale
from llava_aurora.cli.output import tell
from llava_aurora.cli.shared import (
    record_writer,
    report_records,
    shares_of,
    usable_device,
)
from llava_aurora.errors import AuroraError, shown
from llava_aurora.found_files import in_words
from llava_aurora.listed import listed_numbers

if TYPE_CHECKING:
    from llava_aurora.data.sources.depth.depth_maps import DepthReport


@app.command(
    epilog="Examples: llava-aurora data depth --image-folder ade20k/ --out depth/ --device cuda  |  accelerate launch "
    "--num_processes 8 -m llava_aurora.cli data depth --image-folder ade20k/ --out depth/  |  llava-aurora data depth "
    "--maps nyu/ --out depth/ --values metric --closer lower. Run again after an interruption to resume."
)
def depth(
    out: Annotated[Path, typer.Option(help="Folder for the maps: PNG, higher = closer, 0 = unknown.")],
    images: Annotated[
        Path | None, typer.Option("--image-folder", "--images", help="Folder of images whose depth to estimate.")
    ] = None,
    maps: Annotated[Path | None, typer.Option(help="Folder of PNG, npy, npz or EXR depth to convert instead.")] = None,
    values: ValuesOption = None,
    closer: CloserOption = None,
    unknown: UnknownOption = "",
    model: Annotated[
        str, typer.Option(help="Depth estimator: a folder, or a name on the hub.")
    ] = "depth-anything/Depth-Anything-V2-Large-hf",
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, cuda:1, ...; if left out, this process's GPU or else the CPU.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images in a batch, all of the same size.")] = 8,
    bits: Annotated[int, typer.Option(help="8 or 16 bits per pixel.")] = 8,
    clip: Annotated[float, typer.Option(help="Percent of the pixels clipped at each end of the scale.")] = 0.0,
    workers: Annotated[int, typer.Option(min=0, help="Threads that read files.")] = 4,
) -> None:
    """Make relative depth maps: estimate them from --images, or convert --maps. Exit code 1 if some files failed."""
    from llava_aurora.data.sources.depth.depth_maps import process_share
    from llava_aurora.found_files import find_files
    from llava_aurora.vqvae.depth_scale import Bits

    if (images is None) == (maps is None):
        raise AuroraError("give either --image-folder, to estimate depth, or --maps, to convert existing depth")
    made: dict[str, Any] = {"out": out, "workers": workers, "share": process_share(cpu=device == "cpu" or bool(maps))}
    if maps is not None:
        from llava_aurora.data.sources.depth.depth_import import check_folder, import_maps

        if values is None or closer is None:
            raise AuroraError("--maps needs --values metric|relative and --closer higher|lower: the files do not say")
        scale = depth_scale(values, closer, unknown, clip=clip, bits=bits)
        if made["share"].index == 0:
            print(*check_folder(maps, scale).lines(scale.closer), sep="\n", file=sys.stderr)
        report = import_maps(maps=maps, scale=scale, **made)
    elif images is not None:
        from llava_aurora.data.images.image_files import SUFFIXES
        from llava_aurora.data.sources.depth.depth_estimation import DepthEstimator, estimate_maps

        if closer is not None or unknown:
            raise AuroraError("--closer and --unknown are for --maps only")
        find_files(images, SUFFIXES)  # fail before the estimator is loaded, which takes minutes
        used = usable_device(device)
        estimator = DepthEstimator(model=model, device=used, batch_size=batch_size, values=values)
        report = estimate_maps(images=images, estimator=estimator, bits=cast(Bits, bits), clip=clip, **made)
    if report.main:
        _print(report, out)
    if report.failures:
        raise typer.Exit(1)


@app.command(
    "depth-records",
    epilog="Examples: llava-aurora data depth-records --image-folder photos/ --depth depth/ --depth-vqvae vq/ --out "
    "train.json  |  llava-aurora data depth-records ... --tasks depth_generation=1,depth_chain=0.5 "
    "--validation-out val.json --validation-share 0.05",
)
def depth_records(
    images: Annotated[
        Path,
        typer.Option("--image-folder", "--images", help="Folder of photographs; also the --image_folder of training."),
    ],
    depth: Annotated[
        Path, typer.Option(help="Their depth maps, from `data depth`; preferably inside the image folder.")
    ],
    vqvae: Annotated[
        Path, typer.Option("--depth-vqvae", "--vqvae", help="VQ-VAE folder, or a published .pt file: encodes the maps.")
    ],
    out: shared.RecordsOut,
    values: ValuesOption = None,
    closer: CloserOption = None,
    unknown: UnknownOption = "",
    codes: Annotated[
        Path | None, typer.Option(help="The depth folder as codes, from `vqvae encode`, instead of encoding here.")
    ] = None,
    tasks: Annotated[str, typer.Option(help="task=share of the images, separated by commas; default: all five.")] = "",
    points: shared.Points = "2,3,4,5",
    aspect_ratio: Annotated[
        str, typer.Option(help="resize, pad or square, as --image_aspect_ratio in training.")
    ] = "resize",
    frame: shared.Frame = 336,
    marked: Annotated[
        str, typer.Option(help="Folder to create in --image-folder, for copies with the points drawn in.")
    ] = "aurora_marked",
    validation_out: shared.ValidationOut = None,
    validation_share: shared.ValidationShare = 0.0,
    plain_coordinates: shared.PlainCoordinates = False,
    prompts: shared.PromptsFile = None,
    one_height: shared.OneHeight = False,
    seed: shared.Seed = 0,
) -> None:
    """Make questions about the depth of photographs: training records in LLaVA's JSON format."""
    from collections import Counter

    from llava_aurora.data.sources.depth.depth_records import DEFAULT_SHARES, DepthTasks, write_depth_records
    from llava_aurora.tasks.annotated import Drawing
    from llava_aurora.tokens.depth import DepthKind
    from llava_aurora.vqvae.checkpoint import load_depth_vqvae
    from llava_aurora.vqvae.folders import read_codes

    scale, _ = checked_scale(depth, values=values, closer=closer, unknown=unknown)
    model = load_depth_vqvae(vqvae)
    kind = DepthKind(vqvae=model)
    made = write_depth_records(
        out,
        images=images,
        depth=depth,
        kind=kind,
        writer=record_writer(kind.family, prompts=prompts, frame=frame, plain=plain_coordinates),
        tasks=DepthTasks(
            shares=shares_of(tasks, DEFAULT_SHARES),
            drawing=Drawing(frame=frame, points=listed_numbers(points, "--points", int), one_height=one_height),
            aspect_ratio=aspect_ratio,
            validation_share=validation_share,
            seed=seed,
        ),
        marked=marked,
        scale=scale,
        codes=read_codes(codes, model=model).codes if codes else None,
        validation_out=validation_out,
    )
    counts = Counter(record["aurora"]["task"] for record in made.training)
    tell(tasks=counts, redrawable=made.redrawable)
    for task, count in counts.items():
        print(f"{task}: {count} records")
    if not made.redrawable:
        why = f"{depth} is not inside {images}" if scale is None else f"{depth} needs --values"
        print(f"{why}, so --fresh_points cannot draw other points each epoch")
    print(f"train with --data_path {out} --image_folder {images} --image_aspect_ratio {aspect_ratio}")
    report_records(made)


def _print(report: "DepthReport", out: Path) -> None:
    for line in report.lines:
        print(f"error: {shown(line)}", file=sys.stderr)
    tell(out=out, written=report.written, kept=report.kept, failures=report.failures, passed_over=report.passed_over)
    rate = f", {report.written / report.seconds:.1f} per second" if report.written else ""
    failed = f"{len(report.failures)} failed{in_words(report.passed_over)}"
    print(f"{out}: {report.written} maps written{rate}; {report.kept} already done; {failed}")
    if report.failures:
        print(f"the failures are listed in {out / 'failures.jsonl'}; run again to retry them")
