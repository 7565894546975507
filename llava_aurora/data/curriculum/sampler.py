"""A sampler that orders the records of each epoch by a curriculum's schedule.

The order is a pure function of records, schedule, seed and epoch. So every rank computes the same order by itself,
whatever the number of ranks and workers, and a resumed run continues at the record at which it was stopped. Only row
numbers are in memory, a few bytes a record.
"""

import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch.utils.data import Sampler

from llava_aurora.data.curriculum.length_grouped_batches import LengthGroupedBatches
from llava_aurora.data.curriculum.schedule import Schedule
from llava_aurora.data.store.record_store import RecordStore
from llava_aurora.errors import AuroraError
from llava_aurora.tasks.registry import OTHER, family_of, task_names, tasks


@dataclass(frozen=True)
class Questions:
    """The records of a task of chain or direct questions, by image."""

    records: np.ndarray  # indices into the store, int32 (n,), those of one image one after the other
    starts: np.ndarray  # where in `records` each image starts, int32 (images,)
    images: np.ndarray  # number of each image, int32 (images,), the same for the same image in all tasks of a family


class Curriculum:
    """The records of a training file by task, and the schedule that mixes them.

    Raises AuroraError if the store has no record of any task, or none of one that the schedule names; it lists the
    tasks.
    """

    def __init__(self, store: RecordStore, schedule: Schedule) -> None:
        self.schedule = schedule
        counts = store.task_counts()
        self.others = _of_task(store.tasks, OTHER)
        self.counts = {task: count for task, count in counts.items() if task != OTHER}
        present = ", ".join(f"{task} ({count})" for task, count in counts.items())
        if not self.counts:
            raise AuroraError(
                f'{store.source}: no record has a task under "aurora", which a curriculum orders them by; train without'
                " --curriculum, or make the records with `llava-aurora data records`"
            )
        if missing := [task for task in schedule.named_tasks if task not in self.counts]:
            raise AuroraError(
                f"{schedule.source}: gives {missing[0]} a weight, but {store.source} has no record of it;"
                f" it has {present}"
            )
        self.length = schedule.length(self.counts) + len(self.others)
        by_task = {task: _of_task(store.tasks, task) for task in self.counts}
        self._atomic = {task: records for task, records in by_task.items() if tasks()[task].kind == "atomic"}
        self._questions: dict[str, Questions] = {}
        self._image_counts: dict[str, int] = {}
        for family in dict.fromkeys(family_of(task).name for task in self.counts):
            asked = [task for task in self.counts if family_of(task).name == family and task not in self._atomic]
            self._group_by_image(family, {task: by_task[task] for task in asked}, store.images)

    def _group_by_image(self, family: str, records: dict[str, np.ndarray], digests: np.ndarray) -> None:
        known = np.unique(digests[np.concatenate([*records.values(), np.zeros(0, dtype=np.int32)])])
        self._image_counts[family] = len(known)
        for task, indices in records.items():
            images = np.searchsorted(known, digests[indices]).astype(np.int32)
            by_image = np.argsort(images, kind="stable")
            unique, starts = np.unique(images[by_image], return_index=True)
            self._questions[task] = Questions(indices[by_image], starts.astype(np.int32), unique)

    def available(self, task: str) -> int:
        """How many records of a task there are, OTHER included."""
        return len(self.others) if task == OTHER else self.counts.get(task, 0)

    def quotas(self, epoch: int, *, epochs: int) -> dict[str, int]:
        """How many records of each task an epoch has, those without a task included; they sum to `length`.

        Args: epoch: from 0; epochs: in all, to which the schedule is stretched.
        """
        shares = self.schedule.shares(epoch, epochs=epochs, counts=self.counts)
        tasks = list(self.counts)
        exact = np.array([shares.get(task, 0.0) for task in tasks]) * (self.length - len(self.others))
        quotas = np.floor(exact + 1e-9).astype(int)
        left = self.length - len(self.others) - quotas.sum()
        quotas[np.argsort(np.round(quotas - exact, 9), kind="stable")[:left]] += 1  # the largest remainders
        result = {task: int(quota) for task, quota in zip(tasks, quotas, strict=True)}
        return {**result, OTHER: len(self.others)} if len(self.others) else result

    def order(self, epoch: int, *, epochs: int, seed: int) -> np.ndarray:
        """The indices of an epoch's records in the order of training, int32 (length,). Arguments as for `quotas`."""
        quotas = self.quotas(epoch, epochs=epochs)
        earlier = [self.quotas(before, epochs=epochs) for before in range(epoch)]
        drawn = [self.others]
        for task in self.counts:
            start = sum(before[task] for before in earlier)
            positions = np.arange(start, start + quotas[task])
            draw = self._draw_atomic if task in self._atomic else self._draw_questions
            drawn.append(draw(task, positions, seed))
        order = np.concatenate(drawn)
        return order[_rng(seed, "order", epoch).permutation(len(order))]

    def _draw_atomic(self, task: str, positions: np.ndarray, seed: int) -> np.ndarray:
        """All records in a random order, then all in another one, and so on: those at `positions` of this sequence."""
        records = self._atomic[task]
        laps, places = np.divmod(positions, len(records))
        drawn = np.empty(len(positions), dtype=np.int32)
        for lap in np.unique(laps):
            shuffled = records[_rng(seed, task, int(lap)).permutation(len(records))]
            drawn[laps == lap] = shuffled[places[laps == lap]]
        return drawn

    def _draw_questions(self, task: str, positions: np.ndarray, seed: int) -> np.ndarray:
        """The tasks of a family visit the images in one cyclic order, each from an offset of its own.

        With chain and direct questions half a round apart and as many of the one as of the other, an image gets a chain
        at one visit and a direct question at the next; if one walks faster, it comes as much more often, evenly spread.
        An image with one kind only is passed over by the other. Of several records of one image each lap takes the
        next.
        """
        questions, family = self._questions[task], family_of(task).name
        ranks = _rng(seed, family, 0).permutation(self._image_counts[family])
        walk = np.argsort(ranks[questions.images])
        laps, places = np.divmod(positions + self._lead(task), len(walk))
        images = walk[places]
        sizes = np.diff(np.append(questions.starts, len(questions.records)))
        return questions.records[questions.starts[images] + laps % sizes[images]]

    def _lead(self, task: str) -> int:
        """The offset of a task in the order of images: kinds alternate."""
        family = family_of(task)
        kinds = [
            [each for each in self.counts if family_of(each) is family and tasks()[each].kind == kind]
            for kind in ("chain", "direct")
        ]
        width = max(map(len, kinds))
        slots = [some[i] if i < len(some) else None for i in range(width) for some in kinds]
        return len(self._questions[task].images) * slots.index(task) // len(slots)


