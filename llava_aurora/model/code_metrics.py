"""Metrics of perception tokens in evaluations during training: each code is predicted from the true ones before it.

No text is generated, so an evaluation costs one forward pass a batch and works under every ZeRO stage. Answers that the
model generates are evaluated in evaluation/.
"""

from collections.abc import Iterator

import torch
from PIL import Image
from torch import Tensor

from llava_aurora.model.labelled_tokens import LabelledTokens
from llava_aurora.model.loss_meter import LossMeter, summed_over_ranks
from llava_aurora.tokens import TokenKind
from llava_aurora.tokens.perception import PerceptionTokens
from llava_aurora.tokens.vocabulary import MalformedSpan

PICTURE_SIDE = 160


class CodeMetrics:
    """Running metrics of one evaluation.

    Args: pictures: how many spans with a picture this rank keeps for drawing.
    """

    def __init__(self, perception: PerceptionTokens, *, pictures: int = 0) -> None:
        self.perception = perception
        self.wanted = pictures
        self.parts = LossMeter(id_ranges=perception.id_ranges())
        self.names = [
            name
            for kind in perception.kinds.values()
            for name in (f"{kind.name}_code_accuracy", f"{kind.name}_{kind.measure}")
            if kind.measure or not name.endswith("_None")
        ]
        self.sums = torch.zeros(2, len(self.names), dtype=torch.float64)
        self.drawn: list[tuple[TokenKind, tuple[int, ...], tuple[int, ...]]] = []

    @torch.no_grad()
    def add(self, logits: Tensor, losses: Tensor, tokens: LabelledTokens) -> None:
        """Adds one batch: logits (N, V), losses (N,) of its N labelled tokens."""
        self.parts.add(losses, tokens.targets)
        for kind in self.perception.kinds.values():
            for written, true in self._spans(kind, logits, tokens):
                for one, other in zip(written, true, strict=True):
                    self._count(f"{kind.name}_code_accuracy", float(one == other))
                alike = kind.compare(written, true)
                if alike is not None:
                    self._count(f"{kind.name}_{kind.measure}", alike)
                if kind.has_picture and len(self.drawn) < self.wanted:
                    self.drawn.append((kind, written, true))

    def _count(self, name: str, value: float) -> None:
        self.sums[:, self.names.index(name)] += torch.tensor([value, 1.0], dtype=torch.float64)

    def _spans(
        self, kind: TokenKind, logits: Tensor, tokens: LabelledTokens
    ) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
        """The most probable codes and the true codes of each span; rows with a span that is cut off are left out."""
        ids, family = self.perception.ids, kind.family
        first = ids.first_code_id(family)
        best = logits[:, first : first + family.size].argmax(dim=1).tolist()
        targets, rows = tokens.targets.tolist(), tokens.rows.tolist()
        for row in sorted(set(rows)):
            start, stop = rows.index(row), len(rows) - rows[::-1].index(row)
            try:
                spans = ids.spans(family, targets[start:stop])
            except MalformedSpan:
                continue
            for span in spans:
                places = range(start + span.start, start + span.end)
                written = tuple(best[place] for place in places if ids.code(family, targets[place]) is not None)
                yield written, span.codes

    def read(self) -> dict[str, float]:
        """Every metric over all ranks, and `loss_` for each part. A collective operation."""
        sums, counts = summed_over_ranks(self.sums).tolist()
        figures = {name: total / count for name, total, count in zip(self.names, sums, counts, strict=True) if count}
        return figures | {f"loss_{name}": value for name, value in self.parts.read().items()}

    def pictures(self) -> list[Image.Image]:
        """Each kept span as true and written picture side by side."""
        return [_side_by_side(kind, true, written) for kind, written, true in self.drawn]


def _side_by_side(kind: TokenKind, *spans: tuple[int, ...]) -> Image.Image:
    blank = Image.new("RGB", (PICTURE_SIDE, PICTURE_SIDE))
    pair = Image.new("RGB", (len(spans) * PICTURE_SIDE, PICTURE_SIDE))
    for place, codes in enumerate(spans):
        pair.paste(kind.draw([kind.decode(codes)], blank), (place * PICTURE_SIDE, 0))
    return pair
