"""Panels of what a model saw and wrote, maps and boxes beside the true ones, and its text without tokens."""

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from llava_aurora.report.plots import Panel
from llava_aurora.tasks.marks import draw_points
from llava_aurora.tokens.depth import color_map
from llava_aurora.tokens.vocabulary import MalformedSpan, TokenFamily


def depth_panels(
    image: Image.Image,
    *,
    points: Mapping[str, Sequence[int]],
    frame: int,
    true: np.ndarray,
    copy: np.ndarray,
    written: np.ndarray | None,
) -> list[Panel]:
    """Image with its points, true depth, the VQ-VAE's copy of it, and the map that the model wrote.

    Args:
        points: (x, y) by letter, in pixels of a square frame.
        true, copy, written: uint8 maps of any size, higher = closer.
    """
    picture = np.asarray(image.convert("RGB").resize((336, 336), Image.Resampling.BICUBIC))
    places = [(int(x * 336 / frame), int(y * 336 / frame)) for x, y in points.values()]
    marked = draw_points(picture, places, list(points)) if points else picture
    maps = {"true depth": true, "the VQ-VAE's copy": copy, "written by the model": written}
    shown = [(title, color_map(depth)) for title, depth in maps.items() if depth is not None]
    return [("image", Image.fromarray(marked)), *shown]


def fold_spans(text: str, families: Sequence[TokenFamily]) -> str:
    """Shortens each span of a delimited family to its name, so that a chain can be read."""
    for family in families:
        if family.delimited:
            for span in reversed(family.parse(text)):
                text = f"{text[: span.start]}[{family.name.lower()} map, {len(span.codes)} codes]{text[span.end :]}"
    return text


def readable(text: str, families: Sequence[TokenFamily]) -> str:
    """Maps folded, coordinates as plain numbers; as it is where a span is malformed."""
    try:
        for family in families:
            if not family.delimited:
                for span in reversed(family.parse(text)):
                    text = f"{text[: span.start]}({','.join(map(str, span.codes))}){text[span.end :]}"
        return fold_spans(text, families)
    except MalformedSpan:
        return text
