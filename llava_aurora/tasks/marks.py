"""Marked points: choosing them in a depth map, reading their depth, drawing circle and letter into the image.

Stands between a depth map and the depth records: a question asks which of the points marked here is closest.
Points are (x, y) pixels of the image, x to the right, y down. Lengths in pixels are meant for a frame of 336 and
scale with the shorter side of the image at hand. Source: AURORA, supplement, and HardBLINK for the look of a mark.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Point = tuple[int, int]
Box = tuple[int, int, int, int]  # left, top, right, bottom, all inside

REFERENCE_FRAME = 336
_CIRCLE_RADIUS = 4.0
_DEPTH_RADIUS = 3.0
_LETTER_SIZE = 10.0  # of Pillow's own font; this and the plate are read off HardBLINK's images, pixel by pixel
_SMALLEST_LETTER = 9.0
PLATE_REACH = 28 / REFERENCE_FRAME  # how far a mark reaches from its point, as part of the frame
_PLATE_DISTANCE = 12.0  # from the point to the nearest edge of its plate
_PLATE_ABOVE, _PLATE_BELOW, _PLATE_BESIDE = 3.0, 4.0, 1.0  # what the plate adds to its letter
_CANDIDATES = 192
_BATCHES = 6
_ONE_HEIGHT = 0.05  # how far points at one height may lie from it, as a share of the image
_HEIGHTS = 40  # tried for one set of points
_STARTS = 12
_SETS = 1500  # of points among which one is looked for that cannot be guessed


def mark_radius(height: int, width: int) -> int:
    """Radius in pixels of the circle around a marked point: 4 in a frame of 336, never under 2."""
    return max(2, round(_CIRCLE_RADIUS * min(height, width) / REFERENCE_FRAME))


def depth_radius(height: int, width: int) -> int:
    """Half the side of the square inside the circle over which a point's depth is read: 3 in a frame of 336."""
    return max(1, round(_DEPTH_RADIUS * min(height, width) / REFERENCE_FRAME))


def depth_at(relative_depth: np.ndarray, point: Point) -> int:
    """Depth of a point: the median of the pixels inside its circle, so that one odd pixel does not decide.

    Args:
        relative_depth: (H, W), any real dtype; for uint8 maps 0 means unknown, and higher is closer.
        point: (x, y) inside the map. The square around it is cut off at the border of the map.
    Raises ValueError if the point lies outside the map.
    """
    height, width = relative_depth.shape
    x, y = point
    if not (0 <= x < width and 0 <= y < height):
        raise ValueError(f"point ({x}, {y}) is outside a depth map of {width} × {height} pixels")
    radius = depth_radius(height, width)
    patch = relative_depth[max(0, y - radius) : y + radius + 1, max(0, x - radius) : x + radius + 1]
    return int(np.median(patch))


def sample_points(
    *,
    relative_depth: np.ndarray,
    count: int,
    rng: np.random.Generator,
    min_distance: float = 20.0,
    min_depth_gap: int = 20,
    margin: int | None = None,
    one_height: bool = False,
    mean_depth: np.ndarray | None = None,
) -> list[Point] | None:
    """Draws points at random whose order in depth is beyond doubt.

    Any two lie at least `min_distance` apart and their depths (`depth_at`) differ by at least `min_depth_gap`. The
    depth inside a point's circle is known everywhere and varies by less than half that gap, which keeps points off
    depth edges and leaves their order the same whichever pixel inside the circle is read.

    Args:
        relative_depth: uint8 (H, W), higher = closer, 0 = unknown.
        count: how many points; 2 to 5 in AURORA.
        min_distance: Euclidean, in pixels of a 336 frame.
        min_depth_gap: of 255.
        margin: pixels of this map kept free along its border; by default what the circle needs, and never less.
        one_height: puts all of them at about one height, drawn at random. What is lower in an image is mostly closer,
            so that of points anywhere the lowest is mostly the answer.
    Returns `count` points, or None if several hundred candidates held no such set: the map is too flat or too small.
    Raises ValueError if the map is not uint8 (H, W) or `count` is not positive.
    """
    if relative_depth.ndim != 2 or relative_depth.dtype != np.uint8:
        raise ValueError(
            f"relative_depth must be uint8 (height, width), not {relative_depth.dtype} {relative_depth.shape}"
        )
    if count < 1:
        raise ValueError(f"count must be at least 1, not {count}")
    height, width = relative_depth.shape
    radius = depth_radius(height, width)
    border = max(mark_radius(height, width), 0 if margin is None else margin)
    if min(height, width) <= 2 * border:
        return None
    distance = min_distance * min(height, width) / REFERENCE_FRAME
    guessable = mean_depth is not None and rng.random() < 1 / count
    for _ in range(_HEIGHTS if one_height else _BATCHES):
        first, last = border, height - border
        if one_height:
            row, reach = rng.integers(first, last), max(1, round(_ONE_HEIGHT * height))
            first, last = max(first, row - reach), min(last, row + reach + 1)
        x = rng.integers(border, width - border, size=_CANDIDATES)
        y = rng.integers(first, last, size=_CANDIDATES)
        depth, flat = _depth_inside_circles(relative_depth, x, y, radius, min_depth_gap)
        if mean_depth is None or count < 2:
            chosen = _choose(x[flat], y[flat], depth[flat], count, distance, min_depth_gap)
        else:
            rows, columns = y * mean_depth.shape[0] // height, x * mean_depth.shape[1] // width
            sets = _sets(x[flat], y[flat], depth[flat], count, distance, min_depth_gap, rng)
            chosen = _unguessed(x[flat], y[flat], depth[flat], mean_depth[rows, columns][flat], sets, guessable, rng)
        if chosen is not None:
            return chosen
    return None


