"""The contract of a record transform, and the registry of all there are.

A transform changes records when they are read; the file on disk stays as it was written, for all runs.
"""

import hashlib
import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from llava_aurora.data.images.image_reader import ImageChange
from llava_aurora.data.store.record_store import RecordStore
from llava_aurora.errors import AuroraError
from llava_aurora.tasks.registry import task_names, tasks
from llava_aurora.tasks.task import Record, Task

if TYPE_CHECKING:
    from llava_aurora.tokens.perception import PerceptionTokens


class Transform(ABC):
    """Changes the records of some tasks when they are read.

    Transforms are applied in the order of `order`; those for `training_only` not to the records of an evaluation.
    """

    order: ClassVar[int]
    training_only: ClassVar[bool] = False

    @classmethod
    @abstractmethod
    def from_flags(cls, flags: Any, perception: "PerceptionTokens | None") -> "Transform | None":
        """The transform that the flags ask for, or None. Raises AuroraError for flags that cannot be met.

        Args: flags: `DataArguments` (configuration.py); perception: of the model.
        """

    @abstractmethod
    def changes(self, task: Task) -> bool:
        """Whether it changes records of this task."""

    @abstractmethod
    def __call__(self, record: Record) -> Record:
        """The changed record, or the record itself if it is not to be changed. Raises AuroraError naming the record."""

    def image_change(self, record: Record) -> ImageChange | None:
        """What is drawn into the image of a record that this transform returned; None for nothing."""
        return None

    def set_epoch(self, epoch: int) -> None:  # noqa: B027 - most transforms are the same in each epoch
        """Tells the epoch that is read next. It has to be called before the workers of an epoch are started."""

    def check(self, store: RecordStore) -> None:
        """Tries the records that it changes, so that a run does not stop midway.

        Raises AuroraError naming file and record.
        """
        names = [name for name, task in tasks().items() if self.changes(task)]
        rows = np.flatnonzero(np.isin(store.tasks, [task_names().index(name) for name in names]))
        for row in rows.tolist():
            try:
                self(store[row])
            except AuroraError as error:
                raise AuroraError(f"{store.source}: {error}") from error


_registry: list[type[Transform]] = []


def register_transform(cls: type[Transform]) -> type[Transform]:
    """Class decorator."""
    _registry.append(cls)
    return cls


def build_transforms(flags: Any, perception: "PerceptionTokens | None") -> list[Transform]:
    """The transforms that the flags ask for, in order; none for AURORA's own recipe. Raises AuroraError."""
    package = importlib.import_module("llava_aurora.data.transforms")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
    ordered = sorted(_registry, key=lambda transform: transform.order)
    return [built for transform in ordered if (built := transform.from_flags(flags, perception)) is not None]


def record_text(record: Record) -> str:
    """All turns of a record."""
    return "".join(turn["value"] for turn in record["conversations"])


def named(record: Record) -> str:
    """How messages name a record."""
    return f"record (id {record.get('id')})"


def record_generator(record: Record, *, seed: int, epoch: int) -> np.random.Generator:
    """For what is drawn anew of a record in each epoch: the same in any worker."""
    name = f"{record.get('id')}\0{record.get('image', '')}".encode()
    digest = int.from_bytes(hashlib.blake2b(name, digest_size=16).digest(), "little")
    return np.random.default_rng([seed, epoch, digest])


def with_turns(record: Record, rewrite: Callable[[str], str], *, speakers: Sequence[str] = ("human", "gpt")) -> Record:
    """The record with the turns of these speakers rewritten. An AuroraError that is raised names the record."""
    try:
        turns = [
            {**turn, "value": rewrite(turn["value"])} if turn["from"] in speakers else turn
            for turn in record["conversations"]
        ]
    except AuroraError as error:
        raise AuroraError(f"{named(record)}: {error}") from error
    return {**record, "conversations": turns}