class CurriculumSampler(Sampler[int]):
    """Samples one epoch of a curriculum after the other.

    Args:
        epochs: of the whole run; a resumed run must give the same number.
        seed: the same on all ranks.
        length_grouped_batches: groups records of similar length; None leaves the order as it is.
    """

    def __init__(
        self,
        curriculum: Curriculum,
        *,
        epochs: int,
        seed: int,
        length_grouped_batches: LengthGroupedBatches | None = None,
    ) -> None:
        self.curriculum, self.epochs, self.seed = curriculum, epochs, seed
        self.length_grouped_batches = length_grouped_batches
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch that is iterated next; going back to an earlier one is ignored.

        When a run is resumed within an epoch, accelerate makes a second loader that skips batches. That one counts its
        own epochs from 0 and says so when it starts, after the Trainer had named the right one (accelerate 1.12,
        `DataLoaderShard.__iter__`; it reaches the sampler on a single process).
        """
        self.epoch = max(self.epoch, epoch)

    def __len__(self) -> int:
        return self.curriculum.length

    def __iter__(self) -> Iterator[int]:
        order = self.curriculum.order(self.epoch, epochs=self.epochs, seed=self.seed)
        if self.length_grouped_batches is not None:
            order = self.length_grouped_batches.grouped(order, _rng(self.seed, "like lengths", self.epoch))
        return (int(index) for index in order)


def planned_epochs(arguments: Any, *, length: int) -> int:
    """How many epochs a run will have, by transformers' TrainingArguments; the last one may be unfinished.

    Args: arguments: of the run; `max_steps`, if given, counts more than `num_train_epochs`.
    """
    if arguments.max_steps <= 0:
        return math.ceil(arguments.num_train_epochs)
    batches = math.ceil(length / (arguments.train_batch_size * arguments.world_size))
    return math.ceil(arguments.max_steps / math.ceil(batches / arguments.gradient_accumulation_steps))


def _of_task(tasks: np.ndarray, name: str) -> np.ndarray:
    return np.flatnonzero(tasks == task_names().index(name)).astype(np.int32)


def _rng(seed: int, name: str, number: int) -> np.random.Generator:
    """Independent of all others; by the task's name, so that a further task changes nothing."""
    return np.random.default_rng([seed, zlib.crc32(name.encode()), number])
