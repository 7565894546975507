"""The tokens of a batch that have a label; training computes logits for these only."""

from dataclasses import dataclass

import torch
from torch import Tensor

_UNLEARNED = -1000  # packed ids are at or below this value, where no label is


@dataclass(frozen=True)
class LabelledTokens:
    """The tokens of a batch that are to be learned, and where they stand."""

    loss_mask: Tensor  # bool (B, T - 1); loss_mask[b, t] says that the token at t + 1 is to be predicted at t
    targets: Tensor  # int64 (N,), the ids of these tokens, row by row
    rows: Tensor  # int64 (N,), the row of the batch that each is in

    @classmethod
    def of(cls, labels: Tensor, *, ignore_index: int = -100) -> "LabelledTokens":
        """From labels (B, T), ignore_index where nothing is to be learned."""
        shifted = labels[:, 1:]
        loss_mask = shifted != ignore_index
        return cls(loss_mask, shifted[loss_mask], loss_mask.nonzero()[:, 0])

    def spans(self, *, start_id: int, first_code: int, codes: int, length: int) -> tuple[Tensor, Tensor]:
        """Every whole span of this length of a delimited family: `start_id`, then `length` codes and no further one.

        Args: first_code: the id of code 0; codes: how many codes there are.
        Returns places int64 (M, length), where the codes of each span are among the N tokens; and the codes, (M,
        length).
        """
        starts = (self.targets == start_id).nonzero()[:, 0]
        places = starts[:, None] + torch.arange(1, length + 1, device=starts.device)
        places = places[places[:, -1] < len(self.targets)]
        found = self.targets[places] - first_code
        whole = ((found >= 0) & (found < codes)).all(dim=1) & (self.rows[places[:, 0]] == self.rows[places[:, -1]])
        places, found = places[whole], found[whole]
        after = (places[:, -1] + 1).clamp(max=len(self.targets) - 1)
        longer = (self.targets[after] >= first_code) & (self.targets[after] < first_code + codes)
        ends = ~longer | (after == places[:, -1]) | (self.rows[after] != self.rows[places[:, -1]])
        return places[ends], found[ends]


def pack_ids_into_labels(labels: Tensor, input_ids: Tensor, *, ignore_index: int = -100) -> Tensor:
    """Labels that also hold the ids of the tokens without a label.

    LLaVA puts image features between the tokens and moves labels along, but not ids. It gives image features and
    padding `ignore_index`.

    Args: labels: int64 (B, T), ignore_index where nothing is to be learned; input_ids: int64 (B, T).
    """
    return torch.where(labels == ignore_index, _UNLEARNED - input_ids, labels)


def unpack_ids_from_labels(labels: Tensor, *, ignore_index: int = -100) -> tuple[Tensor, Tensor]:
    """The inverse of `pack_ids_into_labels`: labels, and all ids, ignore_index where there is no token; both (B, T)."""
    unlearned = labels <= _UNLEARNED
    return labels.masked_fill(unlearned, ignore_index), torch.where(unlearned, _UNLEARNED - labels, labels)
