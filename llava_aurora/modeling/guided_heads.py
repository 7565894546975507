"""Guided heads: where an attention head should look as a point's value is read in a map, and as a point is chosen.

A chain with values (`--value_step`) says of each point what the map's code in the point's cell stands for, and then
which point it chooses. The loss of its tokens tells a model that a value or a choice is wrong, and not where it should
have looked. That is known, though:

- lookup: each digit of a value is read from the code in the cell of the point;
- choice: the letter of the point that is chosen is read from the value that was stated for it, the highest.

For each, one head is told to look there: the loss is -log of the share of its attention that the right token gets. All
other heads are free, and nothing is added to the model. The choice is made in a higher layer than the look-ups.

The head's attention is computed beside the model's own, for these tokens alone, from the queries and keys that the
layer's projections gave. So it does not matter how attention is computed, nor what the projections are wrapped in. What
an information bottleneck hides from the model's own attention takes its share here.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from llava_aurora.errors import AuroraError
from llava_aurora.modalities.box import BoxModality
from llava_aurora.modalities.depth import DepthModality
from llava_aurora.perception import Perception

# What heads are guided at, and how far up the guided layer lies, as a share of the layers.
GUIDES: Mapping[str, float] = MappingProxyType({"lookup": 1 / 2, "choice": 3 / 4})

# Tokens between a point's letter and its first coordinate, or its last coordinate and its value: a bracket and a blank.
_MOST_BETWEEN = 3


@dataclass(frozen=True)
class Look:
    """A token and where it is read: row of the batch, position whose next token it is, position to be looked at."""

    row: int
    query: int
    key: int


@dataclass
class _Point:
    """A point as an answer states it: letter, place, positions of its value's digits, where the map's codes begin."""

    letter: str | None
    place: tuple[int, int]
    digits: list[int] = field(default_factory=list)
    codes: int | None = None


class StatedPoints:
    """Reads labels for the points that they state.

    Args:
        tokenizer: of the model.
        perception: with depth and box tokens.

    Raises:
        AuroraError: if it lacks them.
    """

    def __init__(self, tokenizer: Any, perception: Perception) -> None:
        if lacking := {"depth", "box"} - set(perception.modalities):
            raise AuroraError(f"guided heads need {sorted(lacking)[0]} tokens: --perception_modalities depth,box")
        depth, box = perception.modalities["depth"], perception.modalities["box"]
        assert isinstance(depth, DepthModality)
        assert isinstance(box, BoxModality)
        self.depth, self.box = depth, box
        self.start = perception.ids.start_id(depth.family)
        self.first_code, self.first_pixel = (perception.ids.first_code_id(each.family) for each in (depth, box))
        characters = {f"<0x{ord(sign):02X}>": sign for sign in "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"}
        self.digits: set[int] = set()
        self.letters: dict[int, str] = {}
        for token, index in tokenizer.get_vocab().items():
            said = characters.get(token, token.lstrip("▁Ġ"))  # a small vocabulary spells some as bytes
            if said.isdecimal():
                self.digits.add(index)
            elif len(said) == 1 and "A" <= said <= "Z":
                self.letters[index] = said

    def looks(self, guide: str, labels: Tensor) -> list[Look]:
        """Where the head of this guide should look.

        Args:
            guide: "lookup": for each digit of a value behind a whole map that is learned too, at the code of the
                point's cell. "choice": for the letter that is said last, each time it stands behind two values or
                more and names no place, at the last digit of the letter's value.
            labels: int64 (B, T), -100 where nothing is to be learned.
        """
        find = {"lookup": self._lookups, "choice": self._choices}[guide]
        return [Look(row, query, key) for row, ids in enumerate(labels.tolist()) for query, key in find(ids)]

    def _lookups(self, ids: Sequence[int]) -> Iterator[tuple[int, int]]:
        for point in self._read(ids)[0]:
            if point.codes is not None:
                cell = self.depth.cell_of(point.place, frame=self.box.frame)
                yield from ((position - 1, point.codes + cell) for position in point.digits)

    def _choices(self, ids: Sequence[int]) -> Iterator[tuple[int, int]]:
        points, named = self._read(ids)
        values = {point.letter: point.digits[-1] for point in points if point.letter and point.digits}
        if len(values) < 2 or not named:
            return
        chosen = ids[named[-1]]
        if (value := values.get(self.letters[chosen])) is None:
            return
        for position in named:
            if position > max(values.values()) and self.letters[ids[position]] == self.letters[chosen]:
                yield position - 1, value

    def _read(self, ids: Sequence[int]) -> tuple[list[_Point], list[int]]:
        """The points that have a place, in their order, and the positions of the letters that name none of them."""
        points: list[_Point] = []
        named: list[int] = []
        codes: int | None = None  # where the codes of the last map begin
        place: list[int] = []  # the coordinates that were said last
        between = 0  # tokens since then
        for position, label in enumerate(ids):
            if label == self.start:
                codes = position + 1 if self._is_map(ids, position + 1) else None
            elif 0 <= label - self.first_pixel < self.box.family.size:
                place = [*place, label - self.first_pixel] if between == 1 else [label - self.first_pixel]
                between = 0
                if len(place) == 2:
                    names_it = named and position - 2 - named[-1] <= _MOST_BETWEEN
                    letter = self.letters[ids[named.pop()]] if names_it else None
                    points.append(_Point(letter, (place[0], place[1]), codes=codes))
            elif label in self.digits and len(place) == 2 and between <= _MOST_BETWEEN:
                points[-1].digits.append(position)
            else:
                between += 1
                if label in self.letters:
                    named.append(position)
        return points, named

    def _is_map(self, ids: Sequence[int], begin: int) -> bool:
        length = self.depth.family.lengths[-1]
        codes = [code - self.first_code for code in ids[begin : begin + length]]
        return len(codes) == length and all(0 <= code < self.depth.family.size for code in codes)


class GuidedHead:
    """Listens to one attention layer, and says how far its first head looks from where it should.

    Args:
        guide: of GUIDES.
        layer: self-attention of a Llama.
        points: reads the labels.
        weight: what the loss is multiplied by.
    """

    def __init__(self, guide: str, *, layer: Any, points: StatedPoints, weight: float) -> None:
        self.guide, self.points, self.weight = guide, points, weight
        self.dimension, self.scaling = layer.head_dim, layer.scaling
        self.heard: dict[str, Any] = {}
        for name in ("q_proj", "k_proj"):
            getattr(layer, name).register_forward_hook(self._keep(name))
        layer.register_forward_pre_hook(self._keep_positions, with_kwargs=True)

    def __call__(self, labels: Tensor, attention_mask: Tensor | None) -> Tensor | None:
        """The loss of the batch that just went through the layer; None if there is nothing in it to look at.

        Args:
            labels: int64 (B, T), with the image's features put in.
            attention_mask: (B, T), 0 at padding; None if all is valid.

        Returns:
            a scalar in float32, without its weight.

        Raises:
            AuroraError: if the layer's activations are computed once more for their gradient.
        """
        heard, self.heard = self.heard, {}
        looks = self.points.looks(self.guide, labels)
        if not looks:
            return None
        queries, keys = (heard[name][..., : self.dimension] for name in ("q_proj", "k_proj"))
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
            wanted = torch.tensor([look.key for look in here], device=device)
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
