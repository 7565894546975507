"""Rows for the perception tokens in the input embedding and the output head, safe under DeepSpeed ZeRO-3."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import nn
from transformers import PreTrainedModel


def grow_embeddings(
    model: PreTrainedModel,
    *,
    rows: int,
    new_ids: range,
    features: Mapping[range, torch.Tensor] | None = None,
    seed: int = 0,
) -> None:
    """Resizes the input embedding and the output head to `rows` rows and starts the new ones.

    A new row is the mean of the old rows plus a deviation as large as theirs: noise, or, for ids with features, a
    random projection of these, so that tokens for similar things (neighbouring coordinates, similar codes) start
    alike. The same on every rank, whatever is partitioned.

    Args:
        model: a causal language model; both matrices are (V, D).
        rows: the length of the tokenizer with the new tokens.
        new_ids: ids of the tokens to start; the rest of the new rows, if any, are left as resizing made them.
        features: (len(ids), F) for ranges of ids within `new_ids`.
        seed: of noise and projection.

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
            _start_rows(weight, new_ids, features or {}, torch.Generator().manual_seed(seed + offset))


@torch.no_grad()
def _start_rows(
    weight: nn.Parameter, new_ids: range, features: Mapping[range, torch.Tensor], generator: torch.Generator
) -> None:
    if weight.numel() == 0:  # another rank holds the gathered matrix
        return
    old = weight[: new_ids.start].float()
    deviations = torch.randn(len(new_ids), weight.shape[1], generator=generator)
    for ids, values in features.items():
        projection = torch.randn(values.shape[1], weight.shape[1], generator=generator)
        projected = (values.float().cpu() - values.float().cpu().mean(0)) @ projection
        deviations[ids.start - new_ids.start : ids.stop - new_ids.start] = projected / projected.std()
    started = old.mean(0) + old.std() * deviations.to(old.device)
    weight[new_ids.start : new_ids.stop] = started.to(weight.dtype)


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
