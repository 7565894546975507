"""Many short questions about one image in few forward passes.

What all prompts begin with, the system prompt and the image, is read once. Then the rest of many prompts stands in one
row, each at the positions that it would have alone, under a mask that hides the others from it; answers grow by one
token each a pass. Every question gets the answer that greedy decoding gives it alone.
"""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import DynamicCache

from llava_aurora.errors import AuroraError
from llava_aurora.generation.decoding import Written
from llava_aurora.generation.inputs import Inputs, Starts, prepare_inputs, prompt_ids, room_of
from llava_aurora.generation.span_decoding import Decoded
from llava_aurora.model.aurora_llama import AuroraLlamaForCausalLM
from llava_aurora.model.constraint import PerceptionLogitsProcessor

ROW = 1024  # tokens of questions in a row; the work on a longer one grows with its square
_KERNELS = ("sdpa", "eager")


@dataclass
class Packed:
    """Args: rows: what each question got; read: tokens of prompts that were fed, those of the image included."""

    rows: list[Decoded]
    read: int


@dataclass
class _Question:
    number: int
    ids: list[int]  # behind what all prompts begin with
    limit: int
    start: tuple[int, ...]
    written: list[int] = field(default_factory=list)
    log_probabilities: list[float] = field(default_factory=list)


@torch.inference_mode()
def decode_packed(
    model: AuroraLlamaForCausalLM,
    inputs: Inputs,
    prompts: Sequence[Sequence[int]],
    *,
    starts: Sequence[Sequence[int]],
    limits: Sequence[int],
    processor: PerceptionLogitsProcessor | None,
    eos_token_id: int,
    among: Sequence[int] = (),
    row: int = ROW,
) -> Packed:
    """Answers every prompt, greedily.

    Args:
        inputs: of the first prompt alone.
        prompts: their ids, starts included, with one IMAGE_TOKEN_INDEX each at the same place.
        starts: the last ids of each, which belong to its answer; all of one length.
        limits: new tokens of each answer, at least 1.
        processor: the constraint, made without starts; None for free text.
        among: ids of which the first one of each answer is the likeliest; none: any.
        row: tokens of questions that are fed at once.
    Raises AuroraError for a model whose attention kernel takes no mask of its own.
    """
    implementation = model.config._attn_implementation
    if implementation not in _KERNELS:
        raise AuroraError(
            f"packed questions need a mask of their own, which the attention kernel {implementation} does not take;"
            " load the model without --flash-attn"
        )
    common = _common(prompts)
    image = inputs.embeddings.shape[1] - len(inputs.rows[0]) + 1  # tokens that stand for the image
    prefix = inputs.embeddings[:, : common - 1 + image]
    cache = DynamicCache()
    model.model(inputs_embeds=prefix, past_key_values=cache, use_cache=True)
    packed = _Row(model, cache, processor, eos=eos_token_id, among=among)
    questions = [
        _Question(number, list(ids[common:]), limit, tuple(start))
        for number, (ids, start, limit) in enumerate(zip(prompts, starts, limits, strict=True))
    ]
    group: list[_Question] = []
    for question in questions:
        if group and sum(len(each.ids) for each in [*group, question]) > row:
            packed.answer(group)
            group = []
        group.append(question)
    packed.answer(group)
    rows = [Decoded(each.written, each.log_probabilities, len(each.written)) for each in questions]
    return Packed(rows, prefix.shape[1] + sum(len(ids) - common for ids in prompts))


def write_packed(
    tokenizer: Any,
    model: AuroraLlamaForCausalLM,
    image_processor: Any,
    *,
    images: Sequence[Image.Image],
    questions: Sequence[str],
    most: int | None,
    constrained: bool,
    conversation: str,
    answer_start: Starts,
    among: Sequence[int] = (),
) -> Written:
    """Questions about equal images together. Args: questions: as asked; most: new tokens of an answer."""
    if len(images) != len(questions):
        raise AuroraError(f"{len(questions)} questions for {len(images)} images; one question per image is needed")
    prompts, starts = prompt_ids(
        tokenizer, model, questions=questions, conversation=conversation, answer_start=answer_start
    )
    groups = defaultdict[tuple[str, int], list[int]](list)
    known: dict[int, str] = {}
    for place, (image, start) in enumerate(zip(images, starts, strict=True)):
        if id(image) not in known:
            known[id(image)] = hashlib.sha256(f"{image.mode}{image.size}".encode() + image.tobytes()).hexdigest()
        groups[known[id(image)], len(start)].append(place)
    rows: list[Decoded | None] = [None] * len(questions)
    limits, read = [1] * len(questions), 0
    for places in groups.values():
        first = places[0]
        inputs = prepare_inputs(
            tokenizer,
            model,
            image_processor,
            images=[images[first]],
            questions=[questions[first]],
            conversation=conversation,
            answer_start=[starts[first]],
        )
        more = inputs.embeddings.shape[1] - len(inputs.rows[0])  # tokens of the image but one
        whole = [prompts[place] + starts[place] for place in places]
        room = room_of(
            [questions[place] for place in places],
            [len(ids) + more for ids in whole],
            [starts[place] for place in places],
            model=model,
        )
        for place, left in zip(places, room, strict=True):
            limits[place] = left if most is None else min(left, most)
        perception = model.perception
        packed = decode_packed(
            model,
            inputs,
            whole,
            starts=[starts[place] for place in places],
            limits=[limits[place] for place in places],
            processor=PerceptionLogitsProcessor(perception) if constrained and perception is not None else None,
            eos_token_id=tokenizer.eos_token_id,
            among=among,
        )
        read += packed.read
        for place, row in zip(places, packed.rows, strict=True):
            rows[place] = row
    return Written([row for row in rows if row is not None], starts, limits, read=read)


