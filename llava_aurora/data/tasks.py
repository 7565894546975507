"""The tasks of training records: what each is about, of which kind it is, and how hard.

The one table; the record writer's names, the curriculum and the choice of tasks to train on all refer to it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

Domain = Literal["depth", "box"]
Kind = Literal["atomic", "chain", "direct"]
Part = Literal["question", "answer"]
KINDS: tuple[Kind, ...] = get_args(Kind)
OTHER = "other"


@dataclass(frozen=True)
class Task:
    """One task.

    Args:
        domain: the perception tokens that it is about.
        kind: "atomic" practises tokens, to write them of an image or to read them without one, "chain" reasons about
            an image with tokens, "direct" gives the answer alone.
        difficulty: d of the softmax schedule. The paper gives none; here what asks for an answer is one step harder
            than what only writes tokens, and chain and direct are equally hard, as AURORA gave them equal parts.
        map_in: what of its records holds a depth map; None if nothing does.
    """

    domain: Domain
    kind: Kind
    difficulty: int
    map_in: Part | None = None


TASKS: Mapping[str, Task] = {
    "depth_generation": Task("depth", "atomic", 1, map_in="answer"),
    "point_location": Task("depth", "atomic", 1),
    "depth_chain": Task("depth", "chain", 2, map_in="answer"),
    "depth_chain_without_points": Task("depth", "chain", 2, map_in="answer"),
    "depth_chain_from_coordinates": Task("depth", "chain", 2, map_in="answer"),
    "depth_direct": Task("depth", "direct", 2),
    "depth_direct_from_coordinates": Task("depth", "direct", 2),
    "box_generation": Task("box", "atomic", 1),
    "counting_chain": Task("box", "chain", 2),
    "counting_direct": Task("box", "direct", 2),
    "depth_reading": Task("depth", "atomic", 1, map_in="answer"),
    "depth_chain_from_map": Task("depth", "atomic", 1, map_in="question"),
    "depth_reading_from_map": Task("depth", "atomic", 1, map_in="question"),
}
# Wordings of a task for images without what it asks for.
VARIANTS: Mapping[str, str] = {"box_generation_of_none": "box_generation", "counting_chain_of_none": "counting_chain"}
# Every name that `task_name` returns; the record store keeps positions in this tuple.
TASK_NAMES: tuple[str, ...] = (*TASKS, OTHER)


def task_name(record: Mapping[str, Any]) -> str:
    """The task of a record in LLaVA's format; OTHER for one of LLaVA's own, or of a task that is not in the table."""
    about = record.get("aurora")
    name = about.get("task") if isinstance(about, Mapping) else None
    name = VARIANTS.get(name, name) if isinstance(name, str) else OTHER
    return name if name in TASKS else OTHER
