"""Groups the records of a curriculum into batches of similar length, so that less of each batch is padding.

LLaVA's grouping sorts a whole epoch by length, which loses the curriculum's order. Here a window of a few batches is
sorted, cut into batches again, and these are shuffled: every window keeps its mixture of tasks.

Records of one length are mostly of one task. A step over several batches (of ranks or of gradient accumulation) can be
made of several lengths, so that its gradient is not that of one task.
"""

from dataclasses import dataclass

import numpy as np

WINDOW = 16  # batches; with 4 there is much padding still, and 64 gain hardly more


@dataclass(frozen=True)
class LengthGroupedBatches:
    # words and perception tokens of each record of the dataset; negative without an image, int (n,)
    lengths: np.ndarray
    image_tokens: int  # tokens that an image adds in the language model
    batch: int  # records of one step over all ranks
    mixed: int = 1  # number of lengths that a step is made of, one after the other; a divisor of `batch`

    def grouped(self, order: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The same records in batches of similar length, int (n,); those of an incomplete last batch stay last.

        Args:
            order: indices into the dataset, int (n,).
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
