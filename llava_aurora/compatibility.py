"""What differs between the transformers that are supported, 4.57 and 5.24: all of it, with the reason of each.

Nothing else asks for a version. What is here is called on both and does the same there. It is imported first of all
that imports transformers: patch 0013 has LLaVA do so, whose every module passes `llava/__init__.py`.
"""

import json
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import transformers
from huggingface_hub import save_torch_state_dict
from packaging.version import Version
from torch import Tensor
from transformers import AutoTokenizer, LlamaConfig
from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING, TOKENIZER_MAPPING_NAMES, get_tokenizer_config

from llava_aurora.errors import AuroraError
from llava_aurora.files import write_json

FIVE = Version(transformers.__version__) >= Version("5")
_FAST = ("PreTrainedTokenizerFast", "TokenizersBackend")  # one class, its name in 4.x and in 5.x


# --- the tokenizer ----------------------------------------------------------------------------------------------------
#
# 5.x has no slow tokenizer for Llama. LlamaTokenizer, and with it AutoTokenizer whatever use_fast says, reads a
# SentencePiece model by rules of its own: other ids for a third of the golden strings, no begin-of-sequence token where
# tokenizer.model stands alone, no tokenizer.model among what is saved. Here are the rules that LLaVA's models were
# trained with, 4.57's, on 5.x's reader of SentencePiece models. The name is the old one, since it is written into
# folders, and AutoTokenizer returns what is registered under it.

