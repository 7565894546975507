"""Masks as codes: START, the four edges of a box in 256ths of the frame, the cells of the box as bits, END.

A mask is bool (H, W), of any size, over the square frame that the model sees; `FrameTransform.view` shows that of an
image so, and `FrameTransform.image` takes it back. With 8 × 8 cells a span has 12 codes, of which 8 are a row each.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from PIL import Image

from llava_aurora.errors import AuroraError
from llava_aurora.tokens.kind import TokenKind, register_kind
from llava_aurora.tokens.vocabulary import MASK_CELLS, mask_family

if TYPE_CHECKING:
    import torch

SIDE = 256  # of the grid that edges lie on; a code is one of as many, and as many are the patterns of 8 bits
EDGES = 4
PICTURE = 64  # side of what the reconstruction loss compares, pixels
COLORS = ((255, 90, 60), (60, 160, 255), (90, 210, 90), (255, 200, 40), (200, 100, 255), (60, 220, 210))


def encode_mask(mask: np.ndarray, cells: int = 8) -> list[int]:
    """A mask to 4 + cells²/8 codes: left, top, right - 1, bottom - 1 in 256ths, then cells × cells bits row by row.

    Args: mask: (H, W), bool or of two values, 0 and another; it is stretched to the frame.
    Raises AuroraError for an empty mask, one with soft edges, or another shape.
    """
    mask = np.asarray(mask)
    if mask.ndim != 2:
        raise AuroraError(f"a mask is an array (H, W), not of shape {mask.shape}")
    if (values := len(np.unique(mask))) > 2:
        raise AuroraError(f"the mask has {values} values (soft edges); make it black and white")
    mask = mask != 0
    if not mask.any():
        raise AuroraError("the mask is empty; what is not in the image has no span")
    edges, spans = [], []
    for size, seen in zip(mask.shape[::-1], (mask.any(axis=0), mask.any(axis=1)), strict=True):
        first, last = np.flatnonzero(seen)[[0, -1]]
        low = min(round(first * SIDE / size), SIDE - 1)
        high = max(round((last + 1) * SIDE / size), low + 1)
        edges.append((low, high - 1))
        spans.append((low * size / SIDE, high * size / SIDE))
    (left, right), (top, bottom) = spans
    shares = Image.fromarray(mask.astype(np.float32)).resize(
        (cells, cells), Image.Resampling.BOX, box=(left, top, right, bottom)
    )
    covered = np.asarray(shares)
    bits = covered >= min(0.5, covered.max())
    return [*(pair[end] for end in (0, 1) for pair in edges), *np.packbits(bits).tolist()]


def decode_mask(codes: Sequence[int], size: tuple[int, int] = (SIDE, SIDE)) -> np.ndarray:
    """The codes of a span as a mask, bool (height, width); empty where right is left of left.

    Args: size: (width, height) of an image that is stretched to the frame.
    """
    bits = np.unpackbits(np.array(codes[EDGES:], np.uint8))
    cells = math.isqrt(len(bits))
    places = []
    for axis, length in enumerate(size):
        low, high = int(codes[axis]), int(codes[axis + 2]) + 1
        centres = (np.arange(length) + 0.5) * SIDE / length
        place = np.floor((centres - low) * cells / max(high - low, 1)).astype(int)
        places.append(np.where((centres < high) & (place >= 0), place, cells))
    framed = np.pad(bits.reshape(cells, cells).astype(bool), (0, 1))
    return framed[places[1][:, None], places[0]]


def coco_rle(mask: np.ndarray) -> dict[str, Any]:
    """A mask, bool (H, W), as COCO's compressed run lengths, `{"size": [H, W], "counts": "…"}`, column by column."""
    flat = mask.ravel(order="F").astype(np.int8)
    runs = np.diff([0, *np.flatnonzero(np.diff(flat, prepend=0)).tolist(), flat.size]).tolist()
    written = []
    for place, run in enumerate(runs):
        rest, more = run - (runs[place - 2] if place > 2 else 0), True
        while more:
            part, rest = rest & 31, rest >> 5
            more = rest != (-1 if part & 16 else 0)
            written.append(chr(48 + part + 32 * more))
    return {"size": list(mask.shape), "counts": "".join(written)}


def draw_masks(masks: Sequence[np.ndarray], image: Image.Image, *, opacity: float = 0.55) -> Image.Image:
    """The image under its masks, (H, W) of any size each, in one colour each."""
    canvas = image.convert("RGB")
    for number, mask in enumerate(masks):
        shape = Image.fromarray(np.asarray(mask, np.uint8) * round(255 * opacity))
        canvas.paste(COLORS[number % len(COLORS)], (0, 0), shape.resize(canvas.size, Image.Resampling.NEAREST))
    return canvas


