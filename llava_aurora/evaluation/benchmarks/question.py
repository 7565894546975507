"""A question of a benchmark: what the model is shown and asked, and the truth it is judged by."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from llava_aurora.data.images.frame import FrameTransform
from llava_aurora.data.images.image_files import open_image
from llava_aurora.data.sources.tables import EmbeddedImage
from llava_aurora.errors import AuroraError
from llava_aurora.generation.result import asked
from llava_aurora.tasks.answers import AnswerKind
from llava_aurora.tasks.marks import mark_points
from llava_aurora.tasks.outcome import TrueMask
from llava_aurora.vqvae.maps import read_depth_map

REASONINGS = ("chain", "direct")
BY_PIXELS = "pixels"  # a third way, for masks of phrases: the box, then each cell of it (generation/pixel_masks.py)
WAYS = (*REASONINGS, BY_PIXELS)


@dataclass(frozen=True, kw_only=True)
class Question:
    """One question."""

    id: str  # unique in its benchmark
    image: Path | EmbeddedImage  # a file, or an image inside a Parquet file
    text: str  # without options, and without a word on how to reason
    kind: AnswerKind  # of the answer
    answer: str  # the truth, as `scoring.stated` returns it: a letter, a number in digits, or one of `choices`
    category: str  # of the table that it is counted in, such as "3 points"
    family: str  # name of the task family that it is about
    image_id: str | None = None  # what tells its image from others, where several questions are about one
    choices: tuple[str, ...] = ()  # what can be named, where the kind is "choice"
    chance: float | None = None  # chance level, in [0, 1]; None where that is not known
    frame: int = 336  # side of the square frame that `points` and `boxes` refer to; the whole image fills it
    # the marked points (x, y) by letter, where they are known
    points: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    unmarked: bool = False  # the points are still to be drawn into the image
    boxes: tuple[tuple[int, ...], ...] | None = None  # the true ones (x1, y1, x2, y2), where they are known
    masks: tuple[TrueMask, ...] | None = None  # the true ones, where they are known
    phrase: str = ""  # whose mask is asked for
    aspect_ratio: str = "resize"  # how the model's square shows the image, see `FrameTransform.of`
    depth: Path | None = None  # file of the true depth map, where there is one
    # of the true span of a token kind, by its name, where they are known without encoding
    codes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def prompt(self, reasoning: str, reasoning_prompt: str | None = None) -> str:
        """What the model is asked: "direct" as it is, else to think step by step or as `reasoning_prompt` says."""
        return asked(self.text, "chain" if reasoning == BY_PIXELS else reasoning, reasoning_prompt)

    def open(self) -> Image.Image:
        """The image as the model is shown it, RGB. Raises AuroraError naming file and question."""
        try:
            if isinstance(self.image, EmbeddedImage):
                picture = self.image.open()
            else:
                picture = open_image(self.image)
        except AuroraError as error:
            raise AuroraError(f"question {self.id}: {error}") from error
        if not self.unmarked:
            return picture
        return mark_points(picture, self.points, frame=self.frame)

    def in_image(self, mask: np.ndarray) -> np.ndarray:
        """A mask over the frame, bool (S, S), in pixels of the image, bool (H, W), if its true masks are known."""
        width, height = self.masks[0].size if self.masks else self.open().size
        moved = FrameTransform.of(width=width, height=height, frame=len(mask), aspect_ratio=self.aspect_ratio)
        return moved.image(mask, (width, height))

    def true_depth(self) -> np.ndarray | None:
        """uint8 (H, W), higher = closer, 0 = unknown; None if there is none. Raises AuroraError naming the file."""
        return None if self.depth is None else read_depth_map(self.depth)


@dataclass(frozen=True)
class QuestionSet:
    """The questions of a benchmark, and why others of its files are not asked, with how many there are."""

    questions: tuple[Question, ...]
    left_out: Mapping[str, int] = field(default_factory=dict)

    @property
    def family(self) -> str:
        """Name of the task family that the questions are about."""
        return self.questions[0].family

    @property
    def digest(self) -> str:
        """What tells these questions from others: a hash of ids, texts and answers."""
        lines = [json.dumps([q.id, q.text, q.kind, q.answer]) for q in self.questions]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def question_set(questions: Iterable[Question], *, where: Path, left_out: Mapping[str, int]) -> QuestionSet:
    """Checks that there are questions, and that no id occurs twice. Raises AuroraError naming the folder."""
    found = tuple(questions)
    if not found:
        reasons = "; ".join(f"{number} left out: {reason}" for reason, number in left_out.items())
        raise AuroraError(f"{where}: holds no question of this benchmark{f' ({reasons})' if reasons else ''}")
    if len(families := {question.family for question in found}) > 1:
        raise AuroraError(
            f"{where}: its questions are of several task families ({', '.join(sorted(families))});"
            " use one folder per family"
        )
    repeated = [id for id, times in Counter(question.id for question in found).items() if times > 1]
    if repeated:
        raise AuroraError(f"{where}: question {repeated[0]} occurs twice; give a folder with one copy of the benchmark")
    return QuestionSet(found, dict(left_out))