if FIVE:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
    from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil as LlavaImageProcessor
    from transformers.tokenization_utils_base import generate_merges as generate_merges
    from transformers.tokenization_utils_sentencepiece import SPIECE_UNDERLINE, SentencePieceBackend

    class LlamaTokenizer(SentencePieceBackend):
        """4.57's slow LlamaTokenizer: the same ids, decoded text and saved folder.

        Args:
            vocab_file: the SentencePiece model.
            legacy: whether a piece of text behind an added token begins like a text of its own. None is True.
            others: as 4.57 has them.
        """

        model_input_names = ["input_ids", "attention_mask"]  # noqa: RUF012 - as transformers declares it

        def __init__(self, vocab_file: str, legacy: bool | None = None, **others: Any) -> None:
            named = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": None}
            special = {name: _special(others.pop(name, token)) for name, token in named.items()}
            defaults = {
                "add_bos_token": True,
                "add_eos_token": False,
                "clean_up_tokenization_spaces": False,
                "use_default_system_prompt": False,
                "spaces_between_special_tokens": False,
                "add_prefix_space": True,
                "sp_model_kwargs": {},
            }
            self.legacy = True if legacy is None else legacy
            super().__init__(vocab_file=vocab_file, legacy=self.legacy, **special, **defaults | others)
            for name in defaults.keys() & self.init_kwargs.keys():
                setattr(self, name, self.init_kwargs[name])

        @classmethod
        def from_pretrained(cls, name: Any, *args: Any, **kwargs: Any) -> Any:
            """Of a folder with a fast tokenizer alone, as exports are, that one."""
            if (Path(name) / "tokenizer.json").is_file() and not (Path(name) / "tokenizer.model").is_file():
                return transformers.PreTrainedTokenizerFast.from_pretrained(name, *args, **kwargs)
            return super().from_pretrained(name, *args, **kwargs)

        # --- ids

        def tokenize(self, text: str, **kwargs: Any) -> list[str]:
            if self.legacy or not text:
                return super().tokenize(text, **kwargs)
            text = text.replace(SPIECE_UNDERLINE, " ")
            tokens = super().tokenize(SPIECE_UNDERLINE + text if self.add_prefix_space else text, **kwargs)
            if len(tokens) > 1 and tokens[0] == SPIECE_UNDERLINE and tokens[1] in self.all_special_tokens:
                return tokens[1:]
            return tokens

        def build_inputs_with_special_tokens(self, first: list[int], second: list[int] | None = None) -> list[int]:
            begin = [self.bos_token_id] if self.add_bos_token else []
            end = [self.eos_token_id] if self.add_eos_token else []
            return [*begin, *first, *end, *([*begin, *second, *end] if second is not None else [])]

        # --- text

        def convert_tokens_to_string(self, tokens: list[str]) -> str:
            if tokens[0].startswith(SPIECE_UNDERLINE) and self.add_prefix_space:
                tokens = [tokens[0][1:], *tokens[1:]]
            special = set(self.all_special_tokens)
            text, pieces, after_special = "", list[str](), False
            for place, token in enumerate(tokens):
                if token in special:
                    if not after_special and place and self.legacy:
                        text += " "
                    text += self.sp_model.decode(pieces) + token
                    pieces, after_special = [], True
                else:
                    if after_special and place == 1 and self.add_prefix_space and token[:1] != SPIECE_UNDERLINE:
                        text += " "
                    pieces.append(token)
                    after_special = False
            return text + self.sp_model.decode(pieces)

        def _decode(
            self,
            token_ids: int | list[int],
            skip_special_tokens: bool = False,
            clean_up_tokenization_spaces: bool | None = None,
            spaces_between_special_tokens: bool = True,
            **kwargs: Any,
        ) -> str:
            """Runs of words by SentencePiece, with the added tokens between them as they are."""
            ids = [token_ids] if isinstance(token_ids, int) else token_ids
            special = set(self.all_special_tokens)
            added = set(self._added_tokens_encoder) - special
            added |= {each for each in self.extra_special_tokens if self.convert_tokens_to_ids(each) >= self.vocab_size}
            texts, run = list[str](), list[str]()
            for token in [*self.convert_ids_to_tokens(ids, skip_special_tokens=skip_special_tokens), None]:
                if token is not None and token not in added:
                    run.append(token)
                    continue
                if run and ((words := self.convert_tokens_to_string(run)) or token is None):
                    texts.append(words)
                run = []
                if token is not None:
                    texts.append(token)
            text = (" " if spaces_between_special_tokens else "").join(texts)
            clean = clean_up_tokenization_spaces
            clean = self.clean_up_tokenization_spaces if clean is None else clean
            return self.clean_up_tokenization(text) if clean else text

        # --- the saved folder

        def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> tuple[str, ...]:
            files = super().save_pretrained(save_directory, *args, **kwargs)
            folder = Path(save_directory)
            ours = ("add_bos_token", "add_eos_token", "clean_up_tokenization_spaces")
            write_old_tokenizer_names(folder, **{name: getattr(self, name) for name in ours})
            special = {name: value for name, value in self._special_tokens_map.items() if value is not None}
            if self._extra_special_tokens:
                special["additional_special_tokens"] = self._extra_special_tokens
            map_file = folder / "special_tokens_map.json"
            _write_sorted(map_file, self.convert_added_tokens(special, save=True, add_type_field=False))
            return (*files, str(map_file))

    def _special(token: Any) -> Any:
        added = isinstance(token, str)
        return transformers.AddedToken(token, normalized=False, special=True) if added else token

    # LLaVA and its flags have the names of 4.57; 5.24 takes them, the first until 5.40, the others until 6.
    old_names = "past_key_values|rope_scaling|(is_)?gradient_checkpointing(_kwargs)?"
    warnings.filterwarnings("ignore", message=f"`({old_names})` is deprecated", category=FutureWarning)

    # 5.x shows a bar for every folder that is read or written; what takes seconds keeps it.
    transformers.utils.logging.set_tqdm_hook(lambda bar, args, settings: bar(*args, **{"delay": 2, **settings}))

    # Where there is torchvision, the name that LLaVA imports is a processor of its, with other pixels; else it is this
    # one, with a warning. (Some imports make 5.x put another module in its own place.)
    vars(sys.modules["transformers"])["CLIPImageProcessor"] = CLIPImageProcessorPil

    AutoTokenizer.register(LlamaConfig, slow_tokenizer_class=LlamaTokenizer, exist_ok=True)
    # For the type `llava`, that of folders published as LLaVA-1.5, 5.x takes a fast tokenizer, whatever they name. It
    # looks LLaVA's LlavaConfig up by that name too.
    TOKENIZER_MAPPING_NAMES["llava"] = LlamaTokenizer.__name__
    TOKENIZER_MAPPING._modules["llava"] = sys.modules[__name__]
