"""Records that are made of a source of images, and the files that they become: training, and images kept out of it."""

import zlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from llava_aurora.data.images.frame import ASPECT_RATIOS
from llava_aurora.data.store.record_file import refuse_other_than_records
from llava_aurora.errors import AuroraError
from llava_aurora.files import write_json
from llava_aurora.tasks.task import Record


@dataclass(kw_only=True)
class MadeRecords:
    """What was made of a source.

    Raises AuroraError if the share of the images to keep out and their file do not go together, or a file is there and
    holds something else than records.
    """

    out: Path  # file of the records to train on
    validation_out: Path | None = None  # the same of the images kept out
    validation_share: float = 0.0  # of the images, in [0, 1); which, is decided by the seed and the image alone
    seed: int = 0
    # training, validation: the records of both files
    training: list[Record] = field(default_factory=list)
    validation: list[Record] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)  # what could not be used, one line each
    passed_over: Counter[str] = field(default_factory=Counter)  # what was left out because of a convention, by kind

    def __post_init__(self) -> None:
        if not 0 <= self.validation_share < 1:
            raise AuroraError(f"validation_share is a share of at least 0 and less than 1, not {self.validation_share}")
        if (self.validation_out is not None) != (self.validation_share > 0):
            raise AuroraError("a file for validation and its share of the images must be given together")
        for path in (self.out, self.validation_out):
            refuse_other_than_records(path)

    def of_image(self, name: int | str) -> list[Record]:
        """The list that all records of an image belong to."""
        kept_out = zlib.crc32(f"{self.seed}/{name}".encode()) < self.validation_share * 2**32
        return self.validation if kept_out else self.training

    def write(self, *, lacking: str = "no image has what is asked about") -> None:
        """Writes the files. Raises AuroraError if one would be empty: the first failure or, without one, `lacking`."""
        files = ((self.out, self.training), (self.validation_out, self.validation))
        for path, records in files:
            if path is not None and not records:
                first = f"{len(self.failures)} failures, the first: {self.failures[0]}" if self.failures else lacking
                raise AuroraError(f"{path}: no records could be made; {first}")
        for path, records in files:
            if path is not None:
                write_json(path, records, indent=None)


def check_aspect_ratio(name: str) -> None:
    """Raises AuroraError unless it is an aspect ratio of `FrameTransform.of`."""
    if name not in ASPECT_RATIOS:
        raise AuroraError(f"unknown aspect ratio {name!r}; available: {', '.join(ASPECT_RATIOS)}")
