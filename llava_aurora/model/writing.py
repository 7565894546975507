"""Writes a trained model into a folder: whole, LoRA, or projector only.

Files get their final names only when all are written. Beside upstream's files stand the block `aurora` in config.json,
the tokenizer, the files of the token kinds, and the vision tower if it was trained. checkpoint.py loads all of it.
"""

import copy
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llava_aurora.compatibility import old_tower_names, save_tower, write_old_rope_names
from llava_aurora.files import STAGING_PREFIX, atomic_folder, read_json, staged_into, write_json, write_text
from llava_aurora.model.aurora_llama import VISION_TOWER_FOLDER, AuroraLlamaForCausalLM
from llava_aurora.model.folders import NON_LORA_WEIGHTS, PROJECTOR_WEIGHTS, write_base_record
from llava_aurora.model.perception_head import ROWS, join_rows

TOWER_PREFIX = "vision_tower.vision_tower."


def write_whole_folder(
    folder: Path,
    *,
    model: AuroraLlamaForCausalLM,
    weights: Mapping[str, Tensor],
    write: Callable[[str, dict[str, Tensor]], None],
) -> None:
    """Writes a whole model, its matrices joined under upstream's names.

    Args:
        folder: the final folder, or the same inside a staging folder.
        model: the trained model, unwrapped.
        weights: whole tensors by name.
    """
    joined = dict(weights) if model.perception is None else join_rows(weights, ids=model.perception.token_ids())
    joined = old_tower_names(joined, TOWER_PREFIX)
    with staged_into(folder) as staging:
        write(str(staging), joined)
        write_perception_files(staging, model=model, weights=joined, final_folder=folder)


def write_merged_folder(folder: Path, *, model: AuroraLlamaForCausalLM, tokenizer: Any) -> None:
    """Writes a whole model without rows of their own and its tokenizer into a folder that appears when it is complete.

    Args: model: as `load_pretrained_model` returns it.
    """
    with atomic_folder(folder) as staging:
        model.config.use_cache = True
        weights = old_tower_names(model.state_dict(), TOWER_PREFIX)
        model.save_pretrained(staging, state_dict=weights)
        tokenizer.save_pretrained(staging)
        write_perception_files(staging, model=model, weights=weights, final_folder=folder)


def write_lora_folder(
    folder: Path, *, model: Any, tokenizer: Any, adapter: Mapping[str, Tensor], others: Mapping[str, Tensor]
) -> None:
    """Writes LoRA weights and, beside them, everything else that was trained: projector, rows of new tokens, tower.

    Args: adapter: LoRA's tensors, whole, by name; others: the other trained tensors, whole, by name.
    """
    base = model.get_base_model()
    with staged_into(folder) as staging:
        _write_config(staging, base)
        model.save_pretrained(staging, state_dict=adapter, save_embedding_layers=False)
        torch.save(old_tower_names(others, TOWER_PREFIX), staging / NON_LORA_WEIGHTS)
        write_base_record(staging, base.name_or_path)
        tokenizer.save_pretrained(staging)
        write_perception_files(staging, model=base, weights=others, final_folder=folder)


def write_projector_folder(
    folder: Path, *, model: AuroraLlamaForCausalLM, tokenizer: Any, weights: Mapping[str, Tensor]
) -> None:
    """Writes the projector, and in the same file the rows of new tokens, which upstream ignores.

    Args: model: the trained model; weights: the trained tensors, whole, by name.
    """
    with staged_into(folder) as staging:
        _write_config(staging, model)
        kept = {name: value for name, value in weights.items() if "mm_projector" in name or name.endswith(ROWS)}
        torch.save(kept, staging / PROJECTOR_WEIGHTS)
        write_base_record(staging, model.name_or_path)
        if model.perception is not None:
            tokenizer.save_pretrained(staging)
        write_perception_files(staging, model=model, weights=weights, final_folder=folder)


def model_card(model: AuroraLlamaForCausalLM) -> str:
    """What a folder holds, from what it was made, and how to load it, in Markdown with the hub's metadata."""
    families = model.perception.vocabulary.families if model.perception is not None else ()
    tokens = [f"- {each.name}: {len(each.tokens)} tokens, {each.tokens[0]} … {each.tokens[-1]}" for each in families]
    facts = {"base model": model.name_or_path, "training records": model.trained_on}
    return "\n".join(
        [
            "---",
            "library_name: llava_aurora",
            "pipeline_tag: image-text-to-text",
            "---",
            "",
            "# A LLaVA with perception tokens" if tokens else "# A LLaVA",
            "",
            *(f"- {name}: `{value}`" for name, value in facts.items() if value),
            *tokens,
            "",
            "```python",
            "from llava_aurora import Aurora",
            "",
            'aurora = Aurora.from_pretrained("path/to/this/folder")',
            'print(aurora.ask("image.jpg", "What is in the image?").answer)',
            "```",
            "",
            "LLaVA's own `load_pretrained_model` loads whole folders; `llava-aurora merge` makes a LoRA folder whole.",
            "",
        ]
    )


def _write_config(folder: Path, model: AuroraLlamaForCausalLM) -> None:
    config = copy.deepcopy(model.config)
    config.use_cache = True  # off in training alone
    for quantization in ("quantization_config", "_pre_quantization_dtype"):  # a new choice each time the base is loaded
        vars(config).pop(quantization, None)
    config.save_pretrained(folder)


def write_perception_files(
    folder: Path, *, model: AuroraLlamaForCausalLM, weights: Mapping[str, Tensor], final_folder: Path
) -> None:
    """Writes the card, the kinds' files and a trained tower into `folder`, which will stand at `final_folder`.

    Last, after config.json: that also gets the names under which older libraries read it.
    """
    write_old_rope_names(folder)
    write_text(folder / "README.md", model_card(model))
    if model.perception is not None:
        model.perception.save_files(folder)
    if not getattr(model.config, "mm_vision_tower_trained", False):
        return
    tower = model.get_vision_tower()
    own = {name.split(TOWER_PREFIX)[1]: tensor.clone() for name, tensor in weights.items() if TOWER_PREFIX in name}
    final = Path(*(part for part in final_folder.absolute().parts if not part.startswith(STAGING_PREFIX)))
    if own:
        save_tower(tower.vision_tower, folder / VISION_TOWER_FOLDER, own)
        tower.image_processor.save_pretrained(folder / VISION_TOWER_FOLDER)
    else:  # trained in a run before, and frozen in this one, which keeps it beside LoRA all the same
        shutil.copytree(tower.vision_tower_name, folder / VISION_TOWER_FOLDER, dirs_exist_ok=True)
    config_file = folder / "config.json"
    own_path = {"mm_vision_tower": str(final / VISION_TOWER_FOLDER)}  # for upstream's loader; ours finds it by itself
    write_json(config_file, read_json(config_file, what="model configuration") | own_path)
