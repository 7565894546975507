"""Chooses the questions about annotated images.

A question is an image and a category of which every instance is labelled, or which is known to be absent.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from llava_aurora.data.images.frame import Box, FrameTransform
from llava_aurora.data.images.image_files import opened_image, path_inside, refuse_turned
from llava_aurora.data.sources.boxes.lvis import AnnotatedImage
from llava_aurora.data.sources.made_records import check_aspect_ratio
from llava_aurora.errors import AuroraError
from llava_aurora.progress import tracked
from llava_aurora.tasks.counting import CountingFamily
from llava_aurora.tokens.box import BoxKind

BOX_TASKS = tuple(task.name for task in CountingFamily.tasks)
SEEN_AT_LEAST = 0.5  # of a box's area; what is cut off further than that might be counted or not


@dataclass(frozen=True, kw_only=True)
class BoxTasks:
    """What to ask of annotated images."""

    # records of each task a question, on average
    shares: Mapping[str, float] = field(default_factory=lambda: dict.fromkeys(BOX_TASKS, 1.0))
    negatives: float = 0.2  # share of the questions that ask for something absent, in [0, 1)
    max_boxes: int = 15  # the most instances in a question
    # the most questions with the same count, of those that ask for something present; 0: any number
    max_per_count: int = 1000
    # the most questions about an image that ask for something present, and also for something absent
    per_image: int = 2
    max_images: int = 0  # look at no more images than this, drawn at random; 0: at all
    validation_share: float = 0.0  # of the images, in [0, 1)
    aspect_ratio: str = "pad"  # how images are moved into the frame, see `FrameTransform.of`
    frame: int = 336  # side of the frame that coordinates refer to
    seed: int = 0  # of everything that is drawn at random

    def __post_init__(self) -> None:
        if unknown := set(self.shares) - set(BOX_TASKS):
            raise AuroraError(f"unknown task {sorted(unknown)[0]!r}; available: {', '.join(BOX_TASKS)}")
        check_aspect_ratio(self.aspect_ratio)
        if not 0 <= self.negatives < 1:
            raise AuroraError(f"negatives is a share of at least 0 and less than 1, not {self.negatives}")
        for name, least in {"max_boxes": 1, "per_image": 1, "max_per_count": 0, "max_images": 0, "seed": 0}.items():
            if getattr(self, name) < least:
                raise AuroraError(f"{name} must be at least {least}, not {getattr(self, name)}")


@dataclass(frozen=True)
class Question:
    """Which boxes of a category are in an image. `boxes`: codes in the frame, as listed in the answer."""

    image: AnnotatedImage
    file: str
    category: int
    boxes: tuple[tuple[int, ...], ...]


def find_questions(
    drawn: Sequence[AnnotatedImage],
    folder: Path,
    tasks: BoxTasks,
    failures: list[str],
    rng: np.random.Generator,
) -> tuple[list[Question], list[Question]]:
    """All that can be asked of images.

    Args:
        failures: what is wrong with single images is added here.
    Returns: All questions for what is present, with up to `max_boxes` instances; and up to `per_image` an image for
    what is absent, one of each image first.
    """
    kind = BoxKind(frame=tasks.frame)
    present: list[Question] = []
    absent: list[list[Question]] = [[] for _ in range(tasks.per_image)]
    for image in tracked(drawn, "Looking at images"):
        try:
            file = find_image(folder, image)
            transform = FrameTransform.of(
                width=image.width, height=image.height, frame=tasks.frame, aspect_ratio=tasks.aspect_ratio
            )
        except AuroraError as error:
            failures.append(f"image {image.id}: {error}")
            continue
        for category, boxes in image.boxes.items():
            codes = box_codes(boxes, transform, kind)
            if codes and len(codes) <= tasks.max_boxes:
                present.append(Question(image, file, category, codes))
        for position, category in enumerate(rng.permutation(image.absent)[: tasks.per_image]):
            absent[position].append(Question(image, file, int(category), ()))
    return present, [question for questions in absent for question in questions]


def balance(
    questions: Sequence[Question], *, max_per_count: int, per_image: int, rng: np.random.Generator
) -> list[Question]:
    """Chooses questions so that counts are as even as their images allow.

    Rare counts choose first, so that no image is used up by a count that many others have.

    Returns: The chosen ones, ordered as they came.
    """
    frequency = Counter(len(question.boxes) for question in questions)
    order = sorted(rng.permutation(len(questions)), key=lambda i: frequency[len(questions[i].boxes)])
    taken: Counter[int] = Counter()
    used: Counter[int] = Counter()
    chosen = []
    for i in order:
        image, count = questions[i].image.id, len(questions[i].boxes)
        if used[image] < per_image and (not max_per_count or taken[count] < max_per_count):
            chosen.append(i)
            used[image] += 1
            taken[count] += 1
    return [questions[i] for i in sorted(chosen)]


def box_codes(boxes: Iterable[Box], transform: FrameTransform, kind: BoxKind) -> tuple[tuple[int, ...], ...] | None:
    """Codes of an image's boxes in the frame, from left to right, then from top to bottom, as in records of scenes.

    Returns: None if the frame cuts off so much of an instance that it is neither in the image nor out of it.
    """
    codes = []
    for box in boxes:
        moved, share = transform.box(box)
        if share >= SEEN_AT_LEAST:
            codes.append(tuple(kind.encode(moved)))
        elif share > 0:
            return None
    return tuple(sorted(codes))


def find_image(folder: Path, image: AnnotatedImage) -> str:
    """The name of the image's file. AuroraError if it is missing, no image, stored turned, or of another size."""
    names = [name for name in image.names if path_inside(folder, name).is_file()]
    if not names:
        where = folder / image.names[0] if image.names else "it has neither file_name nor coco_url"
        raise AuroraError(f"no such image: {where}")
    with opened_image(folder / names[0]) as picture:
        refuse_turned(picture, folder / names[0])  # annotated upright or as stored: the file does not tell
        if picture.size != (image.width, image.height):
            raise AuroraError(
                f"{folder / names[0]}: {picture.width} × {picture.height} pixels,"
                f" but annotated as {image.width} × {image.height}"
            )
    return names[0]
