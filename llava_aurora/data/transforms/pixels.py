"""The place that a record about a pixel, its colour or its thing, asks for, drawn anew each time its image is seen."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from llava_aurora.data.images.image_files import open_image, path_inside
from llava_aurora.data.images.seen_colors import seen_colors
from llava_aurora.data.sources.masks.segments import read_segment
from llava_aurora.data.store.record_store import RecordStore
from llava_aurora.data.transforms.transform import (
    Transform,
    named,
    record_generator,
    register_transform,
    with_turns,
)
from llava_aurora.errors import AuroraError
from llava_aurora.tasks.pixel_masks import drawn_place, known_place
from llava_aurora.tasks.pixels import drawn_cell, known_facts
from llava_aurora.tasks.prompts import Prompts
from llava_aurora.tasks.records import RecordWriter
from llava_aurora.tasks.registry import family_named, family_of, task_names, task_of
from llava_aurora.tasks.task import Record, Task

if TYPE_CHECKING:
    from llava_aurora.tokens.perception import PerceptionTokens

_FAMILIES = ("pixels", "pixel_masks")
_TRIED = 20  # records, before training


@register_transform
class FreshPixels(Transform):
    """Asks for another place of the same image, in the record's own words. It depends on seed, epoch and record alone.

    Args:
        writer: of coordinates and colours.
        image_folder: what the paths in records are relative to.
        aspect_ratio: how images get into the frame, see `FrameTransform.of`.
    """

    order: ClassVar[int] = 20
    training_only: ClassVar[bool] = True

    def __init__(self, *, writer: RecordWriter, image_folder: str | Path, aspect_ratio: str, seed: int = 0) -> None:
        self.writer, self.image_folder, self.aspect_ratio = writer, Path(image_folder), aspect_ratio
        self.seed, self.epoch = seed, 0

    @classmethod
    def from_flags(cls, flags: Any, perception: "PerceptionTokens | None") -> "FreshPixels | None":
        if flags.image_folder is None:
            return None
        families = tuple(kind.family for kind in perception.kinds.values()) if perception is not None else ()
        return cls(
            writer=RecordWriter(prompts=Prompts.plain(), families=families),
            image_folder=flags.image_folder,
            aspect_ratio=flags.image_aspect_ratio,
        )

    def changes(self, task: Task) -> bool:
        return family_of(task).name in _FAMILIES

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def check(self, store: RecordStore) -> None:
        places = [task_names().index(task.name) for name in _FAMILIES for task in family_named(name).tasks]
        rows = np.flatnonzero(np.isin(store.tasks, places))
        for row in rows[:: max(1, len(rows) // _TRIED)].tolist():
            try:
                self(store[row])
            except AuroraError as error:
                raise AuroraError(f"{store.source}: {error}") from error

    def __call__(self, record: Record) -> Record:
        task = task_of(record)
        if task is None or not self.changes(task):
            return record
        try:
            known, other = self._drawn(task, record)
        except AuroraError as error:
            raise AuroraError(f"{named(record)}: {error}") from error
        if other is None:
            return record
        family, families = family_of(task), {each.kind: each for each in self.writer.families}
        before, after = (family.values(facts, self.writer.coordinates, families) for facts in (known, other))

        def rewritten(text: str) -> str:
            for name, value in before.items():
                if value and str(value) in text:
                    return text.replace(str(value), str(after[name]))
            raise AuroraError(f"{text!r} names neither its pixel nor its colour; write the records again")

        return {**with_turns(record, rewritten), "aurora": {**record["aurora"], **family.truth(task, other)}}

    def _drawn(self, task: Task, record: Record) -> tuple[Any, Any]:
        """The facts of a record, and those to take their place; None for no others. Raises AuroraError."""
        rng = record_generator(record, seed=self.seed, epoch=self.epoch)
        if family_of(task).name == "pixels":
            known = known_facts(record)
            image = open_image(path_inside(self.image_folder, record["image"]), upright=False, on_white=False)
            colors = seen_colors(image, aspect_ratio=self.aspect_ratio, side=known.side)
            return known, drawn_cell(colors, rng, frame=known.frame)
        place = known_place(record)
        try:
            runs = record["aurora"]["masks"][0]
            height, width = runs["size"]
        except (IndexError, KeyError, TypeError, ValueError) as error:
            raise AuroraError(f"its mask is missing ({error}); write the records again") from error
        mask = read_segment(runs, size=(width, height), where="its mask")
        return place, drawn_place(mask, place.phrase, rng, side=place.side, frame=place.frame)
