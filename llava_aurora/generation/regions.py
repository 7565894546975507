"""A region that a question is about, in an image's own pixels: named by tokens where the question has `{region}`."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from llava_aurora.data.images.frame import FrameTransform
from llava_aurora.data.sources.masks.segments import read_mask_file
from llava_aurora.errors import AuroraError
from llava_aurora.tokens.kind import TokenKind

PLACE = "{region}"  # in a question: where the region goes
# A point (x, y), a box (x1, y1, x2, y2), a mask, bool (H, W), or its file; in pixels of the image.
Region = Sequence[float] | np.ndarray | str | Path


def with_region(
    kinds: Mapping[str, TokenKind],
    transform: Callable[[int], FrameTransform],
    question: str,
    region: Region,
    *,
    size: tuple[int, int],
) -> str:
    """The question with `{region}` replaced by tokens, as in records about regions.

    Args:
        kinds: the token kinds of the model.
        transform: from the side of a frame to the transform between the image and that frame.
        size: width and height of the image.
    Raises AuroraError if the question has no `{region}`, the model no tokens for it, or the region is no part of what
    the model sees.
    """
    if PLACE not in question:
        raise AuroraError(f"the question does not say where the region goes; put {PLACE} into it")
    return question.replace(PLACE, region_text(kinds, transform, region, size=size))


def region_text(
    kinds: Mapping[str, TokenKind],
    transform: Callable[[int], FrameTransform],
    region: Region,
    *,
    size: tuple[int, int],
) -> str:
    """The tokens of a region. Arguments and errors as for `with_region`."""
    if isinstance(region, str | Path):
        region = read_mask_file(Path(region), size=size)
    name = "mask" if isinstance(region, np.ndarray) else "box"
    if name not in kinds:
        raise AuroraError(f"this model has no {name} tokens, which the region would be named by")
    kind = kinds[name]
    if isinstance(region, np.ndarray):
        if region.shape != size[::-1]:
            raise AuroraError(f"a region of {region.shape[::-1]} pixels for an image of {size}")
        shown = transform(max(size)).view(region)
        if not shown.any():
            raise AuroraError("the region is empty, or none of it is where the model looks")
        return kind.text(shown)
    assert kind.frame is not None
    values, within = [float(value) for value in region], [*size, *size]
    if len(values) not in (2, 4):
        raise AuroraError(f"a region is x,y or x1,y1,x2,y2 in pixels of the image, not {len(values)} numbers")
    if not all(0 <= value <= side for value, side in zip(values, within, strict=False)):
        raise AuroraError(f"the region {tuple(region)} is outside the image, {size[0]} × {size[1]} pixels")
    if len(values) == 2:
        return kind.family.text(transform(kind.frame).pixel([int(value) for value in values]))
    if values[2] <= values[0] or values[3] <= values[1]:
        raise AuroraError(f"the region {tuple(region)} has no area; give x1,y1,x2,y2 with x1 < x2, y1 < y2")
    box, share = transform(kind.frame).box(values)
    if not share:
        raise AuroraError(f"the region {tuple(region)} is not where the model looks")
    return kind.text(box)


def region_of(points: Sequence[tuple[int, int]], size: tuple[int, int]) -> Region:
    """A region by pixels: one is a point, two are corners of a box, more are an outline. Args: size: of the image."""
    if len(points) == 1:
        return points[0]
    if len(points) == 2:
        (left, right), (top, bottom) = (sorted(values) for values in zip(*points, strict=True))
        return (left, top, right + 1, bottom + 1)
    canvas = Image.new("1", size)
    ImageDraw.Draw(canvas).polygon(list(points), fill=1)
    return np.asarray(canvas)
