"""The context mask (AURORA's information bottleneck): what follows a map sees the map, and not what was before it.

Without it the answer can be taken from the chain or the image, and the map is never read. The mask hides the earlier
steps of the chain, the image, or both from every token behind the map, END included, since END predicts the first token
behind it. The map's own tokens see everything. AURORA describes this and did not release it.

Generation hides nothing, in upstream's tools neither, and a model that was trained with the mask alone fails there. So
the mask is applied to a share of the rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from llava_aurora.errors import AuroraError
from llava_aurora.listed import listed

HIDEABLE = ("chain", "image")


@dataclass(frozen=True)
class ContextMask:
    """What is hidden behind a map, and how often."""

    hidden: frozenset[str]  # "chain" (the answer's steps before the map), "image", or both
    probability: float = 1.0  # that a row gets the mask, in (0, 1]

    @classmethod
    def parse(cls, text: str, *, probability: float = 1.0) -> "ContextMask | None":
        """From "chain", "image" or "chain,image"; None for an empty text. Raises AuroraError for anything else."""
        if not 0 < probability <= 1:
            raise AuroraError(f"--information_bottleneck_probability {probability}: a probability is in (0, 1]")
        names = set(listed(text))
        if unknown := names - set(HIDEABLE):
            raise AuroraError(f"--information_bottleneck {sorted(unknown)[0]}: available: {', '.join(HIDEABLE)}")
        return cls(frozenset(names), probability) if names else None

    def mask(
        self,
        *,
        labels: Tensor,
        valid: Tensor,
        images: Sequence[range],
        start_ids: Sequence[int],
        end_ids: Sequence[int],
        dtype: torch.dtype,
    ) -> Tensor:
        """The causal attention mask of a batch, with the context hidden in some of its rows.

        Args:
            labels: int64 (B, T), -100 where nothing is to be learned; an answer is a run of labelled tokens.
            valid: bool (B, T), False at padding.
            images: the positions of the image's features in each row; an empty range for a row without an image.
            start_ids, end_ids: of each family whose spans hide their context.
        Returns: (B, 1, T, T), added to the attention scores: 0 where query t may see key s, the lowest number
        elsewhere.
        """
        length = labels.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool, device=labels.device).tril()
        allowed = causal & (valid[:, None, :] | torch.eye(length, dtype=torch.bool, device=labels.device))
        drawn = torch.rand(len(labels)).tolist()  # on the CPU, whose random state a checkpoint keeps
        for row, (row_labels, image, chance) in enumerate(zip(labels.tolist(), images, drawn, strict=True)):
            for answer in _runs(row_labels) if chance < self.probability else ():
                steps: list[int] = []  # positions of this answer outside maps
                opened = None
                for place in answer:
                    if row_labels[place] in start_ids:
                        opened = place
                    elif opened is not None and row_labels[place] in end_ids:
                        if "chain" in self.hidden:
                            allowed[row, place : answer.stop, steps] = False
                        if "image" in self.hidden:
                            allowed[row, place : answer.stop, image.start : image.stop] = False
                        opened = None
                    elif opened is None:
                        steps.append(place)
        return torch.zeros(allowed.shape, dtype=dtype, device=labels.device).masked_fill_(
            ~allowed, torch.finfo(dtype).min
        )[:, None]


def _runs(labels: Sequence[int], ignore_index: int = -100) -> list[range]:
    """The runs of labelled positions."""
    runs, start = [], None
    for place, label in enumerate([*labels, ignore_index]):
        if label != ignore_index and start is None:
            start = place
        elif label == ignore_index and start is not None:
            runs.append(range(start, place))
            start = None
    return runs


def text_and_image(input_ids: Tensor, attention_mask: Tensor | None, image_id: int) -> list[tuple[int, int]]:
    """For each row, before image features are inserted: the position of the image (-1: none), and the tokens of text.

    Raises AuroraError for a row with several images: the features of one are looked for.
    """
    valid = torch.ones_like(input_ids, dtype=torch.bool) if attention_mask is None else attention_mask.bool()
    rows = [ids[kept].tolist() for ids, kept in zip(input_ids, valid, strict=True)]
    if any(row.count(image_id) > 1 for row in rows):
        raise AuroraError(
            "a record has several images, and a context mask is for one; train without --information_bottleneck"
        )
    return [(row.index(image_id), len(row) - 1) if image_id in row else (-1, len(row)) for row in rows]


def image_features(places: Sequence[tuple[int, int]], lengths: Sequence[int]) -> list[range]:
    """The positions of the image's features in each row.

    Args: places: from `text_and_image`; lengths: of each row with its features, without padding.
    """
    return [
        range(place, place + length - text) if place >= 0 else range(0)
        for (place, text), length in zip(places, lengths, strict=True)
    ]
