"""Asking a model: images and questions in, texts out, in batches.

Rows of a batch are padded on the left, so that each continues from its own last word; a batch writes what each of its
rows would write alone.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from llava.constants import DEFAULT_IMAGE_TOKEN, IMAGE_TOKEN_INDEX
from llava.conversation import conv_templates
from llava.mm_utils import process_images, tokenizer_image_token
from PIL import Image
from transformers import LogitsProcessorList

from llava_aurora.errors import AuroraError
from llava_aurora.generation.constraint import PerceptionLogitsProcessor
from llava_aurora.modeling.aurora_llama import AuroraLlamaForCausalLM


@dataclass(frozen=True)
class Answer:
    """What a model wrote. `finished` is False if it was cut off by `max_new_tokens`."""

    text: str
    ids: list[int]
    finished: bool


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
    max_new_tokens: int = 512,
    constrained: bool = True,
    **options: Any,
) -> list[Answer]:
    """Answers one question about each image, all in one batch.

    Args:
        tokenizer, model, image_processor: from `load_pretrained_model`, in its order.
        images: one for each question; any size and mode.
        questions: without the image token.
        conversation: name of LLaVA's conversation template.
        answer_start: words put into the model's mouth: every answer begins with them.
        max_new_tokens: for each answer, without `answer_start`.
        constrained: keep spans of perception tokens well-formed; without tokens in the model it changes nothing.
        options: for transformers' `generate` (do_sample, num_beams, …); greedy by default.

    Raises:
        AuroraError: for an empty question, or as many questions as images are not given.
    """
    if len(images) != len(questions):
        raise AuroraError(f"{len(questions)} questions for {len(images)} images; one each is needed")
    if not all(question.strip() for question in questions):
        raise AuroraError("a question is empty")
    prompts = [_prompt(question, conversation) for question in questions]
    start = tokenizer(answer_start, add_special_tokens=False).input_ids if answer_start else []
    rows = [tokenizer_image_token(prompt, tokenizer, IMAGE_TOKEN_INDEX) + start for prompt in prompts]
    width = max(map(len, rows))
    padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.unk_token_id
    input_ids = torch.tensor([[padding] * (width - len(row)) + row for row in rows], device=model.device)
    attention_mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=model.device)
    pixels = process_images([image.convert("RGB") for image in images], image_processor, model.config)
    pixels = (
        [p.to(model.device, model.dtype) for p in pixels]
        if isinstance(pixels, list)
        else pixels.to(model.device, model.dtype)
    )
    processors = LogitsProcessorList()
    if constrained and model.perception is not None:
        processors.append(PerceptionLogitsProcessor(model.perception, answer_start=start))
    with _left_padded(model):
        written = model.generate(
            input_ids,
            images=pixels,
            image_sizes=[image.size for image in images],
            attention_mask=attention_mask,
            max_new_tokens=max_new_tokens,
            logits_processor=processors,
            pad_token_id=padding,
            eos_token_id=tokenizer.eos_token_id,
            **{"do_sample": False, "use_cache": True, **options},
        )
    return [_answer(start + row, tokenizer) for row in written.tolist()]


def _prompt(question: str, conversation: str) -> str:
    if conversation not in conv_templates:
        raise AuroraError(f"unknown conversation {conversation!r}; there are: {', '.join(sorted(conv_templates))}")
    template = conv_templates[conversation].copy()
    template.append_message(template.roles[0], f"{DEFAULT_IMAGE_TOKEN}\n{question}")
    template.append_message(template.roles[1], None)
    return template.get_prompt()


def _answer(row: list[int], tokenizer: Any) -> Answer:
    finished = tokenizer.eos_token_id in row
    ids = row[: row.index(tokenizer.eos_token_id)] if finished else row
    text = tokenizer.decode(ids, skip_special_tokens=True, spaces_between_special_tokens=False)
    return Answer(text=text.strip(), ids=ids, finished=finished)


@contextmanager
def _left_padded(model: AuroraLlamaForCausalLM) -> Iterator[None]:
    """LLaVA pads on the side that the config names: left for generation, whatever it was for training."""
    side = getattr(model.config, "tokenizer_padding_side", "right")
    model.config.tokenizer_padding_side = "left"
    try:
        yield
    finally:
        model.config.tokenizer_padding_side = side
