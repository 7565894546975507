"""Depth chains that also state, behind their map, how close each point is by the map (`--value_step interpolated`)."""

from typing import TYPE_CHECKING, Any, ClassVar

from llava_aurora.data.transforms.transform import Transform, named, record_text, register_transform, with_turns
from llava_aurora.errors import AuroraError
from llava_aurora.tasks.depth_tasks import DepthTask, state_values
from llava_aurora.tasks.points import hundredths
from llava_aurora.tasks.registry import task_of
from llava_aurora.tasks.task import Record, Task
from llava_aurora.tokens.perception import depth_and_box

if TYPE_CHECKING:
    from llava_aurora.tokens.depth import DepthKind
    from llava_aurora.tokens.perception import PerceptionTokens

VALUE_SOURCES = ("interpolated",)


@register_transform
class ValueStep(Transform):
    """Puts a value behind the coordinates of each point: "A (<PIXEL_50>,<PIXEL_36>) 07".

    A value is a relative depth in hundredths, two digits, 00 farthest and 99 closest, interpolated between the codes
    of the cells around the point: all that is needed to write it stands in the map. Where the points are named before
    the map alone, they are named again behind it. Values that a record has already become such ones.

    Args: frame: side of the frame that coordinates refer to.
    """

    order: ClassVar[int] = 20

    def __init__(self, *, depth: "DepthKind", frame: int) -> None:
        self.depth, self.frame = depth, frame

    @classmethod
    def from_flags(cls, flags: Any, perception: "PerceptionTokens | None") -> "ValueStep | None":
        return cls.of(perception, flag=f"--value_step {flags.value_step}") if flags.value_step else None

    @classmethod
    def of(cls, perception: "PerceptionTokens | None", *, flag: str = "--value_step") -> "ValueStep":
        """For a model of these tokens. Raises AuroraError, naming the flag, if it lacks depth or box tokens."""
        depth, box = depth_and_box(perception, flag)
        return cls(depth=depth, frame=box.frame)

    def changes(self, task: Task) -> bool:
        return isinstance(task, DepthTask) and task.can_state_values

    def __call__(self, record: Record) -> Record:
        """Raises AuroraError, naming the record, if it does not have a map, or its answer not just its points."""
        task = task_of(record)
        if task is None or not self.changes(task):
            return record
        values, end = self.values(record), self.depth.family.end
        in_answer = task.span_in["depth"] == "answer"

        def state(answer: str) -> str:
            if in_answer and end not in answer:
                raise AuroraError("its answer has no depth map, which --value_step needs")
            return state_values(answer, values, end=end)

        return with_turns(record, state, speakers=["gpt"])

    def values(self, record: Record) -> dict[str, str]:
        """The value of each point by its letter. Raises AuroraError if the record does not keep them, or has no map."""
        points = record["aurora"].get("points")
        if not isinstance(points, dict):
            raise AuroraError(f"{named(record)}: it lacks aurora.points, which --value_step needs")
        spans = self.depth.family.parse(record_text(record))
        if not spans:
            raise AuroraError(f"{named(record)}: it has no depth map, which --value_step needs")
        return {letter: self.value(spans[-1].codes, (x, y)) for letter, (x, y) in points.items()}

    def value(self, codes: Any, point: tuple[int, int]) -> str:
        """The value of a point in the map of these codes. Args: point: (x, y) in the frame."""
        return hundredths(self.depth.depth_between_cells(codes, point, frame=self.frame))

    def bears_out(self, record: Record) -> bool:
        """Whether the answer's point alone has the highest value; true of records without values or answer."""
        task = task_of(record)
        if task is None or not self.changes(task) or task.answer is None:
            return True
        values = self.values(record)
        chosen = values.pop(record["aurora"]["answer"])
        return all(value < chosen for value in values.values())
