"""Initial values of the rows of new tokens in input embedding and output head, also under ZeRO-3."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from llava_aurora.errors import AuroraError

Method = Literal["mean", "noise", "words", "neighbours"]


@dataclass(frozen=True, kw_only=True)
class RowStart:
    """How new rows are initialised; the same on every rank, also when parameters are partitioned.

    Raises AuroraError for an unknown method.
    """

    # "mean": every row is the mean of the words' rows. "noise": the mean plus noise as large as the words' deviation
    # from it. "words": the mean of the rows of a description's words. "neighbours": as noise, but for ids with features
    # a random projection of these takes the place of noise, so that tokens for similar things (neighbouring
    # coordinates, similar codes) start alike.
    method: Method = "neighbours"
    # (len(ids), F) for ranges of the new ids; for "neighbours"
    features: Mapping[range, Tensor] = field(default_factory=dict)
    # for each new id, in order, the ids of the words that describe it; for "words"
    descriptions: Sequence[Sequence[int]] = ()
    words: int | None = None  # rows before this id are those of words; None: all rows before the new ones
    seed: int = 0  # of noise and projection

    def __post_init__(self) -> None:
        if self.method not in get_args(Method):
            raise AuroraError(f"--perception_init {self.method}: unknown; available: {', '.join(get_args(Method))}")


def initial_rows(words: Tensor, *, ids: range, start: RowStart, number: int) -> Tensor:
    """The initial rows of new tokens.

    Args:
        words: (words, D), the rows of words.
        number: 0 for the input embedding, 1 for the output head, so that their noise differs.
    Returns: (len(ids), D) in the type of `words`, on its device.
    """
    old = words.detach().float()
    mean = old.mean(0)
    if start.method == "mean":
        return mean.expand(len(ids), -1).to(words.dtype).clone()
    if start.method == "words":
        return torch.stack([old[list(described)].mean(0) for described in start.descriptions]).to(words.dtype)
    generator = torch.Generator().manual_seed(start.seed + number)
    deviations = torch.randn(len(ids), words.shape[1], generator=generator)
    if start.method == "neighbours":
        for alike, values in start.features.items():
            projection = torch.randn(values.shape[1], words.shape[1], generator=generator)
            projected = (values.float().cpu() - values.float().cpu().mean(0)) @ projection
            deviations[alike.start - ids.start : alike.stop - ids.start] = projected / projected.std()
    return (mean + old.std() * deviations.to(old.device)).to(words.dtype)


def initial_rows_of(model: PreTrainedModel, *, ids: range, start: RowStart) -> dict[str, Tensor]:
    """`initial_rows` for both matrices of a causal language model, "input" and "output"."""
    rows = {}
    for number, (name, matrix) in enumerate(_matrices(model).items()):
        with whole([matrix]):
            rows[name] = initial_rows(matrix[: start.words or ids.start], ids=ids, start=start, number=number)
    return rows


def present_rows_of(model: PreTrainedModel, *, ids: range) -> dict[str, Tensor]:
    """A copy of the rows that both matrices have for `ids`, "input" and "output"."""
    rows = {}
    for name, matrix in _matrices(model).items():
        with whole([matrix]):
            rows[name] = matrix[ids.start : ids.stop].detach().clone()
    return rows


def grow_embeddings(model: PreTrainedModel, *, rows: int, ids: range, start: RowStart) -> None:
    """Resizes both whole matrices to `rows` rows and starts those of `ids`.

    Args:
        model: a causal language model; both matrices are (V, D).
        rows: the length of the tokenizer with the new tokens.
        ids: of the new tokens; the rest of the new rows, if any, are left as resizing made them.
    Raises ValueError if `ids` lies outside the resized matrices.
    """
    if not 0 < ids.start < ids.stop <= rows:
        raise ValueError(f"new token ids {ids.start}…{ids.stop - 1} do not follow the words in {rows} rows")
    model.resize_token_embeddings(rows, mean_resizing=False)
    matrices = _matrices(model)
    if matrices["input"] is matrices["output"]:
        del matrices["output"]
    for number, matrix in enumerate(matrices.values()):
        with whole([matrix]), torch.no_grad():
            words = matrix[: start.words or ids.start]
            matrix[ids.start : ids.stop] = initial_rows(words, ids=ids, start=start, number=number)


# To these a vocabulary is commonly rounded up, for the sake of matrix products.
PADDING = (8, 16, 32, 64, 128)


def tokens_with_rows(*, rows: int, words: int, new: Sequence[int]) -> int:
    """How many tokens that a tokenizer lacks have rows in a model's matrices, because it was trained with them.

    Args:
        words: the length of the tokenizer without the new tokens.
        new: sizes of the groups in which tokens are added, in order.
    Returns: 0, or the size of the first groups together. Padding behind the words' rows counts as no row.
    Raises ValueError if the number of rows cannot be explained.
    """
    trained = [sum(new[:groups]) for groups in range(len(new) + 1)]
    if rows - words in trained:
        return rows - words
    if rows in {-(-words // multiple) * multiple for multiple in PADDING}:
        return 0
    expected = " or ".join(f"{words + count:,}" for count in trained)
    raise ValueError(
        f"the matrices have {rows:,} rows; with {words:,} tokens in the tokenizer they should have {expected}"
    )


def write_rows(model: PreTrainedModel, *, ids: range, rows: Mapping[str, Tensor]) -> None:
    """Writes rows, "input" or "output", (len(ids), D) each, into the whole matrices."""
    matrices = _matrices(model)
    for name, row in rows.items():
        with whole([matrices[name]]), torch.no_grad():
            matrices[name][ids.start : ids.stop] = row.to(matrices[name])


def _matrices(model: PreTrainedModel) -> dict[str, nn.Parameter]:
    return {"input": model.get_input_embeddings().weight, "output": model.get_output_embeddings().weight}


@contextmanager
def whole(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Gathers on every rank parameters that ZeRO-3 has partitioned; what rank 0 writes into them reaches every rank.

    Outside ZeRO-3 it does nothing: every rank holds, and writes, the whole.
    """
    partitioned = [parameter for parameter in parameters if hasattr(parameter, "ds_id")]
    if not partitioned:
        yield
        return
    import deepspeed

    with deepspeed.zero.GatheredParameters(partitioned, modifier_rank=0):
        yield
