"""A result as one picture: the image with boxes and points, the map beside it, question and answer below."""

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from llava_aurora.tokens.depth import color_map
from llava_aurora.tokens.vocabulary import pixel_family

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from llava_aurora.generation.result import Result

_PANEL = 4.0  # inches, the longer side of an image
_LEAST = 1.0  # inches, what a narrow one gets
_MOST_LINES = 12
_DPI = 120
_BOX, _POINT = "#ffe600", "#ff2d2d"


def draw_result(result: "Result") -> Image.Image:
    """Draws it. The map is stretched to the image, which it covers; bright = close."""
    shrunk = result.image.convert("RGB")
    shrunk.thumbnail((round(_PANEL * _DPI), round(_PANEL * _DPI)))
    panels = [("image", shrunk)]
    if result.depth is not None:
        panels.append(
            ("depth, as the model wrote it", color_map(result.depth).resize(shrunk.size, Image.Resampling.NEAREST))
        )
    longest = max(shrunk.size)
    width, height = (max(_LEAST, _PANEL * side / longest) for side in shrunk.size)
    lines = _lines(result, characters=max(45, int(len(panels) * width * 13)))
    below = 0.25 + 0.2 * len(lines)
    whole = (max(len(panels) * width, 3.5), height + below + 0.35)
    figure = Figure(figsize=whole, dpi=_DPI)
    canvas = FigureCanvasAgg(figure)
    for number, (title, picture) in enumerate(panels):
        axes = figure.add_axes(
            (number * width / whole[0] + 0.005, below / whole[1], width / whole[0] - 0.01, height / whole[1])
        )
        axes.imshow(picture, interpolation="nearest")
        axes.set_title(title, fontsize=10)
        axes.set_axis_off()
        _mark(axes, result, shrunk.width / result.image.width, shrunk.height / result.image.height)
    figure.text(0.1 / whole[0], (below - 0.12) / whole[1], "\n".join(lines), fontsize=9.5, va="top", parse_math=False)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())


def _mark(axes: "Axes", result: "Result", across: float, down: float) -> None:
    """Boxes numbered as listed, points by their letters."""
    from matplotlib.patches import Rectangle

    for number, (x1, y1, x2, y2) in enumerate(result.boxes, start=1):
        corner = (x1 * across, y1 * down)
        axes.add_patch(
            Rectangle(corner, (x2 - x1) * across, (y2 - y1) * down, fill=False, edgecolor=_BOX, linewidth=1.5)
        )
        _label(axes, corner, str(number), _BOX)
    for letter, (x, y) in result.points.items():
        axes.plot([x * across], [y * down], "o", markerfacecolor="none", markeredgecolor=_POINT, markersize=8)
        _label(axes, (x * across, y * down), letter, _POINT)


def _label(axes: "Axes", place: tuple[float, float], text: str, color: str) -> None:
    right, top = max(axes.get_xlim()), min(axes.get_ylim())  # of the picture, whose rows run down
    inwards = (-12 if place[0] > 0.93 * right else 4, -12 if place[1] - top < 0.07 * max(axes.get_ylim()) else 4)
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


def _lines(result: "Result", *, characters: int) -> Sequence[str]:
    answer = result.answer or "(no answer beside the map)"
    answer = answer if result.finished else f"{answer} … (cut off)"
    texts = [pixel_family().plain(text) for text in (f"Q: {result.question}", f"A: {answer}")]
    lines = [line for text in texts for line in textwrap.wrap(text, characters, subsequent_indent="     ")]
    return lines if len(lines) <= _MOST_LINES else [*lines[: _MOST_LINES - 1], "     …"]
