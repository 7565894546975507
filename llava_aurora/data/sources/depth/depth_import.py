"""Converts depth files of any source to a folder of relative depth maps."""

from dataclasses import asdict
from pathlib import Path

import numpy as np

from llava_aurora.data.sources.depth.depth_maps import DepthReport, Share, refuse_inside, write_maps
from llava_aurora.errors import AuroraError
from llava_aurora.found_files import find_files
from llava_aurora.read_ahead import read_ahead
from llava_aurora.vqvae.depth_checks import DepthCheck, check_depth
from llava_aurora.vqvae.depth_files import SUFFIXES, read_depth_values
from llava_aurora.vqvae.depth_scale import DepthScale


def import_maps(
    *, maps: str | Path, out: str | Path, scale: DepthScale, workers: int = 4, share: Share | None = None
) -> DepthReport:
    """Writes the relative depth map of every PNG, npy, npz and EXR file under `maps`; continues an interrupted run.

    Args:
        maps: folder of depth files, see `read_depth_values`.
        out: folder of the new maps, which keep their relative paths.
        workers: threads that read.
        share: this process's part; everything if left out.
    Raises AuroraError if there are no maps, `out` is inside `maps` or holds maps of other settings, or the file system
    refuses.
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
        found=find_files(maps, SUFFIXES),
        out=out,
        settings={"source": "maps", **asdict(scale)},
        produce=lambda paths: read_ahead(paths, relative, workers=workers, ahead=4 * workers),
        share=share or Share(),
    )


def check_folder(maps: str | Path, scale: DepthScale) -> DepthCheck:
    """Checks up to 64 files of a folder against the scale that is to be applied to them.

    Raises AuroraError if there are none.
    """
    return check_depth(find_files(maps, SUFFIXES).paths, relative=scale.relative)
