"""Embedding and output head with separate, trainable rows for the perception tokens beside frozen matrices of words.

Where the language model is not fully trained, its two vocabulary matrices stay frozen too, and each gets one small
parameter with the tokens' rows. The logits are joined, so that code that uses the model sees one vocabulary. PEFT's
`trainable_token_indices` copies the whole matrix in every forward pass; docs/trainable_rows.md compares the two.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

ROWS = "perception_rows"
WORDS = "words.weight"


class _SplitRows(nn.Module):
    """A vocabulary matrix whose rows for `ids` are a parameter of their own.

    Args:
        words: the frozen embedding or head of all other ids; rows that it has for `ids` are not used.
        rows: (len(ids), D), their initial values.
    """

    def __init__(self, *, words: nn.Module, ids: range, rows: Tensor) -> None:
        super().__init__()
        self.words = words
        self.ids = ids
        self.perception_rows = nn.Parameter(rows)


class PerceptionEmbedding(_SplitRows):
    """An input embedding with rows of its own."""

    def forward(self, input_ids: Tensor) -> Tensor:
        """int64 (...) to (..., D)."""
        new = (input_ids >= self.ids.start) & (input_ids < self.ids.stop)
        words = self.words(input_ids.masked_fill(new, 0))
        rows = functional.embedding((input_ids - self.ids.start).masked_fill(~new, 0), self.perception_rows)
        return torch.where(new[..., None], rows.to(words.dtype), words)


class PerceptionHead(_SplitRows):
    """An output head with rows of its own."""

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., D) to logits (..., V), of words and perception tokens in the order of their ids."""
        words = self.words(hidden)
        new = functional.linear(hidden, self.perception_rows.to(hidden.dtype)).to(words.dtype)
        return torch.cat([words[..., : self.ids.start], new, words[..., self.ids.stop :]], dim=-1)


def split_rows(model: PreTrainedModel, *, ids: range, rows: Mapping[str, Tensor]) -> None:
    """Gives a causal language model trainable rows for `ids` and freezes its two vocabulary matrices.

    Args:
        model: its matrices may have rows for `ids` already, or end before them.
        rows: "input" and "output", (len(ids), D) each; of a model whose matrices are tied, "input" serves both.
    """
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    tied = embedding.weight is head.weight
    for words in (embedding, head):
        words.requires_grad_(False)
    split_embedding = PerceptionEmbedding(words=embedding, ids=ids, rows=rows["input"])
    split_head = PerceptionHead(words=head, ids=ids, rows=rows["input" if tied else "output"])
    if tied:
        split_head.perception_rows = split_embedding.perception_rows
    model.set_input_embeddings(split_embedding)
    model.set_output_embeddings(split_head)
    model.config.vocab_size = max(model.config.vocab_size, ids.stop)


def is_split(model: PreTrainedModel) -> bool:
    """Whether the model's perception tokens have separate rows."""
    return isinstance(model.get_output_embeddings(), PerceptionHead)


def join_rows(weights: Mapping[str, Tensor], *, ids: range) -> dict[str, Tensor]:
    """A state dict with whole matrices, under the names that upstream's model has.

    Args: weights: whole tensors by name, of a model with or without rows of their own.
    """
    joined = dict(weights)
    for name in [name for name in weights if name.endswith(f".{ROWS}")]:
        place = name.removesuffix(ROWS)
        rows = joined.pop(name)
        words = joined.pop(place + WORDS)
        joined[place + "weight"] = torch.cat([words[: ids.start], rows.to(words), words[ids.stop :]])
    return joined
