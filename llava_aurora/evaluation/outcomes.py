"""Asks a model the questions of records and compares what it writes with the truth they keep."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.progress import Progress

from llava_aurora.data.images.image_reader import open_image
from llava_aurora.errors import AuroraError
from llava_aurora.evaluation.continuation import continue_answers
from llava_aurora.evaluation.written import closest_by, read_written
from llava_aurora.generation.generate import Answer, generate
from llava_aurora.tasks.answers import stated_answer
from llava_aurora.tasks.task import Record
from llava_aurora.tokens.perception import PerceptionTokens
from llava_aurora.vqvae.maps import read_depth_map, resize_nearest


@dataclass(frozen=True)
class Outcome:
    """One question asked.

    Attributes:
        record: with the truth under "aurora".
        answer: what the model wrote.
        stated: the letter or number it says, None if it says none.
        depth: the map it wrote, uint8 (H, W), higher = closer; None if it wrote none.
        boxes: the boxes it wrote, in the coordinate frame.
    """

    record: Record
    answer: Answer
    stated: str | None
    depth: np.ndarray | None
    boxes: tuple[tuple[int, ...], ...]

    @property
    def truth(self) -> dict[str, Any]:
        return self.record["aurora"]

    @property
    def correct(self) -> bool:
        return self.stated == self.truth.get("answer")

    def read_out(self, *, frame: int) -> str | None:
        """The letter of the point that is closest by the map the model wrote, whatever it answered.

        Args:
            frame: side of the frame that the points' coordinates refer to.
        """
        if self.depth is None or "points" not in self.truth:
            return None
        return closest_by(self.depth, self.truth["points"], frame=frame)


def ask(
    loaded: tuple[Any, Any, Any, int],
    records: Sequence[Record],
    *,
    images: Path,
    batch_size: int = 32,
    description: str = "Asking",
    **options: Any,
) -> list[Outcome]:
    """Asks the question of each record.

    Args:
        loaded: what `load_pretrained_model` returned.
        records: from records.py.
        images: the folder their image paths are relative to.
        batch_size: questions at a time.
        description: of the progress bar.
        options: for `generate`.

    Raises:
        AuroraError: if an image cannot be read; it names record and file.
    """
    tokenizer, model, image_processor, _ = loaded
    outcomes: list[Outcome] = []
    with Progress(transient=True) as progress:
        task = progress.add_task(description, total=len(records))
        for start in range(0, len(records), batch_size):
            batch = records[start : start + batch_size]
            answers = generate(
                tokenizer,
                model,
                image_processor,
                images=[_open(images, record) for record in batch],
                questions=[question(record) for record in batch],
                **options,
            )
            outcomes += [
                outcome(record, answer, model.perception) for record, answer in zip(batch, answers, strict=True)
            ]
            progress.advance(task, len(batch))
    return outcomes


def go_on(
    loaded: tuple[Any, Any, Any, int],
    outcomes: Sequence[Outcome],
    maps: Sequence[Sequence[int]],
    *,
    images: Path,
    batch_size: int = 32,
    description: str = "Going on",
) -> list[Outcome]:
    """What the model goes on with when other codes stand in the place of the map that it wrote.

    Args:
        loaded, images, batch_size, description: as for `ask`.
        outcomes: whose answers hold a map each.
        maps: the codes put in, of each.
    """
    tokenizer, model, image_processor, _ = loaded
    perception = model.perception
    family, found = perception.kinds["depth"].family, []
    with Progress(transient=True) as progress:
        task = progress.add_task(description, total=len(outcomes))
        for start in range(0, len(outcomes), batch_size):
            batch = outcomes[start : start + batch_size]
            starts = []
            for before, codes in zip(batch, maps[start : start + batch_size], strict=True):
                written = read_written(before.answer.text, before.answer.ids, perception)
                starts.append([*before.answer.ids[: written.map_start], *perception.ids.ids(family, codes)])
            answers = continue_answers(
                tokenizer,
                model,
                image_processor,
                images=[_open(images, before.record) for before in batch],
                questions=[question(before.record) for before in batch],
                starts=starts,
            )
            found += [outcome(before.record, answer, perception) for before, answer in zip(batch, answers, strict=True)]
            progress.advance(task, len(batch))
    return found


def question(record: Record) -> str:
    """The human's first words, without the image token."""
    return record["conversations"][0]["value"].replace("<image>", "").strip()


def outcome(record: Record, answer: Answer, perception: PerceptionTokens | None) -> Outcome:
    """Reads a model's answer: what it states, and the pictures it wrote. A map that was cut off counts as none."""
    written = read_written(answer.text, answer.ids, perception)
    decoded = None
    if perception is not None and written.codes is not None:
        decoded = perception.kinds["depth"].decode(written.codes)
    stated = stated_answer(answer.text, task=record["aurora"]["task"])
    return Outcome(record=record, answer=answer, stated=stated, depth=decoded, boxes=written.boxes)


def accuracy(outcomes: Sequence[Outcome], right: Callable[[Outcome], bool]) -> float:
    """Share of outcomes that are right; NaN of none."""
    return sum(map(right, outcomes)) / len(outcomes) if outcomes else float("nan")


def true_depth(record: Record, *, images: Path, size: int) -> np.ndarray:
    """The true map of a record, uint8 (size, size), by nearest neighbour."""
    return resize_nearest(read_depth_map(images / record["aurora"]["depth"]), (size, size))


def _open(images: Path, record: Record) -> Image.Image:
    try:
        return open_image(images / record["image"])
    except AuroraError as error:
        raise AuroraError(f"record {record['id']}: {error}") from error
