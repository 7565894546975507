"""The contract of an auxiliary loss, the registry of all auxiliary losses, and the flag --aux_losses.

An auxiliary loss is added to the next-token loss with a weight, from a first step on. A new one is one new file in this
folder with a class under `@register_loss`; nothing else names it.
"""

import importlib
import math
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from torch import Tensor

from llava_aurora.errors import AuroraError
from llava_aurora.listed import listed
from llava_aurora.model.labelled_tokens import LabelledTokens
from llava_aurora.model.stated_points import Stated
from llava_aurora.tokens.perception import PerceptionTokens


@dataclass(frozen=True)
class LossContext:
    """A training batch after its forward pass."""

    hidden: Tensor  # (B, T, D), the language model's last hidden states
    labels: Tensor  # int64 (B, T), -100 where nothing is to be learned
    tokens: LabelledTokens  # the N labelled tokens of the batch
    logits: Tensor  # float32 (N, V), which predict these tokens
    token_losses: Tensor  # float32 (N,), their cross-entropies
    attention_mask: Tensor | None = None  # (B, T), 0 at padding; None if there is none
    # int64 (B, T), all tokens, -100 at image features and padding; None unless a loss `needs_ids`
    ids: Tensor | None = None
    stated: Stated | None = None  # points and answers that the labels state; None unless a loss `needs_points`


class AuxiliaryLoss(ABC):
    """A loss beside the next-token loss.

    Attributes:
        name: in --aux_losses.
        order: losses are added in this order, ties by name.
        parts: the names under which its parts are logged, each with the factor that the part has in the loss.
        needs_ids: `LossContext.ids` has to be there, which costs a little in every step.
        needs_points: `LossContext.stated` has to be there.
    """

    name: ClassVar[str]
    order: ClassVar[int] = 100
    parts: ClassVar[Mapping[str, float]]
    needs_ids: ClassVar[bool] = False
    needs_points: ClassVar[bool] = False

    def __init__(self, *, model: Any, perception: PerceptionTokens) -> None:
        """Called once, before training.

        Args: model: the causal language model; perception: its tokens.
        Raises AuroraError if the model lacks what the loss needs.
        """
        self.perception = perception

    @abstractmethod
    def __call__(self, context: LossContext) -> dict[str, Tensor]:
        """Its parts, scalars in float32 without weight or factor. A part that this batch lacks is left out."""


class AuxWeight(NamedTuple):
    """What a loss is multiplied by, and the optimizer step from which on it is added."""

    weight: float
    first_step: int = 0


_registry: dict[str, type[AuxiliaryLoss]] = {}


def register_loss(cls: type[AuxiliaryLoss]) -> type[AuxiliaryLoss]:
    """Class decorator. Raises ValueError if the name is taken."""
    if cls.name in _registry:
        raise ValueError(f"auxiliary loss {cls.name!r} is registered already, by {_registry[cls.name].__module__}")
    _registry[cls.name] = cls
    return cls


def loss_class(name: str) -> type[AuxiliaryLoss]:
    """Raises AuroraError for an unknown name, listing all names."""
    package = importlib.import_module("llava_aurora.model.losses")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
    if name not in _registry:
        raise AuroraError(f"--aux_losses {name}: no such loss; available: {', '.join(sorted(_registry))}")
    return _registry[name]


def parse_aux_losses(text: str) -> dict[str, AuxWeight]:
    """Reads --aux_losses: "reconstruction=1@200,attention=0.2". A loss of weight 0 is left out.

    Returns weights by name, in the order in which the losses are added. Raises AuroraError for anything else, an
    unknown name, a name given twice, or a negative or infinite weight.
    """
    found: dict[str, AuxWeight] = {}
    for item in listed(text):
        name, _, value = (part.strip() for part in item.partition("="))
        weight, at, step = value.partition("@")
        loss_class(name)
        if name in found:
            raise AuroraError(f"--aux_losses {text}: {name} is given twice")
        try:
            found[name] = AuxWeight(float(weight), int(step if at else 0))
        except ValueError as error:
            raise AuroraError(f"--aux_losses {item}: write NAME=WEIGHT or NAME=WEIGHT@FIRST_STEP") from error
        if not 0 <= found[name].weight < math.inf or found[name].first_step < 0:
            raise AuroraError(f"--aux_losses {item}: weight and first step are 0 or more, and finite")
    order = sorted(found, key=lambda name: (loss_class(name).order, name))
    return {name: found[name] for name in order if found[name].weight}
