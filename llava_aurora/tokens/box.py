"""Boxes and points as pixel coordinates: `(<PIXEL_x1>,<PIXEL_y1>,<PIXEL_x2>,<PIXEL_y2>)`, or two for a point.

Coordinates live in the square frame to which every image is resized (336 in AURORA), x to the right, y down.
"""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from PIL import Image, ImageDraw

from llava_aurora.errors import AuroraError
from llava_aurora.tokens.kind import TokenKind, register_kind
from llava_aurora.tokens.vocabulary import pixel_family

if TYPE_CHECKING:
    import torch

Box = tuple[int, int, int, int]
Point = tuple[int, int]

LARGEST_FRAME = 2**16  # a token for each pixel of a side
_VALUE = rf"(?:{pixel_family().any_code}|\d+)"
# A regular expression for a point or box in a text, written as tokens or as plain numbers.
COORDINATES = rf"\(\s*{_VALUE}(?:\s*,\s*{_VALUE})+\s*\)"


def coordinate_values(text: str) -> list[tuple[int, int]]:
    """The numbers of what COORDINATES matches, each with the character of `text` at which it or its token begins."""
    return [(match.start(), int(re.sub(r"\D", "", match.group()))) for match in re.finditer(_VALUE, text)]


@register_kind
class BoxKind(TokenKind):
    """Args: frame: side of the square frame in pixels; coordinates are 0 … frame - 1."""

    name: ClassVar[str] = "box"
    order: ClassVar[int] = 20
    measure: ClassVar[str | None] = "iou"
    frame: int

    def __init__(self, *, frame: int = 336) -> None:
        if type(frame) is not int or not 2 <= frame <= LARGEST_FRAME:
            raise AuroraError(f"a coordinate frame has from 2 to {LARGEST_FRAME} pixels a side, not {frame!r}")
        self.frame = frame
        self.family = pixel_family(frame=frame)

    def encode(self, annotation: Sequence[float]) -> list[int]:
        """A box (x1, y1, x2, y2) or a point (x, y), in frame pixels. Coordinates are rounded down.

        A box may end at `frame` itself, its right or lower edge; the last pixel stands for that. Raises AuroraError for
        a wrong number of coordinates, NaN, one outside the frame, or x2 <= x1, y2 <= y1.
        """
        values = tuple(annotation)
        kind = {2: "point", 4: "box"}.get(len(values))
        if kind is None:
            raise AuroraError(f"a box has 4 coordinates and a point 2, not {len(values)}: {values}")
        limit = self.frame if kind == "box" else self.frame - 1
        if not all(math.isfinite(value) and 0 <= value <= limit for value in values):
            raise AuroraError(f"{kind} {values} is outside the frame of {self.frame} × {self.frame} pixels")
        if kind == "box" and (values[2] <= values[0] or values[3] <= values[1]):
            raise AuroraError(
                f"box {values} is empty or upside down; it must be (x1, y1, x2, y2) with x1 < x2, y1 < y2"
            )
        codes = [min(int(value), self.frame - 1) for value in values]
        if kind == "box":
            for low, high in ((0, 2), (1, 3)):
                codes[low] = min(codes[low], self.frame - 2)
                codes[high] = max(codes[high], codes[low] + 1)
        return codes

    def decode(self, codes: Sequence[int]) -> tuple[int, ...]:
        return tuple(int(code) for code in codes)

    def draw(self, annotations: Sequence[Sequence[int]], image: Image.Image) -> Image.Image:
        """Outlines the boxes and dots the points, scaled from the frame to the image, numbered from 1."""
        canvas = image.convert("RGB")
        pen = ImageDraw.Draw(canvas)
        across, down = canvas.width / self.frame, canvas.height / self.frame
        width = max(1, canvas.width // 150)
        for number, annotation in enumerate(annotations, start=1):
            x, y = annotation[0] * across, annotation[1] * down
            if len(annotation) == 4:
                corner = (annotation[2] * across, annotation[3] * down)
                pen.rectangle([(x, y), corner], outline=(255, 230, 0), width=width)
            else:
                pen.ellipse([x - 2 * width, y - 2 * width, x + 2 * width, y + 2 * width], fill=(255, 230, 0))
            pen.text((x + 2 * width, y), str(number), fill=(255, 230, 0), stroke_width=1, stroke_fill=(0, 0, 0))
        return canvas

    def allowed_codes(self, prefix: Sequence[int]) -> range:
        """The second corner lies right of and below the first; what leaves no room for one can only be a point."""
        if len(prefix) < 2:
            return range(self.frame)
        if max(prefix[:2]) >= self.frame - 1:
            return range(0)
        return range(prefix[len(prefix) - 2] + 1, self.frame)

    def compare(self, written: Sequence[int], true: Sequence[int]) -> float | None:
        """Intersection over union of two boxes, 0 for one without area; None for points."""
        if len(true) != 4:
            return None
        corners = [
            (max(one, other), min(far, beyond))
            for one, other, far, beyond in zip(written[:2], true[:2], written[2:], true[2:], strict=True)
        ]
        common = math.prod(max(0, high - low) for low, high in corners)
        areas = [max(0, box[2] - box[0]) * max(0, box[3] - box[1]) for box in (written, true)]
        union = sum(areas) - common
        return common / union if union else 0.0

    def code_features(self) -> "torch.Tensor":
        """Sines and cosines of the position, with wavelengths from twice the frame down to 8 pixels."""
        import torch

        wavelengths = torch.logspace(math.log10(2 * self.frame), math.log10(8), 8)
        phase = 2 * math.pi * torch.arange(self.frame)[:, None] / wavelengths
        return torch.cat([phase.sin(), phase.cos()], dim=1)

    def description(self, code: int) -> str:
        """Its number, without a blank, as it follows a bracket or comma."""
        return str(code)

    def settings(self) -> dict[str, Any]:
        return {"frame": self.frame}

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any], folder: Path) -> "BoxKind":
        return cls(frame=int(settings.get("frame", 336)))
