"""What a model folder says about itself, read without building a model and without running code from the folder.

transformers runs Python files of a folder in three cases: `auto_map` in config.json, `auto_map` in
tokenizer_config.json, and custom_generate/generate.py. The first two are closed here, the third in aurora_llama.py.
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from llava.model.language_model.llava_llama import LlavaConfig
from transformers import PretrainedConfig, PreTrainedTokenizerBase
from transformers.utils import cached_file

from llava_aurora.compatibility import slow_tokenizer
from llava_aurora.errors import AuroraError
from llava_aurora.files import read_json_object, write_json

LORA_CONFIG = "adapter_config.json"
NON_LORA_WEIGHTS = "non_lora_trainables.bin"
PROJECTOR_WEIGHTS = "mm_projector.bin"
BASE_RECORD = "aurora_base.json"
LLAVA_MODEL_TYPES = (LlavaConfig.model_type, "llava")  # the second one in the folders published as LLaVA-1.5
BASE_MODEL_TYPES = (*LLAVA_MODEL_TYPES, "llama")
MOST_LAYERS, MOST = 1000, 10**9
_SAMPLES, _SAMPLE_BYTES = 16, 4096
_WEIGHTS = ("*.safetensors", "*.bin")
_SAMPLE = 1 << 20  # bytes of each end of a weight file that its fingerprint is made of


@contextmanager
def reading(source: str | Path, part: str) -> Iterator[None]:
    """Turns whatever the libraries raise for a damaged or missing file into an AuroraError of one line.

    Args: source: a file, a folder or a name on the Hugging Face hub; part: what is read of it.
    """
    try:
        yield
    except (AuroraError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        reason = f"{lines[0]} is missing" if isinstance(error, KeyError) else lines[0]
        known = os.path.exists(source)  # where Path would raise for a name that is too long
        remedy = "copy it again from the run that wrote it" if known else "no such file, folder or name on the hub"
        raise AuroraError(f"{source}: {part} cannot be read ({reason}); {remedy}") from error


def is_path(name: str | None) -> bool:
    """Whether a model's name is a path. A name on the Hugging Face hub is `owner/name` or `name`."""
    return name is not None and (name.startswith(("/", "./", "../", "~")) or name.count("/") > 1)


def model_folder(name: str | Path) -> Path:
    """The folder of a model: the one of this name, or the one that a name on the Hugging Face hub is downloaded to.

    Raises AuroraError if there is no such folder, and the hub has no such model or cannot be reached.
    """
    if Path(name).exists() or is_path(str(name)):
        return Path(name)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(str(name), ignore_patterns=["*.py", "*.md", "*.msgpack", "*.h5"]))
    except LocalEntryNotFoundError as error:  # offline by choice, or by accident
        raise AuroraError(
            f"{name}: no such folder here, and the download from the Hugging Face hub failed: no network, or"
            " HF_HUB_OFFLINE is set; give an existing folder, or try again with a network"
        ) from error
    except Exception as error:  # of the network, of the hub, of its cache
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise AuroraError(
            f"{name}: no such folder here, and the download from the Hugging Face hub failed ({reason}); give an"
            " existing folder, or another name on the hub"
        ) from error


def model_settings(name: str | Path) -> dict[str, Any]:
    """The content of config.json of a folder, or of a model on the hub. Raises AuroraError if there is none."""
    with reading(name, "config.json"):
        settings, _ = PretrainedConfig.get_config_dict(str(name))
        return dict(settings)


def check_model_type(name: str | Path, settings: dict[str, Any], known: tuple[str, ...]) -> None:
    """Raises AuroraError for a model that is not built on Llama: other types may bring code of their own."""
    found = settings.get("model_type")
    if found == "llava" and "text_config" in settings:
        raise AuroraError(
            f"{name}: a LLaVA in transformers' own layout (text_config in config.json); give the model in LLaVA's"
            " layout, such as liuhaotian/llava-v1.5-7b instead of llava-hf/llava-1.5-7b-hf"
        )
    if found not in known:
        raise AuroraError(f"{name}: config.json has model_type {found!r}; supported: {', '.join(known)}")


