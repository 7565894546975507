"""Checks what a model would be trained on, by LLaVA's own preprocessing: labels, tokens of spans, and lengths.

LLaVA finds its label mask by counting tokens. Where the count is wrong it ignores the whole record, prints a line and
trains on; here that is an error. Labels are decoded and compared with the answers.
"""

import copy
import io
import itertools
import re
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from llava.constants import IGNORE_INDEX
from llava.train import train as upstream

from llava_aurora.compatibility import slow_tokenizer
from llava_aurora.data.store.record_file import images_of, turns_learned
from llava_aurora.errors import AuroraError
from llava_aurora.files import read_json_object
from llava_aurora.model_sizes import find_sizes
from llava_aurora.tokens.perception import PerceptionTokens
from llava_aurora.tokens.vocabulary import (
    MalformedSpan,
    PerceptionVocabulary,
    TokenFamily,
    any_mask_family,
    depth_family,
    pixel_family,
)

Report = Callable[[str, str], None]
TEXTS_REMEMBERED = 1024
MAPS_REMEMBERED = 16
SHOWN = 80
ENDLESS = 10**9  # tokenizers without a length of their own say 10^30
DEFAULT_MAX_LENGTH = 2048
_BYTES = re.compile(r"(?:<0x[0-9A-F]{2}>)+")


@dataclass(frozen=True, kw_only=True)
class ModelLimits:
    folder: Path  # of the model, with its tokenizer
    families: tuple[TokenFamily, ...]  # whose tokens it has, or is given when training starts
    frame: int  # side of the frame that coordinates refer to
    image_tokens: int  # what one image becomes
    max_length: int  # tokens of a record that are kept, image tokens included
    image_start_end: bool = False  # whether an image stands between two tokens of its own (`mm_use_im_start_end`)
    # how it was trained to see images, --image_aspect_ratio; None where its folder does not say
    aspect_ratio: str | None = None


class LabelChecks:
    """Raises AuroraError if the folder has no tokenizer, or one with other perception tokens."""

    def __init__(self, limits: ModelLimits) -> None:
        self.limits = limits
        tokenizer = load_tokenizer(limits.folder)
        tokenizer.pad_token = tokenizer.unk_token  # as LLaVA's train() does for its conversations of version 1
        self.tokenizer = SpanTokenizer(tokenizer, PerceptionVocabulary(limits.families))
        self.pieces: list[str] = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
        self._data_args = SimpleNamespace(is_multimodal=True, mm_use_im_start_end=limits.image_start_end)

    def run(self, record: Mapping[str, Any], report: Report) -> int:
        """Reports (kind, message) of all that is wrong; returns the tokens of the record, image tokens included."""
        has_image = "image" in record
        sources = copy.deepcopy([record["conversations"]])
        if has_image:
            sources = upstream.preprocess_multimodal(sources, self._data_args)
        printed = io.StringIO()
        with redirect_stdout(printed):
            item = upstream.preprocess(sources, self.tokenizer, has_image=has_image)
        ids, labels = item["input_ids"][0].tolist(), item["labels"][0].tolist()
        turns = [turn["value"] for turn in turns_learned(record["conversations"])]
        self._compare_spans(ids, turns, report)
        length = len(ids) + (self.limits.image_tokens - 1) * len(images_of(record))
        if length > self.limits.max_length:
            report("truncated", f"{length} tokens; tokens after {self.limits.max_length:,} are cut off")
        if warning := printed.getvalue().strip():
            report("mismatch", warning)
        else:
            self._compare_labels(labels, turns[1::2], report)
        return length

    def _compare_spans(self, ids: list[int], turns: list[str], report: Report) -> None:
        """The spans of each family that the tokenizer makes have to be those that the text is read to have."""
        for family in self.limits.families:
            try:
                written = [span.codes for turn in turns for span in family.parse(turn)]
            except MalformedSpan:
                continue  # TextChecks reports it
            try:
                read = [span.codes for span in self.tokenizer.perception_ids.spans(family, ids)]
            except MalformedSpan as error:
                report("spans", f"after tokenizing: {error}")
                continue
            if read != written:
                report("spans", f"{len(written)} {family.name} spans in the text, but {len(read)} others in its tokens")

    def _compare_labels(self, labels: list[int], answers: list[str], report: Report) -> None:
        """Each run of labels has to be one answer and the token that ends it."""
        runs = [list(run) for learned, run in itertools.groupby(labels, lambda label: label != IGNORE_INDEX) if learned]
        if len(runs) != len(answers):
            report("labels", f"{len(answers)} answers, but {len(runs)} stretches of labels")
            return
        for number, (run, answer) in enumerate(zip(runs, answers, strict=True), start=1):
            if run[-1] != self.tokenizer.eos_token_id:
                report("labels", f"answer {number} has no label on the token that ends it")
            elif not self._is(run[:-1], answer):
                read = self.tokenizer.decode(run[:-1], spaces_between_special_tokens=False)
                report("labels", f"answer {number} is {_short(answer)}, but its labels are {_short(read)}")

    def _is(self, ids: list[int], answer: str) -> bool:
        """Whether ids are a text, whatever blanks a tokenizer adds. Joining pieces is quick; decoding has the say."""
        joined = _BYTES.sub(_from_bytes, "".join([self.pieces[token] for token in ids]))
        if _without_blanks(joined.replace("▁", " ")) == (wanted := _without_blanks(answer)):
            return True
        return _without_blanks(self.tokenizer.decode(ids, spaces_between_special_tokens=False)) == wanted


