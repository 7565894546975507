"""Changing the input codes of some maps in training: masks, to write a map in one pass, or noise, to write it better.

With some probability the inputs of a span's codes are replaced by the family's END token, which then means "not written
yet"; the labels stay. Position i still predicts code i + 1. Generation feeds the codes that are written and an END for
each one that is missing, and reads all of them at once (generation/span_decoding.py). No token is added, so upstream
LLaVA loads the checkpoint.

Such codes are a draft that is fed again and may be partly wrong. So that predictions behind wrong codes are trained
too, a share of these spans gets random codes instead of masks.

Code noise is for writing code by code. Behind true codes a small model learns to guess the next code from the ones
before; when it writes a map itself, one wrong code leads to others, and maps hardly depend on the image. Behind random
codes the image is all there is.
"""

from dataclasses import dataclass

import torch
from llava.constants import IGNORE_INDEX
from torch import Tensor

from llava_aurora.tokens.perception import PerceptionTokens

MOST_WRONG = 0.6  # share of random codes in a span; docs/span_decoding.md has what it is worth


@dataclass(frozen=True)
class MaskedSpan:
    """The spans of a delimited family, and what is fed for a masked code."""

    start: int  # the id that opens a span
    mask: int  # the id of a masked code, which also closes a span
    lengths: tuple[int, ...]  # the allowed numbers of codes in a span, ascending
    codes: range  # their ids
    labels: int = 0  # how many of the last of them say nothing of the image, and are never changed to others
    independent: bool = True  # whether any code may follow any other

    @property
    def length(self) -> int:
        """Codes in the longest span."""
        return self.lengths[-1]

    def __contains__(self, token_id: int) -> bool:
        """Whether a token may follow START in a span."""
        return token_id in self.codes or token_id == self.mask


def masked_spans(perception: PerceptionTokens) -> list[MaskedSpan]:
    """One for each delimited family of a model."""
    spans = []
    for kind in perception.kinds.values():
        family = kind.family
        if family.delimited:
            ids, first = perception.ids, perception.ids.first_code_id(family)
            codes, labels = range(first, first + family.size), family.size - kind.cell_codes
            ends = ids.start_id(family), ids.end_id(family)
            spans.append(MaskedSpan(*ends, family.lengths, codes, labels, independent=kind.allowed_by_place))
    return spans


class SpanMasking:
    """Masks the inputs of spans that are learned.

    Args:
        probability: that a span is changed, in (0, 1].
        noise: the share of changed spans that get random codes instead of masks, in [0, 1).
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
        """Changes the inputs of some of the spans that have labels.

        Half of the masked spans are masked whole, the others from a random code on; each of the noisy ones has a rate
        of random codes of its own, uniform in [0, MOST_WRONG). What follows a changed span gets no labels, since the
        model would learn to answer without the codes.

        Args: input_ids, labels: int64 (B, T), a label is -100 where nothing is to be learned.
        Returns copies of both.
        """
        input_ids, labels = input_ids.clone(), labels.clone()
        for span in self.spans:
            for length in span.lengths:
                self._change(input_ids, labels, span, length)
        return input_ids, labels

    def _change(self, input_ids: Tensor, labels: Tensor, span: MaskedSpan, length: int) -> None:
        """Changes, in place, some of the spans with this number of codes."""
        starts = (labels[:, : labels.shape[1] - length - 1] == span.start).nonzero()
        drawn = torch.rand(len(starts), 4).tolist()  # on the CPU, whose random state a checkpoint keeps
        for (row, start), (chosen, noisy, whole, share) in zip(starts.tolist(), drawn, strict=True):
            end = start + 1 + length
            if chosen >= self.probability or labels[row, end] != span.mask:
                continue
            if noisy < self.noise:
                _add_noise(input_ids[row, start + 1 : end], span, rate=share * MOST_WRONG)
            else:
                first = start + 1 + (0 if whole < 0.5 else int(share * length))
                input_ids[row, first:end] = span.mask
            labels[row, end + 1 :] = IGNORE_INDEX


class CodeNoise:
    """Codes are learned behind partly random ones, and what follows a map behind the true ones; never both at once.

    Spans are left as they are where a code restricts those that may follow it (masks).

    Args:
        probability: that the codes of a map are learned, each time it is seen; else what follows it is. In (0, 1).
    """

    def __init__(self, perception: PerceptionTokens, *, probability: float) -> None:
        if not 0 < probability < 1:
            raise ValueError(f"the share of maps with noise is in (0, 1), not {probability}")
        self.spans = [span for span in masked_spans(perception) if span.independent]
        self.probability = probability

    def __call__(self, input_ids: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """As `SpanMasking`. The rate of random codes is drawn for each map, uniform in [0, 1)."""
        input_ids, labels = input_ids.clone(), labels.clone()
        for span in self.spans:
            for length in span.lengths:
                starts = (labels[:, : labels.shape[1] - length - 1] == span.start).nonzero().tolist()
                for (row, start), (chosen, rate) in zip(starts, torch.rand(len(starts), 2).tolist(), strict=True):
                    end = start + 1 + length
                    if labels[row, end] != span.mask:
                        continue
                    if chosen < self.probability:
                        _add_noise(input_ids[row, start + 1 : end], span, rate=rate)
                        labels[row, end + 1 :] = IGNORE_INDEX
                    else:
                        labels[row, start + 1 : end] = IGNORE_INDEX
        return input_ids, labels


def _add_noise(codes: Tensor, span: MaskedSpan, *, rate: float) -> None:
    """Exchanges, in place, this share of the ids of a span's codes for random ones; labels stay."""
    stop = span.codes.stop - span.labels
    places = ((torch.rand(len(codes)) < rate).to(codes.device) & (codes < stop)).nonzero().flatten()
    codes[places] = torch.randint(span.codes.start, stop, places.shape).to(codes)
