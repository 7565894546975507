"""Masks of phrases by single pixels: the box first, then for each cell of it whether it is part of the thing.

After PAE-LaMM (arXiv 2408.03940). The box is what a model's chain begins with. The questions about the middles of its
cells are packed (packed.py), and Yes or No is the likelier of the two. Box and cells become the span that a model with
mask tokens writes by itself, so that all that reads masks reads these.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from llava_aurora.errors import AuroraError
from llava_aurora.generation.inputs import start_ids
from llava_aurora.generation.predictor import Predictor
from llava_aurora.generation.result import Answer, with_costs
from llava_aurora.tasks.pixel_masks import BITS, SAID, PlaceFacts
from llava_aurora.tasks.pixel_masks import SIDE as PLAIN_SIDE
from llava_aurora.tasks.points import mentions
from llava_aurora.tasks.prompts import Prompts
from llava_aurora.tasks.records import RecordWriter
from llava_aurora.tasks.registry import family_of, task_named
from llava_aurora.tokens.mask import EDGES, SIDE, MaskKind

_SPARE = 4  # tokens that a box's sentence may have beyond those of the usual one


def write_pixel_masks(
    predictor: Predictor,
    images: Sequence[Image.Image],
    questions: Sequence[str],
    phrases: Sequence[str],
    *,
    max_new_tokens: int = 512,
    conversation: str = "vicuna_v1",
    **options: Any,
) -> list[Answer]:
    """Answers as `box_then_mask` writes them: a box, and the mask that the cells of it make.

    An answer without a box that has an area stays as it is, such as that there is no such thing.

    Args:
        questions: for the masks of the phrases, one for each image.
        max_new_tokens: at most, of the sentence with the box.
        options: others of `Predictor.write`, for that sentence.
    Raises AuroraError as `Predictor.write`, or for a model without mask tokens.
    """
    asking = _Asking(predictor)
    firsts = with_costs(
        predictor.write(
            images,
            questions,
            reasoning="chain",
            conversation=conversation,
            max_new_tokens=min(max_new_tokens, asking.sentence_length(phrases)),
            **options,
        )
    )
    answers = []
    for image, phrase, first in zip(images, phrases, firsts, strict=True):
        box = next((each.place for each in mentions(first.text) if len(each.place) == EDGES), None)
        edges = edges_of(box, asking.frame) if box is not None else None
        if box is None or edges is None:
            answers.append(first)
            continue
        cells = asking.questions(edges, phrase)
        said = with_costs(
            predictor.write(
                [image] * len(cells),
                cells,
                answer_start=[asking.start] * len(cells),
                among=asking.choices,
                max_new_tokens=1,
                decoding="packed",
                conversation=conversation,
            )
        )
        bits = [each.ids[len(asking.start)] == asking.choices[1] for each in said]
        text = asking.answer.format(
            box=asking.writer.coordinates(box), mask=asking.kind.family.text([*edges, *np.packbits(bits).tolist()])
        )
        costs = [(each.seconds, each.token_passes) for each in (first, *said)]
        seconds, passes = (None if None in each else sum(each) for each in zip(*costs, strict=True))
        ids = tuple(start_ids(predictor.tokenizer, text, count=1)[0])
        answers.append(Answer(text=text, ids=ids, finished=True, seconds=seconds, token_passes=passes))
    return answers


def edges_of(box: Sequence[int], frame: int) -> list[int] | None:
    """A box (x1, y1, x2, y2) of the frame as the edges of a mask span, in 256ths; None for one that has no area."""
    if max(box) > frame or box[2] <= box[0] or box[3] <= box[1]:
        return None
    low = [place * SIDE // frame for place in box[:2]]
    far = [frame if place == frame - 1 else place for place in box[2:]]  # the last pixel stands for the border too
    return [*low, *(max(math.ceil(place * SIDE / frame) - 1, first) for place, first in zip(far, low, strict=True))]


class _Asking:
    """How a model is asked. Raises AuroraError for one without mask tokens."""

    def __init__(self, predictor: Predictor) -> None:
        kinds = predictor.perception.kinds if predictor.perception is not None else {}
        kind = kinds.get("mask")
        if not isinstance(kind, MaskKind):
            raise AuroraError(
                "masks by pixels are written in mask tokens, which this model has not; train it with mask among"
                " --perception_modalities"
            )
        self.kind, in_tokens = kind, "box" in kinds
        self.frame = kinds["box"].family.size if in_tokens else predictor.image_size
        self.writer = RecordWriter(prompts=Prompts.plain(), families=tuple(each.family for each in kinds.values()))
        self.task = task_named("pixel_segmentation" if in_tokens else "pixel_segmentation_plain")
        self.side = self.frame if in_tokens else PLAIN_SIDE
        self.tokenizer, self.chain = predictor.tokenizer, task_named("box_then_mask")
        self.answer = self.chain.wording.answers[0]
        no, yes = (start_ids(self.tokenizer, word, count=1)[0] for word in (SAID if in_tokens else BITS))
        common = next(place for place, pair in enumerate(zip(no, yes, strict=False)) if pair[0] != pair[1])
        self.start, self.choices = no[:common], (no[common], yes[common])

    def sentence_length(self, phrases: Sequence[str]) -> int:
        """Tokens of the sentence that gives the box, or denies that there is such a thing."""
        assert self.chain.none is not None
        box = self.answer.partition("{mask}")[0].format(box=self.writer.coordinates([self.frame - 1] * EDGES))
        denials = (self.chain.none[1].answers[0].format(thing=phrase) for phrase in phrases)
        return max(len(start_ids(self.tokenizer, text, count=1)[0]) for text in (box, *denials)) + _SPARE

    def questions(self, edges: Sequence[int], phrase: str) -> list[str]:
        """About the middle of each cell of a box, row by row."""
        family, (columns, rows) = family_of(self.task), (self._middles(edges[axis], edges[axis + 2]) for axis in (0, 1))
        facts = (PlaceFacts(phrase, (x, y), self.side, False, self.frame) for y in rows for x in columns)
        values = (family.values(each, self.writer.coordinates, {}) for each in facts)
        return [self.task.wording.questions[0].format(**each) for each in values]

    def _middles(self, first: int, last: int) -> list[int]:
        """Of the cells between two edges, in 256ths, on the grid that is asked about."""
        width = (last + 1 - first) / self.kind.cells
        return [int((first + (cell + 0.5) * width) * self.side / SIDE) for cell in range(self.kind.cells)]
