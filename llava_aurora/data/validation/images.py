"""Checks of images before a run: whether they can be read, what is unusual about them, and which show the same picture.

Pictures are compared by a difference hash: 128 bits that say, on a grid of 9 × 9, where brightness rises to the right
and downwards. Another size or compression changes few of them; other pictures differ in about half.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from llava_aurora.data.images.image_files import is_deep, opened_image, orientation, to_rgb
from llava_aurora.data.validation.findings import Findings
from llava_aurora.errors import AuroraError

WORDS, BITS = 8, 16
GRID = 9
DECODED_SIDE = 64
ONLY_IN_TRAINING = ("orientation", "transparent")  # when a model is asked, images are turned and shown on white
SMALLEST = 4  # a side of fewer pixels is that of a tracking pixel or a ruled line
CANDIDATES_AT_ONCE = 1 << 19
_ONES = np.array([bin(value).count("1") for value in range(1 << BITS)], dtype=np.uint8)


class Examined(NamedTuple):
    problems: list[tuple[str, str]]  # (kind, message) of each
    # difference hash, uint16 (8,); None where the image was not decoded, or has one colour
    hash: np.ndarray | None = None


def examine(path: Path, *, quick: bool = False) -> Examined:
    """Opens an image as training does, and decodes all of it.

    Args: quick: read its header alone.
    """
    try:
        with opened_image(path, name="image") as image:
            found = list(_header_problems(image))
            if quick:
                return Examined(found)
            # A JPEG is read whole, but only as many of its frequencies are turned into pixels as the hash needs.
            image.draft("L", (DECODED_SIDE, DECODED_SIDE))
            image.load()
            found += _pixel_problems(image)
            gray = to_rgb(image, upright=False, on_white=False).convert("L")
    except AuroraError as error:
        kind = "bomb" if isinstance(error.__cause__, Image.DecompressionBombError) else "image"
        return Examined([(kind, str(error).removeprefix("image: "))])
    low, high = gray.getextrema()
    if low == high:
        return Examined([*found, ("blank", f"every pixel has brightness {low}")])
    return Examined(found, difference_hash(gray))


def _header_problems(image: Image.Image) -> Iterator[tuple[str, str]]:
    if image.height in (1, 3) or min(image.size) < SMALLEST:
        yield "tiny", f"{image.width} × {image.height} pixels"
    if is_deep(image):
        yield "deep", f"mode {image.mode}"


def _pixel_problems(image: Image.Image) -> Iterator[tuple[str, str]]:
    if (turned := orientation(image)) != 1:
        yield "orientation", f"EXIF orientation {turned}"
    if image.has_transparency_data and np.asarray(image.convert("RGBA").getchannel("A")).min() < 255:
        yield "transparent", f"mode {image.mode}"


class Listed(NamedTuple):
    path: Path  # of the image
    name: str  # of the image, as a record gives it
    where: str  # the name of that record
    evaluation: bool  # whether it is a record of the evaluation
    # the image of which this is a copy with marks drawn in, by its record; None if it is no copy
    copy_of: Path | None = None


class ImageList:
    """The images of a training file and of an evaluation, each once, with their hashes."""

    def __init__(self) -> None:
        self._names: dict[Path, str] = {}
        self._trained: set[Path] = set()
        self._evaluated: set[Path] = set()
        self._hashes: dict[Path, np.ndarray] = {}
        self._copy_of: dict[Path, Path] = {}

    def new(self, images: Iterable[Listed]) -> Iterator[Listed]:
        """Yields those that have not been given before."""
        for image in images:
            (self._evaluated if image.evaluation else self._trained).add(image.path)
            if image.path not in self._names:
                if image.copy_of is not None:
                    self._copy_of[image.path] = image.copy_of
                self._names[image.path] = image.name
                yield image

    def take(self, portion: Sequence[Listed], findings: Findings, examined: Sequence[Examined]) -> None:
        """Takes the results of `examine` for images from `new`, in their order."""
        findings.images += len(portion)
        for image, (problems, found) in zip(portion, examined, strict=True):
            for kind, message in problems:
                if not (image.evaluation and kind in ONLY_IN_TRAINING):
                    findings.add(kind, image.where, f"{image.name}: {message}")
            if found is not None:
                self._hashes[image.path] = found

    def compare(self, findings: Findings, *, distance: int) -> None:
        """Reports training images that are also evaluated, or that show the same picture as another image.

        A marked copy of an image is not compared where the image itself is.
        """
        names = {path: name for path, name in self._names.items() if self._copy_of.get(path) not in self._hashes}
        for path in names:
            if path in self._trained and path in self._evaluated:
                findings.add("leak", names[path], "is an image of the evaluation")
        trained, evaluated = (
            [path for path in names if path in paths and path in self._hashes]
            for paths in (self._trained, self._evaluated - self._trained)
        )
        hashes, held_out = (
            np.array([self._hashes[path] for path in paths], dtype=np.uint16).reshape(-1, WORDS)
            for paths in (trained, evaluated)
        )
        for i, j in same_pictures(hashes, distance=distance):
            findings.add("duplicate", names[trained[i]], f"shows the same as {names[trained[j]]}")
        for i, j in same_pictures(hashes, held_out, distance=distance):
            findings.add("leak", names[trained[i]], f"shows the same as {names[evaluated[j]]} of the evaluation")


def difference_hash(image: Image.Image) -> np.ndarray:
    """Which of 9 × 9 areas are brighter than the one to their left, and than the one above, uint16 (8,)."""
    grid = np.asarray(image.convert("L").resize((GRID, GRID), Image.Resampling.BOX), dtype=np.int16)
    across = grid[:-1, 1:] > grid[:-1, :-1]
    down = grid[1:, :-1] > grid[:-1, :-1]
    return np.packbits(np.concatenate([across.ravel(), down.ravel()])).view(np.uint16)


def same_pictures(one: np.ndarray, other: np.ndarray | None = None, *, distance: int) -> Iterator[tuple[int, int]]:
    """Pairs of pictures whose hashes differ in few bits.

    Hashes that differ in fewer bits than they have words agree in at least one word, so only those that share a word
    are compared: the time grows with such pairs and not with all.

    Args:
        one: uint16 (N, 8).
        other: uint16 (M, 8); left out, pairs inside `one` are found.
        distance: most bits that may differ, 0 … 7.
    Yields: (i, j), `i` in `one`, `j` in `other`; each `i` once, with its nearest and first `j`. Inside `one`, j < i.
    Raises ValueError for another distance.
    """
    if not 0 <= distance < WORDS:
        raise ValueError(f"distance is 0 … {WORDS - 1} bits, not {distance}")
    inside = other is None
    right, right_rows = _without_repeats(one if other is None else other)
    left, left_rows = (right, right_rows) if inside else (one, np.arange(len(one)))
    best: dict[int, tuple[int, int]] = {}
    if inside:  # pictures of the very same hash, which may be many, need no comparing
        first = {picture.tobytes(): row for picture, row in zip(right, right_rows.tolist(), strict=True)}
        repeats = np.setdiff1d(np.arange(len(one)), right_rows).tolist()
        best = {row: (0, first[one[row].tobytes()]) for row in repeats}
    for rows, near in _candidates(left, right, inside=inside):
        bits = _ONES[left[rows] ^ right[near]].sum(axis=1)
        close = bits <= distance
        pairs = left_rows[rows[close]].tolist(), right_rows[near[close]].tolist(), bits[close].tolist()
        for i, j, differing in zip(*pairs, strict=True):
            best[i] = min(best.get(i, (differing, j)), (differing, j))
    yield from ((i, best[i][1]) for i in sorted(best))


def _without_repeats(pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each hash once, uint16 (U, 8), in the order of first appearance, and the rows it first appears in, int64 (U,)."""
    rows = np.sort(np.unique(pictures, axis=0, return_index=True)[1]) if len(pictures) else np.arange(0)
    return pictures[rows], rows


def _candidates(one: np.ndarray, other: np.ndarray, *, inside: bool) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs that share a word, int64 (P,) each, a bounded number at a time."""
    for word in range(WORDS):
        order = np.argsort(other[:, word], kind="stable")
        keys = other[order, word]
        first = np.searchsorted(keys, one[:, word], side="left")
        if inside:  # only those before it in the order
            last = np.empty_like(first)
            last[order] = np.arange(len(order))
        else:
            last = np.searchsorted(keys, one[:, word], side="right")
        for rows in _portions(last - first):
            sizes = (last - first)[rows]
            left = np.repeat(rows, sizes)
            offsets = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
            yield left, order[np.repeat(first[rows], sizes) + offsets]


def _portions(sizes: np.ndarray) -> Sequence[np.ndarray]:
    """Rows in portions of about CANDIDATES_AT_ONCE pairs."""
    rows = np.flatnonzero(sizes)
    portion = np.cumsum(sizes[rows]) // CANDIDATES_AT_ONCE
    return np.split(rows, np.flatnonzero(np.diff(portion)) + 1) if len(rows) else []
