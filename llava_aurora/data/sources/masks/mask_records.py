"""Training records about masks, from annotation files of COCO and LVIS, or from RefCOCO.

source -> annotated images, as the model's square shows them -> records (tasks/records.py)
"""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from llava_aurora.data.images.frame import FrameTransform
from llava_aurora.data.images.image_files import path_inside
from llava_aurora.data.sources.boxes.box_questions import SEEN_AT_LEAST, find_image
from llava_aurora.data.sources.boxes.lvis import AnnotatedImage as BoxedImage
from llava_aurora.data.sources.boxes.lvis import BoxAnnotations, read_annotations
from llava_aurora.data.sources.boxes.plurals import names_of
from llava_aurora.data.sources.made_records import MadeRecords, check_aspect_ratio
from llava_aurora.data.sources.masks.referring import Referred, is_referring, read_referred
from llava_aurora.data.sources.masks.segments import read_segment
from llava_aurora.data.sources.tables import EmbeddedImage
from llava_aurora.errors import AuroraError
from llava_aurora.files import atomic_file
from llava_aurora.progress import tracked
from llava_aurora.tasks.annotated import AnnotatedImage, AnnotatedObject, Drawing
from llava_aurora.tasks.records import RecordWriter, write_records
from llava_aurora.tasks.registry import family_named, task_named


@dataclass(frozen=True, kw_only=True)
class MaskTasks:
    """What to ask of images with masks."""

    shares: Mapping[str, float]  # records of each task a phrase of RefCOCO, or a round of questions about an image
    split: str = "train"  # of RefCOCO
    per_image: int = 2  # rounds of questions about an image of COCO or LVIS
    max_images: int = 0  # look at no more images of COCO or LVIS than this, drawn at random; 0: at all
    validation_share: float = 0.0  # of the images, in [0, 1)
    aspect_ratio: str = "pad"  # how images are moved into the frame, see `FrameTransform.of`
    frame: int = 336  # side of the frame that coordinates refer to
    seed: int = 0  # of everything that is drawn at random

    def __post_init__(self) -> None:
        for name in self.shares:
            task_named(name)
        check_aspect_ratio(self.aspect_ratio)


class _Shown(NamedTuple):
    """An annotated image as the square shows it. Args: key: of its image; file: path in the image folder."""

    key: int | str
    file: str
    image: AnnotatedImage


def default_shares(annotations: Path) -> Mapping[str, float]:
    """What can be asked, once each: of RefCOCO, which does not say what else is in an image, what is about a phrase.

    COCO and LVIS have no phrases by place, and no colours.
    """
    names = [task.name for task in family_named("masks").tasks]
    asked = ["segmentation", "box_then_mask"] if is_referring(annotations) else names
    return {name: 1.0 for name in asked if name not in ("segmentation_by_place", "region_color")}


def write_mask_records(
    out: Path,
    *,
    annotations: Path,
    images: Path,
    writer: RecordWriter,
    tasks: MaskTasks,
    validation_out: Path | None = None,
) -> MadeRecords:
    """Writes JSON files in LLaVA's format; their image paths are relative to `images`.

    Args:
        annotations: a file of COCO or LVIS, or what `read_referred` reads.
        images: their folder; those inside of Parquet files are put there.
        validation_out: for the images that are kept out; needed just if `tasks.validation_share` is not 0.
    Raises AuroraError if the annotations cannot be read, arguments do not go together, or a file would be empty. What
    cannot be used of single images and phrases is in `failures`.
    """
    made = MadeRecords(out=out, validation_out=validation_out, validation_share=tasks.validation_share, seed=tasks.seed)
    read = _referred if is_referring(annotations) else _annotated
    drawing = Drawing(frame=tasks.frame)
    for each in read(annotations, images, tasks, made):
        records = write_records(
            each.image, image=each.file, shares=tasks.shares, drawing=drawing, writer=writer, seed=tasks.seed
        )
        for record in records:
            record["aurora"]["aspect_ratio"] = tasks.aspect_ratio
            made.of_image(each.key).append(record)
    made.write()
    return made


