"""The paper's ablations, and a step of our own, as views of one training file: what is read differs, the file does not.

Each is a function of one record, applied when the record is read; the file on disk is baked once for all runs.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from llava_aurora.data.records import Record, hundredths
from llava_aurora.data.store.record_store import RecordStore
from llava_aurora.data.tasks import KINDS, OTHER, TASK_NAMES, TASKS, task_name
from llava_aurora.errors import AuroraError
from llava_aurora.tokens.perception import depth_and_box
from llava_aurora.tokens.vocabulary import depth_family, pixel_family

if TYPE_CHECKING:
    from llava_aurora.tokens.depth import DepthKind
    from llava_aurora.tokens.perception import PerceptionTokens

# Where the values of --value_step come from.
VALUE_SOURCES = ("depth", "map", "interpolated")
Transform = Callable[[Record], Record]
# A point or box in plain numbers, a point behind its letter, and the blanks between two sentences.
_COORDINATES = re.compile(r"\(\s*\d+(?:\s*,\s*\d+)+\s*\)")
_LETTERED_POINT = re.compile(r"\b(?P<letter>[A-Z]) (?P<place>\([^()]*\))(?P<value> \d\d\b)?")
_READ = ("depth_reading", "depth_reading_from_map")
_VALUED = ("depth_chain", "depth_chain_from_coordinates", "depth_chain_from_map")
_NO_MAP = "a depth chain without a map; --value_step needs one"
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")


def transforms(
    *, plain_coordinates: bool, coordinate_step: bool, value_step: "ValueStep | None" = None
) -> list[Transform]:
    """What is to be done with each record, in this order; nothing for AURORA's own recipe."""
    chosen: list[Transform] = []
    if value_step:
        chosen.append(value_step)
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


@dataclass(frozen=True)
class ValueStep:
    """Depth chains that also say, behind their map, how close each point is; other records stay as they are.

    A value follows the point's coordinates: "A (<PIXEL_50>,<PIXEL_36>) 07". It is a relative depth in hundredths,
    two digits, 00 farthest and 99 closest. Where the points are named before the map alone, they are named again.

    Args:
        map: whose codes the values are taken from, each from that of the point's cell, so that the map says all that
            is needed to write them; values that points have already (in readings) become such ones too. None: values
            are the points' true depths (aurora.depths), which the codes tell roughly.
        frame: side of the frame that coordinates refer to.
        interpolated: take a point's value from the codes of all cells around it, not from its own cell's alone.
    """

    map: "DepthKind | None" = None
    frame: int = 336
    interpolated: bool = False

    @classmethod
    def of(cls, source: str, perception: "PerceptionTokens | None") -> "ValueStep":
        """With values of this source, one of VALUE_SOURCES, for a model of these tokens.

        Raises:
            AuroraError: if they come from a map, and the model lacks depth or box tokens.
        """
        if source == "depth":
            return cls()
        depth, box = depth_and_box(perception, f"--value_step {source}")
        return cls(map=depth, frame=box.frame, interpolated=source == "interpolated")

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks whose records it changes."""
        return _VALUED if self.map is None else (*_VALUED, *_READ)

    def __call__(self, record: Record) -> Record:
        """The record with values.

        Raises:
            AuroraError: naming the record, if its answer does not have one map, its points are not named by letter
                and coordinates, or nothing is known of one (aurora.points, aurora.depths).
        """
        if task_name(record) not in self.tasks:
            return record
        where = f"record (id {record.get('id')})"
        depths = self._depths(record, where)

        def valued(turn: dict[str, Any]) -> str:
            text: str = turn["value"]
            return _with_values(text, depths, record, where) if turn["from"] == "gpt" else text

        return _with_turns(record, valued)

    def bears_out(self, record: Record) -> bool:
        """Whether the answer's point has the highest value, alone; true of records that say no values and answer.

        Raises:
            AuroraError: as for a call.
        """
        if task_name(record) not in _VALUED:
            return True
        depths = self._depths(record, f"record (id {record.get('id')})")
        values = {letter: hundredths(depth) for letter, depth in depths.items()}
        chosen = values.pop(record["aurora"]["answer"])
        return all(value < chosen for value in values.values())

    def depth_by_code(self, codes: Sequence[int], point: tuple[int, int]) -> int:
        """How close a point is, 0 to 255, by the codes of a map. Raises ValueError if there is no `map`."""
        if self.map is None:
            raise ValueError("these values are true depths, not those of a map's codes")
        depth_of = self.map.depth_between_cells if self.interpolated else self.map.depth_of_cell
        return depth_of(codes, point, frame=self.frame)

    def _depths(self, record: Record, where: str) -> dict[str, int]:
        """How close each point is, 0 to 255, by its letter."""
        known = record["aurora"].get("depths" if self.map is None else "points")
        if not isinstance(known, dict):
            lacking = "how close its points are (aurora.depths)" if self.map is None else "its points (aurora.points)"
            raise AuroraError(f"{where}: does not say {lacking}; --value_step needs it")
        if self.map is None:
            return known
        spans = self.map.family.parse("".join(turn["value"] for turn in record["conversations"]))
        if not spans:
            raise AuroraError(f"{where}: {_NO_MAP}")
        return {letter: self.depth_by_code(spans[-1].codes, (x, y)) for letter, (x, y) in known.items()}


def answer_with_values(task: str, template: str) -> str:
    """A template (prompts.py) of an answer to this task, as a ValueStep would have it; of another task as it is."""
    if task not in _VALUED:
        return template
    before, map_field, behind = template.rpartition("{map}")
    if "{points}" not in behind:
        behind = _named_again(behind, "{points}")
    return before + map_field + behind.replace("{points}", "{values}")


def _named_again(behind_map: str, points: str) -> str:
    """What stands behind a map, with a sentence that names its points put before it."""
    return f"{behind_map[:1]} The values are {points}.{behind_map[1:]}"


def _with_values(answer: str, depths: dict[str, int], record: Record, where: str) -> str:
    before, end, behind = answer.rpartition(depth_family().end)
    if not end and TASKS[task_name(record)].map_in == "answer":
        raise AuroraError(f"{where}: {_NO_MAP}")
    if not _LETTERED_POINT.search(behind):
        named = ", ".join(f"{letter} {place}" for letter, place, _ in _LETTERED_POINT.findall(before))
        behind = _named_again(behind, named)
    if sorted(letter for letter, _, _ in _LETTERED_POINT.findall(behind)) != sorted(depths):
        raise AuroraError(
            f"{where}: a chain that does not give each point's letter and coordinates; --value_step needs them"
        )
    valued = _LETTERED_POINT.sub(
        lambda point: f"{point['letter']} {point['place']} {hundredths(depths[point['letter']])}", behind
    )
    return before + end + valued


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


def check_chains(store: RecordStore, chosen: Sequence[Transform]) -> None:
    """Tries what refuses some records with points behind a map on all of these, so that a run is not stopped midway.

    Raises:
        AuroraError: naming file and record.
    """
    for transform in chosen:
        tasks = transform.tasks if isinstance(transform, ValueStep) else ()
        if transform is without_coordinate_step:
            tasks = ("depth_chain",)
        for index in np.flatnonzero(np.isin(store.tasks, [TASK_NAMES.index(task) for task in tasks])):
            try:
                transform(store[int(index)])
            except AuroraError as error:
                raise AuroraError(f"{store.source}: {error}") from error
