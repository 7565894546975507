"""The public API for asking a model: images or their files, one question or many."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, overload

import numpy as np
from PIL import Image

from llava_aurora.batches import batches
from llava_aurora.data.images.image_files import open_image
from llava_aurora.errors import AuroraError
from llava_aurora.generation.points import Points, with_points
from llava_aurora.generation.predictor import Predictor
from llava_aurora.generation.regions import Region, with_region
from llava_aurora.generation.result import Reasoning, Result

ImageLike = Image.Image | np.ndarray | str | Path


class Aurora(Predictor):
    """A model to ask; `from_pretrained` loads one."""

    @overload
    def ask(self, image: ImageLike, question: str, **options: Any) -> Result: ...

    @overload
    def ask(self, image: Sequence[ImageLike], question: str | Sequence[str], **options: Any) -> list[Result]: ...

    @overload
    def ask(self, image: ImageLike, question: Sequence[str], **options: Any) -> list[Result]: ...

    def ask(
        self,
        image: ImageLike | Sequence[ImageLike],
        question: str | Sequence[str],
        *,
        reasoning: Reasoning = "chain",
        points: Points | Sequence[Points] = MappingProxyType({}),
        region: Region | None = None,
        look_again: bool = False,
        batch_size: int = 16,
        **options: Any,
    ) -> Result | list[Result]:
        """Asks one question, or many in batches; a batch gives what one at a time gives.

        Args:
            image: an image, its path, or its pixels, uint8 (H, W, 3) or (H, W); or a list of them.
            question: without the image token; one, or a list. One of the two may be single beside a list.
            reasoning: "chain" asks the model to think step by step, "direct" leaves the question as it is.
            points: (x, y) in pixels of the image by letter, see `with_points`; of all questions, or a list.
            region: that replaces `{region}` in the questions, see `with_region`.
            look_again: ask again about the last box of each answer, enlarged (`Predictor.look_again`); by chain only.
            batch_size: questions at once.
            options: for `Predictor.write`: max_new_tokens, constrained, decoding, reasoning_prompt, …
        Returns a result, or a list of them if `image` or `question` is one.
        Raises AuroraError for an image that cannot be read (it names the file), lists of unequal length, and as
        `Predictor.write`.
        """
        if look_again and reasoning != "chain":
            raise AuroraError("looking again is a chain; leave reasoning as it is, or look_again out")
        several = not isinstance(image, ImageLike) or not isinstance(question, str)
        pairs, results = _pairs(image, question), list[Result]()
        marked = [points] * len(pairs) if isinstance(points, Mapping) else list(points)
        if len(marked) != len(pairs):
            raise AuroraError(f"{len(marked)} sets of points for {len(pairs)} questions; give one, or one each")
        for batch in batches(zip(pairs, marked, strict=True), batch_size):
            prepared = [self._prepared(*pair, each, region) for pair, each in batch]
            images, questions = map(list, zip(*prepared, strict=True))
            if look_again:
                results += self.look_again(images, questions, **options)
            else:
                results += self.write(images, questions, reasoning=reasoning, **options)
        return results if several else results[0]

    def stream(
        self,
        image: ImageLike,
        question: str,
        *,
        reasoning: Reasoning = "chain",
        points: Points = MappingProxyType({}),
        region: Region | None = None,
        **options: Any,
    ) -> Iterator[str | Result]:
        """Asks one question and yields the text in pieces as it is written, then the result.

        Arguments and errors as for `ask`; errors about anything but the image come with the first piece. The pieces
        together are the result's text. Writing stops when the iterator is closed.
        """
        return self.write_pieces(*self._prepared(image, question, points, region), reasoning=reasoning, **options)

    def _prepared(
        self, image: ImageLike, question: str, points: Points, region: Region | None
    ) -> tuple[Image.Image, str]:
        opened = open_image(Image.fromarray(image) if isinstance(image, np.ndarray) else image)
        if region is not None:
            kinds = self.perception.kinds if self.perception is not None else {}
            question = with_region(kinds, partial(self._transform, opened.size), question, region, size=opened.size)
        return with_points(self, opened, question, points) if points else (opened, question)


def _pairs(image: Any, question: Any) -> list[tuple[ImageLike, str]]:
    images = [image] if isinstance(image, ImageLike) else list(image)
    questions = [question] if isinstance(question, str) else list(question)
    if len(images) != len(questions):
        if isinstance(question, str):
            questions *= len(images)
        elif isinstance(image, ImageLike):
            images *= len(questions)
        else:
            raise AuroraError(
                f"{len(questions)} questions for {len(images)} images; give one per image, or one for all"
            )
    return list(zip(images, questions, strict=True))
