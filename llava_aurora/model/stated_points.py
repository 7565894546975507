"""Token positions from which each token of a chain is read, and positions of its answer.

Labels are spelled out as text, each token's piece after the other; the task families say which characters are read from
which (`TaskFamily.sources`), and characters are turned back into positions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from llava_aurora.tasks.registry import families
from llava_aurora.tasks.task import Source, TaskFamily
from llava_aurora.tokens.perception import PerceptionTokens, depth_and_box

STEPS = ("copy", "lookup", "choice")
_NOTHING = "\n"  # in the place of image features, padding and tokens that are not learned


@dataclass(frozen=True)
class AttentionTarget:
    """A token, and what it is read from."""

    row: int  # of the batch
    query: int  # the position whose next token it is
    keys: Mapping[int, float]  # the positions to be attended to, and the share of each, 1 in all


@dataclass(frozen=True)
class Stated:
    """What the chains of a batch state."""

    targets: Mapping[str, list[AttentionTarget]]  # for each of STEPS, the tokens that are read from others
    # row and position of the tokens of each answer, in rows with perception tokens. Where there are none, the answer is
    # most of what is learned anyway.
    answers: list[tuple[int, int]]


class StatedPoints:
    """Reads labels. Args: tokenizer: of the model; perception: its tokens.

    Raises AuroraError if the model lacks depth or box tokens.
    """

    def __init__(self, tokenizer: Any, perception: PerceptionTokens) -> None:
        depth_and_box(perception, "--aux_losses attention or answer")
        self.perception = perception
        self.families: list[TaskFamily] = [each for each in families() if {*each.token_kinds} <= {*perception.kinds}]
        pieces = {index: piece for piece, index in tokenizer.get_vocab().items()}
        self.pieces = [_spelled(pieces.get(index, "")) for index in range(max(pieces) + 1)]
        self.perception_ids = np.array(sorted(index for ids in perception.id_ranges().values() for index in ids))

    def read(self, labels: Tensor, ids: Tensor | None = None) -> Stated:
        """What the chains of a batch state.

        Args:
            labels: int64 (B, T), -100 where nothing is to be learned.
            ids: int64 (B, T), of all tokens, -100 where there is none: what is learned may be read from what is not,
                as a coordinate from the question. None: only what is learned is known.
        """
        stated = Stated({step: [] for step in STEPS}, [])
        shown = labels if ids is None else ids
        for row, (learned, every) in enumerate(zip(labels.cpu().numpy(), shown.cpu().numpy(), strict=True)):
            spans = np.flatnonzero(np.isin(learned, self.perception_ids))
            if len(spans):
                self._read_row(row, learned, every, int(spans[-1]), stated)
        return stated

    def _read_row(self, row: int, learned: np.ndarray, every: np.ndarray, last: int, stated: Stated) -> None:
        starts, text = self._text(every)
        learned_text = self._text(np.where(learned < 0, -1, every), starts)[1]
        behind = int(starts[last + 1])

        def position(character: int) -> int:
            return int(np.searchsorted(starts, character, side="right")) - 1

        def is_learned(character: int) -> bool:
            return bool(learned[position(character)] >= 0)

        answer: Sequence[int] = ()
        for family in self.families:
            for source in family.sources(text, self.perception, behind=behind, learned=is_learned):
                stated.targets[source.step].append(_target(row, source, position))
            answer = answer or family.answer_characters(learned_text, behind=behind)
        stated.answers.extend((row, at) for at in sorted({position(character) for character in answer}))

    def _text(self, ids: np.ndarray, starts: np.ndarray | None = None) -> tuple[np.ndarray, str]:
        """A row as text, and the character at which each token begins, with the end of the text behind them, (T + 1,).

        Args:
            ids: int64 (T,), negative for nothing.
            starts: of a row with more tokens, to which the text is to be aligned.
        """
        pieces = [self.pieces[index] if index >= 0 else _NOTHING for index in ids.tolist()]
        if starts is None:
            return np.cumsum([0, *map(len, pieces)]), "".join(pieces)
        return starts, "".join(
            piece.ljust(width, _NOTHING) for piece, width in zip(pieces, np.diff(starts), strict=True)
        )


def _target(row: int, source: Source, position: Any) -> AttentionTarget:
    keys: dict[int, float] = {}
    for character, share in source.weights.items():
        keys[position(character)] = keys.get(position(character), 0.0) + share
    return AttentionTarget(row, position(source.at) - 1, keys)


def _spelled(piece: str) -> str:
    """The text of a SentencePiece piece, at least one character; a byte of a small vocabulary is that character."""
    if len(piece) == 6 and piece.startswith("<0x"):
        return chr(int(piece[3:5], 16))
    return piece.replace("▁", " ").replace("Ġ", " ") or _NOTHING
