"""What training asks of a model with perception tokens: token losses in parts, the reconstruction loss, the mask.

Logits are computed only where there is a label. LLaVA computes them for every image position too, which no loss reads.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from llava_aurora.model.answer_loss import answer_loss
from llava_aurora.model.attention_supervision import GUIDES, AttentionSupervision
from llava_aurora.model.code_metrics import CodeMetrics
from llava_aurora.model.context_mask import ContextMask, image_features
from llava_aurora.model.labelled_tokens import LabelledTokens
from llava_aurora.model.loss_meter import LossMeter
from llava_aurora.model.reconstruction_loss import reconstruction_loss
from llava_aurora.model.span_masking import SpanMasking
from llava_aurora.model.stated_points import StatedPoints
from llava_aurora.tokens.perception import PerceptionTokens


class TrainingLoss:
    """Args: perception: the model's tokens.

    Attributes:
        parts: each part of the loss since it was last read.
        reconstruction_weight: what the reconstruction loss is multiplied by; 0 leaves it out.
        stated_points: reads in labels what the next two need; None: they are not used.
        answer_weight: what the answers' own loss is multiplied by; 0 leaves it out.
        guided: heads that are told where to look (attention_supervision.py).
        bottleneck: what is hidden behind a map in training; None hides nothing.
        span_masking: hides the codes of some maps while they are learned; None: of none.
        metrics: gathers what an evaluation measures while one goes on, else None.
    """

    def __init__(self, perception: PerceptionTokens) -> None:
        self.perception = perception
        self.parts = LossMeter(id_ranges=perception.id_ranges(), extra=("reconstruction", "answer", *GUIDES))
        self.reconstruction_weight = 0.0
        self.stated_points: StatedPoints | None = None
        self.answer_weight = 0.0
        self.guided: list[AttentionSupervision] = []
        self.bottleneck: ContextMask | None = None
        self.span_masking: SpanMasking | None = None
        self.metrics: CodeMetrics | None = None

    def loss(
        self,
        hidden: Tensor,
        labels: Tensor,
        *,
        head: Callable[[Tensor], Tensor],
        attention_mask: Tensor | None = None,
        ids: Tensor | None = None,
    ) -> Tensor:
        """The mean loss of the labelled tokens, plus, outside evaluations, the weighted further losses.

        Args:
            hidden: (B, T, D), the language model's last hidden states.
            labels: int64 (B, T), -100 where nothing is to be learned.
            head: (N, D) to logits (N, V).
            attention_mask: (B, T), 0 at padding; None if all is valid.
            ids: int64 (B, T), of all tokens, -100 where there is none; None if only those that are learned are known.
        """
        tokens = LabelledTokens.of(labels.to(hidden.device))
        logits = head(hidden[:, :-1][tokens.told]).float()
        losses = functional.cross_entropy(logits, tokens.targets, reduction="none")
        loss = losses.sum() / max(len(losses), 1)  # a batch without a label must not make the others' gradients NaN
        if self.metrics is not None:
            self.metrics.add(logits, losses, tokens)
            return loss
        extra = {}
        if self.reconstruction_weight:
            reconstruction = reconstruction_loss(logits, tokens, self.perception)
            extra["reconstruction"] = reconstruction.detach()
            loss = loss + self.reconstruction_weight * reconstruction
        if self.stated_points is not None:
            copies = any(guided_head.guide == "copy" for guided_head in self.guided)
            stated = self.stated_points.read(labels, ids if copies else None)
            if self.answer_weight and (answered := answer_loss(losses, tokens, stated.answers)) is not None:
                extra["answer"] = answered.detach()
                loss = loss + self.answer_weight * answered
            for guided_head in self.guided:
                if (looked := guided_head(stated.looks[guided_head.guide], attention_mask)) is not None:
                    extra[guided_head.guide] = looked.detach()
                    loss = loss + guided_head.weight * looked
        self.parts.add(losses.detach(), tokens.targets, **extra)
        return loss

    def mask(
        self, attention_mask: Tensor | None, labels: Tensor, *, images: Sequence[tuple[int, int]], dtype: torch.dtype
    ) -> Tensor | None:
        """The attention mask, outside evaluations with the information bottleneck in it if there is one.

        Args:
            attention_mask: (B, T), or None if all is valid.
            labels: int64 (B, T), with the image's features put in.
            images: from `text_and_image`, or nothing where there are no images.
            dtype: of the model's activations.
        """
        if self.bottleneck is None or self.metrics is not None:
            return attention_mask
        valid = torch.ones_like(labels) if attention_mask is None else attention_mask
        places = images or [(-1, 0)] * len(labels)
        families = [kind.family for kind in self.perception.kinds.values() if kind.has_picture]
        return self.bottleneck.mask(
            labels=labels,
            valid=valid.bool(),
            images=image_features(places, valid.sum(1).tolist()),
            start_ids=[self.perception.ids.start_id(family) for family in families],
            end_ids=[self.perception.ids.end_id(family) for family in families],
            dtype=dtype,
        )
