"""Recipes: the default flags of each training script. Nothing heavy is imported here.

`scripts/finetune_aurora_lora.sh` uses `aurora_lora`, `scripts/pretrain_aurora.sh` uses `pretrain`, and
`scripts/finetune_aurora.sh` has no defaults of its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from llava_aurora.errors import AuroraError
from llava_aurora.training.legacy_flags import RENAMED


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The default flags of one training script."""

    name: str  # of the recipe
    title: str  # what it trains, in one line
    script: str  # that uses it, relative to the repository
    needs: tuple[str, ...]  # flags that have no default and must be given
    example: str  # the flags of a typical call
    deepspeed: str | None = None  # name of a file in deepspeed_configs/
    flags: Mapping[str, str]  # all others, by name

    def defaults(self, root: Path) -> dict[str, str]:
        """All flags as text; `root` is the repository, where the DeepSpeed configuration is."""
        config = {"deepspeed": str(root / "deepspeed_configs" / self.deepspeed)} if self.deepspeed else {}
        return {**config, **self.flags}


def _flags(text: str) -> dict[str, str]:
    """Flags with one value each, by name."""
    words = text.split()
    return {flag.removeprefix("--"): value for flag, value in zip(words[::2], words[1::2], strict=True)}


# From LLaVA-1.5's scripts: CLIP tower and projector, memory, schedule, log.
_LLAVA_15 = """
    --vision_tower openai/clip-vit-large-patch14-336 --mm_vision_select_layer -2 --mm_projector_type mlp2x_gelu
    --mm_use_im_start_end False --mm_use_im_patch_token False --model_max_length 2048
    --bf16 True --tf32 True --gradient_checkpointing True --dataloader_num_workers 4 --lazy_preprocess True
    --weight_decay 0.0 --warmup_ratio 0.03 --lr_scheduler_type cosine --logging_steps 1
"""

DROP_IN = Recipe(
    name="",
    title="LLaVA's fine-tuning with perception tokens, without default flags",
    script="scripts/finetune_aurora.sh",
    needs=("model_name_or_path", "data_path"),
    example="--model_name_or_path liuhaotian/llava-v1.5-13b --version v1 --data_path train.json --image_folder images"
    " --vision_tower openai/clip-vit-large-patch14-336 --mm_vision_select_layer -2 --mm_projector_type mlp2x_gelu"
    " --mm_use_im_start_end False --mm_use_im_patch_token False --perception_modalities depth,box"
    " --depth_vqvae path/to/vqvae --bf16 True --deepspeed deepspeed_configs/zero3.json --output_dir checkpoints/mine",
    flags={},
)

_RECIPES = (
    # Source: AURORA (arXiv 2412.03548) and its supplement, which also trains the words' rows (--train_base_vocabulary
    # True): gigabytes of gradients and optimizer states, where the new rows alone need megabytes. Batches are grouped
    # by length, as in LLaVA's own scripts.
    Recipe(
        name="aurora_lora",
        title="AURORA as in the paper: LoRA on LLaVA-1.5-13B with depth and box tokens, by a curriculum of ten epochs",
        script="scripts/finetune_aurora_lora.sh",
        needs=("data_path",),
        example="--data_path train.json --image_folder images --depth_vqvae path/to/vqvae",
        deepspeed="zero3.json",
        flags=_flags(
            f"""
            --model_name_or_path liuhaotian/llava-v1.5-13b --version v1 {_LLAVA_15}
            --image_aspect_ratio pad --perception_modalities depth,box --curriculum linear
            --group_by_modality_length True --lora_enable True --lora_r 128 --lora_alpha 256
            --learning_rate 0.0002 --mm_projector_lr 2e-05 --num_train_epochs 10
            --per_device_train_batch_size 16 --gradient_accumulation_steps 1
            --save_strategy steps --save_steps 200 --save_total_limit 2 --output_dir checkpoints/llava-aurora-13b-lora
            """
        ),
    ),
    # Source: LLaVA's scripts/v1_5/pretrain.sh.
    Recipe(
        name="pretrain",
        title="LLaVA-1.5's first stage: the projector alone, between CLIP and Vicuna-13B",
        script="scripts/pretrain_aurora.sh",
        needs=("data_path",),
        example="--data_path blip_laion_cc_sbu_558k.json --image_folder images",
        deepspeed="zero2.json",
        flags=_flags(
            f"""
            --model_name_or_path lmsys/vicuna-13b-v1.5 --version plain {_LLAVA_15}
            --tune_mm_mlp_adapter True --learning_rate 0.001 --num_train_epochs 1
            --per_device_train_batch_size 32 --gradient_accumulation_steps 1
            --save_strategy steps --save_steps 24000 --save_total_limit 1 --output_dir checkpoints/llava-13b-pretrain
            """
        ),
    ),
)
RECIPES = {recipe.name: recipe for recipe in _RECIPES}


def find_recipe(name: str | None) -> Recipe:
    """The recipe of this name; without a name, the one that has no defaults.

    Raises AuroraError if there is none of this name.
    """
    if name is None:
        return DROP_IN
    if name not in RECIPES:
        raise AuroraError(f"unknown recipe {name!r}; available: {', '.join(RECIPES)}")
    return RECIPES[name]


def given(arguments: Sequence[str]) -> set[str]:
    """Names of the flags on a command line, in the installed transformers' spelling, without `--` and `--no_`.

    `--eval-strategy no`, `--evaluation_strategy=no` and `--eval_strategy no` all give `eval_strategy`.
    """
    names = set()
    for argument in arguments:
        if argument.startswith("--"):
            flag = "--" + argument[2:].partition("=")[0].replace("-", "_")
            names.add(RENAMED.get(flag, flag)[2:].removeprefix("no_"))
    return names


def fill(arguments: Sequence[str], defaults: Mapping[str, str]) -> list[str]:
    """Adds each default whose flag is not on the command line.

    Defaults come first, since of a flag that is given twice the last one counts. An abbreviation (`--learning_ra 1`) is
    not recognised here.
    """
    known = given(arguments)
    return [f"--{name}={value}" for name, value in defaults.items() if name not in known] + list(arguments)


def missing(arguments: Sequence[str], needs: Sequence[str]) -> list[str]:
    """The needed flags that are not on the command line, where they may be abbreviated."""
    known = given(arguments) - {""}
    return [name for name in needs if not any(name.startswith(flag) for flag in known)]
