"""The order of an epoch's records, the same again when a run is resumed within the epoch."""

from collections.abc import Iterator

import torch
from torch.utils.data import Sampler


class EpochOrder(Sampler[int]):
    """Upstream's sampler, which can draw the order of one epoch a second time.

    Upstream's order by length depends on torch's random state at the start of the epoch, which is kept here for the
    checkpoint. And of accelerate's second loader, the one that skips batches when a run is resumed, it hides that this
    one counts epochs from 0 again (accelerate 1.12, `DataLoaderShard.__iter__`).

    Args: resumed: `state` of the run that is resumed.
    """

    def __init__(self, sampler: Sampler[int], *, resumed: dict[str, torch.Tensor] | None = None) -> None:
        self.sampler = sampler
        self.resumed = resumed
        self.epoch = 0
        self.state: dict[str, torch.Tensor] = {}

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch that is iterated next; going back to an earlier one is ignored."""
        self.epoch = max(self.epoch, epoch)
        if hasattr(self.sampler, "set_epoch"):  # the random order has epochs, the one by length has not
            self.sampler.set_epoch(self.epoch)

    def __len__(self) -> int:
        return len(self.sampler)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[int]:
        resumed = self.resumed if self.resumed is not None and self.resumed["epoch"] == self.epoch else None
        self.state = resumed or {"epoch": torch.tensor(self.epoch), "random": torch.get_rng_state()}
        if resumed is None:
            return iter(self.sampler)
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(resumed["random"])
            return iter(list(self.sampler))
