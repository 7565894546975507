"""What the page shows of an answer, as HTML: pictures inside of it, everything a model or a visitor wrote as text."""

import base64
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from llava_aurora.generation.result import Result, folded
from llava_aurora.serving.marks import SHOWN_SIDE
from llava_aurora.tokens.depth import DepthKind, color_map
from llava_aurora.tokens.perception import PerceptionTokens
from llava_aurora.tokens.vocabulary import MalformedSpan, TokenFamily

STYLE = (Path(__file__).parent / "page.css").read_text(encoding="utf-8")
UNWRITTEN = 128  # grey of the cells of a map that have no code yet
_MAP_SIDE = 480
_FOLDED = re.compile(r"(\[\w+ map, [^\]]* codes\])")


class AnswerView:
    """Args: perception: of the model; None for one without perception tokens."""

    def __init__(self, *, perception: PerceptionTokens | None) -> None:
        self.perception = perception
        kind = perception.kinds.get("depth") if perception else None
        self.depth = kind if isinstance(kind, DepthKind) else None
        environment = Environment(
            loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined
        )
        self._macros: Any = environment.get_template("answer.html.jinja").module

    def empty(self, what: str) -> str:
        """A frame with nothing in it yet but what will be there."""
        return self._write("empty", what)

    def picture(
        self,
        image: Image.Image,
        *,
        boxes: Sequence[Sequence[float]] = (),
        points: Mapping[str, Sequence[float]] | None = None,
    ) -> str:
        """The image with boxes and points, both in its pixels, drawn over it."""
        counted = f"{len(boxes)} box{'es' if len(boxes) > 1 else ''}"
        caption = f"the image, {counted}" if boxes else "the image"
        return self._write("picture", _uri(image, side=SHOWN_SIDE), caption, image.size, boxes, points or {})

    def map(self, text: str, size: tuple[int, int], *, whole: bool = False) -> tuple[int, str]:
        """The last map of a text.

        Args:
            text: so far.
            whole: nothing more will be written.
            size: of the image, over which the map is stretched.

        Returns:
            how many codes of it there are, and the map as HTML; grey where there is none yet.
        """
        codes = written_codes(text, self.depth.family) if self.depth is not None else ()
        if self.depth is None or not codes:
            return 0, self._write("empty", "no depth map" if whole else "no depth map yet")
        total = self.depth.grid**2
        caption = "depth map, bright = close" if len(codes) == total else f"depth map, {len(codes)} of {total} codes"
        picture = partial_map(self.depth, codes)
        picture = picture.resize(_within(size, _MAP_SIDE), Image.Resampling.NEAREST)
        return len(codes), self._write("picture", _uri(picture, side=_MAP_SIDE), caption, size, (), {})

    def chain(self, text: str) -> str:
        """A text that is perhaps still being written, with maps folded and coordinates as numbers."""
        text = folded(text, self.perception)
        for kind in self.perception.kinds.values() if self.perception else ():
            if not kind.family.delimited:
                text = kind.family.plain(text)
        return self._write("chain", _FOLDED.split(text))

    def answer(self, result: Result) -> str:
        """The answer in large, and how long it took."""
        timings = result.timings
        seconds = timings.preparing + timings.generating
        facts = f"{timings.tokens} tokens in {seconds:.1f} s, {timings.forward_passes} forward passes"
        return self._write("answer", result.answer, result.finished, facts)

    def _write(self, macro: str, *values: Any) -> str:
        return str(getattr(self._macros, macro)(*values))


def written_codes(text: str, family: TokenFamily) -> tuple[int, ...]:
    """Codes of the last span of a delimited family in a text; it may still be open, or cut off inside a token.

    A span that is no prefix of a whole one has none.
    """
    _, opened, codes = text.rpartition(family.start)
    if not opened:
        return ()
    codes = codes.partition(family.end)[0]
    codes = codes[: codes.rfind(">") + 1]
    count = family.count(codes)
    # A span that is whole can be parsed: the codes that are missing are taken off again.
    rest = family.token(0) * (family.lengths[-1] - count)
    try:
        return family.parse(family.start + codes + rest + family.end)[0].codes[:count]
    except MalformedSpan:
        return ()


def partial_map(depth: DepthKind, codes: Sequence[int]) -> Image.Image:
    """The first codes of a map, at least one, as a colour picture of the VQ-VAE's size; the other cells are grey."""
    cells = np.arange(depth.grid**2).reshape(depth.grid, depth.grid)
    values = depth.decode([*codes, *[codes[-1]] * (cells.size - len(codes))])
    picture = np.array(color_map(values))
    side = values.shape[0] // depth.grid
    picture[np.kron(cells >= len(codes), np.ones((side, side), bool))] = UNWRITTEN
    return Image.fromarray(picture)


def _within(size: tuple[int, int], side: int) -> tuple[int, int]:
    """The largest width and height of this shape that fit into a square."""
    scale = side / max(size)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _uri(image: Image.Image, *, side: int) -> str:
    copy = image if max(image.size) <= side else image.resize(_within(image.size, side), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    copy.save(file, format="WEBP", quality=88)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"
