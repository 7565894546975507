"""Checks depth maps for reversed depth and for values that mark unknown depth, which no depth file states.

Depth is taken to run as in photographs, in which the ground, at the bottom, is closer than what is at the top.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from llava_aurora.errors import AuroraError
from llava_aurora.vqvae.depth_files import read_depth_values
from llava_aurora.vqvae.depth_scale import Closer
from llava_aurora.vqvae.maps import check_depth_map

_CHECKED = 64  # maps of a folder
_Z_99 = 2.576  # standard deviations of a two-sided 99 % confidence interval
_COMMON = 0.01  # least share of a map's pixels that have a marker
_GAP_LOW, _GAP_HIGH = 0.02, 0.1  # least distance of a marker from the other values, as a share of their range


@dataclass(frozen=True)
class Tilt:
    """In how many of the maps that could be judged the lower third is closer than the upper third."""

    closer_below: int
    judged: int

    @property
    def seems_reversed(self) -> bool:
        """Whether most of them run the wrong way."""
        return 2 * self.closer_below < self.judged

    def verdict(self, closer: Closer) -> str:
        """One line on whether `closer` fits; it starts with "warning" where that seems wrong.

        "Very likely" wrong: the 99 % interval (Wilson) of the share of such maps lies below one half.
        """
        found = f"{self.closer_below} of {self.judged} maps are closer at the bottom than at the top"
        other = "lower" if closer == "higher" else "higher"
        if not self.judged or 2 * self.closer_below == self.judged:
            return f"{found}: this does not show whether closer is {closer}"
        if not self.seems_reversed:
            return f"{found}, as in photographs"
        share, weight = self.closer_below / self.judged, _Z_99**2 / self.judged
        spread = _Z_99 * math.sqrt(share * (1 - share) / self.judged + weight / (4 * self.judged))
        if (share + weight / 2 + spread) / (1 + weight) < 0.5:
            return f"warning: {found}, the reverse of photographs: closer is very likely {other}"
        return f"warning: {found}, which is rare in photographs: look at some maps; closer may be {other}"


@dataclass(frozen=True)
class DepthCheck:
    """What was seen in some maps of a folder."""

    tilt: Tilt  # which way their depth runs
    checked: int  # how many could be read
    # values that look like a mark for unknown depth though they are read as depth, with the number of maps
    markers: Counter[float]
    unknown: float  # share of pixels whose depth is unknown, in [0, 1]

    def lines(self, closer: Closer = "higher") -> list[str]:
        """All findings, one line each; those that start with "warning" call for action."""
        marked = [
            f"warning: {maps} of {self.checked} maps have {value:.9g} in at least {_COMMON:.0%} of their pixels"
            f" and no other value near it: if it means unknown depth, give --unknown {value:.9g}"
            for value, maps in sorted(self.markers.items())
        ]
        return [self.tilt.verdict(closer), f"{self.unknown:.1%} of the pixels have unknown depth", *marked]


def check_depth(paths: Sequence[Path], *, relative: Callable[[np.ndarray], np.ndarray] = check_depth_map) -> DepthCheck:
    """Checks up to 64 maps, evenly spread over `paths`; those that cannot be read are skipped.

    Args:
        paths: depth files, see `read_depth_values`.
        relative: turns the values of a file into relative depth (H, W), higher = closer, 0 = unknown; ValueError if it
            cannot.
    """
    tilts, markers, unknown, checked = [], Counter[float](), 0.0, 0
    for index in np.unique(np.linspace(0, len(paths) - 1, _CHECKED).astype(int)):
        try:
            values = read_depth_values(paths[index])
            depth = relative(values)
        except (AuroraError, ValueError):
            continue  # named when its turn comes
        checked += 1
        tilts.append(depth)
        markers.update(likely_markers(values[depth > 0]))
        unknown += float((depth == 0).mean())
    return DepthCheck(tilt(tilts), checked, markers, unknown / checked if checked else 0.0)


def tilt(maps: Iterable[np.ndarray]) -> Tilt:
    """Compares the medians of the lower and the upper third of each map, (H, W), higher = closer, 0 = unknown.

    Thirds of the rows from the first to the last with a known pixel: sensors often see no sky. A map with equal
    medians, or with no known pixel in one of the thirds, is not judged.
    """
    below = judged = 0
    for relative in maps:
        rows = np.flatnonzero((relative > 0).any(axis=1))
        seen = relative[rows[0] : rows[-1] + 1] if rows.size else relative
        third = len(seen) // 3
        upper, lower = (part[part > 0] for part in (seen[:third], seen[len(seen) - third :]))
        if upper.size and lower.size and (difference := float(np.median(lower)) - float(np.median(upper))):
            judged += 1
            below += difference > 0
    return Tilt(closer_below=below, judged=judged)


def likely_markers(known: np.ndarray) -> list[float]:
    """Values of a map that are taken for depth and look like a mark for unknown depth.

    These are a lowest value of 0 or less and a highest one that is its integer type's highest, or of a float far above
    all others, if 1 % of the pixels have it and a gap lies between it and the other values.

    Args: known: the values taken for depth, of any shape and real dtype.
    """
    values, counts = np.unique(known, return_counts=True)
    if len(values) < 3:
        return []
    common = counts >= _COMMON * known.size
    value = values.astype(np.float64)
    found = []
    if common[0] and value[0] <= 0 and value[1] - value[0] > _GAP_LOW * (value[-1] - value[1]):
        found.append(float(value[0]))
    integer = known.dtype.kind in "ui"
    gap = (_GAP_HIGH if integer else 1.0) * (value[-2] - value[0])
    if common[-1] and value[-1] - value[-2] > gap and (not integer or values[-1] == np.iinfo(known.dtype).max):
        found.append(float(value[-1]))
    return found
