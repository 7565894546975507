"""The colours of an image as a model's square frame shows it, a grid of cells."""

import numpy as np
from PIL import Image

from llava_aurora.data.images.frame import FrameTransform

SIDE = 64  # of the grid; source: PAE-LaMM (arXiv 2408.03940)


def seen_colors(image: Image.Image, *, aspect_ratio: str, side: int = SIDE) -> np.ndarray:
    """The mean colour of each cell.

    Args:
        image: RGB.
        aspect_ratio: how images get into the frame, see `FrameTransform.of`.
        side: of the grid.
    Returns: int16 (side, side, 3), levels from 0 to 255; -1 in cells of which the image fills less than half.
    """
    into = FrameTransform.of(width=image.width, height=image.height, frame=side, aspect_ratio=aspect_ratio)
    edges = into.original((0, 0, side, side))
    if edges[0] >= 0 and edges[1] >= 0:  # the frame shows nothing else
        box = (edges[0], edges[1], min(edges[2], image.width), min(edges[3], image.height))
        return np.asarray(image.resize((side, side), Image.Resampling.BOX, box=box), np.int16)
    square = max(image.size)
    corner = ((square - image.width) // 2, (square - image.height) // 2)
    filled, shown = Image.new("L", (square, square)), Image.new("RGB", (square, square))
    filled.paste(255, (*corner, corner[0] + image.width, corner[1] + image.height))
    shown.paste(image, corner)
    share, *sums = (
        np.asarray(channel.convert("F").resize((side, side), Image.Resampling.BOX))
        for channel in (filled, *shown.split())
    )
    colors = np.rint(np.stack(sums, axis=-1) * 255 / share.clip(1)[..., None])
    return np.where(share[..., None] > 127, colors.clip(0, 255), -1).astype(np.int16)
