"""The reconstruction loss (AURORA, eq. 2): how far the decoded picture of what the model writes is from the true one.

Cross-entropy calls every wrong code equally wrong. Here the expected code, Σ p_k e_k over the codebook with the model's
probabilities p, goes through the frozen decoder of the VQ-VAE, and the picture is compared with that of the true codes.
The decoder is no submodule of the model: no ZeRO stage partitions it, and it never waits for another rank.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from llava_aurora.errors import AuroraError
from llava_aurora.model.losses.auxiliary import AuxiliaryLoss, LossContext, register_loss
from llava_aurora.tokens import TokenKind
from llava_aurora.tokens.perception import PerceptionTokens


@register_loss
class ReconstructionLoss(AuxiliaryLoss):
    """Mean error of written pictures (squared, or what the kind says): over the pixels of each kind, then the kinds.

    Raises AuroraError if no token kind of the model has a picture.
    """

    name = "reconstruction"
    order = 10
    parts: ClassVar[Mapping[str, float]] = {"reconstruction": 1.0}

    def __init__(self, *, model: Any, perception: PerceptionTokens) -> None:
        super().__init__(model=model, perception=perception)
        self.kinds = [kind for kind in perception.kinds.values() if kind.has_picture]
        if not self.kinds:
            raise AuroraError(
                f"--aux_losses {self.name}: compares pictures, and {', '.join(perception.kinds)} tokens have none;"
                " leave it out, or add depth to --perception_modalities"
            )

    def __call__(self, context: LossContext) -> dict[str, Tensor]:
        """Zero, but with a gradient graph, where the batch holds no whole span that has a picture."""
        means, kinds_present = [], 0
        for kind in self.kinds:
            family, first = kind.family, self.perception.ids.first_code_id(kind.family)
            of_codes = context.logits[:, first : first + family.size]
            error, pixels = torch.zeros((), device=of_codes.device), 0
            for length in family.lengths:
                places, codes = context.tokens.spans(
                    start_id=self.perception.ids.start_id(family), first_code=first, codes=family.size, length=length
                )
                written, true = pictures(kind, of_codes[places], codes)
                error = error + kind.picture_error(written, true).sum() * true[:1].numel()
                pixels += true.numel()
            means.append(error / max(pixels, 1))
            kinds_present += bool(pixels)
        return {self.name: torch.stack(means).sum() / max(kinds_present, 1)}


def pictures(kind: TokenKind, logits: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
    """The picture that the logits stand for, with a gradient, and the picture of the true codes, without one.

    Args: logits: (M, length, family.size), of the codes alone; codes: int64 (M, length).
    Returns both (M, C, H, W).
    """
    precision = torch.promote_types(logits.dtype, torch.float32)
    with torch.autocast(logits.device.type, enabled=False):
        written = kind.reconstruct(logits.to(precision).softmax(dim=-1))
        with torch.no_grad():
            true = kind.reconstruct(functional.one_hot(codes, kind.family.size).to(precision))
    return written, true
