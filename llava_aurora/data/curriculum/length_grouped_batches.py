"""Batches of like length within a curriculum: less of each batch is padding, and the mixture of tasks stays.

Upstream's grouping orders a whole epoch by length alone, which is no curriculum's order any more. Here only neighbours
of the curriculum's order change places: a window of some batches is sorted and cut into batches again, and these are
shuffled. An epoch's mixture is the same all through it, so that every window has the tasks that it had.

Records of one length are mostly of one task. A step over several batches, of ranks or of accumulation, can be made of
several lengths, so that its gradient is not of one task alone.
"""

from dataclasses import dataclass

import numpy as np

WINDOW = 16  # batches; of 4 the longest still pads the rest, and of 64 hardly anything is gained


@dataclass(frozen=True)
class LengthGroupedBatches:
    """Args:
    lengths: of each record of the dataset, words and perception tokens; negative for one without an image, int (n,).
    image_tokens: what an image adds to that in the language model.
    batch: records of one step over all ranks.
    mixed: of how many lengths a step is made, one after the other; a divisor of `batch`.
    """

    lengths: np.ndarray
    image_tokens: int
    batch: int
    mixed: int = 1

    def grouped(self, order: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The same records in batches of like length; those of an unfinished last batch stay last.

        Args:
            order: indices into the dataset, (n,).
            rng: shuffles the batches of each window, or their parts of one length.
        """
        lengths = self.lengths[order]
        lengths = np.abs(lengths) + np.where(lengths > 0, self.image_tokens, 0)
        whole = len(order) // self.batch * self.batch
        found = [order[:0]]
        for start in range(0, whole, WINDOW * self.batch):
            window = slice(start, min(start + WINDOW * self.batch, whole))
            by_length = order[window][np.argsort(lengths[window], kind="stable")]
            found.append(rng.permutation(by_length.reshape(-1, self.batch // self.mixed)).reshape(-1))
        return np.concatenate([*found, order[whole:]])
