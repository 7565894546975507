"""A model that needs no training: it says what a test says."""

from collections.abc import Callable, Sequence

from llava_aurora.generation.result import Answer
from llava_aurora.tokens.perception import PerceptionTokens


class StubPredictor:
    """A model that says what a function of question and beginning says.

    Args:
        respond: (prompt, text so far) to the rest of the text; asked for each row, whose image is `image` meanwhile.
    """

    def __init__(
        self, tokenizer, perception: PerceptionTokens, respond: Callable[[str, str], str], *, image_size: int = 56
    ) -> None:
        self.tokenizer, self.perception, self.respond, self.image_size = tokenizer, perception, respond, image_size
        self.image, self.aspect_ratio = None, "resize"
        self.identity = {"model": "stub", "fingerprint": "0"}
        self.batches: list[list[str]] = []
        self.settings: dict = {}

    def write(self, images: Sequence, questions: Sequence[str], *, answer_start=None, **settings) -> list[Answer]:
        starts = answer_start or [[]] * len(questions)
        assert len(images) == len(questions) == len(starts)
        self.batches.append(list(questions))
        self.settings = settings
        results = []
        for self.image, question, start in zip(images, questions, starts, strict=True):
            so_far = self.tokenizer.decode(start, spaces_between_special_tokens=False) if start else ""
            rest = self.respond(question, so_far)
            ids = (*start, *self.tokenizer(rest, add_special_tokens=False).input_ids)
            results.append(Answer(text=(so_far + rest).strip(), ids=ids, finished=True))
        return results