def check_layers(file: Path, settings: dict[str, Any]) -> None:
    """Raises AuroraError for a number of layers that no model has: building them one by one would fill the memory."""
    layers = settings.get("num_hidden_layers", 1)
    if not isinstance(layers, int) or not 1 <= layers <= MOST_LAYERS:
        raise AuroraError(f"{file}: num_hidden_layers is {layers!r:.40}; expected 1 to {MOST_LAYERS}")


def check_numbers(file: Path, settings: dict[str, Any]) -> None:
    """Raises AuroraError where a configuration has something else than a number, or one without bounds, for a size."""
    lengths = {name: 2048 for name in ("tokenizer_model_max_length", "max_sequence_length") if settings.get(name)}
    for name, usual in {**LlavaConfig().to_dict(), **lengths}.items():
        if name not in settings or not isinstance(usual, int | float) or isinstance(usual, bool):
            continue
        value = settings[name]
        known = isinstance(value, int | float) and not isinstance(value, bool)
        known = known and (abs(value) <= MOST or name in lengths)  # which transformers has for "any"
        if name.endswith("token_id"):  # of which there may be several, or none
            known = all(each is None or type(each) is int for each in (value if isinstance(value, list) else [value]))
        if not known:
            raise AuroraError(f"{file}: {name} is {value!r:.40}, expected a number such as {usual}")


def llava_config(folder: Path) -> LlavaConfig:
    """The configuration of a LLaVA folder.

    Raises AuroraError if there is no config.json, it cannot be read, is not of LLaVA-Llama, or has an invalid `aurora`.
    """
    if not (folder / "config.json").is_file():
        raise AuroraError(
            f"{folder}: no checkpoint here (config.json is missing); give the folder a training run wrote"
        )
    settings = model_settings(folder)
    check_model_type(folder, settings, LLAVA_MODEL_TYPES)
    if not isinstance(settings.get("aurora", {}), dict):
        raise AuroraError(
            f"{folder}/config.json: aurora is {settings['aurora']!r}, not the description of perception tokens; copy"
            " config.json again from the run that wrote it"
        )
    check_numbers(folder / "config.json", settings)
    check_layers(folder / "config.json", settings)
    with reading(folder, "config.json"):
        return LlavaConfig.from_dict({**settings, "model_type": LlavaConfig.model_type})


def load_tokenizer(name: str | Path) -> Any:
    """The slow tokenizer of a folder, or of a model on the hub; never one whose code lies in the folder."""
    with reading(name, "the tokenizer"):
        tokenizer = slow_tokenizer(name)
        if not isinstance(tokenizer, PreTrainedTokenizerBase):  # where tokenizer.model is damaged
            raise ValueError("it holds no vocabulary")
        return tokenizer


def has_whole_weights(folder: Path) -> bool:
    """Whether a folder holds weights of a whole model."""
    return any(folder.glob("model*.safetensors")) or any(folder.glob("pytorch_model*.bin"))


def check_trainable(name: str) -> None:
    """Raises AuroraError if training cannot start from this model (--model_name_or_path), with what to do instead."""
    folder = Path(name)
    if (folder / LORA_CONFIG).is_file():
        raise AuroraError(
            f"--model_name_or_path {name}: holds LoRA weights only; merge them with their base first:"
            f" llava-aurora merge {name} --out MERGED"
        )
    if (folder / PROJECTOR_WEIGHTS).is_file() and not has_whole_weights(folder):
        raise AuroraError(
            f"--model_name_or_path {name}: holds a projector only; give its base there, and"
            f" --pretrain_mm_mlp_adapter {folder / PROJECTOR_WEIGHTS}"
        )
    check_model_type(name, model_settings(name), BASE_MODEL_TYPES)
    load_tokenizer(name)


