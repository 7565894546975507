"""Prepares images and questions for the language model: one batch of embeddings, padded on the left."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import Any, NamedTuple

import torch
from llava.constants import DEFAULT_IMAGE_TOKEN, IMAGE_TOKEN_INDEX
from llava.conversation import conv_templates
from llava.mm_utils import tokenizer_image_token
from PIL import Image
from torch import Tensor

from llava_aurora.data.images.image_reader import asked_pixels
from llava_aurora.errors import AuroraError
from llava_aurora.files import half_character
from llava_aurora.model.aurora_llama import AuroraLlamaForCausalLM

# What answers begin with: a text for all, or the token ids of each.
Starts = str | Sequence[Sequence[int]]
_CONFIG = Lock()
MOST_PIXELS = 50_000_000  # a photograph of 7000 × 4000 pixels stays as it is, padded too


class Turn(NamedTuple):
    """A question and its answer that come before another question, with the image that it was about."""

    image: Image.Image
    question: str
    answer: str


@dataclass(frozen=True)
class Inputs:
    """What a model continues."""

    embeddings: Tensor  # (B, T, D), image features put in; rows end at T, so that each continues from its own last word
    attention_mask: Tensor  # int64 (B, T), 0 at padding
    rows: list[list[int]]  # ids of each prompt, with IMAGE_TOKEN_INDEX where each image stands
    starts: list[list[int]]  # the last ids of each row, which belong to its answer
    room: list[int]  # how many new tokens the context leaves for each row, at least 1


@torch.inference_mode()
def prepare_inputs(
    tokenizer: Any,
    model: AuroraLlamaForCausalLM,
    image_processor: Any,
    *,
    images: Sequence[Image.Image],
    questions: Sequence[str],
    conversation: str = "vicuna_v1",
    answer_start: Starts = "",
    before: Sequence[Turn] = (),
) -> Inputs:
    """Tokenizes, runs the vision tower, and joins both. Arguments and errors as for `Predictor.write`."""
    if before and len(before) != len(questions):
        raise AuroraError(f"{len(before)} earlier turns for {len(questions)} questions; one for each is needed")
    if len(images) != len(questions):
        raise AuroraError(f"{len(questions)} questions for {len(images)} images; one question per image is needed")
    prompts, starts = prompt_ids(
        tokenizer, model, questions=questions, conversation=conversation, answer_start=answer_start, before=before
    )
    rows = [prompt + start for prompt, start in zip(prompts, starts, strict=True)]
    width = max(map(len, rows))
    input_ids = torch.tensor([[0] * (width - len(row)) + row for row in rows], device=model.device)
    attention_mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=model.device)
    pads = getattr(model.config, "image_aspect_ratio", None) == "pad"
    images = (
        [each for pair in zip((turn.image for turn in before), images, strict=True) for each in pair]
        if before
        else images
    )
    shown = [_shown(image, pads=pads) for image in images]
    pixels = asked_pixels(shown, image_processor, model.config)
    pixels = (
        [p.to(model.device, model.dtype) for p in pixels]
        if isinstance(pixels, list)
        else pixels.to(model.device, model.dtype)
    )
    with _CONFIG, _whole_and_left_padded(model):
        _, _, attention_mask, _, embeddings, _ = model.prepare_inputs_labels_for_multimodal(
            input_ids, None, attention_mask, None, None, pixels, image_sizes=[image.size for image in images]
        )
    lengths = attention_mask.sum(dim=1).tolist()
    room = room_of(questions, lengths, starts, model=model)
    return Inputs(embeddings, attention_mask, rows, starts, room)


def prompt_ids(
    tokenizer: Any,
    model: AuroraLlamaForCausalLM,
    *,
    questions: Sequence[str],
    conversation: str,
    answer_start: Starts,
    before: Sequence[Turn] = (),
) -> tuple[list[list[int]], list[list[int]]]:
    """Ids of each prompt, with an IMAGE_TOKEN_INDEX where each image stands, and those that its answer begins with.

    Errors as for `Predictor.write`.
    """
    if not all(question.strip() for question in questions):
        raise AuroraError("a question is empty")
    if half := half_character("".join(questions)):
        raise AuroraError(f"a question has {half}, half a surrogate pair, which cannot be encoded; write it in UTF-8")
    earlier: Sequence[Turn | None] = before or [None] * len(questions)
    texts = [_prompt(each, conversation, turn) for each, turn in zip(questions, earlier, strict=True)]
    prompts = [tokenizer_image_token(text, tokenizer, IMAGE_TOKEN_INDEX) for text in texts]
    starts = start_ids(tokenizer, answer_start, count=len(questions))
    _refuse_too_long(questions, [len(prompt) for prompt in prompts], context_length(model))
    return prompts, starts


def room_of(
    questions: Sequence[str],
    lengths: Sequence[int],
    starts: Sequence[Sequence[int]],
    *,
    model: AuroraLlamaForCausalLM,
) -> list[int]:
    """How many new tokens the context leaves behind each prompt, at least 1.

    Args: lengths: of the prompts, image and start included. Raises AuroraError for a question that leaves no room.
    """
    context = context_length(model)
    _refuse_too_long(questions, [length - len(start) for length, start in zip(lengths, starts, strict=True)], context)
    return [max(1, context - length) for length in lengths]


def start_ids(tokenizer: Any, answer_start: Starts, *, count: int) -> list[list[int]]:
    """The ids that each of `count` answers begins with. Raises AuroraError if there are fewer or more."""
    if isinstance(answer_start, str):
        ids = tokenizer(answer_start, add_special_tokens=False).input_ids if answer_start else []
        return [ids] * count
    if len(answer_start) != count:
        raise AuroraError(f"{len(answer_start)} answer beginnings for {count} questions; one per question is needed")
    return [list(ids) for ids in answer_start]


def decoded_text(ids: Sequence[int], tokenizer: Any) -> str:
    """Ids as text; perception tokens stay, special ones go."""
    return tokenizer.decode(ids, skip_special_tokens=True, spaces_between_special_tokens=False).strip()


def context_length(model: AuroraLlamaForCausalLM) -> int:
    """How many tokens a model was made for, image, question and answer together.

    The least of what its config says: positions, and the length of the records it was trained on.
    """
    config = model.config
    names = ("max_position_embeddings", "max_sequence_length", "tokenizer_model_max_length")
    return min(length for name in names if (length := getattr(config, name, None)) is not None)


def _refuse_too_long(questions: Sequence[str], lengths: Sequence[int], context: int) -> None:
    for question, length in zip(questions, lengths, strict=True):
        if length >= context:
            short = question if len(question) <= 60 else f"{question[:57]}..."
            raise AuroraError(
                f"the question {short!r} takes {length} tokens with its image, but the model's context is {context};"
                " ask a shorter one"
            )


def _shown(image: Image.Image, *, pads: bool) -> Image.Image:
    """What is given to LLaVA's processing, RGB: an image of more than MOST_PIXELS scaled down to them.

    LLaVA makes several copies of it in its own size, all but to scale them to the tower's few hundred pixels.

    Args: pads: whether it is padded to a square, whose pixels count then: 100,000 × 10 pixels are a small file, and
    their square takes 30 GB.
    """
    pixels = max(image.size) ** 2 if pads else image.width * image.height
    if pixels > MOST_PIXELS:
        scale = (MOST_PIXELS / pixels) ** 0.5
        image = image.resize([max(1, int(side * scale)) for side in image.size], Image.Resampling.BICUBIC)
    return image if image.mode == "RGB" else image.convert("RGB")


def _prompt(question: str, conversation: str, before: Turn | None) -> str:
    if conversation not in conv_templates:
        raise AuroraError(f"unknown conversation {conversation!r}; available: {', '.join(sorted(conv_templates))}")
    if DEFAULT_IMAGE_TOKEN in question:
        raise AuroraError(f"the question {question[:60]!r} holds {DEFAULT_IMAGE_TOKEN}, which is added automatically")
    template = conv_templates[conversation].copy()
    if before is not None:
        template.append_message(template.roles[0], f"{DEFAULT_IMAGE_TOKEN}\n{before.question}")
        template.append_message(template.roles[1], before.answer)
    template.append_message(template.roles[0], f"{DEFAULT_IMAGE_TOKEN}\n{question}")
    template.append_message(template.roles[1], None)
    return template.get_prompt()


@contextmanager
def _whole_and_left_padded(model: AuroraLlamaForCausalLM) -> Iterator[None]:
    """LLaVA pads on the side that the config names, and silently cuts off what is longer than it says."""
    changes = {"tokenizer_padding_side": "left", "tokenizer_model_max_length": None}
    settings: dict[str, Any] = model.config.__dict__
    before = {name: settings[name] for name in changes if name in settings}
    settings.update(changes)
    try:
        yield
    finally:
        for name in changes:
            del settings[name]
        settings.update(before)
