"""Running means of the training loss by kind of token (text, depth codes, coordinates) and of auxiliary losses.

The loss as a whole hides that a model learns text while its maps stay noise. Nothing here changes a gradient.
"""

from collections.abc import Mapping

import torch
from torch import Tensor


class LossMeter:
    """Running means of the token losses since the last `read`, per part, and of whole-batch losses beside them.

    Args:
        id_ranges: for each part, its token ids; every other id is "text".
        extra: names of losses of a whole batch, such as the reconstruction loss.
    """

    def __init__(self, *, id_ranges: Mapping[str, range], extra: tuple[str, ...] = ()) -> None:
        self.names = ["text", *id_ranges, *extra]
        self.ranges = list(id_ranges.values())
        self.totals: Tensor | None = None

    @torch.no_grad()
    def add(self, losses: Tensor, targets: Tensor, **extra: Tensor) -> None:
        """Adds one batch.

        Args:
            losses: (N,), the cross-entropy of each labelled token.
            targets: int64 (N,), their ids.
            extra: scalars by the names given to the constructor.
        """
        part = torch.zeros_like(targets)
        for number, ids in enumerate(self.ranges, start=1):
            part[(targets >= ids.start) & (targets < ids.stop)] = number
        sums = torch.zeros(2, len(self.names), dtype=torch.float64, device=losses.device)
        sums[0].index_add_(0, part, losses.double())
        sums[1].index_add_(0, part, torch.ones_like(losses, dtype=torch.float64))
        for name, value in extra.items():
            sums[:, self.names.index(name)] = torch.stack([value.double(), torch.ones_like(value, dtype=torch.float64)])
        self.totals = sums if self.totals is None else self.totals + sums

    def read(self) -> dict[str, float]:
        """Mean loss per part over all ranks since the last call; a part without a token is left out.

        A collective operation: with torch.distributed every rank must call it.
        """
        totals = torch.zeros(2, len(self.names), dtype=torch.float64) if self.totals is None else self.totals
        self.totals = None
        sums, counts = summed_over_ranks(totals).tolist()
        return {name: total / count for name, total, count in zip(self.names, sums, counts, strict=True) if count}


def summed_over_ranks(totals: Tensor) -> Tensor:
    """The sum over all ranks; a collective operation where there are several."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        totals = totals.to("cuda" if torch.distributed.get_backend() == "nccl" else "cpu")
        torch.distributed.all_reduce(totals)
    return totals
