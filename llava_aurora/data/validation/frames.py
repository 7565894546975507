"""Checks whether the coordinates of a record refer to the frame in which training shows its image.

Coordinates name pixels of a square. How an image fills that square differs: AURORA's files are of images resized to it,
LLaVA pads or crops. Of a square image all ways are the same.
"""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from llava_aurora.data.images.frame import FrameTransform
from llava_aurora.data.images.image_files import opened_image, path_inside
from llava_aurora.data.store.record_file import images_of
from llava_aurora.data.validation.records import Report, truth_problem
from llava_aurora.errors import AuroraError
from llava_aurora.tasks.points import mentions

Places = tuple[float, ...]
SIZES_REMEMBERED = 1 << 16
TOLERANCE = 1.0  # pixels of the frame


class FrameChecks:
    """Args:
    image_folder: of the images.
    aspect_ratio: how training shows them, --image_aspect_ratio.
    frame: side of the frame that coordinates refer to.
    """

    def __init__(self, *, image_folder: Path, aspect_ratio: str, frame: int) -> None:
        self.image_folder, self.aspect_ratio, self.frame = image_folder, aspect_ratio, frame
        self._size = lru_cache(SIZES_REMEMBERED)(self._read_size)

    def run(self, record: Mapping[str, Any], report: Report) -> None:
        """Reports (kind, message) where the two frames differ, or may differ. The record is in LLaVA's format."""
        images = images_of(record)
        if not images or truth_problem(record.get("aurora")):
            return
        places = list(_places(record))
        width, height = self._size(images[0]) if places else (0, 0)
        if width == height:
            return
        image = f"an image of {width} × {height} pixels"
        if ratio := (record.get("aurora") or {}).get("aspect_ratio"):
            if ratio != self.aspect_ratio:
                report(
                    "frame",
                    f"coordinates in {image} are for {ratio}, but training uses {self.aspect_ratio}; set"
                    f" --image_aspect_ratio {ratio}",
                )
        elif (place := self._in_padding(places, width, height)) is not None:
            report(
                "frame",
                f"{place} is in the padding that --image_aspect_ratio pad adds to {image}, so the coordinates are of"
                " another frame; AURORA's files need --image_aspect_ratio resize",
            )
        else:
            report("unsaid", f"coordinates in {image}, without aurora.aspect_ratio")

    def _in_padding(self, places: list[Places], width: int, height: int) -> Places | None:
        """The first point or box that reaches into the padding; None if training pads no image."""
        if self.aspect_ratio != "pad":
            return None
        padded = FrameTransform.of(width=width, height=height, frame=self.frame, aspect_ratio="pad")
        low, high = padded.shift, [self.frame - shift for shift in padded.shift]

        def outside(place: Places) -> bool:
            return any(not low[i % 2] - TOLERANCE <= at <= high[i % 2] + TOLERANCE for i, at in enumerate(place))

        return next((place for place in places if outside(place)), None)

    def _read_size(self, name: str) -> tuple[int, int]:
        """Width and height; (0, 0) for an image that cannot be read, which the check of images names."""
        try:
            with opened_image(path_inside(self.image_folder, name)) as image:
                return image.size
        except AuroraError:
            return 0, 0


def _places(record: Mapping[str, Any]) -> Iterator[Places]:
    """Points and boxes of a record; of numbers in its text just those that are tokens or stand behind a letter."""
    about = record.get("aurora") or {}
    yield from (tuple(place) for place in (*about.get("points", {}).values(), *about.get("boxes", ())))
    for turn in record["conversations"]:
        for mention in mentions(turn["value"]):
            if mention.letter or "<" in turn["value"][mention.start : mention.end]:
                yield mention.place
