"""Training records of counted boxes, from the annotation files of LVIS and COCO.

annotation file -> images and boxes (lvis.py) -> questions of balanced counts (box_questions.py) -> records
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from PIL import Image

from llava_aurora.data.images.image_files import opened_image, save_png
from llava_aurora.data.sources.boxes.box_questions import BoxTasks, Question, balance, find_questions
from llava_aurora.data.sources.boxes.lvis import read_annotations
from llava_aurora.data.sources.boxes.plurals import names_of
from llava_aurora.data.sources.made_records import MadeRecords
from llava_aurora.errors import AuroraError
from llava_aurora.ownership import claim_folder
from llava_aurora.progress import notes, tracked
from llava_aurora.tasks.counting import CountFacts, CountingFamily
from llava_aurora.tasks.records import RecordWriter
from llava_aurora.tasks.task import Record


@dataclass(kw_only=True)
class BoxRecords(MadeRecords):
    """What was made, and questions by their count before and after they were chosen.

    Of what is absent, no more than `BoxTasks.per_image` an image are possible.
    """

    possible: Counter[int] = field(default_factory=Counter)
    asked: Counter[int] = field(default_factory=Counter)


def write_box_records(
    out: Path,
    *,
    annotations: Path,
    images: Path,
    writer: RecordWriter,
    tasks: BoxTasks,
    validation_out: Path | None = None,
    resized: Path | None = None,
) -> BoxRecords:
    """Writes JSON files in LLaVA's format; their image paths are relative to `images`, or to `resized` where given.

    What is drawn depends on the seed alone. An image goes into validation by the seed and its id, whatever else is
    asked for, and never into both files.

    Args:
        out, validation_out: the JSON files; the second is needed just if `tasks.validation_share` is not 0.
        images: their folder, with train2017 and val2017 inside or the files themselves.
        resized: a folder for copies of frame × frame pixels of the images asked about, with the aspect ratio "resize".
    Raises AuroraError if the annotations cannot be read, arguments do not go together, or a file would be empty. No
    records are written then. What cannot be used of single images and boxes is in `failures`.
    """
    if resized is not None and tasks.aspect_ratio != "resize":
        raise AuroraError("a folder for resized images needs the aspect ratio 'resize'")
    made = BoxRecords(out=out, validation_out=validation_out, validation_share=tasks.validation_share, seed=tasks.seed)
    if resized is not None:
        claim_folder(resized, "resized_images.json", {"frame": tasks.frame}, what="resized images")
    rng = np.random.default_rng(tasks.seed)
    with notes().status(f"Reading {annotations}"):
        known = read_annotations(annotations)
    made.failures, made.passed_over = list(known.failures), known.passed_over
    drawn = [known.images[i] for i in rng.permutation(len(known.images))[: tasks.max_images or None]]
    present, absent = find_questions(drawn, images, tasks, made.failures, rng)
    chosen = balance(present, max_per_count=tasks.max_per_count, per_image=tasks.per_image, rng=rng)
    chosen += absent[: round(len(chosen) * tasks.negatives / (1 - tasks.negatives))]
    if resized is not None:
        chosen = _resize(chosen, images, resized, tasks.frame, made.failures)
    for question in tracked(chosen, "Writing records"):
        records = made.of_image(question.image.id)
        records += _ask(question, known.categories[question.category], writer, tasks)
    made.write(lacking="no category of an image can be asked for")
    made.possible.update(len(question.boxes) for question in present)
    made.possible[0] = len(absent)
    made.asked.update(len(question.boxes) for question in chosen)
    return made


def _ask(question: Question, category: str, writer: RecordWriter, tasks: BoxTasks) -> list[Record]:
    """The records of one question; they depend on it and the seed alone."""
    rng = np.random.default_rng([tasks.seed, abs(question.image.id), abs(question.category)])
    facts, name = CountFacts(*names_of(category), question.boxes), f"{question.image.id}/{question.category}"
    records = [
        writer.write(task, facts, name=name, image=question.file, rng=rng)
        for task in CountingFamily.tasks
        if rng.random() < tasks.shares.get(task.name, 0.0)
    ]
    for record in records:
        record["aurora"]["aspect_ratio"] = tasks.aspect_ratio
    return records


def _resize(
    questions: Sequence[Question], images: Path, resized: Path, frame: int, failures: list[str]
) -> list[Question]:
    """Writes each image in the frame's size as a PNG; the questions refer to those."""
    made: dict[str, str | None] = {}
    for question in tracked(questions, "Resizing images"):
        if question.file in made:
            continue
        made[question.file] = name = question.file.removesuffix(".png") + ".png"
        try:
            with opened_image(images / question.file) as picture:
                small = picture.convert("RGB").resize((frame, frame), Image.Resampling.BICUBIC)
        except AuroraError as error:
            failures.append(f"image {question.image.id}: {error}")
            made[question.file] = None
            continue
        save_png(resized / name, small)
    return [replace(question, file=file) for question in questions if (file := made[question.file]) is not None]