def _common(prompts: Sequence[Sequence[int]]) -> int:
    """How many ids all prompts begin with; each has at least one more."""
    first, last = (choose(map(list, prompts)) for choose in (min, max))
    common = next(
        (place for place, pair in enumerate(zip(first, last, strict=False)) if pair[0] != pair[1]), len(first)
    )
    return min(common, min(map(len, prompts)) - 1)


class _Row:
    """Answers groups of questions behind one prefix, which stays in the cache. Args: cache: of the prefix."""

    def __init__(
        self,
        model: AuroraLlamaForCausalLM,
        cache: Any,
        processor: PerceptionLogitsProcessor | None,
        *,
        eos: int,
        among: Sequence[int],
    ) -> None:
        self.model, self.cache, self.processor, self.eos, self.among = model, cache, processor, eos, among
        self.prefix = int(cache.get_seq_length())

    def answer(self, group: Sequence[_Question]) -> None:
        """Writes the answers of these questions."""
        if written := int(self.cache.get_seq_length()) - self.prefix:
            self.cache.crop(-written)  # transformers 5 takes no length that is to stay
        self.owners = torch.full((self.prefix,), -1, device=self.model.device)
        active, fed = list(group), [each.ids for each in group]
        while active:
            hidden = self._read([each.number for each in active], fed, [len(each.ids) for each in active])
            self._choose(active, hidden)
            active = [each for each in active if each.written[-1] != self.eos and len(each.written) < each.limit]
            for each in active:
                each.ids.append(each.written[-1])
            fed = [each.ids[-1:] for each in active]

    def _read(self, numbers: Sequence[int], fed: Sequence[Sequence[int]], lengths: Sequence[int]) -> Tensor:
        """Feeds the last tokens of each question. Args: lengths: with them. Returns (questions, D), of the last one."""
        device = self.model.device
        owners = torch.tensor([number for number, ids in zip(numbers, fed, strict=True) for _ in ids], device=device)
        positions = torch.tensor(
            [
                self.prefix + place
                for ids, length in zip(fed, lengths, strict=True)
                for place in range(length)[-len(ids) :]
            ],
            device=device,
        )
        before = len(self.owners)
        self.owners = torch.cat([self.owners, owners])
        places = torch.arange(len(self.owners), device=device)
        seen = (self.owners == -1) | (self.owners == owners[:, None])
        seen &= places <= places[before:, None]
        ids = torch.tensor([[token for each in fed for token in each]], device=device)
        hidden = self.model.model(
            inputs_embeds=self.model.get_input_embeddings()(ids),
            attention_mask=self._mask(seen[None, None]),
            position_ids=positions[None],
            past_key_values=self.cache,
            use_cache=True,
        ).last_hidden_state[0]
        last = torch.tensor([len(each) for each in fed], device=device).cumsum(0) - 1
        return hidden[last]

    def _mask(self, seen: Tensor) -> Tensor:
        if self.model.config._attn_implementation == "sdpa":
            return seen
        dtype = self.model.dtype
        return torch.zeros_like(seen, dtype=dtype).masked_fill(~seen, torch.finfo(dtype).min)

    def _choose(self, active: Sequence[_Question], hidden: Tensor) -> None:
        scores = self.model.lm_head(hidden).float()
        if self.processor is not None:
            standing = [[*each.start, *each.written] for each in active]
            scores = self.processor(torch.tensor(standing, dtype=torch.long, device=hidden.device), scores)
        if self.among and not active[0].written:  # all of a group begin in one pass
            ids = torch.tensor(self.among, device=scores.device)
            scores = torch.full_like(scores, float("-inf")).index_copy(1, ids, scores[:, ids])
        chosen = scores.argmax(dim=-1, keepdim=True)
        noted = scores.log_softmax(dim=-1).gather(1, chosen)
        for each, token, value in zip(active, chosen[:, 0].tolist(), noted[:, 0].tolist(), strict=True):
            each.written.append(token)
            each.log_probabilities.append(value)