else:
    from transformers import LlamaTokenizer
    from transformers.convert_slow_tokenizer import generate_merges as generate_merges
    from transformers.models.llava.image_processing_llava import LlavaImageProcessor as LlavaImageProcessor


def write_old_tokenizer_names(folder: Path, **changes: Any) -> None:
    """Makes a saved tokenizer_config.json one that 4.57 reads.

    It knows no class TokenizersBackend, and fails at a list of extra_special_tokens. What else 5.x adds is of this
    machine.
    """
    file = folder / "tokenizer_config.json"
    settings = json.loads(file.read_text(encoding="utf-8"))
    for name in ("backend", "is_local", "local_files_only"):
        settings.pop(name, None)
    old, present = _FAST
    if settings["tokenizer_class"] == present:
        settings["tokenizer_class"] = old
    extra = settings.setdefault("extra_special_tokens", [])
    if isinstance(extra, list):
        settings["extra_special_tokens"] = {}
        if extra:
            settings["additional_special_tokens"] = extra
    _write_sorted(file, settings | changes)


def _write_sorted(file: Path, content: dict[str, Any]) -> None:
    write_json(file, json.loads(json.dumps(content, sort_keys=True)))


def slow_tokenizer(name: str | Path) -> Any:
    """The tokenizer of a folder, or of a model on the hub; never one whose code lies in the folder."""
    tokenizer = AutoTokenizer.from_pretrained(name, use_fast=False, trust_remote_code=False)
    named = get_tokenizer_config(name).get("tokenizer_class")
    if FIVE and type(tokenizer).__name__ == "TokenizersBackend" and named not in (None, *_FAST):
        raise ValueError(f"no tokenizer class {named}")  # 4.57 says so too; 5.x takes a fast tokenizer of no class
    return tokenizer


# --- flags ------------------------------------------------------------------------------------------------------------


def present_flags(pairs: Sequence[tuple[str, list[str]]]) -> tuple[list[tuple[str, list[str]]], list[str]]:
    """Flags of the Trainer that 5.x no longer has, in its spelling; on 4.57 as they are.

    Args: pairs: flags with `--`, each with its values.
    Returns the same in the present spelling, and for each change what was changed to what, and why.
    Raises AuroraError for a flag whose work no other flag does.
    """
    if not FIVE:
        return list(pairs), []
    present: list[tuple[str, list[str]]] = []
    notes = []
    steps = [values for flag, values in pairs if flag == "--warmup_steps"]
    counted = bool(steps) and steps[-1] not in (["0"], ["0.0"])
    for flag, values in pairs:
        on = not values or values[0].lower() not in ("false", "0", "no", "n", "f")
        new: tuple[str, list[str]] | None = (flag, values)
        if flag == "--warmup_ratio":  # a share of the steps is a number of steps below one; steps go before it
            new = None if counted else ("--warmup_steps", values)
        elif flag == "--warmup_steps" and not counted and any(name == "--warmup_ratio" for name, _ in pairs):
            new = None
        elif flag == "--no_cuda":
            new = ("--use_cpu", values)
        elif flag == "--group_by_length":
            new = ("--train_sampling_strategy", ["group_by_length"]) if on else None
        elif flag == "--save_safetensors" and not on:
            raise AuroraError("--save_safetensors False: transformers 5 writes safetensors only; leave it out")
        elif flag in ("--save_safetensors", "--overwrite_output_dir"):  # the Trainer itself never read the second
            new = None
        elif flag == "--logging_dir":
            raise AuroraError(
                f"--logging_dir is gone in transformers 5; set TENSORBOARD_LOGGING_DIR={' '.join(values)}"
            )
        if new != (flag, values):
            now = " ".join([new[0], *new[1]]) if new else "nothing"
            notes.append(f"{' '.join([flag, *values])} to {now} because transformers 5 has no {flag} of this meaning")
        if new:
            present.append(new)
    return present, notes


