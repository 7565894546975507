"""The tokens of a batch that are to be learned: only for them are logits ever needed in training."""

from dataclasses import dataclass

import torch
from torch import Tensor

_UNLEARNED = -1000  # ids of tokens that are not learned lie below, where no label is


@dataclass(frozen=True)
class LabelledTokens:
    """The tokens of a batch that are to be learned, and where they stand.

    Args:
        told: bool (B, T - 1); told[b, t] says that the token at t + 1 is to be learned from what stands up to t.
        targets: int64 (N,), the ids of these tokens, row by row.
        rows: int64 (N,), in which row of the batch each stands.
    """

    told: Tensor
    targets: Tensor
    rows: Tensor

    @classmethod
    def of(cls, labels: Tensor, *, ignore_index: int = -100) -> "LabelledTokens":
        """From labels (B, T), ignore_index where nothing is to be learned."""
        shifted = labels[:, 1:]
        told = shifted != ignore_index
        return cls(told, shifted[told], told.nonzero()[:, 0])

    def spans(self, *, start_id: int, first_code: int, codes: int, length: int) -> tuple[Tensor, Tensor]:
        """Every whole span of a delimited family: `start_id`, then `length` codes.

        Args:
            start_id: the id that opens a span.
            first_code: the id of code 0.
            codes: how many codes there are.
            length: codes in a span.

        Returns:
            numbers int64 (M, length), which of the N tokens the codes of each span are; and the codes, (M, length).
        """
        starts = (self.targets == start_id).nonzero()[:, 0]
        numbers = starts[:, None] + torch.arange(1, length + 1, device=starts.device)
        numbers = numbers[numbers[:, -1] < len(self.targets)]
        found = self.targets[numbers] - first_code
        whole = ((found >= 0) & (found < codes)).all(dim=1) & (self.rows[numbers[:, 0]] == self.rows[numbers[:, -1]])
        return numbers[whole], found[whole]


def pack_ids_into_labels(labels: Tensor, input_ids: Tensor, *, ignore_index: int = -100) -> Tensor:
    """Labels that also bear the ids of the tokens that are not learned, for their way through LLaVA's splice.

    Image features and padding get `ignore_index` there, wherever they are put.

    Args:
        labels: int64 (B, T), ignore_index where nothing is to be learned.
        input_ids: int64 (B, T).
    """
    return torch.where(labels == ignore_index, _UNLEARNED - input_ids, labels)


def unpack_ids_from_labels(labels: Tensor, *, ignore_index: int = -100) -> tuple[Tensor, Tensor]:
    """Labels as they were, and all ids, ignore_index where there is no token; from what `pack_ids_into_labels` gave."""
    unlearned = labels <= _UNLEARNED
    return labels.masked_fill(unlearned, ignore_index), torch.where(unlearned, _UNLEARNED - labels, labels)
