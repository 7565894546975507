"""`llava-aurora data depth`."""

import sys
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import typer

from llava_aurora.cli.data import app
from llava_aurora.cli.shared import usable_device
from llava_aurora.errors import AuroraError


@app.command(
    epilog="Examples: llava-aurora data depth --images ade20k/ --out depth/ --device cuda  |  accelerate launch "
    "--num_processes 8 -m llava_aurora.cli data depth --images ade20k/ --out depth/  |  llava-aurora data depth "
    "--maps nyu/ --out depth/ --values metric --closer lower. Run again after an interruption: it goes on where it was."
)
def depth(
    out: Annotated[Path, typer.Option(help="Folder for the maps: PNG, higher = closer, 0 = unknown.")],
    images: Annotated[Path | None, typer.Option(help="Folder of images, to estimate their depth.")] = None,
    maps: Annotated[Path | None, typer.Option(help="Folder of depth as PNG, npy, npz or EXR, instead.")] = None,
    values: Annotated[
        str | None, typer.Option(help="metric (distances) or relative. Needed with --maps; an estimator says its own.")
    ] = None,
    closer: Annotated[str | None, typer.Option(help="higher or lower: which values are closer. Needs --maps.")] = None,
    zero_unknown: Annotated[
        bool, typer.Option("--zero-unknown", help="0 means unknown in relative --maps too.")
    ] = False,
    model: Annotated[
        str, typer.Option(help="Depth estimator: a folder, or a name on the hub.")
    ] = "depth-anything/Depth-Anything-V2-Large-hf",
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, cuda:1, ...; if left out, this process's GPU or else the CPU.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images at once, of those that have one size.")] = 8,
    bits: Annotated[int, typer.Option(help="8 or 16 a pixel.")] = 8,
    clip: Annotated[float, typer.Option(help="Percent of the pixels cut off at each end of the scale.")] = 0.0,
    workers: Annotated[int, typer.Option(min=0, help="Threads that read files.")] = 4,
) -> None:
    """Make relative depth maps: of images by a depth estimator, or of depth that is there. Failures: exit code 1."""
    from llava_aurora.data.sources.depth.depth_maps import Bits, find_inputs, process_share

    if (images is None) == (maps is None):
        raise AuroraError("give either --images, to estimate depth, or --maps, to take depth that is there")
    if values not in (None, "metric", "relative") or closer not in (None, "higher", "lower") or bits not in (8, 16):
        raise AuroraError("--values is metric or relative, --closer is higher or lower, --bits is 8 or 16")
    made: dict[str, Any] = {"out": out, "workers": workers, "share": process_share(cpu=device == "cpu" or bool(maps))}
    if maps is not None:
        from llava_aurora.data.sources.depth.depth_import import import_maps, tilt_of_folder
        from llava_aurora.data.sources.depth.depth_maps import Closer, DepthScale, Values

        if values is None or closer is None:
            raise AuroraError("--maps needs --values metric|relative and --closer higher|lower: no file says so itself")
        scale = DepthScale(
            values=cast(Values, values),
            closer=cast(Closer, closer),
            zero_unknown=zero_unknown,
            clip=clip,
            bits=cast(Bits, bits),
        )
        if made["share"].index == 0:
            print(tilt_of_folder(maps, scale).verdict(scale.closer), file=sys.stderr)
        report = import_maps(maps=maps, scale=scale, **made)
    elif images is not None:
        from llava_aurora.data.sources.depth.depth_estimation import (
            SUFFIXES,
            DepthEstimator,
            default_device,
            estimate_maps,
        )

        if closer is not None or zero_unknown:
            raise AuroraError("--closer and --zero-unknown are about --maps; an estimator's depth is known to be right")
        find_inputs(images, suffixes=SUFFIXES)  # before minutes go by to load the estimator
        used = default_device() if device is None else usable_device(device)
        kind = cast(Literal["metric", "relative"] | None, values)
        estimator = DepthEstimator(model=model, device=used, batch_size=batch_size, values=kind)
        report = estimate_maps(images=images, estimator=estimator, bits=cast(Bits, bits), clip=clip, **made)
    if report.main:
        _print(report.lines, out, report.written, report.kept, report.seconds)
    if report.failures:
        raise typer.Exit(1)


def _print(failures: list[str], out: Path, written: int, kept: int, seconds: float) -> None:
    for line in failures:
        print(f"error: {line}", file=sys.stderr)
    rate = f", {written / seconds:.1f} a second" if written else ""
    print(f"{out}: {written} maps written{rate}; {kept} were there; {len(failures)} failed")
    if failures:
        print(f"the failures are listed in {out / 'failures.jsonl'}; run again to try them again")
