"""The image that a visitor asks about, and the points marked in it.

The page shows a reduced copy; points are kept in pixels of the image itself, which the model sees with the same marks.
"""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from string import ascii_uppercase

import numpy as np
from PIL import Image

from llava_aurora.data.images.image_files import opened_image, to_rgb
from llava_aurora.errors import AuroraError
from llava_aurora.generation.regions import region_of
from llava_aurora.tasks.marks import Point, draw_points
from llava_aurora.tasks.registry import families
from llava_aurora.tokens.mask import draw_masks

SHOWN_SIDE, LEAST_SIDE = 768, 480  # of the longer side of the copy on the page, in pixels
MAX_PIXELS = 25_000_000  # of an upload; decoding takes up to 16 bytes a pixel
MARKS, COORDINATES, REGION = "marks", "coordinates", "region"


@dataclass(frozen=True)
class MarkedImage:
    """An uploaded image and its points, without pixels, so that one can be kept for every visitor."""

    path: str  # of the image
    size: tuple[int, int]  # width and height of the image, turned upright
    shown: str = ""  # path of the copy on the page, points drawn in
    points: tuple[Point, ...] = ()  # (x, y) in pixels of the image; the first is A
    # MARKS, drawn into the image that the model sees, COORDINATES, named in the question, or REGION: they outline one
    given: str = MARKS
    suggested: str = ""  # the question that the page proposed

    @property
    def letters(self) -> str:
        return ascii_uppercase[: len(self.points)]

    def with_point(self, place: Sequence[float]) -> "MarkedImage":
        """With a point at `place`, in pixels of the copy that is shown. Raises AuroraError after the 26th."""
        x, y = (
            min(max(int((value + 0.5) * side / shown), 0), side - 1)
            for value, side, shown in zip(place, self.size, shown_size(self.size), strict=True)
        )
        return self._with((x, y))

    def with_typed_point(self, place: str) -> "MarkedImage":
        """With a point at "x, y" in pixels of the image. Raises AuroraError for anything else, or after the 26th."""
        try:
            x, y = map(int, place.replace(",", " ").split())
        except ValueError as error:
            raise AuroraError(f"{place!r}: type a point as x, y in pixels of the image, such as 120, 80") from error
        if not (0 <= x < self.size[0] and 0 <= y < self.size[1]):
            raise AuroraError(f"({x}, {y}) is outside the image, {self.size[0]} × {self.size[1]} pixels")
        return self._with((x, y))

    def _with(self, point: Point) -> "MarkedImage":
        if len(self.points) == len(ascii_uppercase):
            raise AuroraError(f"there are {len(ascii_uppercase)} points already, one for each letter")
        return replace(self, points=(*self.points, point))


class Marker:
    """Draws points into images.

    Args: side: how many pixels of an image of a width and height fill a side of the frame that the model sees.
    """

    def __init__(self, *, folder: Path, side: Callable[[int, int], int]) -> None:
        self.folder, self.side = folder, side

    def shown(self, marked: MarkedImage) -> MarkedImage:
        """The same with its copy for the page. Raises AuroraError if the image cannot be read."""
        size = shown_size(marked.size)
        copy = read_upload(marked.path).resize(size, Image.Resampling.LANCZOS)
        with tempfile.NamedTemporaryFile(dir=self.folder, suffix=".webp", delete=False) as file:
            self._draw(copy, marked).save(file, format="WEBP", quality=90)
        return replace(marked, shown=file.name)

    def seen(self, marked: MarkedImage) -> Image.Image:
        """What the model sees: the image, RGB, with its points drawn in if they are given as marks."""
        image = read_upload(marked.path)
        return self._draw(image, marked) if marked.given == MARKS else image

    def _draw(self, image: Image.Image, marked: MarkedImage) -> Image.Image:
        if not marked.points:
            return image
        scale = [drawn / side for drawn, side in zip(image.size, marked.size, strict=True)]
        places = [(int(x * scale[0]), int(y * scale[1])) for x, y in marked.points]
        if marked.given == REGION and len(places) > 1:
            (x1, y1), (x2, y2) = places[0], places[-1]
            corners = places if len(places) > 2 else [(x1, y1), (x2, y1), (x2, y2), (x1, y2)]
            return draw_masks([np.asarray(region_of(corners, image.size))], image)
        side = round(self.side(*marked.size) * max(scale))
        return Image.fromarray(draw_points(np.asarray(image), places, list(marked.letters), side=side))


def read_upload(path: str) -> Image.Image:
    """An image file as upright RGB.

    Raises AuroraError naming the file without its folder, if it cannot be read or has more than MAX_PIXELS pixels.
    """
    try:
        with opened_image(Path(path)) as image:
            if image.width * image.height > MAX_PIXELS:
                size = f"{image.width} × {image.height} pixels"
                raise AuroraError(f"{path}: {size}; scale it down, at most {MAX_PIXELS // 10**6} million are accepted")
            return to_rgb(image, upright=True, on_white=True)
    except AuroraError as error:
        raise AuroraError(str(error).replace(path, Path(path).name)) from error


def shown_size(size: tuple[int, int]) -> tuple[int, int]:
    """Width and height of the copy on the page of an image of this size."""
    scale = min(max(1.0, LEAST_SIDE / max(size)), SHOWN_SIDE / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def suggested_question(letters: str, coordinates: Sequence[str] = ()) -> str:
    """The question that the page proposes about these points; empty for fewer than two.

    Args: letters: of the points; coordinates: of each, as the model reads them, if the question is to give them.
    """
    if len(letters) < 2:
        return ""
    proposed = (family.question_about(letters, coordinates) for family in families())
    return next(filter(None, proposed), "")
