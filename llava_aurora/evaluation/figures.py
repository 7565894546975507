"""Pictures of what a model saw: its map beside the true one, its boxes in the image, its loss over the steps."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from llava_aurora.files import atomic_file
from llava_aurora.tasks.marks import draw_points
from llava_aurora.tokens.box import BoxKind
from llava_aurora.tokens.depth import color_map
from llava_aurora.tokens.vocabulary import MalformedSpan, TokenFamily

Panel = tuple[str, Image.Image]


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
        image: as the model saw it.
        points: (x, y) by letter, in pixels of a square frame.
        frame: its side.
        true, copy, written: uint8 maps of any size, higher = closer.
    """
    picture = np.asarray(image.convert("RGB").resize((336, 336), Image.Resampling.BICUBIC))
    places = [(int(x * 336 / frame), int(y * 336 / frame)) for x, y in points.values()]
    marked = draw_points(picture, places, list(points)) if points else picture
    maps = {"true depth": true, "the VQ-VAE's copy": copy, "written by the model": written}
    shown = [(title, color_map(depth)) for title, depth in maps.items() if depth is not None]
    return [("image", Image.fromarray(marked)), *shown]


def box_panels(
    image: Image.Image, *, true: Sequence[Sequence[int]], written: Sequence[Sequence[int]], frame: int
) -> list[Panel]:
    """The true boxes and those that the model wrote, in pixels of a square frame, numbered as listed."""
    large = image.convert("RGB").resize((336, 336), Image.Resampling.BICUBIC)
    kind = BoxKind(frame=frame)
    return [
        ("image", large),
        ("true boxes", kind.draw(true, large)),
        ("written by the model", kind.draw(written, large)),
    ]


def save_panels(path: Path, panels: Sequence[Panel], *, question: str, answer: str, truth: str) -> None:
    """Writes the panels in a row, with question, answer and truth below, as a PNG."""
    figure = Figure(figsize=(3.2 * len(panels), 4.6), dpi=100)
    FigureCanvasAgg(figure)
    for number, (title, picture) in enumerate(panels, start=1):
        axes = figure.add_subplot(1, len(panels), number)
        axes.imshow(picture, interpolation="nearest")
        axes.set_title(title, fontsize=11)
        axes.set_axis_off()
    width = 26 * len(panels)
    lines = [f"Q: {question}", f"A: {answer}", f"true: {truth}"]
    text = "\n".join(textwrap.fill(line, width, subsequent_indent="   ") for line in lines)
    figure.subplots_adjust(left=0.01, right=0.99, top=0.93, bottom=0.3, wspace=0.03)
    figure.text(0.02, 0.27, text, fontsize=10, va="top", family="monospace", parse_math=False)
    save_figure(figure, path)


def save_loss_curves(path: Path, history: Sequence[Mapping[str, Any]]) -> None:
    """Draws the whole loss and its parts from a trainer's log history, as a PNG."""
    figure = Figure(figsize=(7, 4), dpi=100)
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    logged = [entry for entry in history if "loss" in entry]
    for name in ("loss", *sorted({key for entry in logged for key in entry if key.startswith("loss_")})):
        points = [(entry["step"], entry[name]) for entry in logged if name in entry]
        axes.plot(*zip(*points, strict=True), label=name.replace("loss_", ""), linewidth=2.5 if name == "loss" else 1)
    axes.set_xlabel("step")
    axes.set_ylabel("cross-entropy (nats a token)")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.tight_layout()
    save_figure(figure, path)


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


def save_figure(figure: Figure, path: Path) -> None:
    """Writes a figure as a PNG, atomically."""
    with atomic_file(path) as temporary:
        figure.savefig(temporary, format="png")
