"""Loads a LLaVA folder: whole, LoRA or projector only, with or without perception tokens.

A folder with perception tokens is an ordinary LLaVA checkpoint with three additions, which upstream LLaVA ignores: the
block `aurora` in config.json (names, ids and settings of the tokens), the weights of the depth VQ-VAE, and the vision
tower if that was trained. writing.py writes all of it.
"""

import os
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import BitsAndBytesConfig, CLIPVisionConfig, CLIPVisionModel, PretrainedConfig

from llava_aurora.data.images.image_reader import asked_pixels
from llava_aurora.errors import AuroraError
from llava_aurora.model.aurora_llama import AuroraLlamaForCausalLM, tower_name
from llava_aurora.model.folders import (
    BASE_MODEL_TYPES,
    LORA_CONFIG,
    NON_LORA_WEIGHTS,
    PROJECTOR_WEIGHTS,
    check_layers,
    check_model_type,
    find_base,
    has_whole_weights,
    is_path,
    llava_config,
    load_tokenizer,
    model_folder,
    model_settings,
    reading,
    vocabulary_rows,
)
from llava_aurora.model.perception_head import ROWS
from llava_aurora.model.writing import TOWER_PREFIX
from llava_aurora.tokens.perception import PerceptionTokens

_MOST_RESIZED = 16  # times the side that a vision tower takes; larger images would fill the memory


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
) -> tuple[Any, AuroraLlamaForCausalLM, Any, int]:
    """Loads a LLaVA folder: whole, LoRA, or projector only. No code from the folder is run.

    The arguments are upstream's, in its order; none but the first is needed.

    Args:
        model_path: the folder, or a name on the Hugging Face hub.
        model_base: the model that LoRA or projector weights were trained on, if it is no longer where the folder says.
        model_name: not used, since config.json says what the model is; upstream needs it.
        load_8bit, load_4bit: quantize by bitsandbytes.
        device_map: for transformers; without it the whole model goes to `device`.
        device: "cuda" where there is one, else "cpu".
        use_flash_attn: FlashAttention 2 instead of torch's attention.
        torch_dtype: float16 on CUDA, as upstream; float32 on CPU.
    Returns tokenizer, model, image processor, context length. `model.perception` holds the tokens, or None.
    Raises AuroraError if a file is missing or damaged, if the model is not built on Llama, if the base is another
    model, or if tokens, ids or VQ-VAE are not those that config.json describes.
    """
    folder = model_folder(model_path)
    config = llava_config(folder)
    check_tower(folder, config)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch_dtype or (torch.float16 if device.startswith("cuda") else torch.float32)
    options: dict[str, Any] = {"dtype": dtype, "device_map": device_map or {"": device}}
    if load_8bit or load_4bit:
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_8bit=load_8bit, load_in_4bit=load_4bit, bnb_4bit_compute_dtype=dtype, bnb_4bit_quant_type="nf4"
        )
    if use_flash_attn:
        options["attn_implementation"] = "flash_attention_2"

    lora = (folder / LORA_CONFIG).is_file()
    projector = (folder / PROJECTOR_WEIGHTS).is_file() and not has_whole_weights(folder)
    if lora or projector:
        base = find_base(folder, model_base)
        own_tokenizer = (folder / "tokenizer_config.json").is_file()
        if lora and not own_tokenizer and vocabulary_rows(folder) is not None:
            raise AuroraError(
                f"{folder}: AURORA's released weights, with token rows but no tokenizer; convert them first:"
                f" llava-aurora import aurora {folder} --base {base} --depth_vqvae FILE --out OUT"
            )
        tokenizer = load_tokenizer(folder if own_tokenizer else base)
        tower = tower_name(folder, vars(config))
        model = load_base(base, config, options)
        # A base that has a trained tower of its own would give that, not the one that was trained further.
        model.get_vision_tower().vision_tower_name = model.config.mm_vision_tower = tower
        add_image_tokens(model, tokenizer)
        load_trained(model, folder / (NON_LORA_WEIGHTS if lora else PROJECTOR_WEIGHTS), base=base)
        if lora:  # before the tower is loaded, as in training: LoRA would also take its layers
            model = merge_lora(model, folder)
    else:
        if model_base is not None:
            raise AuroraError(f"{folder}: a whole model, which has no base; leave out --base (model_base)")
        tokenizer = load_tokenizer(folder)
        model = _load_weights(folder, config, options)
        add_image_tokens(model, tokenizer)
    image_processor = load_tower(model, dtype=dtype)
    block = getattr(config, "aurora", None)
    if block is not None:
        with reading(folder / "config.json", "the description of perception tokens (aurora)"):
            model.attach_perception(PerceptionTokens.from_config(block, folder=folder, tokenizer=tokenizer))
    return tokenizer, model.eval(), image_processor, getattr(config, "max_sequence_length", 2048)


def check_tower(folder: Path, config: PretrainedConfig) -> None:
    """Raises AuroraError if the vision tower that a configuration names is not there or cannot be read."""
    name = tower_name(folder, vars(config))
    if not isinstance(name, str) or (is_path(name) and not os.path.isdir(name)):
        raise AuroraError(
            f"{folder}/config.json: the vision tower {name} (mm_vision_tower) is not there; put it there, or write the"
            " right path into config.json"
        )
    with reading(name, "the configuration of the vision tower"):
        layers = CLIPVisionConfig.from_pretrained(name).num_hidden_layers
    check_layers(Path(name) / "config.json", {"num_hidden_layers": layers})
    layer, feature = (
        getattr(config, "mm_vision_select_layer", None),
        getattr(config, "mm_vision_select_feature", "patch"),
    )
    if type(layer) is not int or not -layers - 1 <= layer <= layers or feature not in ("patch", "cls_patch"):
        raise AuroraError(
            f"{folder}/config.json: mm_vision_select_layer {layer!r} or mm_vision_select_feature {feature!r} does not"
            f" fit a vision tower of {layers} layers; copy config.json again from the run that wrote it"
        )