def vocabulary_rows(folder: Path) -> int | None:
    """How many rows the whole input embedding beside LoRA weights has; None where there is none."""
    file = folder / NON_LORA_WEIGHTS
    if not file.is_file():
        return None
    with reading(file, "the tensors"):
        weights = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        return next((len(rows) for name, rows in weights.items() if name.endswith("embed_tokens.weight")), None)


# --- the base of LoRA and projector folders ---------------------------------------------------------------------------


def fingerprint_of_base(name: str) -> str:
    """Tells models apart by samples of their weight files: 16 times 4 KiB of each, with names and sizes.

    Args: name: a folder, or a model on the hub that is in the cache.
    Returns a SHA-256 in hexadecimal. Saving a model again in another type or other shards changes it.
    """
    with reading(name, "config.json"):
        folder = Path(str(cached_file(name, "config.json"))).parent
    digest = hashlib.sha256()
    for file in sorted([*folder.glob("model*.safetensors"), *folder.glob("pytorch_model*.bin")]):
        size = file.stat().st_size
        digest.update(f"{file.name} {size}\n".encode())
        with file.open("rb") as content:
            for number in range(_SAMPLES):
                content.seek(size * number // _SAMPLES)
                digest.update(content.read(_SAMPLE_BYTES))
    return digest.hexdigest()


def write_base_record(folder: Path, base: str) -> None:
    """Keeps beside LoRA or projector weights which model they were trained on; nothing if it has no name."""
    if base:
        write_json(folder / BASE_RECORD, {"base": base, "fingerprint": fingerprint_of_base(base)})


def find_base(folder: Path, given: str | None) -> str:
    """The model on which a folder's LoRA or projector weights were trained.

    Args:
        given: the user's word for it (--base), checked against the recorded fingerprint.
    Raises AuroraError if the base is unknown, not there, or another model.
    """
    recorded: dict[str, str] = {}
    if (folder / BASE_RECORD).is_file():
        recorded = read_json_object(folder / BASE_RECORD, what="record of the base model")
    elif (folder / LORA_CONFIG).is_file():  # written by LLaVA
        with reading(folder / LORA_CONFIG, "the name of the base"):
            recorded = {"base": read_json_object(folder / LORA_CONFIG, what="LoRA settings")["base_model_name_or_path"]}
    base = given or recorded.get("base")
    if not base:
        raise AuroraError(
            f"{folder}: holds a projector only; give the model it was trained on with --base (model_base)"
        )
    if is_path(base) and not Path(base, "config.json").is_file():
        raise AuroraError(
            f"{folder}: its base model {base} is not there (no config.json); give its place with --base (model_base)"
        )
    expected = recorded.get("fingerprint")
    if expected is None and given and Path(recorded.get("base", ""), "config.json").is_file():
        expected = fingerprint_of_base(recorded["base"])
    if expected is not None and fingerprint_of_base(base) != expected:
        raise AuroraError(
            f"{folder}: was trained on {recorded['base']}, and {base} has other weight files; give that model with"
            f" --base (model_base). If they are the same weights saved again, remove {folder / BASE_RECORD}"
        )
    return base


def fingerprint(folder: Path) -> str:
    """What distinguishes a checkpoint from another: a hash of config.json and of each weight file's size and ends.

    Raises AuroraError if the folder is no checkpoint.
    """
    config = folder / "config.json"
    if not config.is_file():
        raise AuroraError(
            f"{folder}: no checkpoint here (config.json is missing); give the folder a training run wrote"
        )
    digest = hashlib.sha256(config.read_bytes())
    for path in sorted(path for pattern in _WEIGHTS for path in folder.glob(pattern)):
        size = path.stat().st_size
        digest.update(f"{path.name} {size}".encode())
        with path.open("rb") as file:
            digest.update(file.read(_SAMPLE))
            file.seek(max(0, size - _SAMPLE))
            digest.update(file.read(_SAMPLE))
    return digest.hexdigest()[:16]
