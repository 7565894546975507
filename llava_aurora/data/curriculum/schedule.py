"""Schedules of a curriculum: which fraction of an epoch each task gets.

A schedule knows nothing of records but how many there are of each task; sampler.py turns its fractions into an
order. Fractions are of the records of registered tasks (tasks/); all others come once an epoch beside them.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from llava_aurora.tasks.registry import families, family_of, tasks
from llava_aurora.tasks.task import KINDS, Kind

Counts = Mapping[str, int]
Shares = dict[str, float]
Key = TypeVar("Key")


@dataclass(frozen=True, kw_only=True)
class Schedule(ABC):
    """What each task gets, epoch by epoch."""

    source: str = "--curriculum"  # what the user gave for it, for messages: a name or a YAML file
    # of registered tasks; if left out, as many of each task family as it has atomic records, or records at all if none
    # is atomic
    records_per_epoch: int | None = None

    @abstractmethod
    def shares(self, epoch: int, *, epochs: int, counts: Counts) -> Shares:
        """The fraction of each task, summing to 1.

        Args:
            epoch: from 0; one beyond the last is as the last.
            counts: how many records there are of each registered task that has some; not empty.
        """

    @property
    def named_tasks(self) -> tuple[str, ...]:
        """The tasks that it gives a weight by name, and that a training file therefore must have."""
        return ()

    def length(self, counts: Counts) -> int:
        """Records in an epoch; the same for all of them, since a loader has one length."""
        return self.records_per_epoch or sum(family_sizes(counts).values())


@dataclass(frozen=True, kw_only=True)
class LinearSchedule(Schedule):
    """AURORA as it was run: in each task family the atomic share falls in equal steps, chain and direct halve the rest.

    What a family has no records of leaves its share to the others; tasks of one kind share by their numbers of records.
    """

    # start, end: atomic share of the first and of the last epoch, in [0, 1]; a single epoch has their mean
    start: float = 1.0
    end: float = 0.1

    def shares(self, epoch: int, *, epochs: int, counts: Counts) -> Shares:
        atomic = self.start + (self.end - self.start) * progress(epoch, epochs)
        result: Shares = {}
        for family, weight in normalised(family_sizes(counts)).items():
            kinds = {kind: tasks for kind in KINDS if (tasks := _of_kind(counts, family, kind))}
            for kind, share in _kind_shares(atomic, list(kinds)).items():
                result |= {task: weight * share * part for task, part in normalised(kinds[kind]).items()}
        return result


@dataclass(frozen=True, kw_only=True)
class SoftmaxSchedule(Schedule):
    """Softmax over difficulties with a falling temperature, after eq. 3 and 4 of the paper; within each task family.

    The paper prints p(t, s) = softmax(-d_t / τ(s)) with τ(s) = τ0 / (1 + λ s/S). As τ falls, that sharpens the softmax
    around the smallest d: weight moves to the easy tasks, against the text. With the other sign, +d_t / τ(s), it does
    move to the hard ones, but they outweigh the easy ones from the first step. So the sign is + here, and difficulty is
    weighed against the temperature at the moment s* at which all tasks are to have the same weight:

        p(t, s) = softmax(d_t · (1/τ(s) - 1/τ(s*)))

    Before s* the temperature is above τ(s*), the factor negative, and easy tasks lead; after it hard ones do. Since
    1/τ grows linearly, so does the factor, from -(λ/τ0) s*/S to (λ/τ0) (1 - s*/S).

    The paper gives no numbers. With these, two difficulties and two hard tasks to one easy, the easy one begins with
    94 % and ends with 10 %, where AURORA's epochs ended.
    """

    tau0: float = 1.0  # temperature at the start
    cooling: float = 5.0  # λ
    even_at: float = 0.7  # s*/S in [0, 1]
    difficulty: Mapping[str, float] = field(default_factory=dict)  # d of single tasks, instead of the task's own

    def shares(self, epoch: int, *, epochs: int, counts: Counts) -> Shares:
        factor = 1 / self.temperature(progress(epoch, epochs)) - 1 / self.temperature(self.even_at)
        result: Shares = {}
        for family, weight in normalised(family_sizes(counts)).items():
            logits = {
                task: self.difficulty.get(task, tasks()[task].difficulty) * factor
                for task in _of_family(counts, family)
            }
            highest = max(logits.values())
            softmax = normalised({task: math.exp(logit - highest) for task, logit in logits.items()})
            result |= {task: weight * share for task, share in softmax.items()}
        return result

    def temperature(self, moment: float) -> float:
        """τ at `moment` = s/S."""
        return self.tau0 / (1 + self.cooling * moment)


@dataclass(frozen=True, kw_only=True)
class ConstantSchedule(Schedule):
    """The same in every epoch. Args: weights: of each task, not all 0; by their numbers of records if left out."""

    weights: Mapping[str, float] | None = None

    def shares(self, epoch: int, *, epochs: int, counts: Counts) -> Shares:
        return normalised(counts if self.weights is None else self.weights)

    @property
    def named_tasks(self) -> tuple[str, ...]:
        return _weighted([self.weights or {}])


@dataclass(frozen=True, kw_only=True)
class MixtureSchedule(Schedule):
    """A mixture for each epoch. Args: mixtures: weights by task, not all 0; the last one holds on."""

    mixtures: Sequence[Mapping[str, float]]

    def shares(self, epoch: int, *, epochs: int, counts: Counts) -> Shares:
        return normalised(self.mixtures[min(epoch, len(self.mixtures) - 1)])

    @property
    def named_tasks(self) -> tuple[str, ...]:
        return _weighted(self.mixtures)


BUILT_IN: Mapping[str, type[LinearSchedule | SoftmaxSchedule | ConstantSchedule]] = {
    "linear": LinearSchedule,
    "softmax": SoftmaxSchedule,
    "constant": ConstantSchedule,
}


def progress(epoch: int, epochs: int) -> float:
    """How far training is, in [0, 1]: 0 in the first epoch, 1 in the last, one half if there is only one."""
    return min(epoch / (epochs - 1), 1.0) if epochs > 1 else 0.5


def family_sizes(counts: Counts) -> dict[str, int]:
    """For each task family with records the number of its atomic ones, or of all if none is atomic."""
    sizes = {}
    for family in families():
        atomic = sum(_of_kind(counts, family.name, "atomic").values())
        if size := atomic or sum(_of_family(counts, family.name).values()):
            sizes[family.name] = size
    return sizes


def normalised(weights: Mapping[Key, float]) -> dict[Key, float]:
    """Weights as fractions of their sum."""
    total = sum(weights.values())
    return {key: weight / total for key, weight in weights.items()}


def _kind_shares(atomic: float, kinds: Sequence[Kind]) -> dict[Kind, float]:
    questions = [kind for kind in kinds if kind != "atomic"]
    if not questions:
        return {"atomic": 1.0}
    atomic = atomic if "atomic" in kinds else 0.0
    shares: dict[Kind, float] = {kind: (1 - atomic) / len(questions) for kind in questions}
    return {**shares, "atomic": atomic} if atomic else shares


def _of_family(counts: Counts, family: str) -> dict[str, int]:
    return {task: count for task, count in counts.items() if family_of(task).name == family}


def _of_kind(counts: Counts, family: str, kind: Kind) -> dict[str, int]:
    return {task: count for task, count in _of_family(counts, family).items() if tasks()[task].kind == kind}


def _weighted(mixtures: Sequence[Mapping[str, float]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(task for mixture in mixtures for task, weight in mixture.items() if weight))
