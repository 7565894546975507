"""The span, such as a depth map, that the page shows while its codes are written."""

import base64
import io
import re
from collections.abc import Iterable, Sequence

from PIL import Image

from llava_aurora.tokens.kind import TokenKind
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
        file = io.BytesIO()
        picture.resize((shape[0], shape[1]), Image.Resampling.NEAREST).save(file, format="WEBP", quality=88)
        data = base64.b64encode(file.getvalue()).decode()
        shown = f'<img src="data:image/webp;base64,{data}" alt="{caption}">'
    return f"{shown}<p>{caption}</p>"
