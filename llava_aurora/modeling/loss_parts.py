"""The training loss, told apart by what was to be said: text, depth codes, coordinates.

One number for the whole loss hides that a model learns to chat while its maps stay noise; so each part is summed up
beside it. Nothing here changes a gradient.
"""

from collections.abc import Mapping

import torch
from torch.nn import functional

IGNORE_INDEX = -100


class LossParts:
    """Running sums of the token losses since the last `read`, per part.

    Args:
        id_ranges: for each part, the token ids that belong to it; every other id is "text".
    """

    def __init__(self, *, id_ranges: Mapping[str, range]) -> None:
        self.names = ["text", *id_ranges]
        self.ranges = list(id_ranges.values())
        self.totals: torch.Tensor | None = None

    @torch.no_grad()
    def add(self, logits: torch.Tensor, labels: torch.Tensor) -> None:
        """Adds one batch.

        Args:
            logits: (B, T, V) of a causal model.
            labels: int64 (B, T), -100 where nothing is to be learned; label t is predicted at t - 1.
        """
        targets = labels[:, 1:].to(logits.device)
        told = targets != IGNORE_INDEX
        targets = targets[told]
        losses = functional.cross_entropy(logits[:, :-1][told].float(), targets, reduction="none")
        part = torch.zeros_like(targets)
        for number, ids in enumerate(self.ranges, start=1):
            part[(targets >= ids.start) & (targets < ids.stop)] = number
        sums = torch.zeros(2, len(self.names), dtype=torch.float64, device=losses.device)
        sums[0].index_add_(0, part, losses.double())
        sums[1].index_add_(0, part, torch.ones_like(losses, dtype=torch.float64))
        self.totals = sums if self.totals is None else self.totals + sums

    def read(self) -> dict[str, float]:
        """Mean loss per part over all ranks since the last call; a part without a token is left out.

        A collective operation: with torch.distributed every rank must call it.
        """
        totals = torch.zeros(2, len(self.names), dtype=torch.float64) if self.totals is None else self.totals
        self.totals = None
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            device = "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"
            totals = totals.to(device)
            torch.distributed.all_reduce(totals)
        sums, counts = totals.tolist()
        return {name: total / count for name, total, count in zip(self.names, sums, counts, strict=True) if count}
