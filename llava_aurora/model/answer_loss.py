"""The answer loss: the answer's own tokens, which are one in a hundred where a chain writes a map.

The loss of a batch is a mean over its tokens, so that what a chain is written for hardly counts in it.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from llava_aurora.model.labelled_tokens import LabelledTokens


def answer_loss(losses: Tensor, tokens: LabelledTokens, answers: Sequence[tuple[int, int]]) -> Tensor | None:
    """The mean loss of the answers' tokens; None if there are none.

    Args:
        losses: (N,), of the labelled tokens.
        tokens: the same N tokens.
        answers: their rows and positions in the batch.
    """
    if not answers:
        return None
    rows, positions = torch.tensor(answers, device=losses.device).T
    of_answer = torch.zeros_like(tokens.told)
    of_answer[rows, positions - 1] = True
    return losses[of_answer[tokens.told]].mean()
