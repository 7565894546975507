"""Depth that is already there, from whatever made it, to a folder of relative depth maps.

What the numbers mean is not in such files and has to be said; which way they run is compared with photographs, where
the ground, in the lower part, is closer than what is above.
"""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from llava_aurora.data.sources.depth.depth_files import SUFFIXES, read_depth_values
from llava_aurora.data.sources.depth.depth_maps import (
    Closer,
    DepthReport,
    DepthScale,
    Share,
    find_inputs,
    refuse_inside,
    write_maps,
)
from llava_aurora.errors import AuroraError
from llava_aurora.read_ahead import read_ahead

_LOOKED_AT = 64
_SURE = 2.576  # standard deviations: wrong once in a hundred times, both sides together


@dataclass(frozen=True)
class Tilt:
    """How many of the maps that were looked at are closer in their lower third than in their upper one."""

    closer_below: int
    judged: int

    def verdict(self, closer: Closer) -> str:
        """What this says of `closer`, in one line; it starts with "warning" where that seems wrong.

        Sure is what holds for the whole interval in which the share of such maps lies with 99 % confidence (Wilson's).
        """
        found = f"{self.closer_below} of {self.judged} maps are closer at the bottom than at the top"
        other = "lower" if closer == "higher" else "higher"
        if not self.judged or 2 * self.closer_below == self.judged:
            return f"{found}: no telling whether closer is {closer}"
        if 2 * self.closer_below > self.judged:
            return f"{found}, as photographs are"
        share, weight = self.closer_below / self.judged, _SURE**2 / self.judged
        spread = _SURE * math.sqrt(share * (1 - share) / self.judged + weight / (4 * self.judged))
        if (share + weight / 2 + spread) / (1 + weight) < 0.5:
            return f"warning: {found}, and in photographs it is the other way round: closer is very likely {other}"
        return f"warning: {found}; few photographs are like that. Look at some maps: closer may be {other}"


def import_maps(
    *, maps: str | Path, out: str | Path, scale: DepthScale, workers: int = 4, share: Share | None = None
) -> DepthReport:
    """Writes the relative depth map of every PNG, npy, npz and EXR file under `maps`; goes on where a run was stopped.

    Args:
        maps: folder of maps, see `read_depth_values`.
        out: folder of the new ones, which keep their relative paths.
        scale: what the numbers mean.
        workers: threads that read.
        share: this process's part; all if left out.

    Raises:
        AuroraError: if there are no maps, `out` is among them or holds others, or the file system refuses.
    """
    maps = Path(maps)
    refuse_inside(out, maps)

    def relative(path: Path) -> np.ndarray:
        try:
            return scale.relative(read_depth_values(path))
        except ValueError as error:
            raise AuroraError(f"{path}: not a usable depth map: {error}") from error

    return write_maps(
        folder=maps,
        paths=find_inputs(maps, suffixes=SUFFIXES),
        out=out,
        settings={"source": "maps", **asdict(scale)},
        produce=lambda paths: read_ahead(paths, relative, workers=workers, ahead=4 * workers),
        share=share or Share(),
    )


def tilt_of_folder(maps: str | Path, scale: DepthScale) -> Tilt:
    """Looks at up to 64 maps spread over the folder; those that cannot be read are passed over.

    Raises:
        AuroraError: if there are none.
    """
    paths = find_inputs(maps, suffixes=SUFFIXES)
    chosen = [paths[index] for index in np.unique(np.linspace(0, len(paths) - 1, _LOOKED_AT).astype(int))]
    found = []
    for path in chosen:
        try:
            found.append(scale.relative(read_depth_values(path)))
        except (AuroraError, ValueError):
            continue  # it is reported when its turn comes
    return tilt(found)


def tilt(maps: Iterable[np.ndarray]) -> Tilt:
    """Compares the median of the lower third with that of the upper third of each map, (H, W), 0 = unknown.

    A map without known pixels in either, or with the same median, is not judged.
    """
    below = judged = 0
    for relative in maps:
        third = len(relative) // 3
        upper, lower = (part[part > 0] for part in (relative[:third], relative[len(relative) - third :]))
        if upper.size and lower.size and (difference := float(np.median(lower)) - float(np.median(upper))):
            judged += 1
            below += difference > 0
    return Tilt(closer_below=below, judged=judged)
