"""Marked points drawn anew each epoch, so that no chain is ever seen twice.

A record file stays as it was written, each depth question with one sample of points and the image that shows them; any
trainer can read it. While it is read, that sample may be replaced: other points of the same depth map, under other
letters, with the question and the answer that go with them, marked in memory in the image without marks. A record can
be renewed if it says what it was made from: `aurora.depth`, its depth map, and, if it shows marks, `aurora.unmarked`,
its image without them, both relative to the image folder.

What a chain says behind its map can be known from the image too, so that a model need not look at the map. Some maps
may be swapped as well: the map of another record stands there, and values and answer follow it, while the map that is
to be learned stays the image's own (`LEARNED_CODES`).
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from llava_aurora.data.ablations import ValueStep
from llava_aurora.data.images.frame import FrameTransform
from llava_aurora.data.images.image_files import path_inside
from llava_aurora.data.images.image_reader import ImageChange
from llava_aurora.data.records import MarkedPoint, Record, RecordWriter, letter_points
from llava_aurora.data.sources.points import Point, any_points, depth_at, draw_points, sample_points
from llava_aurora.data.store.record_store import RecordStore
from llava_aurora.data.tasks import TASK_NAMES, TASKS
from llava_aurora.errors import AuroraError
from llava_aurora.tokens.vocabulary import TokenFamily
from llava_aurora.vqvae.maps import read_depth_map

MARKED_TASKS = ("depth_chain", "depth_chain_without_points", "depth_direct", "point_location")
UNMARKED_TASKS = (
    "depth_chain_from_coordinates",
    "depth_direct_from_coordinates",
    "depth_reading",
    "depth_chain_from_map",
    "depth_reading_from_map",
)
LEARNED_CODES = "learned_codes"  # under "aurora": the codes of the image's own map, where the text holds another
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
        swapped: share of the maps behind which values are said (then those of their codes) that are swapped, in [0, 1].
        maps: draws the codes of a map that another takes the place of; needed if any are swapped.
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
        swapped: float = 0.0,
        maps: Callable[[np.random.Generator], Sequence[int]] | None = None,
        seed: int = 0,
    ) -> None:
        if swapped and (values is None or values.map is None):
            raise ValueError("swapped maps need values that are said by the codes of the map")
        self.writer, self.image_folder, self.frame = writer, Path(image_folder), frame
        self.aspect_ratio, self.values, self.seed = aspect_ratio, values, seed
        self.swapped, self.maps = swapped, maps
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
        codes = self._codes(record)
        swapped = self._swapped(about["task"], rng)
        for _ in range(_DRAWS):
            positions = self._positions(about, depth, rng, margin)
            if positions is None:
                return record
            points = letter_points(positions, self._depths(positions, depth, swapped), rng)
            written = self._written(record, points, swapped or codes, rng)
            if self.values is None or self.values.bears_out(written):
                break
        marked = about["task"] in MARKED_TASKS
        truth = {**about, **written["aurora"], "drawn_when_read": marked}
        if swapped:
            truth[LEARNED_CODES] = list(codes)
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

    def _swapped(self, task: str, rng: np.random.Generator) -> Sequence[int]:
        """The codes of another map; none where the image's own stays."""
        if not self.swapped or self.values is None or task not in self.values.tasks or rng.random() >= self.swapped:
            return ()
        assert self.maps is not None
        return self.maps(rng)

    def _depths(self, positions: list[Point], depth: np.ndarray, swapped: Sequence[int]) -> list[int]:
        """How close points are, 0 to 255: by a swapped map if there is one, else in truth."""
        if swapped and self.values is not None:
            return [self.values.depth_by_code(swapped, position) for position in positions]
        return [depth_at(depth, position) for position in positions]

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
            codes = self._codes(record)
            wordings = (
                self._written(record, points, codes, np.random.default_rng(seed))["conversations"]
                for seed in range(_WORDINGS_TRIED)
            )
            if record["conversations"] not in wordings:
                raise AuroraError(
                    f"record (id {record.get('id')}): its wording is not that of these prompts, which would change it;"
                    " give the prompts that the records were written with"
                )

    def _codes(self, record: Record) -> Sequence[int]:
        """Of the map in a record; none in those of tasks without one. Raises AuroraError where one is missing."""
        task = record["aurora"]["task"]
        if TASKS[task].map_in is None:
            return ()
        spans = self.writer.depth.parse(_text(record)) if self.writer.depth is not None else []
        if len(spans) != 1:
            raise AuroraError(f"record (id {record.get('id')}): {task} has one map, not {len(spans)}")
        return spans[0].codes

    def _written(
        self, record: Record, points: list[MarkedPoint], codes: Sequence[int], rng: np.random.Generator
    ) -> Record:
        """A record of the same task about other points, its coordinates written in the same way."""
        writer, task = self.writer, record["aurora"]["task"]
        if writer.pixels is not None and not writer.pixels.count(_text(record)):
            writer = replace(writer, pixels=None)
        about: dict[str, Any] = {"name": "", "points": points, "rng": rng}
        shown: dict[str, Any] = {**about, "image": record.get("image")}
        if task == "point_location":
            return writer.point_location(**shown)
        if task.startswith("depth_direct"):
            return writer.depth_direct(marked=task in MARKED_TASKS, **shown)
        if task == "depth_chain_from_map":
            return writer.depth_chain_from_map(codes=codes, **about)
        if task == "depth_reading_from_map":
            return writer.depth_reading_from_map(codes=codes, **about)
        if task == "depth_reading":
            return writer.depth_reading(codes=codes, **shown)
        step = task != "depth_chain_without_points"
        return writer.depth_chain(codes=codes, marked=task in MARKED_TASKS, coordinate_step=step, **shown)

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


class DrawnMaps:
    """The maps of a store's records, any of them at random.

    Args:
        store: of the records.
        family: of the maps' tokens.
    """

    def __init__(self, store: RecordStore, family: TokenFamily) -> None:
        with_map = [name in TASKS and TASKS[name].map_in is not None for name in TASK_NAMES]
        self.store, self.family = store, family
        self.indices = np.flatnonzero(np.array(with_map)[store.tasks])

    def __call__(self, rng: np.random.Generator) -> Sequence[int]:
        """The codes of one map."""
        return self.family.parse(_text(self.store[int(rng.choice(self.indices))]))[0].codes


def _text(record: Record) -> str:
    return "".join(turn["value"] for turn in record["conversations"])