def any_points(relative_depth: np.ndarray, count: int, rng: np.random.Generator) -> list[Point] | None:
    """Draws points to be read and not compared: any pixels of known depth, however near to each other.

    Args: relative_depth: uint8 (H, W), 0 = unknown; count: how many.
    Returns `count` points, or None if fewer pixels are known.
    """
    known = np.flatnonzero(relative_depth)
    if len(known) < count:
        return None
    chosen = rng.choice(known, count, replace=False).tolist()
    return [(place % relative_depth.shape[1], place // relative_depth.shape[1]) for place in chosen]


def mark_points(image: Image.Image, points: Mapping[str, Sequence[float]], *, frame: int) -> Image.Image:
    """An RGB image with points marked that are (x, y) by letter in a square frame of this side over the whole of it."""
    places = [(int(x * image.width / frame), int(y * image.height / frame)) for x, y in points.values()]
    return Image.fromarray(draw_points(np.asarray(image), places, list(points)))


def draw_points(
    image: np.ndarray, points: Sequence[Point], letters: Sequence[str], *, side: int | None = None
) -> np.ndarray:
    """Marks points as HardBLINK does: a red circle around each, its white letter on a black plate above.

    In a frame of 336 the pixels are HardBLINK's own. What that benchmark never needs is added: a plate goes below its
    circle where it would leave the image, cover a circle or cover another plate above, and is pushed sideways to stay
    inside the image.

    Args:
        image: uint8 (H, W, 3); left as it is.
        points: (x, y) inside the image.
        letters: one for each point, in the same order.
        side: how many pixels of this image fill a side of the frame that the model sees; its shorter side if left out.
    Returns uint8 (H, W, 3), a new array.
    Raises ValueError if there are not as many letters as points.
    """
    if len(points) != len(letters):
        raise ValueError(f"{len(points)} points need as many letters, not {len(letters)}")
    canvas = Image.fromarray(image)
    pen = ImageDraw.Draw(canvas)
    height, width = image.shape[:2]
    side = min(height, width) if side is None else side
    radius = mark_radius(side, side)
    scale = side / REFERENCE_FRAME
    font = _font(max(_SMALLEST_LETTER, _LETTER_SIZE * scale))
    distance = max(radius + 2, round(_PLATE_DISTANCE * scale))
    above, below, beside = (max(1, round(pad * scale)) for pad in (_PLATE_ABOVE, _PLATE_BELOW, _PLATE_BESIDE))
    _, letter_top, _, letter_bottom = (round(edge) for edge in font.getbbox("A"))
    plate_height = letter_bottom - letter_top + above + below
    plates: list[Box] = []
    for (x, y), letter in zip(points, letters, strict=True):
        plate_width = round(font.getlength(letter)) + 1 + 2 * beside
        left = min(max(0, x - beside), width - plate_width)
        tops = [y - distance - plate_height + 1, y + distance]
        tops = [top for top in tops if 0 <= top <= height - plate_height] or [max(0, tops[0])]
        choices = [(left, top, left + plate_width - 1, top + plate_height - 1) for top in tops]
        free = [plate for plate in choices if not _covers_a_circle(plate, points, radius)]
        clear = [plate for plate in free if not any(_overlap(plate, other) for other in plates)]
        plates.append((clear or free or choices)[0])
        pen.rectangle(plates[-1], fill=(0, 0, 0))
        at = (plates[-1][0] + beside, plates[-1][1] + above - letter_top)
        pen.text(at, letter, font=font, fill=(255, 255, 255))
    for x, y in points:
        outline = (x - radius, y - radius, x + radius, y + radius)
        pen.ellipse(outline, outline=(255, 0, 0), width=max(1, round(2 * scale)))
    return np.array(canvas)


def _depth_inside_circles(
    relative_depth: np.ndarray, x: np.ndarray, y: np.ndarray, radius: int, min_depth_gap: int
) -> tuple[np.ndarray, np.ndarray]:
    """Median depth inside the circle of each candidate, int64 (N,), and whether that depth is clear, bool (N,)."""
    reach = np.arange(-radius, radius + 1)
    patches = relative_depth[y[:, None, None] + reach[:, None], x[:, None, None] + reach].reshape(len(x), -1)
    ordered = np.sort(patches, axis=1).astype(np.int64)
    clear = (ordered[:, 0] > 0) & (2 * (ordered[:, -1] - ordered[:, 0]) < min_depth_gap)
    return ordered[:, ordered.shape[1] // 2], clear


def _choose(
    x: np.ndarray, y: np.ndarray, depth: np.ndarray, count: int, distance: float, min_depth_gap: int
) -> list[Point] | None:
    """First fit, from several starts: takes a candidate, drops those too near to it in place or depth, goes on."""
    for start in range(min(_STARTS, len(x))):
        open_candidates = np.arange(start, len(x))
        chosen: list[int] = []
        while len(open_candidates) and len(chosen) < count:
            taken = open_candidates[0]
            chosen.append(int(taken))
            far = (x[open_candidates] - x[taken]) ** 2 + (y[open_candidates] - y[taken]) ** 2 >= distance**2
            apart = np.abs(depth[open_candidates] - depth[taken]) >= min_depth_gap
            open_candidates = open_candidates[far & apart]
        if len(chosen) == count:
            return [(int(x[i]), int(y[i])) for i in chosen]
    return None


def _sets(
    x: np.ndarray,
    y: np.ndarray,
    depth: np.ndarray,
    count: int,
    distance: float,
    min_depth_gap: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Random sets of candidates that are apart in place and depth, int64 (N, count)."""
    if not len(x):
        return np.empty((0, count), np.int64)
    sets = rng.integers(len(x), size=(_SETS, count))
    one, other = (sets[:, index] for index in np.triu_indices(count, 1))
    far = (x[one] - x[other]) ** 2 + (y[one] - y[other]) ** 2 >= distance**2
    return sets[(far & (np.abs(depth[one] - depth[other]) >= min_depth_gap)).all(axis=1)]


def _unguessed(
    x: np.ndarray,
    y: np.ndarray,
    depth: np.ndarray,
    expected: np.ndarray,
    sets: np.ndarray,
    guessable: bool,
    rng: np.random.Generator,
) -> list[Point] | None:
    """A set whose closest point is the first by expected depth and by height, or first by neither.

    If by neither, every further place in the order of expected depths is as likely as another, as far as there are
    such sets.
    """
    answer = depth[sets].argmax(axis=1)[:, None]
    place, below = ((each[sets] > np.take_along_axis(each[sets], answer, 1)).sum(axis=1) for each in (expected, y))
    fitting = (place == 0) & (below == 0) if guessable else (place > 0) & (below > 0)
    if not fitting.any():
        return None
    wanted = rng.choice(np.unique(place[fitting]))
    chosen = sets[rng.choice(np.flatnonzero(fitting & (place == wanted)))]
    return [(int(x[i]), int(y[i])) for i in chosen]


def _covers_a_circle(plate: Box, points: Sequence[Point], radius: int) -> bool:
    left, top, right, bottom = plate
    return any(left - radius <= x <= right + radius and top - radius <= y <= bottom + radius for x, y in points)


def _overlap(one: Box, other: Box) -> bool:
    return one[0] <= other[2] and other[0] <= one[2] and one[1] <= other[3] and other[1] <= one[3]


@lru_cache(maxsize=8)
def _font(size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
