"""Training flags in old spellings or that cannot work here, changed before parsing, with a warning for each change.

LLaVA's own scripts were written for transformers 4.31 and run as they are; compatibility.py has the flags that the
installed release has dropped.
"""

import importlib.util
from collections.abc import Sequence

from llava_aurora.errors import AuroraError

RENAMED = {"--evaluation_strategy": "--eval_strategy"}
# Flags that are not read, and what does their work here.
REPLACED = {
    "--depth_data": "--perception_modalities depth --depth_vqvae FOLDER",
    "--coordinates_data": "--perception_modalities box (depth,box for both)",
    "--annealing_data": "--shuffle False --num_train_epochs 1 for a file with all epochs in it, or --curriculum linear",
    "--custom_image_size": "--image_aspect_ratio resize, and --coordinate_frame for another frame than 336",
}


def translate(arguments: Sequence[str], *, cuda: bool, tf32: bool) -> tuple[list[str], list[str]]:
    """Translates a command line.

    Args:
        arguments: flags and values, as in sys.argv[1:]; "--flag value" and "--flag=value" are both understood.
        cuda: whether there is a CUDA device.
        tf32: whether it can compute in TF32.
    Returns the new command line, and for each change what was changed to what, and why.
    Raises AuroraError for one of REPLACED, naming what replaces it.
    """
    for flag, _ in _pairs(arguments):
        if flag in REPLACED:
            raise AuroraError(f"{flag} is not supported; use {REPLACED[flag]}")
    from llava_aurora.compatibility import present_flags

    pairs, notes = present_flags(_pairs(arguments))
    translated: list[str] = []
    given = {flag for flag, _ in pairs}
    for flag, values in pairs:
        new_flag, new_values, reason = flag, values, ""
        if flag in RENAMED:
            new_flag, reason = RENAMED[flag], "transformers renamed it"
        elif flag == "--tf32" and _is_true(values) and not tf32:
            new_values, reason = ["False"], "no GPU here computes in TF32"
        elif flag == "--bf16" and _is_true(values) and not cuda and "--deepspeed" in given:
            new_values, reason = ["False"], "transformers refuses it under DeepSpeed without a CUDA device"
        elif flag == "--report_to" and "wandb" in values and importlib.util.find_spec("wandb") is None:
            new_values = list(dict.fromkeys(value if value != "wandb" else "tensorboard" for value in values))
            reason = "wandb is not installed (pip install wandb)"
        if reason:
            notes.append(f"{' '.join([flag, *values])} to {' '.join([new_flag, *new_values])} because {reason}")
        translated += [new_flag, *new_values] if new_flag else new_values
    bf16 = any(flag == "--bf16" and _is_true(values) for flag, values in pairs)
    if bf16 and not cuda and not given & {"--deepspeed", "--use_cpu"}:
        translated += ["--use_cpu", "True"]
        notes.append("--bf16 True to --bf16 True --use_cpu True because there is no CUDA device")
    return translated, notes


def _pairs(arguments: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Groups a command line into (flag, values); values before the first flag come under ""."""
    pairs: list[tuple[str, list[str]]] = []
    for argument in arguments:
        if argument.startswith("--"):
            flag, equals, value = argument.partition("=")
            pairs.append((flag, [value] if equals else []))
        elif pairs:
            pairs[-1][1].append(argument)
        else:
            pairs.append(("", [argument]))
    return pairs


def _is_true(values: Sequence[str]) -> bool:
    """A flag without a value is switched on, as HfArgumentParser reads it."""
    return not values or values[0].lower() in ("true", "1", "yes", "y", "t")
