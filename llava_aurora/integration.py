"""Attaches the plugin to LLaVA: checks versions and patches, and replaces names in `llava.train.train`.

No other file assigns to `llava.*`. `train()` in `llava/train/train.py` looks a few names up in its module when it is
called: `register()` sets them to our subclasses, `unregister()` back to the originals. What is missing or of another
version raises an error with what was expected, what was found, and the command that repairs it.
"""

import importlib.metadata
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.specifiers import SpecifierSet

from llava_aurora import patch_queue
from llava_aurora.errors import AuroraError

# The versions that the plugin was tested with. Outside these ranges something is known to break or, as transformers 5
# renames within its minors, nothing was tried; see setup.cfg.
REQUIRED = {
    "llava-torch": "==1.2.2.post1",
    "transformers": ">=4.57.6,<4.58 or >=5.24,<5.25",
    "torch": ">=2.6",
    "deepspeed": ">=0.19.8",
    "accelerate": ">=1.12,<1.16",
    "peft": ">=0.17",
}
REMEDY = "run `bash scripts/setup.sh`"

_originals: dict[str, Any] = {}


@dataclass(frozen=True)
class Version:
    """The version of a package that is required, and the one that is installed (None if there is none)."""

    package: str
    required: str
    found: str | None

    @property
    def fits(self) -> bool:
        ranges = map(SpecifierSet, self.required.split(" or "))
        return self.found is not None and any(each.contains(self.found, prereleases=True) for each in ranges)


def versions() -> list[Version]:
    """Required and installed versions of every package, found without importing any of them."""
    return [Version(package, required, _installed(package)) for package, required in REQUIRED.items()]


def check_versions() -> None:
    """Raises AuroraError for the first package that does not fit, naming both versions and the remedy."""
    for version in versions():
        if not version.fits:
            raise AuroraError(
                f"{version.package}{version.required} is needed, {version.found or 'none'} is installed; {REMEDY}"
            )


def register() -> None:
    """Makes LLaVA's train() build our model, trainer and dataset. A second call does nothing.

    Raises AuroraError if a version does not fit, a patch is not applied, or a name that is to be replaced is missing.
    """
    if _originals:
        return
    check_versions()
    _check_patched()
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


def is_registered() -> bool:
    return bool(_originals)


def attention_kernel() -> tuple[str, str]:
    """The attention implementation to train with, and why: FlashAttention 2 where it can run, else PyTorch's."""
    import torch
    from transformers.utils import is_flash_attn_2_available

    if not torch.cuda.is_available():
        return "sdpa", "no CUDA device; PyTorch's scaled_dot_product_attention runs on every device"
    if is_flash_attn_2_available():
        return "flash_attention_2", "flash-attn is installed and there is a CUDA device"
    return (
        "sdpa",
        "no flash-attn (pip install 'llava-aurora[flash]'); PyTorch has a flash kernel of its own",
    )


def _installed(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def installed_source() -> Path:
    """The folder that contains the installed `llava/`. Nothing of LLaVA is imported."""
    found = importlib.util.find_spec("llava")
    if found is None or not found.submodule_search_locations:
        raise AuroraError(f"LLaVA is not installed; {REMEDY}")
    return Path(next(iter(found.submodule_search_locations))).parent


def _check_patched() -> None:
    source = installed_source()
    for patch, state in patch_queue.status(source).items():
        if state is not patch_queue.State.APPLIED:
            raise AuroraError(f"{source}/llava: patch {patch.name} is {state.value}, not applied; {REMEDY}")
