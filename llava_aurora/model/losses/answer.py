"""The answer loss: the mean loss of the tokens that state a chain's answer.

The next-token loss is a mean over all tokens of a batch, and behind a map the answer is one token in a hundred.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from llava_aurora.model.losses.auxiliary import AuxiliaryLoss, LossContext, register_loss


@register_loss
class AnswerLoss(AuxiliaryLoss):
    name = "answer"
    order = 20
    parts: ClassVar[Mapping[str, float]] = {"answer": 1.0}
    needs_points = True

    def __call__(self, context: LossContext) -> dict[str, Tensor]:
        assert context.stated is not None
        if not context.stated.answers:
            return {}
        losses, loss_mask = context.token_losses, context.tokens.loss_mask
        rows, positions = torch.tensor(context.stated.answers, device=losses.device).T
        of_answer = torch.zeros_like(loss_mask)
        of_answer[rows, positions - 1] = True
        return {"answer": losses[of_answer[loss_mask]].mean()}