class SpanTokenizer:
    """A tokenizer that gives the same ids, but faster where a text holds whole maps.

    A map is a hundred added tokens, each of which the tokenizer searches letter by letter. Added tokens do not change
    how the text around them is tokenized, so START alone is left in the place of a map and replaced by the map's ids;
    the end token is taken off and put back. Texts are never truncated. All else is delegated to the tokenizer.
    """

    def __init__(self, tokenizer: Any, vocabulary: PerceptionVocabulary) -> None:
        vocabulary.add_to(tokenizer)
        self._tokenizer, self.perception_ids = tokenizer, vocabulary.bind(tokenizer)
        self._delimited = [family for family in vocabulary.families if family.delimited]
        self._start_ids = {self.perception_ids.start_id(family) for family in self._delimited}
        maps = "|".join(f"{family.start}.*?{family.end}" for family in self._delimited)
        self._map = re.compile(maps, re.DOTALL) if maps else None
        self._map_ids = lru_cache(MAPS_REMEMBERED)(self._read_map)
        self._encode = lru_cache(TEXTS_REMEMBERED)(self._read)
        self._plain_ids = lru_cache(TEXTS_REMEMBERED)(lambda text: tuple(tokenizer(text).input_ids))
        self.model_max_length = ENDLESS  # upstream looks for mismatches only where nothing is cut off

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def __call__(self, text: str | list[str], **options: Any) -> SimpleNamespace:
        """`input_ids` of one text, or of a list with one text as int64 (1, T), which is how upstream calls it."""
        if isinstance(text, str):
            return SimpleNamespace(input_ids=self.encode(text))
        return SimpleNamespace(input_ids=torch.tensor([self.encode(each) for each in text]))

    def encode(self, text: str) -> list[int]:
        """The ids of a text, that which opens it included."""
        end = self._tokenizer.eos_token
        if text.endswith(end) and len(text) > len(end):  # upstream asks for the rest as well
            return [*self._encode(text.removesuffix(end)), self._tokenizer.eos_token_id]
        return list(self._encode(text))

    def _read(self, text: str) -> tuple[int, ...]:
        if self._map is None or (found := self._map.findall(text)) == []:
            return self._plain_ids(text)
        maps = [self._map_ids(each) for each in found]
        short = self._map.sub(self._start_of, text)
        ids = self._plain_ids(short)
        starts = [place for place, token in enumerate(ids) if token in self._start_ids]
        if None in maps or len(starts) != len(maps):  # malformed, or not written as a map is
            return self._plain_ids(text)
        whole: list[int] = []
        done = 0
        for place, span in zip(starts, maps, strict=True):
            whole += [*ids[done:place], *(span or ())]
            done = place + 1
        return (*whole, *ids[done:])

    def _read_map(self, text: str) -> tuple[int, ...] | None:
        """The ids of a whole map; None if it is none, or has blanks between its tokens."""
        for family in self._delimited:
            try:
                spans = family.parse(text)
            except MalformedSpan:
                return None
            if len(spans) == 1 and text == family.text(spans[0].codes):
                return tuple(self.perception_ids.ids(family, spans[0].codes))
        return None

    @staticmethod
    def _start_of(match: re.Match[str]) -> str:
        return match.group()[: match.group().index(">") + 1]


def load_tokenizer(folder: Path) -> Any:
    """As training and `load_pretrained_model` load it. Raises AuroraError if there is none."""
    try:
        return slow_tokenizer(folder)
    except Exception as error:  # damaged files raise whatever the library stumbles over
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise AuroraError(f"{folder}: no tokenizer there ({reason}); give the folder of a base or trained model") from (
            error
        )


def model_limits(
    folder: Path, *, depth: TokenFamily | None = None, frame: int = 336, max_length: int | None = None
) -> ModelLimits:
    """What a model's folder says of tokens and lengths.

    Args:
        folder: of a trained model, whose config.json names its tokens; or of a base model, which is given depth,
            coordinate and mask tokens as training gives them.
        depth: the depth tokens of the VQ-VAE in use; AURORA's if left out.
        frame: side of the coordinate frame of a base model.
        max_length: in place of the one the folder says (LLaVA's `tokenizer_model_max_length`, else the tokenizer's).
    Raises AuroraError if it is no model's folder, or was trained with other depth tokens than those given.
    """
    config = read_json_object(folder / "config.json", what="configuration of the model")
    tokenizer = load_tokenizer(folder)
    pixels = pixel_family(frame=frame)
    families: tuple[TokenFamily, ...] = (depth or depth_family(), pixels, any_mask_family())
    if block := config.get("aurora"):
        families = PerceptionTokens.from_config(block, folder=folder, tokenizer=tokenizer).vocabulary.families
        if depth is not None and depth not in families:
            raise AuroraError(
                f"{folder}: was trained with other depth tokens than {depth.size} codes in maps of {depth.lengths[0]};"
                " leave --depth-vqvae out, or give that run's"
            )
        frame = next((family.size for family in families if family.name == pixels.name), frame)
    known = config.get("tokenizer_model_max_length") or tokenizer.model_max_length
    return ModelLimits(
        folder=folder,
        families=families,
        frame=frame,
        image_tokens=find_sizes(str(folder)).vision.patches,
        max_length=max_length or (known if known < ENDLESS else DEFAULT_MAX_LENGTH),
        image_start_end=bool(config.get("mm_use_im_start_end")),
        aspect_ratio=config.get("image_aspect_ratio"),
    )


def _from_bytes(match: re.Match[str]) -> str:
    return bytes(int(value[2:], 16) for value in match.group()[1:-1].split("><")).decode("utf-8", "replace")


def _without_blanks(text: str) -> str:
    return "".join(text.split())


def _short(text: str) -> str:
    return repr(text if len(text) <= SHOWN else f"{text[: SHOWN // 2]} … {text[-SHOWN // 2 :]}")
