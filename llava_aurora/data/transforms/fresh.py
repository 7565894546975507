"""Facts of records drawn anew each epoch (`--fresh_points`), so that no chain is ever seen twice.

A record file stays as it was written, each question with one sample of points and the image that shows them; any
trainer can read it. When a record is read, that sample is replaced by another: other points of the same depth map under
other letters, with question and answer to go with them, marked in memory in the image without marks. This needs to know
what the record was made from: `aurora.depth`, its depth map, and, if it shows marks, `aurora.unmarked`, its image
without them, both relative to the image folder.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from PIL import Image

from llava_aurora.data.images.frame import FrameTransform
from llava_aurora.data.images.image_files import path_inside
from llava_aurora.data.images.image_reader import ImageChange
from llava_aurora.data.store.record_store import RecordStore
from llava_aurora.data.transforms.transform import (
    Transform,
    named,
    record_generator,
    record_text,
    register_transform,
)
from llava_aurora.data.transforms.values import ValueStep
from llava_aurora.errors import AuroraError
from llava_aurora.tasks.annotated import AnnotatedImage
from llava_aurora.tasks.marks import PLATE_REACH, draw_points
from llava_aurora.tasks.prompts import Prompts
from llava_aurora.tasks.records import RecordWriter
from llava_aurora.tasks.registry import family_of, task_of
from llava_aurora.tasks.task import Record, Task
from llava_aurora.tokens.perception import depth_and_box
from llava_aurora.tokens.vocabulary import by_kind
from llava_aurora.vqvae.maps import read_depth_map

if TYPE_CHECKING:
    from llava_aurora.tokens.perception import PerceptionTokens

_RECORDS_TRIED = 100
_WORDINGS_TRIED = 300
_DRAWS = 10  # at most, of points whose values bear out the answer


@register_transform
class FreshPoints(Transform):
    """Draws the facts of records anew. What is drawn depends on seed, epoch and record alone, in any worker.

    Args:
        writer: writes questions and answers; with the prompts that the file was written with.
        image_folder: what the paths in records are relative to.
        frame: side of the square that coordinates refer to, in pixels.
        aspect_ratio: how images get into that square, see `FrameTransform.of`.
        accept: whether a newly written record is good to learn from; one that is not is drawn again, some times.
        seed: of everything that is drawn at random.
    """

    order: ClassVar[int] = 10
    training_only: ClassVar[bool] = True

    def __init__(
        self,
        *,
        writer: RecordWriter,
        image_folder: str | Path,
        frame: int,
        aspect_ratio: str,
        accept: Callable[[Record], bool] | None = None,
        seed: int = 0,
    ) -> None:
        self.writer, self.image_folder, self.frame = writer, Path(image_folder), frame
        self.aspect_ratio, self.accept, self.seed = aspect_ratio, accept, seed
        self.epoch = 0

    @classmethod
    def from_flags(cls, flags: Any, perception: "PerceptionTokens | None") -> "FreshPoints | None":
        """Chains that contradict the values they state would teach to ignore the values: those are not accepted."""
        if not flags.fresh_points:
            return None
        depth, box = depth_and_box(perception, "--fresh_points")
        values = ValueStep.from_flags(flags, perception)
        return cls(
            writer=RecordWriter(
                prompts=Prompts.load(flags.prompts) if flags.prompts else Prompts(),
                families=(depth.family, box.family),
            ),
            image_folder=flags.image_folder,
            frame=box.frame,
            aspect_ratio=flags.image_aspect_ratio,
            accept=values.bears_out if values else None,
        )

    def changes(self, task: Task) -> bool:
        return True

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __call__(self, record: Record) -> Record:
        """The record with the facts of this epoch; as it is if they cannot be drawn anew, or its map holds no others.

        The number of points stays, and with it the length of the record. Raises AuroraError naming the record, if its
        depth map cannot be read or its path leads out of the folder.
        """
        task = self._renewed_task(record)
        if task is None:
            return record
        about, family = record["aurora"], family_of(task)
        try:
            whole = read_depth_map(path_inside(self.image_folder, about["depth"]))
        except AuroraError as error:
            raise AuroraError(f"{named(record)}: {error}") from error
        rng = record_generator(record, seed=self.seed, epoch=self.epoch)
        # Where the frame cuts the image off, it must not cut off a letter.
        into = self._transform(*whole.shape[::-1])
        margin = round(PLATE_REACH * self.frame) if min(into.shift) < 0 else None
        image = self._image(record, task, into.view(whole))
        if isinstance(mean := about.get("mean_depth"), str):
            depth = self._mean_depth(path_inside(self.image_folder, mean))
            image = replace(image, mean_depth=self._transform(*depth.shape[::-1]).view(depth))
        for _ in range(_DRAWS):
            facts = family.redrawn(task, record, image, rng, margin=margin)
            if facts is None:
                return record
            written = self._written(record, task, facts, rng)
            if self.accept is None or self.accept(written):
                break
        truth = {**about, **written["aurora"], "drawn_when_read": task.marked}
        shown = {"image": about["unmarked"]} if task.marked else {}
        return {**record, **shown, "conversations": written["conversations"], "aurora": truth}

    def image_change(self, record: Record) -> ImageChange | None:
        about = record.get("aurora")
        if not isinstance(about, dict) or not about.get("drawn_when_read"):
            return None
        points = about["points"]

        def marked(image: Image.Image) -> Image.Image:
            into = self._transform(image.width, image.height)
            places = [into.place(point, image.size) for point in points.values()]
            side = round(self.frame / max(into.scale))
            return Image.fromarray(draw_points(np.asarray(image.convert("RGB")), places, list(points), side=side))

        return marked

    def check(self, store: RecordStore) -> None:
        """Writes some records once more as they are, so that a run does not change their wording unseen.

        Raises AuroraError naming the first record that `writer` would never have written, or if none can be renewed.
        """
        step = max(1, len(store) // _RECORDS_TRIED)
        renewed = [record for row in range(0, len(store), step) if self._renewed_task(record := store[row])]
        if not renewed:
            raise AuroraError(
                f"{store.source}: no record says what its points were drawn from (aurora.depth and aurora.unmarked), so"
                " --fresh_points cannot draw others; write the records again (`llava-aurora data records`)"
            )
        for record in renewed:
            task = self._renewed_task(record)
            assert task is not None
            facts = family_of(task).facts_of(task, record, self._image(record, task))
            wordings = (
                self._written(record, task, facts, np.random.default_rng(seed))["conversations"]
                for seed in range(_WORDINGS_TRIED)
            )
            if record["conversations"] not in wordings:
                raise AuroraError(
                    f"{store.source}: {named(record)}: its wording is not that of these prompts; give those that the"
                    " records were written with (--prompts)"
                )

    def _renewed_task(self, record: Record) -> Task | None:
        """The task of a record whose facts can be drawn anew; None for any other."""
        task = task_of(record)
        return task if task is not None and family_of(task).redraws(task, record) else None

    def _image(self, record: Record, task: Task, depth: np.ndarray | None = None) -> AnnotatedImage:
        """The record's image in the frame, with the codes of its spans. Raises AuroraError where a span is missing."""
        codes = {}
        for kind in task.span_in:
            spans = by_kind(self.writer.families)[kind].parse(record_text(record))
            if len(spans) != 1:
                raise AuroraError(f"{named(record)}: {task.name} has one {kind} span, not {len(spans)}")
            codes[kind] = spans[0].codes
        return AnnotatedImage(name="", size=(self.frame, self.frame), depth=depth, codes=codes)

    def _written(self, record: Record, task: Task, facts: Any, rng: np.random.Generator) -> Record:
        """A record of the same task about other facts, its coordinates written in the same way."""
        writer = self.writer
        pixels = by_kind(writer.families).get("box")
        if pixels is not None and not pixels.count(record_text(record)):
            writer = replace(writer, families=tuple(family for family in writer.families if family is not pixels))
        return writer.write(task, facts, name="", image=record.get("image"), rng=rng)

    @staticmethod
    @lru_cache(maxsize=4)
    def _mean_depth(path: Path) -> np.ndarray:
        """A map that many records share."""
        return read_depth_map(path)

    def _transform(self, width: int, height: int) -> FrameTransform:
        return FrameTransform.of(width=width, height=height, frame=self.frame, aspect_ratio=self.aspect_ratio)
