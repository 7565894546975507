"""Generates token by token with transformers' `generate`: greedy, sampled, or by beam search."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationMixin, LogitsProcessor, LogitsProcessorList

from llava_aurora.generation.inputs import Inputs
from llava_aurora.generation.span_decoding import Decoded
from llava_aurora.model.aurora_llama import AuroraLlamaForCausalLM
from llava_aurora.model.constraint import PerceptionLogitsProcessor


def decode_by_token(
    tokenizer: Any, model: AuroraLlamaForCausalLM, inputs: Inputs, *, limit: int, constrained: bool, **options: Any
) -> list[Decoded]:
    """Continues every row by at most `limit` ids, the end of sequence included; shorter rows are padded behind it.

    Args:
        tokenizer, model: from `load_pretrained_model`.
        options: for transformers' `generate` (do_sample, num_beams, streamer, …); greedy by default.
    """
    processors = LogitsProcessorList()
    if constrained and model.perception is not None:
        processors.append(PerceptionLogitsProcessor(model.perception, starts=inputs.starts))
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
    noted = chosen.log_probabilities(rows)
    return [
        Decoded(ids=ids, log_probabilities=noted[row] if noted else None, passes=chosen.steps)
        for row, ids in enumerate(rows)
    ]


class _ChosenScores(LogitsProcessor):
    """Changes nothing; notes how probable the chosen ids were. Each is seen in the step after it was chosen.

    Args: noting: False only counts steps, for a beam search, where rows change places between them.
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


@dataclass(frozen=True)
class Written:
    """What each question got.

    Args: starts: ids that each answer was made to begin with; limits: new ids at most; read: tokens of prompts that the
    language model read, image tokens included; 0 where that is not counted.
    """

    rows: list[Decoded]
    starts: Sequence[Sequence[int]]
    limits: list[int]
    read: int = 0
