"""From annotated images to training records, in LLaVA's own JSON format.

A record is {"id", "image", "conversations"}; beside that, under "aurora", it keeps the truth (task, points, boxes,
answer) for evaluation, which LLaVA overlooks. Torch is not needed here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from llava_aurora.data.prompts import Prompts
from llava_aurora.tokens.vocabulary import TokenFamily

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
Coordinates = Literal["tokens", "text"]
Record = dict[str, Any]


@dataclass(frozen=True)
class MarkedPoint:
    """A point of interest. `x`, `y` in pixels of the coordinate frame; `depth`: relative depth, higher = closer."""

    letter: str
    x: int
    y: int
    depth: int


@dataclass(frozen=True)
class RecordWriter:
    """Writes the records of one data set.

    Args:
        prompts: the wording.
        depth: the family of depth tokens; None if no record holds a map.
        pixels: the family of coordinate tokens; None writes coordinates as plain numbers.
    """

    prompts: Prompts
    depth: TokenFamily | None
    pixels: TokenFamily | None

    # --- depth --------------------------------------------------------------------------------------------------------

    def depth_generation(self, *, name: str, image: str, codes: Sequence[int], rng: np.random.Generator) -> Record:
        """The atomic task: image in, map out."""
        return self._record("depth_generation", name, image, rng, {}, map=self._map(codes))

    def depth_reading(
        self,
        *,
        name: str,
        image: str,
        points: Sequence[MarkedPoint],
        codes: Sequence[int],
        rng: np.random.Generator,
    ) -> Record:
        """The atomic task of reading a map: image and coordinates in, the map and its value at each point out."""
        values = {"map": self._map(codes), "values": self._values(points), **self._about(points)}
        return self._record("depth_reading", name, image, rng, self._truth(points), **values)

    def point_location(
        self, *, name: str, image: str, points: Sequence[MarkedPoint], rng: np.random.Generator
    ) -> Record:
        """The atomic task of reading marks: a marked image in, letters and coordinates out."""
        return self._record("point_location", name, image, rng, self._truth(points), **self._about(points))

    def depth_chain(
        self,
        *,
        name: str,
        image: str,
        points: Sequence[MarkedPoint],
        codes: Sequence[int],
        rng: np.random.Generator,
        marked: bool = True,
        coordinate_step: bool = True,
    ) -> Record:
        """Question about the closest point, answered step by step: coordinates, map, comparison, letter.

        Args:
            marked: whether the points are drawn in the image; otherwise the question gives their coordinates.
            coordinate_step: False leaves the coordinates out of the chain (the paper's ablation).
        """
        task = "depth_chain" if coordinate_step else "depth_chain_without_points"
        task = task if marked else "depth_chain_from_coordinates"
        values = {"map": self._map(codes), **self._about(points)}
        return self._record(task, name, image, rng, self._truth(points), **values)

    def depth_direct(
        self,
        *,
        name: str,
        image: str,
        points: Sequence[MarkedPoint],
        rng: np.random.Generator,
        marked: bool = True,
    ) -> Record:
        """The same question, answered by the letter alone."""
        task = "depth_direct" if marked else "depth_direct_from_coordinates"
        return self._record(task, name, image, rng, self._truth(points), **self._about(points))

    def depth_chain_from_map(
        self, *, name: str, points: Sequence[MarkedPoint], codes: Sequence[int], rng: np.random.Generator
    ) -> Record:
        """The atomic task of answering by a map: map and coordinates in, the end of a chain out. There is no image."""
        values = {"map": self._map(codes), **self._about(points)}
        return self._record("depth_chain_from_map", name, None, rng, self._truth(points), **values)

    def depth_reading_from_map(
        self, *, name: str, points: Sequence[MarkedPoint], codes: Sequence[int], rng: np.random.Generator
    ) -> Record:
        """The atomic task of reading a given map: map and coordinates in, its value at each point out, no image."""
        values = {"map": self._map(codes), "values": self._values(points), **self._about(points)}
        return self._record("depth_reading_from_map", name, None, rng, self._truth(points), **values)

    # --- boxes --------------------------------------------------------------------------------------------------------

    def box_generation(self, **arguments: Any) -> Record:
        """The atomic task: every object of a kind by its box. Arguments as for `counting_chain`."""
        return self._about_boxes("box_generation", none="box_generation_of_none", **arguments)

    def counting_chain(self, **arguments: Any) -> Record:
        """How many of a kind: boxes, one a line and numbered from 1, then the count; none is said without a box.

        Args:
            name, image: of the record.
            singular, plural: what is counted.
            boxes: (x1, y1, x2, y2) codes each, in the order in which they are to be listed.
            rng: chooses the wording.
        """
        return self._about_boxes("counting_chain", none="counting_chain_of_none", **arguments)

    def counting_direct(self, **arguments: Any) -> Record:
        """The same question, answered by the number alone. Arguments as for `counting_chain`."""
        return self._about_boxes("counting_direct", none="counting_direct", **arguments)

    def _about_boxes(
        self,
        task: str,
        *,
        none: str,
        name: str,
        image: str,
        singular: str,
        plural: str,
        boxes: Sequence[Sequence[int]],
        rng: np.random.Generator,
    ) -> Record:
        lines = "\n".join(f"{number}. {self.coordinates(box)}" for number, box in enumerate(boxes, start=1))
        truth = {"things": plural, "boxes": [list(box) for box in boxes], "answer": str(len(boxes))}
        values = {"thing": singular, "things": plural, "boxes": lines, "count": len(boxes)}
        return self._record(task if boxes else none, name, image, rng, truth, **values)

    # --- parts --------------------------------------------------------------------------------------------------------

    def coordinates(self, values: Sequence[int]) -> str:
        """A point or box as tokens, or as plain numbers where there is no family for them."""
        if self.pixels is not None:
            return self.pixels.text(values)
        return "(" + ",".join(str(int(value)) for value in values) + ")"

    def _map(self, codes: Sequence[int]) -> str:
        if self.depth is None:
            raise ValueError("this writer has no depth tokens")
        return self.depth.text(codes)

    def _about(self, points: Sequence[MarkedPoint]) -> dict[str, str]:
        letters = [point.letter for point in points]
        return {
            "letters": ", ".join(letters[:-1]) + f" or {letters[-1]}" if len(letters) > 1 else letters[0],
            "points": ", ".join(self._point(point) for point in points),
            "answer": closest(points).letter,
        }

    def _values(self, points: Sequence[MarkedPoint]) -> str:
        return ", ".join(f"{self._point(point)} {hundredths(point.depth)}" for point in points)

    def _point(self, point: MarkedPoint) -> str:
        return f"{point.letter} {self.coordinates((point.x, point.y))}"

    @staticmethod
    def _truth(points: Sequence[MarkedPoint]) -> dict[str, Any]:
        return {
            "points": {point.letter: [point.x, point.y] for point in points},
            "depths": {point.letter: point.depth for point in points},
            "answer": closest(points).letter,
        }

    def _record(
        self,
        task: str,
        name: str,
        image: str | None,
        rng: np.random.Generator,
        truth: Mapping[str, Any],
        **values: object,
    ) -> Record:
        question, answer = self.prompts.fill(task, rng, **values)
        return {
            "id": f"{name}/{task}",
            **({"image": image} if image else {}),
            "conversations": [
                {"from": "human", "value": f"<image>\n{question}" if image else question},
                {"from": "gpt", "value": answer},
            ],
            "aurora": {"task": task, **truth},
        }


def closest(points: Sequence[MarkedPoint]) -> MarkedPoint:
    """The point of the highest relative depth. Raises ValueError if there is none."""
    return max(points, key=lambda point: point.depth)


def hundredths(depth: int) -> str:
    """How close a relative depth of 0 to 255 is, in two digits: 00 farthest, 99 closest. Of two the order stays."""
    return f"{depth * 100 // 256:02d}"


def letter_points(
    positions: Sequence[tuple[int, int]], depths: Sequence[int], rng: np.random.Generator
) -> list[MarkedPoint]:
    """Gives points their letters at random, so that neither order nor place gives the answer away; sorted by letter."""
    letters = rng.permutation(len(positions))
    points = [
        MarkedPoint(letter=LETTERS[letter], x=int(x), y=int(y), depth=int(depth))
        for letter, (x, y), depth in zip(letters, positions, depths, strict=True)
    ]
    return sorted(points, key=lambda point: point.letter)