# --- the Trainer ------------------------------------------------------------------------------------------------------


def groups_by_length(flags: Any) -> bool:
    """Whether batches are grouped by length: a flag of its own up to 4.57, a way to sample from 5.x on."""
    way = getattr(flags, "train_sampling_strategy", None)
    return way == "group_by_length" or bool(getattr(flags, "group_by_length", False))


def rotate_checkpoints(trainer: Any, run_folder: Path) -> None:
    """Removes the oldest checkpoints beyond --save_total_limit; in 5.x no method of the Trainer any more."""
    if not FIVE:
        trainer._rotate_checkpoints(use_mtime=True, output_dir=str(run_folder))
        return
    from transformers.trainer_utils import rotate_checkpoints as rotate

    best = trainer.state.best_model_checkpoint
    limit = trainer.args.save_total_limit
    rotate(str(run_folder), save_total_limit=limit, best_model_checkpoint=best, use_mtime=True)


# --- CLIP -------------------------------------------------------------------------------------------------------------


_LEVEL = "vision_model."


def vision_transformer(tower: Any) -> Any:
    """The module of a CLIPVisionModel that has its embeddings: 5.x has dropped the level `vision_model` below it."""
    return getattr(tower, "vision_model", tower)


def old_tower_names(weights: Mapping[str, Tensor], prefix: str = "") -> dict[str, Tensor]:
    """Tensors under the names that files have, with the level; `prefix` stands before a CLIPVisionModel's own names."""

    def old(name: str) -> str:
        head, found, own = name.partition(prefix) if prefix else ("", "", name)
        level = "" if own.startswith(_LEVEL) or (prefix and not found) else _LEVEL
        return head + found + level + own

    return {old(name): tensor for name, tensor in weights.items()}


def save_tower(tower: Any, folder: Path, weights: Mapping[str, Tensor]) -> None:
    """Writes a CLIPVisionModel under the names that every release reads; 5.x keeps those of the file it was read from.

    Args:
        tower: its configuration is written.
        folder: made if it is not there.
        weights: by the model's own names, of whichever release.
    """
    tower.config.architectures, tower.config.dtype = [type(tower).__name__], tower.dtype
    tower.config.save_pretrained(folder)
    save_torch_state_dict(old_tower_names(weights), folder)


def has_present_tower_names(version: str) -> bool:
    """Whether a tower's tensors had, in that release of transformers, the names that they have in the installed one."""
    return (Version(version) >= Version("5")) == FIVE


def present_tower_names(weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The reverse: tensors under the names that the installed CLIPVisionModel has."""
    return {name.replace(prefix + _LEVEL, prefix) if FIVE else name: tensor for name, tensor in weights.items()}


# --- config.json ------------------------------------------------------------------------------------------------------


def rope_theta(config: Any) -> float:
    """The base of a model's rotary embeddings: 4.57 has it in the configuration itself, 5.x among their parameters."""
    return config.rope_parameters["rope_theta"] if FIVE else config.rope_theta


def write_old_rope_names(folder: Path) -> None:
    """Gives a saved config.json what 4.x reads of rotary embeddings, which 5.x writes as `rope_parameters` alone.

    Without `rope_theta` a model of another base is read by 4.x, and by LLaVA as published, as one of 10,000: silently.
    """
    file = folder / "config.json"
    settings = json.loads(file.read_text(encoding="utf-8"))
    for part in (settings, settings.get("text_config") or {}):
        present = part.get("rope_parameters")
        scaling = dict(present or part.get("rope_scaling") or {})
        if present:
            part["rope_theta"] = scaling.pop("rope_theta")
        kind = scaling.get("rope_type", scaling.get("type"))
        if kind in ("linear", "dynamic"):  # 4.37 takes these two settings and no other
            scaling = {"type": kind, "factor": scaling["factor"]}
        if kind:
            part["rope_scaling"] = None if kind == "default" else scaling
    write_json(file, settings)
