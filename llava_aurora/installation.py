"""The installation: versions and patches that the plugin needs, what is there, and the attention kernel to train with.

What is missing or of another version is an error that says what was expected, what was found, and the remedy.
"""

import importlib.metadata
import importlib.util
from dataclasses import dataclass
from pathlib import Path

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


def check_patched() -> None:
    """Raises AuroraError for the first patch that is not applied to the installed LLaVA, naming the remedy."""
    source = installed_source()
    for patch, state in patch_queue.status(source).items():
        if state is not patch_queue.State.APPLIED:
            raise AuroraError(f"{source}/llava: patch {patch.name} is {state.value}, not applied; {REMEDY}")
