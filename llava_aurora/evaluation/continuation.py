"""Letting a model go on from words that it did not write, each row from its own: what replacing tokens needs."""

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from transformers import GenerationMixin, LogitsProcessorList

from llava_aurora.generation.constraint import PerceptionLogitsProcessor
from llava_aurora.generation.generate import Answer, decoded_text
from llava_aurora.generation.inputs import prepare_inputs
from llava_aurora.model.aurora_llama import AuroraLlamaForCausalLM


@torch.inference_mode()
def continue_answers(
    tokenizer: Any,
    model: AuroraLlamaForCausalLM,
    image_processor: Any,
    *,
    images: Sequence[Image.Image],
    questions: Sequence[str],
    starts: Sequence[Sequence[int]],
    conversation: str = "vicuna_v1",
    max_new_tokens: int = 512,
    constrained: bool = True,
) -> list[Answer]:
    """Goes on from the ids of each row's own start, greedily, in one batch.

    Args:
        starts: ids that stand at the beginning of each answer; none of them ends inside a span.
        max_new_tokens: for each answer, beyond its start; never more than the context leaves.
        Others as for `generate`.

    Returns:
        Whole answers, starts included.

    Raises:
        AuroraError: as `generate`.
    """
    inputs = prepare_inputs(
        tokenizer, model, image_processor, images=images, questions=questions, conversation=conversation
    )
    embed = model.get_input_embeddings()
    rows = [
        torch.cat([embeddings[mask.bool()], embed(torch.tensor(list(start), dtype=torch.long, device=model.device))])
        for embeddings, mask, start in zip(inputs.embeddings, inputs.attention_mask, starts, strict=True)
    ]
    rooms = [max(1, room - len(start)) for room, start in zip(inputs.room, starts, strict=True)]
    width = max(map(len, rows))
    embeddings = torch.stack([torch.nn.functional.pad(row, (0, 0, width - len(row), 0)) for row in rows])
    places = torch.arange(width, device=model.device)
    attention_mask = torch.stack([(places >= width - len(row)).long() for row in rows])
    processors = LogitsProcessorList()
    if constrained and model.perception is not None:
        processors.append(PerceptionLogitsProcessor(model.perception))
    written: Any = GenerationMixin.generate(
        model,
        inputs_embeds=embeddings,
        attention_mask=attention_mask,
        max_new_tokens=min(max_new_tokens, max(rooms)),
        logits_processor=processors,
        pad_token_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.unk_token_id,
        eos_token_id=tokenizer.eos_token_id,
        do_sample=False,
        use_cache=True,
    )
    return [
        _answer(list(start), row[:room], tokenizer)
        for start, row, room in zip(starts, written.tolist(), rooms, strict=True)
    ]


def _answer(start: list[int], row: list[int], tokenizer: Any) -> Answer:
    finished = tokenizer.eos_token_id in row
    ids = start + (row[: row.index(tokenizer.eos_token_id)] if finished else row)
    return Answer(text=decoded_text(ids, tokenizer), ids=ids, finished=finished)
