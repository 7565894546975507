"""Attaches the plugin to LLaVA: replaces names in `llava.train.train`, when versions and patches fit.

No other file assigns to `llava.*`. `train()` in `llava/train/train.py` looks a few names up in its module when it is
called: `register()` sets them to our subclasses, `unregister()` back to the originals.
"""

from typing import Any

from llava_aurora.errors import AuroraError
from llava_aurora.installation import REMEDY, check_patched, check_versions

_originals: dict[str, Any] = {}


def register() -> None:
    """Makes LLaVA's train() build our model, trainer and dataset. A second call does nothing.

    Raises AuroraError if a version does not fit, a patch is not applied, or a name that is to be replaced is missing.
    """
    if _originals:
        return
    check_versions()
    check_patched()
    from llava.train import train as upstream

    from llava_aurora import configuration
    from llava_aurora.data.dataset import make_supervised_data_module
    from llava_aurora.model.aurora_llama import AuroraLlamaForCausalLM
    from llava_aurora.training.trainer import AuroraTrainer, save_trained_model

    replacements = {
        "ModelArguments": configuration.ModelArguments,
        "DataArguments": configuration.DataArguments,
        "TrainingArguments": configuration.TrainingArguments,
        "LlavaLlamaForCausalLM": AuroraLlamaForCausalLM,
        "LLaVATrainer": AuroraTrainer,
        "make_supervised_data_module": make_supervised_data_module,
        "safe_save_model_for_hf_trainer": save_trained_model,
    }
    missing = [name for name in replacements if name not in vars(upstream)]
    if missing:
        raise AuroraError(f"{upstream.__file__}: has no {', '.join(missing)}, which LLaVA 1.2.2.post1 has; {REMEDY}")
    for name, replacement in replacements.items():
        _originals[name] = vars(upstream)[name]
        setattr(upstream, name, replacement)


def unregister() -> None:
    """Undoes `register()`; does nothing without it."""
    if not _originals:
        return
    from llava.train import train as upstream

    for name, original in _originals.items():
        setattr(upstream, name, original)
    _originals.clear()
