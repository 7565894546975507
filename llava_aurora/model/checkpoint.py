"""Folders that describe themselves, read: what a training run left (writing.py) is found again without a flag.

A folder is an ordinary LLaVA checkpoint. Beside it stand the weights of what gives the tokens their meaning (the depth
VQ-VAE), the vision tower if that was trained, and in config.json a block `aurora` that names tokens, ids and settings.
Upstream LLaVA overlooks all three and loads the rest.
"""

from pathlib import Path
from typing import Any

import torch
from llava.model.builder import load_pretrained_model as upstream_load_pretrained_model
from llava.model.language_model.llava_llama import LlavaConfig
from transformers import AutoConfig, AutoTokenizer, BitsAndBytesConfig, PretrainedConfig, PreTrainedModel

from llava_aurora.errors import AuroraError
from llava_aurora.files import read_json
from llava_aurora.model.aurora_llama import AuroraLlamaForCausalLM
from llava_aurora.model.perception_head import ROWS
from llava_aurora.model.writing import NON_LORA_WEIGHTS, PROJECTOR_WEIGHTS, TOWER_PREFIX
from llava_aurora.tokens.perception import PerceptionTokens

LORA_CONFIG = "adapter_config.json"


def load_pretrained_model(
    model_path: str,
    model_base: str | None = None,
    model_name: str | None = None,
    load_8bit: bool = False,
    load_4bit: bool = False,
    device_map: Any = None,
    device: str | None = None,
    use_flash_attn: bool = False,
    *,
    torch_dtype: torch.dtype | None = None,
) -> tuple[Any, PreTrainedModel, Any, int]:
    """Loads a LLaVA folder, with or without perception tokens: whole, LoRA, or projector only.

    The arguments are upstream's, in its order; none but the first is needed. A LoRA folder names its base itself; of a
    folder with the projector alone, `model_base` has to say it.

    Args:
        model_path: the folder.
        model_base: the base of a projector; overrides the base that a LoRA folder names.
        model_name: only for models that are no Llama (MPT, Mistral), which upstream loads.
        load_8bit, load_4bit: quantize by bitsandbytes.
        device_map: for transformers; without it the whole model goes to `device`.
        device: "cuda" where there is one, else "cpu".
        use_flash_attn: FlashAttention 2 instead of torch's attention.
        torch_dtype: float16 on CUDA, as upstream; float32 on CPU.

    Returns:
        tokenizer, model, image processor, context length. `model.perception` holds the tokens, or None.

    Raises:
        AuroraError: if the folder is none, or if tokens, ids or VQ-VAE are not those it describes.
    """
    folder = Path(model_path)
    if not (folder / "config.json").is_file():
        raise AuroraError(
            f"{folder}: no checkpoint here (config.json is missing); give the folder a training run wrote"
        )
    config = AutoConfig.from_pretrained(folder)
    if config.model_type != LlavaConfig.model_type:
        name = model_name or f"llava-{config.model_type}"
        return upstream_load_pretrained_model(
            model_path, model_base, name, load_8bit, load_4bit, device_map or "auto", device or _device()
        )
    device = device or _device()
    dtype = torch_dtype or (torch.float16 if device.startswith("cuda") else torch.float32)
    options: dict[str, Any] = {"torch_dtype": dtype, "device_map": device_map or {"": device}}
    if load_8bit or load_4bit:
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_8bit=load_8bit, load_in_4bit=load_4bit, bnb_4bit_compute_dtype=dtype, bnb_4bit_quant_type="nf4"
        )
    if use_flash_attn:
        options["attn_implementation"] = "flash_attention_2"

    lora, projector = (folder / LORA_CONFIG).is_file(), (folder / PROJECTOR_WEIGHTS).is_file()
    if projector and model_base is None and not _has_weights(folder):
        raise AuroraError(f"{folder}: holds a projector alone; say with model_base (--base) what it was trained on")
    tokenizer = _load_tokenizer(folder, model_base)
    if lora or model_base is not None:
        model = _load_base(model_base or _lora_base(folder), config, options)
    else:
        model = AuroraLlamaForCausalLM.from_pretrained(folder, **options)
    _add_image_tokens(model, tokenizer)
    if lora:  # before the tower is there, as in training: LoRA would take its layers for the language model's
        _load_trained(model, folder / NON_LORA_WEIGHTS)
        model = _merge_lora(model, folder)
    elif model_base is not None:
        _load_trained(model, folder / PROJECTOR_WEIGHTS)
    tower = model.get_vision_tower()
    if not tower.is_loaded:
        tower.load_model()
        tower.to(device=model.device, dtype=dtype)
    if getattr(config, "aurora", None) is not None:
        model.attach_perception(PerceptionTokens.from_config(config.aurora, folder=folder, tokenizer=tokenizer))
    context_length = getattr(config, "max_sequence_length", 2048)
    return tokenizer, model.eval(), tower.image_processor, context_length


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _load_tokenizer(folder: Path, model_base: str | None) -> Any:
    """The tokenizer of the folder; a LoRA folder written by upstream has none and takes its base's."""
    source = folder if (folder / "tokenizer_config.json").is_file() else Path(model_base or _lora_base(folder))
    return AutoTokenizer.from_pretrained(source, use_fast=False)


