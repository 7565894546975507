"""Greedy decoding in few forward passes: several tokens are fed at once, and the model accepts or replaces them.

What is fed behind the last written token is a *draft*. It holds words that the wording of a chain makes likely
(drafts.py), and for a map, with a model trained with --span_mask_probability (model/span_masking.py), one mask behind
START for each code but the last, so that one pass predicts all codes. The next pass feeds these codes. At the first one
that the model would not write, its own is written, and what the same pass predicts behind it becomes the next draft
(Jacobi iteration), up to the first word that changes into one of another kind: what follows that was predicted behind
other words. "verified" keeps a token only if greedy decoding would write it; "parallel" keeps each map as it is after a
fixed number of passes.

Rows of a batch advance by different numbers of tokens; after each pass the cache is moved so that all rows stay padded
on the left.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import DynamicCache

from llava_aurora.errors import AuroraError
from llava_aurora.generation.drafts import LONGEST, Phrases
from llava_aurora.generation.inputs import Inputs
from llava_aurora.model.aurora_llama import AuroraLlamaForCausalLM
from llava_aurora.model.cached_mask import cached_mask
from llava_aurora.model.constraint import PerceptionLogitsProcessor
from llava_aurora.model.span_masking import MaskedSpan, masked_spans

Mode = Literal["verified", "parallel"]


@dataclass(frozen=True)
class Decoded:
    """What one row wrote."""

    ids: list[int]  # the end of sequence included, if it was reached; without what the answer was made to start with
    # of each id under the constraint, natural log; of a code that was taken unchecked, as guessed
    log_probabilities: list[float] | None
    passes: int  # forward passes, that over image and question included
    map_passes: int = 0  # those among them in which codes or the END of a map were decided or guessed


@dataclass
class _Row:
    """A row that is being written."""

    number: int
    prompt: list[int]  # its ids
    question: Phrases  # the phrases of the prompt
    start: tuple[int, ...]  # ids that the answer was made to begin with
    limit: int  # how many ids there may be, those of `start` included
    # ids of the answer, from `start` on; the first `cached` of them are in the cache
    written: list[int] = field(init=False)
    cached: int = field(init=False)
    log_probabilities: list[float] = field(default_factory=list)  # of the ids that the model wrote itself
    # draft, masks: what is fed behind them
    draft: list[int] = field(default_factory=list)
    masks: list[int] = field(default_factory=list)
    passes: int = 0
    map_passes: int = 0
    rounds: int = 0  # how often the codes of the map that is open were guessed
    finished: bool = False

    def __post_init__(self) -> None:
        self.written, self.cached = list(self.start), len(self.start)

    @property
    def pending(self) -> list[int]:
        return self.written[self.cached :]

    @property
    def fed(self) -> list[int]:
        return [*self.pending, *self.draft, *self.masks]


class SpanDecoder:
    """Writes answers in few passes.

    Args:
        phrases: of the wording that it was trained on; those of the answers that it writes are added.
        mode: "verified" gives what greedy decoding gives; "parallel" takes a map as `refinements` passes leave it.
        refinements: passes over each map in parallel mode, at least 1.
    Raises AuroraError for a model without perception tokens, or parallel mode with one that was not trained for it.
    """

    def __init__(
        self, model: AuroraLlamaForCausalLM, *, phrases: Phrases, mode: Mode = "verified", refinements: int = 1
    ) -> None:
        if model.perception is None:
            raise AuroraError("this model has no perception tokens; use greedy decoding")
        if mode == "parallel" and not model.writes_spans_in_one_pass:
            raise AuroraError(
                "this model was not trained to write a map in one pass (--span_mask_probability); use verified decoding"
            )
        if refinements < 1:
            raise AuroraError(f"a map needs at least one forward pass, not {refinements}")
        self.model = model
        self.phrases = phrases
        self.mode = mode
        self.refinements = refinements
        self.spans = masked_spans(model.perception)
        ids, families = model.perception.ids, [each.family for each in model.perception.kinds.values()]
        codes = (range(first, first + each.size) for each in families for first in [ids.first_code_id(each)])
        self.kinds = [*codes, *phrases.codes]

    @torch.inference_mode()
    def decode(
        self,
        inputs: Inputs,
        *,
        processor: PerceptionLogitsProcessor | None,
        limits: Sequence[int],
        eos_token_id: int,
        on_written: Callable[[int, list[int]], bool] | None = None,
    ) -> list[Decoded]:
        """Continues every row until it ends or is as long as it may be.

        Args:
            inputs: the prompts; an answer may repeat phrases of its question.
            processor: the constraint, made without `answer_start`; None for free text.
            limits: new tokens of each row, at least 1.
            on_written: called after each pass with a row's number and the ids it has just written; True ends the row.
        Raises AuroraError in parallel mode without the constraint.
        """
        if processor is None and self.mode == "parallel":
            raise AuroraError("parallel decoding needs the constraint on perception tokens; leave it on")
        rows = [
            _Row(number, ids[: len(ids) - len(start)], _phrases_of(ids), start=tuple(start), limit=len(start) + limit)
            for number, (ids, start, limit) in enumerate(zip(inputs.rows, inputs.starts, limits, strict=True))
        ]
        cache = _Cache(self.model, inputs)
        results: dict[int, Decoded] = {}
        while True:
            for row in rows:
                self._draft(row, eos=eos_token_id)
            hidden = cache.read([row.fed for row in rows])
            kept = []
            for row, states in zip(rows, hidden, strict=True):
                before = len(row.written)
                kept.append(self._advance(row, *self._choices(row, states, processor)))
                self._finish(row, before, eos=eos_token_id)
                if on_written is not None and on_written(row.number, row.written[before:]):
                    row.finished = True
                if row.finished:
                    self.phrases.remember([*row.prompt[-LONGEST:], *row.written])
                    ids = row.written[len(row.start) :]
                    results[row.number] = Decoded(ids, row.log_probabilities[: len(ids)], row.passes, row.map_passes)
            going_on = [place for place, row in enumerate(rows) if not row.finished]
            if not going_on:
                return [results[number] for number in range(len(inputs.rows))]
            rows = [rows[place] for place in going_on]
            cache.keep(going_on, [kept[place] for place in going_on])

    # --- what the model says ------------------------------------------------------------------------------------------

    def _choices(
        self, row: _Row, hidden: Tensor, processor: PerceptionLogitsProcessor | None
    ) -> tuple[list[int], list[float]]:
        """What the model would write behind the last token written, behind each of the draft, and behind each mask.

        Args: hidden: (W, D), a state for each token fed; in the first pass that of the prompt's last token before them.
        Returns ids and their log-probabilities.
        """
        first = max(len(row.pending) - 1, 0)
        count = 1 + len(row.draft) + len(row.masks)
        scores = self.model.lm_head(hidden[first : first + count]).float()
        if processor is not None:
            standing = row.written + row.draft
            if row.masks:  # for the constraint a mask is a code
                standing = standing + [self._opened(standing)[0].codes.start] * len(row.masks)  # type: ignore[index]
            scores = processor.along(standing, scores)
        ids = scores.argmax(dim=-1, keepdim=True)
        return ids[:, 0].tolist(), scores.log_softmax(dim=-1).gather(1, ids)[:, 0].tolist()

    def _advance(self, row: _Row, chosen: list[int], log_probabilities: list[float]) -> int:
        """Writes the part of the draft that the model agrees with, and the model's next token.

        Returns how many of the tokens fed are to stay in the cache.
        """
        right = 0
        while right < len(row.draft) and row.draft[right] == chosen[right]:
            right += 1
        places = range(right, len(row.draft))
        changed = next((place for place in places if not self._alike(row.draft[place], chosen[place])), None)
        behind = chosen[right + 1 :] if changed is None else chosen[right + 1 : changed + 1]
        if row.masks and changed is None:
            behind.append(row.masks[0])  # a map's END, which is its mask, is all that may follow its last code
        kept = len(row.pending) + right
        row.cached += kept
        row.written += [*row.draft[:right], chosen[right]]
        row.log_probabilities += log_probabilities[: right + 1]
        row.passes += 1
        row.draft, row.masks = behind, []
        opened = self._opened(row.written)
        if opened is None or opened[1] == opened[0].length:
            row.map_passes += any(token in span for span in self.spans for token in row.written[-right - 1 :])
            row.rounds = 0
            return kept
        row.map_passes += 1
        row.rounds += bool(behind)
        taken = opened[1] + 1  # the codes that are missing, and END
        if self.mode == "parallel" and row.rounds >= self.refinements and len(behind) >= taken:
            row.written += behind[:taken]
            row.log_probabilities += [*log_probabilities[right + 1 : right + taken], 0.0]
            row.draft, row.rounds = behind[taken:], 0
        return kept

    def _alike(self, one: int, other: int) -> bool:
        """Whether what stands behind the one token may behind the other: they are the same or of one kind."""
        return one == other or any(one in kind and other in kind for kind in self.kinds)

    def _opened(self, ids: Sequence[int]) -> tuple[MaskedSpan, int] | None:
        """The map that is open at the end of `ids`, and how many of its codes are missing."""
        for span in self.spans:
            tail = list(ids[-span.length - 1 :])[::-1]
            if span.start in tail:
                codes = tail[: tail.index(span.start)]
                if span.mask not in codes:
                    return span, span.length - len(codes)
        return None

    @staticmethod
    def _finish(row: _Row, before: int, *, eos: int) -> None:
        """Cuts the row behind its end and at its limit."""
        if eos in row.written[before:]:
            del row.written[row.written.index(eos, before) + 1 :]
            row.finished = True
        if len(row.written) >= row.limit:
            del row.written[row.limit :]
            row.finished = True

    # --- what is fed next ---------------------------------------------------------------------------------------------

    def _draft(self, row: _Row, *, eos: int) -> None:
        """Adds the words that most likely follow, and masks for the codes of a map that is open at the end."""
        if eos in row.draft:
            return
        standing = row.prompt + row.written + row.draft
        if self._opened(standing) is None:
            row.draft += row.question.following(standing, least=2) or self.phrases.following(standing)
            standing = row.written + row.draft
        opened = self._opened(standing)
        if opened is not None and self.model.writes_spans_in_one_pass:
            span, missing = opened
            row.masks = [span.mask] * (missing - 1)


def _phrases_of(ids: Sequence[int]) -> Phrases:
    phrases = Phrases()
    phrases.remember(ids)
    return phrases


class _Cache:
    """Keys and values of rows of different lengths, padded on the left, and the states of what was read last.

    Args: model: whose decoder reads; inputs: the prompts, which are read together with the first tokens behind them.
    """

    def __init__(self, model: AuroraLlamaForCausalLM, inputs: Inputs) -> None:
        self.model = model
        self.states = DynamicCache()
        self.valid = inputs.attention_mask.bool()
        self.width = 0  # tokens a row that were read last, and are not kept yet
        self._prompts: Tensor | None = inputs.embeddings

    def read(self, ids: Sequence[Sequence[int]]) -> Tensor:
        """Reads further tokens of each row, behind the prompts any number, later at least one.

        Returns: (B, W, D); of a shorter row the first are its own. Behind the prompts W is one more: their last token's
        state comes first.
        """
        device = self.valid.device
        self.width = max(map(len, ids))
        fed = torch.tensor([[*row, *[0] * (self.width - len(row))] for row in ids], dtype=torch.long, device=device)
        lengths = torch.tensor([len(row) for row in ids], device=device)
        places = torch.arange(self.width, device=device)
        positions = self.valid.sum(dim=1, keepdim=True) + places
        before, self.valid = self.valid, torch.cat([self.valid, places < lengths[:, None]], dim=1)
        embeddings = self.model.get_input_embeddings()(fed)
        if self._prompts is None:
            return self._forward(positions, embeddings)
        prompts, self._prompts = self._prompts, None
        positions = torch.cat([(before.long().cumsum(dim=1) - 1).clamp(min=0), positions], dim=1)
        return self._forward(positions, torch.cat([prompts, embeddings], dim=1))[:, prompts.shape[1] - 1 :]

    def keep(self, rows: Sequence[int], counts: Sequence[int]) -> None:
        """Keeps these rows, and of each the first so many of the tokens that were read last."""
        device = self.valid.device
        chosen = torch.tensor(rows, device=device)
        places = torch.arange(self.width, device=device)
        kept = places < torch.tensor(counts, device=device)[:, None]
        valid = torch.cat([self.valid[chosen, : self.valid.shape[1] - self.width], kept], dim=1)
        length = int(valid.sum(dim=1).max())
        # False sorts before True: what is valid ends up on the right, in the order in which it was.
        order = valid.int().argsort(dim=1, stable=True)[:, valid.shape[1] - length :]
        self.valid = valid.gather(1, order)
        layers: Any = self.states.layers
        for layer in layers:
            index = order[:, None, :, None]
            layer.keys = layer.keys[chosen].take_along_dim(index, dim=2)
            layer.values = layer.values[chosen].take_along_dim(index, dim=2)
        self.width = 0

    def _forward(self, positions: Tensor, embeddings: Tensor) -> Tensor:
        implementation = self.model.config._attn_implementation
        return self.model.model(
            attention_mask=cached_mask(self.valid.long(), queries=positions.shape[1], implementation=implementation),
            position_ids=positions,
            past_key_values=self.states,
            use_cache=True,
            inputs_embeds=embeddings,
        ).last_hidden_state
