"""Reads what --curriculum names: a built-in schedule, or a YAML file with parameters or a mixture for each epoch."""

import math
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

from llava_aurora.data.curriculum.schedule import BUILT_IN, MixtureSchedule, Schedule
from llava_aurora.errors import AuroraError
from llava_aurora.files import read_text
from llava_aurora.tasks.registry import OTHER, task_named

# Lowest and highest value of each number in a file.
RANGES = {"start": (0, 1), "end": (0, 1), "tau0": (1e-6, math.inf), "cooling": (0, math.inf), "even_at": (0, 1)}


def read_schedule(source: str) -> Schedule:
    """A schedule by its name, or from a YAML file.

    Raises AuroraError naming the file and the remedy, if it is neither, or the file does not hold a schedule.
    """
    if source in BUILT_IN:
        return BUILT_IN[source](source=f"--curriculum {source}")
    content = _read_yaml(Path(source))
    length = content.pop("records_per_epoch", None)
    if length is not None and (not isinstance(length, int) or isinstance(length, bool) or length < 1):
        raise AuroraError(f"{source}: records_per_epoch is {length!r}; it must be a whole number of at least 1")
    common: dict[str, Any] = {"source": source, "records_per_epoch": length}
    if set(content) == {"epochs"}:
        epochs = content["epochs"]
        if not isinstance(epochs, list) or not epochs:
            raise AuroraError(f"{source}: epochs must be a list of mixtures {{task: weight}}, with at least one")
        mixtures = [_weights(mixture, f"{source}: epochs[{index}]") for index, mixture in enumerate(epochs)]
        return MixtureSchedule(mixtures=mixtures, **common)
    name = content.pop("schedule", None)
    if not isinstance(name, str) or name not in BUILT_IN:
        raise AuroraError(
            f"{source}: 'schedule: NAME' with {', '.join(BUILT_IN)} for NAME, or 'epochs: [{{task: weight}}, …]' alone"
            " is expected"
        )
    allowed = [each.name for each in fields(BUILT_IN[name]) if each.name not in common]
    if unknown := [key for key in content if key not in allowed]:
        raise AuroraError(
            f"{source}: {name} has no {unknown[0]!r}; it has {', '.join(['records_per_epoch', *allowed])}"
        )
    settings = {key: _setting(key, value, f"{source}: {key}") for key, value in content.items()}
    return BUILT_IN[name](**common, **settings)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(read_text(path, what="curriculum"))
    except AuroraError as error:
        raise AuroraError(f"--curriculum {error}; it is {', '.join(BUILT_IN)} or a YAML file") from error
    except yaml.YAMLError as error:
        raise AuroraError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise AuroraError(f"{path}: YAML that is nested too deeply") from error
    if not isinstance(content, dict):
        raise AuroraError(f"{path}: a YAML mapping with 'schedule:' or 'epochs:' is expected; see docs/curriculum.md")
    return content


def _setting(key: str, value: Any, where: str) -> Any:
    if key == "weights":
        return _weights(value, where)
    if key == "difficulty":
        return _numbers(value, where)
    low, high = RANGES[key]
    return _number(value, where, low, high)


def _weights(value: Any, where: str) -> Mapping[str, float]:
    weights = _numbers(value, where)
    if not any(weights.values()):
        raise AuroraError(f"{where}: all weights are 0; at least one task needs a weight above 0")
    return weights


def _numbers(value: Any, where: str) -> dict[str, float]:
    if not isinstance(value, dict) or not value:
        raise AuroraError(f"{where}: a mapping {{task: number}} is expected, not {value!r}")
    for task in value:
        if task == OTHER:
            raise AuroraError(f"{where}: {OTHER!r} has no weight; records without a task are used once per epoch")
        task_named(task, where=f"{where}: ")
    return {task: _number(number, f"{where}: {task}", 0, math.inf) for task, number in value.items()}


def _number(value: Any, where: str, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high or math.isinf(value):
        bound = f"at least {low:g}" if math.isinf(high) else f"in [{low:g}, {high:g}]"
        raise AuroraError(f"{where} is {value!r}; it must be a number {bound}")
    return float(value)
