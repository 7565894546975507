"""The paper's ablations of coordinates: plain numbers instead of tokens, and chains without the coordinate step."""

import re
from typing import TYPE_CHECKING, Any, ClassVar

from llava_aurora.data.store.record_store import RecordStore
from llava_aurora.data.transforms.transform import Transform, register_transform, with_turns
from llava_aurora.errors import AuroraError
from llava_aurora.tasks.points import mentions
from llava_aurora.tasks.registry import task_name
from llava_aurora.tasks.task import Record, Task
from llava_aurora.tokens.vocabulary import depth_family, pixel_family

if TYPE_CHECKING:
    from llava_aurora.tokens.perception import PerceptionTokens

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")


@register_transform
class WithoutCoordinateStep(Transform):
    """Chains about marked points without the sentences that give the points' coordinates before the map."""

    order: ClassVar[int] = 30

    @classmethod
    def from_flags(cls, flags: Any, perception: "PerceptionTokens | None") -> "WithoutCoordinateStep | None":
        return None if flags.coordinate_step else cls()

    def changes(self, task: Task) -> bool:
        return task.name == "depth_chain"

    def __call__(self, record: Record) -> Record:
        """Raises AuroraError if the answer has no map, or coordinates in the very sentence of the map."""
        if task_name(record) != "depth_chain":
            return record
        record = with_turns(record, _without_coordinates, speakers=["gpt"])
        return {**record, "aurora": {**record["aurora"], "task": "depth_chain_without_points"}}


@register_transform
class PlainCoordinates(Transform):
    """Plain numbers for coordinate tokens, in all turns of all records."""

    order: ClassVar[int] = 40

    @classmethod
    def from_flags(cls, flags: Any, perception: "PerceptionTokens | None") -> "PlainCoordinates | None":
        return cls() if flags.plain_coordinates else None

    def changes(self, task: Task) -> bool:
        return True

    def __call__(self, record: Record) -> Record:
        return with_turns(record, pixel_family().plain)

    def check(self, store: RecordStore) -> None:
        """It refuses no record."""


def _without_coordinates(answer: str) -> str:
    before, start, rest = answer.partition(depth_family().start)
    if not start:
        raise AuroraError("its answer has no depth map, which --coordinate_step False needs")
    ends = [match.end() for match in _SENTENCE_END.finditer(before)]
    *sentences, last = [before[begin:end] for begin, end in zip([0, *ends], [*ends, len(before)], strict=True)]
    if mentions(last):
        raise AuroraError(
            "coordinates are in the same sentence as the map, so --coordinate_step False cannot remove them; write the"
            " chains with a full stop between the two"
        )
    return "".join(sentence for sentence in sentences if not mentions(sentence)) + last + start + rest
