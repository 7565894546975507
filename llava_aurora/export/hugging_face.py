"""A trained model in transformers' own LLaVA format, for `transformers serve`, vLLM, SGLang and whatever reads it.

What is written is LlavaForConditionalGeneration with LlavaProcessor, under the names of the published LLaVA-1.5, which
every release since 4.36 reads. What gives the perception tokens their meaning
stays beside it as in our own folders (model/checkpoint.py): the block `aurora` in config.json, and the VQ-VAE.
"""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import save_torch_state_dict
from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.conversation import conv_templates
from PIL import Image
from torch import Tensor
from transformers import CLIPVisionModel, GenerationConfig, LlamaConfig, LlavaConfig, LlavaProcessor

from llava_aurora.compatibility import (
    LlavaImageProcessor,
    old_tower_names,
    write_old_rope_names,
    write_old_tokenizer_names,
)
from llava_aurora.data.images.image_reader import asked_pixels
from llava_aurora.errors import AuroraError
from llava_aurora.export.chat_template import chat_template
from llava_aurora.export.fast_tokenizer import after_bos, check_same_ids, fast_tokenizer
from llava_aurora.files import atomic_folder
from llava_aurora.model.aurora_llama import AuroraLlamaForCausalLM
from llava_aurora.model.checkpoint import load_pretrained_model
from llava_aurora.model.folders import llava_config
from llava_aurora.tokens.perception import PerceptionTokens

MAX_NEW_TOKENS = 512
_SIZES = ((64, 64), (96, 40), (40, 96))
_QUESTIONS = ("Which point is closest?", "How many, and  where?\nThink step by step.")


def export_hugging_face(
    model: str | Path,
    out: str | Path,
    *,
    base: str | None = None,
    dtype: torch.dtype | None = None,
    conversation: str = "vicuna_v1",
) -> Path:
    """Writes a model, its LoRA merged, in transformers' format; `out` appears only when it is whole.

    Args:
        model: a folder that a training run left: whole, merged, LoRA or projector, with or without perception tokens.
        out: the folder to make.
        base: what a projector was trained on; a LoRA folder knows that itself.
        dtype: of the weights; None keeps the model's, as its config.json says.
        conversation: LLaVA's template that the model was trained with (--version v1 is vicuna_v1).
    Returns `out`.
    Raises AuroraError if `out` is there already, or the model is one that the format cannot say (the message says
    what).
    """
    source, out = Path(model), Path(out)
    if out.exists():
        raise AuroraError(f"{out}: already exists; choose another --out, or remove it")
    chat_template(conversation)  # refuses what it cannot say before anything is loaded
    dtype = dtype or getattr(llava_config(source), "dtype", None) or torch.float32
    tokenizer, trained, image_processor, _ = load_pretrained_model(str(source), base, device="cpu", torch_dtype=dtype)
    trained = _expressible(trained, source)
    fast = fast_tokenizer(tokenizer)
    check_same_ids(tokenizer, fast, prompts=_prompts(conversation, trained.perception))
    template = chat_template(conversation, after_bos=after_bos(tokenizer))
    processor: Any = _processor(trained, fast, image_processor, template)
    _check_same_pixels(trained, image_processor, processor, source)
    config = _config(trained, fast)
    generation = GenerationConfig(
        bos_token_id=fast.bos_token_id,
        eos_token_id=fast.eos_token_id,
        pad_token_id=fast.pad_token_id,
        do_sample=False,
        max_new_tokens=MAX_NEW_TOKENS,
    )
    with atomic_folder(out) as folder:
        config.save_pretrained(folder)
        generation.save_pretrained(folder)
        save_torch_state_dict(_weights(trained, fast, config), folder, max_shard_size="5GB")
        processor.image_processor.save_pretrained(folder)
        processor.save_pretrained(folder)
        write_old_rope_names(folder)
        write_old_tokenizer_names(folder)
        if trained.perception is not None:
            trained.perception.save_files(folder)
    return out


def _expressible(model: AuroraLlamaForCausalLM, source: Path) -> AuroraLlamaForCausalLM:
    """The model. Raises AuroraError, naming the setting of config.json, if transformers' LLaVA has no place for it."""
    config = model.config
    possible: dict[str, tuple[Any, ...]] = {
        "mm_projector_type": ("mlp2x_gelu",),
        "image_aspect_ratio": (None, "square", "pad", "resize"),
        "mm_vision_select_feature": (None, "patch", "cls_patch"),
        "mm_use_im_start_end": (None, False),
    }
    for name, values in possible.items():
        found = getattr(config, name, None)
        if found not in values:
            known = ", ".join(str(value) for value in values if value is not None)
            raise AuroraError(f"{source}/config.json: {name} is {found}; transformers' LLaVA supports only {known}")
    if not isinstance(model.get_vision_tower().vision_tower, CLIPVisionModel):
        raise AuroraError(f"{source}: the vision tower {config.mm_vision_tower} is not CLIP, the only one supported")
    return model


# --- images and words -------------------------------------------------------------------------------------------------


def _processor(model: AuroraLlamaForCausalLM, fast: Any, image_processor: Any, template: str) -> LlavaProcessor:
    settings = {name: value for name, value in image_processor.to_dict().items() if name != "image_processor_type"}
    ratio = getattr(model.config, "image_aspect_ratio", None)
    if ratio == "pad":
        image_processor = LlavaImageProcessor(**{**settings, "do_pad": True})
    elif ratio == "resize":
        whole = {"size": image_processor.crop_size, "do_center_crop": False, "resample": Image.Resampling.NEAREST}
        image_processor = type(image_processor)(**{**settings, **whole})
    return LlavaProcessor(
        image_processor,
        fast,
        patch_size=model.get_vision_tower().config.patch_size,
        vision_feature_select_strategy=_select_strategy(model),
        num_additional_image_tokens=1,  # CLIP's class token
        chat_template=template,
    )


