"""The public API for asking a model: images or their files, one question or many."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast, overload

from PIL import Image

from llava_aurora.batches import batches
from llava_aurora.data.images.image_files import open_image
from llava_aurora.errors import AuroraError
from llava_aurora.generation.predictor import Predictor
from llava_aurora.generation.result import Reasoning, Result

ImageLike = Image.Image | str | Path


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
        batch_size: int = 16,
        **options: Any,
    ) -> Result | list[Result]:
        """Asks one question, or many in batches; a batch gives what one at a time gives.

        Args:
            image: an image or its path, or a list of them.
            question: without the image token; one, or a list. One of the two may be single beside a list.
            reasoning: "chain" asks the model to think step by step, "direct" leaves the question as it is.
            batch_size: questions at once.
            options: for `Predictor.write`: max_new_tokens, constrained, decoding, reasoning_prompt, …

        Returns:
            a result, or a list of them if `image` or `question` is one.

        Raises:
            AuroraError: for an image that cannot be read (it names the file), lists of unequal length, and as
                `Predictor.write`.
        """
        several = not isinstance(image, str | Path | Image.Image) or not isinstance(question, str)
        results: list[Result] = []
        for batch in batches(zip(*_pairs(image, question), strict=True), batch_size):
            images, questions = [open_image(each) for each, _ in batch], [each for _, each in batch]
            results += self.write(images, questions, reasoning=reasoning, **options)
        return results if several else results[0]

    def stream(
        self, image: ImageLike, question: str, *, reasoning: Reasoning = "chain", **options: Any
    ) -> Iterator[str | Result]:
        """Asks one question and yields the text in pieces as it is written, then the result.

        Arguments and errors as for `ask`; errors about anything but the image come with the first piece. The pieces
        together are the result's text. Writing stops when the iterator is closed.
        """
        return self.write_pieces(open_image(image), question, reasoning=reasoning, **options)


def _pairs(image: Any, question: Any) -> tuple[list[ImageLike], list[str]]:
    images = [image] if isinstance(image, str | Path | Image.Image) else list(image)
    questions = [question] if isinstance(question, str) else list(question)
    if len(images) != len(questions):
        if isinstance(question, str):
            questions *= len(images)
        elif isinstance(image, str | Path | Image.Image):
            images *= len(questions)
        else:
            raise AuroraError(f"{len(questions)} questions for {len(images)} images; give one each, or one for all")
    return cast(list[ImageLike], images), questions
