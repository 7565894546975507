"""Options that say what the values of depth maps mean, and the check of those maps."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from llava_aurora.errors import AuroraError
from llava_aurora.listed import listed_numbers

if TYPE_CHECKING:
    from llava_aurora.found_files import FoundFiles
    from llava_aurora.vqvae.depth_scale import Bits, DepthScale

Values = Literal["metric", "relative"]
Closer = Literal["higher", "lower"]
ValuesOption = Annotated[Values | None, typer.Option("--values", help="Distances, or relative (inverse) depth.")]
CloserOption = Annotated[Closer | None, typer.Option("--closer", help="Which values are closer. Lower needs --values.")]
UnknownOption = Annotated[
    str,
    typer.Option(
        "--unknown", help="Values that mean unknown depth, separated by commas, such as 0,65535. Needs --values."
    ),
]


def depth_scale(values: Values, closer: Closer, unknown: str, *, clip: float = 0.0, bits: int = 8) -> "DepthScale":
    """What these options say. Raises AuroraError if they contradict each other."""
    from llava_aurora.vqvae.depth_scale import DepthScale

    markers = listed_numbers(unknown, "--unknown", float) if unknown else ()
    return DepthScale(values=values, closer=closer, unknown=tuple(markers), clip=clip, bits=cast("Bits", bits))


def checked_scale(
    folder: Path, *, values: Values | None, closer: Closer | None, unknown: str
) -> tuple["DepthScale | None", "FoundFiles"]:
    """What the values of the maps of a folder mean, None for higher = closer as the VQ-VAE takes it; and the maps.

    Prints on stderr what seems wrong with up to 64 of them. Raises AuroraError if the options contradict each other, or
    the depth seems reversed and nobody said which way it runs: not an option, nor the command of this project that
    wrote the folder.
    """
    from llava_aurora.found_files import find_files
    from llava_aurora.vqvae.depth_checks import check_depth
    from llava_aurora.vqvae.maps import MAP_SUFFIXES, SETTINGS_FILE, check_depth_map

    maps = find_files(folder, MAP_SUFFIXES)
    if values is None and (closer == "lower" or unknown):
        raise AuroraError("--closer lower and --unknown need --values metric|relative, which the files do not say")
    if values == "relative" and closer is None:
        raise AuroraError("--values relative needs --closer higher|lower, which the files do not say")
    scale = depth_scale(values, closer or ("lower" if values == "metric" else "higher"), unknown) if values else None
    found = check_depth(maps.paths, relative=scale.relative if scale else check_depth_map)
    warnings = [line for line in found.lines(scale.closer if scale else "higher") if line.startswith("warning")]
    declared = (
        closer or values == "metric" or any((folder / name).is_file() for name in (SETTINGS_FILE, "../scenes.json"))
    )
    if found.tilt.seems_reversed and not declared:
        raise AuroraError(
            f"{folder}: {warnings[0].removeprefix('warning: ')}. Say what the values are: --values metric (distances), "
            "--values relative --closer lower, or --closer higher if this is right"
        )
    print(*warnings, sep="\n", end="\n" if warnings else "", file=sys.stderr)
    return scale, maps
