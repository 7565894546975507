"""Attention supervision: one attention head each is taught where to look for a coordinate, a value and an answer.

The next-token loss says that a coordinate, a value or a letter is wrong, and not where the model should have looked.
That is known (`stated_points.py`), so three heads are supervised:

- copy: a coordinate of a point that was named before is looked up where the point was named first;
- lookup: a digit of a value is looked up at the map's code in the point's cell;
- choice: the letter of the answer is looked up at the value that was stated for it, the highest.

The loss of a head is -log of the share of its attention on the right position; for several positions with weights
(an interpolated value is read from up to four cells) it is the divergence KL(weights ‖ shares). No module is added and
all other heads are free. A head's attention is computed once more, for these positions only, from the queries and keys
of its layer: it works with every attention kernel and with LoRA. A context mask is not applied to it.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from llava_aurora.errors import AuroraError
from llava_aurora.model.losses.auxiliary import AuxiliaryLoss, LossContext, register_loss
from llava_aurora.model.stated_points import AttentionTarget
from llava_aurora.tokens.perception import PerceptionTokens


class HeadPlace(NamedTuple):
    """Where a supervised head is: its layer as a share of all layers from below, and its number in the layer."""

    height: float
    head: int


# The choice is made from values, so its head lies above the one that looks them up.
HEADS: Mapping[str, HeadPlace] = MappingProxyType(
    {"copy": HeadPlace(1 / 2, 1), "lookup": HeadPlace(1 / 2, 0), "choice": HeadPlace(3 / 4, 0)}
)


@register_loss
class AttentionLoss(AuxiliaryLoss):
    """The supervision of all three heads.

    The factors are those of the demo, measured: with equal ones, copy and choice dominate the clipped gradient and the
    map's codes are learned late.
    """

    name = "attention"
    order = 30
    parts: ClassVar[Mapping[str, float]] = {"copy": 0.15, "lookup": 1.0, "choice": 0.15}
    needs_ids = True
    needs_points = True

    def __init__(self, *, model: Any, perception: PerceptionTokens) -> None:
        super().__init__(model=model, perception=perception)
        self.heads = {name: AttentionSupervision(place, layers=model.model.layers) for name, place in HEADS.items()}

    def __call__(self, context: LossContext) -> dict[str, Tensor]:
        assert context.stated is not None
        targets = context.stated.targets
        losses = {name: head(targets[name], context.attention_mask) for name, head in self.heads.items()}
        return {name: loss for name, loss in losses.items() if loss is not None}


class AttentionSupervision:
    """Records the queries and keys of one attention head in training, and compares its attention with targets."""

    def __init__(self, place: HeadPlace, *, layers: Sequence[Any]) -> None:
        layer = layers[int(len(layers) * place.height)].self_attn
        self.scaling = layer.scaling
        self.recorded: dict[str, Any] = {}
        # Several query heads may share one key head.
        for name, number in (("q_proj", place.head), ("k_proj", place.head // layer.num_key_value_groups)):
            of_head = slice(number * layer.head_dim, (number + 1) * layer.head_dim)
            getattr(layer, name).register_forward_hook(self._record(name, of_head))
        layer.register_forward_pre_hook(self._record_positions, with_kwargs=True)

    def __call__(self, targets: Sequence[AttentionTarget], attention_mask: Tensor | None) -> Tensor | None:
        """The loss of the batch that just went through the layer; None without a target.

        Args:
            attention_mask: (B, T), 0 at padding; None if all is valid.
        Returns a scalar in float32.
        Raises AuroraError if gradient checkpointing recorded activations without a gradient.
        """
        recorded, self.recorded = self.recorded, {}
        if not targets:
            return None
        queries, keys = recorded["q_proj"], recorded["k_proj"]
        if torch.is_grad_enabled() and not queries.requires_grad:
            raise AuroraError(
                "--aux_losses attention needs activations with a gradient; with --gradient_checkpointing True give"
                " --gradient_checkpointing_kwargs '{\"use_reentrant\": false}' as well"
            )
        queries, keys = apply_rotary_pos_emb(queries[:, None], keys[:, None], *recorded["positions"])
        losses, device = [], queries.device
        for row in sorted({target.row for target in targets}):
            of_row = [target for target in targets if target.row == row]
            asking = torch.tensor([target.query for target in of_row], device=device)
            wanted = torch.zeros(len(of_row), keys.shape[2], device=device)
            for number, target in enumerate(of_row):
                wanted[number, list(target.keys)] = torch.tensor(list(target.keys.values()), device=device)
            scores = (queries[row, 0, asking] @ keys[row, 0].T).float() * self.scaling
            visible = torch.arange(keys.shape[2], device=device) <= asking[:, None]
            if attention_mask is not None:
                visible = visible & attention_mask[row].to(device).bool()
            shares = scores.masked_fill(~visible, -torch.inf).log_softmax(-1).masked_fill(wanted == 0, 0.0)
            losses.append((torch.xlogy(wanted, wanted) - wanted * shares).sum(-1))
        return torch.cat(losses).mean()

    def _record(self, name: str, of_head: slice) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
            if module.training:
                self.recorded[name] = output[..., of_head]

        return hook

    def _record_positions(self, module: nn.Module, inputs: Any, options: dict[str, Any]) -> None:
        if module.training:
            self.recorded["positions"] = options["position_embeddings"]
