"""Hiding the codes of a map from the model while it learns to write them, so that it can write a map in one pass.

With some probability the inputs of a span's codes are replaced by the family's END token, which stands for "not written
yet"; the labels stay. Position i still predicts code i + 1, so the model needs no other change, and generation may feed
what is written and an END for each code that is missing, and read all of these at once (generation/span_decoding.py).
No token is added, so upstream LLaVA loads the checkpoint.

Codes read at once are checked by feeding them, some of them wrong. So that what the model says behind wrong codes is of
use too, in a share of the spans the inputs are not masked, but some of the codes are random.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from llava_aurora.tokens.perception import PerceptionTokens

MOST_WRONG = 0.6  # share of random codes in a span; docs/span_decoding.md has what it is worth


@dataclass(frozen=True)
class MaskedSpan:
    """The spans of a delimited family, and what is fed for a code that is hidden.

    Args:
        start: the id that opens a span.
        mask: the id that stands for a hidden code, and closes a span.
        length: codes in a span.
        codes: their ids.
    """

    start: int
    mask: int
    length: int
    codes: range

    def __contains__(self, token_id: int) -> bool:
        """Whether a token stands behind START in a span."""
        return token_id in self.codes or token_id == self.mask


def masked_spans(perception: PerceptionTokens) -> list[MaskedSpan]:
    """One for each delimited family of a model."""
    spans = []
    for family in (kind.family for kind in perception.kinds.values()):
        if family.delimited:
            ids, first = perception.ids, perception.ids.first_code_id(family)
            codes = range(first, first + family.size)
            spans.append(MaskedSpan(ids.start_id(family), ids.end_id(family), family.lengths[-1], codes))
    return spans


class SpanMasking:
    """Changes the inputs of spans while they are learned.

    Args:
        perception: the model's tokens.
        probability: of a span to be changed, in (0, 1].
        noise: share of the changed spans that get random codes instead of masks, in [0, 1).
    """

    def __init__(self, perception: PerceptionTokens, *, probability: float, noise: float = 0.0) -> None:
        if not 0 < probability <= 1:
            raise ValueError(f"the probability of a span to be masked is in (0, 1], not {probability}")
        if not 0 <= noise < 1:
            raise ValueError(f"the share of random codes instead of masks is in [0, 1), not {noise}")
        self.spans = masked_spans(perception)
        self.probability = probability
        self.noise = noise

    def __call__(self, input_ids: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Changes the inputs of some of the spans that are to be learned.

        Of those that are masked, half are masked whole, the others from any code on; of the others each has a rate of
        random codes of its own, even in [0, MOST_WRONG). What follows a changed span is not learned: it would learn to
        do without the codes.

        Args:
            input_ids, labels: int64 (B, T), a label is -100 where nothing is to be learned.

        Returns:
            copies of both.
        """
        input_ids, labels = input_ids.clone(), labels.clone()
        for span in self.spans:
            starts = (labels[:, : labels.shape[1] - span.length - 1] == span.start).nonzero()
            drawn = torch.rand(len(starts), 4).tolist()  # on the CPU, whose random state a checkpoint keeps
            for (row, start), (chosen, noisy, whole, share) in zip(starts.tolist(), drawn, strict=True):
                end = start + 1 + span.length
                if chosen >= self.probability or labels[row, end] != span.mask:
                    continue
                if noisy < self.noise:
                    wrong = (torch.rand(span.length) < share * MOST_WRONG).nonzero().flatten()
                    codes = torch.randint(span.codes.start, span.codes.stop, wrong.shape)
                    input_ids[row, start + 1 + wrong] = codes.to(input_ids)
                else:
                    first = start + 1 + (0 if whole < 0.5 else int(share * span.length))
                    input_ids[row, first:end] = span.mask
                labels[row, end + 1 :] = -100
        return input_ids, labels