@register_kind
class MaskKind(TokenKind):
    """Args: cells: of a side of the box, 8 (12 codes a span) or 16 (36 codes)."""

    name: ClassVar[str] = "mask"
    order: ClassVar[int] = 30
    has_picture: ClassVar[bool] = True
    in_pixels: ClassVar[bool] = True
    measure: ClassVar[str | None] = "iou"

    def __init__(self, *, cells: int = 8) -> None:
        if cells not in MASK_CELLS:
            raise AuroraError(f"a mask has 8 or 16 cells a side, not {cells!r}")
        self.cells = cells
        self.family = mask_family(cells=cells)

    def encode(self, annotation: np.ndarray) -> list[int]:
        return encode_mask(annotation, self.cells)

    def decode(self, codes: Sequence[int]) -> np.ndarray:
        """bool (256, 256), over the frame."""
        return decode_mask(codes)

    def draw(self, annotations: Sequence[np.ndarray], image: Image.Image) -> Image.Image:
        return draw_masks(annotations, image)

    def draw_written(self, codes: Sequence[int]) -> Image.Image | None:
        """Rows that are not written yet are full."""
        if len(codes) < EDGES:
            return None
        whole = [*codes, *[255] * (self.family.lengths[0] - len(codes))]
        return self.draw([self.decode(whole)], Image.new("RGB", (SIDE, SIDE)))

    def allowed_codes(self, prefix: Sequence[int]) -> range:
        """The last column is not left of the first, nor the last row above the first."""
        return range(prefix[len(prefix) - 2] if len(prefix) in (2, 3) else 0, SIDE)

    def reconstruct(self, probabilities: "torch.Tensor") -> "torch.Tensor":
        """The expected bits, bilinear between the middles of the cells, in the expected box: (B, 1, 64, 64) in [0, 1].

        What `allowed_codes` rules out of the far edges, given the likeliest near ones, counts nothing.
        """
        import torch
        from torch.nn import functional

        codes = torch.arange(SIDE, device=probabilities.device)
        near, far = probabilities[:, :2], probabilities[:, 2:EDGES]
        far = far * (codes >= near.argmax(dim=-1, keepdim=True))
        far = far / far.sum(dim=-1, keepdim=True).clamp(min=1e-6)
        low, high = near @ codes.to(near.dtype), far @ codes.to(far.dtype) + 1
        middles = (torch.arange(PICTURE, device=codes.device) + 0.5) * SIDE / PICTURE
        x, y = (2 * (middles - low[..., None]) / (high - low).clamp(min=1)[..., None] - 1).unbind(dim=1)
        grid = torch.stack(torch.broadcast_tensors(x[:, None, :], y[:, :, None]), dim=-1)
        table = (codes[:, None] >> torch.arange(7, -1, -1, device=codes.device)) & 1
        bits = (probabilities[:, EDGES:] @ table.to(probabilities.dtype)).reshape(-1, 1, self.cells, self.cells)
        return functional.grid_sample(bits, grid, align_corners=False)

    def picture_error(self, written: "torch.Tensor", true: "torch.Tensor") -> "torch.Tensor":
        """Squared difference, cross-entropy over that of the true picture with itself, and 1 - dice, for each picture.

        Each is 0 for equal pictures; they count the same.
        """
        from torch.nn import functional

        guess, truth = (picture.flatten(1).clamp(1e-4, 1 - 1e-4) for picture in (written, true))
        entropy = functional.binary_cross_entropy(truth, truth, reduction="none")
        surprise = (functional.binary_cross_entropy(guess, truth, reduction="none") - entropy).mean(dim=1)
        dice = 2 * (guess * truth).sum(dim=1) / (guess.square() + truth.square()).sum(dim=1)
        return super().picture_error(written, true) + surprise + 1 - dice

    def compare(self, written: Sequence[int], true: Sequence[int]) -> float | None:
        """Intersection over union."""
        one, other = self.decode(written), self.decode(true)
        return float((one & other).sum() / max(1, int((one | other).sum())))

    def code_features(self) -> "torch.Tensor":
        """A code is an edge or eight cells: sines and cosines of the place, and the bits as ±1."""
        import torch

        codes = torch.arange(SIDE)[:, None]
        phase = 2 * math.pi * codes / torch.logspace(math.log10(2 * SIDE), math.log10(8), 8)
        return torch.cat([phase.sin(), phase.cos(), 2.0 * ((codes >> torch.arange(8)) & 1) - 1], dim=1)

    def description(self, code: int) -> str:
        return f" {code}"

    def settings(self) -> dict[str, Any]:
        return {"cells": self.cells}

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any], folder: Path) -> "MaskKind":
        return cls(cells=settings.get("cells", 8))