def _lora_base(folder: Path) -> str:
    if not (folder / LORA_CONFIG).is_file():
        raise AuroraError(f"{folder}: the tokenizer is missing (tokenizer_config.json); copy it from the training run")
    return read_json(folder / LORA_CONFIG, what="LoRA settings")["base_model_name_or_path"]


def _has_weights(folder: Path) -> bool:
    return any(folder.glob("*.safetensors")) or any(folder.glob("pytorch_model*.bin"))


def _load_base(base: str, config: PretrainedConfig, options: dict[str, Any]) -> AuroraLlamaForCausalLM:
    """The model that a folder was trained on, with as many rows as the folder's tokens need."""
    rows = config.vocab_size
    config.vocab_size = AutoConfig.from_pretrained(base).vocab_size
    model = AuroraLlamaForCausalLM.from_pretrained(base, config=config, **options)
    if rows != config.vocab_size:
        model.resize_token_embeddings(rows, mean_resizing=False)
    return model


def _load_trained(model: AuroraLlamaForCausalLM, path: Path) -> None:
    """Loads what was trained beside LoRA, or alone: projector, rows of new tokens, whole matrices."""
    if not path.is_file():
        raise AuroraError(f"{path}: missing; without it the folder lacks its projector and token rows")
    weights = {
        name.removeprefix("base_model.model."): value
        for name, value in torch.load(path, map_location="cpu", weights_only=True).items()
        if TOWER_PREFIX not in name  # a trained tower has a folder of its own
    }
    for name in [name for name in weights if name.endswith(f".{ROWS}")]:
        first = min(block["first_id"] for block in model.config.aurora["tokens"].values())
        rows = weights.pop(name)
        matrix = model.get_parameter(name.removesuffix(ROWS) + "weight")
        with torch.no_grad():
            matrix[first : first + len(rows)] = rows
    result = model.load_state_dict(weights, strict=False)
    if result.unexpected_keys:
        raise AuroraError(f"{path}: holds {result.unexpected_keys[0]}, which the model lacks; is the base another one?")


def _merge_lora(model: AuroraLlamaForCausalLM, folder: Path) -> AuroraLlamaForCausalLM:
    from peft import PeftModel

    return PeftModel.from_pretrained(model, folder).merge_and_unload()


def _add_image_tokens(model: AuroraLlamaForCausalLM, tokenizer: Any) -> None:
    """Upstream's image tokens, as its loader adds them; the rows grow only if a token is new."""
    from llava import constants

    new = []
    if getattr(model.config, "mm_use_im_patch_token", True):
        new.append(constants.DEFAULT_IMAGE_PATCH_TOKEN)
    if getattr(model.config, "mm_use_im_start_end", False):
        new += [constants.DEFAULT_IM_START_TOKEN, constants.DEFAULT_IM_END_TOKEN]
    tokenizer.add_tokens(new, special_tokens=True)
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
