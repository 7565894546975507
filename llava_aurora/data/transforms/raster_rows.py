"""Depth maps whose rows begin with a label (`--depth_raster_rows`), from records that hold the cells' codes alone."""

from typing import TYPE_CHECKING, Any, ClassVar

from llava_aurora.data.transforms.transform import Transform, register_transform, with_turns
from llava_aurora.tasks.task import Record, Task

if TYPE_CHECKING:
    from llava_aurora.tokens.depth import DepthKind
    from llava_aurora.tokens.perception import PerceptionTokens


@register_transform
class RasterRows(Transform):
    """Puts the row labels into each map of all turns. Args: depth: with `raster_rows`."""

    order: ClassVar[int] = 50

    def __init__(self, *, depth: "DepthKind") -> None:
        self.depth = depth

    @classmethod
    def from_flags(cls, flags: Any, perception: "PerceptionTokens | None") -> "RasterRows | None":
        depth: Any = perception.kinds.get("depth") if perception is not None else None
        return cls(depth=depth) if depth is not None and depth.raster_rows else None

    def changes(self, task: Task) -> bool:
        return "depth" in task.span_in

    def __call__(self, record: Record) -> Record:
        return with_turns(record, self._rewritten)

    def _rewritten(self, text: str) -> str:
        family = self.depth.family
        if family.start not in text:
            return text
        for span in reversed(family.parse(text)):
            written = family.text(self.depth.with_labels(self.depth.without_labels(span.codes)))
            text = text[: span.start] + written + text[span.end :]
        return text
