"""The registry of task families: every task by name, and the task of a record."""

import importlib
import pkgutil
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from llava_aurora.errors import AuroraError
from llava_aurora.tasks.task import Task, TaskFamily

OTHER = "other"  # the task of records of no known task

_families: dict[str, TaskFamily] = {}


def register_family(cls: type[TaskFamily]) -> type[TaskFamily]:
    """Class decorator. Raises ValueError if its name or that of a task is taken."""
    if cls.name in _families:
        raise ValueError(f"task family {cls.name!r} is registered already")
    taken = {name for family in _families.values() for task in family.tasks for name in task.wordings}
    if repeated := taken & {name for task in cls.tasks for name in task.wordings}:
        raise ValueError(f"task {sorted(repeated)[0]!r} is registered already")
    _families[cls.name] = cls()
    _known.cache_clear()
    return cls


def unregister_family(name: str) -> None:
    """Takes a family out again. Raises KeyError if there is none of that name."""
    del _families[name]
    _known.cache_clear()


class _Known(NamedTuple):
    families: list[TaskFamily]
    tasks: dict[str, Task]
    family_of: dict[str, TaskFamily]
    by_wording: dict[str, Task]


@lru_cache(maxsize=1)
def _known() -> _Known:
    package = importlib.import_module("llava_aurora.tasks")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
    ordered = sorted(_families.values(), key=lambda family: (family.order, family.name))
    pairs = [(task, family) for family in ordered for task in family.tasks]
    return _Known(
        ordered,
        {task.name: task for task, _ in pairs},
        {task.name: family for task, family in pairs},
        {name: task for task, _ in pairs for name in task.wordings},
    )


def families() -> list[TaskFamily]:
    """All families, in order."""
    return _known().families


def family_named(name: str) -> TaskFamily:
    """Raises KeyError if there is none of that name."""
    return {family.name: family for family in families()}[name]


def tasks() -> Mapping[str, Task]:
    """All tasks by name, in the order of their families."""
    return _known().tasks


def task_names() -> tuple[str, ...]:
    """Every name that `task_name` returns; record stores keep positions in this tuple."""
    return (*tasks(), OTHER)


def task_named(name: str, *, where: str = "") -> Task:
    """Raises AuroraError for an unknown name, listing those there are. Args: where: the message begins with this."""
    if name not in tasks():
        raise AuroraError(f"{where}unknown task {name!r}; available: {', '.join(tasks())}")
    return tasks()[name]


def family_of(task: Task | str) -> TaskFamily:
    """The family of a task. Raises KeyError if it belongs to none."""
    return _known().family_of[task if isinstance(task, str) else task.name]


def task_of(record: Mapping[str, Any]) -> Task | None:
    """The task of a record in LLaVA's format; None for one of LLaVA's own, or of an unknown task."""
    about = record.get("aurora")
    name = about.get("task") if isinstance(about, Mapping) else None
    return _known().by_wording.get(name) if isinstance(name, str) else None


def task_name(record: Mapping[str, Any]) -> str:
    """The name of a record's task; OTHER for one of LLaVA's own, or of an unknown task."""
    task = task_of(record)
    return task.name if task else OTHER
