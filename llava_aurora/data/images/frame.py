"""Maps coordinates between an image file and the square frame that the vision tower sees.

Coordinate tokens name pixels of that frame, so boxes have to be moved exactly as LLaVA's processing moves the pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from llava_aurora.errors import AuroraError

AspectRatio = Literal["pad", "square", "resize"]
Box = tuple[float, float, float, float]

ASPECT_RATIOS: tuple[str, ...] = get_args(AspectRatio)


@dataclass(frozen=True)
class FrameTransform:
    """Moves boxes of one image into the frame: x' = scale[0] · x + shift[0], y' = scale[1] · y + shift[1]."""

    frame: int  # side of the square frame in pixels
    # scale, shift: along x and y
    scale: tuple[float, float]
    shift: tuple[float, float]

    @classmethod
    def of(cls, *, width: int, height: int, frame: int, aspect_ratio: str) -> "FrameTransform":
        """The transform for an image of `width` × `height` pixels.

        Args:
            frame: the image processor's `crop_size`, which is also its `size["shortest_edge"]`.
            aspect_ratio: --image_aspect_ratio. pad: the image is put into the middle of a square (`expand2square`),
                which is then resized. square: its shorter side is resized to the frame and the middle is cut out, so
                that the ends of the longer side are lost. resize, which LLaVA does not know: both sides are resized to
                the frame whatever their ratio.
        Raises AuroraError if the image has no pixels, or there is no such aspect ratio.
        """
        if width < 1 or height < 1:
            raise AuroraError(f"an image of {width} × {height} pixels has no area")
        if aspect_ratio == "pad":
            side = max(width, height)
            scale = frame / side
            return cls(frame, (scale, scale), ((side - width) // 2 * scale, (side - height) // 2 * scale))
        if aspect_ratio == "square":
            short = min(width, height)
            sides = [int(frame * side / short) for side in (width, height)]
            scales = (sides[0] / width, sides[1] / height)
            return cls(frame, scales, (-float((sides[0] - frame) // 2), -float((sides[1] - frame) // 2)))
        if aspect_ratio == "resize":
            return cls(frame, (frame / width, frame / height), (0.0, 0.0))
        raise AuroraError(f"unknown aspect ratio {aspect_ratio!r}; available: {', '.join(ASPECT_RATIOS)}")

    @classmethod
    def of_model(cls, config: Any, processor: Any, *, width: int, height: int, frame: int) -> "FrameTransform":
        """The transform for an image that a model is asked about.

        Args:
            config: the model's; its `image_aspect_ratio` says what LLaVA does to an image.
            processor: the model's image processor, which does the rest.
            width, height: of the image.
            frame: side of the square that coordinates refer to, whatever the size that the vision tower sees.
        """
        return cls.of(width=width, height=height, frame=frame, aspect_ratio=cls.aspect_ratio_of(config, processor))

    @staticmethod
    def aspect_ratio_of(config: Any, processor: Any) -> str:
        """The aspect ratio of `of` for a model, by its config and image processor."""
        ratio = getattr(config, "image_aspect_ratio", None)
        # "anyres" shows the image resized to a square first, and its parts after that.
        if ratio not in ("pad", "resize"):
            cuts = getattr(processor, "do_center_crop", False) and "shortest_edge" in processor.size
            ratio = "square" if cuts and ratio != "anyres" else "resize"
        return str(ratio)

    def original(self, values: Sequence[float]) -> tuple[float, ...]:
        """Points or boxes of the frame (x, y, x, y, ...) in pixels of the image; the inverse of the transform."""
        return tuple((value - self.shift[axis % 2]) / self.scale[axis % 2] for axis, value in enumerate(values))

    def box(self, box: Sequence[float]) -> tuple[Box, float]:
        """A box (x1, y1, x2, y2) in pixels of the image, moved into the frame.

        Returns: The part of it inside the frame, in frame pixels, 0 … frame; and how much of its area that is, 0 to 1.
        A box that lies wholly outside comes back empty.
        """
        moved = [value * self.scale[axis % 2] + self.shift[axis % 2] for axis, value in enumerate(box)]
        inside = [min(max(value, 0.0), float(self.frame)) for value in moved]
        share = (inside[2] - inside[0]) * (inside[3] - inside[1]) / ((moved[2] - moved[0]) * (moved[3] - moved[1]))
        return (inside[0], inside[1], inside[2], inside[3]), share

    def view(self, values: np.ndarray) -> np.ndarray:
        """An array (height, width) of the whole image, such as a depth map, as the frame shows it.

        Returns: (frame, frame) of the same type, by nearest neighbour; 0 beside the image.
        """
        centres = np.arange(self.frame) + 0.5
        columns, rows = (
            np.floor((centres - shift) / scale).astype(int) for shift, scale in zip(self.shift, self.scale, strict=True)
        )
        return _taken(values, rows, columns)

    def image(self, values: np.ndarray, size: Sequence[int]) -> np.ndarray:
        """An array over the frame in the pixels of an image of this size (width, height): the way back from `view`.

        Args: values: (side, side), of any side.
        Returns: (height, width) of the same type, by nearest neighbour; 0 where the frame does not show the image.
        """
        fine = len(values) / self.frame
        columns, rows = (
            np.floor(((np.arange(length) + 0.5) * scale + shift) * fine).astype(int)
            for length, scale, shift in zip(size, self.scale, self.shift, strict=True)
        )
        return _taken(values, rows, columns)

    def place(self, point: Sequence[int], size: Sequence[int]) -> tuple[int, int]:
        """The pixel of an image of this size (width, height) under a pixel (x, y) of the frame."""
        x, y = (
            min(max(int((value + 0.5 - shift) / scale), 0), length - 1)
            for value, shift, scale, length in zip(point, self.shift, self.scale, size, strict=True)
        )
        return x, y

    def pixel(self, point: Sequence[int]) -> tuple[int, int]:
        """The pixel of the frame that holds a pixel of the image; of one that was cut off the nearest at the border."""
        moved = [int((value + 0.5) * self.scale[axis] + self.shift[axis]) for axis, value in enumerate(point)]
        x, y = (min(max(value, 0), self.frame - 1) for value in moved)
        return x, y


def _taken(values: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """The values at these rows and columns, (rows, columns); 0 outside."""
    height, width = values.shape
    inside = ((rows >= 0) & (rows < height))[:, None] & ((columns >= 0) & (columns < width))
    taken = values[rows.clip(0, height - 1)[:, None], columns.clip(0, width - 1)]
    return np.where(inside, taken, 0).astype(values.dtype)
