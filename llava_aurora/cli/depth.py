"""`llava-aurora data depth`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

from llava_aurora.cli.data import app
from llava_aurora.cli.depth_options import CloserOption, UnknownOption, ValuesOption, depth_scale
from llava_aurora.cli.shared import usable_device
from llava_aurora.errors import AuroraError
from llava_aurora.found_files import in_words

if TYPE_CHECKING:
    from llava_aurora.data.sources.depth.depth_maps import DepthReport


@app.command(
    epilog="Examples: llava-aurora data depth --images ade20k/ --out depth/ --device cuda  |  accelerate launch "
    "--num_processes 8 -m llava_aurora.cli data depth --images ade20k/ --out depth/  |  llava-aurora data depth "
    "--maps nyu/ --out depth/ --values metric --closer lower. Run it again after an interruption: it continues."
)
def depth(
    out: Annotated[Path, typer.Option(help="Folder for the maps: PNG, higher = closer, 0 = unknown.")],
    images: Annotated[Path | None, typer.Option(help="Folder of images whose depth to estimate.")] = None,
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
    bits: Annotated[int, typer.Option(help="8 or 16 a pixel.")] = 8,
    clip: Annotated[float, typer.Option(help="Percent of the pixels clipped at each end of the scale.")] = 0.0,
    workers: Annotated[int, typer.Option(min=0, help="Threads that read files.")] = 4,
) -> None:
    """Make relative depth maps: estimate them from --images, or convert --maps. Exit code 1 if some files failed."""
    from llava_aurora.data.sources.depth.depth_maps import process_share
    from llava_aurora.found_files import find_files
    from llava_aurora.vqvae.depth_scale import Bits

    if (images is None) == (maps is None):
        raise AuroraError("give either --images, to estimate depth, or --maps, to convert existing depth")
    if values not in (None, "metric", "relative") or closer not in (None, "higher", "lower") or bits not in (8, 16):
        raise AuroraError("--values is metric or relative, --closer is higher or lower, --bits is 8 or 16")
    made: dict[str, Any] = {"out": out, "workers": workers, "share": process_share(cpu=device == "cpu" or bool(maps))}
    if maps is not None:
        from llava_aurora.data.sources.depth.depth_import import check_folder, import_maps

        if values is None or closer is None:
            raise AuroraError("--maps needs --values metric|relative and --closer higher|lower: the files do not tell")
        scale = depth_scale(values, closer, unknown, clip=clip, bits=bits)
        if made["share"].index == 0:
            print(*check_folder(maps, scale).lines(scale.closer), sep="\n", file=sys.stderr)
        report = import_maps(maps=maps, scale=scale, **made)
    elif images is not None:
        from llava_aurora.data.sources.depth.depth_estimation import (
            SUFFIXES,
            DepthEstimator,
            default_device,
            estimate_maps,
        )

        if closer is not None or unknown:
            raise AuroraError("--closer and --unknown belong to --maps: how estimators write depth is known")
        find_files(images, SUFFIXES)  # fail before the estimator is loaded, which takes minutes
        used = default_device() if device is None else usable_device(device)
        kind = cast(Literal["metric", "relative"] | None, values)
        estimator = DepthEstimator(model=model, device=used, batch_size=batch_size, values=kind)
        report = estimate_maps(images=images, estimator=estimator, bits=cast(Bits, bits), clip=clip, **made)
    if report.main:
        _print(report, out)
    if report.failures:
        raise typer.Exit(1)


def _print(report: "DepthReport", out: Path) -> None:
    for line in report.lines:
        print(f"error: {line}", file=sys.stderr)
    rate = f", {report.written / report.seconds:.1f} a second" if report.written else ""
    failed = f"{len(report.failures)} failed{in_words(report.passed_over)}"
    print(f"{out}: {report.written} maps written{rate}; {report.kept} kept; {failed}")
    if report.failures:
        print(f"the failures are listed in {out / 'failures.jsonl'}; run again to retry them")
