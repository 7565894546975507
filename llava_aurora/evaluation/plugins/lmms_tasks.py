"""HardBLINK as open-ended tasks for lmms-eval, written for a local folder.

llava-aurora lmms-tasks --data hardblink/ --out tasks/
lmms_eval --model llava_aurora --model_args pretrained=FOLDER --tasks hardblink --include_path tasks/
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from llava_aurora.data.images.image_files import open_image
from llava_aurora.errors import AuroraError
from llava_aurora.evaluation.benchmarks.published import read_hardblink_questions
from llava_aurora.evaluation.benchmarks.question import Question
from llava_aurora.files import atomic_folder, write_text
from llava_aurora.tasks.answers import stated_letter

GROUP = "hardblink"
FUNCTIONS = "lmms_functions.py"


def write_hardblink_tasks(data: Path, out: Path) -> list[str]:
    """Writes a folder for lmms-eval's --include_path: a task for each number of points, and the group of them.

    Args:
        data: HardBLINK in its published layout; its images stay where they are.
        out: a folder to make.
    Returns: Names of the tasks, the group last.
    Raises AuroraError if the data cannot be read or `out` is not empty.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise AuroraError(f"{out}: already exists; choose another folder")
    sets: dict[str, list[Question]] = {}
    for question in read_hardblink_questions(data).questions:
        sets.setdefault(f"{GROUP}_{question.category.replace(' ', '')}", []).append(question)
    with atomic_folder(out) as folder:
        for name, questions in sets.items():
            lines = [json.dumps(_row(question)) + "\n" for question in questions]
            write_text(folder / f"{name}.jsonl", "".join(lines))
            write_text(folder / f"{name}.yaml", _task(name, out.resolve() / f"{name}.jsonl"))
        write_text(folder / f"{GROUP}.yaml", _group(list(sets)))
        write_text(folder / FUNCTIONS, f"from {__name__} import image, judge, text  # noqa: F401\n")
    return [*sets, GROUP]


def image(doc: Mapping[str, Any]) -> list[Image.Image]:
    """The marked image of a row."""
    return [open_image(doc["image"])]


def text(doc: Mapping[str, Any], specific: Mapping[str, Any] | None = None) -> str:
    """The question, without options."""
    return doc["question"]


def judge(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """Right or wrong, and whether the answer says anything, by the parser of `llava-aurora eval`."""
    stated = stated_letter(results[0])
    return {"accuracy": float(stated == doc["answer"]), "unparsable": float(stated is None)}


def _row(question: Question) -> dict[str, Any]:
    assert isinstance(question.image, Path)
    return {
        "id": question.id,
        "image": str(question.image.resolve()),
        "question": question.text,
        "answer": question.answer,
    }


def _group(names: list[str]) -> str:
    """The mean over the numbers of points, each weighing the same, as the paper's tables give it."""
    means = [
        {"metric": metric, "aggregation": "mean", "weight_by_size": False} for metric in ("accuracy", "unparsable")
    ]
    return yaml.safe_dump({"group": GROUP, "task": names, "aggregate_metric_list": means}, sort_keys=False)


def _task(name: str, data: Path) -> str:
    module = FUNCTIONS.removesuffix(".py")
    settings = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_target": "answer",
        "generation_kwargs": {"max_new_tokens": 512, "temperature": 0, "do_sample": False},
        "metric_list": [
            {"metric": "accuracy", "aggregation": "mean", "higher_is_better": True},
            {"metric": "unparsable", "aggregation": "mean", "higher_is_better": False},
        ],
        "metadata": [{"version": 1.0}],
    }
    functions = {"doc_to_visual": "image", "doc_to_text": "text", "process_results": "judge"}
    tagged = [f"{key}: !function {module}.{function}\n" for key, function in functions.items()]
    return yaml.safe_dump(settings, sort_keys=False) + "".join(tagged)
