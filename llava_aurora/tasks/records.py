"""From facts of an image to training records in LLaVA's own JSON format.

A record is {"id", "image", "conversations"}, "image" a list where a second turn shows a crop; beside that,
under "aurora", it keeps its task and the truth (points, boxes, answer) for evaluation, which LLaVA overlooks. Torch is
not needed here.
"""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from llava_aurora.tasks.annotated import AnnotatedImage, Drawing
from llava_aurora.tasks.prompts import Prompts
from llava_aurora.tasks.registry import family_of, task_named, tasks
from llava_aurora.tasks.task import Record, Task
from llava_aurora.tokens.vocabulary import TokenFamily, by_kind


@dataclass(frozen=True)
class RecordWriter:
    """Writes the records of one data set."""

    prompts: Prompts  # the wording
    # of the tokens that records hold. Without those of coordinates, coordinates are plain numbers.
    families: tuple[TokenFamily, ...] = ()

    def write(self, task: Task | str, facts: Any, *, name: str, image: str | None, rng: np.random.Generator) -> Record:
        """One record.

        Args:
            facts: what it is about, from the task's family.
            image: its path in the image folder; not used by tasks without an image. Beside it, a task with a second
                turn names crops/NAME.png, which the caller makes.
        Raises ValueError if the record needs tokens of a kind that this writer lacks.
        """
        task = task_named(task) if isinstance(task, str) else task
        family = family_of(task)
        known = by_kind(self.families)
        if missing := [kind for kind in task.span_in if kind not in known]:
            raise ValueError(f"{task.name} records hold a {missing[0]} span, and this writer has no tokens for it")
        wording = task.none[0] if task.none and family.is_none(facts) else task.name
        values = family.values(facts, self.coordinates, known)
        question, answer = self.prompts.fill(wording, rng, **values)
        turns = [(question, answer), *([(task.again[0], task.again[1].format(**values))] if task.again else [])]
        place = "<image>\n" if task.shows_image else ""
        return {
            "id": f"{name}/{wording}",
            **({"image": [image, f"crops/{name}.png"] if task.again else image} if task.shows_image else {}),
            "conversations": [
                turn
                for asked, said in turns
                for turn in ({"from": "human", "value": place + asked}, {"from": "gpt", "value": said})
            ],
            "aurora": {"task": wording, **family.truth(task, facts)},
        }

    def coordinates(self, values: Sequence[int]) -> str:
        """A point or box as tokens, or as plain numbers where there are no tokens for it."""
        pixels = by_kind(self.families).get("box")
        if pixels is not None:
            return pixels.text(values)
        return f"({','.join(str(int(value)) for value in values)})"


def write_records(
    annotated: AnnotatedImage,
    *,
    image: str,
    shares: Mapping[str, float],
    drawing: Drawing,
    writer: RecordWriter,
    marked_image: str | None = None,
    seed: int = 0,
) -> Iterator[Record]:
    """The records of one image. Each depends on the image's name, its own task and the seed alone.

    Args:
        annotated: the image and what is known of it.
        shares: records of each task, on average; 0.5 asks every second image.
        drawing: what is drawn of it.
        marked_image: path of a copy with its points drawn in, for the tasks that show marks.
        seed: of everything that is drawn at random.
    """
    for task in tasks().values():
        rng = _generator(seed, annotated.name, task.name)
        if rng.random() >= shares.get(task.name, 0.0):
            continue
        family = family_of(task)
        facts = family.facts(task, annotated, drawing, _generator(seed, annotated.name, family.name))
        if facts is not None:
            shown = marked_image if task.marked else image
            yield writer.write(task, facts, name=annotated.name, image=shown, rng=rng)


def _generator(seed: int, image: str, about: str) -> np.random.Generator:
    return np.random.default_rng([seed, zlib.crc32(image.encode()), zlib.crc32(about.encode())])
