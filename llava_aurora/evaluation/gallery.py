"""Pictures of right and wrong cases: the image, what the model wrote, and the truth."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from llava_aurora.evaluation.benchmarks.question import Question
from llava_aurora.evaluation.measure import judge, written_of
from llava_aurora.generation.result import Answer, folded, plain
from llava_aurora.report.plots import Panel, save_panels
from llava_aurora.tasks.marks import mark_points
from llava_aurora.tasks.registry import family_named
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

    Returns: Of each, as JSON takes it: picture (relative to `out`), right, id, category, truth.
    Raises AuroraError if an image or a true map cannot be read, or a picture not be written.
    """
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
        save_panels(
            path,
            panels(question, line, perception),
            question=plain(question.prompt(reasoning, reasoning_prompt), perception),
            answer=plain(folded(line.text, perception), perception),
            truth=question.answer,
            right=right,
        )
        about = {"right": right, "id": question.id, "category": question.category, "truth": question.answer}
        drawn.append({"picture": f"{PICTURES}/{path.name}", **about})
    return drawn


def panels(question: Question, line: Answer, perception: PerceptionTokens | None) -> list[Panel]:
    """The image with its points, and what the task family draws of the truth and of the answer."""
    image = question.open().resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)
    shown = image
    if question.points and not question.unmarked:
        shown = mark_points(image, question.points, frame=question.frame)
    written, annotation = written_of(question, line, perception)
    return [("image", shown), *family_named(question.family).panels(question, written, annotation, image)]
