"""An answer as one picture: the image with boxes and points, maps beside it, question and answer below."""

import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PANEL = 4.0  # inches, the longer side of an image
_LEAST = 1.0  # inches, the least side of an image
_MOST_LINES = 12
_DPI = 120
_BOX, _POINT = "#ffe600", "#ff2d2d"


def draw_answer(
    image: Image.Image,
    *,
    maps: Sequence[tuple[str, Callable[[Image.Image], Image.Image]]],
    boxes: Sequence[Sequence[float]],
    points: Mapping[str, Sequence[float]],
    texts: Sequence[str],
) -> Image.Image:
    """Draws the panels in a row, boxes and points in each of them, and the texts below.

    Args:
        maps: a title each, and what draws it in the size of an image, perhaps with a colour bar at its right.
        boxes: (x1, y1, x2, y2) in pixels of the image; numbered as listed.
        points: (x, y) in the same pixels, by letter.
        texts: broken into lines; what is too long is cut off.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    scale = _PANEL * _DPI / max(image.size)
    resample = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BICUBIC
    size = [max(1, round(side * scale)) for side in image.size]
    shown = image.convert("RGB").resize((size[0], size[1]), resample)
    panels = [("image", shown), *((title, draw(shown)) for title, draw in maps)]
    width, height = (max(_LEAST, _PANEL * side / max(shown.size)) for side in shown.size)
    widths = [width + (picture.width - shown.width) / _DPI for _, picture in panels]
    lines = _lines(texts, characters=max(45, int(sum(widths) * 13)))
    below = 0.25 + 0.2 * len(lines)
    whole = (max(sum(widths), 3.5), height + below + 0.35)
    figure = Figure(figsize=whole, dpi=_DPI)
    canvas = FigureCanvasAgg(figure)
    for number, (title, picture) in enumerate(panels):
        left, across = sum(widths[:number]) / whole[0], widths[number] / whole[0]
        axes = figure.add_axes((left + 0.005, below / whole[1], across - 0.01, height / whole[1]))
        axes.imshow(picture, interpolation="nearest")
        axes.set_title(title, fontsize=10)
        axes.set_axis_off()
        _mark(axes, boxes, points, sides=image.size, shown=shown.size)
    figure.text(0.1 / whole[0], (below - 0.12) / whole[1], "\n".join(lines), fontsize=9.5, va="top", parse_math=False)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())


def _mark(
    axes: "Axes",
    boxes: Sequence[Sequence[float]],
    points: Mapping[str, Sequence[float]],
    *,
    sides: tuple[int, int],
    shown: tuple[int, int],
) -> None:
    from matplotlib.patches import Rectangle

    across, down = shown[0] / sides[0], shown[1] / sides[1]
    for number, (x1, y1, x2, y2) in enumerate(boxes, start=1):
        corner, size = (x1 * across, y1 * down), ((x2 - x1) * across, (y2 - y1) * down)
        axes.add_patch(Rectangle(corner, *size, fill=False, edgecolor=_BOX, linewidth=1.5))
        _label(axes, corner, str(number), _BOX, shown)
    for letter, (x, y) in points.items():
        axes.plot([x * across], [y * down], "o", markerfacecolor="none", markeredgecolor=_POINT, markersize=8)
        _label(axes, (x * across, y * down), letter, _POINT, shown)


def _label(axes: "Axes", place: tuple[float, float], text: str, color: str, shown: tuple[int, int]) -> None:
    inwards = (-12 if place[0] > 0.93 * shown[0] else 4, -12 if place[1] < 0.07 * shown[1] else 4)
    axes.annotate(
        text,
        place,
        xytext=inwards,
        textcoords="offset points",
        fontsize=9,
        fontweight="bold",
        color="black",
        bbox={"boxstyle": "round,pad=0.15", "facecolor": color, "edgecolor": "none"},
    )


def _lines(texts: Sequence[str], *, characters: int) -> Sequence[str]:
    lines = [line for text in texts for line in textwrap.wrap(text, characters, subsequent_indent="     ")]
    return lines if len(lines) <= _MOST_LINES else [*lines[: _MOST_LINES - 1], "     …"]
