"""Asking a model: images and questions in, texts out, in batches.

Rows of a batch are padded on the left, so that each continues from its own last word; a batch writes what each of its
rows would write alone.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor
from transformers import GenerationMixin, LogitsProcessor, LogitsProcessorList, StoppingCriteria

from llava_aurora.errors import AuroraError
from llava_aurora.generation.constraint import PerceptionLogitsProcessor
from llava_aurora.generation.inputs import Inputs, prepare_inputs
from llava_aurora.generation.span_decoding import SpanDecoder
from llava_aurora.model.aurora_llama import AuroraLlamaForCausalLM


@dataclass(frozen=True)
class Timings:
    """How long a batch took.

    Attributes:
        preparing: seconds until the language model could begin: pixels, vision tower, tokenizer.
        generating: seconds after that.
        tokens: how many were written, all rows together.
        forward_passes: of the language model, each over the whole batch.
    """

    preparing: float
    generating: float
    tokens: int
    forward_passes: int

    @property
    def per_token(self) -> float:
        """Seconds of generating for each new token."""
        return self.generating / max(1, self.tokens)


@dataclass(frozen=True)
class Answer:
    """What a model wrote.

    Attributes:
        text: without the end-of-sequence token.
        ids: of the text.
        finished: False if it was cut off by `max_new_tokens` or the end of the context.
        log_probabilities: of each id among all that could come there, under the constraint and before any temperature;
            natural log, 0 for words that were put into the model's mouth. None after a beam search.
        timings: of the batch.
    """

    text: str
    ids: list[int]
    finished: bool
    log_probabilities: tuple[float, ...] | None = field(default=None, compare=False, repr=False)
    timings: Timings | None = field(default=None, compare=False, repr=False)


class Written(NamedTuple):
    """Ids of each row behind the prompt, their log-probabilities (empty if not noted), and forward passes."""

    rows: list[list[int]]
    log_probabilities: list[list[float]]
    passes: int


@torch.inference_mode()
def generate(
    tokenizer: Any,
    model: AuroraLlamaForCausalLM,
    image_processor: Any,
    *,
    images: Sequence[Image.Image],
    questions: Sequence[str],
    conversation: str = "vicuna_v1",
    answer_start: str = "",
    max_new_tokens: int | None = None,
    constrained: bool = True,
    decoder: SpanDecoder | None = None,
    **options: Any,
) -> list[Answer]:
    """Answers one question about each image, all in one batch.

    Args:
        tokenizer, model, image_processor: from `load_pretrained_model`, in its order.
        images: one for each question; any size and mode.
        questions: without the image token.
        conversation: name of LLaVA's conversation template.
        answer_start: words put into the model's mouth: every answer begins with them.
        max_new_tokens: for each answer, without `answer_start`; never more than the context leaves, which is the
            default.
        constrained: keep spans of perception tokens well-formed; without tokens in the model it changes nothing.
        decoder: of this model, writes in few forward passes (span_decoding.py); without one, transformers decodes.
        options: for transformers' `generate` (do_sample, num_beams, streamer, …); greedy by default. Beside a decoder
            there are `streamer` and `stopping_criteria` alone, which are asked after each pass.

    Raises:
        AuroraError: for an empty question, one that is longer than the context, as many questions as images are not
            given, or other options beside a decoder.
    """
    began = time.perf_counter()
    inputs = prepare_inputs(
        tokenizer,
        model,
        image_processor,
        images=images,
        questions=questions,
        conversation=conversation,
        answer_start=answer_start,
    )
    limits = [room if max_new_tokens is None else min(room, max_new_tokens) for room in inputs.room]
    prepared = time.perf_counter()
    if decoder is None:
        written, noted, passes = _decode(
            tokenizer, model, inputs, limit=max(limits), constrained=constrained, **options
        )
    else:
        written, noted, passes = _decode_in_few_passes(
            decoder, inputs, limits=limits, eos_token_id=tokenizer.eos_token_id, constrained=constrained, **options
        )
    answers = [_answer(inputs.start, row[:limit], tokenizer) for row, limit in zip(written, limits, strict=True)]
    timings = Timings(
        preparing=prepared - began,
        generating=time.perf_counter() - prepared,
        tokens=sum(len(ids) - len(inputs.start) + finished for _, ids, finished in answers),
        forward_passes=passes,
    )
    given = (0.0,) * len(inputs.start)
    return [
        Answer(text, ids, finished, (given + tuple(noted[row]))[: len(ids)] if noted else None, timings)
        for row, (text, ids, finished) in enumerate(answers)
    ]


def _decode(
    tokenizer: Any, model: AuroraLlamaForCausalLM, inputs: Inputs, *, limit: int, constrained: bool, **options: Any
) -> Written:
    """Continues every row by at most `limit` ids; rows that end earlier are padded."""
    processors = LogitsProcessorList()
    if constrained and model.perception is not None:
        processors.append(PerceptionLogitsProcessor(model.perception, answer_start=inputs.start))
    chosen = _ChosenScores(noting=options.get("num_beams", 1) == 1)
    processors.append(chosen)
    padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.unk_token_id
    written: Any = GenerationMixin.generate(  # what LLaVA's own calls too, once it has made the embeddings
        model,
        inputs_embeds=inputs.embeddings,
        attention_mask=inputs.attention_mask,
        max_new_tokens=limit,
        logits_processor=processors,
        pad_token_id=padding,
        eos_token_id=tokenizer.eos_token_id,
        **{"do_sample": False, "use_cache": True, **options},
    )
    rows = written.tolist()
    return Written(rows, chosen.log_probabilities(rows), chosen.steps)


def _decode_in_few_passes(
    decoder: SpanDecoder,
    inputs: Inputs,
    *,
    limits: list[int],
    eos_token_id: int,
    constrained: bool,
    streamer: Any = None,
    stopping_criteria: Sequence[StoppingCriteria] = (),
    **options: Any,
) -> Written:
    if options:
        raise AuroraError(f"{', '.join(options)}: decoding in few passes is greedy; leave out what it cannot do")
    assert decoder.model.perception is not None
    processor = PerceptionLogitsProcessor(decoder.model.perception) if constrained else None

    def on_written(_: int, new: list[int]) -> bool:
        ids = torch.tensor([new])
        if streamer is not None:
            streamer.put(ids)
        return any(bool(criterion(ids, None).all()) for criterion in stopping_criteria)

    rows = decoder.decode(inputs, processor=processor, limits=limits, eos_token_id=eos_token_id, on_written=on_written)
    if streamer is not None:
        streamer.end()
    passes = max(row.passes for row in rows)
    return Written([row.ids for row in rows], [row.log_probabilities for row in rows], passes)


def _answer(start: list[int], row: list[int], tokenizer: Any) -> tuple[str, list[int], bool]:
    """Text, ids, and whether it came to its end."""
    finished = tokenizer.eos_token_id in row
    ids = start + (row[: row.index(tokenizer.eos_token_id)] if finished else row)
    return decoded_text(ids, tokenizer), ids, finished


def decoded_text(ids: Sequence[int], tokenizer: Any) -> str:
    """Ids as text; perception tokens stay, special ones go."""
    return tokenizer.decode(ids, skip_special_tokens=True, spaces_between_special_tokens=False).strip()


class _ChosenScores(LogitsProcessor):
    """Changes nothing; notes how probable the chosen ids were. Each is seen in the step after it was chosen.

    Args:
        noting: False only counts steps, for a beam search, where rows change places between them.
    """

    def __init__(self, *, noting: bool) -> None:
        self.noting = noting
        self.steps = 0
        self._before: Tensor | None = None
        self._noted: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        if self._before is not None:
            self._note(self._before, input_ids[:, -1])
        self.steps += 1
        self._before = scores if self.noting else None
        return scores

    def log_probabilities(self, written: list[list[int]]) -> list[list[float]]:
        """For each row of what was written in the end, the natural log of each id's probability; [] if not noted."""
        if self._before is None:
            return []
        last = torch.tensor([row[self.steps - 1] for row in written], device=self._before.device)
        self._note(self._before, last)
        return torch.stack(self._noted, dim=1).tolist()

    def _note(self, scores: Tensor, chosen: Tensor) -> None:
        self._noted.append(scores.log_softmax(dim=1).gather(1, chosen[:, None])[:, 0])
