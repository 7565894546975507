"""Depth that is already there, from whatever made it, to a folder of relative depth maps.

What the numbers mean is not in such files and has to be said; which way they run is compared with photographs, where
the ground, in the lower part, is closer than what is above.
"""

import math
import zipfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image

from llava_aurora.data.depth_maps import (
    Closer,
    DepthReport,
    DepthScale,
    Share,
    find_inputs,
    refuse_inside,
    write_maps,
)
from llava_aurora.data.image_files import opened_image
from llava_aurora.errors import AuroraError
from llava_aurora.read_ahead import read_ahead

SUFFIXES = (".png", ".npy", ".npz", ".exr")
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


def read_depth_values(path: Path) -> np.ndarray:
    """The numbers of a depth file as they are, (H, W) of uint8, uint16 or float.

    PNG of 8 or 16 bits (grey, or colour with three equal channels); npy; npz with one array, or one that is called
    depth; EXR with one channel, one called Z, or three equal ones.

    Raises:
        AuroraError: naming the file, if it cannot be read, is too large, or holds something else.
    """
    readers = {".png": _read_png, ".npy": _read_npy, ".npz": _read_npz, ".exr": _read_exr}
    try:
        values = readers[path.suffix.lower()](path)
        values = values[0] if values.ndim == 3 and len(values) == 1 else values
        if values.ndim != 2 or values.size == 0 or values.dtype.kind not in "uif":
            raise ValueError(f"expected numbers, height x width, found {values.dtype} {values.shape}")
        return values
    except (OSError, ValueError, EOFError, KeyError, NotImplementedError, zipfile.BadZipFile) as error:
        raise AuroraError(f"{path}: not a usable depth map: {error}") from error


def _read_png(path: Path) -> np.ndarray:
    with opened_image(path) as picture:
        values = np.asarray(picture)
    if values.ndim == 3 and values.shape[2] >= 3 and (values[..., :3] == values[..., :1]).all():
        return values[..., 0]
    if values.ndim == 3:
        raise ValueError("expected a grey picture, found colours")
    return values


def _read_npy(path: Path) -> np.ndarray:
    with path.open("rb") as file:
        return _read_array(file)


def _read_npz(path: Path) -> np.ndarray:
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.endswith(".npy")]
        chosen = names if len(names) == 1 else [name for name in names if name == "depth.npy"]
        if not chosen:
            raise ValueError(f"expected one array, or one called depth, found {', '.join(names) or 'none'}")
        with archive.open(chosen[0]) as file:
            return _read_array(file)


def _read_array(file: IO[bytes]) -> np.ndarray:
    """An array after its header was looked at: neither pickles nor more pixels than a photograph has are read."""
    version = np.lib.format.read_magic(file)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"npy version {version} is not for numbers")
    shape, _, dtype = readers[version](file)
    if dtype.kind not in "uif":
        raise ValueError(f"expected numbers, found {dtype}")
    _check_pixels(shape)
    file.seek(0)
    return np.lib.format.read_array(file, allow_pickle=False)


def _read_exr(path: Path) -> np.ndarray:
    try:
        import OpenEXR
    except ModuleNotFoundError as error:
        raise AuroraError(f"{path}: EXR files need a library: pip install 'llava-aurora[exr]'") from error
    try:
        with OpenEXR.File(str(path), header_only=True) as header:
            low, high = header.header()["dataWindow"]
            _check_pixels(tuple(int(side) for side in high - low + 1))
        with OpenEXR.File(str(path), separate_channels=True) as file:
            channels = {name: channel.pixels.astype(np.float32) for name, channel in file.channels().items()}
    except RuntimeError as error:
        raise ValueError(error) from error
    named = [name for name in channels if name == "Z" or name.endswith(".Z")]
    if len(channels) == 1 or len(named) == 1:
        return channels[(named or list(channels))[0]]
    first, *others = channels.values()
    if all(np.array_equal(first, other, equal_nan=True) for other in others):
        return first
    raise ValueError(f"expected one channel, or one called Z, found {', '.join(channels)}")


def _check_pixels(size: tuple[int, ...]) -> None:
    """Raises ValueError where Pillow would for a picture: memory is asked for by the header, however short the file."""
    if Image.MAX_IMAGE_PIXELS and math.prod(size) > Image.MAX_IMAGE_PIXELS:
        raise ValueError(f"{' x '.join(map(str, size))} pixels are too many")
