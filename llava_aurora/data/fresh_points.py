"""Marked points drawn anew each epoch, so that no chain is ever seen twice.

A record file stays as it was written, each depth question with one sample of points and the image that shows them; any
trainer can read it. While it is read, that sample may be replaced: other points of the same depth map, under other
letters, with the question and the answer that go with them, marked in memory in the image without marks. A record can
be renewed if it says what it was made from: `aurora.depth`, its depth map, and, if it shows marks, `aurora.unmarked`,
its image without them, both relative to the image folder.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from llava_aurora.data.ablations import ValueStep
from llava_aurora.data.images.frame import FrameTransform
from llava_aurora.data.images.image_files import path_inside
from llava_aurora.data.images.image_reader import ImageChange
from llava_aurora.data.points import Point, any_points, depth_at, draw_points, sample_points
from llava_aurora.data.records import MarkedPoint, Record, RecordWriter, letter_points
from llava_aurora.errors import AuroraError
from llava_aurora.vqvae.maps import read_depth_map

MARKED_TASKS = ("depth_chain", "depth_chain_without_points", "depth_direct", "point_location")
UNMARKED_TASKS = (
    "depth_chain_from_coordinates",
    "depth_direct_from_coordinates",
    "depth_reading",
    "depth_chain_from_map",
)
_WORDINGS_TRIED = 300
_DRAWS = 10  # at most, of points whose values bear out the answer
_PLATE_REACH = 28 / 336  # how far a mark reaches from its point, as part of the frame


class FreshPoints:
    """A transform of records, and of the images that go with them.

    What it draws depends on seed, epoch and record alone: it is the same in any process and any worker.

    Args:
        writer: writes questions and answers; with the prompts that the file was written with.
        image_folder: what the paths in records are relative to.
        frame: side of the square that coordinates refer to, in pixels.
        aspect_ratio: how images get into that square, see `FrameTransform.of`.
        values: what the chains will say of the points. Points whose values do not bear out the answer are drawn again,
            some times: chains that contradict themselves would teach to give nothing on the values.
        seed: of everything that is drawn at random.
    """

    def __init__(
        self,
        *,
        writer: RecordWriter,
        image_folder: str | Path,
        frame: int,
        aspect_ratio: str,
        values: ValueStep | None = None,
        seed: int = 0,
    ) -> None:
        self.writer, self.image_folder, self.frame = writer, Path(image_folder), frame
        self.aspect_ratio, self.values, self.seed = aspect_ratio, values, seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Has to be called before the workers of an epoch are started."""
        self.epoch = epoch

    def __call__(self, record: Record) -> Record:
        """The record with the points of this epoch, or the record itself.

        It stays as it is if it cannot be renewed (`renews`), or if its depth map holds no other sample of as many
        points. The number of points stays, and with it the length of the record.

        Raises:
            AuroraError: naming the record, if its depth map cannot be read or its path leads out of the folder.
        """
        if not self.renews(record):
            return record
        about = record["aurora"]
        try:
            whole = read_depth_map(path_inside(self.image_folder, about["depth"]))
        except AuroraError as error:
            raise AuroraError(f"record (id {record.get('id')}): {error}") from error
        depth, rng = self._in_frame(whole), self._generator(record)
        # Where the frame cuts the image off, it must not cut off a letter.
        margin = round(_PLATE_REACH * self.frame) if min(self._transform(*whole.shape[::-1]).shift) < 0 else None
        for _ in range(_DRAWS):
            positions = self._positions(about, depth, rng, margin)
            if positions is None:
                return record
            points = letter_points(positions, [depth_at(depth, position) for position in positions], rng)
            written = self._written(record, points, rng)
            if self.values is None or self.values.bears_out(written):
                break
        marked = about["task"] in MARKED_TASKS
        truth = {**about, **written["aurora"], "drawn_when_read": marked}
        image = {"image": about["unmarked"]} if marked else {}
        return {**record, **image, "conversations": written["conversations"], "aurora": truth}

    @staticmethod
    def _positions(
        about: dict[str, Any], depth: np.ndarray, rng: np.random.Generator, margin: int | None
    ) -> list[Point] | None:
        """As many points as the record has, drawn as it says (`SceneTasks`)."""
        count = len(about["points"])
        if about.get("any_points") is True:
            return any_points(depth, count, rng)
        at_one_height = about.get("one_height") is True
        return sample_points(relative_depth=depth, count=count, rng=rng, margin=margin, one_height=at_one_height)

    def renews(self, record: Record) -> bool:
        """Whether a record says all that is needed to draw its points anew."""
        about = record.get("aurora")
        if not isinstance(about, dict) or not about.get("points") or not isinstance(about.get("depth"), str):
            return False
        marked = about.get("task") in MARKED_TASKS and isinstance(about.get("unmarked"), str)
        return (marked or about.get("task") in UNMARKED_TASKS) and len(record["conversations"]) == 2

    def image_change(self, record: Record) -> ImageChange | None:
        """What is to be drawn on the image of a record that this transform renewed; None for any other."""
        about = record.get("aurora")
        if not isinstance(about, dict) or not about.get("drawn_when_read"):
            return None
        points = about["points"]

        def marked(image: Image.Image) -> Image.Image:
            into = self._transform(image.width, image.height)
            places = [self._place(into, point, image.size) for point in points.values()]
            side = round(self.frame / max(into.scale))
            return Image.fromarray(draw_points(np.asarray(image.convert("RGB")), places, list(points), side=side))

        return marked

    def check(self, records: Iterable[Record]) -> None:
        """Writes some records once more as they are; before a run, so that its wording does not change unseen.

        Raises:
            AuroraError: naming the first record that `writer` would never have written, or if none can be renewed.
        """
        renewed = [record for record in records if self.renews(record)]
        if not renewed:
            raise AuroraError(
                "no record says what its points were drawn from (aurora.depth and aurora.unmarked), so none can be"
                " drawn anew; write the records again (`llava-aurora data records`)"
            )
        for record in renewed:
            about = record["aurora"]
            points = [
                MarkedPoint(letter=letter, x=x, y=y, depth=about["depths"][letter])
                for letter, (x, y) in about["points"].items()
            ]
            wordings = (
                self._written(record, points, np.random.default_rng(seed))["conversations"]
                for seed in range(_WORDINGS_TRIED)
            )
            if record["conversations"] not in wordings:
                raise AuroraError(
                    f"record (id {record.get('id')}): its wording is not that of these prompts, which would change it;"
                    " give the prompts that the records were written with"
                )

    def _written(self, record: Record, points: list[MarkedPoint], rng: np.random.Generator) -> Record:
        """A record of the same task about other points, its coordinates written in the same way."""
        text = "".join(turn["value"] for turn in record["conversations"])
        writer, task = self.writer, record["aurora"]["task"]
        if writer.pixels is not None and not writer.pixels.count(text):
            writer = replace(writer, pixels=None)
        about: dict[str, Any] = {"name": "", "points": points, "rng": rng}
        shown: dict[str, Any] = {**about, "image": record.get("image")}
        if task == "point_location":
            return writer.point_location(**shown)
        if task.startswith("depth_direct"):
            return writer.depth_direct(marked=task in MARKED_TASKS, **shown)
        spans = writer.depth.parse(text) if writer.depth is not None else []
        if len(spans) != 1:
            raise AuroraError(f"record (id {record.get('id')}): {task} has one map, not {len(spans)}")
        if task == "depth_chain_from_map":
            return writer.depth_chain_from_map(codes=spans[0].codes, **about)
        if task == "depth_reading":
            return writer.depth_reading(codes=spans[0].codes, **shown)
        step = task != "depth_chain_without_points"
        return writer.depth_chain(codes=spans[0].codes, marked=task in MARKED_TASKS, coordinate_step=step, **shown)

    def _generator(self, record: Record) -> np.random.Generator:
        named = f"{record.get('id')}\0{record.get('image', '')}".encode()
        digest = int.from_bytes(hashlib.blake2b(named, digest_size=16).digest(), "little")
        return np.random.default_rng([self.seed, self.epoch, digest])

    def _transform(self, width: int, height: int) -> FrameTransform:
        return FrameTransform.of(width=width, height=height, frame=self.frame, aspect_ratio=self.aspect_ratio)

    def _in_frame(self, depth: np.ndarray) -> np.ndarray:
        """A depth map uint8 (H, W) of the whole image as the frame shows it, (frame, frame); 0 beside the image."""
        height, width = depth.shape
        into = self._transform(width, height)
        centres = np.arange(self.frame) + 0.5
        columns, rows = (
            np.floor((centres - shift) / scale).astype(int) for shift, scale in zip(into.shift, into.scale, strict=True)
        )
        inside = ((rows >= 0) & (rows < height))[:, None] & ((columns >= 0) & (columns < width))
        shown = depth[rows.clip(0, height - 1)[:, None], columns.clip(0, width - 1)]
        return np.where(inside, shown, 0).astype(np.uint8)

    @staticmethod
    def _place(into: FrameTransform, point: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
        """The pixel of an image of this size (width, height) under a point of the frame."""
        x, y = (
            min(max(int((value + 0.5 - shift) / scale), 0), length - 1)
            for value, shift, scale, length in zip(point, into.shift, into.scale, size, strict=True)
        )
        return x, y
