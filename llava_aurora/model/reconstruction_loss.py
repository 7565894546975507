"""The reconstruction loss (AURORA, eq. 2): how far the picture a model writes is from the true one.

Cross-entropy asks for the exact code and calls every other one equally wrong. Here the expected code, Σ p_k e_k over
the codebook with the model's own probabilities, goes through the frozen decoder of the VQ-VAE, and the picture that
comes out is compared with that of the true codes. The decoder hangs on no module of the model: no ZeRO stage partitions
it, and it runs on every rank in every step, with no map in the batch too.
"""

import torch
from torch import Tensor
from torch.nn import functional

from llava_aurora.model.labelled_tokens import LabelledTokens
from llava_aurora.tokens import TokenKind
from llava_aurora.tokens.perception import PerceptionTokens


def reconstruction_loss(logits: Tensor, tokens: LabelledTokens, perception: PerceptionTokens) -> Tensor:
    """Mean squared error between written and true picture, over all pixels of all spans that have a picture.

    Args:
        logits: (N, V), of the labelled tokens.
        tokens: the same N tokens.
        perception: what the ids mean; kinds without a picture (boxes) are passed over.

    Returns:
        a scalar in float32, zero (but with a gradient graph) where the batch holds no picture.
    """
    total, pixels = torch.zeros((), device=logits.device), 0
    for kind in perception.kinds.values():
        if not kind.has_picture:
            continue
        family = kind.family
        first = perception.ids.first_code_id(family)
        numbers, codes = tokens.spans(
            start_id=perception.ids.start_id(family), first_code=first, codes=family.size, length=family.lengths[0]
        )
        of_codes = logits[:, first : first + family.size][numbers]
        written, true = pictures(kind, of_codes, codes)
        total = total + functional.mse_loss(written, true, reduction="sum")
        pixels += true.numel()
    return total / max(pixels, 1)


def pictures(kind: TokenKind, logits: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
    """What the logits draw, with a gradient, and what the true codes draw, without one.

    Args:
        kind: one with a picture.
        logits: (M, length, family.size), of the codes alone.
        codes: int64 (M, length).

    Returns:
        both (M, C, H, W).
    """
    precision = torch.promote_types(logits.dtype, torch.float32)
    with torch.autocast(logits.device.type, enabled=False):
        written = kind.reconstruct(logits.to(precision).softmax(dim=-1))
        with torch.no_grad():
            true = kind.reconstruct(functional.one_hot(codes, kind.family.size).to(precision))
    return written, true
