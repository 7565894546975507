"""The answer loss: the answer's own tokens, which are one in a hundred where a chain writes a map.

The loss of a batch is a mean over its tokens, so that what a chain is written for hardly counts in it.
"""

import torch
from torch import Tensor

from llava_aurora.modeling.labelled_tokens import LabelledTokens
from llava_aurora.modeling.stated_points import StatedPoints


class AnswerLoss:
    """Args: points: reads the labels. weight: what the loss is multiplied by."""

    def __init__(self, points: StatedPoints, *, weight: float) -> None:
        self.points, self.weight = points, weight

    def __call__(self, losses: Tensor, labels: Tensor, tokens: LabelledTokens) -> Tensor | None:
        """The mean loss of the answers' tokens, without its weight; None if no chain ends in the batch.

        Args:
            losses: (N,), of the labelled tokens.
            labels: int64 (B, T), -100 where nothing is to be learned.
            tokens: the same N tokens.
        """
        answers = self.points.answers(labels)
        if not answers:
            return None
        rows, positions = torch.tensor(answers, device=losses.device).T
        of_answer = torch.zeros_like(tokens.told)
        of_answer[rows, positions - 1] = True
        return losses[of_answer[tokens.told]].mean()
