"""Old spellings of LLaVA's training flags, translated to what the installed transformers understands.

LLaVA's own scripts were written for transformers 4.31. So that they run as they are, each flag that would be refused is
replaced before parsing, and one line says so.
"""

import importlib.util
from collections.abc import Sequence

RENAMED = {"--evaluation_strategy": "--eval_strategy"}


def translate(arguments: Sequence[str], *, cuda: bool, tf32: bool) -> tuple[list[str], list[str]]:
    """Translates a command line.

    Args:
        arguments: flags and values, as in sys.argv[1:]; "--flag value" and "--flag=value" are both understood.
        cuda: whether there is a CUDA device.
        tf32: whether it can compute in TF32.

    Returns:
        the new command line, and a note for each change.
    """
    translated: list[str] = []
    notes: list[str] = []
    pairs = _pairs(arguments)
    given = {flag for flag, _ in pairs}
    for flag, values in pairs:
        new_flag, new_values = flag, values
        if flag in RENAMED:
            new_flag = RENAMED[flag]
        elif flag == "--tf32" and _is_true(values) and not tf32:
            new_values = ["False"]
        elif flag == "--bf16" and _is_true(values) and not cuda and "--deepspeed" in given:
            new_values = ["False"]  # transformers refuses bf16 under DeepSpeed without a GPU
        elif flag == "--report_to" and "wandb" in values and importlib.util.find_spec("wandb") is None:
            new_values = [value for value in values if value != "wandb"] or ["none"]
        if (new_flag, new_values) != (flag, values):
            notes.append(f"{' '.join([flag, *values])} -> {' '.join([new_flag, *new_values])}")
        translated += [new_flag, *new_values] if new_flag else new_values
    bf16 = any(flag == "--bf16" and _is_true(values) for flag, values in pairs)
    if bf16 and not cuda and not given & {"--deepspeed", "--use_cpu"}:
        translated += ["--use_cpu", "True"]
        notes.append("--bf16 without a CUDA device -> --use_cpu True added")
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
