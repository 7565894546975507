"""An image with all that is known of it, and what tasks draw of that."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from llava_aurora.errors import AuroraError
from llava_aurora.tasks.forms import LETTERS


@dataclass(frozen=True)
class AnnotatedObject:
    """An object in an image."""

    # thing, things: its name, singular and plural
    thing: str
    things: str
    box: tuple[float, float, float, float]  # (x1, y1, x2, y2) in pixels
    mask: np.ndarray | None = field(default=None, compare=False)  # its pixels, bool (height, width); None: not known
    phrases: Sequence[str] = ()  # each names it and nothing else in the image
    color: str = ""  # if that is known


@dataclass(frozen=True, kw_only=True)
class AnnotatedImage:
    """An image and what is known of it, from which tasks draw what they ask about."""

    name: str  # unique in its data set; the beginning of its records' ids
    size: tuple[int, int]  # width and height in pixels
    # relative depth, uint8 (height, width), higher = closer, 0 = unknown; None if it is not known
    depth: np.ndarray | None = None
    # of the images that this one is among, (H, W); what can be guessed by it is not asked
    mean_depth: np.ndarray | None = None
    # for each token kind that is known of the whole image, the codes of its span
    codes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    objects: Sequence[AnnotatedObject] = ()  # every object of the things that are named here
    absent: Sequence[tuple[str, str]] = ()  # (thing, things) of what is known not to be in the image
    colors: Sequence[str] = ()  # that things may have, where that is known
    # reads its colours as the frame shows it, a cell each, int16 (side, side, 3), -1 beside the image (seen_colors.py)
    seen_colors: Callable[[], np.ndarray] | None = field(default=None, compare=False)


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """What is drawn of an image. Raises AuroraError if there are no letters for so many points."""

    frame: int = 336  # side of the square frame that coordinates refer to; the whole image is stretched to it
    points: Sequence[int] = (2, 3, 4, 5)  # the allowed numbers of points in a question
    # puts the points of a question at about one height, so that the lowest is not mostly the closest
    one_height: bool = False
    # pixels of the depth map to be kept free along its border; None for what the family finds right
    margin: int | None = None
    read_points: int | None = None  # how many points a reading has, anywhere in the image; None: those of the questions
    # the counts that questions ask for, each with its share; None: any. An image that has nothing of the count that was
    # drawn is not asked.
    counts: Mapping[int, float] | None = None

    def __post_init__(self) -> None:
        for count in self.points:
            if not 2 <= count <= len(LETTERS):
                raise AuroraError(f"questions of {count} points: 2 to {len(LETTERS)} are possible, one letter each")
        if self.read_points is not None and not 1 <= self.read_points <= len(LETTERS):
            raise AuroraError(f"{self.read_points} points to state values of: 1 to {len(LETTERS)} are possible")
