"""Published benchmarks in local folders, in the layouts they are published in, without their options.

HardBLINK (3, 4 and 5 points), BLINK (relative depth, counting), CV-Bench (counting, depth), SEED-Bench (counting). Of a
multiple-choice question the options are left out, as in AURORA, and the letter of the right one is turned into what it
says: a number for counting, a letter of a point or the name of a thing for depth.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from llava_aurora.data.images.image_files import opened_image
from llava_aurora.data.sources.hardblink import FRAME, read_hardblink
from llava_aurora.data.sources.tables import EmbeddedImage, Row, table_rows
from llava_aurora.errors import AuroraError
from llava_aurora.evaluation.benchmarks.marks import find_marks
from llava_aurora.evaluation.benchmarks.question import Question, QuestionSet, question_set
from llava_aurora.tasks.answers import named_number

HARDBLINK_POINTS = (3, 4, 5)
SEED_COUNTING = 5  # its question_type_id
_HIDDEN = "hidden"  # BLINK's answer in the test split


@dataclass(frozen=True)
class _Choice:
    """A multiple-choice question: options in the order of their letters, and the letter of the right one."""

    id: str
    image: Path | EmbeddedImage
    text: str
    options: tuple[str, ...]
    letter: str
    where: str

    @property
    def right(self) -> str:
        """What the right option says. Raises AuroraError if there is none of that letter."""
        found = re.fullmatch(r"\(?([A-Z])\)?", self.letter.strip())
        place = ord(found[1]) - ord("A") if found else len(self.options)
        if place >= len(self.options):
            raise AuroraError(f"{self.where}: the answer {self.letter!r} is not one of its {len(self.options)} options")
        return self.options[place]


def read_hardblink_questions(folder: Path) -> QuestionSet:
    """HardBLINK, or what `data hardblink` made, with all numbers of points that the folder has.

    Points are found in the images. A true depth map is `depth/blink{n}pointscenter/N.png`, which is not published.
    Raises AuroraError as `read_hardblink`, or if there is none.
    """
    counts = [n for n in HARDBLINK_POINTS if (folder / "questions" / f"blink_{n}pointscenter_questions.jsonl").exists()]
    if not counts:
        raise AuroraError(f"{folder}: holds no questions/blink_{{3,4,5}}pointscenter_questions.jsonl of HardBLINK")
    questions = []
    for count in counts:
        for each in read_hardblink(folder, count):
            with opened_image(each.image) as opened:
                size, picture = opened.size, np.asarray(opened.convert("RGB"))
            depth = folder / "depth" / each.image.parent.name / f"{each.image.stem}.png"
            points = find_marks(picture, count=count) if size == (FRAME, FRAME) else {}
            questions.append(
                Question(
                    id=f"{count}points/{each.id}",
                    image=each.image,
                    text=each.text,
                    kind="letter",
                    answer=each.answer,
                    category=f"{count} points",
                    family="depth",
                    chance=1 / count,
                    frame=FRAME,
                    points=points,
                    depth=depth if depth.is_file() else None,
                )
            )
    return question_set(questions, where=folder, left_out={})


def read_blink_depth(folder: Path) -> QuestionSet:
    """BLINK's Relative_Depth, two points an image."""
    left_out: Counter[str] = Counter()

    def questions() -> Iterator[Question]:
        for each in _blink(folder, "Relative_Depth", left_out):
            named = re.findall(r"\b([A-Z])\b", each.right)
            answer = named[0] if len(named) == 1 else each.letter.strip("() ")
            yield Question(
                **_about(each),
                kind="letter",
                answer=answer,
                category="2 points",
                family="depth",
                chance=1 / len(each.options),
            )

    return question_set(questions(), where=folder, left_out=left_out)


def read_blink_counting(folder: Path) -> QuestionSet:
    """BLINK's Counting."""
    return _counting(folder, "BLINK", lambda left_out: _blink(folder, "Counting", left_out))


def read_cv_bench_counting(folder: Path) -> QuestionSet:
    """CV-Bench's task Count."""
    return _counting(folder, "CV-Bench", lambda left_out: _cv_bench(folder, "Count"))


def read_cv_bench_depth(folder: Path) -> QuestionSet:
    """CV-Bench's task Depth: which of two things, marked by boxes of two colours, is closer. A name answers."""
    questions = (
        Question(
            **_about(each),
            kind="choice",
            answer=each.right,
            choices=each.options,
            category="depth",
            family="depth",
            chance=1 / len(each.options),
        )
        for each in _cv_bench(folder, "Depth")
    )
    return question_set(questions, where=folder, left_out={})


def read_seed_bench_counting(folder: Path) -> QuestionSet:
    """SEED-Bench's instance counting; its options are words as well as digits."""
    return _counting(folder, "SEED-Bench", lambda left_out: _seed_bench(folder))


def _counting(folder: Path, category: str, read: Callable[[Counter[str]], Iterator[_Choice]]) -> QuestionSet:
    """Questions whose right option is a number; the others cannot be asked without options."""
    left_out: Counter[str] = Counter()

    def questions() -> Iterator[Question]:
        for each in read(left_out):
            number = named_number(each.right)
            if number is None:
                left_out["the right option is no number"] += 1
                continue
            yield Question(**_about(each), kind="number", answer=number, category=category, family="counting")

    return question_set(questions(), where=folder, left_out=left_out)


def _about(each: _Choice) -> dict[str, Any]:
    return {"id": each.id, "image": each.image, "text": each.text}


# --- the layouts ------------------------------------------------------------------------------------------------------


def _blink(folder: Path, task: str, left_out: Counter[str]) -> Iterator[_Choice]:
    """Columns idx, sub_task, question, image_1, choices, answer such as "(A)"."""
    for row in table_rows(folder, images=[f"image_{number}" for number in range(1, 5)]):
        if row.values.get("sub_task", task) != task:
            continue
        if row.values.get("answer") == _HIDDEN:
            left_out["the answer is not published (test split)"] += 1
            continue
        yield _Choice(
            id=row.text("idx"),
            image=row.image("image_1"),
            text=row.text("question"),
            options=row.texts("choices"),
            letter=row.text("answer"),
            where=row.where,
        )


def _cv_bench(folder: Path, task: str) -> Iterator[_Choice]:
    """Columns idx, task, question, choices, answer such as "(A)", and image, or filename in the folder img."""
    for row in table_rows(folder, images=["image"]):
        if row.values.get("task") != task:
            continue
        embedded = "image" in row.embedded
        yield _Choice(
            id=f"{task}/{_number(row, 'idx')}",
            image=row.image("image") if embedded else row.image("filename", folders=("", "img")),
            text=row.text("question"),
            options=row.texts("choices"),
            letter=row.text("answer"),
            where=row.where,
        )


def _seed_bench(folder: Path) -> Iterator[_Choice]:
    """Fields question_id, question_type_id, question, choice_a … choice_d, answer such as "A", and image or data_id."""
    for row in table_rows(folder, images=["image"], rows_under="questions"):
        if row.values.get("question_type_id") != SEED_COUNTING or row.values.get("data_type", "image") != "image":
            continue
        embedded = "image" in row.embedded
        yield _Choice(
            id=str(row.values.get("question_id")),
            image=row.image("image") if embedded else row.image("data_id", folders=("SEED-Bench-image", "")),
            text=row.text("question"),
            options=tuple(row.text(f"choice_{letter}") for letter in "abcd"),
            letter=row.text("answer"),
            where=row.where,
        )


def _number(row: Row, name: str) -> int:
    value = row.values.get(name)
    if type(value) is not int:
        raise AuroraError(f"{row.where}: no integer under {name!r}")
    return value
