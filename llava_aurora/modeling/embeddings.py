"""Rows for the perception tokens in the input embedding and the output head, safe under DeepSpeed ZeRO-3."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn
from transformers import PreTrainedModel


def grow_embeddings(model: PreTrainedModel, *, rows: int, new_ids: range, seed: int = 0) -> None:
    """Resizes the input embedding and the output head to `rows` rows and starts the new ones.

    A new row is the mean of the old rows plus noise of a tenth of their standard deviation, so that a new token begins
    as an average word, distinct from its neighbours. The same on every rank, whatever is partitioned.

    Args:
        model: a causal language model; both matrices are (V, D).
        rows: the length of the tokenizer with the new tokens.
        new_ids: ids of the tokens to start; the rest of the new rows, if any, are left as resizing made them.
        seed: of the noise.

    Raises:
        ValueError: if `new_ids` lies outside the resized matrices.
    """
    if not 0 < new_ids.start < new_ids.stop <= rows:
        raise ValueError(f"new token ids {new_ids.start}…{new_ids.stop - 1} do not follow the words in {rows} rows")
    model.resize_token_embeddings(rows, mean_resizing=False)
    embeddings = [model.get_input_embeddings().weight, model.get_output_embeddings().weight]
    distinct = embeddings[:1] if embeddings[0] is embeddings[1] else embeddings
    for offset, weight in enumerate(distinct):
        with whole([weight]):
            _start_rows(weight, new_ids, torch.Generator().manual_seed(seed + offset))


@torch.no_grad()
def _start_rows(weight: nn.Parameter, new_ids: range, generator: torch.Generator) -> None:
    if weight.numel() == 0:  # another rank holds the gathered matrix
        return
    old = weight[: new_ids.start].float()
    noise = torch.randn(len(new_ids), weight.shape[1], generator=generator).to(old.device)
    weight[new_ids.start : new_ids.stop] = (old.mean(0) + 0.1 * old.std() * noise).to(weight.dtype)


@contextmanager
def whole(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Gathers parameters that ZeRO-3 has partitioned; what rank 0 writes into them reaches every rank.

    Outside ZeRO-3 it does nothing: every rank holds, and writes, the whole.
    """
    partitioned = [parameter for parameter in parameters if hasattr(parameter, "ds_id")]
    if not partitioned:
        yield
        return
    import deepspeed

    with deepspeed.zero.GatheredParameters(partitioned, modifier_rank=0):
        yield
