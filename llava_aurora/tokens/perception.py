"""The perception tokens of one model: its kinds, and the ids of their tokens on its tokenizer.

Built once, when a model is given its tokens or loaded from a folder; loss, decoding and evaluation take them from here.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from llava_aurora.errors import AuroraError
from llava_aurora.files import undamaged
from llava_aurora.tokens import TokenKind, build_kinds, vocabulary_of
from llava_aurora.tokens.vocabulary import PerceptionIds, PerceptionVocabulary

if TYPE_CHECKING:
    import torch

    from llava_aurora.tokens.box import BoxKind
    from llava_aurora.tokens.depth import DepthKind

FORMAT = 1
_REMEDY = "copy it again from the run that wrote it"


def kinds_of_config(block: Mapping[str, Any], folder: Path) -> Mapping[str, TokenKind]:
    """The token kinds that the `aurora` block of a config.json describes, by name.

    Raises AuroraError for a damaged block, one of another format, or a missing VQ-VAE.
    """
    with undamaged(folder / "config.json", _REMEDY):
        if block.get("format") != FORMAT:
            raise AuroraError(
                f"{folder}/config.json: the aurora block has format {block.get('format')!r}, this version reads"
                f" {FORMAT}; use the llava_aurora that wrote it"
            )
        return build_kinds(block["modalities"], folder)


@dataclass(frozen=True)
class PerceptionTokens:
    """The perception tokens of one model."""

    kinds: Mapping[str, TokenKind]  # by name, in the order of their token ids
    ids: PerceptionIds  # their vocabulary on the model's tokenizer
    values: str = ""  # where the values come from that the model states of points (--value_step); "": it states none

    @classmethod
    def teach(cls, tokenizer: Any, kinds: Mapping[str, TokenKind]) -> "PerceptionTokens":
        """Adds the tokens of those kinds that a tokenizer lacks, behind the tokens of those that it has.

        Raises AuroraError if the tokenizer has some tokens of a kind, but not all.
        """
        known = tokenizer.get_vocab()
        kinds = _ordered(kinds, {kind.family.name: known.get(kind.family.tokens[0]) for kind in kinds.values()})
        vocabulary = vocabulary_of(kinds.values())
        vocabulary.add_to(tokenizer)
        return cls(kinds=kinds, ids=vocabulary.bind(tokenizer))

    @classmethod
    def from_config(cls, block: Mapping[str, Any], *, folder: Path, tokenizer: Any) -> "PerceptionTokens":
        """Reads the `aurora` block of a config.json.

        Args: block: what `config` wrote; folder: the checkpoint's folder, to which its paths are relative.
        Raises AuroraError as `kinds_of_config`, or for a tokenizer with other tokens or ids (both are named).
        """
        kinds = kinds_of_config(block, folder)
        with undamaged(folder / "config.json", _REMEDY):
            return cls._bound(block, kinds, folder=folder, tokenizer=tokenizer)

    @classmethod
    def _bound(
        cls, block: Mapping[str, Any], kinds: Mapping[str, TokenKind], *, folder: Path, tokenizer: Any
    ) -> "PerceptionTokens":
        kinds = _ordered(kinds, {name: written.get("first_id") for name, written in block["tokens"].items()})
        vocabulary = vocabulary_of(kinds.values())
        known = tokenizer.get_vocab()
        for family in vocabulary.families:
            written = block["tokens"].get(family.name, {})
            first = family.tokens[0]
            found = {
                "first_token": first,
                "first_id": known.get(first),
                "count": sum(t in known for t in family.tokens),
            }
            if written != found:
                raise AuroraError(
                    f"{folder}: the model was trained with {written.get('count')} {family.name} tokens from"
                    f" {written.get('first_token')} = {written.get('first_id')}, but the tokenizer has"
                    f" {found['count']} from {found['first_token']} = {found['first_id']}; use that run's tokenizer"
                )
        return cls(kinds=kinds, ids=vocabulary.bind(tokenizer), values=block.get("values", ""))

    @property
    def vocabulary(self) -> PerceptionVocabulary:
        return self.ids.vocabulary

    @property
    def token_count(self) -> int:
        return len(self.vocabulary.tokens)

    def config(self) -> dict[str, Any]:
        """The `aurora` block that config.json keeps."""
        tokens = {
            family.name: {
                "first_token": family.tokens[0],
                "first_id": self.ids.first_ids[family.name],
                "count": len(family.tokens),
            }
            for family in self.vocabulary.families
        }
        settings = {name: kind.settings() for name, kind in self.kinds.items()}
        values = {"values": self.values} if self.values else {}
        return {"format": FORMAT, "modalities": settings, "tokens": tokens, **values}

    def continues(self, block: Mapping[str, Any]) -> bool:
        """Whether an `aurora` block describes some or all of these tokens: the same kinds, settings and ids."""
        own = self.config()
        same = own["format"] == block.get("format") and own.get("values") == block.get("values")
        parts = ("modalities", "tokens")
        return same and all(own[part].get(name) == value for part in parts for name, value in block[part].items())

    def id_ranges(self) -> dict[str, range]:
        """For each kind, by name, the ids of all its tokens."""
        return {
            name: range(first, first + len(kind.family.tokens))
            for name, kind in self.kinds.items()
            for first in [self.ids.first_ids[kind.family.name]]
        }

    def code_features(self) -> "dict[range, torch.Tensor]":
        """For the code ids of each kind that has some, what they stand for: codes alike in it start alike."""
        features = {}
        for kind in self.kinds.values():
            values = kind.code_features()
            if values is not None:
                first = self.ids.first_code_id(kind.family)
                features[range(first, first + len(values))] = values
        return features

    def descriptions(self, tokenizer: Any) -> list[list[int]]:
        """For each perception token, in the order of their ids, the ids of the words that describe it."""
        texts = [
            text
            for kind in self.kinds.values()
            for text in (
                *((f" {kind.name} start", f" {kind.name} end") if kind.family.delimited else ()),
                *map(kind.description, range(kind.family.size)),
            )
        ]
        # Behind a special token a text keeps the blank that it begins with, or has none.
        texts = [f"{tokenizer.bos_token}{text}" for text in texts]
        return [ids[1:] for ids in tokenizer(texts, add_special_tokens=False).input_ids]

    def token_ids(self) -> range:
        """The ids of all perception tokens; the families follow one another. Raises AuroraError if they do not."""
        firsts = [self.ids.first_ids[family.name] for family in self.vocabulary.families]
        lengths = [len(family.tokens) for family in self.vocabulary.families]
        if any(first + length != after for first, length, after in zip(firsts, lengths, firsts[1:], strict=False)):
            raise AuroraError(f"the ids of the perception tokens do not follow one another: families start at {firsts}")
        return range(firsts[0], firsts[-1] + lengths[-1])

    def save_files(self, folder: Path) -> None:
        """Writes what the kinds keep beside config.json (the depth VQ-VAE)."""
        for kind in self.kinds.values():
            kind.save_files(folder)


def _ordered(kinds: Mapping[str, TokenKind], first_ids: Mapping[str, int | None]) -> dict[str, TokenKind]:
    """Kinds in the order of their families' first ids; those without one come last, in the order they have."""

    def place(item: tuple[str, TokenKind]) -> float:
        first = first_ids.get(item[1].family.name)
        return math.inf if first is None else first

    return dict(sorted(kinds.items(), key=place))


def depth_and_box(perception: PerceptionTokens | None, flags: str) -> "tuple[DepthKind, BoxKind]":
    """The kinds that are needed where points are looked up in depth maps.

    Raises AuroraError naming the flags that need them, if a model lacks one.
    """
    kinds = perception.kinds if perception is not None else {}
    if not {"depth", "box"} <= set(kinds):
        raise AuroraError(f"{flags} needs depth and box tokens: --perception_modalities depth,box")
    return cast("DepthKind", kinds["depth"]), cast("BoxKind", kinds["box"])
