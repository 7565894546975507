"""A colour as codes: its levels of red, green and blue, of a pixel that a model names (PAE-LaMM, arXiv 2408.03940).

The expected level of each channel makes the reconstruction loss ordinal: a near level costs less than a far one.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from PIL import Image

from llava_aurora.errors import AuroraError
from llava_aurora.tokens.kind import TokenKind, register_kind
from llava_aurora.tokens.vocabulary import color_family

if TYPE_CHECKING:
    import torch

LEVELS = 256
Color = tuple[int, int, int]


@register_kind
class ColorKind(TokenKind):
    """Annotations are (red, green, blue), whole numbers from 0 to 255."""

    name: ClassVar[str] = "color"
    order: ClassVar[int] = 40
    has_picture: ClassVar[bool] = True
    measure: ClassVar[str | None] = "likeness"

    def __init__(self) -> None:
        self.family = color_family()

    def encode(self, annotation: Sequence[int]) -> list[int]:
        levels = [int(level) for level in annotation]
        if len(levels) != 3 or not all(0 <= level < LEVELS for level in levels):
            raise AuroraError(f"a colour is three levels from 0 to 255, not {list(annotation)}")
        return levels

    def decode(self, codes: Sequence[int]) -> Color:
        red, green, blue = codes
        return red, green, blue

    def draw(self, annotations: Sequence[Color], image: Image.Image) -> Image.Image:
        """Stripes of the colours, from left to right."""
        stripes = Image.new("RGB", (max(1, len(annotations)), 1))
        stripes.putdata(list(annotations))
        return stripes.resize(image.size, Image.Resampling.NEAREST)

    def reconstruct(self, probabilities: "torch.Tensor") -> "torch.Tensor":
        """The expected level of each channel: (B, 3, 1, 1) in [0, 1]."""
        import torch

        levels = torch.linspace(0, 1, LEVELS, device=probabilities.device, dtype=probabilities.dtype)
        return (probabilities @ levels)[..., None, None]

    def compare(self, written: Sequence[int], true: Sequence[int]) -> float | None:
        """1 less the mean difference of a channel, as a share of 255."""
        return 1 - sum(abs(one - other) for one, other in zip(written, true, strict=True)) / (3 * (LEVELS - 1))

    def code_features(self) -> "torch.Tensor":
        """Sines and cosines of the level, at wavelengths from 512 to 8 levels."""
        import torch

        phase = 2 * math.pi * torch.arange(LEVELS)[:, None] / torch.logspace(math.log10(512), math.log10(8), 8)
        return torch.cat([phase.sin(), phase.cos()], dim=1)

    def description(self, code: int) -> str:
        return f"{code}"

    def settings(self) -> dict[str, Any]:
        return {}

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any], folder: Path) -> "ColorKind":
        return cls()
