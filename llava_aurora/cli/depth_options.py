"""Options that say what the values of depth maps mean, and the check of those maps."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from llava_aurora.errors import AuroraError

if TYPE_CHECKING:
    from llava_aurora.vqvae.depth_scale import Bits, DepthScale

ValuesOption = Annotated[str | None, typer.Option("--values", help="metric (distances) or relative (inverse depth).")]
CloserOption = Annotated[
    str | None, typer.Option("--closer", help="higher or lower: which values are closer. Lower needs --values.")
]
UnknownOption = Annotated[
    str, typer.Option("--unknown", help="Values that mean unknown depth, with commas, such as 0,65535. Needs --values.")
]


def depth_scale(values: str, closer: str, unknown: str, *, clip: float = 0.0, bits: int = 8) -> "DepthScale":
    """What these options say. Raises AuroraError if they contradict each other."""
    from llava_aurora.vqvae.depth_scale import Closer, DepthScale, Values

    try:
        markers = tuple(float(value) for value in unknown.split(",") if value.strip())
    except ValueError as error:
        raise AuroraError(f"--unknown {unknown}: expected numbers with commas between them") from error
    return DepthScale(
        values=cast(Values, values),
        closer=cast(Closer, closer),
        unknown=markers,
        clip=clip,
        bits=cast("Bits", bits),
    )


def checked_scale(
    folder: Path, paths: Sequence[Path], *, values: str | None, closer: str | None, unknown: str
) -> "DepthScale | None":
    """What the values of the maps of a folder mean; None: relative depth as the VQ-VAE takes it, higher = closer.

    Prints on stderr what seems wrong with up to 64 of them. Raises AuroraError if the options contradict each other, or
    the depth seems reversed and nobody said which way it runs: not an option, nor the command of this project that
    wrote the folder.
    """
    from llava_aurora.vqvae.depth_checks import check_depth
    from llava_aurora.vqvae.maps import SETTINGS_FILE, check_depth_map

    if closer not in (None, "higher", "lower"):
        raise AuroraError(f"--closer is higher or lower, not {closer}")
    if values is None and (closer == "lower" or unknown):
        raise AuroraError("--closer lower and --unknown need --values metric|relative: the files do not tell")
    if values == "relative" and closer is None:
        raise AuroraError("--values relative needs --closer higher|lower: the files do not tell")
    scale = depth_scale(values, closer or ("lower" if values == "metric" else "higher"), unknown) if values else None
    found = check_depth(paths, relative=scale.relative if scale else check_depth_map)
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
    return scale
