"""The training loss of a model with perception tokens: next-token loss, auxiliary losses, and their parts for the log.

Logits are computed only where there is a label. LLaVA computes them for every image position too, which no loss reads.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from llava_aurora.model.code_metrics import CodeMetrics
from llava_aurora.model.context_mask import ContextMask, image_features
from llava_aurora.model.labelled_tokens import LabelledTokens
from llava_aurora.model.loss_meter import LossMeter
from llava_aurora.model.losses import AuxWeight, LossContext, loss_class
from llava_aurora.model.span_masking import CodeNoise, SpanMasking
from llava_aurora.model.stated_points import StatedPoints
from llava_aurora.tokens.perception import PerceptionTokens


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How a model with perception tokens is trained; by default by the next-token loss alone."""

    aux_losses: Mapping[str, AuxWeight] = field(default_factory=dict)  # weights by name, of `parse_aux_losses`
    context_mask: ContextMask | None = None  # what is hidden behind a map; None hides nothing
    # span_mask_probability, span_noise_probability: of `SpanMasking`; 0 masks nothing
    span_mask_probability: float = 0.0
    span_noise_probability: float = 0.0
    code_noise: float = 0.0  # of `CodeNoise`; 0 changes no code
    values: str = ""  # where the values that chains state come from (--value_step); "": the model keeps what it has


class TrainingLoss:
    """Computes the loss of a batch.

    Args:
        model: the causal language model; auxiliary losses may listen to its layers.
    Attributes:
        meter: the mean of each part of the loss since it was last read.
        change_codes: changes the input codes of some maps; None: of no map.
        metrics: collects what an evaluation measures, while one runs; None in training.
    Raises AuroraError if the model lacks what an auxiliary loss needs.
    """

    def __init__(self, settings: TrainingSettings, *, model: Any, tokenizer: Any) -> None:
        self.perception: PerceptionTokens = model.perception
        self.weights = settings.aux_losses
        self.losses = {name: loss_class(name)(model=model, perception=self.perception) for name in settings.aux_losses}
        points = any(loss.needs_points for loss in self.losses.values())
        self.points = StatedPoints(tokenizer, self.perception) if points else None
        self.context_mask = settings.context_mask
        self.change_codes: SpanMasking | CodeNoise | None = None
        if settings.code_noise:
            self.change_codes = CodeNoise(self.perception, probability=settings.code_noise)
        elif settings.span_mask_probability:
            self.change_codes = SpanMasking(
                self.perception, probability=settings.span_mask_probability, noise=settings.span_noise_probability
            )
        parts = tuple(part for loss in self.losses.values() for part in loss.parts)
        self.meter = LossMeter(id_ranges=self.perception.id_ranges(), extra=parts)
        self.step = 0
        self.metrics: CodeMetrics | None = None

    def active(self) -> list[str]:
        """Names of the auxiliary losses that count in this step; none in evaluations."""
        if self.metrics is not None:
            return []
        return [name for name, weight in self.weights.items() if self.step >= weight.first_step]

    @property
    def needs_ids(self) -> bool:
        """Whether `loss` has to be given the ids of all tokens in this step."""
        return any(self.losses[name].needs_ids for name in self.active())

    def loss(
        self,
        hidden: Tensor,
        labels: Tensor,
        *,
        head: Callable[[Tensor], Tensor],
        attention_mask: Tensor | None = None,
        ids: Tensor | None = None,
    ) -> Tensor:
        """The mean cross-entropy of the labelled tokens plus, outside evaluations, the weighted auxiliary losses.

        Args:
            hidden: (B, T, D), the language model's last hidden states.
            labels: int64 (B, T), -100 where nothing is to be learned.
            head: (N, D) to logits (N, V).
            attention_mask: (B, T), 0 at padding; None if all is valid.
            ids: int64 (B, T), all tokens, -100 where there is none; None unless `needs_ids`.
        """
        tokens = LabelledTokens.of(labels.to(hidden.device))
        logits = head(hidden[:, :-1][tokens.loss_mask]).float()
        losses = functional.cross_entropy(logits, tokens.targets, reduction="none")
        loss = losses.sum() / max(len(losses), 1)  # a batch without a label must not make the others' gradients NaN
        if self.metrics is not None:
            self.metrics.add(logits, losses, tokens)
            return loss
        active = {name: self.losses[name] for name in self.active()}
        stated = None
        if self.points is not None and any(auxiliary.needs_points for auxiliary in active.values()):
            stated = self.points.read(labels, ids)
        context = LossContext(hidden, labels, tokens, logits, losses, attention_mask, ids, stated)
        parts = {}
        for name, auxiliary in active.items():
            for part, value in auxiliary(context).items():
                parts[part] = value.detach()
                loss = loss + self.weights[name].weight * auxiliary.parts[part] * value
        self.meter.add(losses.detach(), tokens.targets, **parts)
        return loss

    def mask(
        self, attention_mask: Tensor | None, labels: Tensor, *, images: Sequence[tuple[int, int]], dtype: torch.dtype
    ) -> Tensor | None:
        """The attention mask of a batch: in training with the context mask in it, if there is one.

        Args:
            attention_mask: (B, T), or None if all is valid.
            labels: int64 (B, T), image features included.
            images: from `text_and_image`, or nothing where there are no images.
        """
        if self.context_mask is None or self.metrics is not None:
            return attention_mask
        valid = torch.ones_like(labels) if attention_mask is None else attention_mask
        places = images or [(-1, 0)] * len(labels)
        families = [kind.family for kind in self.perception.kinds.values() if kind.hides_context]
        return self.context_mask.mask(
            labels=labels,
            valid=valid.bool(),
            images=image_features(places, valid.sum(1).tolist()),
            start_ids=[self.perception.ids.start_id(family) for family in families],
            end_ids=[self.perception.ids.end_id(family) for family in families],
            dtype=dtype,
        )
