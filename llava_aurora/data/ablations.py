"""The paper's ablations as views of the same training file: what a run reads differs, the file does not.

Each is a function of one record, applied when the record is read; the file on disk is baked once for all runs.
"""

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from llava_aurora.data.store.record_store import RecordStore
from llava_aurora.data.tasks import KINDS, OTHER, TASK_NAMES, TASKS, task_name
from llava_aurora.errors import AuroraError
from llava_aurora.vocabulary import depth_family, pixel_family

Record = dict[str, Any]
Transform = Callable[[Record], Record]
# A point or box in plain numbers, and the blanks between two sentences.
_COORDINATES = re.compile(r"\(\s*\d+(?:\s*,\s*\d+)+\s*\)")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")


def transforms(*, plain_coordinates: bool, coordinate_step: bool) -> list[Transform]:
    """What is to be done with each record, in this order; nothing for AURORA's own recipe."""
    chosen: list[Transform] = []
    if not coordinate_step:
        chosen.append(without_coordinate_step)
    if plain_coordinates:
        chosen.append(with_plain_coordinates)
    return chosen


def with_plain_coordinates(record: Record) -> Record:
    """The record with plain numbers for coordinate tokens, in all turns; the frame they refer to does not matter."""
    return _with_turns(record, lambda turn: pixel_family().plain(turn["value"]))


def without_coordinate_step(record: Record) -> Record:
    """A depth chain without the sentences that give the points' coordinates before the map; other records as they are.

    Raises:
        AuroraError: naming the record, if its answer has no map, or coordinates in the very sentence of the map.
    """
    if task_name(record) != "depth_chain":
        return record
    shorter = partial(_without_coordinates_before_map, name=record.get("id"))
    record = _with_turns(record, lambda turn: shorter(turn["value"]) if turn["from"] == "gpt" else turn["value"])
    return {**record, "aurora": {**record["aurora"], "task": "depth_chain_without_points"}}


def _without_coordinates_before_map(answer: str, *, name: object) -> str:
    before, start, rest = answer.partition(depth_family().start)
    if not start:
        raise AuroraError(f"record (id {name}): a depth chain without a map; --coordinate_step False needs one")
    sentences = _split_sentences(before)
    kept = "".join(sentence for sentence in sentences[:-1] if not has_coordinates(sentence)) + sentences[-1]
    if has_coordinates(kept):
        raise AuroraError(
            f"record (id {name}): coordinates stand in the same sentence as the map, so that --coordinate_step False"
            " cannot leave them out; write the chains with a full stop between the two"
        )
    return kept + start + rest


def has_coordinates(text: str) -> bool:
    """Whether a text holds a point or a box, as tokens or as plain numbers."""
    return _COORDINATES.search(pixel_family().plain(text)) is not None


def _split_sentences(text: str) -> list[str]:
    """Sentences with the blanks that follow them, so that joining them gives the text; the last may be empty."""
    ends = [match.end() for match in _SENTENCE_END.finditer(text)]
    return [text[start:end] for start, end in zip([0, *ends], [*ends, len(text)], strict=True)]


def _with_turns(record: Record, rewritten: Callable[[dict[str, Any]], str]) -> Record:
    turns = [{**turn, "value": rewritten(turn)} for turn in record["conversations"]]
    return {**record, "conversations": turns}


def select_tasks(store: RecordStore, train_tasks: str) -> RecordStore:
    """The records of some tasks alone.

    Args:
        store: all records.
        train_tasks: names of tasks or kinds (atomic, chain, direct), with commas; empty for all records.

    Raises:
        AuroraError: for a name that is neither, or if no record is left; it lists what there is.
    """
    names = [name.strip() for name in train_tasks.split(",") if name.strip()]
    if not names:
        return store
    if unknown := [name for name in names if name not in (*KINDS, *TASK_NAMES)]:
        raise AuroraError(
            f"--train_tasks: unknown task {unknown[0]!r}; there are the kinds {', '.join(KINDS)} and the tasks"
            f" {', '.join(TASK_NAMES)}"
        )
    wanted = [task in names or (task != OTHER and TASKS[task].kind in names) for task in TASK_NAMES]
    chosen = np.flatnonzero(np.array(wanted)[store.tasks])
    if not len(chosen):
        present = ", ".join(f"{task} ({count})" for task, count in store.task_counts().items())
        raise AuroraError(f"{store.source}: has no record of {', '.join(names)} (--train_tasks); it has {present}")
    return store.select(chosen)


def check_coordinate_step(store: RecordStore) -> None:
    """Tries `without_coordinate_step` on every depth chain, so that none is refused in the middle of a run.

    Raises:
        AuroraError: naming file and record.
    """
    for index in np.flatnonzero(store.tasks == TASK_NAMES.index("depth_chain")):
        try:
            without_coordinate_step(store[int(index)])
        except AuroraError as error:
            raise AuroraError(f"{store.source}: {error}") from error