def load_tower(model: AuroraLlamaForCausalLM, *, dtype: torch.dtype) -> Any:
    """Loads the vision tower that the model's configuration names, if it is not loaded yet.

    Returns its image processor.
    """
    tower = model.get_vision_tower()
    if not tower.is_loaded:
        with reading(tower.vision_tower_name, "the vision tower"):
            tower.load_model()
            _check_processor(tower)
        check_tower_weights(tower.vision_tower_name)
        with reading(model.config._name_or_path, "image_aspect_ratio in config.json"):
            asked_pixels([Image.new("RGB", (8, 8))], tower.image_processor, model.config)
        tower.to(device=model.device, dtype=dtype)
    return tower.image_processor


def check_tower_weights(name: str) -> None:
    """Raises AuroraError if the weights of a vision tower have other layers than its config.json. Reads names only."""
    with reading(name, "the vision tower"):
        loaded: Any = CLIPVisionModel.from_pretrained(name, output_loading_info=True, device_map="meta")
    _refuse_partial(name, loaded[1])


def _check_processor(tower: Any) -> None:
    """Raises ValueError if the image processor does not make what the vision tower takes."""
    processor, side = tower.image_processor, tower.config.image_size
    if max(*dict(processor.size).values(), *dict(processor.crop_size).values()) > _MOST_RESIZED * side:
        raise ValueError(f"preprocessor_config.json resizes images to far more than the {side} pixels that it takes")
    made = processor.preprocess(Image.new("RGB", (8, 8)), return_tensors="pt")["pixel_values"]
    if made.shape != (1, 3, side, side):
        raise ValueError(f"preprocessor_config.json makes {tuple(made.shape[1:])} of an image, not (3, {side}, {side})")
    if not made.isfinite().all():
        raise ValueError("preprocessor_config.json makes NaN or infinite values of an image")


def load_base(base: str, config: PretrainedConfig, options: dict[str, Any]) -> AuroraLlamaForCausalLM:
    """The model that a folder was trained on, with as many rows as the folder's tokens need.

    Args:
        base: a Llama or LLaVA model; a projector that it lacks has to be loaded afterwards.
        config: of the folder.
        options: for `from_pretrained`.
    """
    settings = model_settings(base)
    check_model_type(base, settings, BASE_MODEL_TYPES)
    rows, config.vocab_size = config.vocab_size, settings.get("vocab_size", config.vocab_size)
    model = _load_weights(base, config, options, without_projector=settings["model_type"] == "llama")
    if rows != config.vocab_size:
        model.resize_token_embeddings(rows, mean_resizing=False)
    return model


def _load_weights(
    source: str | Path, config: PretrainedConfig, options: dict[str, Any], *, without_projector: bool = False
) -> AuroraLlamaForCausalLM:
    """Loads whole weights. Raises AuroraError for missing ones, which transformers would replace by random numbers."""
    with reading(source, "the weights"):
        model, found = AuroraLlamaForCausalLM.from_pretrained(
            source, config=config, output_loading_info=True, trust_remote_code=False, **options
        )
    _refuse_partial(source, found, optional="mm_projector" if without_projector else None)
    return model


def _refuse_partial(source: str | Path, found: dict[str, Any], *, optional: str | None = None) -> None:
    """Raises AuroraError for weights of other layers than config.json says; `found` is what transformers tells."""
    missing = sorted(name for name in found["missing_keys"] if optional is None or optional not in name)
    if missing:
        raise AuroraError(
            f"{source}: its weights lack {missing[0]}{f' and {len(missing) - 1} more' if missing[1:] else ''}; copy the"
            " folder again from the run that wrote it"
        )
    more = sorted(each for each in found["unexpected_keys"] if "layers." in each and not each.startswith("text_model."))
    if more:
        raise AuroraError(
            f"{source}: its weights hold {more[0]}, which config.json has no place for; copy the folder again from the"
            " run that wrote it"
        )


def load_trained(model: AuroraLlamaForCausalLM, path: Path, *, base: str) -> None:
    """Loads what was trained beside LoRA, or alone: projector, rows of new tokens, whole matrices.

    Args:
        model: from `load_base`.
        path: of a file written by torch.save, tensors by name.
        base: the model's base. If that is no LLaVA, the projector has to be in the file.
    """
    if not path.is_file():
        raise AuroraError(f"{path}: missing; without it the folder lacks its projector and token rows")
    with reading(path, "the tensors"):
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
    projector = [name for name in result.missing_keys if "mm_projector" in name]
    if projector and model_settings(base)["model_type"] == "llama":
        raise AuroraError(f"{path}: lacks {projector[0]}, and so does its base {base}; is that the right base?")
    if result.unexpected_keys:
        raise AuroraError(f"{path}: holds {result.unexpected_keys[0]}, which the model lacks; is the base another one?")


def merge_lora(model: AuroraLlamaForCausalLM, folder: Path) -> AuroraLlamaForCausalLM:
    """Adds the LoRA weights of `folder` to the weights of the model."""
    from peft import PeftModel

    with reading(folder, "the LoRA weights"):
        return PeftModel.from_pretrained(model, folder).merge_and_unload()


def add_image_tokens(model: AuroraLlamaForCausalLM, tokenizer: Any) -> None:
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
