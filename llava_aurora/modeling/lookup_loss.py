"""The look-up loss: where one attention head should look when the value of a point is read in a map.

A chain with values (`--value_step`) says of each point what the map's code in the point's cell stands for. The loss of
its tokens tells a model that a value is wrong, and not which of the codes it should have looked at. Which one is meant
is known, though. One head in the middle of the model is asked to look at it: the loss is -log of the share of its
attention that the code gets. All other heads are free, and nothing is added to the model.

The head's attention is computed beside the model's own, for the values alone, from the queries and keys that the
layer's projections gave. So it does not matter how attention is computed, nor what the projections are wrapped in. What
an information bottleneck hides from the model's own attention takes its share here.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from llava_aurora.errors import AuroraError
from llava_aurora.modalities.box import BoxModality
from llava_aurora.modalities.depth import DepthModality
from llava_aurora.perception import Perception

# Tokens between a point's last coordinate and its value: the bracket and a blank.
_MOST_BETWEEN = 3


@dataclass(frozen=True)
class Lookup:
    """A value that is read in a map: row of the batch, position whose next token is of the value, that of its code."""

    row: int
    query: int
    key: int


def digit_ids(tokenizer: Any) -> frozenset[int]:
    """Ids of the tokens that values are made of: digits, whole or, in a small vocabulary, as bytes."""
    bytes_of_digits = {f"<0x{ord(digit):02X}>" for digit in "0123456789"}
    vocabulary = tokenizer.get_vocab().items()
    return frozenset(index for token, index in vocabulary if token.lstrip("▁Ġ").isdecimal() or token in bytes_of_digits)


def find_lookups(labels: Tensor, perception: Perception, *, digits: frozenset[int]) -> list[Lookup]:
    """Where values are read in maps: each digit behind two coordinates, behind a whole map that is learned too.

    Args:
        labels: int64 (B, T), -100 where nothing is to be learned.
        perception: with depth and box tokens.
        digits: from `digit_ids`.
    """
    depth, box = perception.modalities["depth"], perception.modalities["box"]
    assert isinstance(depth, DepthModality)
    assert isinstance(box, BoxModality)
    start, first_code = perception.ids.start_id(depth.family), perception.ids.first_code_id(depth.family)
    first_pixel, length = perception.ids.first_code_id(box.family), depth.family.lengths[-1]
    found: list[Lookup] = []
    for row, ids in enumerate(labels.tolist()):
        opened: int | None = None  # where the codes of the last map begin
        place: list[int] = []  # the coordinates that were said last
        between = 0  # tokens since then
        for position, label in enumerate(ids):
            if label == start:
                codes = [code - first_code for code in ids[position + 1 : position + 1 + length]]
                whole = len(codes) == length and all(0 <= code < depth.family.size for code in codes)
                opened = position + 1 if whole else None
            elif 0 <= label - first_pixel < box.family.size:
                place = [*place, label - first_pixel] if between == 1 else [label - first_pixel]
                between = 0
            elif label in digits and len(place) == 2 and between <= _MOST_BETWEEN and opened is not None:
                cell = depth.cell_of((place[0], place[1]), frame=box.frame)
                found.append(Lookup(row, position - 1, opened + cell))
            else:
                between += 1
    return found


class LookupLoss:
    """Listens to one attention layer, and says how far one of its heads looks from where it should.

    Args:
        layer: self-attention of a Llama; its head 0 is the one.
        perception: of the model.
        digits: from `digit_ids`.
        weight: what the loss is multiplied by.
    """

    def __init__(self, layer: Any, *, perception: Perception, digits: frozenset[int], weight: float) -> None:
        self.perception, self.digits, self.weight = perception, digits, weight
        self.dimension, self.scaling = layer.head_dim, layer.scaling
        self.heard: dict[str, Any] = {}
        for name in ("q_proj", "k_proj"):
            getattr(layer, name).register_forward_hook(self._keep(name))
        layer.register_forward_pre_hook(self._keep_positions, with_kwargs=True)

    def __call__(self, labels: Tensor, attention_mask: Tensor | None) -> Tensor | None:
        """The loss of the batch that just went through the layer; None if no value is read in it.

        Args:
            labels: int64 (B, T), with the image's features put in.
            attention_mask: (B, T), 0 at padding; None if all is valid.

        Returns:
            a scalar in float32, without its weight.

        Raises:
            AuroraError: if the layer's activations are computed once more for their gradient.
        """
        heard, self.heard = self.heard, {}
        lookups = find_lookups(labels, self.perception, digits=self.digits)
        if not lookups:
            return None
        queries, keys = (heard[name][..., : self.dimension] for name in ("q_proj", "k_proj"))
        if torch.is_grad_enabled() and not queries.requires_grad:
            raise AuroraError(
                "--lookup_loss_weight needs activations that know their gradient; with --gradient_checkpointing True"
                " give --gradient_checkpointing_kwargs '{\"use_reentrant\": false}' as well"
            )
        queries, keys = apply_rotary_pos_emb(queries[:, None], keys[:, None], *heard["positions"])
        losses, device = [], queries.device
        for row in sorted({lookup.row for lookup in lookups}):
            here = [lookup for lookup in lookups if lookup.row == row]
            asked = torch.tensor([lookup.query for lookup in here], device=device)
            wanted = torch.tensor([lookup.key for lookup in here], device=device)
            scores = (queries[row, 0, asked] @ keys[row, 0].T).float() * self.scaling
            seen = torch.arange(labels.shape[1], device=device) <= asked[:, None]
            if attention_mask is not None:
                seen = seen & attention_mask[row].to(device).bool()
            losses.append(nn.functional.cross_entropy(scores.masked_fill(~seen, -torch.inf), wanted, reduction="none"))
        return torch.cat(losses).mean()

    def _keep(self, name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
            if module.training:
                self.heard[name] = output

        return hook

    def _keep_positions(self, module: nn.Module, inputs: Any, options: dict[str, Any]) -> None:
        if module.training:
            self.heard["positions"] = options["position_embeddings"]
