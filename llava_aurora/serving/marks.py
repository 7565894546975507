"""The image that a visitor asks about, and the points marked in it.

The page shows a copy, small enough to be sent often; points are kept in pixels of the image itself, and the model sees
that, with the same marks.
"""

import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from string import ascii_uppercase

import numpy as np
from PIL import Image

from llava_aurora.data.images.image_files import open_image
from llava_aurora.errors import AuroraError
from llava_aurora.tasks.marks import Point, draw_points
from llava_aurora.tasks.task import task_named

SHOWN_SIDE = 768
# How a visitor's points are given to the model.
MARKS, COORDINATES = "marks", "coordinates"
_QUESTIONS = {
    MARKS: task_named("depth_direct").wording.questions[0],
    COORDINATES: task_named("depth_direct_from_coordinates").wording.questions[0],
}
# How many pixels of an image of this width and height fill a side of the frame that the model sees.
FrameSide = Callable[[int, int], int]


@dataclass(frozen=True)
class MarkedImage:
    """An image as it was uploaded, and its points; no pixels, so that one can be kept for every visitor.

    Args:
        path: of the image.
        shown: of the copy on the page, at most SHOWN_SIDE pixels wide and high, points drawn in.
        size: width and height of the image, turned upright.
        points: (x, y) in its pixels; the first is A.
        given: MARKS, drawn into the image that the model sees, or COORDINATES, named in the question.
    """

    path: str
    shown: str
    size: tuple[int, int]
    points: tuple[Point, ...] = ()
    given: str = MARKS

    @property
    def letters(self) -> str:
        return ascii_uppercase[: len(self.points)]


class Marker:
    """Args: folder: for the copies; side: for the size of the marks."""

    def __init__(self, *, folder: Path, side: FrameSide) -> None:
        self.folder, self.side = folder, side

    def choose(self, path: str, points: tuple[Point, ...] = (), *, given: str = MARKS) -> MarkedImage:
        """Takes an image file. Raises AuroraError, naming the file without its folder, if it cannot be read."""
        image = read_upright(path)
        return self._shown(MarkedImage(path=path, shown="", size=image.size, points=points, given=given), image)

    def add_point(self, marked: MarkedImage, place: tuple[float, float]) -> MarkedImage:
        """Marks a point at `place`, in pixels of the copy that is shown. Raises AuroraError after the 26th."""
        if len(marked.points) == len(ascii_uppercase):
            raise AuroraError(f"there are {len(ascii_uppercase)} points already, and no more letters")
        scales = [side / shown for side, shown in zip(marked.size, shown_size(marked.size), strict=True)]
        point = tuple(
            min(max(int((value + 0.5) * scale), 0), side - 1)
            for value, scale, side in zip(place, scales, marked.size, strict=True)
        )
        return self.with_points(marked, (*marked.points, point))  # type: ignore[arg-type]

    def with_points(self, marked: MarkedImage, points: tuple[Point, ...]) -> MarkedImage:
        """The same image with other points."""
        return self._shown(replace(marked, points=points), read_upright(marked.path))

    def drawn(self, marked: MarkedImage) -> Image.Image:
        """What the model sees: the image itself, RGB, with its points drawn in if they are given as marks."""
        image = read_upright(marked.path)
        return self._draw(image, marked, scale=(1.0, 1.0)) if marked.given == MARKS else image

    def _shown(self, marked: MarkedImage, image: Image.Image) -> MarkedImage:
        size = shown_size(image.size)
        scale = (size[0] / image.width, size[1] / image.height)
        copy = self._draw(image.resize(size, Image.Resampling.LANCZOS), marked, scale=scale)
        with tempfile.NamedTemporaryFile(dir=self.folder, suffix=".webp", delete=False) as file:
            copy.save(file, format="WEBP", quality=90)
        return replace(marked, shown=file.name)

    def _draw(self, image: Image.Image, marked: MarkedImage, *, scale: tuple[float, float]) -> Image.Image:
        if not marked.points:
            return image
        places = [(int(x * scale[0]), int(y * scale[1])) for x, y in marked.points]
        side = round(self.side(*marked.size) * max(scale))
        return Image.fromarray(draw_points(np.asarray(image), places, list(marked.letters), side=side))


def read_upright(path: str) -> Image.Image:
    """An image file as RGB, turned as its camera says. Raises AuroraError, naming the file without its folder."""
    try:
        return open_image(path)
    except AuroraError as error:
        raise AuroraError(str(error).replace(path, Path(path).name)) from error


def shown_size(size: tuple[int, int]) -> tuple[int, int]:
    """Width and height of the copy on the page of an image of this size."""
    scale = min(1.0, SHOWN_SIDE / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def suggested_question(letters: str, coordinates: Sequence[str] = ()) -> str:
    """What is asked about these points if nothing else is; empty for none.

    Args:
        letters: of the points.
        coordinates: of each, as the model reads them, if the question is to give them.
    """
    if not letters:
        return ""
    if coordinates:
        named = map(" ".join, zip(letters, coordinates, strict=True))
        return _QUESTIONS[COORDINATES].format(points=", ".join(named))
    before, last = letters[:-1], letters[-1]
    listed = f"{', '.join(before)} or {last}" if before else last
    return _QUESTIONS[MARKS].format(letters=listed)


def was_suggested(question: str) -> bool:
    """Whether `suggested_question` may have said so, of some points or of none."""
    listed = {"letters": r"[A-Z](, [A-Z])*( or [A-Z])?", "points": r"[A-Z] \([^()]*\)(, [A-Z] \([^()]*\))*"}
    patterns = (re.escape(template).replace(r"\{", "{").replace(r"\}", "}") for template in _QUESTIONS.values())
    return not question or any(re.fullmatch(pattern.format(**listed), question) for pattern in patterns)
