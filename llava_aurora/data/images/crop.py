"""A part of an image, to be looked at again."""

from collections.abc import Sequence

from PIL import Image

from llava_aurora.errors import AuroraError

_AROUND = 1.5  # times the longer side of the box is a side of the square that is cut out


def crop(image: Image.Image, box: Sequence[float]) -> Image.Image:
    """A square around a box (x1, y1, x2, y2) in pixels, moved into the image, or cut off where that is smaller.

    Raises AuroraError for a box that covers no area of the image.
    """
    edges = [min(max(float(edge), 0.0), float(image.size[place % 2])) for place, edge in enumerate(box)]
    sides = edges[2] - edges[0], edges[3] - edges[1]
    if min(sides) <= 0:
        shown = ",".join(f"{edge:g}" for edge in box)
        raise AuroraError(
            f"the box ({shown}) has no area in the image of {image.width} × {image.height} pixels; there is nothing"
            " to look at again"
        )
    side = max(1, round(_AROUND * max(sides)))
    spans = []
    for low, high, whole in zip(edges[:2], edges[2:], image.size, strict=True):
        length = min(side, whole)
        start = min(max(0, round((low + high - length) / 2)), whole - length)
        spans.append((start, start + length))
    (left, right), (top, bottom) = spans
    return image.crop((left, top, right, bottom))
