"""Masks as data sets keep them: outlines and run lengths of COCO, or an image file; each becomes bool (H, W)."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from llava_aurora.data.images.image_files import opened_image
from llava_aurora.errors import AuroraError

TOLERANCE = 1.0  # pixels by which rounding may put an outline outside of its image


def read_segment(segment: Any, *, size: tuple[int, int], where: str) -> np.ndarray:
    """A `segmentation` of COCO as a mask, bool (height, width).

    Args:
        segment: outlines, a list [x, y, x, y, …] or of such lists, in pixels; or run lengths {"size": [height, width],
            "counts": list or text}.
        size: width and height of the image.
        where: file and record; errors begin with it.
    Raises AuroraError if it is none of these, of another size, outside the image, or holds no pixel.
    """
    try:
        from pycocotools import mask as coco
    except ModuleNotFoundError as error:
        raise AuroraError("outlines and run lengths need pycocotools: pip install 'llava-aurora[data]'") from error
    width, height = size
    if isinstance(segment, dict):
        counts = segment.get("counts")
        if segment.get("size") != [height, width]:
            shown = segment.get("size")
            raise AuroraError(f"{where}: run lengths of [height, width] {shown}, but its image is {[height, width]}")
        if isinstance(counts, list):
            if not all(type(count) is int and count >= 0 for count in counts) or sum(counts) != width * height:
                raise AuroraError(
                    f"{where}: run lengths that do not add up to the {width * height} pixels of its image"
                )
            runs = coco.frPyObjects(segment, height, width)
        elif isinstance(counts, str | bytes):
            runs = {"size": [height, width], "counts": counts.encode() if isinstance(counts, str) else counts}
            _check_compressed(runs["counts"], width * height, where)
        else:
            raise AuroraError(f"{where}: run lengths have a list or a text under 'counts'")
    else:
        runs = coco.merge(coco.frPyObjects(_outlines(segment, width, height, where), height, width))
    mask = coco.decode(runs).astype(bool)
    if not mask.any():
        raise AuroraError(f"{where}: the mask is empty")
    return mask


def read_mask_file(path: Path, *, size: tuple[int, int] | None = None) -> np.ndarray:
    """An image file of two values as a mask, bool (H, W); what is not 0 is the thing, transparent is 0.

    Args: size: width and height of the image that it belongs to.
    Raises AuroraError naming the file: soft edges, another size, or nothing in it.
    """
    with opened_image(path) as image:
        if size is not None and image.size != size:
            raise AuroraError(f"{path}: a mask of {image.size} pixels for an image of {size}")
        if image.has_transparency_data:
            values = np.asarray(image.convert("LA")).astype(int).prod(axis=-1)
        else:
            values = np.asarray(image.convert("I") if image.mode.startswith("I") else image.convert("L"))
    if (different := len(np.unique(values))) > 2:
        raise AuroraError(f"{path}: the mask has {different} values (soft edges); save it in black and white")
    if not values.any():
        raise AuroraError(f"{path}: the mask is empty")
    return values != 0


def _outlines(segment: Any, width: int, height: int, where: str) -> list[list[float]]:
    outlines = [segment] if isinstance(segment, list) and segment and not isinstance(segment[0], list) else segment
    if not isinstance(outlines, list) or not outlines:
        raise AuroraError(f"{where}: has neither outlines nor run lengths under 'segmentation'")
    for outline in outlines:
        if not isinstance(outline, list) or len(outline) < 6 or len(outline) % 2 or not all(map(_is_number, outline)):
            raise AuroraError(f"{where}: an outline is a list of three points or more, [x, y, x, y, x, y, …]")
        for axis, side in ((0, width), (1, height)):
            values: Sequence[float] = outline[axis::2]
            if min(values) < -TOLERANCE or max(values) > side + TOLERANCE:
                raise AuroraError(f"{where}: an outline leaves its image of {width} × {height} pixels")
    return outlines


def _check_compressed(counts: bytes, pixels: int, where: str) -> None:
    """Raises AuroraError unless the run lengths are whole and add up; pycocotools would read past its memory."""
    runs: list[int] = []
    value = shift = 0
    for byte in counts:
        part = byte - 48
        if not 0 <= part < 64 or shift > 60:
            raise AuroraError(f"{where}: its compressed run lengths are damaged")
        value |= (part & 31) << shift
        shift += 5
        if not part & 32:
            value -= (1 << shift) if part & 16 else 0
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    if shift or min(runs, default=0) < 0 or sum(runs) != pixels:
        raise AuroraError(f"{where}: run lengths that do not add up to the {pixels} pixels of its image")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
