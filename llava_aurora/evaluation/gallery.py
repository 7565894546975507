"""Cases to look at: what a model was shown, what it wrote, what is true; right ones and wrong ones."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from llava_aurora.evaluation.benchmarks.question import Question
from llava_aurora.evaluation.figures import readable
from llava_aurora.evaluation.measure import decode, judge
from llava_aurora.evaluation.written import Written, read_written
from llava_aurora.generation.result import Answer
from llava_aurora.report.plots import Panel, save_panels
from llava_aurora.tasks.marks import draw_points
from llava_aurora.tokens.box import BoxKind
from llava_aurora.tokens.depth import color_map
from llava_aurora.tokens.perception import PerceptionTokens

PICTURES = "pictures"
_SIDE = 336


def draw_gallery(
    out: Path,
    *,
    task: str,
    reasoning: str,
    reasoning_prompt: str | None = None,
    questions: Sequence[Question],
    lines: Sequence[Answer],
    perception: PerceptionTokens | None,
    count: int,
) -> list[dict[str, Any]]:
    """Draws the first right and the first wrong answers of a benchmark, `count` of each, one PNG each.

    Returns:
        Of each, as JSON takes it: picture (relative to `out`), right, id, truth.

    Raises:
        AuroraError: if an image or a true map cannot be read, or a picture not be written.
    """
    families = perception.vocabulary.families if perception is not None else ()
    drawn: list[dict[str, Any]] = []
    left = {True: count, False: count}
    for question, line in zip(questions, lines, strict=True):
        if not any(left.values()):
            break
        right = judge(question, line, perception).correct
        if not left[right]:
            continue
        left[right] -= 1
        name = re.sub(r"[^\w.-]+", "_", f"{task}.{reasoning}.{question.id}")
        path = out / PICTURES / f"{name}.png"
        written = read_written(line.text, line.ids, perception)
        save_panels(
            path,
            panels(question, written, decode(written, perception)),
            question=readable(question.prompt(reasoning, reasoning_prompt), families),
            answer=readable(line.text, families),
            truth=question.answer,
        )
        drawn.append(
            {"picture": f"{PICTURES}/{path.name}", "right": right, "id": question.id, "truth": question.answer}
        )
    return drawn


def panels(question: Question, written: Written, depth: np.ndarray | None) -> list[Panel]:
    """The image, with its points; true depth and boxes where they are known; map and boxes that were written."""
    image = question.open().resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)
    shown = image
    if question.points and not question.unmarked:
        places = [
            (int(x * _SIDE / question.frame), int(y * _SIDE / question.frame)) for x, y in question.points.values()
        ]
        shown = Image.fromarray(draw_points(np.asarray(image), places, list(question.points)))
    found: list[Panel] = [("image", shown)]
    true = question.true_depth() if question.kind == "letter" else None
    if true is not None:
        found.append(("true depth", color_map(true)))
    if depth is not None:
        found.append(("map it wrote", color_map(depth)))
    boxes = BoxKind(frame=question.frame)
    if question.boxes is not None:
        found.append((f"true boxes: {len(question.boxes)}", boxes.draw(question.boxes, image)))
    if written.boxes:
        found.append((f"boxes it wrote: {len(written.boxes)}", boxes.draw(_drawable(written.boxes), image)))
    return found


def _drawable(boxes: Sequence[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Corners in order: an unconstrained model may write them the other way round, which Pillow refuses to draw."""
    return [(min(a, c), min(b, d), max(a, c), max(b, d)) for a, b, c, d in boxes]
