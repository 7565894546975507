"""The span, such as a depth map, that the page shows while its codes are written."""

import io
import re
from collections.abc import Iterable, Sequence
from html import escape

import numpy as np
from PIL import Image

from llava_aurora.report.document import data_uri
from llava_aurora.tokens.kind import TokenKind
from llava_aurora.tokens.mask import COLORS
from llava_aurora.tokens.vocabulary import TokenFamily

_SIDE = 480


def last_span(text: str, kinds: Iterable[TokenKind]) -> tuple[TokenKind, tuple[int, ...]] | None:
    """The kind and codes of the delimited span that begins last in a text; it may still be written.

    None without such a span, or where the last is malformed.
    """
    begun = [(text.rfind(kind.family.start), kind) for kind in kinds if kind.family.delimited]
    place, kind = max(begun, key=lambda each: each[0], default=(-1, None))
    codes = written_codes(text, kind.family) if kind is not None and place >= 0 else ()
    return (kind, codes) if kind is not None and codes else None


def written_codes(text: str, family: TokenFamily) -> tuple[int, ...]:
    """Codes of the last span of a text, which may still be written; none if it is malformed."""
    _, opened, rest = text.rpartition(family.start)
    span = re.match(rf"(?:\s*<{family.name}_\d+>)*", rest)
    codes = tuple(map(int, re.findall(r"\d+", span[0]))) if opened and span else ()
    return codes if len(codes) <= family.lengths[-1] and all(code < family.size for code in codes) else ()


def span_html(kind: TokenKind, codes: Sequence[int], size: tuple[int, int]) -> str:
    """A span of which some codes may be missing, as an HTML picture with a caption; only the caption without a picture.

    Args: codes: of it, so far, at least one; size: of the image, over which the picture is stretched.
    """
    total = kind.family.lengths[-1]
    legend = f", {kind.legend}" if kind.legend else ""
    caption = f"{kind.name} map" + (legend if len(codes) == total else f", {len(codes)} of {total} codes")
    picture, shown = kind.draw_written(codes), ""
    if picture is not None:
        shape = [max(1, round(side * _SIDE / max(size))) for side in size]
        shown = f'<img src="{_uri(picture, "WEBP", shape)}" alt="{caption}">'
    return f"{shown}<p>{caption}</p>"


def masks_html(image: Image.Image, masks: Sequence[np.ndarray], phrases: Sequence[str]) -> str:
    """The image under the masks of an answer, a slider for their opacity, what each is called, and a file to save.

    The file is a PNG of numbers: n where the n-th mask is, 0 elsewhere; the later of two masks counts.

    Args: masks: bool (H, W) each, in pixels of the image; phrases: of each, "" where it has none.
    """
    shape = [max(1, round(side * _SIDE / max(image.size))) for side in image.size]
    layers, names = [f'<img src="{_uri(image.convert("RGB"), "WEBP", shape)}" alt="image">'], []
    numbers = np.zeros(image.size[::-1], np.uint8)
    for number, (mask, phrase) in enumerate(zip(masks, phrases, strict=True), start=1):
        color, name = COLORS[(number - 1) % len(COLORS)], escape(phrase or f"mask {number}")
        layer = np.dstack([*(np.full(mask.shape, part) for part in color), mask * 255]).astype(np.uint8)
        layers.append(f'<img src="{_uri(Image.fromarray(layer), "PNG", shape)}" alt="{name}">')
        names.append(f'<span style="color:rgb{color}">&#9632;</span> {name}')
        numbers[mask] = number
    slider = (
        '<input type="range" min="0" max="1" step="0.05" value="0.55" aria-label="opacity of the masks"'
        " oninput=\"this.previousElementSibling.style.setProperty('--shown', this.value)\">"
    )
    save = f'<a download="masks.png" href="{_uri(Image.fromarray(numbers), "PNG")}">masks as PNG</a>'
    return f'<div class="aurora-masks">{"".join(layers)}</div>{slider}<p>{", ".join(names)} · {save}</p>'


def _uri(picture: Image.Image, format: str, shape: Sequence[int] | None = None) -> str:
    """A picture as a data address. Args: shape: width and height to resize it to."""
    file = io.BytesIO()
    shown = picture.resize((shape[0], shape[1]), Image.Resampling.NEAREST) if shape else picture
    shown.save(file, format=format, quality=88)
    return data_uri(file.getvalue(), kind=format.lower())
