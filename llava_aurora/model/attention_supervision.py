"""Guided heads: where an attention head should look as a point is named again, read in a map, and chosen.

A chain names the points of its question, with values (`--value_step`) says of each what the map's code in the point's
cell stands for, and then which point it chooses. The loss of its tokens tells a model that a coordinate, a value or a
choice is wrong, and not where it should have looked. That is known, though:

- copy: each coordinate of a point that was named before is the one that was said then;
- lookup: each digit of a value is read from the code in the cell of the point;
- choice: the letter of the point that is chosen is read from the value that was stated for it, the highest.

For each, one head is told to look there: the loss is -log of the share of its attention that the right token gets; of
several tokens, the divergence KL(wanted ‖ given) of their shares. An interpolated value is read from the codes of the
cells around the point, whose shares are the weights of the interpolation. All other heads are free, and nothing is
added to the model. The choice is made in a higher layer than what comes before it.

The head's attention is computed beside the model's own, for these tokens alone, from the queries and keys that the
layer's projections gave. So it does not matter how attention is computed, nor what the projections are wrapped in. What
an information bottleneck hides from the model's own attention takes its share here.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from llava_aurora.errors import AuroraError
from llava_aurora.model.stated_points import AttentionTarget


class Guide(NamedTuple):
    """Which head is guided: how far up its layer lies, as a share of the layers, and its number there."""

    height: float
    head: int


GUIDES: Mapping[str, Guide] = MappingProxyType(
    {"copy": Guide(1 / 2, 1), "lookup": Guide(1 / 2, 0), "choice": Guide(3 / 4, 0)}
)


class AttentionSupervision:
    """Listens to one attention layer of a model, and says how far one head of it looks from where it should.

    Args:
        guide: of GUIDES.
        layers: of a Llama.
        weight: what the loss is multiplied by.
    """

    def __init__(self, guide: str, *, layers: Sequence[Any], weight: float) -> None:
        height, head = GUIDES[guide]
        layer = layers[int(len(layers) * height)].self_attn
        self.guide, self.weight = guide, weight
        self.scaling = layer.scaling
        self.heard: dict[str, Any] = {}
        # Several heads may share one of keys.
        for name, number in (("q_proj", head), ("k_proj", head // layer.num_key_value_groups)):
            of_head = slice(number * layer.head_dim, (number + 1) * layer.head_dim)
            getattr(layer, name).register_forward_hook(self._keep(name, of_head))
        layer.register_forward_pre_hook(self._keep_positions, with_kwargs=True)

    def __call__(self, looks: Sequence[AttentionTarget], attention_mask: Tensor | None) -> Tensor | None:
        """The loss of the batch that just went through the layer; None if there is nothing in it to look at.

        Args:
            looks: where the head should look in this batch.
            attention_mask: (B, T), 0 at padding; None if all is valid.

        Returns:
            a scalar in float32, without its weight.

        Raises:
            AuroraError: if the layer's activations are computed once more for their gradient.
        """
        heard, self.heard = self.heard, {}
        if not looks:
            return None
        queries, keys = heard["q_proj"], heard["k_proj"]
        if torch.is_grad_enabled() and not queries.requires_grad:
            raise AuroraError(
                f"--{self.guide}_loss_weight needs activations that know their gradient; with --gradient_checkpointing"
                " True give --gradient_checkpointing_kwargs '{\"use_reentrant\": false}' as well"
            )
        queries, keys = apply_rotary_pos_emb(queries[:, None], keys[:, None], *heard["positions"])
        losses, device = [], queries.device
        for row in sorted({look.row for look in looks}):
            here = [look for look in looks if look.row == row]
            asked = torch.tensor([look.query for look in here], device=device)
            wanted = torch.zeros(len(here), keys.shape[2], device=device)
            for number, look in enumerate(here):
                wanted[number, list(look.keys)] = torch.tensor(list(look.keys.values()), device=device)
            scores = (queries[row, 0, asked] @ keys[row, 0].T).float() * self.scaling
            seen = torch.arange(keys.shape[2], device=device) <= asked[:, None]
            if attention_mask is not None:
                seen = seen & attention_mask[row].to(device).bool()
            shares = scores.masked_fill(~seen, -torch.inf).log_softmax(-1).masked_fill(wanted == 0, 0.0)
            losses.append((torch.xlogy(wanted, wanted) - wanted * shares).sum(-1))
        return torch.cat(losses).mean()

    def _keep(self, name: str, of_head: slice) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
            if module.training:
                self.heard[name] = output[..., of_head]

        return hook

    def _keep_positions(self, module: nn.Module, inputs: Any, options: dict[str, Any]) -> None:
        if module.training:
            self.heard["positions"] = options["position_embeddings"]
