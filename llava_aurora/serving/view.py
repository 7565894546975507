"""The depth map that the page shows while its codes are written."""

import base64
import io
import re
from collections.abc import Sequence

import numpy as np
from PIL import Image

from llava_aurora.tokens.depth import DepthKind, color_map
from llava_aurora.tokens.vocabulary import TokenFamily

UNWRITTEN = 128  # grey of the cells of a map that have no code yet
_SIDE = 480


def map_html(depth: DepthKind, codes: Sequence[int], size: tuple[int, int]) -> str:
    """A map of which some codes may be missing, as an HTML picture with a caption.

    Args:
        depth: the model's.
        codes: of the map, so far.
        size: of the image, over which the map is stretched.
    """
    if not codes:
        return ""
    shape = [max(1, round(side * _SIDE / max(size))) for side in size]
    picture, file = partial_map(depth, codes).resize((shape[0], shape[1]), Image.Resampling.NEAREST), io.BytesIO()
    picture.save(file, format="WEBP", quality=88)
    data = base64.b64encode(file.getvalue()).decode()
    total = depth.grid**2
    caption = "depth map, bright = close" if len(codes) == total else f"depth map, {len(codes)} of {total} codes"
    return f'<img src="data:image/webp;base64,{data}" alt="{caption}"><p>{caption}</p>'


def written_codes(text: str, family: TokenFamily) -> tuple[int, ...]:
    """Codes of the last map of a text, which may still be written; none if it is malformed."""
    _, opened, rest = text.rpartition(family.start)
    span = re.match(rf"(?:\s*<{family.name}_\d+>)*", rest)
    codes = tuple(map(int, re.findall(r"\d+", span[0]))) if opened and span else ()
    return codes if len(codes) <= family.lengths[-1] and all(code < family.size for code in codes) else ()


def partial_map(depth: DepthKind, codes: Sequence[int]) -> Image.Image:
    """The first codes of a map, at least one, as a colour picture of the VQ-VAE's size; the other cells are grey."""
    cells = np.arange(depth.grid**2).reshape(depth.grid, depth.grid)
    values = depth.decode([*codes, *[codes[-1]] * (cells.size - len(codes))])
    picture = np.array(color_map(values))
    side = values.shape[0] // depth.grid
    picture[np.kron(cells >= len(codes), np.ones((side, side), bool))] = UNWRITTEN
    return Image.fromarray(picture)