def _select_strategy(model: AuroraLlamaForCausalLM) -> str:
    return "full" if getattr(model.config, "mm_vision_select_feature", "patch") == "cls_patch" else "default"


def _prompts(conversation: str, perception: PerceptionTokens | None) -> list[str]:
    """A first question about an image, and the same with its answer, spans in it, and a second question."""
    families = perception.vocabulary.families if perception is not None else ()
    spans = [f" {family.name} is {family.text([0] * family.lengths[-1])}." for family in families]
    template = conv_templates[conversation].copy()
    user, assistant = template.roles
    template.append_message(user, f"{DEFAULT_IMAGE_TOKEN}\n{_QUESTIONS[0]}")
    template.append_message(assistant, None)
    first = template.get_prompt()
    template.messages[-1][1] = f"At (1,2), so 3.{''.join(spans)} Thus\n{''.join(spans)}"
    template.append_message(user, _QUESTIONS[1])
    template.append_message(assistant, None)
    return [first, template.get_prompt()]


def _check_same_pixels(model: AuroraLlamaForCausalLM, ours: Any, processor: Any, source: Path) -> None:
    """Raises AuroraError if a square, a wide or a high image comes out differently."""
    theirs = processor.image_processor
    rng = np.random.default_rng(0)
    for width, height in _SIZES:
        image = Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
        wanted = asked_pixels([image], ours, model.config)
        found = theirs(images=[image], return_tensors="pt")["pixel_values"]
        if isinstance(wanted, list) or not torch.equal(wanted, found):
            raise AuroraError(
                f"{source}: an image of {width} × {height} pixels is processed differently by transformers'"
                f" {type(theirs).__name__} than by LLaVA; settings of the vision tower's processor cannot be exported"
            )


# --- weights ----------------------------------------------------------------------------------------------------------


def _weights(model: AuroraLlamaForCausalLM, fast: Any, config: Any) -> dict[str, Tensor]:
    """The tensors under the names of the format, in one type, with a row for `<image>`; of tied ones the first."""
    weights = {_name(name): tensor.to(model.dtype) for name, tensor in model.state_dict().items()}
    matrices = ["language_model.model.embed_tokens.weight", "language_model.lm_head.weight"]
    for matrix in matrices:
        weights[matrix] = with_image_row(
            weights[matrix], words=len(fast) - 1, image=config.image_token_id, rows=config.text_config.vocab_size
        )
    if config.tie_word_embeddings:
        del weights[matrices[1]]
    return old_tower_names(weights, "vision_tower.")


def _config(model: AuroraLlamaForCausalLM, fast: Any) -> Any:
    image_token = fast.convert_tokens_to_ids(DEFAULT_IMAGE_TOKEN)
    known = LlamaConfig().to_dict().keys() - {"architectures", "model_type", "transformers_version"}
    text = {name: value for name, value in model.config.to_dict().items() if name in known}
    text["vocab_size"] = max(model.get_input_embeddings().num_embeddings, image_token + 1)
    tower = model.get_vision_tower()
    strategy = _select_strategy(model)
    # transformers 5 does not tie the matrices of a folder that holds two, whatever its config.json says
    text["tie_word_embeddings"] = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    settings: dict[str, Any] = {
        "text_config": LlamaConfig(**text),
        "vision_config": copy.deepcopy(tower.config),
        "image_token_index": image_token,
        "projector_hidden_act": "gelu",
        "vision_feature_select_strategy": strategy,
        "vision_feature_layer": tower.select_layer,
        "image_seq_length": tower.num_patches + (strategy == "full"),
        "tie_word_embeddings": text["tie_word_embeddings"],
        "pad_token_id": fast.pad_token_id,
        "dtype": model.dtype,
        "architectures": ["LlavaForConditionalGeneration"],
    }
    config: Any = LlavaConfig(**settings)
    for part in (config.text_config, config.vision_config):
        part.name_or_path = ""  # of this machine
        part.dtype = model.dtype
    if model.perception is not None:
        config.aurora = model.perception.config()
    return config


def _name(name: str) -> str:
    """Upstream LLaVA's name of a tensor to transformers'."""
    for ours, theirs in (
        ("model.vision_tower.vision_tower.", "vision_tower."),
        ("model.mm_projector.0.", "multi_modal_projector.linear_1."),
        ("model.mm_projector.2.", "multi_modal_projector.linear_2."),
    ):
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    return f"language_model.{name}"


def with_image_row(matrix: Tensor, *, words: int, image: int, rows: int) -> Tensor:
    """A vocabulary matrix (V, D) with `rows` rows, of which number `image` is the mean of the first `words`.

    The image's own row is never read, but it takes part where the next word is chosen. The mean of all logits is below
    the largest of them, and its probability below one in V, so that the token is never written by greedy decoding and
    next to never by sampling; a row of zeros would win wherever all logits are negative.
    """
    whole = torch.cat([matrix, matrix.new_zeros(max(rows - len(matrix), 0), matrix.shape[1])])
    whole[image] = matrix[:words].float().mean(dim=0).to(matrix.dtype)
    return whole