def _referred(source: Path, images: Path, tasks: MaskTasks, made: MadeRecords) -> Iterator[_Shown]:
    """Each phrase by itself, since a file does not say what else is in an image."""
    for each in tracked(list(read_referred(source, images=images)), "Writing records"):
        if each.split != tasks.split:
            made.passed_over[f"references of the split {each.split!r}"] += 1
            continue
        try:
            file, mask = _file(each, images), each.mask()
        except AuroraError as error:
            made.failures.append(str(error))
            continue
        height, width = mask.shape
        square = _Square.of(width, height, tasks.aspect_ratio)
        item = square.object("", "", mask) if mask.any() else None
        if mask.any() and item is None:
            made.passed_over["things that the square cuts off"] += 1
            continue
        for number, phrase in enumerate(each.phrases):
            shown = AnnotatedImage(
                name=f"{each.id}/{number}",
                size=(square.transform.frame,) * 2,
                objects=[AnnotatedObject(phrase, phrase, item.box, mask=item.mask, phrases=(phrase,))] if item else (),
                absent=() if item else [(phrase, phrase)],
            )
            yield _Shown(each.image_name, file, shown)


def _annotated(source: Path, images: Path, tasks: MaskTasks, made: MadeRecords) -> Iterator[_Shown]:
    """The things of an image whose every instance is annotated, and those that are surely absent."""
    known = read_annotations(source, outlines=True)
    made.failures.extend(known.failures)
    made.passed_over.update(known.passed_over)
    order = np.random.default_rng(tasks.seed).permutation(len(known.images))[: tasks.max_images or None]
    for image in tracked([known.images[place] for place in order], "Writing records"):
        try:
            file = find_image(images, image)
        except AuroraError as error:
            made.failures.append(f"image {image.id}: {error}")
            continue
        square = _Square.of(image.width, image.height, tasks.aspect_ratio)
        objects = _objects(image, known, source, square, made)
        absent = [tuple(names_of(known.categories[category])) for category in image.absent]
        for number in range(tasks.per_image):
            shown = AnnotatedImage(
                name=f"{image.id}/{number}",
                size=(square.transform.frame,) * 2,
                objects=objects,
                absent=absent,  # type: ignore[arg-type]
            )
            yield _Shown(image.id, file, shown)


def _objects(
    image: BoxedImage, known: BoxAnnotations, source: Path, square: "_Square", made: MadeRecords
) -> list[AnnotatedObject]:
    objects: list[AnnotatedObject] = []
    for category, outlines in image.outlines.items():
        names = names_of(known.categories[category])
        try:
            found = []
            for number, text in outlines:
                where = f"{source}: image {image.id}: annotation {number} ({names.singular})"
                mask = read_segment(json.loads(text), size=(image.width, image.height), where=where)
                phrases = (names.singular,) if len(outlines) == 1 else ()
                found.append(square.object(*names, mask, phrases=phrases))
        except AuroraError as error:
            made.failures.append(str(error))
            continue
        if None in found:
            made.passed_over["categories of an image that the square cuts off"] += 1
        else:
            objects += [item for item in found if item is not None]
    return objects


@dataclass(frozen=True)
class _Square:
    """An image as the model's square shows it, in about its own pixels."""

    transform: FrameTransform

    @classmethod
    def of(cls, width: int, height: int, aspect_ratio: str) -> "_Square":
        frame = max(width, height)
        return cls(FrameTransform.of(width=width, height=height, frame=frame, aspect_ratio=aspect_ratio))

    def object(
        self, thing: str, things: str, mask: np.ndarray, phrases: tuple[str, ...] = ()
    ) -> AnnotatedObject | None:
        """None if most of it is cut off."""
        shown = self.transform.view(mask)
        if shown.sum() < SEEN_AT_LEAST * mask.sum() * self.transform.scale[0] * self.transform.scale[1]:
            return None
        rows, columns = (np.flatnonzero(shown.any(axis=axis)) for axis in (1, 0))
        if not len(rows):
            return None
        box = (float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))
        return AnnotatedObject(thing, things, box, mask=shown, phrases=phrases)


def _file(each: Referred, images: Path) -> str:
    """The path of its image in the image folder; one inside of a Parquet file is written there, if it is not yet."""
    if isinstance(each.image, Path):
        if not each.image.is_file():
            raise AuroraError(f"{each.where}: there is no image {each.image}")
        return os.path.relpath(each.image, images)
    path = path_inside(images, each.image_name)
    if not path.is_file():
        assert isinstance(each.image, EmbeddedImage)
        with atomic_file(path) as temporary:
            temporary.write_bytes(each.image.content())
    return each.image_name
