"""Records of one's own as a benchmark: any task, its truth as `aurora` keeps it."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llava_aurora.data.images.image_files import path_inside
from llava_aurora.data.store.record_file import images_of, read_records
from llava_aurora.errors import AuroraError
from llava_aurora.evaluation.benchmarks.question import Question, QuestionSet, question_set
from llava_aurora.tasks.registry import family_of, task_of
from llava_aurora.tasks.task import Record, Task

NAMES = ("records.json", "records.jsonl", "records.parquet")


def read_record_questions(folder: Path) -> QuestionSet:
    """The records in `records.json` (or .jsonl, .parquet) of a folder; image paths are relative to the folder.

    The first question of a record is asked. Records without a task that states an answer, and without an image, are
    left out and counted. Raises AuroraError naming file and record, if one cannot be read, or naming the folder, if
    there are none.
    """
    path = next((folder / name for name in NAMES if (folder / name).is_file()), None)
    if path is None:
        raise AuroraError(f"{folder}: holds none of {', '.join(NAMES)}, which the benchmark `records` reads")
    left_out: Counter[str] = Counter()

    def questions() -> Iterator[Question]:
        for number, record in enumerate(read_records(path)):
            task = task_of(record)
            if task is None or task.answer is None:
                left_out["of a task without an answer, or of none"] += 1
            elif not images_of(record):
                left_out["without an image"] += 1
            else:
                try:
                    yield record_question(folder, record, task)
                except (AuroraError, AttributeError, KeyError, TypeError, ValueError) as error:
                    raise AuroraError(f"{path}: record {number} (id {record.get('id')}): {error}") from error

    return question_set(questions(), where=folder, left_out=left_out)


def record_question(folder: Path, record: Record, task: Task) -> Question:
    """The first question of a record of a task that states an answer. Args: folder: of its image and depth map.

    Raises AuroraError, AttributeError, KeyError, TypeError or ValueError if the record does not keep its truth as its
    task writes it.
    """
    about: dict[str, Any] = record["aurora"]
    assert task.answer is not None
    points = {letter: (int(x), int(y)) for letter, (x, y) in about.get("points", {}).items()}
    choices = tuple(map(str, about.get("choices", ())))
    options: dict[str, Any] = {"frame": int(about["frame"])} if "frame" in about else {}
    if isinstance(about.get("depth"), str):
        options["depth"] = path_inside(folder, about["depth"])
    if "boxes" in about:
        options["boxes"] = tuple(tuple(box) for box in about["boxes"])
    return Question(
        id=str(record["id"]),
        image=path_inside(folder, images_of(record)[0]),
        text=record["conversations"][0]["value"].replace("<image>", "").strip(),
        kind=task.answer,
        answer=str(about["answer"]),
        category=task.name,
        family=family_of(task).name,
        chance=1 / len(points or choices) if points or choices else None,
        choices=choices,
        points=points,
        codes={kind: tuple(codes) for kind, codes in about.get("codes", {}).items()},
        **options,
    )
